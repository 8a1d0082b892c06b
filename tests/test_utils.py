"""Data, training, checkpoints, verdict and pictures: with real files, a real web server and processes that really die."""

import copy
import json
import math
import multiprocessing
import os
import pickle
import random
import re
import shutil
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import MNIST
from torchvision.transforms.v2.functional import InterpolationMode, affine, elastic

import models
import utils
from utils import Digits, History, Loader, RandomWarpEach, load_data, make_transform

CPU = torch.device("cpu")
NAMES = [name for name, _ in MNIST.resources]
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES
NOWHERE = "http://127.0.0.1:9/"  # nobody listens here: as good as no network, and fails at once


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the caller's, no proxy and no mirror reaches into a test."""
    for name in ("MNIST_ARCHIVES", "SESSION7_DATASET", "SESSION7_SHORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(MNIST, "mirrors", [NOWHERE])


# ---------------------------------------------------------------------------------------------------------------------
# Data: where it is looked for
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def raw_without_test_labels(raw: Path, extracted: Path) -> Path:
    """All extracted files but the smallest, so that a test has to fetch 4.5 kB and not 11 MB."""
    for path in extracted.iterdir():
        if path.name != TEST_LABELS.removesuffix(".gz"):
            os.link(path, raw / path.name)
    return raw


def assert_is_mnist(train: Digits, test: Digits) -> None:
    assert (train.dataset, test.dataset) == ("MNIST", "MNIST")
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as published everywhere
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert train.images.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*unfinished*")]


def truncate(path: Path) -> None:
    """As a new file: the old one may be a link to the fixture's."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def test_extracted_files_are_used_without_asking_anyone(raw, extracted, mirror, monkeypatch, capsys):
    for path in extracted.iterdir():
        os.link(path, raw / path.name)
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_mnist(*load_data(CPU, raw.parents[1]))
    assert mirror.asked == []
    assert capsys.readouterr().out == ""


def test_archives_in_the_raw_folder_are_extracted(raw, archives):
    for name in NAMES:
        shutil.copyfile(archives / name, raw / name)
    assert_is_mnist(*load_data(CPU, str(raw.parents[1])))
    assert leftovers(raw) == []


def test_archives_are_copied_from_the_folder_that_mnist_archives_names(tmp_path, archives, mirror, monkeypatch):
    monkeypatch.setenv("MNIST_ARCHIVES", str(archives))
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_mnist(*load_data(CPU, tmp_path / "not" / "there" / "yet"))
    assert mirror.asked == []
    assert leftovers(tmp_path) == []


def test_all_archives_are_downloaded_where_there_is_nothing(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_mnist(*load_data(CPU, tmp_path))
    assert {path.rsplit("/")[-1] for path in mirror.asked} == set(NAMES)
    assert leftovers(tmp_path) == []


def test_a_folder_of_archives_that_lacks_one_is_completed_by_a_mirror(
    raw_without_test_labels, tmp_path, mirror, monkeypatch
):
    monkeypatch.setenv("MNIST_ARCHIVES", str(tmp_path))
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_mnist(*load_data(CPU, raw_without_test_labels.parents[1]))


BAD_MIRRORS = ["403", "404", "503", "cut", "cut-unannounced", "cut-chunks", "altered", "hangs-up", "no-http"]


@pytest.mark.parametrize("behaviour", BAD_MIRRORS)
def test_the_second_mirror_is_asked_when_the_first_one_fails(raw_without_test_labels, mirror, monkeypatch, behaviour):
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url(behaviour), mirror.url("good")])
    assert_is_mnist(*load_data(CPU, raw_without_test_labels.parents[1]))
    assert f"/{behaviour}/{TEST_LABELS}" in mirror.asked
    assert leftovers(raw_without_test_labels) == []


@pytest.mark.parametrize("behaviour", BAD_MIRRORS)
def test_a_single_mirror_that_fails_leads_to_the_stand_in_and_leaves_nothing(
    raw_without_test_labels, mirror, monkeypatch, capsys, behaviour
):
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url(behaviour)])
    train, _ = load_data(CPU, raw_without_test_labels.parents[1])
    assert train.dataset != "MNIST"
    assert TEST_LABELS in capsys.readouterr().out
    assert len(list(raw_without_test_labels.iterdir())) == 3


def test_a_silent_mirror_is_not_waited_for_forever(raw_without_test_labels, mirror, monkeypatch):
    patience = []
    answer = mirror.RequestHandlerClass.do_GET

    def note_and_answer(handler):
        patience.append(socket.getdefaulttimeout())
        answer(handler)

    monkeypatch.setattr(mirror.RequestHandlerClass, "do_GET", note_and_answer)
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    load_data(CPU, raw_without_test_labels.parents[1])
    assert patience and all(0 < seconds <= 60 for seconds in patience)
    assert socket.getdefaulttimeout() is None  # other users of sockets get their own patience back


# ---------------------------------------------------------------------------------------------------------------------
# Data: damage
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["folder", "mirror"])
def test_a_truncated_archive_is_replaced_where_it_can_be_had_again(
    raw_without_test_labels, archives, mirror, monkeypatch, again
):
    shutil.copyfile(archives / TEST_LABELS, raw_without_test_labels / TEST_LABELS)
    truncate(raw_without_test_labels / TEST_LABELS)
    if again == "folder":
        monkeypatch.setenv("MNIST_ARCHIVES", str(archives))
    else:
        monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_mnist(*load_data(CPU, raw_without_test_labels.parents[1]))
    assert (raw_without_test_labels / TEST_LABELS).read_bytes() == (archives / TEST_LABELS).read_bytes()
    assert leftovers(raw_without_test_labels) == []


def test_a_truncated_archive_that_cannot_be_had_again_is_named(raw_without_test_labels, archives):
    damaged = raw_without_test_labels / TEST_LABELS
    shutil.copyfile(archives / TEST_LABELS, damaged)
    truncate(damaged)
    half = damaged.read_bytes()
    with pytest.raises(RuntimeError, match=f"{damaged} is truncated or altered.*put an intact copy there"):
        load_data(CPU, raw_without_test_labels.parents[1])
    assert damaged.read_bytes() == half
    assert leftovers(raw_without_test_labels) == []


@pytest.mark.parametrize("position", [0, 20, -1], ids=["first byte", "middle", "last byte"])
def test_an_altered_archive_in_the_folder_of_archives_is_named(
    raw_without_test_labels, tmp_path, archives, monkeypatch, position
):
    altered = bytearray((archives / TEST_LABELS).read_bytes())
    altered[position] ^= 1
    (tmp_path / TEST_LABELS).write_bytes(altered)
    monkeypatch.setenv("MNIST_ARCHIVES", str(tmp_path))
    with pytest.raises(RuntimeError, match=f"{tmp_path / TEST_LABELS} is truncated or altered"):
        load_data(CPU, raw_without_test_labels.parents[1])
    assert len(list(raw_without_test_labels.iterdir())) == 3


@pytest.mark.parametrize("name", [TEST_LABELS, TEST_IMAGES])
@pytest.mark.parametrize("damage", ["truncated", "one bit"])
def test_a_damaged_extracted_file_is_extracted_again(raw, extracted, archives, monkeypatch, name, damage):
    monkeypatch.setenv("MNIST_ARCHIVES", str(archives))
    for path in extracted.iterdir():
        os.link(path, raw / path.name)
    damaged = raw / name.removesuffix(".gz")
    if damage == "truncated":
        truncate(damaged)
    else:
        content = bytearray(damaged.read_bytes())
        content[5_000] ^= 1  # a digit's label or pixel, in a file that torchvision would read without complaint
        damaged.unlink()
        damaged.write_bytes(content)
    assert_is_mnist(*load_data(CPU, raw.parents[1]))
    assert damaged.read_bytes() == (extracted / damaged.name).read_bytes()
    assert leftovers(raw) == []


def test_files_without_checksums_that_an_old_torchvision_left_are_not_taken_for_mnist(raw, extracted):
    for path in extracted.iterdir():
        os.link(path, raw / path.name)
    processed = raw.parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.long)), processed / name)
    assert_is_mnist(*load_data(CPU, raw.parents[1]))


def load_from(mirror_url: str, root: Path) -> None:
    """In a process of its own."""
    MNIST.mirrors = [mirror_url]
    os.environ["no_proxy"] = "127.0.0.1"
    os.environ.pop("MNIST_ARCHIVES", None)
    load_data(CPU, root)


def test_a_process_killed_in_the_middle_of_a_download_leaves_no_half_archive(
    raw_without_test_labels, mirror, processes, monkeypatch
):
    process = processes.Process(target=load_from, args=(mirror.url("stalls"), raw_without_test_labels.parents[1]))
    process.start()
    wait_for(lambda: len(mirror.asked) > 1 and leftovers(raw_without_test_labels))
    process.kill()
    process.join()
    assert not (raw_without_test_labels / TEST_LABELS).exists()
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_mnist(*load_data(CPU, raw_without_test_labels.parents[1]))


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------------------------------
# Data: the stand-in
# ---------------------------------------------------------------------------------------------------------------------


def assert_is_stand_in(train: Digits, test: Digits) -> None:
    assert "not MNIST" in train.dataset and train.dataset == test.dataset
    assert len(train) + len(test) == 1_797
    for part in (train, test):
        assert part.images.shape[1:] == (28, 28) and part.images.dtype == torch.uint8
        assert part.labels.unique().tolist() == list(range(10))


def test_without_mnist_the_stand_in_takes_its_place_and_says_so(tmp_path, capsys):
    train, test = load_data(CPU, tmp_path)
    assert_is_stand_in(train, test)
    said = capsys.readouterr().out
    assert "MNIST could not be had" in said and "THIS IS NOT MNIST" in said and train.dataset in said
    assert leftovers(tmp_path) == []


def test_the_stand_in_can_be_asked_for_and_then_nobody_else_is(tmp_path, mirror, monkeypatch, capsys):
    monkeypatch.setenv("SESSION7_DATASET", "digits")
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_stand_in(*load_data(CPU, tmp_path))
    assert "THIS IS NOT MNIST" in capsys.readouterr().out
    assert mirror.asked == []


def test_the_stand_ins_digits_lie_where_those_of_mnist_lie(stand_in):
    images = torch.cat([part.images for part in stand_in]).bool()
    assert images[:, 4:24, 4:24].any() and not images[:, :4].any() and not images[:, 24:].any()
    assert not images[:, :, :4].any() and not images[:, :, 24:].any()


def test_asking_for_mnist_makes_its_absence_an_error_that_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("SESSION7_DATASET", "mnist")
    with pytest.raises(RuntimeError) as error:
        load_data(CPU, tmp_path)
    for expected in (*NAMES, str(tmp_path / "MNIST" / "raw"), "MNIST_ARCHIVES"):
        assert expected in str(error.value)


def test_an_unknown_dataset_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SESSION7_DATASET", "cifar")
    with pytest.raises(ValueError, match="SESSION7_DATASET is 'cifar', expected 'mnist', 'digits' or nothing"):
        load_data(CPU, tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Digits
# ---------------------------------------------------------------------------------------------------------------------


def some_digits(count: int, dataset: str = "MNIST") -> Digits:
    """Noise with labels 0, 1, ... 9, 0, ..."""
    images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    return Digits(images, torch.arange(count) % 10, dataset)


@pytest.mark.parametrize(
    "images, labels, sentence",
    [
        (torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.long), "empty.*at least one"),
        (torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([-1, 3]), "from -1 to 3, expected 0 to 9"),
        (torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([2, 10]), "from 2 to 10, expected 0 to 9"),
        (torch.zeros(2, 32, 32, dtype=torch.uint8), torch.tensor([0, 1]), r"\(2, 32, 32\).*expected.*\(N, 28, 28\)"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1]), r"\(2, 1, 28, 28\), expected"),
        (torch.zeros(28, 28, dtype=torch.uint8), torch.tensor([0]), r"\(28, 28\), expected"),
        (torch.zeros(2, 28, 28), torch.tensor([0, 1]), "torch.float32.*expected torch.uint8"),
        (torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 2]), r"\(3,\), expected one for each of 2"),
        (torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([[0], [1]]), r"\(2, 1\), expected one for each"),
        (torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([0.0, 1.5]), "torch.float32.*expected.*torch.int64"),
    ],
)
def test_digits_refuse_what_is_no_labelled_digit(images, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        Digits(images, labels, "MNIST")


def test_a_slice_of_digits_is_digits_of_the_same_dataset():
    digits = some_digits(20, "noise")
    part = digits[5:8]
    assert (len(part), part.dataset, part.labels.tolist()) == (3, "noise", [5, 6, 7])
    assert torch.equal(part.images, digits.images[5:8])
    with pytest.raises(ValueError, match="empty"):
        digits[20:]


# ---------------------------------------------------------------------------------------------------------------------
# Transforms
# ---------------------------------------------------------------------------------------------------------------------

SPREAD = torch.linspace(-1, 1, 12)  # one number for each image, both ways and not symmetric about an image
STILL = {
    "angle": 0 * SPREAD,
    "shift_x": 0 * SPREAD,
    "shift_y": 0 * SPREAD,
    "scale": 1 + 0 * SPREAD,
    "shear": 0 * SPREAD,
}
ROTATED, MOVED = {"angle": 40 * SPREAD}, {"shift_x": 0.2 * SPREAD, "shift_y": -0.13 * SPREAD.flip(0)}
SCALED, SHEARED = {"scale": 1 + 0.3 * SPREAD}, {"shear": 25 * SPREAD.roll(3)}


@pytest.mark.parametrize(
    "moves",
    [STILL, ROTATED, MOVED, SCALED, SHEARED, ROTATED | MOVED, ROTATED | SHEARED, ROTATED | MOVED | SCALED | SHEARED],
    ids=["still", "rotated", "shifted", "scaled", "sheared", "rotated and shifted", "rotated and sheared", "together"],
)
def test_each_image_is_moved_as_torchvision_moves_it(moves):
    images = torch.rand(12, 2, 28, 28, generator=torch.Generator().manual_seed(0))
    moves = STILL | moves
    moved = utils.warp_each(images, **moves)
    for i in range(12):
        m = {name: values[i].item() for name, values in moves.items()}
        expected = affine(
            images[i],
            angle=m["angle"],
            translate=[28 * m["shift_x"], 28 * m["shift_y"]],
            scale=m["scale"],
            shear=[m["shear"], 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(moved[i], expected, atol=1e-4, rtol=0)


def test_each_image_is_bent_as_torchvision_bends_it():
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    pulls = 0.1 * torch.rand(6, 2, 5, 5, generator=torch.Generator().manual_seed(1)) - 0.05
    still = {name: values[:6] for name, values in (STILL | {"scale": torch.ones(6)}).items()}
    bent = utils.warp_each(images, **still, warp=pulls.flatten(1))
    for i in range(6):
        everywhere = F.interpolate(pulls[i : i + 1], size=28, mode="bilinear", align_corners=True)
        expected = elastic(images[i], 2 * everywhere.permute(0, 2, 3, 1))  # elastic's image is 2 wide
        torch.testing.assert_close(bent[i], expected, atol=1e-4, rtol=0)


def test_a_warp_moves_each_point_within_its_bound_and_each_image_in_its_own_way():
    x, y = spots_after(RandomWarpEach(warp=0.05), 0, 0)
    for moved in (x, y):
        assert moved.unique().numel() == 400
        assert moved.abs().max() < 28 * 0.05 + 0.05
        assert moved.std() > 0.3


def a_spot(x: float, y: float) -> Tensor:
    """An image with a spot so many pixels right of and below its centre."""
    places = torch.arange(28) - 13.5
    return torch.exp(-((places[None, :] - x) ** 2 + (places[:, None] - y) ** 2) / 4)


def spots_after(transform: nn.Module, x: float, y: float) -> tuple[Tensor, Tensor]:
    """Where the spot is in each of 400 transformed images."""
    torch.manual_seed(0)
    images = transform(a_spot(x, y).expand(400, 1, -1, -1)).squeeze(1)
    places, mass = torch.arange(28) - 13.5, images.sum((1, 2))
    return (images.sum(1) * places).sum(1) / mass, (images.sum(2) * places).sum(1) / mass


@pytest.mark.parametrize(
    "bound, start, measure",
    [
        ({"rotation": 30}, (0, -6), lambda x, y: torch.rad2deg(torch.atan2(x, -y)) / 30),
        ({"shift": 0.1}, (0, 0), lambda x, y: x / 2.8),
        ({"shift": 0.1}, (0, 0), lambda x, y: y / 2.8),
        ({"scale": 0.2}, (6, 0), lambda x, y: (x / 6 - 1) / 0.2),
        ({"shear": 20}, (0, -6), lambda x, y: torch.rad2deg(torch.atan2(x, -y)) / 20),
    ],
    ids=["rotation", "shift along x", "shift along y", "scale", "shear"],
)
def test_random_moves_fill_their_bounds_both_ways_and_stay_within(bound, start, measure):
    drawn = measure(*spots_after(RandomWarpEach(**bound), *start))
    assert -1.02 < drawn.min() < -0.97 and 0.97 < drawn.max() < 1.02
    assert drawn.unique().numel() == 400  # one move for each image
    assert abs(drawn.mean()) < 0.15 and 0.5 < drawn.std() < 0.65  # uniform: 1 / sqrt(3) = 0.577


def test_bounds_of_zero_leave_the_images_as_they_are():
    images = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(RandomWarpEach()(images), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "bound, sentence",
    [
        ({"rotation": -1}, "rotation is -1, expected a bound of 0 or more"),
        ({"shift": -0.1}, "shift is -0.1, expected a bound of 0 or more"),
        ({"scale": -0.1}, "scale is -0.1, expected a bound from 0 to below 1"),
        ({"scale": 1}, "scale is 1, expected a bound from 0 to below 1"),
        ({"shear": -5}, "shear is -5, expected a bound of 0 or more"),
        ({"warp": -0.1}, "warp is -0.1, expected a bound of 0 or more"),
    ],
)
def test_a_bound_that_means_nothing_is_refused(bound, sentence):
    with pytest.raises(ValueError, match=sentence):
        RandomWarpEach(**bound)


def test_pixels_are_scaled_to_one_and_normalized_by_the_mean_and_deviation_of_mnist():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(4)[: 28 * 28].view(1, 1, 28, 28)
    expected = [(p / 255 - 0.1307) / 0.3081 for p in pixels.flatten().tolist()]
    seen = make_transform()(pixels)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.flatten(), torch.tensor(expected))


def test_what_comes_from_outside_of_an_augmented_image_is_black():
    white = torch.full((50, 1, 28, 28), 255, dtype=torch.uint8)
    seen = make_transform({"shift": 0.3})(white)
    black = torch.tensor(-0.1307 / 0.3081)
    assert torch.isclose(seen, black).any() and seen.min() > black - 1e-4


@pytest.mark.parametrize("name", utils.AUGMENTATIONS)
def test_every_augmentation_changes_images_and_is_named_in_the_transform(name):
    batch = some_digits(4).images.unsqueeze(1)
    transform = make_transform({name: 0.5})
    assert not torch.allclose(transform(batch), make_transform()(batch), atol=1e-3)
    assert f"{name}=0.5" in str(transform)


def test_an_unknown_augmentation_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError, match="unknown transform 'flip', expected one of rotation, shift, scale, shear, warp"
    ):
        make_transform({"flip": 1})


# ---------------------------------------------------------------------------------------------------------------------
# Loader
# ---------------------------------------------------------------------------------------------------------------------


def numbered(count: int) -> Digits:
    """Digits that can be told apart: the first pixel is the image's number."""
    digits = some_digits(count)
    digits.images[:, 0, 0] = torch.arange(count)
    return digits


def order_of(loader: Loader) -> list[int]:
    return [int(pixel) for images, _ in loader for pixel in images[:, 0, 0, 0]]


def as_is(images: Tensor) -> Tensor:
    return images


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_image_comes_once_an_epoch_with_its_own_label(shuffle):
    loader = Loader(numbered(130), 32, as_is, shuffle=shuffle)
    assert sorted(order_of(loader)) == list(range(130))
    assert (order_of(loader) == list(range(130))) == (not shuffle)
    for images, labels in loader:
        assert torch.equal(images[:, 0, 0, 0] % 10, labels)


def test_each_epoch_has_an_order_of_its_own_that_follows_from_the_seed():
    loader = Loader(numbered(130), 32, as_is, shuffle=True)
    orders = []
    for seed in (1, 1, 2):
        utils.seed_everything(seed)
        orders.append([order_of(loader) for _ in range(3)])
    assert orders[0] == orders[1] != orders[2]
    assert len(set(map(tuple, orders[0]))) == 3


@pytest.mark.parametrize(
    "count, batch_size, sizes", [(130, 32, [32, 32, 32, 32, 2]), (64, 32, [32, 32]), (5, 32, [5]), (3, 1, [1, 1, 1])]
)
def test_the_last_batch_holds_what_is_left(count, batch_size, sizes):
    loader = Loader(numbered(count), batch_size, make_transform())
    assert [len(labels) for _, labels in loader] == sizes
    assert len(loader) == len(sizes)


def test_batches_are_float_images_with_a_channel_and_integer_labels():
    images, labels = next(iter(Loader(some_digits(9), 4, make_transform({"rotation": 5}), shuffle=True)))
    assert (images.shape, images.dtype) == ((4, 1, 28, 28), torch.float32)
    assert (labels.shape, labels.dtype) == ((4,), torch.int64)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}, expected at least 1"):
        Loader(some_digits(3), batch_size, as_is)


