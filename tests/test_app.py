"""The app without a browser: the exported network and the server's responses."""

import asyncio
import base64
import contextlib
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import torch
import yaml
from pages import encode, redraw
from PIL import Image
from servers import REPOSITORY, App, free_port, wait_until

import models
import utils
from app import digit
from app.network import Network
from app.server import make_app
from app.settings import Settings
from lab.for_app.export import FromPixels, export
from lab.runs import study
from lab.runs.recipes import STEP_3, Recipe
from lab.runs.train import run

CPU = torch.device("cpu")
STEP3 = REPOSITORY / "app" / "step3.onnx"


@pytest.fixture(scope="module")
def network():
    return Network(STEP3)


# ---------------------------------------------------------------------------------------------------------------------
# The network
# ---------------------------------------------------------------------------------------------------------------------


def test_the_exported_network_names_its_recipe_and_seed(network):
    assert Recipe(**network.about["recipe"]) == STEP_3  # a field that is younger than the network has its default
    record = json.loads(study.record_path(STEP_3, network.about["seed"]).read_text())
    assert network.about["accuracy"] == pytest.approx(100 - len(record["test"]["mistakes"]) / 100)
    assert network.about["parameters"] == record["history"]["parameters"] < 8_000
    assert STEP3.stat().st_size < 100_000


@pytest.mark.parametrize(
    "recipe", [replace(STEP_3, epochs=1, plain_epochs=0), Recipe("LeNet", epochs=1, mean=0.5, std=0.5)]
)
def test_onnx_gives_the_logits_of_pytorch(sample, monkeypatch, tmp_path, recipe):
    """Within 1e-4 on 1,000 test images, including the normalization."""
    few = sample[0][:2_000], sample[1][:1_000]
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": few)
    run(recipe, seed=0, show=False, folder=tmp_path, name="short")
    assert "short, seed 0: " in export(tmp_path / "model.pt", tmp_path / "short.onnx")
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    model = recipe.make_network().eval()
    model.load_state_dict(loaded["model"])
    with torch.no_grad():
        expected = FromPixels(model, recipe.mean, recipe.std)(few[1].images[:, None])
        by_hand = model(utils.make_transform(mean=recipe.mean, std=recipe.std)(few[1].images[:, None]))
    exported = Network(tmp_path / "short.onnx")
    logits = exported.logits(few[1].images.numpy())
    assert np.abs(logits - expected.numpy()).max() < 1e-4 > np.abs(logits - by_hand.numpy()).max()
    assert exported.about["parameters"] == models.count_parameters(model)
    one = exported.predict(few[1].images[3].numpy())
    assert sum(one.probabilities) == pytest.approx(1) and one.digit == logits[3].argmax()
    assert str(tmp_path).encode() not in (tmp_path / "short.onnx").read_bytes()  # no path on this machine


def test_the_committed_network_names_no_path():
    assert b"/work" not in STEP3.read_bytes() and b"site-packages" not in STEP3.read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"abc"])
def test_a_missing_or_corrupt_network_raises_one_sentence(tmp_path, content):
    path = tmp_path / "x.onnx"
    if content is None:
        with pytest.raises(FileNotFoundError, match="there is no network"):
            Network(path)
        return
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a network written by `python -m lab export`"):
        Network(path)


