#!/usr/bin/env python3
"""Turns a SavedModel of TensorFlow into ONNX by tf2onnx: tests/fixtures/converted/tensorflow.

    make_tensorflow.py OUT_FOLDER

A small tower of dense layers, whose weights are noise, and whose vectors have length 1. Needs
requirements-tensorflow.txt. OUT_FOLDER/golden.json holds what TensorFlow and onnxruntime make of some tensors.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf
from goldens import write

FEATURES, HIDDEN, DIMENSIONS = 13, 24, 8


class Tower(tf.Module):
    def __init__(self):
        super().__init__()
        noise = np.random.default_rng(7)
        weights = lambda *shape: tf.Variable(noise.normal(0, shape[0] ** -0.5, shape).astype(np.float32))
        self.first, self.shift, self.second = weights(FEATURES, HIDDEN), weights(HIDDEN), weights(HIDDEN, DIMENSIONS)

    @tf.function(input_signature=[tf.TensorSpec([None, FEATURES], tf.float32, "features")])
    def __call__(self, features):
        hidden = tf.nn.swish(features @ self.first + self.shift)
        return {"embedding": tf.nn.l2_normalize(hidden @ self.second, axis=-1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    tower = Tower()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tower, f"{folder}/saved", signatures=tower.__call__)
        convert = ["tf2onnx.convert", "--saved-model", "saved", "--output", "model.onnx", "--opset", "17"]
        # In the folder, whose name would stand in the file.
        subprocess.run([sys.executable, "-m", *convert], check=True, cwd=folder)
        model = Path(folder, "model.onnx").read_bytes()
    some = np.random.default_rng(8).normal(0, 1, (6, FEATURES)).astype(np.float32)
    write(arguments.out, model, "embedding", some, tower(some)["embedding"].numpy())


if __name__ == "__main__":
    main()