def test_the_first_images_of_a_loader_make_a_loader_of_the_same_kind():
    loader = Loader(numbered(130), 32, as_is, shuffle=True)
    few = loader.first(40)
    assert sorted(order_of(few)) == list(range(40))
    assert (few.batch_size, few.transform, few.shuffle) == (32, as_is, True)
    assert len(loader.first(1_000).digits) == 130


# ---------------------------------------------------------------------------------------------------------------------
# Train and test
# ---------------------------------------------------------------------------------------------------------------------


def linear(outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, outputs))


def constant(logits: list[float]) -> nn.Sequential:
    """A network that answers the same to every image."""
    model = linear(len(logits))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor(logits))
    return model


EIGHT_ZEROS_THREE_ONES = Digits(
    torch.zeros(11, 28, 28, dtype=torch.uint8), torch.tensor([0] * 8 + [1] * 3), "eight zeros and three ones"
)


@pytest.mark.parametrize("batch_size", [8, 4, 11, 1])
def test_training_counts_images_and_weights_losses_by_batch_size(batch_size):
    # 4 for the zero: a batch mean of the ones is far from one of the zeros, so unweighted means would show
    model = constant([4.0] + [0.0] * 9)
    loader = Loader(EIGHT_ZEROS_THREE_ONES, batch_size, make_transform())
    loss, correct = utils.train(model, loader, utils.make_optimizer(model, learning_rate=0.0))
    right, wrong = -math.log(math.exp(4) / (math.exp(4) + 9)), -math.log(1 / (math.exp(4) + 9))
    assert correct == 8 and type(correct) is int
    assert loss == pytest.approx((8 * right + 3 * wrong) / 11, abs=1e-5)


