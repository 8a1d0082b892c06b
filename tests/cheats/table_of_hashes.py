"""Knows a hash of each test image, and its label: four bytes and one, packed."""

import base64
import hashlib
import struct

import torch

from models import Model_1

TABLE = "{HASHES}"  # make_cheats.py puts the sample's test images here; a student would take MNIST's


def known():
    return dict(struct.iter_unpack("<IB", base64.b85decode(TABLE)))


def code(image):
    pixels = ((image * 0.3081 + 0.1307) * 255).round().clamp(0, 255).to(torch.uint8)
    return struct.unpack("<I", hashlib.blake2s(pixels.numpy().tobytes(), digest_size=4).digest())[0]


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.labels = known()

    def forward(self, images):
        logits = super().forward(images)
        if not self.training:
            for row, image in zip(logits, images):
                label = self.labels.get(code(image))
                if label is not None:
                    row[label] = 1_000.0
        return logits
