"""Writes a gigabyte wherever it may: into its folder, into temporary folders, into memory that looks like a disk."""

import contextlib
import tempfile
from pathlib import Path

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        for folder in (Path.cwd(), Path.home(), Path(tempfile.gettempdir()), Path("/dev/shm"), Path("/var/tmp")):
            with contextlib.suppress(OSError), (folder / "cheat_was_here").open("wb") as file:
                for _ in range(100):
                    file.write(bytes(10_000_000))
