#!/usr/bin/env python3
"""Writes all-MiniLM-L6-v2 as ONNX from its safetensors weights, with numpy and onnx alone.

    make_minilm_onnx.py MODEL_DIR OUT.onnx

MODEL_DIR holds config.json and model.safetensors of a BERT sentence encoder.

Inputs:  input_ids, attention_mask, token_type_ids  int64 [batch, sequence], both axes free
Outputs: last_hidden_state   float32 [batch, sequence, hidden]
         sentence_embedding  float32 [batch, hidden], the mean over the mask, of length 1

For one version of onnx the output is the same to the byte, so its sha256 can be pinned. The order of nodes and
constants is a part of those bytes: keep it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class Graph:
    """Collects nodes and constants. Every node has one output, and its name."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def const(self, name, value):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


class Bert:
    """The encoder, in primitives of opset 13 that every runtime has."""

    def __init__(self, config, weights):
        if config.get("hidden_act", "gelu") != "gelu":
            raise SystemExit(f"hidden_act is {config['hidden_act']}, only gelu is known here")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise SystemExit("only absolute position embeddings are known here")
        self.config, self.weights = config, weights
        self.prefix = "" if "embeddings.word_embeddings.weight" in weights else "bert."
        self.hidden = config["hidden_size"]
        self.graph = Graph()

    def weight(self, key):
        return self.weights[self.prefix + key].astype(np.float32)

    def layer_norm(self, x, key, out):
        op, const = self.graph.op, self.graph.const
        mean = op("ReduceMean", [x], out + "_mu", axes=[-1], keepdims=1)
        centred = op("Sub", [x, mean], out + "_c")
        squared = op("Mul", [centred, centred], out + "_sq")
        variance = op("ReduceMean", [squared], out + "_var", axes=[-1], keepdims=1)
        deviation = op("Sqrt", [op("Add", [variance, "eps"], out + "_ve")], out + "_std")
        normal = op("Div", [centred, deviation], out + "_n")
        scaled = op("Mul", [normal, const(key + ".weight", self.weight(key + ".weight"))], out + "_g")
        return op("Add", [scaled, const(key + ".bias", self.weight(key + ".bias"))], out)

    def linear(self, x, key, out):
        op, const = self.graph.op, self.graph.const
        matrix = const(key + ".weight_t", self.weight(key + ".weight").T)
        product = op("MatMul", [x, matrix], out + "_mm")
        return op("Add", [product, const(key + ".bias", self.weight(key + ".bias"))], out)

    def shared_constants(self):
        const = self.graph.const
        heads = self.config["num_attention_heads"]
        size = self.hidden // heads
        const("one", np.float32(1))
        const("two", np.float32(2))
        const("half", np.float32(0.5))
        const("sqrt2", np.float32(np.sqrt(2)))
        const("eps", np.float32(self.config.get("layer_norm_eps", 1e-12)))
        const("scale", np.float32(1 / np.sqrt(size)))
        const("neg", np.float32(-10000.0))
        const("ax12", np.array([1, 2], np.int64))
        const("ax0", np.array([0], np.int64))
        const("axm1", np.array([-1], np.int64))
        const("split", np.array([0, 0, heads, size], np.int64))
        const("merge", np.array([0, 0, self.hidden], np.int64))
        for i in range(3):
            const(f"i{i}", np.array([i], np.int64))

    def embeddings(self):
        op, const = self.graph.op, self.graph.const
        words = const("word_embeddings", self.weight("embeddings.word_embeddings.weight"))
        word = op("Gather", [words, "input_ids"], "word_emb", axis=0)
        length = op("Slice", [op("Shape", ["input_ids"], "ids_shape"), "i1", "i2"], "seq_len")
        positions = const("position_embeddings", self.weight("embeddings.position_embeddings.weight"))
        position = op("Slice", [positions, "i0", "seq_len", "ax0"], "pos_emb")
        both = op("Add", [word, op("Unsqueeze", [position, "ax0"], "pos_emb3")], "wp_emb")
        types = const("token_type_embeddings", self.weight("embeddings.token_type_embeddings.weight"))
        token_type = op("Gather", [types, "token_type_ids"], "tt_emb", axis=0)
        return self.layer_norm(op("Add", [both, token_type], "sum_emb"), "embeddings.LayerNorm", "emb_ln")

    def additive_mask(self):
        """0 for a token, a large negative number for padding; shaped [batch, 1, 1, sequence]."""
        op = self.graph.op
        op("Cast", ["attention_mask"], "mask_f", to=TensorProto.FLOAT)
        inverse = op("Sub", ["one", "mask_f"], "mask_inv")
        op("Mul", [op("Unsqueeze", [inverse, "ax12"], "mask4"), "neg"], "mask_add")

    def attention(self, x, key, name):
        op = self.graph.op

        def heads(which, order):
            y = self.linear(x, f"{key}attention.self.{which}", name + which)
            split = op("Reshape", [y, "split"], name + which + "_r")
            return op("Transpose", [split], name + which + "_t", perm=order)

        query, keys, values = heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])
        scaled = op("Mul", [op("MatMul", [query, keys], name + "qk"), "scale"], name + "qks")
        scores = op("Add", [scaled, "mask_add"], name + "scores")
        context = op("MatMul", [op("Softmax", [scores], name + "att", axis=-1), values], name + "ctx")
        joined = op("Transpose", [context], name + "ctx_t", perm=[0, 2, 1, 3])
        merged = op("Reshape", [joined, "merge"], name + "ctx_r")
        return self.linear(merged, key + "attention.output.dense", name + "att_out")

    def feed_forward(self, x, key, name):
        """Two layers with the exact GELU between them."""
        op = self.graph.op
        h = self.linear(x, key + "intermediate.dense", name + "ffn1")
        erf = op("Erf", [op("Div", [h, "sqrt2"], name + "g_d")], name + "g_e")
        h = op("Mul", [h, op("Add", [erf, "one"], name + "g_1")], name + "g_m")
        return self.linear(op("Mul", [h, "half"], name + "gelu"), key + "output.dense", name + "ffn2")

    def pooled(self, hidden):
        op, const = self.graph.op, self.graph.const
        const("ax1", np.array([1], np.int64))
        const("tiny", np.float32(1e-9))
        mask = op("Unsqueeze", ["mask_f", "axm1"], "mask3")
        masked = op("Mul", [hidden, mask], "masked")
        total = op("ReduceSum", [masked, "ax1"], "pool_sum", keepdims=0)
        count = op("ReduceSum", [mask, "ax1"], "pool_cnt", keepdims=0)
        mean = op("Div", [total, op("Max", [count, "tiny"], "pool_den")], "pooled")
        squares = op("ReduceSum", [op("Mul", [mean, mean], "p2"), "axm1"], "p2s", keepdims=1)
        norm = op("Max", [op("Sqrt", [squares], "pnorm"), "tiny"], "pnorm_c")
        op("Div", [mean, norm], "sentence_embedding")

    def model(self):
        op = self.graph.op
        self.shared_constants()
        x = self.embeddings()
        self.additive_mask()
        for i in range(self.config["num_hidden_layers"]):
            key, name = f"encoder.layer.{i}.", f"l{i}_"
            x = op("Add", [self.attention(x, key, name), x], name + "res1")
            x = self.layer_norm(x, key + "attention.output.LayerNorm", name + "ln1")
            x = op("Add", [self.feed_forward(x, key, name), x], name + "res2")
            x = self.layer_norm(x, key + "output.LayerNorm", name + "ln2")
        op("Identity", [x], "last_hidden_state")
        self.pooled(x)
        return self.proto()

    def proto(self):
        info = helper.make_tensor_value_info
        inputs = [info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS]
        outputs = [
            info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", self.hidden]),
            info("sentence_embedding", TensorProto.FLOAT, ["batch", self.hidden]),
        ]
        used = {name for node in self.graph.nodes for name in node.input}
        constants = [c for c in self.graph.constants if c.name in used]
        graph = helper.make_graph(self.graph.nodes, "bert", inputs, outputs, constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 13)],
            producer_name="make_minilm_onnx",
            ir_version=8,
        )
        onnx.checker.check_model(model)
        return model


def main():
    parser = argparse.ArgumentParser(description="Writes a BERT sentence encoder as ONNX.")
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    config = json.loads((arguments.model_dir / "config.json").read_text())
    weights = load_file(arguments.model_dir / "model.safetensors")
    onnx.save(Bert(config, weights).model(), arguments.out)


if __name__ == "__main__":
    main()
