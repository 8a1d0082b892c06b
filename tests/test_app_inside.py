"""Look inside and compare, by a real server: maps, class maps and another network's prediction of an image."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from servers import REPOSITORY, App

from app.inside import Inside
from app.network import Network

STEP3, STEP1 = (REPOSITORY / "app" / f"step{step}.onnx" for step in (3, 1))


def without_maps(path: Path) -> Path:
    """The app's network as it was exported before its maps were written down."""
    content = onnx.load(STEP3)
    kept = [pair for pair in content.metadata_props if pair.key not in ("maps", "inside")]
    del content.metadata_props[:]
    content.metadata_props.extend(kept)
    onnx.save(content, path)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with App(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def image(sample):
    return sample[1].images[0].numpy()


def post(server, address, image):
    return server.client.post(address, content=image.tobytes())


def test_the_maps_have_the_sizes_of_the_layers(server, image):
    layers = post(server, "inside", image).json()["layers"]
    sizes = [(layer["channels"], layer["side"], layer["field"]) for layer in layers]
    assert sizes == [(8, 26, 3), (16, 12, 6), (34, 10, 10), (36, 8, 14), (38, 6, 18), (40, 4, 22)]
    for layer in layers:
        values = np.frombuffer(base64.b64decode(layer["maps"]), dtype=np.uint8)
        assert values.size == layer["channels"] * layer["side"] ** 2
        assert values.max() == 255 and values.min() == 0 and layer["lowest"] == 0 < layer["largest"]


@pytest.mark.parametrize("file", [STEP3, STEP1], ids=lambda file: file.stem)
def test_what_the_positions_add_and_the_bias_are_the_logits(file, sample):
    """Exactly: but for the rounding of float32."""
    network = Network(file)
    inside = Inside(network)
    for image in sample[1].images[:50].numpy():
        class_map = inside.look(image)["class_map"]
        logits = network.logits(image[None])[0]
        assert np.abs(np.sum(class_map["added"], axis=(1, 2)) + class_map["bias"] - logits).max() < 1e-4
    blank = inside.look(np.zeros((28, 28), dtype=np.uint8))["class_map"]
    assert np.allclose(blank["bias"], class_map["bias"], atol=1e-4)  # a bias depends on no image


def test_the_class_map_is_what_is_lost_where_the_last_maps_are_zero(image):
    """Another way to the same numbers: Step 3's linear layer on averages, with one position at a time left out."""
    inside, content = Inside(Network(STEP3)), onnx.load(STEP3)
    weights = {array.name: onnx.numpy_helper.to_array(array) for array in content.graph.initializer}
    weight, bias = weights["network.readout.2.weight"], weights["network.readout.2.bias"]
    looked = inside.look(image)
    layer = looked["layers"][-1]
    maps = np.frombuffer(base64.b64decode(layer["maps"]), dtype=np.uint8).reshape(40, 4, 4) * layer["largest"] / 255
    whole = weight @ maps.mean((1, 2)) + bias
    for row, column in np.ndindex(4, 4):
        dimmed = maps.copy()
        dimmed[:, row, column] = 0
        lost = whole - (weight @ dimmed.mean((1, 2)) + bias)
        assert np.abs(lost - np.array(looked["class_map"]["added"])[:, row, column]).max() < 0.02  # maps have 8 bits


def test_nothing_is_computed_before_the_first_look(image):
    inside = Inside(Network(STEP3))
    assert "_session" not in vars(inside)
    inside.look(image)
    assert "_session" in vars(inside)


def test_a_network_without_maps_shows_none(tmp_path, image):
    inside = Inside(Network(without_maps(tmp_path / "older.onnx")))
    assert inside.look(image) == {"layers": [], "class_map": None}


def test_compare_gives_the_prediction_and_the_name_of_the_other_network(server, image):
    other = Network(STEP1)
    assert server.client.get("compare").json() == other.about
    assert server.client.get("about").json()["name"] == "step3" and other.about["name"] == "step1"
    said, expected = post(server, "compare", image).json(), other.predict(image)
    assert said["digit"] == expected.digit and said["probabilities"] == pytest.approx(expected.probabilities)
    assert said["probabilities"] != pytest.approx(Network(STEP3).predict(image).probabilities, abs=1e-9)


def test_another_network_can_be_named(tmp_path, image):
    named = without_maps(tmp_path / "mine.onnx")
    with App(tmp_path / "data", APP_COMPARE=str(named)) as server:
        assert server.client.get("compare").json()["name"] == "step3"
        assert post(server, "compare", image).json()["digit"] == Network(STEP3).predict(image).digit


@pytest.mark.parametrize("address", ["inside", "compare"])
@pytest.mark.parametrize("length", [0, 783, 785])
def test_a_body_of_another_length_is_refused_in_one_sentence(server, address, length):
    answer = server.client.post(address, content=bytes(length))
    assert answer.status_code == 422
    assert answer.json() == {"error": f"the body has {length} bytes, expected an image of 28 x 28, a byte per pixel"}


@pytest.mark.parametrize("address", ["inside", "compare"])
def test_looking_counts_towards_the_rate_limit(tmp_path, image, address):
    with App(tmp_path, APP_REQUESTS_PER_SECOND="0.01", APP_BURST="2") as server:
        answers = [post(server, address, image) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429] and "Retry-After" in answers[2].headers


def test_a_missing_network_to_compare_with_exits_with_one_sentence(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "APP_COMPARE": "none.onnx"}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", "app"], check=False, **run)
    assert done.returncode == 2 and done.stderr.startswith("there is no network none.onnx")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
