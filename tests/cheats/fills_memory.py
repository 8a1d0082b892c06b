"""Asks for memory until there is no more, and touches all of it."""

from models import Model_1

hoard = []


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)

    def forward(self, images):
        while True:
            hoard.append(bytearray(b"x") * 100_000_000)
