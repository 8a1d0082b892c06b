"""Networks beyond the lesson's two."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from models import CLASSES, separable_convolution


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
        layers = [nn.Conv2d(1, channels[0], 3, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for i, (width_in, width_out) in enumerate(pairwise(channels)):
            pooling = [nn.MaxPool2d(2)] if i == 0 else []
            layers += [*separable_convolution(width_in, width_out, bias=False), *pooling]
            layers += [nn.BatchNorm2d(width_out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], CLASSES))
