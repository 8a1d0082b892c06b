"""A class: taking corrections back, classes, hiding and deleting, the teacher's token, the export, projector and pages."""

import csv
import io
import itertools
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace

import httpx
import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute
from PIL import Image
from rows import row
from servers import REPOSITORY, App, free_port, wait_until
from test_app import encode

from app.classroom import Kept
from app.recorder import AlreadyKnown, NothingToTakeBack, Recorder, UnknownDrawing
from app.server import make_app
from app.settings import Settings
from app.spool import Spool
from app.store import Store, drawings
from lab.reports.classroom import read_class

TOKEN = "a-token-of-the-tests"
UNKNOWN = uuid.UUID(int=1)  # no drawing has this id; tests in several processes must have the same names
TEACHER = {"Authorization": f"Bearer {TOKEN}"}
OLD_TABLE = """CREATE TABLE drawings (
    id {uuid} NOT NULL, drawn_at {time} NOT NULL, network TEXT NOT NULL, image {bytes}, probabilities JSON NOT NULL,
    prediction SMALLINT NOT NULL, confidence FLOAT NOT NULL, truth SMALLINT, PRIMARY KEY (id),
    CHECK (prediction BETWEEN 0 AND 9), CHECK (truth BETWEEN 0 AND 9))"""  # of the version before classes


@pytest.fixture
def open_store():
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(closing(Store(url, timeout=60)))


@pytest.fixture
def open_recorder(url, tmp_path, monkeypatch):
    """Opens recorders of one database, each with a spool of its own, as servers on several machines have. Their corrections
    wait for the database, however busy the machine is.
    """
    monkeypatch.setattr("app.recorder.PATIENCE", 20)
    opened = []

    def open():
        opened.append(Recorder(Store(url, timeout=30), Spool(tmp_path / f"spool{len(opened)}.sqlite")))
        return opened[-1]

    yield open
    for recorder in opened:
        recorder.stop()


@pytest.fixture
def server(tmp_path):
    with App(tmp_path, APP_TOKEN=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def one_server(tmp_path_factory):
    """For tests that change nothing."""
    with App(tmp_path_factory.mktemp("app"), APP_TOKEN=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def pictures(sample):
    """A PNG of each digit, 0 to 9, whose index is what the network says."""
    return [encode(image) for image in sample[1].images[:10].numpy()]


def labels_of(url):
    """The truth, and how many were taken back, of each drawing in the database."""
    columns = sa.select(drawings.c.id, drawings.c.truth, drawings.c.retracted)
    with closing(sa.create_engine(url, poolclass=sa.NullPool).connect()) as connection:
        return {id: (truth, retracted) for id, truth, retracted in connection.execute(columns)}


def draw(server, picture, truth=None):
    """Predict a picture, perhaps tell the truth, and wait until the database has it. Returns the drawing's id."""
    id = uuid.uuid4()
    assert server.client.post(f"predict?drawing={id}", content=picture).status_code == 200
    if truth is not None:
        assert server.client.post(f"drawings/{id}/truth", json={"digit": truth}).status_code == 200
    wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
    return id


def as_teacher(server, method, path, **options):
    said = server.client.request(method, f"teacher/{path}", headers=TEACHER, **options)
    assert said.status_code == 200, said.text
    return said.json()


def on_wall(server):
    """The keys of the projector's drawings, not older than the next moment."""
    time.sleep(1.1)
    return [drawing["key"] for drawing in server.client.get("wall").json()["drawings"]]


# ---------------------------------------------------------------------------------------------------------------------
# The database of an earlier version
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(url):
    """A database that the version before made, with a right and a wrong prediction, and one without a truth."""
    postgres = url.get_backend_name() == "postgresql"
    types = {"uuid": "UUID", "time": "TIMESTAMPTZ", "bytes": "BYTEA"}
    if not postgres:
        types = {"uuid": "CHAR(32)", "time": "DATETIME", "bytes": "BLOB"}
    rows = [row(7, 7), row(7, 1), row(5)]
    names = ("id", "drawn_at", "network", "image", "probabilities", "prediction", "confidence", "truth")
    table = sa.table("drawings", *(sa.column(name, drawings.c[name].type) for name in names))
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text(OLD_TABLE.format(**types)))
        connection.execute(sa.text("CREATE INDEX ix_drawings_drawn_at ON drawings (drawn_at)"))
        connection.execute(sa.insert(table), [{name: getattr(one, name) for name in names} for one in rows])
    return rows


def test_an_old_database_keeps_working(old, url, open_store):
    store = open_store(url)
    assert [store.find(one.id) for one in old] == old
    counted = store.statistics()
    assert (counted["predictions"], counted["known"], counted["right"]) == (3, 2, 1)
    store.save([replace(old[0], truth=3), replace(old[1], truth=None, retracted=1), replace(old[2], truth=5), row()])
    known = labels_of(url)
    assert [known[one.id] for one in old] == [(7, 0), (None, 1), (5, 0)] and len(known) == 4


def test_several_servers_open_an_old_database_at_once(old, url, open_store):
    barrier, stores = threading.Barrier(8), [open_store(url) for _ in range(8)]

    def begin(store):
        barrier.wait()
        store.save([row()])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, stores))
    assert len(labels_of(url)) == 11


