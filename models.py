"""The networks of the lesson, and what can be computed about them.

`Model_1` and `Model_2` are one network with different switches: 3x3 convolutions, one pooling, a readout.
`layer_table` computes the shapes, receptive fields and parameters of any network that reads square images.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

IMAGE_SIZE = 28
CLASSES = 10


class Network(nn.Module):
    """3x3 convolutions without padding, one 2x2 max-pooling, and a readout of ten logits.

    Input: float images of shape (N, 1, 28, 28). Output: logits of shape (N, 10).

    channels:        output channels of each 3x3 convolution, in order
    pool_at:         the receptive field, in pixels, at which the maps are pooled: 3 is after the first
                     convolution, 5 after the second, and so on
    batch_norm:      normalize the output of each convolution over the batch (without it: a bias)
    dropout:         probability of zeroing a channel after each convolution from the pooling on. Whole channels,
                     because neighbouring activations say nearly the same, so dropping one of them hides little
                     (Tompson et al., "Efficient object localization using convolutional networks", 2015), and
                     because a random number per activation takes half as long as the convolutions
    separable:       build each convolution after the pooling from two: a 3x3 filter per channel, then a 1x1
                     convolution that mixes the channels (Chollet, "Xception", 2017). From m to n channels this
                     takes 9 m + m n weights instead of 9 m n, so the layers can be wider
    capacity:        output channels of one more 3x3 convolution before the readout; 0 leaves it out
    gap:             average each map over all positions (global average pooling); without it, one kernel as
                     large as the map reads out the classes
    fully_connected: a linear layer computes the logits; without it, the channels before it are the logits

    Raises ValueError if a switch is out of range, or if the maps vanish before the readout.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        pool_at: int,
        batch_norm: bool,
        dropout: float,
        separable: bool,
        capacity: int,
        gap: bool,
        fully_connected: bool,
    ) -> None:
        super().__init__()
        _check_switches(channels, pool_at, dropout, capacity)
        self.features = nn.Sequential()
        width, side, field = 1, IMAGE_SIZE, 1
        for width_out in [*channels, capacity] if capacity else channels:
            field += 2  # as long as nothing is pooled: one pixel on each side
            block = nn.Sequential()
            if separable and field > pool_at:
                block.extend(separable_convolution(width, width_out, bias=not batch_norm))
            else:
                block.append(nn.Conv2d(width, width_out, 3, bias=not batch_norm))
            if field == pool_at:
                # before batch norm, which then has a quarter of the values to normalize; ReLU commutes with a maximum
                block.append(nn.MaxPool2d(2))
            if batch_norm:
                block.append(nn.BatchNorm2d(width_out))
            block.append(nn.ReLU())
            if dropout and field >= pool_at:
                block.append(nn.Dropout2d(dropout))
            self.features.append(block)
            width, side = width_out, (side - 2) // 2 if field == pool_at else side - 2

        if side < (3 if gap and not fully_connected else 1):
            raise ValueError(
                f"{len(self.features)} convolutions with pooling at {pool_at} leave no map to read out: use fewer"
            )
        self.readout = nn.Sequential()
        if not gap:
            self.readout.append(nn.Conv2d(width, CLASSES, side))
        elif fully_connected:
            self.readout.append(nn.AdaptiveAvgPool2d(1))
        else:
            self.readout.extend([nn.Conv2d(width, CLASSES, 3), nn.AdaptiveAvgPool2d(1)])
        self.readout.append(nn.Flatten())
        if fully_connected:
            self.readout.append(nn.Linear(width if gap else CLASSES, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.readout(self.features(images))

    def __repr__(self) -> str:
        """One line per block: `conv 3x3 1 -> 8, batch norm, ReLU`."""
        blocks = [", ".join(_in_words(layer) for layer in block) for block in (*self.features, self.readout)]
        return "\n".join([f"{type(self).__name__}(", *(f"  {block}" for block in blocks), ")"])


class Model_1(Network):
    """Step 1: five 3x3 convolutions with batch norm, pooled after the first; a kernel as large as the map reads out.

    block                                                                          output field parameters
    conv 3x3 1 -> 8, max-pool 2x2, batch norm, ReLU                           8 x 13 x 13     4         88
    conv 3x3 8 -> 14, batch norm, ReLU                                       14 x 11 x 11     8      1,036
    conv 3x3 14 -> 10, batch norm, ReLU                                        10 x 9 x 9    12      1,280
    conv 3x3 10 -> 10, batch norm, ReLU                                        10 x 7 x 7    16        920
    conv 3x3 10 -> 10, batch norm, ReLU                                        10 x 5 x 5    20        920
    conv 5x5 10 -> 10, flatten                                                         10    28      2,510

    The switches are those of `Network`.
    """

    def __init__(
        self,
        channels: Sequence[int] = (8, 14, 10, 10, 10),
        *,
        pool_at: int = 3,
        batch_norm: bool = True,
        dropout: float = 0.0,
        separable: bool = False,
        capacity: int = 0,
        gap: bool = False,
        fully_connected: bool = False,
    ) -> None:
        super().__init__(
            channels,
            pool_at=pool_at,
            batch_norm=batch_norm,
            dropout=dropout,
            separable=separable,
            capacity=capacity,
            gap=gap,
            fully_connected=fully_connected,
        )


class Model_2(Network):
    """Steps 2 and 3: pooled at receptive field 5, then separable convolutions; global average, linear layer.

    block                                                                          output field parameters
    conv 3x3 1 -> 8, batch norm, ReLU                                         8 x 26 x 26     3         88
    conv 3x3 8 -> 16, max-pool 2x2, batch norm, ReLU, dropout 0.1            16 x 12 x 12     6      1,184
    conv 3x3 per channel, conv 1x1 16 -> 34, batch norm, ReLU, dropout 0.1   34 x 10 x 10    10        756
    conv 3x3 per channel, conv 1x1 34 -> 36, batch norm, ReLU, dropout 0.1     36 x 8 x 8    14      1,602
    conv 3x3 per channel, conv 1x1 36 -> 38, batch norm, ReLU, dropout 0.1     38 x 6 x 6    18      1,768
    conv 3x3 per channel, conv 1x1 38 -> 40, batch norm, ReLU, dropout 0.1     40 x 4 x 4    22      1,942
    average, flatten, linear 40 -> 10                                                  10    28        410

    Nearly as wide as 8,000 parameters allow. The pooled maps are 16, which fill a processor's vectors: 14 take longer.
    Step 3 drops the dropout. The switches are those of `Network`.
    """

    def __init__(
        self,
        channels: Sequence[int] = (8, 16, 34, 36, 38),
        *,
        pool_at: int = 5,
        batch_norm: bool = True,
        dropout: float = 0.1,
        separable: bool = True,
        capacity: int = 40,
        gap: bool = True,
        fully_connected: bool = True,
    ) -> None:
        super().__init__(
            channels,
            pool_at=pool_at,
            batch_norm=batch_norm,
            dropout=dropout,
            separable=separable,
            capacity=capacity,
            gap=gap,
            fully_connected=fully_connected,
        )


def _in_words(layer: nn.Module) -> str:
    match layer:
        case nn.Conv2d(groups=1):
            side, _ = layer.kernel_size
            return f"conv {side}x{side} {layer.in_channels} -> {layer.out_channels}"
        case nn.Conv2d():
            side, _ = layer.kernel_size
            return f"conv {side}x{side} per channel"
        case nn.Linear():
            return f"linear {layer.in_features} -> {layer.out_features}"
        case nn.Dropout2d():
            return f"dropout {layer.p}"
        case nn.MaxPool2d():
            return f"max-pool {layer.kernel_size}x{layer.kernel_size}"
    names = {nn.BatchNorm2d: "batch norm", nn.AdaptiveAvgPool2d: "average", nn.Flatten: "flatten"}
    return names.get(type(layer), type(layer).__name__)


def separable_convolution(width_in: int, width_out: int, bias: bool) -> list[nn.Module]:
    """A 3x3 filter per channel, then a 1x1 convolution that mixes the channels; the bias is the second one's.

    Nothing stands between the two: a ReLU there does harm (Chollet, figure 10).
    """
    per_channel = nn.Conv2d(width_in, width_in, 3, groups=width_in, bias=False)
    return [per_channel, nn.Conv2d(width_in, width_out, 1, bias=bias)]


def _check_switches(channels: Sequence[int], pool_at: int, dropout: float, capacity: int) -> None:
    pool_places = [3 + 2 * i for i in range(len(channels))]
    if pool_at not in pool_places:
        raise ValueError(f"pool_at is {pool_at}, expected one of the receptive fields {pool_places}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}, expected a probability from 0 to below 1")
    if capacity < 0 or any(width < 1 for width in channels):
        raise ValueError(f"channels {list(channels)} and capacity {capacity}: expected positive widths, or capacity 0")


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters. The running statistics of batch norm are not trained, and not counted."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# ---------------------------------------------------------------------------------------------------------------------
# Layer table
# ---------------------------------------------------------------------------------------------------------------------

CONTAINERS = (nn.Sequential, nn.DataParallel)  # modules of PyTorch's that only run others
# functions that hand values to Python, where nothing can follow them
READS_VALUES = {"bool", "int", "float", "index", "item", "tolist", "numpy", "array", "equal", "allclose"}


@dataclass(frozen=True)
class Layer:
    """One row of the layer table: a layer, or a function that `forward` calls itself.

    name:            the layer's class, or the function's name: Conv2d, max_pool2d
    output_shape:    without the batch
    kernel, stride:  in positions of the layer's input; None for a layer that looks at one position at a time
    jump:            distance on the image, in pixels, between two neighbouring outputs
    receptive_field: side of the square of image pixels that one output sees, at the output that sees most
    parameters:      trainable ones; those of a layer that runs twice count in its first row
    """

    name: str
    output_shape: tuple[int, ...]
    kernel: int | None
    stride: int | None
    jump: int
    receptive_field: int
    parameters: int


class LayerTable(list[Layer]):
    """The layers of a network in the order in which they run; prints as a table."""

    def __str__(self) -> str:
        titles = f"{'layer':<18} {'output':>14} {'kernel':>6} {'stride':>6} {'jump':>4} {'field':>5} {'parameters':>10}"
        lines = [titles, "-" * len(titles)]
        for row in self:
            shape = " x ".join(map(str, row.output_shape))
            lines.append(
                f"{row.name:<18} {shape:>14} {row.kernel or '':>6} {row.stride or '':>6}"
                f" {row.jump:>4} {row.receptive_field:>5} {row.parameters:>10,}"
            )
        lines.append(f"{'total':<18} {sum(row.parameters for row in self):>{len(titles) - 19},}")
        return "\n".join(lines)


def layer_table(model: nn.Module, input_shape: tuple[int, ...] = (1, IMAGE_SIZE, IMAGE_SIZE)) -> LayerTable:
    """Output shape, kernel, stride, jump, receptive field and parameters of each layer, in the order of execution.

    A 3x3 convolution adds one pixel on each side to the receptive field, two in all, and twice as much after a 2x2
    pooling: kernel - 1 jumps. Shortcuts, branches and functions make that rule hard to follow, so the field is
    measured: a batch has one image for each row and each column of pixels, in which these pixels are NaN. An output
    that reads one of them is NaN too. The field ends at the border of the image.

    Runs a copy of the model in evaluation mode; the model, its gradients and the generator stay as they are.

    Raises ValueError for an input shape that the network does not take, and for a network whose table cannot be
    computed: control flow that depends on pixels, kernels that are not square, outputs that are not evenly spaced on
    the image, parameters that `forward` does not use.
    """
    if len(input_shape) != 3 or input_shape[1] != input_shape[2]:
        raise ValueError(
            f"the network does not take images of shape {tuple(input_shape)}: expected (channels, side, side)"
        )
    try:
        # in float64, since convolutions in float32 may take Winograd's way, which mixes neighbouring windows
        model = copy.deepcopy(model).cpu().double().eval()
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"the network cannot be copied: {_first_line(error)}") from None
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # a functional dropout may draw numbers
            return _Follower(model, input_shape).follow()
    except _Untraceable:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"the network does not take float64 images of shape {tuple(input_shape)}: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


class _Untraceable(ValueError):
    """The table of this network cannot be computed."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies on the image: the jump between its positions, and the side of the last map before it."""

    jump: int
    side: int


class _Follower(TorchFunctionMode):
    """Sees each function that the network calls, and makes rows of them; the functions of one layer make one row.

    While this mode is active, PyTorch calls `__torch_function__` in place of each function.
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self.images = _probes(input_shape)
        self.input_side = input_shape[-1]
        self.rows = LayerTable()
        # None marks a tensor that was computed from pixels but is no picture of them: a comparison, an index
        self.places: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.places[self.images] = _Place(jump=1, side=self.input_side)
        self.layer: nn.Module | None = None  # the layer that runs now
        self.measuring = False
        self.window: tuple[int, int] | None = None  # kernel and stride of the row to come
        self.unseen = {p for p in model.parameters() if p.requires_grad}
        self.parameters = 0  # of the row to come

    def follow(self) -> LayerTable:
        for module in self.model.modules():
            if type(module).__module__.startswith("torch.nn.") and not isinstance(module, CONTAINERS):
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)
        with self:
            output = self.model(self.images)
        if not any(self.places.get(tensor) for tensor in tensors(output)):
            raise _Untraceable("the output of the network cannot be traced back to the image")
        if self.unseen:
            names = [name for name, p in self.model.named_parameters() if p in self.unseen]
            raise _Untraceable(f"the network does not use its parameters {', '.join(names)}")
        return self.rows

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not self.measuring:
            name = getattr(func, "__name__", "function").strip("_")
            inputs = list(tensors([args, kwargs]))
            self._count(inputs)
            if any(tensor in self.places for tensor in inputs):
                self._follow_function(name, args, kwargs, args[0] if name == "setitem" else output)
        return output

    def _follow_function(self, name: str, args: Sequence[object], kwargs: Mapping[str, object], output: object) -> None:
        """Place the output of a function of pixels on the image; a row if no layer of PyTorch's called it."""
        inputs = [tensor for tensor in tensors([args, kwargs]) if tensor in self.places]
        places = [self.places[tensor] for tensor in inputs]
        if name in READS_VALUES or None in places:
            raise _Untraceable(f"{name} uses values of the image to decide what is computed: a table cannot show that")
        side = max(place.side for place in places)
        window = _window(name, args, kwargs, side)
        self.window = window or self.window
        jump = max(place.jump for place in places) * (window[1] if window else 1)
        for tensor in tensors(output):
            if not tensor.is_floating_point():
                self.places[tensor] = None
            elif tensor.dim() == 4:
                if tensor.shape[-1] >= 2 * side and tensor.shape[-1] > 1:
                    raise _Untraceable(f"{name} enlarges the maps from {side} to {tensor.shape[-1]} pixels a side")
                self.places[tensor] = _Place(jump, tensor.shape[-1])
            else:
                same_map = name != "linear" and tensor.numel() == inputs[0].numel()
                self.places[tensor] = _Place(jump, side if same_map else 1)
        if self.layer is None and isinstance(output, Tensor) and name != "get":  # x.data, x.T
            self._add_row(name, output)

    def _enter(self, layer: nn.Module, inputs: object) -> None:
        if self.layer is None:
            self.layer, self.window = layer, None

    def _leave(self, layer: nn.Module, inputs: object, outputs: object) -> None:
        if layer is self.layer:
            self.layer = None
            self._count(layer.parameters())
            followed = [tensor for tensor in tensors(outputs) if self.places.get(tensor)]
            if followed:
                self._add_row(type(layer).__name__, followed[0])

    def _count(self, tensors: Iterable[Tensor]) -> None:
        """Count each parameter when it is first used."""
        for parameter in self.unseen.intersection(tensors):
            self.parameters += parameter.numel()
            self.unseen.remove(parameter)

    def _add_row(self, name: str, output: Tensor) -> None:
        if self.places[output] is None:
            return
        self.measuring = True
        field, step = _measure(name, output, self.input_side)
        self.measuring = False
        place = replace(self.places[output], jump=step or self.places[output].jump)
        self.places[output] = place
        kernel, stride = self.window or (None, None)
        self.rows.append(Layer(name, tuple(output.shape[1:]), kernel, stride, place.jump, field, self.parameters))
        self.window, self.parameters = None, 0


def tensors(nested: object) -> Iterator[Tensor]:
    """The tensors in an argument or output: in lists, tuples and dictionaries too."""
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, Mapping):
        yield from tensors(list(nested.values()))
    elif isinstance(nested, (list, tuple)):
        for item in nested:
            yield from tensors(item)