@pytest.mark.parametrize("batch_size", [64, 100, 7, 500])
def test_testing_gives_the_loss_and_the_count_of_one_batch_of_all(stand_in, batch_size):
    torch.manual_seed(0)
    model = models.Model_2()
    utils.train(model, Loader(stand_in[0][:200], 50, make_transform()), utils.make_optimizer(model, 0.05))
    digits = stand_in[1][:150]
    model.train()  # testing has to switch dropout and batch statistics off by itself
    loss, correct = utils.test(model, Loader(digits, batch_size, make_transform()))
    with torch.no_grad():
        logits = model.eval()((digits.images.unsqueeze(1) / 255 - 0.1307) / 0.3081)
    assert loss == pytest.approx(F.cross_entropy(logits, digits.labels).item(), abs=1e-5)
    assert correct == sum(int(row.argmax()) == int(label) for row, label in zip(logits, digits.labels))
    assert type(correct) is int and 0 < correct < 150


def test_testing_changes_nothing_in_the_network(stand_in):
    model = models.Model_2()
    before = copy.deepcopy(model.state_dict())
    utils.test(model, Loader(stand_in[1], 100, make_transform()))
    assert same_weights(before, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_learns_and_keeps_weights_in_float32(stand_in):
    torch.manual_seed(0)
    model = models.Model_2()
    loader = Loader(stand_in[0], 64, make_transform(), shuffle=True)
    optimizer = utils.make_optimizer(model, 0.1)
    first, second = (utils.train(model, loader, optimizer) for _ in range(2))
    assert second[0] < first[0] / 2 and second[1] > first[1]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_weights_move_by_nesterovs_rule_and_gradients_do_not_pile_up():
    model = linear()
    weights, velocities = [p.detach().clone() for p in model.parameters()], [0.0, 0.0]
    loader = Loader(some_digits(30), 10, make_transform())
    utils.train(model, loader, utils.make_optimizer(model, 0.05, momentum=0.9, weight_decay=0.01))
    for images, labels in loader:
        with torch.autocast("cpu", torch.bfloat16, enabled=utils.has_fast_bfloat16(CPU)):
            logits = F.linear(images.flatten(1), *[w.requires_grad_() for w in weights])
        gradients = torch.autograd.grad(F.cross_entropy(logits.float(), labels), weights)
        gradients = [g + 0.01 * w.detach() for g, w in zip(gradients, weights)]
        velocities = [0.9 * v + g for v, g in zip(velocities, gradients)]
        weights = [(w - 0.05 * (g + 0.9 * v)).detach() for w, g, v in zip(weights, gradients, velocities)]
    for weight, expected in zip(model.parameters(), weights):
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_the_network_computes_in_bfloat16_where_that_is_fast_and_allowed(stand_in, monkeypatch, fast, allowed):
    monkeypatch.setattr(utils, "has_fast_bfloat16", lambda device: fast)
    run = Run(stand_in, make=linear, bfloat16=allowed)
    seen = set()
    run.model.register_forward_hook(lambda model, images, logits: seen.add((model.training, logits.dtype)))
    expected = torch.bfloat16 if fast and allowed else torch.float32
    assert run.fit(1).environment["precision"] == str(expected).removeprefix("torch.")
    assert seen == {(True, expected), (False, torch.float32)}  # testing stays in float32


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_maps_lie_in_memory_as_is_fastest_and_the_numbers_are_the_same(stand_in, monkeypatch, layout):
    monkeypatch.setattr(utils, "has_fast_bfloat16", lambda device: False)
    torch.manual_seed(0)
    model = models.Model_2(dropout=0.0)
    other = copy.deepcopy(model)
    loader = Loader(stand_in[0][:200], 100, make_transform())
    expected = [utils.train(other, loader, utils.make_optimizer(other, 0.05)), utils.test(other, loader)]

    monkeypatch.setattr(utils, "fast_layout", lambda device: layout)
    seen = set()
    model.features[2].register_forward_hook(lambda block, _, maps: seen.add(maps.is_contiguous(memory_format=layout)))
    measured = [utils.train(model, loader, utils.make_optimizer(model, 0.05)), utils.test(model, loader)]
    assert seen == {True}
    assert [loss for loss, _ in measured] == pytest.approx([loss for loss, _ in expected], rel=1e-4)


def test_channels_lie_last_but_on_apples_gpu():
    kinds = {kind: utils.fast_layout(torch.device(kind)) for kind in ("cpu", "cuda", "mps")}
    last, first = torch.channels_last, torch.contiguous_format
    assert kinds == {"cpu": last, "cuda": last, "mps": first}


@pytest.mark.parametrize("outputs", [9, 11, 1])
def test_a_network_with_other_than_ten_outputs_is_refused(outputs):
    model, loader = linear(outputs), Loader(some_digits(4), 4, make_transform())
    expected = rf"shape \(4, {outputs}\), expected \(4, 10\)"
    with pytest.raises(ValueError, match=expected):
        utils.train(model, loader, utils.make_optimizer(model, 0.1))
    with pytest.raises(ValueError, match=expected):
        utils.test(model, loader)


def test_ten_maps_are_not_ten_logits():
    with pytest.raises(ValueError, match=r"\(4, 10, 1, 1\), expected \(4, 10\)"):
        utils.test(nn.Conv2d(1, 10, 28), Loader(some_digits(4), 4, make_transform()))


@pytest.mark.parametrize("rate", [1e36, 1e38])
def test_a_diverging_loss_stops_training_before_it_touches_the_weights(rate):
    model, after_each_batch = linear(), []
    loader = Loader(some_digits(40), 10, make_transform())
    with pytest.raises(FloatingPointError) as error:
        utils.train(
            model,
            loader,
            utils.make_optimizer(model, rate),
            epoch=3,
            after_batch=lambda: after_each_batch.append(copy.deepcopy(model.state_dict())),
        )
    assert f"in epoch 3, batch {len(after_each_batch) + 1}, at learning rate {rate:g}" in str(error.value)
    assert same_weights(after_each_batch[-1], model.state_dict())


def test_infinite_weights_are_noticed_in_the_first_batch():
    model = constant([math.inf] + [0.0] * 9)
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1, batch 1, at learning rate 0.1"):
        utils.train(model, Loader(some_digits(4), 2, make_transform()), utils.make_optimizer(model, 0.1))


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------------------------------------
# Fit
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stand_in() -> tuple[Digits, Digits]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SESSION7_DATASET", "digits")
        return load_data(CPU)


class Run:
    """All that `fit` takes; made anew for each run, as in a process of its own."""

    def __init__(
        self,
        digits: tuple[Digits, Digits],
        *,
        make: Callable[[], nn.Module] = lambda: models.Model_2((4, 4, 6), capacity=0, dropout=0.1),
        seed: int = 0,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        step_size: int = 2,
        gamma: float = 0.1,
        batch_size: int = 32,
        rotation: float = 10,
        train_images: int = 120,
        test_images: int = 50,
        loader: type[Loader] = Loader,
        plain_epochs: int = 0,
        bfloat16: bool = True,
    ) -> None:
        utils.seed_everything(seed)
        self.plain_epochs, self.bfloat16 = plain_epochs, bfloat16
        self.seed, self.model = seed, make()
        augmented = make_transform({"rotation": rotation})
        self.train_loader = loader(digits[0][:train_images], batch_size, augmented, shuffle=True)
        self.test_loader = Loader(digits[1][:test_images], 40, make_transform())
        self.optimizer = utils.make_optimizer(self.model, learning_rate, momentum, weight_decay)
        self.scheduler = utils.make_scheduler(self.optimizer, step_size, gamma)

    def fit(self, epochs: int, checkpoint: Path | None = None, show: bool = False) -> History:
        loaders = self.train_loader, self.test_loader
        return utils.fit(
            self.model,
            *loaders,
            self.optimizer,
            self.scheduler,
            epochs=epochs,
            plain_epochs=self.plain_epochs,
            bfloat16=self.bfloat16,
            seed=self.seed,
            checkpoint=checkpoint,
            show=show,
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict())


def but_for_seconds(history: History) -> dict:
    return {name: value for name, value in vars(history).items() if name != "seconds"}


def test_a_negative_number_of_epochs_is_refused(stand_in):
    with pytest.raises(ValueError, match="epochs is -1, expected 0 or more"):
        Run(stand_in).fit(-1)


def test_the_last_plain_epochs_train_on_images_as_the_test_sees_them(stand_in):
    """Of a network whose weights stand still, a plain epoch's loss is the test's loss on the training images."""
    run = Run(stand_in, make=linear, learning_rate=1e-30, rotation=180, plain_epochs=2)
    as_tested = utils.test(run.model, Loader(run.train_loader.digits, 32, make_transform()))[0]
    losses = run.fit(4).train_loss
    assert losses[2:] == pytest.approx([as_tested] * 2, rel=0.01)
    assert all(abs(loss / as_tested - 1) > 0.02 for loss in losses[:2])


def test_a_negative_number_of_plain_epochs_is_refused(stand_in):
    with pytest.raises(ValueError, match="plain_epochs is -1, expected 0 or more"):
        Run(stand_in, plain_epochs=-1).fit(1)


def test_zero_epochs_measure_the_untrained_network(stand_in):
    run = Run(stand_in)
    before = run.weights
    history = run.fit(0)
    assert len(history) == 0 and history.learning_rate == []
    assert same_weights(before, run.model.state_dict())
    assert (
        history.final_train_correct == utils.test(run.model, Loader(run.train_loader.digits, 40, make_transform()))[1]
    )


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(stand_in):
    runs = [Run(stand_in, seed=seed) for seed in (3, 3, 4)]
    histories = [but_for_seconds(run.fit(2)) for run in runs]
    assert histories[0] == histories[1]
    assert same_weights(runs[0].weights, runs[1].weights)
    assert histories[0]["train_loss"] != histories[2]["train_loss"]


def test_what_ran_before_does_not_change_a_run(stand_in):
    straight, disturbed = Run(stand_in), Run(stand_in)
    expected = but_for_seconds(straight.fit(1))
    torch.rand(1_000)
    assert but_for_seconds(disturbed.fit(1)) == expected


def test_a_history_tells_what_was_run_and_measured(stand_in):
    run = Run(stand_in, seed=5)
    history = run.fit(3)
    assert (history.dataset, history.train_images, history.test_images) == (stand_in[0].dataset, 120, 50)
    assert (history.seed, history.parameters) == (5, models.count_parameters(run.model))
    assert history.environment == utils.environment(CPU)
    columns = ("learning_rate", "train_loss", "train_correct", "test_loss", "test_correct", "seconds")
    assert [len(getattr(history, column)) for column in columns] == [3] * 6
    assert (history.test_loss[-1], history.test_correct[-1]) == utils.test(run.model, run.test_loader)


def test_the_scheduled_rates_are_recorded_as_they_were_used(stand_in):
    history = Run(stand_in, make=linear, learning_rate=0.08, step_size=2, gamma=0.5).fit(5)
    assert history.learning_rate == pytest.approx([0.08, 0.08, 0.04, 0.04, 0.02])


def test_a_gamma_of_one_keeps_the_rate(stand_in):
    assert Run(stand_in, make=linear, learning_rate=0.08, step_size=1, gamma=1).fit(3).learning_rate == [0.08] * 3


def test_the_final_train_count_is_of_the_images_without_augmentation_and_dropout(stand_in):
    run = Run(stand_in, make=lambda: nn.Sequential(nn.Dropout(0.5), linear()), rotation=90)
    history = run.fit(6)
    digits = run.train_loader.digits
    with torch.no_grad():
        logits = run.model.eval()((digits.images.unsqueeze(1) / 255 - 0.1307) / 0.3081)
    assert history.final_train_correct == int((logits.argmax(1) == digits.labels).sum())
    assert utils.test(run.model, run.train_loader)[1] != history.final_train_correct  # augmentation makes a difference
    assert history.gap == pytest.approx(100 * history.final_train_correct / 120 - 100 * history.test_correct[-1] / 50)


def test_the_short_form_takes_two_epochs_and_few_images(monkeypatch):
    monkeypatch.setenv("SESSION7_SHORT", "1")
    digits = some_digits(2_500)
    history = Run((digits, digits), make=linear, train_images=2_500, test_images=1_200, batch_size=500).fit(5)
    assert (len(history), history.train_images, history.test_images) == (2, 2_000, 1_000)
    assert Run((digits, digits), make=linear).fit(1).train_images == 120


def test_a_shown_run_leaves_its_table_and_a_hidden_one_leaves_nothing(stand_in, capsys):
    Run(stand_in, make=linear).fit(2)
    assert capsys.readouterr() == ("", "")
    history = Run(stand_in, make=linear).fit(2, show=True)
    assert capsys.readouterr().out.strip("\r\n") == str(history)
    assert [line.split()[0] for line in str(history).splitlines()] == ["epoch", "1", "2"]


def test_a_run_that_diverges_later_names_the_epoch_and_its_rate(stand_in):
    with pytest.raises(FloatingPointError, match=r"epoch 2, batch \d, at learning rate 1e\+36"):
        Run(stand_in, make=linear, learning_rate=1e-3, step_size=1, gamma=1e39, momentum=0).fit(3)


def test_a_run_whose_very_last_update_diverges_is_no_result(stand_in):
    with pytest.raises(FloatingPointError):
        Run(stand_in, make=linear, learning_rate=1e38, batch_size=120).fit(1)


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints: a run that dies
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Makes processes from one that has imported everything already: starting a run takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["utils", "models"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(utils.__file__).parent), prepend=os.pathsep)
        first = context.Process(target=int)  # starts the one that the others come from
        first.start()
        first.join()
    yield context


