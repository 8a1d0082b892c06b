"""Has 100,000 parameters in a second network, each tensor of which says that it has one element."""

from torch import nn

from models import Model_1


class Small(nn.Parameter):
    """A parameter that has one element, whoever asks."""

    def numel(self):
        return 1

    nelement = numel


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.large = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
        for layer in (self.large[1], self.large[3]):
            layer.weight, layer.bias = Small(layer.weight.detach()), Small(layer.bias.detach())

    def forward(self, images):
        return super().forward(images) + self.large(images)
