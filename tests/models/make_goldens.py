#!/usr/bin/env python3
"""Makes small models of every kind of input, and what onnxruntime makes of some items with them.

    make_goldens.py OUT [--minilm FOLDER]

Weights are noise of a fixed seed; tokenizers are trained on examples/sentences.txt. OUT/goldens.json has a case for each
model: its manifest's `model` and `input` as far as they are known here, the files of its artifacts, the items, and for
each item the vector and what else a reply says of it. tests/serving/kinds.rs sends the items to a server of these models
and compares.

How rows are made of texts is written here once more, by lists of ids: nothing of the server is used. A kind of input is
one function that yields cases; KINDS lists them.
"""

import argparse
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SENTENCES = (ROOT / "examples/sentences.txt").read_text(encoding="utf-8").splitlines()
DIMENSIONS = 12
# As sidecar/src/model/tokenizer/whole.rs has them.
MOST_WINDOWS = 64
OVERLAP = 8

TEXTS = [
    "a",
    "Rain.",
    "The weather is lovely today.",
    "  Twice  the   spaces, and\ttabs\n",
    "Grüße aus Köln: 3 × 4 = ½ naïve café ﬁn, 漢字 и кириллица 🙂",
    *SENTENCES[:6],
]
LONG = " ".join(SENTENCES[:12])


def floats(name, values):
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def integers(name, values):
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(file, nodes, inputs, outputs, constants):
    """Writes a model; inputs and outputs are (name, element type, axes)."""
    graph = helper.make_graph(
        [helper.make_node(op, i, o, **attributes) for op, i, o, attributes in nodes],
        file.parent.name,
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def normalised(vector):
    vector = np.asarray(vector, np.float64)
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


def case(name, files, output, takes, items, results):
    return {"name": name, "files": files, "output": output, "input": takes, "items": items, "results": results}


# Texts


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator(SENTENCES, trainer)
    head, tail = trainer.special_tokens[1:3]
    ids = [(str(token), tokenizer.token_to_id(str(token))) for token in (head, tail)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{head} $A {tail}", special_tokens=ids)
    return tokenizer


def byte_pairs():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return trained(tokenizer, trainer)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<pad>", "<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    return trained(tokenizer, trainer)


def word_pieces():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]"], show_progress=False
    )
    return trained(tokenizer, trainer)


def write_text_model(file, vocabulary, ports, inside):
    """A model without attention: each token's vector, those of its place and its type, and the mean of all that are no
    padding. `ports` maps ids, mask and types to a name and an element type; `inside`: the mean alone comes out."""
    places = 64
    name, kind = ports["ids"]
    nodes = [
        ("Gather", ["table", name], ["words"], {}),
        ("Shape", [name], ["shape"], {}),
        ("Gather", ["shape", "one"], ["length"], {"axis": 0}),
        ("Slice", ["places", "zero", "length", "one"], ["here"], {}),
        ("Add", ["words", "here"], ["placed"], {}),
    ]
    constants = [
        floats("table", noise(1, vocabulary, DIMENSIONS)),
        floats("places", noise(2, 1, places, DIMENSIONS)),
        integers("one", [1]),
        integers("zero", [0]),
    ]
    last = "placed"
    if "types" in ports:
        constants.append(floats("kinds", noise(3, 2, DIMENSIONS)))
        nodes += [("Gather", ["kinds", ports["types"][0]], ["kind"], {}), ("Add", [last, "kind"], ["typed"], {})]
        last = "typed"
    if "mask" in ports:
        constants.append(integers("middle", [1]))
        constants.append(integers("end", [2]))
        nodes += [
            ("Cast", [ports["mask"][0]], ["mask_f"], {"to": TensorProto.FLOAT}),
            ("Unsqueeze", ["mask_f", "end"], ["mask_3"], {}),
            ("Mul", [last, "mask_3"], ["kept"], {}),
            ("ReduceSum", ["kept", "middle"], ["sum"], {"keepdims": 1}),
            ("ReduceSum", ["mask_3", "middle"], ["count"], {"keepdims": 1}),
            ("Div", ["sum", "count"], ["mean"], {}),
            ("Add", [last, "mean"], ["mixed"], {}),
        ]
        last = "mixed"
    if inside:
        nodes += [("Squeeze", ["mean", "middle"], ["pooled"], {})]
        outputs = [("pooled", TensorProto.FLOAT, ["batch", DIMENSIONS])]
    else:
        nodes.append(("Tanh", [last], ["last_hidden_state"], {}))
        outputs = [("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", DIMENSIONS])]
    inputs = [(name, kind, ["batch", "sequence"]) for name, kind in ports.values()]
    write(file, nodes, inputs, outputs, constants)


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def windows(tokenizer, prefix, text, most, overlong):
    """The rows of a text, and whether it was cut."""
    framed, plain = tokenizer.encode("a").ids, ids_of(tokenizer, "a")
    at = next(at for at in range(len(framed)) if framed[at : at + len(plain)] == plain)
    head, tail = framed[:at], framed[at + len(plain) :]
    room = most - len(head) - len(tail)
    encoding = tokenizer.encode(prefix + text, add_special_tokens=False)
    ids = encoding.ids
    if overlong == "Truncate":
        return [head + ids[:room] + tail], len(ids) > room
    of_prompt = 0
    while of_prompt < len(ids) and prefix and 0 < encoding.offsets[of_prompt][1] <= len(prefix):
        of_prompt += 1
    prompt, ids = ids[:of_prompt], ids[of_prompt:]
    room -= len(prompt)
    step = room - room // OVERLAP
    rows, start = [], 0
    while True:
        rows.append(head + prompt + ids[start : start + room] + tail)
        if start + room >= len(ids) or len(rows) == MOST_WINDOWS:
            return rows, start + room < len(ids)
        start += step