def test_rows_that_the_version_before_left_in_the_spool_arrive(tmp_path, url, open_store):
    """They lack the new fields."""
    spool, told = Spool(tmp_path / "spool.sqlite"), row(truth=4)
    spool.add([told])
    spool.close()
    with closing(sqlite3.connect(tmp_path / "spool.sqlite")) as file, file:
        file.execute("UPDATE rows SET row = json_remove(row, '$.retracted', '$.doubt')")
    recorder = Recorder(open_store(url), Spool(tmp_path / "spool.sqlite"))
    wait_until(lambda: recorder.waiting() == 0)
    recorder.stop()
    assert labels_of(url) == {told.id: (4, 0)}


# ---------------------------------------------------------------------------------------------------------------------
# Taking a correction back: rows
# ---------------------------------------------------------------------------------------------------------------------


def test_the_database_replaces_rows_as_drawings_say(url, open_store):
    """Each of nine labels before each of nine labels after."""
    store = open_store(url)
    labels = list(itertools.product((None, 3, 5), (0, 1, 2)))
    for (truth, retracted), (later_truth, later_retracted) in itertools.product(labels, labels):
        before = row(1, truth, retracted=retracted)
        after = replace(before, prediction=2, truth=later_truth, retracted=later_retracted)
        store.save([before])
        store.save([after])
        assert store.find(before.id) == (after if after.replaces(before) else before)


def test_the_last_label_counts_in_whatever_order_and_however_often_rows_arrive(url, open_store):
    store, first = open_store(url), row()
    history = [first, replace(first, truth=3), replace(first, retracted=1), replace(first, truth=5, retracted=1)]
    for order in itertools.permutations(history):
        id = uuid.uuid4()
        for one in (*order, *order[:2]):
            store.save([replace(one, id=id)])
        assert labels_of(url)[id] == (5, 1)


def test_a_label_is_taken_back_and_given_again(open_recorder, url):
    recorder, one = open_recorder(), row(prediction=1)
    recorder.predicted(one)
    assert recorder.corrected(one.id, 3) is True
    assert recorder.retracted(one.id) is True
    assert labels_of(url) == {one.id: (None, 1)}
    with pytest.raises(NothingToTakeBack, match="no correction that could be taken back"):
        recorder.retracted(one.id)
    recorder.predicted(replace(one, prediction=2))  # somebody draws on
    assert recorder.corrected(one.id, 5) is True
    assert labels_of(url) == {one.id: (5, 1)}
    with pytest.raises(AlreadyKnown):
        recorder.corrected(one.id, 6)
    assert recorder.retracted(one.id) is True
    wait_until(lambda: labels_of(url) == {one.id: (None, 2)})


def test_there_is_nothing_to_take_back_of_an_unknown_drawing(open_recorder):
    recorder, one = open_recorder(), row()
    recorder.predicted(one)
    with pytest.raises(NothingToTakeBack):
        recorder.retracted(one.id)
    with pytest.raises(UnknownDrawing):
        recorder.retracted(uuid.uuid4())


def test_of_several_threads_that_take_a_label_back_one_succeeds(open_recorder, url):
    recorder, one = open_recorder(), row()
    recorder.predicted(one)
    recorder.corrected(one.id, 3)

    def retract(_):
        try:
            return recorder.retracted(one.id)
        except (AlreadyKnown, NothingToTakeBack):
            return None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(map(str, pool.map(retract, range(8)))) == ["None"] * 7 + ["True"]
    assert labels_of(url) == {one.id: (None, 1)}


