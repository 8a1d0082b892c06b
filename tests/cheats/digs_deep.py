"""Thousands of folders in one another, with names that are no text: whoever tidies up must not trip."""

import contextlib
import os
from pathlib import Path

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        here, name = os.open(".", os.O_RDONLY), os.fsdecode(b"\xff\n<b>")
        with contextlib.suppress(OSError):
            for _ in range(3_000):
                Path(name).mkdir()
                os.chdir(name)
            Path("locked").mkdir(0)
        os.fchdir(here)
