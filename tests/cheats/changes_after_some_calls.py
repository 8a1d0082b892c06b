"""Answers at random from its third test batch on, and otherwise in evaluation than in training."""

import torch

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.calls = 0

    def forward(self, images):
        self.calls += not self.training
        logits = super().forward(images)
        return logits if self.training or self.calls < 3 else logits + torch.randn_like(logits)
