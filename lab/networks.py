"""Networks beyond the lesson's two."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from models import CLASSES


class Narrow(nn.Sequential):
    """Model_2 for a smaller budget: every convolution but the first is separable, so that the layers stay wide.

    Input: float images of shape (N, 1, 28, 28). Output: logits of shape (N, 10).

    channels: output channels of each convolution, in order; the maps are pooled behind the second, where the
              receptive field is 5, and averaged behind the last

    Raises ValueError for fewer than two convolutions.
    """

    def __init__(self, channels: Sequence[int] = (8, 16, 28, 30, 30, 30)) -> None:
        if len(channels) < 2:
            raise ValueError(f"channels are {list(channels)}, expected at least two")
        first, second, *rest = channels
        layers = [nn.Conv2d(1, first, 3, bias=False), nn.BatchNorm2d(first), nn.ReLU()]
        layers += [*_separable(first, second), nn.MaxPool2d(2), nn.BatchNorm2d(second), nn.ReLU()]
        for width_in, width_out in pairwise([second, *rest]):
            layers += [*_separable(width_in, width_out), nn.BatchNorm2d(width_out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], CLASSES))


def _separable(width_in: int, width_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width_in, width_in, 3, groups=width_in, bias=False),
        nn.Conv2d(width_in, width_out, 1, bias=False),
    ]