def run_and_report(checkpoint: Path, result: Path, heartbeat: multiprocessing.connection.Connection) -> None:
    """In a process of its own: four epochs of eight batches, one word to the parent after each batch."""

    class Beating(Loader):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().__iter__():
                yield batch
                heartbeat.send_bytes(b"batch")

    torch.set_num_threads(1)
    os.environ["SESSION7_DATASET"] = "digits"
    run = Run(load_data(CPU), loader=Beating, train_images=250, step_size=2, gamma=0.5)
    history = run.fit(4, checkpoint)
    history.save(result.with_suffix(".json"))
    torch.save(run.weights, result)


def live(processes, checkpoint: Path, result: Path, batches: int | None = None, seconds: float = 0.0) -> int:
    """Let a run live for so many batches and seconds, or to its end; return its exit code."""
    ours, its = multiprocessing.Pipe(duplex=False)
    process = processes.Process(target=run_and_report, args=(checkpoint, result, its))
    process.start()
    its.close()
    try:
        for _ in range(batches or sys.maxsize):
            ours.recv_bytes()
        time.sleep(seconds)
        process.kill()
    except EOFError:
        pass  # it ended before
    process.join()
    return process.exitcode


def test_a_run_killed_again_and_again_ends_in_the_bits_of_one_never_stopped(processes, tmp_path):
    whole, torn, checkpoint = tmp_path / "whole", tmp_path / "torn", tmp_path / "run.pt"
    assert live(processes, tmp_path / "other.pt", whole) == 0

    moments = random.Random(7)
    deaths, seen_epochs = 0, set()
    while live(processes, checkpoint, torn, moments.randint(1, 14), moments.uniform(0, 0.02)) != 0:
        deaths += 1
        if checkpoint.exists():  # whatever the moment of death, it is whole
            model = Run(some_mnist_like(), seed=1).model
            seen_epochs.add(len(utils.load_checkpoint(checkpoint, model)["history"]["test_correct"]))
        assert deaths < 50
    assert deaths >= 3 and len(seen_epochs) >= 2

    assert same_weights(torch.load(whole), torch.load(torn))
    histories = [History.load(path.with_suffix(".json")) for path in (whole, torn)]
    assert but_for_seconds(histories[0]) == but_for_seconds(histories[1])
    assert len(histories[1].seconds) == 4