def test_serving_imports_no_pytorch():
    code = (
        "import sys, app.__main__; print([name for name in ('torch', 'utils', 'models', 'lab') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with App(tmp_path_factory.mktemp("app")) as running:
        yield running


@pytest.fixture(scope="module")
def seven(sample):
    return encode(redraw(sample[1].images[7].numpy()))


def test_predict_returns_digit_probabilities_and_prepared_image(server, seven, sample):
    said = server.client.post("predict", content=seven).json()
    assert said["digit"] == 7 and said["confidence"] == max(said["probabilities"]) == said["probabilities"][7]
    assert len(said["probabilities"]) == 10 and sum(said["probabilities"]) == pytest.approx(1)
    seen = np.frombuffer(base64.b64decode(said["image"]), dtype=np.uint8).reshape(28, 28)
    assert np.array_equal(seen, digit.prepare(seven))


def test_a_drawing_is_predicted_corrected_and_counted(tmp_path, sample):
    """Three drawings, each predicted twice; two get a correction, and one of these is a mistake."""
    with App(tmp_path) as server:
        ids = [uuid.uuid4() for _ in range(3)]
        for index, id in zip((7, 2, 1), ids):
            for _ in range(2):
                server.client.post(f"predict?drawing={id}", content=encode(sample[1].images[index].numpy()))
        for id, truth in ((ids[0], 7), (ids[1], 3)):
            assert server.client.post(f"drawings/{id}/truth", json={"digit": truth}).json() == {"recorded": True}
        wait_until(lambda: server.client.get("statistics").json()["predictions"] == 3)
        counted = server.client.get("statistics").json()
        assert (counted["known"], counted["right"], counted["accuracy"]) == (2, 1, 50)
        assert counted["confusion_matrix"][7][7] == counted["confusion_matrix"][3][2] == 1
        assert np.sum(counted["confusion_matrix"]) == 2
        assert counted["digits"][7] == {"known": 1, "right": 1, "accuracy": 100}
        assert counted["digits"][0] == {"known": 0, "right": 0, "accuracy": None}
        assert counted["confidence_right"] > 90 < counted["confidence_wrong"]
        (mistake,) = counted["latest_mistakes"]
        assert (mistake["truth"], mistake["prediction"]) == (3, 2)
        assert mistake["image"] == digit.prepare(encode(sample[1].images[2].numpy())).flatten().tolist()
        assert set(mistake) == {"truth", "prediction", "confidence", "image"}


def test_drawings_are_not_stored_if_the_setting_is_off(tmp_path, sample):
    with App(tmp_path, APP_STORE_DRAWINGS="false") as server:
        id = uuid.uuid4()
        server.client.post(f"predict?drawing={id}", content=encode(sample[1].images[7].numpy()))
        server.client.post(f"drawings/{id}/truth", json={"digit": 1})
        counted = server.client.get("statistics").json()
        assert counted["latest_mistakes"][0]["image"] is None
        assert server.client.get("about").json()["drawings_are_stored"] is False


def test_a_photo_of_12_megapixels_is_read_by_the_api(server, sample):
    """With the grain of a camera it has several megabytes."""
    page = np.asarray(redraw(sample[1].images[7].numpy(), side=2_000, height=3_000, width=4_000, top=500, left=900))
    grain = np.random.default_rng(0).normal(0, 6, page.shape)
    photo = encode((page * 0.7 + 30 + grain).clip(0, 255).astype(np.uint8), "JPEG", quality=92)
    assert 3 * 2**20 < len(photo) < 8 * 2**20
    assert server.client.post("predict", content=photo).json()["digit"] == 7


def told(server, id, body):
    return server.client.post(f"drawings/{id}/truth", **body)


@pytest.mark.parametrize(
    ("ask", "status", "sentence"),
    [
        (lambda c, png: c.post("predict", content=b"x" * (2**23 + 1)), 413, "larger than 8 MiB"),
        (lambda c, png: c.post("predict", content=iter([b"x" * 2**20] * 9)), 413, "larger than 8 MiB"),
        (lambda c, png: c.post("predict", content=encode(Image.new("1", (5_000, 4_000)))), 413, "16 million in total"),
        (lambda c, png: c.post("predict", content=b"GIF89a" + b"x" * 99), 422, "cannot be decoded"),
        (lambda c, png: c.post("predict"), 415, "is not a PNG, JPEG, GIF or WebP"),
        (lambda c, png: c.post("predict", content=png[:200]), 422, "cannot be decoded"),
        (lambda c, png: c.post("predict", content=b"\xff\xd8\xff" + b"x" * 99), 422, "cannot be decoded"),
        (lambda c, png: c.post("predict", content=encode(Image.new("L", (9, 9)))), 422, "draw something first"),
        (lambda c, png: c.post("predict?drawing=7", content=png), 422, "the drawing's id is invalid, expected a UUID"),
        (lambda c, png: c.post("drawings/7/truth", json={"digit": 7}), 422, "expected a UUID"),
        (lambda c, png: c.post(f"drawings/{uuid.uuid4()}/truth", json={"digit": 7}), 404, "there is no prediction"),
        (lambda c, png: c.post(f"drawings/{uuid.uuid4()}/truth", json={"digit": 11}), 422, "with a digit from 0 to 9"),
        (lambda c, png: c.post(f"drawings/{uuid.uuid4()}/truth", json={"digit": "7"}), 422, "with a digit from 0 to 9"),
        (
            lambda c, png: c.post(f"drawings/{uuid.uuid4()}/truth", json={"digit": True}),
            422,
            "with a digit from 0 to 9",
        ),
        (lambda c, png: c.post(f"drawings/{uuid.uuid4()}/truth", content=b"{"), 422, "the body is not a correction"),
        (lambda c, png: c.post(f"drawings/{uuid.uuid4()}/truth", content=b'{"digit": 7}'), 422, "expected JSON"),
        (lambda c, png: c.post(f"drawings/{uuid.uuid4()}/truth", content=b" " * (2**23 + 1)), 413, "larger than 8 MiB"),
        (lambda c, png: c.get("nothing"), 404, "there is nothing at this address"),
        (lambda c, png: c.get("predict"), 404, "there is nothing at this address"),
        (lambda c, png: c.get("../app/server.py"), 404, "there is nothing at this address"),
    ],
)
def test_bad_input_returns_one_sentence_as_json(server, seven, ask, status, sentence):
    answer = ask(server.client, seven)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"] and sentence in answer.json()["error"]
    assert "Content-Security-Policy" in answer.headers


def test_a_second_correction_is_refused(server, seven):
    id = uuid.uuid4()
    server.client.post(f"predict?drawing={id}", content=seven)
    assert told(server, id, {"json": {"digit": 7}}).status_code == 200
    again = told(server, id, {"json": {"digit": 1}})
    assert again.status_code == 409 and "already recorded" in again.json()["error"]


def test_a_client_over_its_rate_limit_has_to_wait(tmp_path, seven):
    with App(tmp_path, APP_REQUESTS_PER_SECOND="0.01", APP_BURST="5") as server:
        codes = [server.client.post("predict", content=seven).status_code for _ in range(8)]
        assert codes == [200] * 5 + [429] * 3
        answer = server.client.post("predict", content=seven)
        assert int(answer.headers["Retry-After"]) >= 1 and "try again" in answer.json()["error"]


def test_a_full_queue_returns_503(tmp_path, sample):
    """One worker and no queue: of many large pictures at once, some are refused, and none fails in another way."""
    large = encode(redraw(sample[1].images[7].numpy(), side=1_400, height=3_900, width=3_900))
    with App(tmp_path, APP_WORKERS="1", APP_WAITING="0", APP_IN_WORK="100000") as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{server.address}predict", content=large, timeout=60), range(24)))
        codes = {answer.status_code for answer in answers}
        assert codes == {200, 503}
        assert "too many pictures are waiting" in next(a for a in answers if a.status_code == 503).json()["error"]
        assert server.client.post("predict", content=large).status_code == 200


@pytest.mark.slow
def test_ten_thousand_corrupt_pictures_are_refused_and_leak_no_memory(server, seven, sample):
    """PNG and JPEG, truncated and with changed bytes: the status is 200, 413, 415 or 422, and memory does not grow."""
    rng = random.Random(0)
    whole = [seven, encode(redraw(sample[1].images[2].numpy()), "JPEG"), encode(sample[1].images[1].numpy())]
    whole.append(encode(redraw(sample[1].images[0].numpy()).convert("P"), "PNG"))

    def torn():
        body = bytearray(rng.choice(whole))
        for _ in range(rng.choice((0, 1, 4, 40))):
            body[rng.randrange(len(body))] = rng.randrange(256)
        return bytes(body[: rng.randrange(len(body))] if rng.random() < 0.4 else body)

    codes, before = set(), 0.0
    for i in range(10_000):
        codes.add(server.client.post("predict", content=torn()).status_code)
        if i == 2_000:
            before = server.megabytes
    assert codes <= {200, 413, 415, 422} and {200, 422} <= codes
    assert server.megabytes < before + 20


def test_a_client_that_disconnects_leaves_no_traceback(server, seven):
    before = server.log.count("\n")
    for _ in range(20):
        with socket.create_connection((urlsplit(server.address).hostname, urlsplit(server.address).port)) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + seven[:500])
    assert server.client.post("predict", content=seven).status_code == 200
    wait_until(lambda: server.log.count("\n") > before)
    assert "Traceback" not in server.log
    assert all(json.loads(line) for line in server.log.splitlines())