def _window(name: str, args: Sequence[object], kwargs: Mapping[str, object], side: int) -> tuple[int, int] | None:
    """Kernel and stride of a function that reads maps of this side; None if it looks at one position at a time."""

    def argument(position: int, key: str) -> Any:
        return args[position] if position < len(args) else kwargs.get(key)

    match name:
        case "conv2d":
            weight, stride = argument(1, "weight"), argument(3, "stride")
            return _square(name, weight.shape[2:]), _square(name, stride or 1)
        case "max_pool2d" | "avg_pool2d":
            kernel, stride = argument(1, "kernel_size"), argument(2, "stride")
            return _square(name, kernel), _square(name, stride or kernel)
        case "adaptive_avg_pool2d" | "adaptive_max_pool2d":
            outputs = _square(name, argument(1, "output_size"))
            if side % outputs:
                raise _Untraceable(f"{name} makes {outputs} unequal parts of {side} pixels, expected equal ones")
            return side // outputs, side // outputs if outputs > 1 else 1
        case "pad" if argument(2, "mode") == "circular":
            raise _Untraceable("pad continues the image at its opposite border, where a receptive field is no square")
        case "linear" if argument(0, "input").dim() == 2 and side > 1:
            return side, 1  # it reads all positions of the map that was flattened before it
    return None