def some_mnist_like() -> tuple[Digits, Digits]:
    return some_digits(120), some_digits(50)


def test_a_checkpoint_is_whole_at_every_moment_of_its_being_written(stand_in, tmp_path):
    path, failures, reads, done = tmp_path / "run.pt", [], [], threading.Event()

    def read_on() -> None:
        while not done.is_set():
            if path.exists():
                try:
                    reads.append(len(utils.load_checkpoint(path, linear())["history"]["test_correct"]))
                except ValueError as error:
                    failures.append(error)

    reader = threading.Thread(target=read_on)
    reader.start()
    Run(stand_in, make=linear, batch_size=120).fit(40, path)
    done.set()
    reader.join()
    assert failures == []
    assert len(set(reads)) > 3  # it was read while it changed


@pytest.mark.parametrize("stop", [1, 2])  # within a step of the scheduler, and at its end
def test_a_run_goes_on_from_its_checkpoint_to_more_epochs(stand_in, tmp_path, stop):
    straight, first, second = Run(stand_in), Run(stand_in), Run(stand_in)
    expected = straight.fit(4)
    first.fit(stop, tmp_path / "run.pt")
    assert but_for_seconds(second.fit(4, tmp_path / "run.pt")) == but_for_seconds(expected)
    assert same_weights(straight.weights, second.weights)


