"""Converts TensorFlow.js graph models (a JSON graph and a file of weights) to plain fp32 ONNX.

TensorFlow keeps pictures as batch, height, width, channels; ONNX wants the channels second. Every tensor of four
dimensions is therefore carried with its channels second, weights are turned once, and only a Reshape sees TensorFlow's
order again. Only what the models of prepare.py use is understood; anything else ends the conversion.
"""

import base64
import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
TYPES = {"float32": np.float32, "int32": np.int32, "float16": np.float16, "uint8": np.uint8}


def constants(manifest, data):
    """The weights by name; those stored as float16 or as scaled bytes are unpacked."""
    found, at = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        packed = entry.get("quantization", {})
        kind = np.dtype(TYPES[packed.get("dtype", entry["dtype"])])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        values = np.frombuffer(data, kind, count, at)
        at += count * kind.itemsize
        if "scale" in packed:
            values = values * np.float32(packed["scale"]) + np.float32(packed["min"])
        found[entry["name"]] = values.astype(TYPES[entry["dtype"]]).reshape(entry["shape"])
    assert at == len(data), "the weights do not fill their file"
    return found


def attributes(node):
    """A node's attributes as plain values."""
    def plain(value):
        (kind, inner), = value.items()
        if kind == "list":
            return [plain({key: item}) for key, items in inner.items() for item in items]
        return {"s": lambda v: base64.b64decode(v).decode(), "i": int, "f": float}.get(kind, lambda v: v)(inner)
    return {key: plain(value) for key, value in node.get("attr", {}).items() if key not in ("value", "shape")}


