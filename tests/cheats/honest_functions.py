"""No cheat: functions in place of layers, a shortcut, log-softmax, padding."""

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.normalize = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.normalize_again = nn.BatchNorm2d(8)
        self.readout = nn.Linear(8 * 7 * 7, 10)

    def forward(self, images):
        maps = F.max_pool2d(F.relu(self.normalize(self.first(images))), 2)
        maps = F.max_pool2d(self.normalize_again(maps + self.second(maps)), 2)
        maps = F.dropout(torch.flatten(maps, 1), 0.1, training=self.training)
        return F.log_softmax(self.readout(maps), dim=1)