def test_an_unexpected_error_returns_one_sentence_too(tmp_path, monkeypatch, seven):
    """Run in this process, to inject a fault: a network that fails."""
    app = make_app(Settings(data=tmp_path))

    def fail(*_):
        raise RuntimeError("a secret of the network")

    async def ask():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            with monkeypatch.context() as patch:
                patch.setattr(Network, "predict", fail)
                answer = await client.post("predict", content=seven)
            assert (answer.status_code, list(answer.json())) == (500, ["error"])
            assert "something went wrong on the server" in answer.json()["error"] and "secret" not in answer.text
            assert (await client.post("predict", content=seven)).json()["digit"] == 7

    asyncio.run(ask())


def test_health_readiness_and_metrics(server, seven):
    server.client.post("predict", content=seven)
    assert server.client.get("healthz").json() == {"status": "alive"}
    ready = server.client.get("readyz").json()
    assert ready["database"] == "reachable" and ready["network"].startswith("step3, seed ")
    metrics = server.client.get("metrics").text
    assert 'app_predictions_total{digit="7"}' in metrics and "app_database_up 1.0" in metrics
    assert 'route="/predict",status="200"' in metrics


def test_the_log_is_json_without_user_input(server, seven):
    server.client.post("predict", content=seven)
    server.client.get("secret-address")
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert any(line.get("route") == "/predict" and line["status"] == 200 for line in lines)
    assert "secret-address" not in server.log and len(max(server.log.splitlines(), key=len)) < 1_000


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"APP_NETWORK": "none.onnx"}, "there is no network none.onnx"),
        ({"APP_PORT": "99999"}, "port is invalid"),
        ({"DATABASE_URL": "nonsense://secret"}, "DATABASE_URL has the driver nonsense, expected postgresql or sqlite"),
        ({"DATABASE_URL": "secret"}, "DATABASE_URL is not a valid URL"),
        ({"APP_DATA": "/proc/nowhere"}, "the spool /proc/nowhere/spool.sqlite cannot be used"),
    ],
)
def test_an_invalid_setting_exits_with_one_sentence(tmp_path, variables, sentence):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables
    done = subprocess.run(
        [sys.executable, "-m", "app"], check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1
    assert "secret" not in done.stderr and not list(Path(tmp_path).iterdir())


def test_a_port_in_use_exits_with_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "APP_PORT": port}
        run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, "-m", "app"], check=False, **run)
    expected = f"cannot listen on 127.0.0.1:{port} (Address already in use): set APP_PORT to another port\n"
    assert (done.returncode, done.stderr) == (2, expected) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_on_a_terminal_it_prints_its_address_and_stops_quietly(tmp_path, how):
    """On a pseudo-terminal: no line per request, and no traceback after Ctrl-C."""
    ours, its = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "APP_PORT": "0"}
    run = {"cwd": tmp_path, "env": environment, "start_new_session": True}
    process = subprocess.Popen([sys.executable, "-m", "app"], stdin=its, stdout=its, stderr=its, **run)
    os.close(its)
    try:
        said = ""
        while said.count("\n") < 2:
            said += os.read(ours, 1_000).decode()
        address = said.split()[0]
        assert httpx.get(f"{address}healthz", timeout=60).status_code == 200
        process.send_signal(how)
        assert process.wait(60) == (0 if how == signal.SIGINT else -how)
        with contextlib.suppress(OSError):  # the other end of the terminal is closed
            while more := os.read(ours, 1_000).decode():
                said += more
        assert re.fullmatch(rf"{address}\s+for the teacher: {address}teacher\.html#token=\S+\s+", said)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# ---------------------------------------------------------------------------------------------------------------------