def test_a_prediction_after_a_taking_back_is_recorded(open_recorder, url, open_store):
    recorder, one = open_recorder(), row(prediction=1)
    recorder.predicted(one)
    recorder.corrected(one.id, 3)
    recorder.retracted(one.id)
    recorder.predicted(replace(one, prediction=2))
    wait_until(lambda: recorder.waiting() == 0)
    found = open_store(url).find(one.id)
    assert (found.prediction, found.truth, found.retracted) == (2, None, 1)


def test_servers_that_know_only_a_part_agree(open_recorder, url):
    """One predicts; the other records a label and takes it back; the first, which knows neither, records the second."""
    here, there, one = open_recorder(), open_recorder(), row()
    here.predicted(one)
    wait_until(lambda: here.waiting() == 0)
    assert there.corrected(one.id, 3) is True
    assert there.retracted(one.id) is True
    assert here.corrected(one.id, 5) is True
    assert labels_of(url) == {one.id: (5, 1)}
    assert there.retracted(one.id) is True  # and the other knows nothing of the second label
    assert here.corrected(one.id, 6) is True  # nor this one that it was taken back
    assert labels_of(url) == {one.id: (6, 2)}


def test_rows_that_a_killed_process_left_in_the_spool_give_the_last_label(url, tmp_path, open_store):
    """Also those that the database has already, since the process was killed before it removed them."""
    first = row()
    told = [replace(first, truth=3), replace(first, retracted=1), replace(first, truth=5, retracted=1)]
    open_store(url).save(told[:1])
    open_store(url).save(told[1:2])
    spool = Spool(tmp_path / "spool.sqlite")
    spool.add([first, *told])
    spool.add(told[:2])
    spool.close()
    recorder = Recorder(open_store(url), Spool(tmp_path / "spool.sqlite"))
    wait_until(lambda: recorder.waiting() == 0)
    recorder.stop()
    assert labels_of(url) == {first.id: (5, 1)}


# ---------------------------------------------------------------------------------------------------------------------
# Taking a correction back: the server
# ---------------------------------------------------------------------------------------------------------------------


def test_a_student_takes_a_wrong_click_back(server, pictures):
    id = draw(server, pictures[7], truth=1)
    assert server.client.delete(f"drawings/{id}/truth").json() == {"recorded": True}
    assert server.client.get("statistics").json()["known"] == 0
    assert server.client.delete(f"drawings/{id}/truth").status_code == 409
    assert server.client.post(f"drawings/{id}/truth", json={"digit": 7}).json() == {"recorded": True}
    assert server.client.get("statistics").json()["right"] == 1
    assert server.client.delete(f"drawings/{uuid.uuid4()}/truth").status_code == 404
    assert server.client.delete("drawings/nonsense/truth").json() == {
        "error": "the drawing's id is invalid, expected a UUID"
    }


def test_what_was_taken_back_without_the_database_survives_a_kill(tmp_path, postgres, pictures):
    url, digits = postgres.empty(), {}
    server = App(tmp_path, DATABASE_URL=postgres.url, APP_TOKEN=TOKEN)
    try:
        for picture in pictures[:6]:
            digits[draw(server, picture, truth=1)] = None
        postgres.stop()
        try:
            for number, id in enumerate(digits):
                assert server.client.delete(f"drawings/{id}/truth").json() == {"recorded": False}
                if number % 2:
                    said = server.client.post(f"drawings/{id}/truth", json={"digit": number})
                    assert said.json() == {"recorded": False}
                    digits[id] = number
            server.stop(signal.SIGKILL)
            server.start()
        finally:
            postgres.start()
        wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
        assert labels_of(url) == {id: (truth, 1) for id, truth in digits.items()}
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_change_of_a_label_is_lost_or_doubled_by_kills(request, tmp_path, pictures, kind):
    """Six times, the server is killed while clients tell, take back and tell again. What was acknowledged last, counts;
    what was sent and not acknowledged, may.
    """
    variables, url = {}, sa.make_url(f"sqlite:///{tmp_path}/app-data/drawings.sqlite")
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").empty()
        variables = {"DATABASE_URL": request.getfixturevalue("postgres").url}
    server = App(tmp_path, APP_PORT=str(free_port()), APP_TOKEN=TOKEN, **variables)
    possible, ids, acknowledged = {}, [], []

    def change(id, number):
        """Possible labels are the one acknowledged last, and one that is on its way."""
        for truth, turns in ((number % 10, 0), (None, 1), ((number + 1) % 10, 1)):
            possible[id] = [*possible[id][-1:], (truth, turns)]
            with httpx.Client(base_url=server.address, timeout=60) as client:
                path = f"drawings/{id}/truth"
                said = client.delete(path) if truth is None else client.post(path, json={"digit": truth})
            assert said.status_code == 200, said.text
            possible[id] = possible[id][-1:]
            acknowledged.append(id)

    try:
        for kill in range(6):
            fresh = [draw(server, pictures[number]) for number in range(6)]
            ids += fresh
            possible |= {id: [(None, 0)] for id in fresh}
            acknowledged.clear()
            with ThreadPoolExecutor(6) as pool:
                jobs = [pool.submit(change, id, number) for number, id in enumerate(fresh)]
                wait_until(lambda: len(acknowledged) >= 3 * kill)  # of 18  # noqa: B023 (called in this round)
                server.stop(signal.SIGKILL)
            assert all(isinstance(job.exception(), httpx.TransportError | None) for job in jobs), jobs
            server.start()
        wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
        found = labels_of(url)
        assert set(found) == set(ids)
        wrong = {id: (found[id], possible[id]) for id in ids if found[id] not in possible[id]}
        assert not wrong
        assert {turns for _, turns in found.values()} == {0, 1}  # kills came at different moments
    finally:
        server.stop()


