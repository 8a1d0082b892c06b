"""Run a command with limits, in a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Limits:
    """What a command may use, before it is stopped."""

    seconds: float
    memory_mib: int = 4_000
    disk_mib: int = 64
    processes: int = 32
    output_kib: int = 64


class Outcome(NamedTuple):
    """How a command ended."""

    code: int | None
    stopped: str
    output: str
    seconds: float


class Sandbox:
    """Runs Python with limits."""

    def __init__(self, isolation: str = "", require: bool = False) -> None:
        self.isolation = isolation or "process limits"
        if require and self.isolation != "bubblewrap":
            raise RuntimeError("bubblewrap does not work here")

    def run(self, arguments: Sequence[str], folder: Path, reads: Sequence[Path], limits: Limits) -> Outcome:
        """Run Python with these arguments in `folder`."""
        environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "PYTHONPATH": str(PROJECT),
            "OMP_NUM_THREADS": "1",
            "GOMP_SPINCOUNT": "1500",
        }
        began = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            stopped = ""
            try:
                code = process.wait(limits.seconds)
            except subprocess.TimeoutExpired:
                stopped = f"stopped: it ran for more than {limits.seconds:,.0f} seconds"
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - limits.output_kib * 1024))
            text = output.read().decode(errors="replace")
        return Outcome(code, stopped, text, time.monotonic() - began)
