"""A recipe of 400 bytes that is gigabytes when it is written out."""

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