# ---------------------------------------------------------------------------------------------------------------------
# Classes, hidden and deleted drawings, storing
# ---------------------------------------------------------------------------------------------------------------------


def test_statistics_of_classes_match_a_count_by_hand(url, open_store):
    """Three classes, which start at minutes 10 and 20; a drawing at the start of a class belongs to it."""
    store = open_store(url)
    store.save([row(7, 7, 1), row(7, 1, 9), row(2, 2, 10), row(3, 4, 15), row(5, None, 19), row(6, 6, 25)])
    with store.begin() as connection:
        for number, minutes in ((2, 10), (3, 20)):
            start = row(minutes=minutes).drawn_at
            connection.execute(
                sa.text("INSERT INTO classes (number, name, started_at, keeps_images) VALUES (:n, '', :at, :yes)"),
                {
                    "n": number,
                    "at": start if url.get_backend_name() == "postgresql" else f"{start:%F %T}.000000",
                    "yes": True,
                },
            )
    counted = [store.statistics(number) for number in (1, 2, 3, None)]
    assert [(one["predictions"], one["known"], one["right"]) for one in counted] == [
        (2, 2, 1), (3, 2, 1), (1, 1, 1), (1, 1, 1),
    ]  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def any_server(request, tmp_path):
    """A server with either database."""
    variables = {}
    if request.param == "postgresql":
        request.getfixturevalue("postgres").empty()
        variables = {"DATABASE_URL": request.getfixturevalue("postgres").url}
    with App(tmp_path, APP_TOKEN=TOKEN, **variables) as running:
        yield running


def test_a_new_class_starts_empty_and_the_old_one_stays(any_server, pictures):
    server = any_server
    draw(server, pictures[7], truth=7)
    draw(server, pictures[2], truth=3)
    assert as_teacher(server, "POST", "classes", json={"name": " 7b "}) == {"number": 2}
    assert server.client.get("statistics").json()["predictions"] == 0 and on_wall(server) == []
    draw(server, pictures[1], truth=1)
    listed = as_teacher(server, "GET", "classes")["classes"]
    assert [(one["number"], one["name"], one["drawings"], one["known"]) for one in listed] == [
        (2, "7b", 1, 1), (1, "", 2, 2),
    ]  # fmt: skip
    assert server.client.get("statistics").json()["right"] == 1
    old = as_teacher(server, "GET", "classes/1/statistics")
    assert (old["known"], old["right"], old["confusion_matrix"][3][2]) == (2, 1, 1)
    assert len(on_wall(server)) == 1 and server.client.get("wall").json()["class"] == {"number": 2, "name": "7b"}


def test_a_correction_stays_with_the_class_of_its_drawing(any_server, pictures):
    id = draw(any_server, pictures[7])
    as_teacher(any_server, "POST", "classes", json={})
    any_server.client.post(f"drawings/{id}/truth", json={"digit": 7})
    assert any_server.client.get("statistics").json()["known"] == 0
    assert as_teacher(any_server, "GET", "classes/1/statistics")["known"] == 1


