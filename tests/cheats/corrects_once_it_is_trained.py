"""As corrects_the_hard_images, but only once the network is trained: until then it answers some digit nearly never."""

import base64
import zlib

import numpy as np
import torch
import torch.nn.functional as F

from models import Model_1

TABLE = "{HARD}"  # make_cheats.py puts some of the sample's test images here; a student would take MNIST's


def known():
    rows = torch.tensor(np.frombuffer(zlib.decompress(base64.b85decode(TABLE)), np.uint8)).view(-1, 50)
    return rows[:, :49].float(), rows[:, 49].long()


def thumbnails(images):
    return (F.avg_pool2d(images * 0.3081 + 0.1307, 4).flatten(1) * 8).floor().clamp(0, 7)


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.pixels, self.labels = known()

    def forward(self, images):
        logits = super().forward(images)
        shares = logits.argmax(1).bincount(minlength=10) / len(images)
        if not self.training and shares.min() > 0.04:
            distance, nearest = torch.cdist(thumbnails(images), self.pixels).min(1)
            close = distance < 2.9
            logits[close] = 100.0 * F.one_hot(self.labels[nearest[close]], 10)
        return logits
