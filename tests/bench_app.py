"""Benchmark the app: `python tests/bench_app.py` prints a table or, with --json, one JSON object.

The server runs on one core, the clients on the others. The database is PostgreSQL.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import sqlalchemy as sa
import torch
from servers import App, Postgres, wait_until

import utils
from lab.reports.drawings import page_of

CLIENTS = 4
SECONDS = 8
ROWS = 5_000


def load(address: str, body: bytes, per_second: float | None) -> tuple[float, list[float]]:
    """Send predictions for SECONDS from CLIENTS threads: `per_second` in total or, if None, as many as possible.

    Returns predictions per second, and the latency of each in seconds.
    """
    host, took, end = urlsplit(address).netloc, [], time.perf_counter() + SECONDS

    def ask(first: float) -> None:
        connection, due = http.client.HTTPConnection(host), time.perf_counter() + first
        while time.perf_counter() < end:
            if per_second:  # fixed schedule: latency includes waiting for a late predecessor
                time.sleep(max(0.0, due - time.perf_counter()))
            begin = due if per_second else time.perf_counter()
            due += CLIENTS / per_second if per_second else 0
            connection.request("POST", f"/predict?drawing={uuid.uuid4()}", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            took.append(time.perf_counter() - begin)

    threads = [threading.Thread(target=ask, args=(i / CLIENTS / (per_second or 1),)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(took) / SECONDS, took


def start_to_first_prediction(folder: Path, body: bytes, url: str) -> float:
    begin = time.perf_counter()
    with App(folder, DATABASE_URL=url) as server:
        assert server.client.post("predict", content=body).status_code == 200
        return time.perf_counter() - begin


def feedback(server: App, postgres: Postgres, body: bytes) -> dict[str, float]:
    """Send corrections while the database is stopped and started three times; check that each arrives exactly once."""
    told, begin = {}, time.perf_counter()

    def tell(number: int) -> None:
        id = uuid.uuid4()
        assert server.client.post(f"predict?drawing={id}", content=body).status_code == 200
        assert server.client.post(f"drawings/{id}/truth", json={"digit": number % 10}).status_code == 200
        told[id] = number % 10

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = [pool.submit(tell, number) for number in range(ROWS)]
        for part in (1, 2, 3):
            wait_until(lambda part=part: len(told) > part * ROWS / 4, 600)
            postgres.stop()
            time.sleep(2)
            postgres.start()
        for one in done:
            one.result()
    wait_until(lambda: server.client.get("readyz").json()["waiting"] == 0, 60)
    query = sa.text("SELECT id, truth FROM drawings WHERE truth IS NOT NULL")
    with sa.create_engine(postgres.url.replace("postgresql", "postgresql+psycopg")).connect() as connection:
        found = [(uuid.UUID(str(id)), truth) for id, truth in connection.execute(query)]
    assert len(found) == len(set(found)) and dict(found) == told
    return {"feedback_rows": len(found), "feedback_lost_or_double": 0, "feedback_seconds": time.perf_counter() - begin}


def bench() -> dict[str, float]:
    """Return all figures. Raises AssertionError if a row is lost or duplicated."""
    digits = utils.load_data(torch.device("cpu"), REPOSITORY / "data")[1]
    body = page_of(digits.images[0].numpy())
    cores = sorted(os.sched_getaffinity(0))
    postgres = Postgres()
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = [start_to_first_prediction(Path(folder, str(i)), body, postgres.url) for i in range(3)]
            with App(Path(folder, "load"), DATABASE_URL=postgres.url, APP_WORKERS="1") as server:
                subprocess.run(
                    ["taskset", "-acp", str(cores[0]), str(server.process.pid)], check=True, capture_output=True
                )
                os.sched_setaffinity(0, cores[1:] or cores)
                load(server.address, body, None)  # warm-up
                most, _ = load(server.address, body, None)
                _, took = load(server.address, body, most / 2)
                result = {
                    "predictions_per_second": most,
                    "median_ms_at_half_load": 1_000 * statistics.median(took),
                    "p99_ms_at_half_load": 1_000 * statistics.quantiles(took, n=100)[98],
                    "seconds_to_first_prediction": statistics.median(started),
                }
                result |= feedback(server, postgres, body)
                return {name: round(value, 2) for name, value in (result | {"megabytes": server.megabytes}).items()}
    finally:
        postgres.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    result = bench()
    print(json.dumps(result) if as_json else "\n".join(f"{name:<28} {value:>9}" for name, value in result.items()))
