"""The app and its database: SQLite, and a real PostgreSQL that is stopped, started and made to hang."""

import contextlib
import signal
import socket
import sqlite3
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from rows import row
from servers import App, free_port, wait_until
from sqlalchemy.exc import SQLAlchemyError
from test_app import encode

from app.recorder import AlreadyKnown, Recorder, UnknownDrawing
from app.settings import Settings
from app.spool import Spool
from app.store import Store, drawings


@pytest.fixture
def open_store():
    """Opens stores, and closes their connections after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url, timeout=30: stack.enter_context(contextlib.closing(Store(url, timeout=timeout)))


@pytest.fixture(scope="module")
def seven(sample):
    return encode(sample[1].images[7].numpy())


def rows_of(url):
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return connection.execute(sa.select(drawings).order_by(drawings.c.drawn_at)).all()


# ---------------------------------------------------------------------------------------------------------------------
# The store
# ---------------------------------------------------------------------------------------------------------------------


def test_a_row_comes_back_as_it_was(url, open_store):
    store, one = open_store(url), row(truth=4)
    store.save([one])
    assert store.find(one.id) == one
    assert store.find(one.id).drawn_at.tzinfo is not None
    assert store.find(uuid.uuid4()) is None


def test_a_time_in_another_zone_is_stored_in_utc(url, open_store):
    store = open_store(url)
    one = row(drawn_at=datetime(2026, 1, 1, 3, tzinfo=timezone(timedelta(hours=3))))
    store.save([one])
    assert store.find(one.id).drawn_at == datetime(2026, 1, 1, tzinfo=timezone.utc)


def test_a_row_sent_twice_is_stored_once_and_keeps_its_label(url, open_store):
    store, first = open_store(url), row(prediction=1)
    later = replace(first, prediction=2)
    store.save([first])
    store.save([later])
    assert store.find(first.id).prediction == 2
    store.save([replace(later, truth=3)])
    store.save([first])
    store.save([replace(later, truth=5)])
    assert (store.find(first.id).prediction, store.find(first.id).truth) == (2, 3)
    assert len(rows_of(url)) == 1


def test_a_batch_is_saved_whole_or_not_at_all(url, open_store):
    store = open_store(url)
    with pytest.raises(SQLAlchemyError):
        store.save([row(), row(truth=11)])
    assert not rows_of(url)


def test_statistics_match_a_count_by_hand(url, open_store):
    store = open_store(url)
    told = [row(7, 7), row(7, 7, confidence=0.5), row(7, 1, minutes=1, confidence=0.6), row(2, 3, minutes=2), row(5)]
    store.save(told)
    counted = store.statistics()
    assert (counted["predictions"], counted["known"], counted["right"], counted["accuracy"]) == (5, 4, 2, 50)
    assert counted["confidence_right"] == pytest.approx(70.5)
    assert counted["confidence_wrong"] == pytest.approx(75.5)
    matrix = np.array(counted["confusion_matrix"])
    assert (matrix[7, 7], matrix[1, 7], matrix[3, 2], matrix.sum()) == (2, 1, 1, 4)
    assert [(one["truth"], one["prediction"]) for one in counted["latest_mistakes"]] == [(3, 2), (1, 7)]
    assert counted["latest_mistakes"][0]["image"] == list(told[3].image)


def test_an_empty_database_has_statistics(url, open_store):
    counted = open_store(url).statistics()
    assert (counted["predictions"], counted["accuracy"], counted["latest_mistakes"]) == (0, None, [])


def test_several_workers_create_the_tables_at_once(url, open_store):
    """Twelve stores, each with its own connections, start on an empty database."""
    barrier, stores = threading.Barrier(12), [open_store(url, timeout=60) for _ in range(12)]

    def begin(store):
        barrier.wait()
        store.save([row()])

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(begin, stores))
    assert len(rows_of(url)) == 12


# ---------------------------------------------------------------------------------------------------------------------
# The recorder
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorder(url, tmp_path, monkeypatch):
    """Its corrections wait for the database, however busy the machine is."""
    monkeypatch.setattr("app.recorder.PATIENCE", 20)
    recorder = Recorder(Store(url, timeout=30), Spool(tmp_path / "spool.sqlite"))
    yield recorder
    recorder.stop()


def test_a_prediction_on_its_way_to_the_database_still_waits(recorder, monkeypatch):
    moving, go_on, save = threading.Event(), threading.Event(), recorder._store.save

    def slow(rows):
        moving.set()
        assert go_on.wait(60)
        save(rows)

    monkeypatch.setattr(recorder._store, "save", slow)
    recorder.predicted(row())
    assert moving.wait(60)
    assert recorder.waiting() == 1
    go_on.set()
    wait_until(lambda: recorder.waiting() == 0)


def test_only_the_last_prediction_of_a_drawing_is_recorded(recorder, url):
    first = row(prediction=1)
    recorder.predicted(first)
    recorder.predicted(replace(first, prediction=2))
    wait_until(lambda: recorder.waiting() == 0)
    assert [one.prediction for one in rows_of(url)] == [2]


def test_a_correction_is_in_the_database_if_corrected_returns_true(recorder, url):
    one = row()
    recorder.predicted(one)
    assert recorder.corrected(one.id, 3) is True
    assert [found.truth for found in rows_of(url)] == [3]


def test_a_prediction_after_the_correction_changes_nothing(recorder, url):
    one = row(prediction=1)
    recorder.predicted(one)
    recorder.corrected(one.id, 1)
    recorder.predicted(replace(one, prediction=2))
    time.sleep(0.6)
    assert [(found.prediction, found.truth) for found in rows_of(url)] == [(1, 1)]


def test_a_correction_that_overtook_its_prediction_on_the_way_to_the_spool_counts(tmp_path):
    """The thread that moves predictions may have taken this one before the correction came, and spool it after that."""
    spool, prediction = Spool(tmp_path / "spool.sqlite"), row()
    told = replace(prediction, truth=2)
    spool.add([told])
    spool.add([prediction])
    assert spool.find(prediction.id) == told
    spool.close()


def test_unknown_and_already_corrected_drawings_are_refused(recorder):
    one = row()
    recorder.predicted(one)
    recorder.corrected(one.id, 3)
    with pytest.raises(AlreadyKnown):
        recorder.corrected(one.id, 4)
    with pytest.raises(UnknownDrawing):
        recorder.corrected(uuid.uuid4(), 4)


def test_a_drawing_from_another_process_is_found_in_the_database(recorder, url, open_store):
    one = row()
    open_store(url).save([one])
    assert recorder.corrected(one.id, 3) is True
    with pytest.raises(AlreadyKnown):
        recorder.corrected(one.id, 4)


def test_of_several_threads_that_correct_a_drawing_one_succeeds(recorder, url):
    one = row()
    recorder.predicted(one)

    def tell(truth):
        try:
            return recorder.corrected(one.id, truth)
        except AlreadyKnown:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(map(str, pool.map(tell, range(8)))) == ["None"] * 7 + ["True"]


def test_stopping_loses_nothing(url, tmp_path, open_store):
    recorder = Recorder(open_store(url), Spool(tmp_path / "spool.sqlite"))
    for _ in range(700):  # more than one batch
        recorder.predicted(row())
    recorder.stop()
    assert len(rows_of(url)) == 700


def test_rows_that_a_killed_process_left_in_the_spool_arrive_in_order(url, tmp_path, open_store):
    """All rows are of one drawing, within a batch and across two: the first correction stays."""
    spool, one = Spool(tmp_path / "spool.sqlite"), row(prediction=1)
    spool.add([one, replace(one, prediction=2), replace(one, prediction=2, truth=4)])
    spool.add([replace(one, prediction=3), replace(one, truth=5)])
    spool.close()
    recorder = Recorder(open_store(url), Spool(tmp_path / "spool.sqlite"))
    wait_until(lambda: recorder.waiting() == 0)
    recorder.stop()
    assert [(found.prediction, found.truth) for found in rows_of(url)] == [(2, 4)]


def test_a_row_that_the_database_rejects_is_set_aside_and_blocks_no_other(url, tmp_path, open_store):
    spool, good, wrong = Spool(tmp_path / "spool.sqlite"), [row(), row()], row(truth=11)
    spool.add([good[0], wrong, good[1]])
    recorder = Recorder(open_store(url), spool)
    wait_until(lambda: recorder.waiting() == 0)
    assert recorder.online
    recorder.stop()
    assert {found.id for found in rows_of(url)} == {one.id for one in good}
    ((kept,),) = sqlite3.connect(tmp_path / "spool.sqlite").execute("SELECT row FROM refused")
    assert str(wrong.id) in kept


def test_a_damaged_spool_is_reported_and_not_overwritten(tmp_path):
    (tmp_path / "spool.sqlite").write_bytes(b"damaged" * 1_000)
    with pytest.raises(OSError, match="spool.sqlite cannot be used .file is not a database.: set APP_DATA"):
        Spool(tmp_path / "spool.sqlite")
    assert (tmp_path / "spool.sqlite").read_bytes() == b"damaged" * 1_000


# ---------------------------------------------------------------------------------------------------------------------
# An unreachable database
# ---------------------------------------------------------------------------------------------------------------------


def predict(server, seven):
    id = uuid.uuid4()
    begin = time.monotonic()
    assert server.client.post(f"predict?drawing={id}", content=seven).json()["digit"] == 7
    return id, time.monotonic() - begin


@pytest.fixture
def silent():
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_predictions_do_not_wait_for_an_unreachable_database(tmp_path, seven, silent, kind):
    waiting = 8  # seconds that a request would take if it waited for the silent database
    port = free_port() if kind == "refused" else silent
    database = {"DB_HOST": "127.0.0.1", "DB_PORT": str(port), "DB_NAME": "x", "DB_USER": "x", "DB_PASSWORD": "SECRET"}
    with App(tmp_path, patient=False, **database, APP_DATABASE_TIMEOUT=str(waiting)) as server:
        predict(server, seven)
        took = []
        for _ in range(100):
            id, seconds = predict(server, seven)
            took.append(seconds)
        assert max(took) < waiting / 2
        begin = time.monotonic()
        assert server.client.post(f"drawings/{id}/truth", json={"digit": 7}).json() == {"recorded": False}
        assert time.monotonic() - begin < waiting / 2
        again = server.client.post(f"drawings/{id}/truth", json={"digit": 1})
        assert again.status_code == 409
        wait_until(lambda: server.client.get("readyz").json()["database"] == "unreachable, spooling")
        assert server.client.get("readyz").json()["waiting"] >= 1
        counted = server.client.get("statistics")
        assert counted.status_code == 503 and "the database is unreachable" in counted.json()["error"]
        unknown = server.client.post(f"drawings/{uuid.uuid4()}/truth", json={"digit": 7})
        assert unknown.status_code == 503 and "only it has this drawing" in unknown.json()["error"]
        assert "app_database_up 0.0" in server.client.get("metrics").text
    assert "SECRET" not in server.log


def test_a_database_restarted_meanwhile_gets_every_row_once(tmp_path, postgres, seven):
    postgres.empty()
    url = sa.make_url(postgres.url).set(drivername="postgresql+psycopg")
    told = {}
    with App(tmp_path, DATABASE_URL=postgres.url) as server:

        def tell(count):
            said = []
            for _ in range(count):
                id, seconds = predict(server, seven)
                assert seconds < 10  # half the time after which the database counts as unreachable
                said.append(
                    server.client.post(f"drawings/{id}/truth", json={"digit": len(told) % 10}).json()["recorded"]
                )
                told[id] = len(told) % 10
            return said

        assert tell(20) == [True] * 20
        postgres.stop()
        try:
            assert tell(20) == [False] * 20
        finally:
            postgres.start()
        wait_until(
            lambda: (
                server.client.get("readyz").json() | {"network": ""}
                == {"network": "", "database": "reachable", "waiting": 0}
            )
        )
        assert tell(5) == [True] * 5
    found = {one.id: one.truth for one in rows_of(url)}
    assert found == told and len(rows_of(url)) == 45


def test_corrections_made_without_the_database_survive_a_kill_of_the_app(tmp_path, postgres, seven):
    """The app is killed, not stopped, and the database returns only after that."""
    postgres.empty()
    server = App(tmp_path, DATABASE_URL=postgres.url)
    try:
        server.client.get("statistics")
        postgres.stop()
        try:
            id, _ = predict(server, seven)
            assert server.client.post(f"drawings/{id}/truth", json={"digit": 2}).json() == {"recorded": False}
            server.stop(signal.SIGKILL)
            server.start()
            assert server.client.post(f"drawings/{id}/truth", json={"digit": 3}).status_code == 409
        finally:
            postgres.start()
        url = sa.make_url(postgres.url).set(drivername="postgresql+psycopg")
        wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
        assert [(one.id, one.truth) for one in rows_of(url)] == [(id, 2)]
    finally:
        server.stop()


def test_two_replicas_share_the_database_and_nothing_else(tmp_path, postgres, seven):
    postgres.empty()
    with App(tmp_path / "a", DATABASE_URL=postgres.url) as a, App(tmp_path / "b", DATABASE_URL=postgres.url) as b:
        id, _ = predict(a, seven)
        wait_until(lambda: a.client.get("readyz").json()["waiting"] == 0)
        assert b.client.post(f"drawings/{id}/truth", json={"digit": 7}).json() == {"recorded": True}
        assert a.client.get("statistics").json()["right"] == 1
        assert b.client.post(f"drawings/{id}/truth", json={"digit": 1}).status_code == 409


def test_corrections_in_flight_when_the_app_stops_are_kept(tmp_path, seven):
    """Many clients send corrections while the app stops: every correction it has acknowledged is recorded."""
    server = App(tmp_path)
    ids = [predict(server, seven)[0] for _ in range(60)]
    answered = []

    def tell(id):
        try:
            if httpx.post(f"{server.address}drawings/{id}/truth", json={"digit": 1}, timeout=60).status_code == 200:
                answered.append(id)
        except httpx.TransportError:
            pass

    with ThreadPoolExecutor(8) as pool:
        for id in ids:
            pool.submit(tell, id)
        wait_until(lambda: len(answered) >= 5)
        server.process.terminate()
    assert server.stop() == -signal.SIGTERM and "Application shutdown complete" in server.log
    found = sqlite3.connect(tmp_path / "app-data/drawings.sqlite").execute("SELECT id FROM drawings WHERE truth = 1")
    assert {uuid.UUID(id) for (id,) in found} >= set(answered)


# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "sqlite:///app-data/drawings.sqlite"),
        ({"DATABASE_URL": "postgres://u:p@h/d"}, "postgresql+psycopg://u:p@h/d"),
        ({"DATABASE_URL": "postgresql://u:p@h:1/d"}, "postgresql+psycopg://u:p@h:1/d"),
        ({"DATABASE_URL": "sqlite:////x/y"}, "sqlite:////x/y"),
        (
            {"DB_HOST": "h", "DB_NAME": "d", "DB_USER": "u", "DB_PASSWORD": "a/b@c"},
            "postgresql+psycopg://u:a%2Fb%40c@h:5432/d",
        ),
        ({"DATABASE_URL": "", "DB_HOST": ""}, "sqlite:///app-data/drawings.sqlite"),
    ],
)
def test_the_environment_chooses_the_database(monkeypatch, variables, expected):
    for name in ("DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings().database.render_as_string(hide_password=False) == expected
    assert "a/b@c" not in str(Settings())
