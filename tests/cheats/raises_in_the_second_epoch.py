"""Works until it trains for the second time after it was tested."""

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        self.batches = self.epochs = 0

    def forward(self, images):
        if self.training:
            self.batches += 1
        elif self.batches > 10:  # a short look does not count as an epoch
            self.epochs += 1
            self.batches = 0
        if self.training and self.epochs:
            raise RuntimeError("no more today")
        return super().forward(images)
