#!/usr/bin/env python3
"""Makes a model of categories: examples/models/countries, a vector for each of 127 countries.

    make_countries_onnx.py OUT_FOLDER

The vectors are made up: countries of one region share a direction, and each adds noise of its own, the same every time.
They stand for what a training job learns of ids, and are no statement about countries.

Input:   category   int64 [batch]: the row of an id, which is its line in the vocabulary, counted from 1; 0 for any other
Output:  embedding  float32 [batch, 8], of length 1
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Two letters each, as ISO 3166-1 has them, by the regions of the United Nations' M49.
REGIONS = [
    "AO BF BI BJ BW CD CG CI CM DJ EG ER ET GA GH GM GN KE LR LS LY MA MG ML MR MW MZ NA NE NG RW SD SN SO SZ TD TG TN TZ UG ZA ZM ZW",
    "AR BO BR BZ CA CL CO CR CU DO EC GT GY HN HT JM MX NI PA PE PY SR SV US UY VE",
    "AF AM AZ BD BN BT CN GE ID IN IQ IR JP KG KH KR KZ LA LK MM MN MY NP PH PK TH TR UZ VN YE",
    "AL AT BE BG CH CZ DE DK EE ES FI FR GB GR HU IE IS IT LT NO PL PT RO SE",
    "AU FJ NZ PG",
]
DIMENSIONS = 8
NOISE = 0.2


def table():
    """The ids, in the order of the alphabet, and their vectors. Row 0 is that of unknown ids: the mean of all."""
    noise = np.random.default_rng(7)
    rows = {}
    for direction, region in zip(np.eye(DIMENSIONS), REGIONS):
        for country in region.split():
            rows[country] = direction + noise.normal(scale=NOISE, size=DIMENSIONS)
    ids = sorted(rows)
    vectors = np.stack([rows[country] / np.linalg.norm(rows[country]) for country in ids])
    mean = vectors.mean(0)
    return ids, np.concatenate([[mean / np.linalg.norm(mean)], vectors]).astype(np.float32)


def model(vectors):
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["vectors", "category"], ["embedding"], axis=0)],
            "countries",
            [helper.make_tensor_value_info("category", TensorProto.INT64, ["batch"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIMENSIONS])],
            [numpy_helper.from_array(vectors, "vectors")],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
        producer_name="make_countries_onnx",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    ids, vectors = table()
    made = model(vectors)
    onnx.checker.check_model(made, full_check=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "vocabulary.txt").write_text("\n".join(ids) + "\n", encoding="ascii")
    onnx.save(made, arguments.out / "model.onnx")


if __name__ == "__main__":
    main()
