"""Evaluate a trained network on the drawings of a class, as the app exports them."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from scipy.stats import binomtest

import utils
from lab.evidence.figures import save
from lab.evidence.places import expect_folder
from lab.reports.analysis import DIGITS, metrics, score_table, show_confusion
from lab.reports.errors import show_wrong
from lab.runs.checkpoint import load_model
from lab.runs.train import evaluate, predict

TABLE = "drawings.csv"
COLUMNS = ("id", "truth", "image")  # those needed here
EXPECTED = f"expected the unpacked folder of a class, with {TABLE} and images/"


class ClassDrawings(NamedTuple):
    """The drawings of a class that can test a network: those with a known truth and an image."""

    digits: utils.Digits
    ids: list[str]  # of these drawings, in the same order
    left_out: int  # drawings without a truth or an image


def read_class(folder: Path) -> ClassDrawings:
    """Read the folder that the app exports for a class: `drawings.csv`, and one PNG of 28 x 28 pixels per drawing.

    Raises FileNotFoundError if the table or an image is missing, and ValueError if the table has other columns, a truth
    is no digit, an image is not like MNIST's, or no drawing has both a truth and an image.
    """
    rows = list(_rows(folder / TABLE))
    usable = [row for row in rows if row["truth"] and row["image"]]
    if not usable:
        raise ValueError(f"{folder / TABLE} has no drawing with a truth and an image, expected at least one")
    labels = torch.tensor([_truth(row, folder) for row in usable])
    images = torch.from_numpy(np.stack([_read_image(folder / row["image"]) for row in usable]))
    digits = utils.Digits(images, labels, f"drawings of {folder.resolve().name}")
    return ClassDrawings(digits, [row["id"] for row in usable], len(rows) - len(usable))


def _rows(table: Path) -> Iterator[dict[str, str]]:
    if not table.is_file():
        raise FileNotFoundError(f"there is no {table}, {EXPECTED}")
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restval="")
        try:
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{table} has no column {' and no column '.join(missing)}, {EXPECTED}")
            yield from reader
        except (csv.Error, UnicodeDecodeError):
            raise ValueError(f"{table} is not a CSV file in UTF-8, {EXPECTED}") from None


def _truth(row: dict[str, str], folder: Path) -> int:
    if row["truth"] not in map(str, DIGITS):
        raise ValueError(
            f"{folder / TABLE}: the truth of {row['id']} is {row['truth']!r}, expected a digit from 0 to 9"
        )
    return int(row["truth"])


def _read_image(path: Path) -> np.ndarray:
    """Read an image that is like MNIST's already, unlike the photos that `pictures.read_image` prepares."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no image {path}, {EXPECTED}")
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
    except (UnidentifiedImageError, OSError):
        raise ValueError(f"{path} cannot be read, expected a PNG of 28 x 28 gray pixels") from None
    if pixels.shape != (28, 28) or pixels.dtype != np.uint8:
        shape = " x ".join(map(str, pixels.shape))
        raise ValueError(f"{path} has {shape} values of {pixels.dtype}, expected a PNG of 28 x 28 gray pixels")
    return pixels


def evaluate_on_class(checkpoint: Path, folder: Path) -> str:
    """Evaluate a checkpoint on the drawings of a class, and return the report as text.

    Writes `metrics.json`, the report as `metrics.txt`, `confusion.png` and `mistakes.png` to a folder beside the
    checkpoint, named after the class's. The 95 % interval of the accuracy is that of Clopper and Pearson; it takes
    drawings as independent, which several by one student are not. Raises what `read_class` and `load_model` raise.
    """
    drawings = read_class(folder)
    loaded = load_model(checkpoint)
    out = checkpoint.parent / folder.resolve().name
    expect_folder(out)
    digits = drawings.digits.to(utils.pick_device())
    tested = evaluate(predict(loaded.model, loaded.recipe, digits), digits.labels)
    wrong = len(tested.mistakes)
    interval = binomtest(tested.images - wrong, tested.images).proportion_ci(0.95, "exact")
    low, high = 100 * float(interval.low), 100 * float(interval.high)
    title = f"{loaded.name}, seed {loaded.seed}: {wrong} of {tested.images:,} {digits.dataset} are wrong"
    save(show_confusion(digits.labels, tested, title), out / "confusion.png")
    save(show_wrong(digits, {loaded.name: tested}, title), out / "mistakes.png")
    run = {"name": loaded.name, "seed": loaded.seed, "epoch": loaded.epoch, "dataset": digits.dataset}
    scores = metrics(digits.labels, tested) | {
        "accuracy_interval": [low, high],
        "left_out": drawings.left_out,
        "mistakes": [
            {"id": drawings.ids[index], "truth": truth, "answer": said} for index, truth, said in tested.mistakes
        ],
    }
    utils.write_json(out / "metrics.json", run | {"unit": "percent"} | scores)
    text = f"{title}\naccuracy {tested.accuracy:.2f} %, 95 % interval {low:.2f} to {high:.2f} %\n"
    text += f"left out, without a truth or an image: {drawings.left_out}\n" * bool(drawings.left_out)
    text += f"\n{score_table(digits.labels, tested)}"
    with utils.whole_or_not_at_all(out / "metrics.txt") as unfinished:
        unfinished.write_text(text)
    return f"{text}\nmetrics.json, metrics.txt, confusion.png and mistakes.png are in {out}"