def vector_of_row(run, ports, output, row, pooling):
    values = {"ids": row, "mask": [1] * len(row), "types": [0] * len(row)}
    kinds = {TensorProto.INT64: np.int64, TensorProto.INT32: np.int32}
    feed = {name: np.array([values[role]], kinds[kind]) for role, (name, kind) in ports.items()}
    hidden = run.run([output], feed)[0][0]
    return {"None": lambda h: h, "Mean": lambda h: h.mean(0), "CLS": lambda h: h[0], "LastToken": lambda h: h[-1]}[
        pooling
    ](np.asarray(hidden, np.float64))


def text_case(name, files, tokenizer, ports, output, takes):
    """A case of a text model whose files are there."""
    run, made = session(files["model"]), output.get("name", session(files["model"]).get_outputs()[0].name)
    prefix = next((p["prefix"] for p in takes.get("prompts", []) if p["name"] == takes.get("defaultPrompt")), "")
    overlong, finish = takes.get("overlong", "Truncate"), output.get("normalization", "L2") == "L2"
    items, results = [], []
    for text in [*TEXTS, LONG, "one word and then " * 2000]:
        rows, cut = windows(tokenizer, prefix, text, takes["maxTokens"], overlong)
        vectors = [vector_of_row(run, ports, made, row, takes.get("pooling", "None")) for row in rows]
        if finish:
            vectors = [normalised(vector) for vector in vectors]
        vector = np.average(vectors, axis=0, weights=[len(row) for row in rows])
        items.append({"text": text})
        results.append({
            "vector": (normalised(vector) if finish else vector).tolist(),
            "tokens": sum(map(len, rows)),
            "chunks": len(rows) if len(rows) > 1 else 0,
            "truncated": cut,
        })
    return case(name, {key: str(file) for key, file in files.items()}, output, {"text": takes}, items, results)


def texts(out, minilm):
    wide, narrow = TensorProto.INT64, TensorProto.INT32
    prompt = {"prompts": [{"name": "query", "prefix": "query: "}], "defaultPrompt": "query"}
    cases = [
        ("bpe-mean", byte_pairs, {"ids": ("ids", wide)}, {"pooling": "Mean"}),
        ("bpe-one-input", byte_pairs, {"ids": ("input.1", narrow)}, {"pooling": "LastToken"}),
        (
            "bpe-cls",
            byte_pairs,
            {"ids": ("input_ids:0", narrow), "mask": ("attention_mask:0", narrow)},
            {"pooling": "CLS", **prompt},
        ),
        (
            "bpe-chunks",
            byte_pairs,
            {"mask": ("mask", wide), "ids": ("tokens", wide)},
            {"pooling": "Mean", "overlong": "Chunk", **prompt},
        ),
        (
            "unigram-last",
            unigram,
            {"ids": ("input_ids", wide), "types": ("token_type_ids", wide), "mask": ("attention_mask", narrow)},
            {"pooling": "LastToken"},
        ),
        (
            "unigram-chunks",
            unigram,
            {"ids": ("input_ids", wide), "mask": ("attention_mask", wide)},
            {"pooling": "CLS", "overlong": "Chunk"},
        ),
        (
            "words-inside",
            word_pieces,
            {"ids": ("input_word_ids", narrow), "mask": ("input_mask", narrow), "types": ("segment_ids", narrow)},
            {},
        ),
        (
            "words-chunks",
            word_pieces,
            {"ids": ("input_ids", wide), "mask": ("attention_mask", wide), "types": ("token_type_ids", wide)},
            {"overlong": "Chunk"},
        ),
    ]
    for name, kind, ports, takes in cases:
        folder = out / name
        folder.mkdir()
        files = {"model": folder / "model.onnx", "tokenizer": folder / "tokenizer.json"}
        tokenizer = kind()
        tokenizer.save(str(files["tokenizer"]))
        write_text_model(files["model"], tokenizer.get_vocab_size(), ports, "pooling" not in takes)
        output = {"dimensions": DIMENSIONS, "normalization": "None" if name == "unigram-chunks" else "L2"}
        yield text_case(name, files, tokenizer, ports, output, {"maxTokens": 24, **takes})
    if minilm is None:
        return
    files = {"model": minilm / "model.onnx", "tokenizer": minilm / "tokenizer.json"}
    tokenizer = Tokenizer.from_file(str(files["tokenizer"]))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ports = {"ids": ("input_ids", wide), "mask": ("attention_mask", wide), "types": ("token_type_ids", wide)}
    for name, takes in [
        ("minilm-mean", {"pooling": "Mean"}),
        ("minilm-cls", {"pooling": "CLS"}),
        ("minilm-last", {"pooling": "LastToken"}),
        ("minilm-chunks", {"pooling": "Mean", "overlong": "Chunk"}),
    ]:
        output = {"name": "last_hidden_state", "dimensions": 384}
        yield text_case(name, files, tokenizer, ports, output, {"maxTokens": 64, **takes})