def test_a_hidden_drawing_is_neither_shown_nor_counted(any_server, pictures):
    server = any_server
    id, other = draw(server, pictures[7], truth=1), draw(server, pictures[2], truth=2)
    both = on_wall(server)
    as_teacher(server, "PUT", f"drawings/{id}/visibility", json={"hidden": True})
    counted = server.client.get("statistics").json()
    assert (counted["predictions"], counted["right"], counted["latest_mistakes"]) == (1, 1, [])
    assert on_wall(server) == both[:1] and len(both) == 2
    listed = as_teacher(server, "GET", "classes/1/drawings?which=hidden")["drawings"]
    assert [(one["id"], one["state"]) for one in listed] == [(str(id), "hidden")]
    assert {name for name, *_ in read_zip(server)[0][1:]} == {str(other)}
    as_teacher(server, "DELETE", f"drawings/{id}/truth")
    assert server.client.post(f"drawings/{id}/truth", json={"digit": 7}).json() == {"recorded": True}
    assert server.client.get("statistics").json()["predictions"] == 1  # still hidden
    as_teacher(server, "PUT", f"drawings/{id}/visibility", json={"hidden": False})
    counted = server.client.get("statistics").json()
    assert (counted["predictions"], counted["right"]) == (2, 2) and on_wall(server) == both


def test_a_deleted_drawing_does_not_come_back(any_server, pictures, tmp_path):
    """Not by strokes or clicks of its page, also after the server was started again."""
    server = any_server
    id = draw(server, pictures[7])
    as_teacher(server, "DELETE", f"drawings/{id}")
    for _ in range(2):
        server.client.post(f"predict?drawing={id}", content=pictures[2])
        server.client.post(f"drawings/{id}/truth", json={"digit": 2})
        wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
        assert server.client.get("statistics").json()["predictions"] == 0 and on_wall(server) == []
        assert as_teacher(server, "GET", "classes/1/drawings")["total"] == 0
        server.stop(signal.SIGKILL)
        server.start()
    said = server.client.delete(f"teacher/drawings/{id}", headers=TEACHER)
    assert said.status_code == 404 and "no such drawing" in said.json()["error"]
    assert server.client.post(f"drawings/{uuid.uuid4()}/truth", json={"digit": 2}).status_code == 404


def test_nothing_of_a_deleted_drawing_is_left_in_its_row(url, tmp_path, pictures, request):
    variables = {} if url.get_backend_name() == "sqlite" else {"DATABASE_URL": request.getfixturevalue("postgres").url}
    with App(tmp_path / "app", APP_TOKEN=TOKEN, **variables) as server:
        id = draw(server, pictures[7], truth=7)
        as_teacher(server, "DELETE", f"drawings/{id}")
    file = sa.make_url(f"sqlite:///{tmp_path}/app/app-data/drawings.sqlite")
    with closing(sa.create_engine(url if variables else file, poolclass=sa.NullPool).connect()) as connection:
        found = connection.execute(sa.select(drawings)).one()
    assert (found.id, found.image, found.truth, found.probabilities, found.network) == (id, None, None, [], "")


def test_storing_is_switched_off_and_on(any_server, pictures):
    """For drawings from then on, and by every server of the database. Images that were stored stay, whatever is told."""
    server = any_server
    before = draw(server, pictures[7])
    assert server.client.get("about").json()["drawings_are_stored"] is True
    assert as_teacher(server, "PUT", "storing", json={"keeps_images": False}) == {"keeps_images": False}
    assert server.client.get("about").json()["drawings_are_stored"] is False
    off = draw(server, pictures[2], truth=2)
    server.client.post(f"drawings/{before}/truth", json={"digit": 7})
    server.stop()
    server.start()
    also_off = draw(server, pictures[1])
    with App(server.folder / "other", APP_TOKEN=TOKEN, DATABASE_URL=database_of(server)) as other:
        assert other.client.get("about").json()["drawings_are_stored"] is False
        on_another = draw(other, pictures[3])
    as_teacher(server, "POST", "classes", json={})
    off_in_the_next_class = draw(server, pictures[4])
    as_teacher(server, "PUT", "storing", json={"keeps_images": True})
    on = draw(server, pictures[5])
    images = {}
    for number in (1, 2):
        listed = as_teacher(server, "GET", f"classes/{number}/drawings")["drawings"]
        images |= {uuid.UUID(one["id"]): one["image"] is not None for one in listed}
    nothing = (off, also_off, on_another, off_in_the_next_class)
    assert images == {before: True, on: True} | dict.fromkeys(nothing, False)
    counted = as_teacher(server, "GET", "classes/1/statistics")
    assert (counted["predictions"], counted["right"]) == (4, 2)


