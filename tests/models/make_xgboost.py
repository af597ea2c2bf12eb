#!/usr/bin/env python3
"""Turns a classifier of XGBoost into ONNX by onnxmltools: tests/fixtures/converted/xgboost.

    make_xgboost.py OUT_FOLDER

Trees tell three kinds of wine apart; a wine's vector is the probability of each. Needs requirements-xgboost.txt.
OUT_FOLDER/golden.json holds what XGBoost and onnxruntime make of some wines.
"""

import argparse
from pathlib import Path

import numpy as np
from goldens import write
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_wine
from xgboost import XGBClassifier


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    wines, kinds = load_wine(return_X_y=True)
    wines = wines.astype(np.float32)
    trees = XGBClassifier(n_estimators=12, max_depth=3, learning_rate=0.3, random_state=7, n_jobs=1)
    trees.fit(wines, kinds)
    inputs = [("features", FloatTensorType([None, wines.shape[1]]))]
    # A name of its own would be made up anew each time.
    model = convert_xgboost(trees, name="wines", initial_types=inputs, target_opset=15)
    some = wines[::30]
    write(arguments.out, model.SerializeToString(), "probabilities", some, trees.predict_proba(some))


if __name__ == "__main__":
    main()
