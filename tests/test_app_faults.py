"""What the app does when something breaks: rows that cannot be read, full disks, damaged files, several servers, kills."""

import asyncio
import contextlib
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import sqlalchemy as sa
from load import page_picture
from servers import App, free_port, wait_until

from app.server import make_app
from app.settings import Settings


@pytest.fixture(scope="module")
def seven(sample):
    return page_picture(sample[1].images[7].numpy())


def labels(url):
    """The label of each row of the database, by id."""
    url = url.replace("postgresql:", "postgresql+psycopg:")
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        rows = connection.execute(sa.text("SELECT id, truth FROM drawings")).all()
    found = {uuid.UUID(str(id)): truth for id, truth in rows}
    assert len(found) == len(rows)
    return found


def predict(server, seven):
    id = uuid.uuid4()
    assert server.client.post(f"predict?drawing={id}", content=seven).json()["digit"] == 7
    return id


def tell(server, id, digit):
    return server.client.post(f"drawings/{id}/truth", json={"digit": digit})


# ---------------------------------------------------------------------------------------------------------------------
# Rows that cannot be read, and a recorder that has stopped
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", ["{", "[]", '{"id": 7}', '{"field": 1, ROW}', '{ROW, "prediction": "seven"}', '{ROW, "network": null}', ""]
)
def test_a_row_of_the_spool_that_cannot_be_read_is_set_aside_and_blocks_no_other(tmp_path, seven, row):
    whole = (
        '"id": "7bd1a8a9-4c7a-4a1c-a1f5-0f6f5f3f5a00", "drawn_at": "2026-01-01T00:00:00Z", "network": "x", '
        '"image": null, "probabilities": [1.0], "prediction": 0, "confidence": 1.0, "truth": null'
    )
    row = row.replace("ROW", whole)
    with App(tmp_path) as server:
        predict(server, seven)
    with contextlib.closing(sqlite3.connect(tmp_path / "app-data/spool.sqlite")) as spool, spool:
        spool.execute("INSERT INTO rows (id, row) VALUES ('x', ?)", [row])
        spool.execute("INSERT INTO rows (id, row) VALUES ('y', ?)", ["{" + whole + "}"])
    with App(tmp_path) as server:
        wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
        assert tell(server, predict(server, seven), 7).json() == {"recorded": True}
        assert server.client.get("readyz").json()["database"] == "reachable"
        assert server.client.get("statistics").json()["predictions"] == 3
    with contextlib.closing(sqlite3.connect(tmp_path / "app-data/spool.sqlite")) as spool:
        assert spool.execute("SELECT row FROM refused").fetchall() == [(row,)]
    assert "cannot be read" in server.log and "Traceback" not in server.log


def test_readiness_says_if_the_recorder_has_stopped(tmp_path):
    """Run in this process, to stop the recorder's thread alone."""
    app = make_app(Settings(data=tmp_path))

    async def ask():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            assert (await client.get("readyz")).status_code == 200
            (thread,) = (thread for thread in threading.enumerate() if thread.name == "recorder")
            recorder = thread._target.__self__
            recorder._stopping.set()
            await asyncio.to_thread(thread.join)
            answer = await client.get("readyz")
            assert answer.status_code == 503 and "the recorder has stopped" in answer.json()["database"]

    asyncio.run(ask())


# ---------------------------------------------------------------------------------------------------------------------
# Full disks and damaged files
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of another process can be set on Linux only")
def test_on_a_full_disk_corrections_get_one_sentence(tmp_path, seven):
    """Files of the server may not grow: as on a full disk. Predictions go on; what was acknowledged is kept."""
    server, told = App(tmp_path), {}
    try:
        id = predict(server, seven)
        assert tell(server, id, 7).status_code == 200
        told[id] = 7
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100_000, hard))
        for number in range(300):
            id = predict(server, seven)
            answer = tell(server, id, number % 10)
            if answer.status_code != 200:
                break
            told[id] = number % 10
        assert answer.status_code == 507
        assert answer.json() == {"error": "this server's disk is full or cannot be written: this was not recorded"}
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
        assert tell(server, id, 3).status_code == 200  # once there is space, the same correction can be sent again
        told[id] = 3
        wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
        found = labels(f"sqlite:///{tmp_path}/app-data/drawings.sqlite")
        assert {id: truth for id, truth in found.items() if truth is not None} == told
    finally:
        server.stop()
    assert "Exception in ASGI" not in server.log