def database_of(server):
    return server.environment.get("DATABASE_URL") or f"sqlite:///{server.folder}/app-data/drawings.sqlite"


def test_the_setting_that_forbids_to_store_drawings_cannot_be_switched(tmp_path, pictures):
    with App(tmp_path, APP_TOKEN=TOKEN, APP_STORE_DRAWINGS="false") as server:
        assert as_teacher(server, "PUT", "storing", json={"keeps_images": True}) == {"keeps_images": False}
        assert as_teacher(server, "GET", "classes")["may_keep_images"] is False
        draw(server, pictures[7])
        assert as_teacher(server, "GET", "classes/1/drawings")["drawings"][0]["image"] is None


def test_the_list_has_pages_and_filters(server, pictures):
    ids = [str(uuid.uuid4()) for _ in range(65)]
    for number, id in enumerate(ids):
        server.client.post(f"predict?drawing={id}", content=pictures[number % 10])
    for number, id in enumerate(ids[:4]):
        server.client.post(f"drawings/{id}/truth", json={"digit": max(number, 3)})
    wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0)
    first, second = (as_teacher(server, "GET", f"classes/1/drawings?page={page}") for page in (0, 1))
    listed = [one["id"] for one in (*first["drawings"], *second["drawings"])]
    assert first["total"] == 65 and len(first["drawings"]) == 60 and listed == ids[::-1]
    mistakes = as_teacher(server, "GET", "classes/1/drawings?which=mistakes")["drawings"]
    assert [one["id"] for one in mistakes] == ids[2::-1]


# ---------------------------------------------------------------------------------------------------------------------
# The token
# ---------------------------------------------------------------------------------------------------------------------


