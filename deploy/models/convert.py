"""Converts the two block-quantised models to plain fp32 ONNX and proves that they still compute the same.

The originals store weights as int8 blocks with scales (weights only, so the unpacked fp32 model is numerically the same
model), a form that most engines cannot run. What is done, in this order:

1. each DequantizeLinear and Reshape of a weight becomes an fp32 weight;
2. each BatchNormalization is folded into the Conv or Gemm beside it;
3. YuNet gets any batch, height and width;
4. for ONNX Runtime, SFace's PRelu(x) becomes a*x + Relu((1-a)*x), two depthwise 1x1 convolutions and an Add: PRelu has no
   kernel for the blocked layout that the runtime keeps convolutions in, and it costs half of the time. Where a > 1 the
   channel is computed with its sign flipped and the next layer's weights take the sign back, so the rewrite is exact.

    convert.py YUNET SFACE FOLDER
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET = 13


class Graph:
    """A model's nodes in order, and its constants by name."""

    def __init__(self, path):
        self.model = onnx.load(str(path))
        self.nodes = list(self.model.graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}

    def users(self, name):
        return [node for node in self.nodes if name in node.input]

    def maker(self, name):
        return next((node for node in self.nodes if name in node.output), None)

    def replace(self, old, new):
        """Whatever read `old` reads `new`."""
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new

    def save(self, path, name, inputs, outputs):
        used = {name for node in self.nodes for name in node.input}
        constants = [numpy_helper.from_array(np.ascontiguousarray(value), key)
                     for key, value in self.constants.items() if key in used]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="sightglass")
        model.ir_version = 8
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))


def attribute(node, name, default):
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def dequantise(values, scales, zeros, axis, block):
    """ONNX DequantizeLinear with blocks of `block` values along `axis`; the last block may be shorter. A scale for the
    whole tensor, or for a whole axis, is a block too."""
    values = values.astype(np.float64)
    if scales.ndim == values.ndim:
        spread = lambda t: np.take(np.repeat(t, block, axis=axis), np.arange(values.shape[axis]), axis=axis)
        scales, zeros = spread(scales), spread(zeros)
    elif scales.size > 1:
        shape = [-1 if i == axis else 1 for i in range(values.ndim)]
        scales, zeros = scales.reshape(shape), zeros.reshape(shape)
    return ((values - zeros.astype(np.float64)) * scales.astype(np.float64)).astype(np.float32)


def unpack_weights(graph):
    kept = []
    for node in graph.nodes:
        constant = [graph.constants.get(name) for name in node.input]
        if node.op_type == "DequantizeLinear" and all(c is not None for c in constant):
            graph.constants[node.output[0]] = dequantise(*constant, attribute(node, "axis", 1), attribute(node, "block_size", 1))
        elif node.op_type == "Reshape" and all(c is not None for c in constant):
            graph.constants[node.output[0]] = constant[0].reshape(constant[1])
        else:
            kept.append(node)
    graph.nodes = kept


def drop_dropout(graph):
    for node in [n for n in graph.nodes if n.op_type == "Dropout"]:
        graph.replace(node.output[0], node.input[0])
        graph.nodes.remove(node)
    graph.nodes = [n for n in graph.nodes if n.op_type != "Constant" or graph.users(n.output[0])]


def normalisation(graph, node):
    """A BatchNormalization as `x * scale + shift`, in double precision."""
    gamma, beta, mean, variance = (graph.constants[name].astype(np.float64) for name in node.input[1:5])
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def fold_normalisation(graph):
    for node in [n for n in graph.nodes if n.op_type == "BatchNormalization"]:
        scale, shift = normalisation(graph, node)
        before = graph.maker(node.input[0])
        if before.op_type in ("Conv", "Gemm"):
            fold_into_layer_before(graph, before, scale, shift)
            before.output[0] = node.output[0]
        else:
            fold_into_gemm_after(graph, node, scale, shift)
            graph.replace(node.output[0], node.input[0])
        graph.nodes.remove(node)


def fold_into_layer_before(graph, layer, scale, shift):
    weight = graph.constants[layer.input[1]].astype(np.float64)
    bias = graph.constants[layer.input[2]].astype(np.float64) if len(layer.input) > 2 else np.zeros(len(scale))
    if layer.op_type == "Gemm" and not attribute(layer, "transB", 0):
        weight = weight * scale
    else:
        weight = weight * scale.reshape([-1] + [1] * (weight.ndim - 1))
    set_layer(graph, layer, weight, bias * scale + shift)


def fold_into_gemm_after(graph, node, scale, shift):
    """Normalisation, then Flatten, then Gemm: each channel is a run of the flattened columns."""
    flatten, = graph.users(node.output[0])
    gemm, = graph.users(flatten.output[0])
    assert (flatten.op_type, gemm.op_type, attribute(gemm, "transB", 0)) == ("Flatten", "Gemm", 1), "an unknown graph"
    weight = graph.constants[gemm.input[1]].astype(np.float64)
    run = weight.shape[1] // len(scale)
    bias = graph.constants[gemm.input[2]].astype(np.float64) + weight @ np.repeat(shift, run)
    set_layer(graph, gemm, weight * np.repeat(scale, run), bias)


