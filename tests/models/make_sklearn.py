#!/usr/bin/env python3
"""Turns a pipeline of scikit-learn into ONNX by skl2onnx: tests/fixtures/converted/sklearn.

    make_sklearn.py OUT_FOLDER

Measurements of wines are standardised, and six principal components are kept. Needs requirements-sklearn.txt.
OUT_FOLDER/golden.json holds what scikit-learn and onnxruntime make of some wines. OUT_FOLDER/scaler.onnx is the same with an
operator that the sidecar's runtime does not have.
"""

import argparse
from pathlib import Path

import numpy as np
from goldens import write
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    wines = load_wine().data.astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), PCA(6, svd_solver="full")).fit(wines)
    opset = {"": 18, "ai.onnx.ml": 3}
    # Without Scaler, skl2onnx subtracts and divides.
    model = to_onnx(pipeline, wines[:1], target_opset=opset, black_op={"Scaler"})
    some = wines[::30]
    write(arguments.out, model.SerializeToString(), "variable", some, pipeline.transform(some))
    refused = to_onnx(pipeline, wines[:1], target_opset=opset)
    (arguments.out / "scaler.onnx").write_bytes(refused.SerializeToString())


if __name__ == "__main__":
    main()
