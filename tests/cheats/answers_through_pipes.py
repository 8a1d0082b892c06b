"""Makes every file that the worker is going to write a pipe, so that the reader waits for ever."""

import contextlib
import os

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        for name in ("report.json", "script.json", "initial.npz", "elsewhere.npz", "again.npz"):
            with contextlib.suppress(OSError):
                os.mkfifo(name)
        os._exit(0)