def set_layer(graph, layer, weight, bias):
    name = layer.output[0]
    graph.constants[f"{name}.weight"] = weight.astype(np.float32)
    graph.constants[f"{name}.bias"] = bias.astype(np.float32)
    del layer.input[1:]
    layer.input.extend([f"{name}.weight", f"{name}.bias"])


def rewrite_prelu(graph):
    rewritten = []
    for node in graph.nodes:
        if node.op_type != "PRelu":
            rewritten.append(node)
            continue
        source, result = node.input[0], node.output[0]
        slope = graph.constants[node.input[1]].astype(np.float64).reshape(-1)
        sign = np.where(slope > 1.0, -1.0, 1.0)
        flip_next_layer(graph, result, sign)
        channels = len(slope)
        for part, factor in (("linear", sign * slope), ("rest", np.abs(1.0 - slope))):
            graph.constants[f"{result}.{part}.weight"] = factor.reshape(channels, 1, 1, 1).astype(np.float32)
        conv = dict(group=channels, kernel_shape=[1, 1], strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1])
        rewritten += [
            helper.make_node("Conv", [source, f"{result}.rest.weight"], [f"{result}.rest"], **conv),
            helper.make_node("Relu", [f"{result}.rest"], [f"{result}.relu"]),
            helper.make_node("Conv", [source, f"{result}.linear.weight"], [f"{result}.linear"], **conv),
            helper.make_node("Add", [f"{result}.linear", f"{result}.relu"], [result]),
        ]
    graph.nodes = rewritten


def flip_next_layer(graph, name, sign):
    """The one layer that reads `name` takes the flipped channels with flipped weights."""
    layer, = graph.users(name)
    if layer.op_type == "Flatten":
        layer, = graph.users(layer.output[0])
    weight = graph.constants[layer.input[1]]
    if layer.op_type == "Gemm":
        factor = np.repeat(sign, weight.shape[1] // len(sign))
    elif attribute(layer, "group", 1) == 1:
        factor = sign.reshape(1, -1, 1, 1)
    else:
        factor = sign.reshape(-1, 1, 1, 1)
    graph.constants[layer.input[1]] = (weight * factor).astype(np.float32)


def floats(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def convert_yunet(source, target):
    graph = Graph(source)
    unpack_weights(graph)
    outputs = []
    for declared in graph.model.graph.output:
        reshape = graph.maker(declared.name)
        while reshape.op_type != "Reshape":
            reshape = graph.maker(reshape.input[0])
        columns = declared.type.tensor_type.shape.dim[2].dim_value
        shape = f"shape_of_{declared.name}"
        graph.constants[shape] = np.array([0, -1, columns], dtype=np.int64)
        reshape.input[1] = shape
        outputs.append(floats(declared.name, ["n", None, columns]))
    graph.save(target, "yunet", [floats("input", ["n", 3, "height", "width"])], outputs)


def convert_sface(source, plain, rewritten):
    graph = Graph(source)
    unpack_weights(graph)
    drop_dropout(graph)
    fold_normalisation(graph)
    shapes = [floats("data", ["n", 3, 112, 112])], [floats("fc1", ["n", 128])]
    graph.save(plain, "sface", *shapes)
    rewrite_prelu(graph)
    graph.save(rewritten, "sface", *shapes)


def compare(source, converted, name, shape, tolerance):
    """The original in ONNX's own reference implementation against the converted model in ONNX Runtime."""
    pixels = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
    original = onnx.load(str(source))
    feed = {t.name: numpy_helper.to_array(t) for t in original.graph.initializer}
    feed = {i.name: feed[i.name] for i in original.graph.input if i.name in feed}
    wanted = ReferenceEvaluator(original).run(None, {**feed, name: pixels})
    found = onnxruntime.InferenceSession(str(converted), providers=["CPUExecutionProvider"]).run(None, {name: pixels})
    worst = max(float(np.max(np.abs(w.reshape(f.shape) - f))) for w, f in zip(wanted, found))
    size = max(float(np.max(np.abs(w))) for w in wanted)
    print(f"models: {converted.name}: worst difference {worst:.1e} of values up to {size:.2f}", flush=True)
    if not worst <= tolerance:
        sys.exit(f"models: {converted.name} differs from its original by {worst}")


def main():
    yunet, sface, folder = map(pathlib.Path, sys.argv[1:4])
    convert_yunet(yunet, folder / "yunet-2023mar.onnx")
    convert_sface(sface, folder / "sface-2021dec-plain.onnx", folder / "sface-2021dec.onnx")
    compare(yunet, folder / "yunet-2023mar.onnx", "input", (1, 3, 640, 640), 2e-3)
    for file in ("sface-2021dec-plain.onnx", "sface-2021dec.onnx"):
        compare(sface, folder / file, "data", (1, 3, 112, 112), 2e-4)


if __name__ == "__main__":
    main()