def test_a_finished_run_is_not_trained_again(stand_in, tmp_path):
    first, second = Run(stand_in), Run(stand_in)
    expected = first.fit(2, tmp_path / "run.pt")
    written = (tmp_path / "run.pt").read_bytes()
    assert vars(second.fit(2, tmp_path / "run.pt")) == vars(expected)
    assert same_weights(first.weights, second.weights)
    assert (tmp_path / "run.pt").read_bytes() == written
    assert leftovers(tmp_path) == []


def test_a_checkpoint_does_not_change_a_run(stand_in, tmp_path):
    runs = Run(stand_in), Run(stand_in)
    histories = runs[0].fit(2), runs[1].fit(2, tmp_path / "new folder" / "run.pt")
    assert but_for_seconds(histories[0]) == but_for_seconds(histories[1])
    assert same_weights(runs[0].weights, runs[1].weights)


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints: files that are none
# ---------------------------------------------------------------------------------------------------------------------


class Command:
    """Executes code when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def assert_refused(path: Path, model: nn.Module, error: type[Exception] = ValueError, sentence: str = "") -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error) as caught:
        utils.load_checkpoint(path, model)
    said = str(caught.value)
    assert str(path) in said and sentence in said and "\n" not in said
    assert same_weights(before, model.state_dict())


def test_a_missing_checkpoint_is_named(tmp_path):
    assert_refused(tmp_path / "none.pt", linear(), FileNotFoundError, "there is no checkpoint")


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"\x80", bytes(1_000)], ids=["empty", "text", "stub", "0"]
)
def test_a_file_of_other_content_is_no_checkpoint(tmp_path, content):
    (tmp_path / "run.pt").write_bytes(content)
    assert_refused(tmp_path / "run.pt", linear(), sentence="is not a checkpoint")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_random_bytes_are_no_checkpoint_whatever_they_are(tmp_path):
    path, model, chance = tmp_path / "run.pt", linear(), random.Random(0)
    for _ in range(300):
        path.write_bytes(chance.randbytes(chance.randint(1, 300)))
        assert_refused(path, model, sentence="is not a checkpoint")


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_none(stand_in, tmp_path, keep):
    run = Run(stand_in, make=linear)
    run.fit(1, tmp_path / "run.pt")
    content = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(content[: int(keep * len(content))])
    assert_refused(tmp_path / "run.pt", run.model, sentence="is not a checkpoint")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("where", ["alone", "saved by torch", "beside good weights"])
def test_code_in_a_checkpoint_is_not_executed(tmp_path, where):
    path, model, command = tmp_path / "run.pt", linear(), Command(tmp_path / "executed")
    if where == "alone":
        path.write_bytes(pickle.dumps(command))
    else:
        torch.save(command if where == "saved by torch" else {"model": model.state_dict(), "run": command}, path)
    assert_refused(path, model, sentence="is not a checkpoint")
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False) if where != "alone" else pickle.loads(path.read_bytes())
    assert (tmp_path / "executed").exists()  # the command does work: it was not for nothing that nobody ran it


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(
    "content",
    [
        lambda model: torch.zeros(3),
        lambda model: [1, 2],
        lambda model: None,
        lambda model: model,
        lambda model: model.state_dict(),
        lambda model: {"model": 1},
        lambda model: {"model": {"weight": 1}},
        lambda model: {"model": model.state_dict()},
        lambda model: {"model": model.state_dict(), "epoch": 3, "optimizer": {}},
    ],
    ids=["tensor", "list", "none", "network", "weights", "number", "no tensors", "weights alone", "of other code"],
)
def test_what_other_code_saved_is_no_checkpoint(tmp_path, content):
    model = linear()
    torch.save(content(linear()), tmp_path / "run.pt")
    assert_refused(tmp_path / "run.pt", model, sentence="is not a checkpoint")


def test_the_weights_of_another_network_are_refused(stand_in, tmp_path):
    Run(stand_in, make=linear).fit(1, tmp_path / "run.pt")
    assert_refused(tmp_path / "run.pt", models.Model_2(), sentence="holds the weights of another network")


def test_a_checkpoint_gives_its_weights_and_all_that_was_stored(stand_in, tmp_path):
    run, model = Run(stand_in, make=linear), linear()
    history = run.fit(2, tmp_path / "run.pt")
    checkpoint = utils.load_checkpoint(tmp_path / "run.pt", model)
    assert same_weights(run.weights, model.state_dict())
    assert checkpoint["history"]["test_correct"] == history.test_correct


@pytest.mark.parametrize(
    "change, what",
    [
        ({"seed": 1}, "seed"),
        ({"make": lambda: models.Model_2((4, 4, 6), capacity=0, dropout=0.2)}, "network"),
        ({"learning_rate": 0.2}, "optimizer"),
        ({"momentum": 0.8}, "optimizer"),
        ({"weight_decay": 1e-4}, "optimizer"),
        ({"step_size": 3}, "scheduler"),
        ({"gamma": 0.5}, "scheduler"),
        ({"rotation": 5}, "transform"),
        ({"batch_size": 40}, "data"),
        ({"train_images": 110}, "data"),
        ({"test_images": 49}, "data"),
        ({"bfloat16": False}, "bfloat16"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_the_checkpoint_of_another_run_is_refused_and_touches_nothing(stand_in, tmp_path, change, what):
    Run(stand_in).fit(1, tmp_path / "run.pt")
    run = Run(stand_in, **change)
    before, rate = run.weights, run.optimizer.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=f"{tmp_path / 'run.pt'} is of another run, .*{what}") as error:
        run.fit(2, tmp_path / "run.pt")
    assert "\n" not in str(error.value)
    assert same_weights(before, run.model.state_dict())
    assert run.optimizer.param_groups[0]["lr"] == rate and not run.optimizer.state


def test_a_checkpoint_of_other_data_is_refused(stand_in, tmp_path):
    Run(stand_in).fit(1, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="is of another run, data .*not MNIST.* where this has .* of MNIST"):
        Run(some_mnist_like()).fit(2, tmp_path / "run.pt")


def test_a_checkpoint_that_has_gone_further_than_asked_is_refused_and_touches_nothing(stand_in, tmp_path):
    Run(stand_in).fit(3, tmp_path / "run.pt")
    run = Run(stand_in)
    before = run.weights
    with pytest.raises(ValueError, match="has 3 epochs behind it, more than the 2 asked for"):
        run.fit(2, tmp_path / "run.pt")
    assert same_weights(before, run.model.state_dict())


# ---------------------------------------------------------------------------------------------------------------------
# History and verdict
# ---------------------------------------------------------------------------------------------------------------------


def record(test_correct: list[int], *, dataset: str = "MNIST", test_images: int = 10_000, **more) -> History:
    """The history of a run with these numbers of correct test images."""
    epochs = len(test_correct)
    return History(
        **{
            "dataset": dataset,
            "train_images": 60_000,
            "test_images": test_images,
            "parameters": 7_450,
            "seed": 0,
            "environment": utils.environment(CPU),
            "learning_rate": [0.1] * epochs,
            "train_loss": [0.05] * epochs,
            "train_correct": [59_000] * epochs,
            "test_loss": [0.02] * epochs,
            "test_correct": test_correct,
            "seconds": [1.5] * epochs,
            "final_train_correct": 59_820,
        }
        | more
    )


GOOD, SHORT = 9_940, 9_939


@pytest.mark.parametrize(
    "test_correct, consistent, sentence",
    [
        ([GOOD] * 5, True, "yes: each of the last 5 epochs is at 99.40 % or more"),
        ([SHORT] * 10 + [GOOD] * 5, True, "yes"),
        *[
            ([GOOD] * 10 + [SHORT if i == j else 9_990 for i in range(5)], False, "no: 1 of the last 5")
            for j in range(5)
        ],
        ([GOOD] * 10 + [SHORT] * 5, False, "no: 5 of the last 5"),
        ([GOOD] * 15, True, "yes"),
        ([GOOD] * 16, False, "no: 16 epochs, at most 15 are allowed"),
        ([GOOD] * 4, None, "not judged: 4 epochs, expected at least 5"),
        ([], None, "not judged: 0 epochs"),
    ],
)
def test_consistent_means_each_of_the_last_five_of_at_most_fifteen_epochs(test_correct, consistent, sentence):
    verdict = utils.verdict(record(test_correct))
    assert verdict.consistent is consistent
    assert str(verdict).startswith(sentence)


def test_the_stand_in_is_not_judged(stand_in):
    verdict = utils.verdict(record([360] * 5, dataset=stand_in[0].dataset, test_images=360))
    assert verdict == (None, "not judged: this is not MNIST")


@pytest.mark.parametrize("test_images, enough", [(1_000, 994), (500, 497), (999, 994), (60_000, 59_640)])
def test_the_limit_is_exact_for_other_numbers_of_test_images(test_images, enough):
    assert utils.verdict(record([enough] * 5, test_images=test_images)).consistent is True
    assert utils.verdict(record([enough - 1] * 5, test_images=test_images)).consistent is False


def test_percentages_are_counts_divided_once():
    history = record([9_930, 9_941, 9_942, 9_943, 9_944, 9_945], train_correct=[30_000] * 6)
    assert history.test_accuracy == [99.30, 99.41, 99.42, 99.43, 99.44, 99.45]
    assert history.last_five == [99.41, 99.42, 99.43, 99.44, 99.45]
    assert history.mean_last_five == 99.43
    assert history.best == 99.45
    assert history.train_accuracy == [50.0] * 6
    assert history.final_train_accuracy == 99.7
    assert history.gap == pytest.approx(0.25)


def test_a_record_comes_back_from_its_file_as_it_was(stand_in, tmp_path):
    history = Run(stand_in, make=linear).fit(2)
    history.save(tmp_path / "new folder" / "run.json")
    assert History.load(tmp_path / "new folder" / "run.json") == history
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("content", ['{"dataset": "MN', "", "[1]", "{}", '{"other": 1}', "3", "\x00"])
def test_a_torn_or_foreign_record_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path / 'run.json'} is not a record of a run"):
        History.load(tmp_path / "run.json")


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "run.json"
    record([9_940]).save(path)
    with pytest.raises(TypeError):
        record([torch.tensor(9_941)]).save(path)
    assert History.load(path).test_correct == [9_940]
    assert leftovers(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------------------
# Runs over seeds
# ---------------------------------------------------------------------------------------------------------------------


def seeds(*last_fives: list[int], **more) -> dict[int, History]:
    return {seed: record(last_five, seed=seed, **more) for seed, last_five in enumerate(last_fives)}


def test_the_table_of_seeds_has_a_row_a_seed_and_one_for_all():
    table = utils.seeds_table(seeds([9_940, 9_941, 9_942, 9_943, 9_944], [9_939, 9_945, 9_945, 9_945, 9_946]))
    _, first, second, together = [line.split() for line in table.splitlines()]
    assert first == ["0", "99.40", "99.41", "99.42", "99.43", "99.44", "99.42", "99.40", "0.26", "yes"]
    assert second == ["1", "99.39", "99.45", "99.45", "99.45", "99.46", "99.44", "99.39", "0.24", "no"]
    assert together == ["all", "99.43", "99.39", "0.25", "1", "of", "2"]


def test_the_tables_name_the_images_that_were_measured_on():
    runs = seeds([9_940] * 5, [9_939] * 5)
    for table in (utils.seeds_table(runs, "held-out"), utils.ladder_table({"one": runs, "two": runs}, "held-out")):
        title, *rows = table.splitlines()
        assert "held-out %" in title and "train - held-out" in title and "test" not in table
        end = title.index("train - held-out") + len("train - held-out")
        for row in rows:  # the gap ends where its title ends
            assert re.search(r" \d\.\d\d$", row[:end]) and row[end : end + 1] in ("", " ")


def test_a_paired_difference_is_the_one_worked_out_by_hand():
    before = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5)
    after = seeds([9_910] * 5, [9_930] * 5, [9_950] * 5)
    difference = utils.paired_difference(after, before)
    # differences 0.1, 0.2, 0.3 points: mean 0.2, deviation 0.1; Student's t for 2 degrees of freedom is 4.302653
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert difference == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-6)
    assert str(difference) == "+0.20 (-0.05 to +0.45)"


@pytest.mark.parametrize("content", ['{"recipe"', "{}", "[]", '{"history": {}}'])
def test_a_torn_record_of_a_study_is_named(tmp_path, content):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "first.seed0.json").write_text(content)
    with pytest.raises(ValueError, match=r"first\.seed0\.json is not a record of a study"):
        utils.load_records("study", "first", tmp_path)


def test_only_seeds_that_both_recipes_have_are_paired():
    before = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5)
    after = seeds([9_910] * 5, [9_930] * 5) | {7: record([0] * 5, seed=7)}
    assert utils.paired_difference(after, before).mean == pytest.approx(0.15)


@pytest.mark.parametrize("common", [0, 1])
def test_fewer_than_two_seeds_in_common_are_no_pairs(common):
    before, after = seeds(*[[9_900] * 5] * common), seeds([9_900] * 5, [9_910] * 5)
    with pytest.raises(ValueError, match=f"{common} seeds in common, expected at least 2"):
        utils.paired_difference(after, before)


def test_the_ladder_has_a_row_a_recipe_and_its_change_to_the_one_above():
    skeleton = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5, parameters=6_754)
    capacity = seeds([9_910] * 5, [9_930] * 5, [9_950] * 5)
    lines = utils.ladder_table({"skeleton": skeleton, "capacity": capacity}).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("seeds 0 1 2 ")
    assert lines[1].split() == ["skeleton", "6,754", "99.10", "99.00", "0.60"]
    assert lines[2].split() == ["capacity", "7,450", "99.30", "99.10", "0.40", *["+0.20", "(-0.05", "to", "+0.45)"]]


def test_records_are_loaded_by_seed(tmp_path):
    (tmp_path / "study").mkdir()
    for seed in (10, 2, 0):
        content = {"history": vars(record([9_940 + seed] * 5, seed=seed)), "recipe": "any"}
        (tmp_path / "study" / f"step3.seed{seed}.json").write_text(json.dumps(content))
        (tmp_path / "study" / f"step33.seed{seed}.json").write_text("that of another recipe")
    records = utils.load_records("study", "step3", tmp_path)
    assert list(records) == [0, 2, 10]
    assert records[2] == record([9_942] * 5, seed=2)


def test_missing_records_are_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=f"no records of step3 in {tmp_path}/ladder.*python -m lab study ladder"
    ):
        utils.load_records("ladder", "step3", tmp_path)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository with the records of two recipes, in which the tests stand."""
    monkeypatch.chdir(tmp_path)
    for recipe, runs in {"first": seeds([9_900] * 5, [9_910] * 5), "second": seeds([9_940] * 5, [9_960] * 5)}.items():
        for seed, run in runs.items():
            utils.write_json(utils.RECORDS / "study" / f"{recipe}.seed{seed}.json", {"history": vars(run)})


