"""A class's drawings, as the app exports them, as a test set."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import command
from PIL import Image

from lab.reports.classroom import read_class
from lab.runs.checkpoint import load_model
from lab.runs.recipes import Recipe
from lab.runs.train import predict, run

SMALL = Recipe("LeNet", epochs=2, batch_size=20, learning_rate=0.02, optimizer="adam")
HEADER = ["id", "drawn_at", "network", "prediction", "confidence", "truth", "image"]


@pytest.fixture
def checkpoint(few):
    run(SMALL, 0, show=False, folder=Path("runs/lenet/0"), name="lenet")
    return Path("runs/lenet/0/model.pt")


def write_class(folder, images, truths, header=HEADER):
    """Write a class as the app exports it. `truths`: a digit or "", one per image."""
    (folder / "images").mkdir(parents=True)
    with (folder / "drawings.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(header)
        for number, (image, truth) in enumerate(zip(images, truths)):
            name = f"images/{number}.png" if image is not None else ""
            if image is not None:
                Image.fromarray(image).save(folder / name)
            row = dict(zip(HEADER, [number, "2026-01-01T00:00:00+00:00", "step3, seed 1", 1, 0.5, truth, name]))
            rows.writerow([row.get(column, "") for column in header])


def test_a_class_is_a_test_set(checkpoint, few, monkeypatch, capsys):
    """Of 40 drawings, one has no image and one no truth: the accuracy is that of the other 38, with its interval."""
    images, labels = few[1].images[:40].numpy(), few[1].labels[:40].tolist()
    write_class(Path("class-1"), [None, *images[1:]], [*labels[:-1], ""])
    assert command(monkeypatch, "test", checkpoint, "class-1") == 0
    out = checkpoint.parent / "class-1"
    content, text = json.loads((out / "metrics.json").read_text()), (out / "metrics.txt").read_text()
    loaded = load_model(checkpoint)
    said = predict(loaded.model, loaded.recipe, few[1][1:39]).argmax(1)
    right = int((said == few[1].labels[1:39]).sum())
    assert (content["images"], content["left_out"]) == (38, 2)
    assert content["accuracy"] == pytest.approx(100 * right / 38)
    low, high = content["accuracy_interval"]
    assert low < content["accuracy"] < high
    assert sum(map(sum, content["confusion_matrix"])) == 38 and len(content["mistakes"]) == 38 - right > 0
    for mistake in content["mistakes"]:
        index = int(mistake["id"])
        assert (mistake["truth"], mistake["answer"]) == (labels[index], int(said[index - 1]))
    assert f"95 % interval {low:.2f} to {high:.2f} %" in text and f"{38 - right} of 38 drawings of class-1" in text
    assert text in capsys.readouterr().out
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100


def test_digits_that_nobody_drew_have_no_part_in_the_means(checkpoint, few, monkeypatch, capsys):
    drawn = (few[1].labels == 3) | (few[1].labels == 5)
    images, labels = few[1].images[drawn], few[1].labels[drawn]
    write_class(Path("class-1"), images.numpy(), labels.tolist())
    assert command(monkeypatch, "test", checkpoint, "class-1") == 0
    folder = checkpoint.parent / "class-1"
    content, text = json.loads((folder / "metrics.json").read_text()), (folder / "metrics.txt").read_text()
    loaded = load_model(checkpoint)
    said = predict(loaded.model, loaded.recipe, few[1][drawn]).argmax(1)
    recalls = {digit: 100 * float((said[labels == digit] == digit).float().mean()) for digit in (3, 5)}
    assert {int(digit): row["recall"] for digit, row in content["digits"].items()} == pytest.approx(recalls)
    assert content["recall"] == pytest.approx(sum(recalls.values()) / 2) and content["recall"] > 0
    assert [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0].isdigit()] == [
        "3",
        "5",
    ]


def test_the_interval_is_that_of_clopper_and_pearson(checkpoint, few, monkeypatch, capsys):
    """10 of 10 right: from 69.15 %, as in tables."""
    loaded = load_model(checkpoint)
    said = predict(loaded.model, loaded.recipe, few[1][:10]).argmax(1).tolist()
    write_class(Path("ten"), few[1].images[:10].numpy(), said)
    assert command(monkeypatch, "test", checkpoint, "ten") == 0
    assert "accuracy 100.00 %, 95 % interval 69.15 to 100.00 %" in capsys.readouterr().out


def test_the_images_are_read_as_they_are(few):
    images = few[1].images[:3].numpy()
    write_class(Path("class-1"), images, [1, 2, 3])
    drawings = read_class(Path("class-1"))
    assert np.array_equal(drawings.digits.images.numpy(), images)
    assert torch.equal(drawings.digits.labels, torch.tensor([1, 2, 3])) and drawings.ids == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "drawings.csv").unlink(), "there is no class-1/drawings.csv, expected the unpacked"),
        (
            lambda folder: (folder / "drawings.csv").write_text("id,image\n"),
            "class-1/drawings.csv has no column truth, expected the unpacked",
        ),
        (lambda folder: (folder / "drawings.csv").write_bytes(b"\xff\xfe"), "class-1/drawings.csv is not a CSV file"),
        (lambda folder: (folder / "images/1.png").unlink(), "there is no image class-1/images/1.png, expected"),
        (lambda folder: (folder / "images/1.png").write_bytes(b"PNG"), "class-1/images/1.png cannot be read, expected"),
        (
            lambda folder: Image.new("L", (20, 28)).save(folder / "images/1.png"),
            "class-1/images/1.png has 28 x 20 values of uint8, expected a PNG of 28 x 28 gray pixels",
        ),
        (
            lambda folder: Image.new("RGB", (28, 28)).save(folder / "images/1.png"),
            "class-1/images/1.png has 28 x 28 x 3 values of uint8, expected",
        ),
        (
            lambda folder: (folder / "drawings.csv").write_text("id,truth,image\na,12,images/1.png\n"),
            "class-1/drawings.csv: the truth of a is '12', expected a digit from 0 to 9",
        ),
        (
            lambda folder: (folder / "drawings.csv").write_text("id,truth,image\na,,images/1.png\n"),
            "class-1/drawings.csv has no drawing with a truth and an image, expected at least one",
        ),
    ],
)
def test_a_spoiled_folder_is_refused_in_one_sentence(few, monkeypatch, capsys, spoil, complaint):
    write_class(Path("class-1"), few[1].images[:2].numpy(), [1, 2])
    spoil(Path("class-1"))
    assert command(monkeypatch, "test", "model.pt", "class-1") == 2
    said = capsys.readouterr()
    assert said.err.startswith(complaint) and said.err.count("\n") == 1 and not said.out


def test_a_folder_stands_alone(few, monkeypatch, capsys):
    Path("class-1").mkdir()
    assert command(monkeypatch, "test", "model.pt", "class-1", "seven.png") == 2
    assert capsys.readouterr().err == (
        "class-1 is a folder, expected either pictures, or the folder of one class alone\n"
    )
