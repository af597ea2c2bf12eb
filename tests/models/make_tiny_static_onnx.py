#!/usr/bin/env python3
"""Distils a sentence encoder into a table of one vector a token: examples/models/tiny-static-minilm/model.onnx.

    make_tiny_static_onnx.py ENCODER.onnx TOKENIZER.json OUT.onnx

Each token of the vocabulary goes through the encoder alone, as [CLS] token [SEP]; the mean of the outputs is its
vector. The vectors are centred, cut to 128 dimensions by principal components, and weighted so that common words
count less. A text's vector is then the sum of its tokens' vectors, made of length 1: no attention, no order of words.

Inputs:  input_ids, attention_mask  int64 [batch, sequence], both axes free
Output:  sentence_embedding  float32 [batch, 128]
"""

import argparse

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

DIMENSIONS = 128
# The weight of a word of probability p is SMOOTHING / (SMOOTHING + p): Arora, Liang, Ma: A Simple but Tough-to-Beat
# Baseline for Sentence Embeddings (2017).
SMOOTHING = 1e-4
PUNCTUATION_WEIGHT = 0.05
TOKENS_A_RUN = 512


def token_vectors(encoder, tokenizer):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(encoder, options, providers=["CPUExecutionProvider"])
    wanted = [i.name for i in session.get_inputs()]
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    size, parts = tokenizer.get_vocab_size(), []
    for start in range(0, size, TOKENS_A_RUN):
        ids = np.arange(start, min(size, start + TOKENS_A_RUN), dtype=np.int64)[:, None]
        rows = np.concatenate([np.full_like(ids, cls), ids, np.full_like(ids, sep)], 1)
        feed = {"input_ids": rows, "attention_mask": np.ones_like(rows), "token_type_ids": np.zeros_like(rows)}
        hidden = session.run(["last_hidden_state"], {name: feed[name] for name in wanted})[0]
        parts.append(hidden.mean(1))
    return np.concatenate(parts).astype(np.float64)


def is_special(token):
    return len(token) > 1 and token.startswith("[") and token.endswith("]")


def table(encoder, tokenizer):
    vectors = token_vectors(encoder, tokenizer)
    size = len(vectors)
    tokens = [tokenizer.id_to_token(i) for i in range(size)]
    real = [i for i in range(size) if not is_special(tokens[i])]
    centred = vectors - vectors[real].mean(0)
    _, components = np.linalg.eigh(centred[real].T @ centred[real])
    components = components[:, ::-1][:, :DIMENSIONS]
    # An eigenvector's sign is free: the largest value is made positive, so that every run gives the same table.
    components *= np.sign(components[np.abs(components).argmax(0), range(DIMENSIONS)])
    rows = centred @ components
    # BERT's vocabulary: special and unused ids, single characters, then words by falling frequency from "the" on.
    first, ids = tokenizer.token_to_id("the") or 0, np.arange(size)
    rank = np.where(ids >= first, ids - first + 1, size).astype(np.float64)
    probability = 1 / rank
    probability /= probability[first:].sum()
    rows *= (SMOOTHING / (SMOOTHING + probability))[:, None]
    rows[[i for i in range(size) if not any(c.isalnum() for c in tokens[i])]] *= PUNCTUATION_WEIGHT
    rows[sorted(set(range(size)) - set(real))] = 0
    return rows.astype(np.float32)


def model(rows):
    nodes, constants = [], []

    def const(name, value):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    const("ax1", np.array([1], np.int64))
    const("axm1", np.array([-1], np.int64))
    const("tiny", np.float32(1e-9))
    # int8 with one scale a row: a quarter of the size of float32.
    scales = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-12) / 127
    quantized = const("table_i8", np.round(rows / scales).astype(np.int8))
    values = op("Cast", [op("Gather", [quantized, "input_ids"], "rows", axis=0)], "rows_q", to=TensorProto.FLOAT)
    scale = op("Gather", [const("row_scale", scales.astype(np.float32)), "input_ids"], "scales", axis=0)
    values = op("Mul", [values, scale], "rows_f")
    mask = op("Unsqueeze", [op("Cast", ["attention_mask"], "mask_f", to=TensorProto.FLOAT), "axm1"], "mask3")
    total = op("ReduceSum", [op("Mul", [values, mask], "masked"), "ax1"], "sum", keepdims=0)
    squares = op("ReduceSum", [op("Mul", [total, total], "s2"), "axm1"], "s2s", keepdims=1)
    norm = op("Max", [op("Sqrt", [squares], "norm"), "tiny"], "norm_c")
    op("Div", [total, norm], "sentence_embedding")
    info = helper.make_tensor_value_info
    inputs = [info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")]
    output = info("sentence_embedding", TensorProto.FLOAT, ["batch", rows.shape[1]])
    made = helper.make_model(
        helper.make_graph(nodes, "tiny_static", inputs, [output], constants),
        opset_imports=[helper.make_opsetid("", 13)],
        producer_name="make_tiny_static_onnx",
        ir_version=8,
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def main():
    parser = argparse.ArgumentParser(description="Distils a sentence encoder into a table of token vectors.")
    parser.add_argument("encoder")
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    arguments = parser.parse_args()
    onnx.save(model(table(arguments.encoder, Tokenizer.from_file(arguments.tokenizer))), arguments.out)


if __name__ == "__main__":
    main()
