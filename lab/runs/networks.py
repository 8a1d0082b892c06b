"""Networks beyond the lesson's two: one for smaller parameter budgets, and those of published systems.

Input: float images of shape (N, 1, 28, 28). Output: logits of shape (N, 10).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from models import CLASSES, separable_convolution


class Narrow(nn.Sequential):
    """Model_2 for a smaller budget: all convolutions but the first are separable, so that the layers stay wide.

    channels: output channels of each convolution, in order; max pooling follows the second, where the receptive field
              is 5, and global average pooling the last

    Raises ValueError for fewer than two convolutions.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 28, 30, 30, 30)) -> None:
        if len(channels) < 2:
            raise ValueError(f"channels are {list(channels)}, expected at least two")
        layers = [nn.Conv2d(1, channels[0], 3, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for i, (width_in, width_out) in enumerate(pairwise(channels)):
            pooling = [nn.MaxPool2d(2)] if i == 0 else []
            layers += [*separable_convolution(width_in, width_out, bias=False), *pooling]
            layers += [nn.BatchNorm2d(width_out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], CLASSES))


class Repeated(nn.Sequential):
    """Narrow with one set of 1x1 weights for all of its last layers, which can therefore be wider.

    stem:      output channels of the first convolution
    width:     output channels of every other one
    times:     how many separable convolutions follow the pooling; all of them use the same 1x1 weights
    one_block: they use the same 3x3 weights too; batch norm is always each layer's own

    Raises ValueError for more layers than the maps have pixels.
    """

    def __init__(self, stem: int = 12, width: int = 28, times: int = 4, one_block: bool = False) -> None:
        if not 1 <= times <= 5:
            raise ValueError(f"times is {times}, expected 1 to 5")
        layers = [nn.Conv2d(1, stem, 3, bias=False), nn.BatchNorm2d(stem), nn.ReLU()]
        layers += [*separable_convolution(stem, width, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.ReLU()]
        per_channel, mix = separable_convolution(width, width, bias=False)
        for i in range(times):
            if i > 0 and not one_block:
                per_channel, _ = separable_convolution(width, width, bias=False)
            layers += [per_channel, mix, nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


class Shuffled(nn.Sequential):
    """Narrow with wider layers: from the third on, a 1x1 convolution mixes only within groups of channels.

    channels:   output channels of each convolution, as in Narrow; from the second on, multiples of `groups`
    groups:     of channels that are mixed apart; their channels are shuffled before the next layer (ShuffleNet, Zhang et
                al., 2018)
    attention:  whether each map is then scaled between 0 and 1, by a convolution over the means of neighboring channels
                (ECA-Net, Wang et al., 2020)
    activation: "relu" or "silu"

    Raises ValueError for fewer than two convolutions, an unknown activation, and channels that make no whole groups.
    """

    def __init__(
        self,
        channels: Sequence[int] = (8, 16, 26, 28, 26, 26),
        groups: int = 2,
        attention: bool = False,
        activation: str = "relu",
    ) -> None:
        if len(channels) < 2:
            raise ValueError(f"channels are {list(channels)}, expected at least two")
        if any(width % groups for width in channels[1:]):
            raise ValueError(f"channels are {list(channels)}, expected multiples of {groups} from the second on")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        active = ACTIVATIONS[activation]
        layers: list[nn.Module] = [nn.Conv2d(1, channels[0], 3, bias=False), nn.BatchNorm2d(channels[0]), active()]
        for i, (width_in, width_out) in enumerate(pairwise(channels)):
            per_channel, mix = separable_convolution(width_in, width_out, bias=False)
            between: list[nn.Module] = [nn.MaxPool2d(2)] if i == 0 else []
            if i > 0 and groups > 1:
                mix = nn.Conv2d(width_in, width_out, 1, groups=groups, bias=False)
                between = [nn.ChannelShuffle(groups)]
            layers += [per_channel, mix, *between, nn.BatchNorm2d(width_out), active()]
            layers += [ChannelAttention()] if attention else []
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], CLASSES))


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