class Converter:
    """One model on its way."""

    def __init__(self, path):
        stored = json.loads(path.read_text())
        self.source = {node["name"]: node for node in stored["modelTopology"]["node"]}
        self.values = constants(stored["weightsManifest"], path.with_suffix(".bin").read_bytes())
        self.nodes, self.weights, self.done, self.pictures = [], {}, {}, set()

    def weight(self, name, value):
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(self, kind, inputs, name, picture, **options):
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        if picture:
            self.pictures.add(name)
        return name

    def is_picture(self, reference):
        return self.tensor(reference) in self.pictures

    def tensor(self, reference):
        """The converted tensor behind a reference, converted now if it was not yet."""
        name = reference.split(":")[0]
        if name not in self.done:
            node = self.source[name]
            self.done[name] = getattr(self, f"on_{node['op'].strip('_').lower()}")(name, node, attributes(node))
        return self.done[name]

    def constant(self, reference):
        """The value behind a reference that must be a constant."""
        node = self.source[reference.split(":")[0]]
        if node["op"] == "Identity":
            return self.constant(node["input"][0])
        return self.values[node["name"]]

    def broadcast(self, reference, beside_picture):
        """An operand of arithmetic; a constant beside a picture has its channels last and gets them second."""
        node = self.source[reference.split(":")[0]]
        if node["op"] != "Const":
            return self.tensor(reference)
        value = self.values[node["name"]]
        if beside_picture and value.ndim:
            value = np.moveaxis(value.reshape((1,) * (4 - value.ndim) + value.shape), 3, 1)
        return self.weight(f"{node['name']}.{'picture' if beside_picture else 'plain'}", value)

    # What the models consist of, by TensorFlow's names.

    def on_const(self, name, _node, _options):
        return self.weight(name, self.values[name])

    def on_identity(self, _name, node, _options):
        return self.tensor(node["input"][0])

    def on_placeholder(self, name, _node, _options):
        self.pictures.add("input")
        return "input"

    def convolution(self, name, node, options, kernel, group):
        source = self.tensor(node["input"][0])
        _, down, across, _ = options["strides"]
        pads = {"SAME": "SAME_UPPER", "VALID": "VALID"}[options["padding"]]
        assert set(options.get("dilations", [1])) == {1}, "a dilated convolution"
        inputs = [source, self.weight(f"{name}.kernel", kernel)]
        fused, extra = list(options.get("fused_ops", [])), list(node["input"][2:])
        if "BiasAdd" in fused:
            inputs.append(self.weight(f"{name}.bias", self.constant(extra.pop(0)).reshape(-1)))
            fused.remove("BiasAdd")
        shape = dict(kernel_shape=kernel.shape[2:], strides=[down, across], auto_pad=pads, group=group)
        result = self.add("Conv", inputs, name, True, **shape)
        return self.activation(result, fused, extra)

    def activation(self, result, fused, extra):
        for kind in fused:
            name = f"{result}.{kind.lower()}"
            if kind == "Prelu":
                slope = np.moveaxis(self.constant(extra.pop(0)), -1, 0)
                result = self.add("PRelu", [result, self.weight(f"{name}.slope", slope)], name, True)
            elif kind == "Relu6":
                result = self.clip6(result, name)
            else:
                assert kind in ("Relu", "Elu"), kind
                result = self.add(kind, [result], name, result in self.pictures)
        return result

    def clip6(self, source, name):
        bounds = [self.weight(f"bound.{value}", np.array(value, np.float32)) for value in (0, 6)]
        return self.add("Clip", [source, *bounds], name, True)

    def on_conv2d(self, name, node, options):
        kernel = np.transpose(self.constant(node["input"][1]), (3, 2, 0, 1))
        return self.convolution(name, node, options, kernel, 1)

    on_fusedconv2d = on_conv2d

    def on_depthwiseconv2dnative(self, name, node, options):
        kernel = self.constant(node["input"][1])
        height, width, channels, each = kernel.shape
        kernel = np.transpose(kernel, (2, 3, 0, 1)).reshape(channels * each, 1, height, width)
        return self.convolution(name, node, options, kernel, channels)

    on_fuseddepthwiseconv2dnative = on_depthwiseconv2dnative

    def on_maxpool(self, name, node, options):
        pads = {"SAME": "SAME_UPPER", "VALID": "VALID"}[options["padding"]]
        shape = dict(kernel_shape=options["ksize"][1:3], strides=options["strides"][1:3], auto_pad=pads)
        return self.add("MaxPool", [self.tensor(node["input"][0])], name, True, **shape)

    def arithmetic(kind):
        def convert(self, name, node, _options):
            computed = [r for r in node["input"] if self.source[r.split(":")[0]]["op"] != "Const"]
            picture = any(self.is_picture(r) for r in computed)
            return self.add(kind, [self.broadcast(r, picture) for r in node["input"]], name, picture)
        return convert

    on_add = on_addv2 = arithmetic("Add")
    on_mul, on_sub = arithmetic("Mul"), arithmetic("Sub")
    on_minimum, on_maximum = arithmetic("Min"), arithmetic("Max")

    def unary(kind):
        def convert(self, name, node, _options):
            source = self.tensor(node["input"][0])
            return self.add(kind, [source], name, source in self.pictures)
        return convert

    on_relu, on_sigmoid = unary("Relu"), unary("Sigmoid")

    def on_relu6(self, name, node, _options):
        return self.clip6(self.tensor(node["input"][0]), name)

    def on_prelu(self, name, node, _options):
        slope = np.moveaxis(self.constant(node["input"][1]), -1, 0)
        return self.add("PRelu", [self.tensor(node["input"][0]), self.weight(f"{name}.slope", slope)], name, True)

    def on_softmax(self, name, node, _options):
        source = self.tensor(node["input"][0])
        picture = source in self.pictures
        return self.add("Softmax", [source], name, picture, axis=1 if picture else -1)

    def on_mean(self, name, node, options):
        axes = sorted(int(axis) % 4 for axis in np.ravel(self.constant(node["input"][1])))
        assert axes == [1, 2], f"a mean over {axes}"
        keep = bool(options["keep_dims"])
        return self.add("ReduceMean", [self.tensor(node["input"][0])], name, keep, axes=[2, 3], keepdims=int(keep))

    def on_pad(self, name, node, _options):
        before, after = np.moveaxis(self.constant(node["input"][1]), 1, 0)
        pads = np.concatenate([np.take(side, [0, 3, 1, 2]) for side in (before, after)]).astype(np.int64)
        return self.add("Pad", [self.tensor(node["input"][0]), self.weight(f"{name}.pads", pads)], name, True)

    def on_reshape(self, name, node, _options):
        source = self.tensor(node["input"][0])
        if source in self.pictures:
            source = self.add("Transpose", [source], f"{name}.turned", False, perm=[0, 2, 3, 1])
        shape = self.constant(node["input"][1]).astype(np.int64)
        assert shape.size < 4, "a reshape to a picture"
        return self.add("Reshape", [source, self.weight(f"{name}.shape", shape)], name, False)

    def on_concatv2(self, name, node, _options):
        *parts, axis = node["input"]
        axis, picture = int(self.constant(axis)), self.is_picture(parts[0])
        axis = {0: 0, 1: 2, 2: 3, 3: 1}[axis % 4] if picture else axis
        return self.add("Concat", [self.tensor(part) for part in parts], name, picture, axis=axis)

    def on_resizebilinear(self, name, node, options):
        modes = {(False, False): "asymmetric", (True, False): "align_corners", (False, True): "half_pixel"}
        mode = modes[bool(options["align_corners"]), bool(options.get("half_pixel_centers"))]
        source, size = self.tensor(node["input"][0]), self.constant(node["input"][1]).astype(np.int64)
        # The batch and the channels stay as they are: their sizes are read from the tensor itself.
        shape = self.add("Shape", [source], f"{name}.shape", False)
        ends = [self.weight(f"{name}.{end}", np.array([end], np.int64)) for end in (0, 2)]
        kept = self.add("Slice", [shape, *ends], f"{name}.kept", False)
        sizes = self.add("Concat", [kept, self.weight(f"{name}.size", size)], f"{name}.sizes", False, axis=0)
        return self.add("Resize", [source, "", "", sizes], name, True, mode="linear", coordinate_transformation_mode=mode)

    def on_fusedmatmul(self, name, node, options):
        assert not options.get("transpose_a") and not options.get("transpose_b")
        matrix, fused, extra = self.constant(node["input"][1]), list(options["fused_ops"]), list(node["input"][2:])
        inputs = [self.tensor(node["input"][0]), self.weight(f"{name}.matrix", matrix)]
        if fused[:1] == ["BiasAdd"]:
            inputs.append(self.weight(f"{name}.bias", self.constant(extra.pop(0)).reshape(-1)))
            fused.pop(0)
        return self.activation(self.add("Gemm", inputs, name, False), fused, extra)


def convert(source, target, name, size, channels, outputs):
    """`outputs` are a tensor's name in the source, in the target, and its shape. Pictures enter as n x channels x size x size."""
    converter = Converter(source)
    shapes = []
    for wanted, called, shape in outputs:
        converter.add("Identity", [converter.tensor(wanted)], called, False)
        shapes.append(helper.make_tensor_value_info(called, TensorProto.FLOAT, ["n", *shape]))
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", channels, size, size])
    used = {name for node in converter.nodes for name in node.input}
    weights = [value for key, value in converter.weights.items() if key in used]
    graph = helper.make_graph(converter.nodes, name, [entry], shapes, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="sightglass")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(target))
