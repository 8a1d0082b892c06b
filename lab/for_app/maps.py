"""Let an exported network show its feature maps: which tensors they are, and where they lie on the image."""

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

WEIGHTS = "class_weights"
AT_ONCE = 256  # maps that the readout is given together


@dataclass(frozen=True)
class Maps:
    """The feature maps of one layer, and the square of pixels that each of their positions sees.

    Position i of a row sees the pixels from `first + i * jump` on, `field` of them; with padding, some lie outside.
    """

    name: str  # of the output in the ONNX file
    channels: int
    side: int
    field: int
    jump: int
    first: int


@dataclass(frozen=True)
class _Window:
    """What one position of a tensor sees: see `Maps`."""

    field: int = 1
    jump: int = 1
    first: int = 0

    def through(self, kernel: int, stride: int, padding: int) -> "_Window":
        """The window of the output of a convolution or pooling."""
        return _Window(self.field + (kernel - 1) * self.jump, self.jump * stride, self.first - padding * self.jump)

    def joined(self, other: "_Window") -> "_Window":
        """The smallest window that holds both, where two branches meet."""
        first = min(self.first, other.first)
        last = max(self.first + self.field, other.first + other.field)
        return _Window(last - first, max(self.jump, other.jump), first)


def describe_maps(content: ModelProto) -> dict[str, str]:
    """Metadata about the feature maps of a network: `maps`, a JSON list of `Maps`, and `inside`, an addition to its file.

    The maps are what each convolution reads, but for the first and those of 1x1, and what the readout reads.

    `inside` is the base64 of a piece of ONNX that makes the maps outputs. Whoever wants them appends it to the file:
    parsers of protobuf merge what is concatenated (https://protobuf.dev/programming-guides/encoding/#last-one-wins).
    Were they outputs of the file itself, ONNX Runtime would prepare them for every prediction, asked for or not.

    If the logits are an affine function of the last maps, another output, `class_weights`, holds its coefficients, of
    shape (10, channels, side, side), or (10, channels, 1, 1) if all positions have the same. Maps times coefficients,
    summed over the channels, are then exactly what each position contributes to each logit.

    A network whose maps cannot be placed on the image shows those before; the list may be empty.
    """
    maps = list(_find_maps(content))
    addition = GraphProto()
    for layer in maps:
        shape: list[str | int | None] = ["images", layer.channels, layer.side, layer.side]
        addition.output.append(helper.make_tensor_value_info(layer.name, TensorProto.FLOAT, shape))
    weights = _class_weights(content, maps[-1]) if maps else None
    if weights is not None:
        addition.initializer.append(numpy_helper.from_array(weights, WEIGHTS))
        addition.output.append(helper.make_tensor_value_info(WEIGHTS, TensorProto.FLOAT, weights.shape))
    piece = ModelProto(graph=addition).SerializeToString()
    return {"maps": json.dumps([asdict(layer) for layer in maps]), "inside": base64.b64encode(piece).decode()}


def _shapes(content: ModelProto) -> dict[str, list[int]]:
    """The shape of each tensor that has a known one; 0 for the number of images."""
    inferred = onnx.shape_inference.infer_shapes(content).graph
    return {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def _find_maps(content: ModelProto) -> Iterator[Maps]:
    shapes = _shapes(content)
    windows: dict[str, _Window | None] = {content.graph.input[0].name: _Window()}  # None: it cannot be placed
    convolved: set[str] = set()  # tensors that a convolution has made, directly or not
    found: set[str] = set()
    for node in content.graph.node:
        read = [name for name in node.input if name in windows]
        if not read:
            continue
        window = _window(node, [windows[name] for name in read], [shapes.get(name, []) for name in read], shapes)
        source, side = read[0], (shapes.get(read[0]) or [0])[-1]
        is_layer = _kernel(node) > 1 if node.op_type == "Conv" else window is None
        if is_layer and source in convolved - found and (place := windows[source]) and side > 1:
            found.add(source)
            yield Maps(source, shapes[source][1], side, place.field, place.jump, place.first)
        for name in node.output:
            windows[name] = window
            if node.op_type == "Conv" or source in convolved:
                convolved.add(name)


def _window(
    node: NodeProto, windows: list[_Window | None], sources: list[list[int]], shapes: dict[str, list[int]]
) -> _Window | None:
    """The window of a node's output; None if its output is no maps, or is not made position by position."""
    placed = [window for window in windows if window]
    shape = shapes.get(node.output[0], [])
    if len(placed) < len(windows) or len(shape) != 4 or shape[2] != shape[3]:
        return None
    if node.op_type in ("Conv", "MaxPool", "AveragePool"):
        stride, padding = (_attribute(node, name, default) for name, default in (("strides", 1), ("pads", 0)))
        return placed[0].through(_kernel(node), stride, padding)
    if any(source[2:] != shape[2:] for source in sources):
        return None
    joined = placed[0]
    for window in placed[1:]:
        joined = joined.joined(window)
    return joined


def _kernel(node: NodeProto) -> int:
    return (_attribute(node, "kernel_shape", 1) - 1) * _attribute(node, "dilations", 1) + 1


def _attribute(node: NodeProto, name: str, default: int) -> int:
    """The first number of a list that has one per axis; of squares, as `_window` sees by their output."""
    return next((attribute.ints[0] for attribute in node.attribute if attribute.name == name), default)


def _class_weights(content: ModelProto, last: Maps) -> np.ndarray | None:
    """The coefficients of the logits in the last maps; None if they are not an affine function of them."""
    readout = onnx.utils.Extractor(content).extract_model([last.name], ["logits"])
    if any(image.name in node.input for node in readout.graph.node for image in content.graph.input):
        return None  # it reads the image past the maps too
    evaluator = ReferenceEvaluator(readout)

    def logits(maps: np.ndarray) -> np.ndarray:
        shaped = maps.reshape(-1, last.channels, last.side, last.side).astype(np.float32)
        (output,) = evaluator.run(None, {last.name: shaped})
        return np.asarray(output)

    size = last.channels * last.side**2
    one, other = np.random.default_rng(0).normal(size=(2, size))
    none, sum_of_both, first, second = logits(np.stack([0 * one, one + other, one, other]))
    if not np.allclose(sum_of_both + none, first + second, rtol=1e-4, atol=1e-4):
        return None
    rows = [logits(np.eye(AT_ONCE, size, k=begin)[: size - begin]) - none for begin in range(0, size, AT_ONCE)]
    weights = np.concatenate(rows).T.reshape(len(none), last.channels, last.side, last.side)
    everywhere = weights.mean((2, 3), keepdims=True)
    return everywhere if np.allclose(weights, everywhere, rtol=1e-4, atol=1e-6) else weights
