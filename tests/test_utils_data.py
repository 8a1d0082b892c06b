"""Data: where MNIST is looked for, with damaged files, a real web server and processes that really die."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import CPU, leftovers, some_digits
from torchvision.datasets import MNIST

import utils
from utils import Digits, load_data

pytestmark = pytest.mark.usefixtures("alone", "small_mnist")

NAMES = [name for name, _ in MNIST.resources]
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES


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
    """It came from the files that the loader here takes for MNIST."""
    assert (train.dataset, test.dataset) == ("MNIST", "MNIST")
    assert (len(train), len(test)) == (4_000, 1_000)
    assert train.labels[:12].tolist() == test.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert train.images.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-3)


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
def test_a_single_mirror_that_fails_leads_to_the_sample_and_leaves_nothing(
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
        content[500] ^= 1  # a digit's label or pixel, in a file that torchvision would read without complaint
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


def load_from(mirror_url: str, root: Path, resources: list, checksums: dict) -> None:
    """In a process of its own."""
    MNIST.mirrors, MNIST.resources, utils.MNIST_MD5 = [mirror_url], resources, checksums
    os.environ["no_proxy"] = "127.0.0.1"
    os.environ.pop("MNIST_ARCHIVES", None)
    load_data(CPU, root)


def test_a_process_killed_in_the_middle_of_a_download_leaves_no_half_archive(
    raw_without_test_labels, mirror, processes, monkeypatch
):
    arguments = (mirror.url("stalls"), raw_without_test_labels.parents[1], MNIST.resources, utils.MNIST_MD5)
    process = processes.Process(target=load_from, args=arguments)
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
# Data: the sample
# ---------------------------------------------------------------------------------------------------------------------


def assert_is_sample(train: Digits, test: Digits) -> None:
    assert train.dataset == test.dataset == "5,000-image sample of MNIST"
    for part, of_each in ((train, 400), (test, 100)):
        assert part.images.shape[1:] == (28, 28) and part.images.dtype == torch.uint8
        assert part.labels.bincount().tolist() == [of_each] * 10


def test_without_mnist_the_sample_takes_its_place_and_says_so_once(tmp_path, capsys):
    assert_is_sample(*load_data(CPU, tmp_path))
    said = capsys.readouterr().out
    assert said.startswith("MNIST is not here: train-images-idx3-ubyte.gz is neither in")
    assert said.count("THIS IS A 5,000-IMAGE SAMPLE OF MNIST: 4,000 images to train on, 1,000 to test on.") == 1
    assert leftovers(tmp_path) == []


def test_the_sample_can_be_asked_for_and_then_nobody_else_is(tmp_path, mirror, monkeypatch, capsys):
    monkeypatch.setenv("SESSION7_DATASET", "sample")
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url("good")])
    assert_is_sample(*load_data(CPU, tmp_path))
    assert "THIS IS A 5,000-IMAGE SAMPLE" in capsys.readouterr().out
    assert mirror.asked == []


def test_no_image_of_the_sample_is_in_both_of_its_parts(sample):
    train, test = ({image.numpy().tobytes() for image in part.images} for part in sample)
    assert len(train) + len(test) == 5_000 and not train & test


def test_asking_for_mnist_makes_its_absence_an_error_that_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("SESSION7_DATASET", "mnist")
    with pytest.raises(RuntimeError) as error:
        load_data(CPU, tmp_path)
    for expected in (*NAMES, str(tmp_path / "MNIST" / "raw"), "MNIST_ARCHIVES"):
        assert expected in str(error.value)


def test_an_unknown_dataset_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SESSION7_DATASET", "cifar")
    with pytest.raises(ValueError, match="SESSION7_DATASET is 'cifar', expected 'mnist', 'sample' or nothing"):
        load_data(CPU, tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Digits
# ---------------------------------------------------------------------------------------------------------------------


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