def _square(name: str, lengths: int | Sequence[int]) -> int:
    sides = [lengths] if isinstance(lengths, int) else list(lengths)
    if len(set(sides)) > 1:
        raise _Untraceable(f"{name} reads or strides over {' x '.join(map(str, sides))} pixels, expected a square")
    return sides[0]


def _probes(input_shape: tuple[int, ...]) -> Tensor:
    """One whole image, then one image per row of pixels that is NaN, then one per column."""
    side = input_shape[-1]
    image = torch.linspace(0.1, 1, math.prod(input_shape), dtype=torch.float64).reshape(input_shape)
    images = image.repeat(1 + 2 * side, 1, 1, 1)
    for i in range(side):
        images[1 + i, :, i, :] = torch.nan
        images[1 + side + i, :, :, i] = torch.nan
    return images


def _measure(name: str, output: Tensor, side: int) -> tuple[int, int | None]:
    """Receptive field of an output for `_probes`, and the step between neighbours on the image where it can be seen."""
    if output.dim() == 0:
        raise _Untraceable(f"{name} makes one number of all images: a table cannot show what depends on it")
    if len(output) != 1 + 2 * side:
        raise _Untraceable(f"{name} does not keep the images of a batch apart: its output is {tuple(output.shape)}")
    whole, rows, columns = output.isnan().split([1, side, side])
    if whole.any():
        raise _Untraceable(f"{name} is not a number on an ordinary image")
    is_map = output.dim() == 4
    if is_map:
        rows, columns = rows.any(3), columns.any(2)
    windows = [_extent(rows), _extent(columns)]
    height, width = (int(lengths.max()) for _, lengths in windows)
    if height != width:
        raise _Untraceable(f"an output of {name} sees {height} x {width} pixels, expected a square")
    if height == 0:
        raise _Untraceable(f"{name} hides on which pixels its output depends")
    steps = set().union(*(_steps(first, length, side) for first, length in windows)) if is_map else set()
    if len(steps) > 1 or min(steps, default=1) < 1:
        raise _Untraceable(f"the outputs of {name} are not evenly spaced on the image")
    return height, steps.pop() if steps else None


def _extent(reads: Tensor) -> tuple[Tensor, Tensor]:
    """For each output: the first row (or column) that it reads, and how many rows lie from there to the last.

    reads: booleans of shape (side, *output), whether the output reads that row
    """
    first = reads.int().argmax(0)
    last = len(reads) - 1 - reads.flip(0).int().argmax(0)
    return first, (last - first + 1) * reads.any(0)


def _steps(first: Tensor, length: Tensor, side: int) -> set[int]:
    """The distances between neighbours along the last axis, where the image's border cuts neither of their windows."""
    full = length == length.amax(-1, keepdim=True)
    inside = full & (first > 0) & (first + length < side)
    pairs = inside[..., 1:] & inside[..., :-1]
    return set(first.diff(dim=-1)[pairs].unique().tolist())
