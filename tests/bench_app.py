"""Benchmark the app: `python tests/bench_app.py` prints a table or, with --json, one JSON object.

The server runs on one core; its clients and PostgreSQL, which records every drawing, on the others. Pictures are like
those that the page sends. Figures are measured five times; the range of the five is given.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import sqlalchemy as sa
import torch
from load import Seen, load, page_picture, teach
from servers import PLENTY, App, Postgres, wait_until

import utils

RUNS = 5
CONNECTIONS = 8
SECONDS = 5
STUDENTS = 30
LESSON = 8  # seconds
CLIENTS = 4
ROWS = 5_000
PICTURES = 200

Figures = dict[str, float]


def measure_load(server: App, bodies: list[bytes]) -> Figures:
    """As many predictions as possible, and the latency at half of that; all are recorded."""
    most = len(load(server.address, bodies, CONNECTIONS, SECONDS, None)) / SECONDS
    took = load(server.address, bodies, CONNECTIONS, SECONDS, most / 2)
    return {
        "predictions_per_second": most,
        "median_ms_at_half_load": 1_000 * statistics.median(took),
        "p99_ms_at_half_load": 1_000 * statistics.quantiles(took, n=100)[98],
    }


def measure_class(server: App, bodies: list[bytes]) -> Figures:
    """A class behind one address, with the limits that the server has by default."""
    seen: Seen = teach(server.address, bodies, STUDENTS, LESSON)
    tenths = statistics.quantiles(seen.waits, n=10)
    return {
        "class_median_seconds": statistics.median(seen.waits),
        "class_90_percent_seconds": tenths[8],
        "class_worst_seconds": max(seen.waits),
        "class_corrections": seen.corrections,
        "class_corrections_refused": seen.refused,
        "class_predictions_refused": seen.slowed,
    }


def expect_recorded(server: App, postgres: Postgres, drawings: int) -> None:
    """Raise AssertionError unless the database has that many drawings once nothing waits any more."""
    wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0, 60)
    with sa.create_engine(postgres.url.replace("postgresql", "postgresql+psycopg")).connect() as connection:
        found = connection.execute(sa.text("SELECT count(*) FROM drawings")).scalar_one()
    assert found >= drawings, (found, drawings)


def start_to_first_prediction(folder: Path, body: bytes, url: str) -> float:
    """Return the seconds from starting a server to its first prediction."""
    begin = time.perf_counter()
    with App(folder, patient=False, DATABASE_URL=url) as server:
        assert server.client.post("predict", content=body).status_code == 200
        return time.perf_counter() - begin


def measure_feedback(server: App, postgres: Postgres, body: bytes) -> Figures:
    """Send corrections while the database is stopped and started three times; check that each arrives exactly once."""
    told, begin = {}, time.perf_counter()

    def tell(number: int) -> None:
        id = uuid.uuid4()
        assert server.client.post(f"predict?drawing={id}", content=body).status_code == 200
        assert server.client.post(f"drawings/{id}/truth", json={"digit": number % 10}).status_code == 200
        told[id] = number % 10

    def failed(one: Future) -> bool:
        return one.done() and one.exception() is not None

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = [pool.submit(tell, number) for number in range(ROWS)]
        for part in (1, 2, 3):
            wait_until(lambda part=part: len(told) > part * ROWS / 4 or any(map(failed, done)), 600)
            postgres.stop()
            time.sleep(2)
            postgres.start()
        for one in done:
            one.result()
    wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0, 60)
    query = sa.text("SELECT id, truth FROM drawings WHERE truth IS NOT NULL")
    with sa.create_engine(postgres.url.replace("postgresql", "postgresql+psycopg")).connect() as connection:
        found = [(uuid.UUID(str(id)), truth) for id, truth in connection.execute(query) if uuid.UUID(str(id)) in told]
    assert len(found) == len(set(found)) and dict(found) == told
    return {"feedback_rows": len(found), "feedback_lost_or_double": 0, "feedback_seconds": time.perf_counter() - begin}


def on_one_core(server: App, core: int) -> None:
    """Let all threads of the server run on this core only."""
    subprocess.run(["taskset", "-acp", str(core), str(server.process.pid)], check=True, capture_output=True)


def bench() -> dict[str, float | list[float]]:
    """Return all figures; those of several runs as [least, median, most]. Raises AssertionError if a row is lost."""
    digits = utils.load_data(torch.device("cpu"), REPOSITORY / "data")[1]
    bodies = [page_picture(image) for image in digits.images[:PICTURES].numpy()]
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)  # before PostgreSQL starts, which inherits it
    postgres, runs = Postgres(), []
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = (Path(folder, str(number)) for number in itertools.count())
            for _ in range(RUNS):
                started = start_to_first_prediction(next(paths), bodies[0], postgres.url)
                with App(next(paths), patient=False, DATABASE_URL=postgres.url) as server:
                    on_one_core(server, cores[0])
                    load(server.address, bodies, CONNECTIONS, 1, None)  # warm-up
                    figures = measure_load(server, bodies)
                    expect_recorded(server, postgres, int(1.4 * SECONDS * figures["predictions_per_second"]))
                by_default = dict.fromkeys(PLENTY, "")
                with App(next(paths), patient=False, DATABASE_URL=postgres.url, **by_default) as server:
                    on_one_core(server, cores[0])
                    runs.append({"seconds_to_first_prediction": started} | figures | measure_class(server, bodies))
            with App(next(paths), patient=False, DATABASE_URL=postgres.url) as server:
                feedback = measure_feedback(server, postgres, bodies[0]) | {"megabytes": server.megabytes}
    finally:
        postgres.close()
    several = {name: _range([run[name] for run in runs]) for name in runs[0]}
    return several | {name: round(value, 2) for name, value in feedback.items()}


def _range(values: list[float]) -> list[float]:
    return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]


def _shown(value: float | list[float]) -> str:
    return f"{value:>9}" if not isinstance(value, list) else f"{value[1]:>9}   {value[0]} to {value[2]} in {RUNS} runs"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    result = bench()
    print(json.dumps(result) if as_json else "\n".join(f"{name:<28} {_shown(value)}" for name, value in result.items()))
