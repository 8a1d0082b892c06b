"""What several tests stand on: the real archives, a real web server, processes, and figures that open no window."""

import gzip
import hashlib
import http.server
import multiprocessing
import os
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch
from torchvision.datasets import MNIST

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # so that `import utils` works from any directory
import utils
from tests.notes import note

matplotlib.use("Agg")
torch.set_num_threads(1)  # the tests' networks are so small that a second thread would only wait for the first


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line says which tests did not run for want of a browser."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [str(report.longrepr[2]) for report in terminal.stats.get("skipped", [])] if terminal else []
    reasons = [reason for reason in skipped if "no browser" in reason]
    if reasons:
        note(f"not run: {len(reasons)} tests of the page, {reasons[0].removeprefix('Skipped: ')}")


NOWHERE = "http://127.0.0.1:9/"  # nobody listens here: as good as no network, and fails at once


@pytest.fixture(scope="session")
def sample() -> tuple[utils.Digits, utils.Digits]:
    """The 5,000 images of MNIST that every machine has, whatever else it has: the tests say the same everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SESSION7_DATASET", "sample")
        return utils.load_data(torch.device("cpu"))


@pytest.fixture
def few(sample, monkeypatch, tmp_path):
    """300 training and 200 test images of the sample, in an empty folder."""
    digits = sample[0][:300], sample[1][:200]
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": digits)
    monkeypatch.chdir(tmp_path)
    return digits


@pytest.fixture(scope="session")
def extracted(sample: tuple[utils.Digits, utils.Digits], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four files as MNIST's are, of the sample's images; to be read only."""
    folder = tmp_path_factory.mktemp("extracted")
    for part, digits in zip(("train", "t10k"), sample):
        for kind, array in (("images-idx3", digits.images), ("labels-idx1", digits.labels.to(torch.uint8))):
            head = struct.pack(f">4B{array.dim()}i", 0, 0, 8, array.dim(), *array.shape)  # 8: unsigned bytes
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + array.numpy().tobytes())
    return folder


@pytest.fixture(scope="session")
def archives(extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the four archives of these files; to be read only."""
    folder = tmp_path_factory.mktemp("archives")
    for path in extracted.iterdir():
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return folder


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def small_mnist(archives: Path, extracted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader takes these small files for MNIST: their checksums stand where those of MNIST's files stand."""
    monkeypatch.setattr(MNIST, "resources", [(name, md5(archives / name)) for name, _ in MNIST.resources])
    monkeypatch.setattr(utils, "MNIST_MD5", {path.name: md5(path) for path in extracted.iterdir()})


class Mirror(http.server.ThreadingHTTPServer):
    """A web server on this machine. The first part of an address says how it behaves: `url("403")`, `url("good")`."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.folder = folder
        self.asked: list[str] = []
        self.closing = threading.Event()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up early is no news: torchvision asks once for the redirects alone."""


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Mirror

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append(self.path)
        behaviour, name = self.path.strip("/").split("/")
        if behaviour.isdigit():
            self.send_error(int(behaviour))
            return
        if behaviour == "hangs-up":
            return
        if behaviour == "no-http":
            self.wfile.write(b"Please log in to the hotel's network.\r\n\r\n")
            return
        content = (self.server.folder / name).read_bytes()
        half = content[: len(content) // 2]
        self.send_response(200)
        if behaviour == "cut-chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(half), half))
            return
        if behaviour != "cut-unannounced":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if behaviour == "good":
            self.wfile.write(content)
        elif behaviour == "altered":
            self.wfile.write(half + bytes([content[len(half)] ^ 1]) + content[len(half) + 1 :])
        else:
            assert behaviour in ("cut", "cut-unannounced", "stalls")
            self.wfile.write(half)
            self.wfile.flush()
            if behaviour == "stalls":
                self.server.closing.wait()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(archives: Path) -> Iterator[Mirror]:
    server = Mirror(archives)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the caller's, no proxy and no mirror reaches into a test."""
    for name in ("MNIST_ARCHIVES", "SESSION7_DATASET", "SESSION7_SHORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(MNIST, "mirrors", [NOWHERE])


@pytest.fixture(scope="session")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Forks processes from one that has imported everything already, so that a run starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lab.runs.train"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(utils.__file__).parent), prepend=os.pathsep)
        first = context.Process(target=int)  # starts the one that the others come from
        first.start()
        first.join()
    yield context


# ---------------------------------------------------------------------------------------------------------------------
# The app's: what these import, the tests of the lesson do without
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL server of this module's own."""
    from servers import Postgres

    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of an empty database."""
    import sqlalchemy as sa

    if request.param == "sqlite":
        return sa.make_url(f"sqlite:///{tmp_path}/drawings.sqlite")
    return request.getfixturevalue("postgres").empty()


@pytest.fixture(scope="module")
def browser():
    """A browser that starts; without one, the test is skipped."""
    from browser import NO_BROWSER, launch
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # a machine may be busy; what does not come is waited for in failing tests alone
    with sync_playwright() as playwright:
        browser, _ = launch(playwright) or pytest.skip(NO_BROWSER)
        yield browser
        browser.close()