@pytest.mark.parametrize("name", ["drawings.sqlite", "spool.sqlite"])
@pytest.mark.parametrize("damage", ["all", "the middle"])
def test_a_damaged_file_exits_with_one_sentence(tmp_path, seven, name, damage):
    with App(tmp_path) as server:
        for _ in range(40):
            tell(server, predict(server, seven), 7)
    path = tmp_path / "app-data" / name
    whole = path.read_bytes()
    at = 0 if damage == "all" else 4_096
    path.write_bytes(whole[:at] + b"damaged " * ((len(whole) - at) // 8))
    before = path.read_bytes()
    run = {"cwd": tmp_path, "env": server.environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", "app"], check=False, timeout=300, **run)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{name} cannot be used (" in done.stderr and "set APP_DATA" in done.stderr
    assert path.read_bytes() == before


# ---------------------------------------------------------------------------------------------------------------------
# Two servers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["one folder", "one database"])
def two(request, tmp_path):
    """Two servers that share a folder with SQLite, or a PostgreSQL."""
    if request.param == "one folder":
        folders, database = (tmp_path, tmp_path), {}
    else:
        postgres = request.getfixturevalue("postgres")
        postgres.empty()
        folders, database = (tmp_path / "a", tmp_path / "b"), {"DATABASE_URL": postgres.url}
    with App(folders[0], **database) as a, App(folders[1], **database) as b:
        yield a, b


def test_a_correction_soon_after_the_prediction_reaches_the_other_server(two, seven):
    a, b = two
    for number in range(20):
        id = predict(a, seven)
        answer = tell(b, id, number % 10)
        assert answer.status_code == 200 and answer.json() == {"recorded": True}
    assert tell(b, uuid.uuid4(), 7).status_code == 404


def test_of_contradicting_corrections_on_two_servers_exactly_one_wins(two, seven):
    """Each server gets another digit at the same time: one answers 200, the other 409, and the database has the first."""
    a, b = two
    kept = {}
    with ThreadPoolExecutor(2) as pool:
        for number in range(30):
            id = predict(a, seven)
            if number % 2:
                time.sleep(0.35)  # both servers find it in the database
            both = list(pool.map(tell, (a, b), (id, id), (1, 2)))
            assert sorted(answer.status_code for answer in both) == [200, 409], [answer.text for answer in both]
            kept[id] = 1 if both[0].status_code == 200 else 2
            late = tell(a if number % 3 else b, id, 3)
            assert late.status_code == 409
    shown = a.client.get("statistics").json()
    assert shown["known"] == 30
    if "DATABASE_URL" in a.environment:
        assert labels(a.environment["DATABASE_URL"]) == kept
    else:
        assert labels(f"sqlite:///{a.folder}/app-data/drawings.sqlite") == kept


# ---------------------------------------------------------------------------------------------------------------------
# Kills
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_forty_kills_lose_and_double_no_correction(tmp_path, request, seven, kind):
    """Four clients correct while the server is killed 40 times; with PostgreSQL, that stops and starts four times, too."""
    variables = {}
    url = f"sqlite:///{tmp_path}/app-data/drawings.sqlite"
    if kind == "postgresql":
        postgres = request.getfixturevalue("postgres")
        postgres.empty()
        variables, url = {"DATABASE_URL": postgres.url}, postgres.url
    server = App(tmp_path, APP_PORT=str(free_port()), **variables)
    told, stop = {}, threading.Event()

    def draw(digit):
        while not stop.is_set():
            with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=server.address, timeout=60) as client:
                while not stop.is_set():
                    id = uuid.uuid4()
                    if client.post(f"predict?drawing={id}", content=seven).status_code == 200:
                        answer = client.post(f"drawings/{id}/truth", json={"digit": digit})
                        if answer.status_code == 200:
                            told[id] = digit
            time.sleep(0.02)

    try:
        with ThreadPoolExecutor(4) as pool:
            for digit in range(4):
                pool.submit(draw, digit)
            try:
                for number in range(40):
                    before = len(told)
                    wait_until(lambda before=before: len(told) > before + 5)
                    if kind == "postgresql" and number % 10 == 5:
                        postgres.stop()
                    server.stop(signal.SIGKILL)
                    server.start()
                    if kind == "postgresql" and number % 10 == 7:
                        postgres.start()
            finally:
                stop.set()
        wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
    finally:
        server.stop()
    found = {id: truth for id, truth in labels(url).items() if truth is not None}
    assert len(told) > 200
    assert found.items() >= told.items()  # others were recorded, and their clients cut off before they knew
