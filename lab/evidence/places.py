"""Where evidence is kept, and what may be written there; folders that can be written to."""

import os
import tempfile
from pathlib import Path

import torch

import utils

RESULTS = Path(__file__).parents[1] / "results"
RECORDS = RESULTS / "records"
APP_NETWORK = Path(__file__).parents[2] / "app" / "step3.onnx"
APP_COMPARED = APP_NETWORK.with_name("step1.onnx")  # that the app shows beside it
APP_DOUBT = APP_NETWORK.with_name("doubt.onnx")


def is_evidence(path: Path) -> bool:
    """Whether a path is, or would be, one of the repository's results, its executed notebooks, or the app's networks."""
    resolved, repository = path.resolve(), RESULTS.resolve().parent.parent
    if resolved.suffix == ".ipynb":
        return resolved.parent in (repository, repository / "lab")
    return resolved in [own.resolve() for own in (APP_NETWORK, APP_COMPARED, APP_DOUBT)] or RESULTS.resolve() in (
        resolved,
        *resolved.parents,
    )


def refuse_evidence(path: Path, instead: str, data: bool = True) -> None:
    """Raise ValueError if `path` is evidence and what runs here is not the full run on all of MNIST.

    To be called before anything runs or is written. `instead` says what to do; `data=False` leaves MNIST where it is, for
    a command that reads records alone.
    """
    if not is_evidence(path):
        return
    why = ""
    for name in ("SESSION7_SHORT", "SESSION7_DATASET"):
        if os.environ.get(name) not in (None, "", "mnist"):
            why = f"{name}={os.environ[name]} is set"
    if data and not why:
        dataset = utils.load_data(torch.device("cpu"))[0].dataset
        why = "" if dataset == "MNIST" else f"the data is a {dataset}"
    if why:
        raise ValueError(f"{path} is for what ran in full on all of MNIST, and {why}: {instead}")


def expect_folder(folder: Path) -> None:
    """Raise where no file can be written into a folder, which need not be there yet: before a run, not after it.

    Raises ValueError for a file that stands in its way, and OSError for a place that is read-only or full.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, expected a folder")
    with tempfile.TemporaryFile(dir=there) as probe:
        probe.write(bytes(4096))