# What the image runs
# ---------------------------------------------------------------------------------------------------------------------


def test_the_image_script_serves_checks_health_and_writes_only_its_data(tmp_path, seven):
    """Run in a copy of the image's files, which must not change."""
    root, port = tmp_path / "srv", str(free_port())
    shutil.copytree(REPOSITORY / "app", root / "app", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(root.rglob("*"))
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("APP_", "DB_", "DATABASE_", "PYTHON"))
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = kept | {"PATH": path, "APP_DATA": str(tmp_path / "data"), "APP_PORT": port, "APP_HOST": "127.0.0.1"}
    health = [root / "app/image.sh", "health"]
    quiet = {"cwd": root, "env": environment, "stderr": subprocess.DEVNULL}
    assert subprocess.run(health, check=False, **quiet).returncode != 0
    with subprocess.Popen([root / "app/image.sh"], stdout=subprocess.DEVNULL, **quiet) as process:
        try:
            wait_until(lambda: subprocess.run(health, check=False, **quiet).returncode == 0)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                id = uuid.uuid4()
                assert client.post(f"predict?drawing={id}", content=seven).json()["digit"] == 7
                assert client.post(f"drawings/{id}/truth", json={"digit": 7}).status_code == 200
        finally:
            process.terminate()
    assert sorted(root.rglob("*")) == before
    assert {path.name for path in (tmp_path / "data").iterdir()} >= {"drawings.sqlite", "spool.sqlite"}