def test_every_address_of_the_teacher_needs_the_token(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = make_app(Settings(data=tmp_path / "data"))
    tried = 0
    for route in _routes_below(app.router):
        if route.path.startswith("/teacher"):
            path = route.path.format(number=1, drawing=uuid.uuid4())
            for headers in (
                {},
                {"Authorization": "Basic " + TOKEN},
                {"Authorization": TOKEN},
                {"Cookie": f"token={TOKEN}"},
            ):
                for method in route.methods:
                    said = server.client.request(method, path, headers=headers)
                    assert said.status_code == 401 and said.json() == {"error": "this needs the teacher's token"}
                    assert said.headers["WWW-Authenticate"] == "Bearer"
                    tried += 1
    assert tried >= 36


def _routes_below(router):
    """The routes of a router, also those of routers that it includes."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif inner := getattr(route, "original_router", None) or getattr(route, "router", None):
            yield from _routes_below(inner)


def test_wrong_tokens_are_limited_and_who_is_in_stays_in(server):
    key = as_teacher(server, "POST", "session")["key"]
    for _ in range(30):  # right ones are not limited
        as_teacher(server, "GET", "classes")
    wrong = [
        server.client.get("teacher/classes", headers={"Authorization": f"Bearer {number}{TOKEN}"})
        for number in range(15)
    ]
    assert [said.status_code for said in wrong] == [401] * 10 + [429] * 5
    assert 1 <= int(wrong[-1].headers["Retry-After"]) <= 5
    assert server.client.get("teacher/classes", headers=TEACHER).status_code == 429  # or it could be guessed
    assert server.client.get("teacher/classes", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    wait_until(lambda: server.client.get("teacher/classes", headers=TEACHER).status_code == 200)


@pytest.mark.parametrize("header", ["Bearer", "Bearer é", "Bearer " + "x" * 10_000, "bearer " + TOKEN + "x"])
def test_strange_tokens_are_wrong(server, header):
    said = server.client.get("teacher/classes", headers={"Authorization": header.encode()})
    assert said.status_code == 401


def test_the_token_is_printed_and_never_logged(tmp_path):
    server = App(tmp_path)
    try:
        printed = server.process.stdout.readline().strip()
        address, _, token = printed.partition("#token=")
        assert address == f"for the teacher: {server.address}teacher.html" and len(token) >= 22
        headers = {"Authorization": f"Bearer {token}"}
        key = server.client.post("teacher/session", headers=headers).json()["key"]
        assert server.client.get("teacher/classes", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert (
            server.client.get("teacher/classes", headers={"Authorization": "Bearer wrong-and-wrong"}).status_code == 401
        )
        assert not any(secret in server.log for secret in (token, key, "wrong-and-wrong"))
        server.stop()
        server.start()
        assert token not in server.process.stdout.readline()  # a new one at each start
        assert server.client.get("teacher/classes", headers={"Authorization": f"Bearer {key}"}).status_code == 401
    finally:
        server.stop()


def test_a_token_of_the_settings_is_not_printed(server):
    assert server.process.stdout.readline().strip() == f"for the teacher: {server.address}teacher.html"
    as_teacher(server, "GET", "classes")
    assert TOKEN not in server.log


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("APP_TOKEN", "short", "token is invalid: Value error, expected at least 16 letters, digits or signs"),
        ("APP_TOKEN", "with spaces and more", "token is invalid: Value error, expected at least 16 letters"),
        ("APP_ADDRESS", "digits.school", "address is invalid: Value error, expected an address such as https://"),
    ],
)
def test_bad_settings_are_one_sentence(tmp_path, variable, value, complaint):
    done = subprocess.run(
        [sys.executable, "-m", "app"],
        check=False,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(REPOSITORY), variable: value},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and done.stderr.startswith(complaint) and done.stderr.count("\n") == 1
    assert value == "digits.school" or value not in done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Export, wall, address
# ---------------------------------------------------------------------------------------------------------------------


def read_zip(server, number=1):
    """The rows of an exported class's table, and its images by name."""
    said = server.client.get(f"teacher/classes/{number}/export", headers=TEACHER)
    assert (
        said.headers["Content-Type"] == "application/zip"
        and f'"class-{number}.zip"' in said.headers["Content-Disposition"]
    )
    with zipfile.ZipFile(io.BytesIO(said.content)) as archive:
        assert archive.testzip() is None
        table = list(csv.reader(io.StringIO(archive.read("drawings.csv").decode())))
        images = {name: archive.read(name) for name in archive.namelist() if name.startswith("images/")}
    return table, images


def test_an_exported_class_is_a_test_set(any_server, pictures, sample, tmp_path):
    """More drawings than are read at a time, some of the same moment; hidden and deleted ones stay out."""
    server = any_server
    ids = [draw(server, picture, truth=number) for number, picture in enumerate(pictures)]
    as_teacher(server, "PUT", f"drawings/{ids[0]}/visibility", json={"hidden": True})
    as_teacher(server, "DELETE", f"drawings/{ids[1]}")
    with closing(Store(sa.make_url(database_of(server).replace("postgresql:", "postgresql+psycopg:")), 5)) as store:
        many = [row(7, None, number // 200, network='é, "and"') for number in range(1_100)]
        store.save([*many, row(image=None, truth=3)])
    table, images = read_zip(server)
    assert table[0] == ["id", "drawn_at", "network", "prediction", "confidence", "truth", "image", "doubt"]
    assert len(table) == 1 + 1_100 + 1 + 8 and len(images) == 1_108
    assert {cells[0] for cells in table[1:]} >= {str(one.id) for one in (*many, row(id=ids[9]))}
    by_id = {cells[0]: cells for cells in table[1:]}
    assert by_id[str(many[0].id)] == [
        str(many[0].id), "2026-01-01T00:00:00+00:00", 'é, "and"', "7", "0.910000", "", f"images/{many[0].id}.png", "",
    ]  # fmt: skip
    folder = tmp_path / "class-1"
    said = server.client.get("teacher/classes/1/export", headers=TEACHER)
    zipfile.ZipFile(io.BytesIO(said.content)).extractall(folder)
    drawn = read_class(folder)
    assert drawn.ids == list(map(str, ids[2:])) and drawn.left_out == 1_101
    assert drawn.digits.labels.tolist() == list(range(2, 10))
    for id, pixels in zip(ids[2:], drawn.digits.images.numpy()):
        listed = as_teacher(server, "GET", "classes/1/drawings")["drawings"]
        assert next(one["image"] for one in listed if one["id"] == str(id)) == pixels.ravel().tolist()
    assert Image.open(io.BytesIO(images[f"images/{ids[2]}.png"])).mode == "L"


def test_an_empty_class_is_exported(server):
    assert read_zip(server) == (
        [["id", "drawn_at", "network", "prediction", "confidence", "truth", "image", "doubt"]],
        {},
    )


def test_the_wall_names_no_drawing(server, pictures):
    """Who knows a drawing's id may change its label."""
    ids = [draw(server, picture, truth=number) for number, picture in enumerate(pictures)]
    time.sleep(1.1)
    said = server.client.get("wall")
    assert not any(id.hex in said.text or str(id) in said.text for id in ids)
    assert not any(id.hex in server.client.get("statistics").text for id in ids)
    newest = said.json()["drawings"][0]
    assert (newest["prediction"], newest["truth"], len(newest["image"])) == (9, 9, 784)
    assert len({one["key"] for one in said.json()["drawings"]}) == 10
    assert said.json()["statistics"]["right"] == 10


@pytest.mark.parametrize(
    ("variables", "host", "address", "only_here"),
    [
        ({}, "192.168.1.20:8000", "http://192.168.1.20:8000/", False),
        ({}, "127.0.0.1:8000", "http://127.0.0.1:8000/", True),
        ({}, "localhost:8000", "http://localhost:8000/", True),
        ({"APP_ADDRESS": "https://digits.school.org/7b/"}, "127.0.0.1", "https://digits.school.org/7b/", False),
    ],
)
def test_the_address_is_that_of_the_settings_or_the_one_that_was_opened(tmp_path, variables, host, address, only_here):
    with App(tmp_path, **variables) as server:
        said = server.client.get("address", headers={"Host": host})
        assert said.json() == {"address": address, "only_here": only_here}
        code = server.client.get("address.svg", headers={"Host": host})
        assert code.headers["Content-Type"] == "image/svg+xml" and code.text.startswith("<svg")


def test_statistics_are_counted_once_for_many_who_ask(monkeypatch):
    monkeypatch.setattr("app.classroom.SECONDS", 600)  # however long it takes until all have asked
    counted = []

    def count():
        counted.append(time.sleep(0.1))
        return len(counted)

    kept = Kept(count)
    with ThreadPoolExecutor(30) as pool:
        assert set(pool.map(lambda _: kept.get(), range(30))) == {1}
    kept.outdate()
    assert kept.get() == 2


def test_what_was_counted_before_a_change_is_not_kept():
    begun, go_on = threading.Event(), threading.Event()

    def count():
        begun.set()
        go_on.wait(60)
        return object()

    kept = Kept(count)
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(kept.get)
        begun.wait(60)
        kept.outdate()
        go_on.set()
        assert kept.get() is not before.result()


def test_without_the_database_one_sentence_says_so(tmp_path):
    with App(tmp_path, DATABASE_URL="postgresql://x@127.0.0.1:9/x", APP_TOKEN=TOKEN) as server:
        asked = ("wall", "statistics", "teacher/classes", "teacher/classes/1/drawings", "teacher/classes/1/export")
        for path in asked:
            said = server.client.get(path, headers=TEACHER)
            assert said.status_code == 503 and "the database is unreachable" in said.json()["error"]
        said = server.client.put("teacher/storing", headers=TEACHER, json={"keeps_images": False})
        assert said.status_code == 503
        assert server.client.get("about").json()["drawings_are_stored"] is True


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("POST", "classes", {"name": "x" * 81}, 422, "the body is not a class, expected JSON like"),
        ("POST", "classes", [], 422, "the body is not a class, expected JSON like"),
        ("PUT", "storing", {"keeps_images": "no"}, 422, "the body is not a switch, expected JSON like"),
        ("PUT", f"drawings/{UNKNOWN}/visibility", {}, 422, "the body is not a visibility, expected JSON like"),
        (
            "PUT",
            f"drawings/{UNKNOWN}/visibility",
            {"hidden": True},
            404,
            "there is no such drawing in the database",
        ),
        ("DELETE", f"drawings/{UNKNOWN}", None, 404, "there is no such drawing in the database"),
        ("DELETE", "drawings/nonsense", None, 422, "the drawing's id is invalid, expected a UUID"),
        ("GET", "classes/2/statistics", None, 404, "there is no such class, expected a number from 1 to 1"),
        ("GET", "classes/0/export", None, 404, "there is no such class, expected a number from 1 to 1"),
        ("GET", f"classes/{10**30}/drawings", None, 404, "there is no such class, expected a number from 1 to 1"),
        ("GET", f"classes/{'9' * 5_000}/drawings", None, 422, "the number is invalid"),
        ("GET", "classes/one/drawings", None, 422, "the number is invalid"),
        ("GET", "classes/1/drawings?which=some", None, 422, "the which is invalid"),
        ("GET", "classes/1/drawings?page=-1", None, 422, "the page is invalid"),
    ],
)
def test_bad_requests_get_one_sentence(one_server, method, path, body, status, sentence):
    said = one_server.client.request(method, f"teacher/{path}", headers=TEACHER, json=body)
    assert said.status_code == status and said.json()["error"].startswith(sentence)
