#!/usr/bin/env python3
"""Fits a tabular embedding on scikit-learn's table of wines: examples/models/wine-pca8/model.onnx.

    make_wine_onnx.py WINE_DATA.CSV OUT.onnx

Each of the 13 measurements is standardised; the eight principal components are kept.

Input:   features   float32 [batch, 13], the batch free
Output:  embedding  float32 [batch, 8], not of length 1
"""

import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIMENSIONS = 8


def read(path):
    """The measurements of each wine; the first line is a head, the last column the wine's class."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip().split(",") for line in file][1:]
    return np.array([line[:-1] for line in lines], float)


def fit(wines):
    """Mean and deviation of each column, and the principal components of what is standardised by them."""
    mean, deviation = wines.mean(0), wines.std(0)
    _, _, components = np.linalg.svd((wines - mean) / deviation, full_matrices=False)
    components = components[:DIMENSIONS]
    # A component's sign is the solver's choice: its first value is made positive.
    return mean, deviation, components.T * np.sign(components[:, :1]).T


def model(mean, deviation, components):
    def constant(name, values):
        return numpy_helper.from_array(values.astype(np.float32), name)

    def port(name, size):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])

    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["features", "mean"], ["c"]),
            helper.make_node("Div", ["c", "std"], ["z"]),
            helper.make_node("MatMul", ["z", "pca"], ["embedding"]),
        ],
        "wine",
        [port("features", len(mean))],
        [port("embedding", DIMENSIONS)],
        [constant("mean", mean), constant("std", deviation), constant("pca", components)],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
        producer_name="make_tabular_onnx",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wines")
    parser.add_argument("out")
    arguments = parser.parse_args()
    made = model(*fit(read(arguments.wines)))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, arguments.out)


if __name__ == "__main__":
    main()
