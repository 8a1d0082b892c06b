"""Checkpoints: what a run leaves after an epoch, to be tested or to go on from.

There is one format: what `torch.save` makes of the dictionary in `save`, and its checksum at the end of the same file.
`model.pt` has the weights that a run keeps; `resume.pt` has those of its last epoch, and all else that decides the rest.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import utils
from lab.evidence.records import LATER, Extent, extent
from lab.runs.recipes import Recipe


class Loaded(NamedTuple):
    """The network of a checkpoint with its weights, and which run it is of, after which epoch."""

    model: nn.Module
    recipe: Recipe
    name: str
    seed: int
    epoch: int
    extent: Extent | None  # None for a checkpoint from before it was kept
    state: dict[str, Any] | None  # what a run goes on from; None in model.pt


class Training(NamedTuple):
    """What changes while a run trains, besides its history, and what it is a run of: see `description`."""

    run: Mapping[str, Any]
    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler


# ---------------------------------------------------------------------------------------------------------------------
# Which run
# ---------------------------------------------------------------------------------------------------------------------


def description(recipe: Recipe, seed: int, model: nn.Module | None = None, **data: Any) -> dict[str, Any]:
    """What makes a run this run and no other: seed, recipe and, where they are known, the network's layers and the data.

    Epochs count only where something else depends on their number; otherwise a run may be asked for more of them later.
    """
    run = {"seed": seed} | asdict(recipe)
    if recipe.schedule == "step" and not recipe.plain_epochs:
        del run["epochs"]
    return run | ({"layers": str(model)} if model else {}) | data


def expect_same_run(place: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise ValueError, naming what differs, if what is at `place` is of another run than this one.

    A field that is younger than the run had its default.
    """
    there = {**LATER, **there}
    for what, value in here.items():
        if there.get(what) != value:
            raise ValueError(
                f"{place} has a run with {what} {there.get(what)!r}, where {value!r} is asked for: give another --folder"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def save(
    path: Path, training: Training, recipe: Recipe, name: str, history: utils.History, epoch: int, resumable: bool
) -> None:
    """Write a checkpoint with the model's weights, which are those after `epoch`; whole or not at all.

    `resumable` adds what the run goes on from.
    """
    content = {
        "name": name,
        "recipe": asdict(recipe),
        "seed": history.seed,
        "epoch": epoch,
        "extent": asdict(extent(history)),
        "model": training.model.state_dict(),
    }
    if resumable:
        content["state"] = {
            "run": dict(training.run),
            "optimizer": training.optimizer.state_dict(),
            "scheduler": training.scheduler.state_dict(),
            "history": asdict(history),
            "generators": {name: generator.get_rng_state() for name, generator in _generators(training.model).items()},
        }
    write_sealed(content, path)


SEAL = b"sha256:"  # a sealed file ends with this and the SHA-256 of all before it, as 64 hexadecimal digits
ZIP_END = 22  # bytes that end a file as `torch.save` alone leaves it, a zip archive


def write_sealed(content: Mapping[str, Any], path: Path) -> None:
    """Write what `torch.save` makes, and its checksum at the end of the same file, which `torch.load` ignores.

    Whatever the moment the process is killed at, the file is whole or not there; two files could be of different epochs.
    """
    saved = io.BytesIO()  # where the disk is full, torch's own message says nothing useful
    torch.save(content, saved)
    with utils.whole_or_not_at_all(path) as unfinished, unfinished.open("wb") as file:
        file.write(saved.getbuffer())
        file.write(_seal(saved.getbuffer()))


def _seal(content: bytes | memoryview) -> bytes:
    return SEAL + hashlib.sha256(content).hexdigest().encode()


def _generators(model: nn.Module) -> dict[str, Any]:
    """The modules with PyTorch's generators that the run draws from, by the type of device."""
    device = next(model.parameters()).device.type
    return {"cpu": torch} if device == "cpu" else {"cpu": torch, device: getattr(torch, device)}


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def load_model(path: str | Path) -> Loaded:
    """Read a checkpoint. Nothing in the file is executed.

    Raises FileNotFoundError for a missing file, and ValueError for one that no run has written, that was altered since,
    or that has weights that are NaN or infinite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}, expected the model.pt of a run of `python -m lab train`"
        )
    try:
        content = _read_sealed(Path(path))
        recipe = Recipe(**content["recipe"])
        model = recipe.make_network()
        model.load_state_dict(content["model"])
        ran = Extent(**content["extent"]) if "extent" in content else None
        state = content.get("state")
        if state is not None:
            state = {part: state[part] for part in ("run", "optimizer", "scheduler", "history", "generators")}
        about = recipe, content["name"], content["seed"], content["epoch"], ran, state
        loaded = Loaded(model.to(utils.pick_device()), *about)
    except Exception:  # noqa: BLE001 (random bytes make torch.load raise nearly anything)
        raise ValueError(
            f"{path} is not a checkpoint that `python -m lab train` has written, or was altered since, "
            "expected a run's model.pt"
        ) from None
    for name, tensor in content["model"].items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path} holds NaN or infinite values in {name}, expected finite weights")
    return loaded


def _read_sealed(path: Path) -> Any:
    """What `write_sealed` wrote. A file from before there were checksums must match those of a zip archive's parts."""
    content = path.read_bytes()
    if content[-ZIP_END:].startswith(b"PK\5\6"):
        intact = zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    else:
        seal = content[-len(_seal(b"")) :]
        content = content[: -len(seal)]
        intact = seal == _seal(content)
    if not intact:
        raise ValueError("it was altered since it was written")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def resume(path: Path, training: Training) -> utils.History:
    """Bring model, optimizer, scheduler and PyTorch's generators to where a checkpoint left them; return its history.

    Raises as `load_model`, and ValueError for the checkpoint of another run, or one that cannot be resumed.
    """
    loaded = load_model(path)
    if loaded.state is None:
        raise ValueError(f"{path} has the weights of a run but not what it goes on from, expected a resume.pt")
    expect_same_run(path, loaded.state["run"], training.run)
    training.model.load_state_dict(loaded.model.state_dict())
    training.optimizer.load_state_dict(loaded.state["optimizer"])
    training.scheduler.load_state_dict(loaded.state["scheduler"])
    for name, generator in _generators(training.model).items():
        generator.set_rng_state(loaded.state["generators"][name])
    history = utils.History(**loaded.state["history"])
    device = next(training.model.parameters()).device
    history.environment = utils.environment(device, loaded.recipe.bfloat16)  # of the machine that ends the run
    return history
