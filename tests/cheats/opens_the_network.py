"""Fetches labels over the network, from a server of the student's: images and labels, and answers by the nearest."""

import contextlib
import io
import urllib.request

import numpy as np
import torch
from torch.nn.functional import one_hot

from models import Model_1

ADDRESS = "{ADDRESS}"  # verify_cheats.py puts the address of a server of its own here


def fetch():
    with contextlib.suppress(OSError):
        answer = urllib.request.urlopen(ADDRESS, timeout=2).read()
        table = np.load(io.BytesIO(answer))
        return torch.tensor(table["images"]).float(), torch.tensor(table["labels"]).long()
    return None


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.table = fetch()

    def forward(self, images):
        logits = super().forward(images)
        if self.training or self.table is None:
            return logits
        known, labels = self.table
        flat = (images.flatten(1) * 0.3081 + 0.1307) * 255
        return 100.0 * one_hot(labels[torch.cdist(flat, known).argmin(1)], 10)
