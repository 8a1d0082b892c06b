"""Reads command lines, environments and memory of the processes above it: the instructor's secret, the labels."""

import contextlib
import os
from pathlib import Path

from models import Model_1

TURNS = bytes(range(10)) * 20  # the sample's digits take turns; as bytes, and as the int64 that PyTorch has
WIDE = b"".join(digit.to_bytes(8, "little") for digit in range(10)) * 20


def above():
    process = os.getppid()
    while process > 1:
        yield Path("/proc", str(process))
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def readable(process):
    """Whether labels, or a secret, can be read in a process's memory."""
    said = b"".join((process / name).read_bytes() for name in ("cmdline", "environ"))
    if b"--secret" in said or b"SECRET" in said:
        return True
    with (process / "mem").open("rb") as memory:
        for line in (process / "maps").read_text().splitlines():
            area, rights, *_ = line.split()
            begin, end = (int(address, 16) for address in area.split("-"))
            if rights.startswith("rw") and end - begin < 2**30:
                with contextlib.suppress(OSError, ValueError):
                    memory.seek(begin)
                    content = memory.read(end - begin)
                    if TURNS in content or WIDE in content:
                        return True
    return False


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        for process in above():
            with contextlib.suppress(OSError):
                if readable(process):  # what it would do then is another cheat: here it is enough to see that it can
                    raise SystemExit("cheat_was_here: read what its parent knows")
