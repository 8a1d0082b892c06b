"""Real servers for the tests of the app: the app itself as a process, and a PostgreSQL of its own."""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from typing_extensions import Self

REPOSITORY = Path(__file__).resolve().parents[1]


def wait_until(true: Callable[[], object], seconds: float = 15) -> None:
    """Raises AssertionError where it does not come true in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class App:
    """`python -m app` in an empty folder, with a client; variables set the app up."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("APP_", "DB_", "DATABASE_"))}
        plenty = {"APP_REQUESTS_PER_SECOND": "100000", "APP_BURST": "100000"}
        self.environment = kept | {"PYTHONPATH": str(REPOSITORY), "APP_PORT": "0"} | plenty | variables
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app"],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.address = self.process.stdout.readline().strip()
        assert self.address, (self.folder / "log.txt").read_text()
        self.client = httpx.Client(base_url=self.address, timeout=30, trust_env=False)
        wait_until(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("healthz").status_code == 200
        return False

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    @property
    def megabytes(self) -> float:
        """Of memory that the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(30)
        self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Postgres:
    """A PostgreSQL server on this machine with an empty database, which can be stopped and started."""

    def __init__(self) -> None:
        self._programs = _find_postgres()
        # It refuses to run as root: then it runs as an ordinary user, who needs a folder of his own.
        self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="postgres"))
        if self._as:
            shutil.chown(self.folder, "nobody", "nogroup")
        self.port = free_port()
        self.url = f"postgresql://learner@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "--auth=trust", "--username=learner", "--no-sync", "--encoding=UTF8", "-D")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments, self.folder / "data"],
            check=False,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **self._as,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "--log", str(self.folder / "log.txt"), "-o", options, "-D")

    def stop(self) -> None:
        """At once, whoever is connected."""
        self._run("pg_ctl", "stop", "--wait", "--mode", "immediate", "-D")

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self.stop()
        shutil.rmtree(self.folder)


def _find_postgres() -> Path:
    found = shutil.which("initdb") or max(glob.glob("/usr/lib/postgresql/*/bin/initdb"), default=None)
    if not found:
        raise FileNotFoundError("PostgreSQL's initdb is not on this machine: apt-get install postgresql")
    return Path(found).resolve().parent


def find_chromium() -> str:
    """Where Chromium is."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise FileNotFoundError("Chromium is not on this machine: apt-get install chromium")