class ChannelAttention(nn.Module):
    """Scales each map between 0 and 1, by what the means of itself and its two neighbors say: three weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        means = maps.mean(dim=(2, 3)).unsqueeze(1)
        return maps * torch.sigmoid(self.weigh(means)).squeeze(1)[:, :, None, None]


class LeNet(nn.Sequential):
    """The ladder's first rungs: like LeNet-5, but the third convolution is 4x4, the size of its input map."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 4),
            nn.Flatten(),
            nn.Linear(120, 84),
            nn.Tanh(),
            nn.Linear(84, CLASSES),
        )


class TanhLeNet(LeNet):
    """LeNet with a tanh after the third convolution too, as in LeNet-5: no two linear layers in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.insert(7, nn.Tanh())


class DeeperLeNet(nn.Sequential):
    """The ladder's last rungs: three 3x3 convolutions with ReLU and max pooling; map sizes 28, 26, 13, 11, 9, 4."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1_024, 100),
            nn.ReLU(),
            nn.Linear(100, CLASSES),
        )


class BatchNormLeNet(DeeperLeNet):
    """DeeperLeNet with batch norm between each convolution and its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        for behind, channels in ((6, 64), (4, 64), (1, 32)):  # from the end, so that the places before stay
            self.insert(behind, nn.BatchNorm2d(channels))


class DeepestLeNet(DeeperLeNet):
    """DeeperLeNet with a fourth 3x3 convolution before the last pooling; map sizes 28, 26, 13, 11, 9, 7, 3."""

    def __init__(self) -> None:
        super().__init__()
        self.insert(7, nn.Conv2d(64, 64, 3))
        self.insert(8, nn.ReLU())
        self[11] = nn.Linear(576, 100)


class Stages(nn.Sequential):
    """Stages of padded 3x3 convolutions, each followed by 2x2 max pooling, then a dense layer: published sizes.

    widths:     output channels of each convolution, stage by stage
    dense:      units of the dense layer
    batch_norm: whether batch norm follows every convolution
    dropout:    probability of zeroing a unit of the dense layer

    Raises ValueError for more than four stages, which leave no pixels.
    """

    def __init__(
        self,
        widths: Sequence[Sequence[int]] = ((32,), (64,)),
        dense: int = 128,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        side = 28 >> len(widths)
        if side < 1:
            raise ValueError(f"{len(widths)} stages halve 28 pixels to nothing, expected at most four")
        layers: list[nn.Module] = []
        width_in = 1
        for stage in widths:
            for width in stage:
                layers.append(nn.Conv2d(width_in, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
                width_in = width
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(width_in * side**2, dense), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*layers, nn.Linear(dense, CLASSES))


class DeeperCNN(nn.Sequential):
    """The second of three published sizes: two padded 3x3 convolutions before each ReLU, as its author describes it."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(3_136, 256),
            nn.ReLU(),
            nn.Linear(256, CLASSES),
        )


class TwoBranches(nn.Module):
    """One convolution, two parallel branches of two convolutions, concatenated to 512 x 7 x 7, three dense layers.

    dropout: probability of zeroing a unit of the first two dense layers
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU())
        self.branches = nn.ModuleList([self._branch(), self._branch()])
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width in ((2 * 256 * 7 * 7, 1_000), (1_000, 500)):
            layers += [nn.Linear(width_in, width), nn.ReLU()]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.readout = nn.Sequential(*layers, nn.Linear(500, CLASSES))

    @staticmethod
    def _branch() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        return self.readout(torch.cat([branch(maps) for branch in self.branches], dim=1))


class WebApp(nn.Sequential):
    """The network of a web app: two convolutions with batch norm and spatial dropout, a dense layer with dropout."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for width_in, width in ((1, 16), (16, 32)):
            layers += [nn.Conv2d(width_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Dropout2d(0.25), nn.MaxPool2d(2)]
        dense = [nn.Flatten(), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, CLASSES)]
        super().__init__(*layers, *dense)


class PyTorchExample(nn.Sequential):
    """The well-known network of pytorch/examples, `mnist/main.py`."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(9_216, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, CLASSES),
        )
