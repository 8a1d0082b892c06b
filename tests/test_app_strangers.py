"""What strangers may do with the app: limits per client, slow and endless requests, other hosts, other sites, frames."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from load import page_picture
from PIL import Image
from servers import REPOSITORY, App, wait_until
from test_app import encode


@pytest.fixture(scope="module")
def seven(sample):
    return page_picture(sample[1].images[7].numpy())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with App(tmp_path_factory.mktemp("app")) as running:
        yield running


def connect(server):
    parts = urlsplit(server.address)
    return socket.create_connection((parts.hostname, parts.port), timeout=60)


def rest(connection):
    """What the server sends until it closes the connection."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            said += part
    return said


def predict(server, body, client=None, **options):
    headers = {"X-Forwarded-For": client} if client else {}  # believed, since this machine itself sends it
    return server.client.post("predict", content=body, headers=headers | options.pop("headers", {}), **options)


# ---------------------------------------------------------------------------------------------------------------------
# Requests and pictures
# ---------------------------------------------------------------------------------------------------------------------


def test_corrections_have_a_budget_of_their_own(tmp_path, seven):
    limits = {"APP_REQUESTS_PER_SECOND": "0.01", "APP_BURST": "3", "APP_CORRECTIONS_PER_SECOND": "0.01"}
    with App(tmp_path, **limits, APP_CORRECTIONS_BURST="2") as server:
        ids = [uuid.uuid4() for _ in range(3)]
        assert [server.client.post(f"predict?drawing={id}", content=seven).status_code for id in ids] == [200] * 3
        assert predict(server, seven).status_code == 429
        answers = [server.client.post(f"drawings/{id}/truth", json={"digit": 7}) for id in ids]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert predict(server, seven, client="10.0.0.7").status_code == 200  # another client has its own


def test_a_large_picture_counts_as_several_requests(tmp_path, seven):
    """Of 2,000 x 2,000 pixels, as 81 requests: the budget of 100 is enough for one, and for 19 small ones."""
    large = encode(Image.new("1", (2_000, 2_000), 1))
    with App(tmp_path, APP_REQUESTS_PER_SECOND="0.01", APP_BURST="100") as server:
        assert predict(server, large).status_code == 422  # it is blank
        codes = [predict(server, seven).status_code for _ in range(21)]
        assert codes == [200] * 19 + [429] * 2
        assert predict(server, large, client="10.0.0.7").status_code == 422


def test_a_picture_that_is_refused_before_decoding_costs_one_request(tmp_path, seven):
    """However many pixels its header declares."""
    large = encode(Image.new("1", (9_000, 9_000), 1))
    with App(tmp_path, APP_REQUESTS_PER_SECOND="0.01", APP_BURST="3") as server:
        assert [predict(server, large).status_code for _ in range(2)] == [413, 413]
        assert [predict(server, seven).status_code for _ in range(2)] == [200, 429]


def test_one_client_with_large_pictures_leaves_others_their_turn(tmp_path, seven):
    """Eight threads of one client send pictures of 4,000 x 4,000 pixels; another client's drawings are answered soon."""
    large = encode(Image.new("1", (4_000, 4_000), 1))
    codes, stop = [], threading.Event()

    def flood(server):
        with httpx.Client(base_url=server.address, timeout=60, headers={"X-Forwarded-For": "10.0.0.9"}) as client:
            while not stop.is_set():
                codes.append(client.post("predict", content=large).status_code)

    with App(tmp_path, APP_REQUESTS_PER_SECOND="", APP_BURST="") as server, ThreadPoolExecutor(8) as pool:
        alone = [predict(server, seven).elapsed.total_seconds() for _ in range(50)]
        begin = time.monotonic()
        assert predict(server, large, client="10.0.0.8").status_code == 422
        one = time.monotonic() - begin  # seconds for a large one
        try:
            for _ in range(8):
                pool.submit(flood, server)
            wait_until(lambda: len(codes) > 10)
            beside = [predict(server, seven, client="10.0.0.7").elapsed.total_seconds() for _ in range(50)]
        finally:
            stop.set()
    assert {429, 503} >= set(codes) - {422} != set()  # some wait, some are refused
    # Most wait for no large picture, whatever else the machine does; in a queue behind eight, each would wait for several.
    slow = np.quantile(beside, 0.9)
    assert np.median(beside) < max(0.1, one / 4) and slow < max(0.5, 2 * one), (one, max(alone), beside)


def test_what_one_client_has_in_work_is_limited(tmp_path, seven):
    """Large bodies that are on their way count, too: a second client is not affected."""
    with App(tmp_path, APP_IN_WORK="40") as server, contextlib.ExitStack() as stack:
        for _ in range(2):  # of 2 MiB: each counts as 33 until it has arrived
            connection = stack.enter_context(connect(server))
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2097152\r\n\r\nx")
        assert b" 503 " in connection.recv(65_536)
        assert predict(server, seven).status_code == 200
        refused = predict(server, b"x" * 1_000_000)
        assert refused.status_code == 503 and "in work" in refused.json()["error"] and refused.headers["Retry-After"]
        assert predict(server, b"x" * 1_000_000, client="10.0.0.7").status_code == 415


# ---------------------------------------------------------------------------------------------------------------------
# Connections
# ---------------------------------------------------------------------------------------------------------------------


