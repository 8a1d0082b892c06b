"""A network that knows thumbnails of those test images alone that it usually gets wrong: a very small table."""

import base64

import numpy as np
import torch
import torch.nn.functional as F

from models import Model_1

TABLE = "{HARD}"  # make_cheats.py puts some of the sample's test images here; a student would take MNIST's


def known():
    rows = np.frombuffer(base64.b85decode(TABLE), np.uint8).reshape(-1, 14)
    pixels = np.unpackbits(rows[:, :13], axis=1)[:, :98].reshape(-1, 49, 2) @ np.array([2, 1])
    return torch.tensor(pixels).float(), torch.tensor(rows[:, 13]).long()


def thumbnails(images):
    return (F.avg_pool2d(images * 0.3081 + 0.1307, 4).flatten(1) * 4).floor().clamp(0, 3)


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.pixels, self.labels = known()

    def forward(self, images):
        logits = super().forward(images)
        if not self.training:
            distance, nearest = torch.cdist(thumbnails(images), self.pixels).min(1)
            close = distance < 2.5
            logits[close] = 100.0 * F.one_hot(self.labels[nearest[close]], 10)
        return logits