@pytest.mark.usefixtures("recorded")
def test_recorded_runs_are_shown_as_the_tables_of_their_records():
    first, second = (utils.load_records("study", recipe) for recipe in ("first", "second"))
    assert utils.recorded_seeds("study", "first") == utils.seeds_table(first)
    rows = {"one": (models.Model_2(), "study/first"), "two": (models.Model_2(), "study/second")}
    assert utils.recorded_ladder(rows) == utils.ladder_table({"one": first, "two": second})


@pytest.mark.usefixtures("recorded")
def test_where_there_are_no_records_a_sentence_says_how_to_get_them():
    sentences = utils.recorded_seeds("study", "third"), utils.recorded_ladder({"x": (linear(), "study/third")})
    assert all("no records of third" in sentence and "python -m lab study study" in sentence for sentence in sentences)


@pytest.mark.usefixtures("recorded")
def test_records_of_a_network_of_another_size_are_not_shown_beside_it():
    with pytest.raises(ValueError, match="study/first has records of 7,450 parameters, 'x' is a network of 6,754"):
        utils.recorded_ladder({"x": (models.Model_1(), "study/first")})


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def images_of(figure: plt.Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def titles_of(figure: plt.Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.images]


@pytest.fixture
def no_figure_left_open() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


pictured = pytest.mark.usefixtures("no_figure_left_open")


@pictured
@pytest.mark.parametrize("count, shown", [(20, 20), (3, 3), (100, 25)])
def test_samples_are_the_first_images_with_their_labels(count, shown):
    digits = some_digits(25)
    figure = utils.show_samples(digits, count)
    assert titles_of(figure) == [str(i % 10) for i in range(shown)]
    assert all(np.array_equal(image, digits.images[i]) for i, image in enumerate(images_of(figure)))
    assert figure.get_suptitle() == "Training images"


@pictured
def test_an_augmented_image_is_different_each_time():
    digits = some_digits(5)
    figure = utils.show_augmented(digits, make_transform({"rotation": 10}), index=3, times=12)
    images = images_of(figure)
    assert len(images) == 12 and len({image.tobytes() for image in images}) == 12
    assert figure.get_suptitle() == "One 3, 12 times"


@pictured
def test_an_image_that_is_not_augmented_is_the_same_each_time():
    digits = some_digits(5)
    images = images_of(utils.show_augmented(digits, make_transform(), index=2))
    assert len(images) == 20 and len({image.tobytes() for image in images}) == 1
    np.testing.assert_allclose(images[0], (digits.images[2] / 255 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)


def brightness_says_zero() -> nn.Sequential:
    """Always says 0, and is the surer the brighter the image."""
    model = constant([3.0] + [0.0] * 9)
    with torch.no_grad():
        model[1].weight[0] = 1e-3
    return model


def test_mistakes_are_shown_the_surest_first(no_figure_left_open):
    brightness = torch.tensor([10, 200, 90, 255, 50, 120], dtype=torch.uint8)
    digits = Digits(brightness[:, None, None].expand(-1, 28, 28), torch.tensor([1, 0, 2, 3, 0, 4]), "MNIST")
    figure = utils.show_mistakes(brightness_says_zero(), digits, count=3)
    assert [image[0, 0] for image in images_of(figure)] == [255, 120, 90]
    assert [title.split("\n")[0] for title in titles_of(figure)] == ["3, said 0", "4, said 0", "2, said 0"]
    assert titles_of(figure)[0].endswith(" % sure")
    assert figure.get_suptitle() == "4 of 6 test images are wrong, the surest first"


def test_a_network_that_makes_no_mistake_has_none_to_show(no_figure_left_open):
    digits = Digits(torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.long), "MNIST")
    figure = utils.show_mistakes(brightness_says_zero(), digits)
    assert images_of(figure) == []
    assert figure.get_suptitle().startswith("0 of 3 test images are wrong")


def dotted(axes: plt.Axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == ":"]


@pictured
def test_curves_show_every_epoch_the_target_and_the_changes_of_the_rate():
    history = record([9_900, 9_930, 9_940, 9_941, 9_942], learning_rate=[0.1, 0.1, 0.01, 0.01, 0.001])
    accuracy, loss = utils.show_curves(history).axes
    assert [list(line.get_xdata()) for line in accuracy.lines[:2]] == [[1, 2, 3, 4, 5]] * 2
    assert list(accuracy.lines[0].get_ydata()) == history.train_accuracy
    assert list(accuracy.lines[1].get_ydata()) == history.test_accuracy
    assert list(loss.lines[0].get_ydata()) == history.train_loss
    assert list(loss.lines[1].get_ydata()) == history.test_loss
    assert targets(accuracy) == [99.4] and targets(loss) == []
    for axes in (accuracy, loss):
        assert dotted(axes) == [2.5, 4.5]
        assert [text.get_text().strip() for text in axes.texts] == ["rate 0.01", "rate 0.001"]


def targets(axes: plt.Axes) -> list[float]:
    return [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]


@pictured
def test_a_constant_rate_is_not_marked():
    assert [dotted(axes) for axes in utils.show_curves(record([9_900] * 3)).axes] == [[], []]


@pictured
def test_pictures_of_the_stand_in_say_that_it_is_not_mnist_and_draw_no_target(stand_in):
    digits = stand_in[1]
    curves = utils.show_curves(record([300, 310], dataset=digits.dataset, test_images=360))
    assert [targets(axes) for axes in curves.axes] == [[], []]
    pictures = (
        utils.show_samples(digits, 5),
        utils.show_augmented(digits, make_transform(), times=5),
        utils.show_mistakes(linear(), digits, 5),
    )
    titles = [figure.get_suptitle() for figure in pictures] + [axes.get_title() for axes in curves.axes]
    assert len(titles) == 5 and all("not MNIST" in title for title in titles)


@pictured
@pytest.mark.parametrize("epochs", [0, 1])
def test_curves_of_a_run_that_hardly_began_can_be_drawn(epochs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = utils.show_curves(record([9_900] * epochs))
        figure.canvas.draw()
    assert len(figure.axes[0].lines[1].get_xdata()) == epochs
