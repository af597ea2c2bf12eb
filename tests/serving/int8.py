"""int8.py FOLDER: a line of JSON for each line of standard input: the vector that onnxruntime gives for it, alone, by the
mean over its tokens and of length 1. FOLDER has model.onnx and tokenizer.json."""

import json
import sys

import numpy
import onnxruntime
import tokenizers

folder = sys.argv[1]
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.no_padding()
tokenizer.no_truncation()
names = {port.name for port in session.get_inputs()}

for line in sys.stdin:
    ids = numpy.array([tokenizer.encode(line.rstrip("\n")).ids], dtype=numpy.int64)
    feed = {
        "input_ids": ids,
        "attention_mask": numpy.ones_like(ids),
        "token_type_ids": numpy.zeros_like(ids),
    }
    hidden = session.run(None, {name: feed[name] for name in names})[0][0]
    vector = hidden.mean(axis=0)
    print(json.dumps((vector / numpy.linalg.norm(vector)).tolist()), flush=True)
