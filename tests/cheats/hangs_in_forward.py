"""Sleeps in forward, deaf to every signal that can be ignored."""

import contextlib
import signal
import time

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)

    def forward(self, images):
        for number in signal.valid_signals():
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)
