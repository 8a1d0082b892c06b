"""The networks of the lesson, and what can be computed about them.

`Model_1` and `Model_2` are one network with different switches: 3x3 convolutions, one pooling, a readout.
`layer_table` computes shapes, receptive fields and parameters from any network of this kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

IMAGE_SIZE = 28
CLASSES = 10


class Network(nn.Module):
    """3x3 convolutions without padding, one 2x2 max-pooling, and a readout of ten logits.

    Input: float images of shape (N, 1, 28, 28). Output: logits of shape (N, 10).

    channels:        output channels of each 3x3 convolution, in order
    pool_at:         the receptive field, in pixels, at which the maps are pooled: 3 is after the first
                     convolution, 5 after the second, and so on
    batch_norm:      normalize the output of each convolution over the batch (without it: a bias)
    dropout:         probability of zeroing a channel of an image after each convolution behind the pooling. Whole
                     channels, since the neighbours of a single activation tell nearly what it told (Tompson et al.,
                     "Efficient object localization using convolutional networks", 2015), and since drawing a number
                     for each activation would take half as long as the convolutions
    separable:       make each convolution behind the pooling of two: a 3x3 filter for each channel by itself, then
                     a 1x1 convolution that mixes the channels (Chollet, "Xception", 2017). From m to n channels
                     that takes 9 m + m n weights in place of 9 m n, so that the layers can be wider
    capacity:        output channels of one more 3x3 convolution before the readout; 0 leaves it out
    gap:             average each map over all positions (global average pooling); without it, one kernel as
                     large as the map reads out the classes
    fully_connected: a linear layer makes the logits; without it, the channels before it are the logits

    Raises ValueError for a switch out of range, or if the maps vanish before the readout.
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
        pool_places = [3 + 2 * i for i in range(len(channels))]
        if pool_at not in pool_places:
            raise ValueError(f"pool_at is {pool_at}, expected one of the receptive fields {pool_places}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}, expected a probability from 0 to below 1")
        if capacity < 0 or any(width < 1 for width in channels):
            raise ValueError(
                f"channels {list(channels)} and capacity {capacity}: expected positive widths, or capacity 0"
            )

        widths = [1, *channels, *([capacity] if capacity else [])]
        size = IMAGE_SIZE
        blocks = []
        pooled_block = pool_places.index(pool_at)
        for i, (width_in, width_out) in enumerate(pairwise(widths)):
            pool = i == pooled_block
            if separable and i > pooled_block:
                layers = separable_convolution(width_in, width_out, bias=not batch_norm)
            else:
                layers = [nn.Conv2d(width_in, width_out, 3, bias=not batch_norm)]
            blocks.append(_block(layers, width_out, pool, batch_norm, dropout if i >= pooled_block else 0.0))
            size = (size - 2) // 2 if pool else size - 2
        spare = size - 2 if gap and not fully_connected else size
        if spare < 1:
            raise ValueError(
                f"{len(blocks)} convolutions with pooling at {pool_at} leave no map to read out: use fewer"
            )
        self.features = nn.Sequential(*blocks)
        self.readout = _readout(widths[-1], size, gap, fully_connected)

    def forward(self, images: Tensor) -> Tensor:
        return self.readout(self.features(images))


def separable_convolution(width_in: int, width_out: int, bias: bool) -> list[nn.Module]:
    """A 3x3 filter for each channel by itself, then a 1x1 convolution that mixes the channels.

    There is nothing between the two: a ReLU there does harm (Chollet, figure 10). The bias is the second one's.
    """
    each_channel = nn.Conv2d(width_in, width_in, 3, groups=width_in, bias=False)
    return [each_channel, nn.Conv2d(width_in, width_out, 1, bias=bias)]


def _block(convolution: list[nn.Module], width: int, pool: bool, batch_norm: bool, dropout: float) -> nn.Sequential:
    """Convolution, (pooling), (batch norm), ReLU, (dropout).

    Pooling comes right after the convolution: ReLU commutes with a maximum, and batch norm then has a quarter of
    the values to normalize.
    """
    layers = list(convolution)
    if pool:
        layers.append(nn.MaxPool2d(2))
    if batch_norm:
        layers.append(nn.BatchNorm2d(width))
    layers.append(nn.ReLU())
    if dropout:
        layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers)