@pytest.mark.parametrize("colab", [False, True])
def test_the_readme_cell_shows_the_page(tmp_path, colab):
    """The cell runs unchanged except for the port, which may be in use; two fake functions stand in for Colab."""
    (cell,) = re.findall(
        r"```python\n(import os, subprocess.*?)```", (REPOSITORY / "app/README.md").read_text(), re.DOTALL
    )
    port = str(free_port())
    played = """
import sys, types
google, colab, output = (types.ModuleType(name) for name in ("google", "google.colab", "google.colab.output"))
output.serve_kernel_port_as_iframe = lambda port, height: print("iframe", port)
output.eval_js = lambda script: script
colab.output = output
sys.modules |= {"google": google, "google.colab": colab, "google.colab.output": output}
"""
    ask = f"""
import urllib.request
try:
    for _ in range(240):  # a busy machine takes longer than the cell's three seconds
        try:
            answer = urllib.request.urlopen("http://127.0.0.1:{port}/about")
            print(answer.headers["Content-Security-Policy"])
            print(answer.status)
            break
        except OSError:
            time.sleep(0.25)
finally:
    server.terminate()  # else it would keep this test's pipe open
"""
    code = (played if colab else "") + cell.replace("8000", port) + ask
    environment = os.environ | {"APP_PORT": port, "APP_DATA": str(tmp_path)}
    run = {"cwd": REPOSITORY, "env": environment, "capture_output": True, "text": True}
    said = subprocess.run([sys.executable, "-c", code], check=True, **run).stdout
    assert said.endswith("200\n")
    assert (f"iframe {port}\ngoogle.colab.kernel.proxyPort({port})" in said) == colab
    assert ("IFrame" in said) != colab
    framed = "https://colab.research.google.com" if colab else "http://localhost:*"
    assert f"frame-ancestors {framed} " in said


def test_the_image_copies_the_app_and_has_no_pytorch():
    recipe = (REPOSITORY / "app/Dockerfile").read_text()
    assert 'CMD ["app/image.sh"]' in recipe and "USER learner" in recipe and "COPY app/ app/" in recipe
    assert "torch" not in (REPOSITORY / "app/requirements.txt").read_text().split("# ", 1)[1].split("\n", 1)[1]
    services = yaml.safe_load((REPOSITORY / "app/compose.yaml").read_text())["services"]
    assert services["app"]["read_only"] and services["app"]["volumes"] == ["spool:/data"]
    assert set(services["app"]["environment"]) == {
        "DB_HOST",
        "DB_NAME",
        "DB_USER",
        "DB_PASSWORD",
        "APP_HOSTS",
        "APP_TOKEN",
        "APP_ADDRESS",
    }
