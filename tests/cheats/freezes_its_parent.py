"""Stops its parent, which then waits for ever and limits nothing."""

import contextlib
import os
import signal
import time

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        with contextlib.suppress(OSError):
            os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(1_000_000)