def _readout(width: int, size: int, gap: bool, fully_connected: bool) -> nn.Sequential:
    """From maps of shape (N, width, size, size) to logits of shape (N, 10)."""
    layers: list[nn.Module] = []
    if not gap:
        layers.append(nn.Conv2d(width, CLASSES, size))
        width = CLASSES
    elif fully_connected:
        layers.append(nn.AdaptiveAvgPool2d(1))
    else:
        layers += [nn.Conv2d(width, CLASSES, 3), nn.AdaptiveAvgPool2d(1)]
    layers.append(nn.Flatten())
    if fully_connected:
        layers.append(nn.Linear(width, CLASSES))
    return nn.Sequential(*layers)


class Model_1(Network):
    """Step 1: a light skeleton with batch norm; a large last kernel reads out the classes."""

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
    """Steps 2 and 3: pooled at receptive field 5, with separable convolutions, dropout, a capacity layer, global
    average pooling and a fully connected layer.

    Nearly as wide as 8,000 parameters allow; the maps that are pooled are 16, since these fill a processor's vectors (14 take
    longer).
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


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters. The running statistics of batch norm are not trained, and not counted."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@dataclass(frozen=True)
class Layer:
    """One row of the layer table; lengths in pixels, `jump` the distance on the image of two neighbouring outputs."""

    name: str
    output_shape: tuple[int, ...]
    kernel: int | None
    stride: int | None
    jump: int
    receptive_field: int
    parameters: int


class LayerTable(list[Layer]):
    """The layers of a network in the order in which data flows; prints as a table."""

    def __str__(self) -> str:
        titles = f"{'layer':<18} {'output':>14} {'kernel':>6} {'stride':>6} {'jump':>4} {'field':>5} {'parameters':>10}"
        lines = [titles, "-" * len(titles)]
        for row in self:
            shape = " x ".join(map(str, row.output_shape))
            kernel, stride = row.kernel or "", row.stride or ""
            lines.append(
                f"{row.name:<18} {shape:>14} {kernel:>6} {stride:>6} {row.jump:>4} {row.receptive_field:>5} {row.parameters:>10,}"
            )
        lines.append(f"{'total':<18} {sum(row.parameters for row in self):>{len(titles) - 19},}")
        return "\n".join(lines)


def layer_table(model: nn.Module, input_shape: tuple[int, ...] = (1, IMAGE_SIZE, IMAGE_SIZE)) -> LayerTable:
    """Output shape, kernel, stride, jump, receptive field and parameters of each layer of a sequential network.

    Works for square kernels, strides and images, with any padding and dilation; the padding widens the map but not
    the field. One image of zeros is sent through the network in evaluation mode, which is left as it was.
    The field grows by (kernel - 1) * dilation * jump, the jump by a factor of stride: Araujo, Norris and Sim,
    "Computing receptive fields of convolutional neural networks", Distill, 2019.

    Raises ValueError for an input shape that the network does not take.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"the network does not take images of shape {tuple(input_shape)}: expected (channels, side, side)"
        )
    rows = LayerTable()
    jump, field, map_size = 1, 1, input_shape[-1]

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal jump, field, map_size
        kernel, stride, dilation = _window(layer, map_size)
        field += ((kernel or 1) - 1) * dilation * jump
        jump *= stride or 1
        if isinstance(layer, nn.Linear):
            map_size = 1
        elif output.dim() == 4:
            map_size = output.shape[-1]
        rows.append(
            Layer(type(layer).__name__, tuple(output.shape[1:]), kernel, stride, jump, field, count_parameters(layer))
        )

    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(record) for leaf in leaves]
    modes = {module: module.training for module in model.modules()}
    parameter = next(model.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    except RuntimeError as error:
        raise ValueError(f"the network does not take images of shape {tuple(input_shape)}: {error}") from None
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    return rows


def _window(layer: nn.Module, map_size: int) -> tuple[int | None, int | None, int]:
    """Kernel, stride and dilation of a layer; None for the layers that look at one position at a time."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        outputs = _side(layer.output_size)
        stride = map_size // outputs if outputs > 1 else 1
        return map_size - (outputs - 1) * stride, stride, 1
    if isinstance(layer, nn.Linear) and map_size > 1:
        return map_size, 1, 1  # a linear layer reads all positions of the map that was flattened before it
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        kernel, stride, dilation = (_side(getattr(layer, name, 1)) for name in ("kernel_size", "stride", "dilation"))
        return kernel, stride, dilation
    return None, None, 1


def _side(length: int | tuple[int, int]) -> int:
    return length[0] if isinstance(length, tuple) else length
