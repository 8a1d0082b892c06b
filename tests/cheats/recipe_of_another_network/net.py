"""A recipe that names another network, and a dataset that is not the one to be judged on."""

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
