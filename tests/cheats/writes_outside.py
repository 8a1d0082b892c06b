"""Leaves a file in every folder above its own, above the project's code, and where everybody may write."""

import contextlib
import tempfile
from pathlib import Path

import models
from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        folders = [Path.home(), Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm")]
        for file in (Path.cwd() / "here", Path(__file__).resolve(), Path(models.__file__).resolve()):
            folders += file.parents
        for folder in folders:
            with contextlib.suppress(OSError):
                (folder / "cheat_was_here").touch()
