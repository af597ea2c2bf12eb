"""Writes a model that was converted, and what its library and onnxruntime make of some tensors."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime


def write(folder, model, output, tensors, library):
    """`model` is the file, `output` the name of the vectors, `library` what the library itself made of the tensors."""
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [port] = session.get_inputs()
    vectors = np.concatenate([session.run([output], {port.name: tensors[n : n + 1]})[0] for n in range(len(tensors))])
    furthest = float(np.abs(vectors - library).max())
    if vectors.shape != library.shape or furthest > 1e-4:
        raise SystemExit(f"onnxruntime gives other vectors than the library: they differ by {furthest}")
    golden = {
        "sha256": hashlib.sha256(model).hexdigest(),
        "output": output,
        "inputs": numbers(tensors),
        "library": numbers(library),
        "onnxruntime": numbers(vectors),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    # A row a line.
    text = json.dumps(golden, indent=1).replace("\n   ", " ").replace("\n  ]", " ]")
    (folder / "golden.json").write_text(text + "\n", encoding="utf-8")


def numbers(rows):
    """Decimals that are read back as the very floats."""
    return [[float(str(np.float32(value))) for value in row] for row in rows]