def test_an_endless_header_is_refused_and_takes_no_memory(server, seven):
    before = server.megabytes
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: ")
            for _ in range(2_000):
                connection.sendall(b"x" * 65_536)
            pytest.fail("the server read 130 MB of a header")
        with contextlib.suppress(ConnectionError):
            assert rest(connection).startswith(b"HTTP/1.1 431 ")
    assert server.megabytes < before + 20
    assert predict(server, seven).status_code == 200


@pytest.mark.parametrize("size", [40_000, 200_000])
def test_a_large_header_is_refused_in_a_sentence(server, size):
    with connect(server) as connection:
        connection.sendall(b"GET /about HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * size + b"\r\n\r\n")
        said = rest(connection)
    assert said.startswith(b"HTTP/1.1 431 ") and b"larger than 32 KiB" in said


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /predict HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    ],
    ids=["nothing", "header", "body", "second request"],
)
def test_two_hundred_slow_connections_are_closed_in_time(tmp_path, seven, begin):
    """Each sends a byte per half second; others are answered meanwhile."""
    with (
        App(tmp_path, APP_HEADER_SECONDS="8", APP_BODY_SECONDS="8", APP_IN_WORK="1000") as server,
        contextlib.ExitStack() as stack,
    ):
        start = time.monotonic()
        slow = [stack.enter_context(connect(server)) for _ in range(200)]
        for connection in slow:
            connection.sendall(begin)
        while time.monotonic() < start + 1.5:
            for connection in slow if begin else ():
                connection.sendall(b"x")
            assert predict(server, seven).status_code == 200
            time.sleep(0.5)
        said = [rest(connection) for connection in slow]
        assert time.monotonic() - start < 60  # in which all were closed
        assert all((b" 408 " in answer) == bool(begin) for answer in said)
    assert "Traceback" not in server.log


def test_connections_are_limited_per_client_and_in_all(tmp_path, seven):
    limits = {"APP_CONNECTIONS_PER_CLIENT": "5", "APP_CONNECTIONS": "8", "APP_HEADER_SECONDS": "600"}

    def has_room():
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{server.address}healthz", timeout=60).status_code == 200
        return False

    with App(tmp_path, **limits) as server, contextlib.ExitStack() as stack:
        server.client.close()
        wait_until(has_room)
        mine = [stack.enter_context(connect(server)) for _ in range(5)]
        with connect(server) as one_more:
            said = rest(one_more)
        assert said.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in said and b"too many connections" in said
        for connection in mine[:2]:
            connection.close()
        wait_until(has_room)
        parts = urlsplit(server.address)
        for _ in range(5):  # from another address of this machine: three are held, five more fit
            stack.enter_context(socket.create_connection((parts.hostname, parts.port), source_address=("127.0.0.2", 0)))
        with socket.create_connection((parts.hostname, parts.port), 60, source_address=("127.0.0.3", 0)) as ninth:
            assert rest(ninth).startswith(b"HTTP/1.1 503 ")


# ---------------------------------------------------------------------------------------------------------------------
# Hosts, other sites, frames
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("192.168.1.5:8000", 200),
        ("[::1]:8000", 200),
        ("digits.school.org", 200),
        ("Digits.School.org:443", 200),
        ("a.b.example.org", 200),
        ("example.org", 400),
        ("evil.com", 400),
        ("digits.school.org.evil.com", 400),
        ("127.0.0.1.evil.com", 400),
        ("localhost@evil.com", 400),
        ("", 400),
        ("[", 400),
    ],
)
def test_only_known_hosts_are_served(hosted, host, status):
    answer = hosted.client.get("about", headers={"Host": host})
    assert answer.status_code == status
    assert status == 200 or "does not go by that name" in answer.json()["error"]


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    with App(tmp_path_factory.mktemp("hosted"), APP_HOSTS="digits.school.org, *.example.org") as running:
        yield running


def test_any_host_is_served_if_the_setting_says_so(tmp_path):
    with App(tmp_path, APP_HOSTS="*") as server:
        assert server.client.get("about", headers={"Host": "evil.com"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.org"}, 200),  # behind a proxy
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1:8000", "Host": "127.0.0.1:8000"}, 200),
        ({"Origin": "http://127.0.0.1:9000", "Host": "127.0.0.1:8000"}, 403),
        ({"Origin": "https://digits.school.org", "Host": "127.0.0.1:8000"}, 200),
        ({"Origin": "https://evil.com"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_another_site_cannot_add_drawings(hosted, seven, headers, status):
    id = uuid.uuid4()
    answer = hosted.client.post(f"predict?drawing={id}", content=seven, headers=headers)
    assert answer.status_code == status
    assert status == 200 or "comes from another site" in answer.json()["error"]
    told = hosted.client.post(f"drawings/{id}/truth", json={"digit": 7})
    assert told.status_code == (200 if status == 200 else 404)


def test_the_page_may_be_framed_only_where_asked_for(server, tmp_path):
    assert "frame-ancestors 'none'" in server.client.get("").headers["Content-Security-Policy"]
    with App(tmp_path, APP_FRAMES="https://a.org http://localhost:* https://*.b.org") as framed:
        policy = framed.client.get("").headers["Content-Security-Policy"]
        assert policy.endswith("frame-ancestors https://a.org http://localhost:* https://*.b.org")


@pytest.mark.parametrize("frames", ["a.org", "https://a.org; script-src *", "'self'", "*"])
def test_an_invalid_site_for_frames_exits_with_one_sentence(tmp_path, frames):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "APP_FRAMES": frames}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", "app"], check=False, **run)
    assert done.returncode == 2 and "frames is invalid: " in done.stderr and done.stderr.count("\n") == 1
