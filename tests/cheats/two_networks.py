"""Two classes, neither of which is called Net."""

from models import Model_1


class Small(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)


class Large(Model_1):
    def __init__(self):
        super().__init__((40, 80, 80), gap=True)