# Tensors


def tensors(out, _minilm):
    kinds = {
        "Float32": (TensorProto.FLOAT, np.float32),
        "Float64": (TensorProto.DOUBLE, np.float64),
        "Int32": (TensorProto.INT32, np.int32),
        "Int64": (TensorProto.INT64, np.int64),
        "Uint8": (TensorProto.UINT8, np.uint8),
        "Int8": (TensorProto.INT8, np.int8),
        "Bool": (TensorProto.BOOL, np.bool_),
    }
    for name, (kind, dtype) in kinds.items():
        folder = out / f"tensor-{name.lower()}"
        folder.mkdir()
        file, shape = folder / "model.onnx", [2, 3, 4]
        write(
            file,
            [
                ("Cast", ["values"], ["floats"], {"to": TensorProto.FLOAT}),
                ("Mul", ["floats", "scale"], ["scaled"], {}),
                ("Flatten", ["scaled"], ["flat"], {"axis": 1}),
                ("MatMul", ["flat", "weights"], ["sums"], {}),
                ("Tanh", ["sums"], ["embedding"], {}),
            ],
            [("values", kind, ["batch", *shape])],
            [("embedding", TensorProto.FLOAT, ["batch", DIMENSIONS])],
            [floats("scale", [0.01]), floats("weights", noise(4, 24, DIMENSIONS))],
        )
        random, run = np.random.default_rng(5), session(file)
        items, results = [], []
        for _ in range(5):
            if dtype is np.bool_:
                values = random.integers(0, 2, shape).astype(dtype)
            elif np.issubdtype(dtype, np.integer):
                bounds = np.iinfo(dtype)
                values = random.integers(max(bounds.min, -1000), min(bounds.max, 1000), shape, endpoint=True)
                values = values.astype(dtype)
            else:
                values = (100 * random.standard_normal(shape)).astype(dtype)
            vector = run.run(["embedding"], {"values": values[None]})[0][0]
            little = values.astype(values.dtype.newbyteorder("<"))
            items.append({"tensor": {"dtype": name, "shape": shape, "data": little.tobytes().hex()}})
            results.append({"vector": normalised(vector).tolist()})
        takes = {"tensor": {"shape": shape, "dtype": name}}
        yield case(folder.name, {"model": str(file)}, {"dimensions": DIMENSIONS}, takes, items, results)


# Categories


def categories(out, _minilm):
    ids = [*(f"shop/{number:03}" for number in range(60)), "Ä ö ü", "a", "A", " a", "漢字", "x" * 1024]
    for name, kind, axes, dtype in [
        ("category", TensorProto.INT64, ["batch"], np.int64),
        ("category-boxed", TensorProto.INT32, ["batch", 1], np.int32),
    ]:
        folder = out / name
        folder.mkdir()
        files = {"model": folder / "model.onnx", "vocabulary": folder / "vocabulary.txt"}
        end = "\r\n" if name == "category-boxed" else "\n"
        files["vocabulary"].write_bytes("".join(one + end for one in ids).encode())
        write(
            files["model"],
            [("Gather", ["table", "id"], ["rows"], {}), ("Tanh", ["rows"], ["embedding"], {})],
            [("id", kind, axes)],
            [("embedding", TensorProto.FLOAT, [*axes, DIMENSIONS])],
            [floats("table", noise(6, len(ids) + 1, DIMENSIONS))],
        )
        run = session(files["model"])
        asked = [*ids[:5], *ids[60:], "shop/060", "shop/1", "ä ö ü", "a ", "unknown"]
        results = []
        for one in asked:
            row = ids.index(one) + 1 if one in ids else 0
            index = np.full([1] * len(axes), row, dtype)
            vector = run.run(["embedding"], {"id": index})[0].reshape(-1)
            results.append({"vector": normalised(vector).tolist(), "unknown": row == 0})
        items = [{"category": one} for one in asked]
        paths = {key: str(file) for key, file in files.items()}
        yield case(name, paths, {"dimensions": DIMENSIONS}, {"categorical": {}}, items, results)


KINDS = [texts, tensors, categories]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--minilm", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out.resolve()
    cases = [one for kind in KINDS for one in kind(out, arguments.minilm)]
    (out / "goldens.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")
    print(f"{len(cases)} models, {sum(len(one['items']) for one in cases)} items")


if __name__ == "__main__":
    main()
