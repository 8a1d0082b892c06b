"""Checkpoints: runs that really die, files that are something else, runs that are others."""

import copy
import json
import math
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import but_for_seconds, command, leftovers, linear, same_weights, some_digits
from torch import Tensor, nn

import utils
from lab.evidence.records import Trained
from lab.runs import checkpoint
from lab.runs import train as training
from lab.runs.checkpoint import load_model
from lab.runs.networks import LeNet
from lab.runs.recipes import Recipe
from lab.runs.train import run
from utils import Digits, History, Loader

pytestmark = pytest.mark.usefixtures("alone")

ROOT = Path(__file__).parent.parent
TINY = Recipe(  # all that draws from a generator, in a network that trains in no time
    "Model_2",
    {"channels": (4, 4, 6), "capacity": 0, "dropout": 0.1},
    {"rotation": 10},
    epochs=4,
    batch_size=32,
    learning_rate=0.1,
    step_size=2,
    gamma=0.5,
)
LENET = Recipe("LeNet", epochs=2, batch_size=50, learning_rate=0.02, optimizer="adam")
# it validates, and soon runs out of patience
IMPATIENT = replace(LENET, epochs=6, batch_size=20, validation=0.2, patience=2)


# ---------------------------------------------------------------------------------------------------------------------
# A run that dies
# ---------------------------------------------------------------------------------------------------------------------


def run_and_report(folder: Path, images: np.ndarray, labels: np.ndarray, heartbeat) -> None:
    """In a process of its own: four epochs of eight batches. After each, it says so and waits for the parent's word."""

    class Beating(Loader):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().__iter__():
                yield batch
                if self.shuffle:  # as only the training images are
                    heartbeat.send_bytes(b"batch")
                    heartbeat.recv_bytes()

    digits = Digits(torch.from_numpy(images), torch.from_numpy(labels), "digits")
    utils.Loader, utils.load_data = Beating, lambda device: (digits[:250], digits[250:])
    torch.set_num_threads(1)
    run(TINY, seed=0, show=False, folder=folder)


def live(processes, digits: Digits, folder: Path, batches: int | None = None, seconds: float = 0.0) -> int:
    """Let a run live for this many batches and seconds, or to its end; return its exit code."""
    ours, its = multiprocessing.Pipe()
    arguments = folder, digits.images.numpy(), digits.labels.numpy(), its
    process = processes.Process(target=run_and_report, args=arguments)
    process.start()
    its.close()
    try:
        for _ in range(batches or sys.maxsize):
            ours.recv_bytes()
            ours.send_bytes(b"go on")
        time.sleep(seconds)
        process.kill()
    except EOFError:
        pass  # it ended before
    process.join()
    return process.exitcode


def test_a_run_killed_again_and_again_ends_in_the_bits_of_one_never_stopped(sample, processes, tmp_path):
    digits, whole, torn = sample[0][:300], tmp_path / "whole", tmp_path / "torn"
    assert live(processes, digits, whole) == 0

    moments = random.Random(7)
    deaths, seen_epochs = 0, set()
    while live(processes, digits, torn, moments.randint(1, 14), moments.uniform(0, 0.02)) != 0:
        deaths += 1
        if (torn / "resume.pt").exists():  # whatever the moment of death, it is whole
            seen_epochs.add(load_model(torn / "resume.pt").epoch)
        assert deaths < 50
    assert deaths >= 3 and len(seen_epochs) >= 2
    assert contents(torn) == contents(whole)
    assert len(History.load(torn / "history.json").seconds) == 4


def contents(folder: Path) -> tuple:
    """What a run left, but the seconds that it took."""
    history = json.loads((folder / "history.json").read_text()) | {"seconds": None}
    log = [
        line.rsplit(maxsplit=1)[0] if line[:5].strip().isdigit() else line
        for line in (folder / "log.txt").read_text().splitlines()
    ]
    kept = torch.load(folder / "model.pt", weights_only=True)
    weights = {name: tensor.tolist() for name, tensor in kept.pop("model").items()}
    return history, log, kept, weights, (folder / "config.yaml").read_text()


@pytest.mark.slow
def test_a_killed_command_leaves_a_run_that_goes_on(tmp_path):
    """`python -m lab train` in a process of its own, killed after its first epoch; the same command then ends it."""
    environment = os.environ | {"SESSION7_SHORT": "1", "SESSION7_DATASET": "sample", "PYTHONPATH": str(ROOT)}
    train = [sys.executable, "-m", "lab", "train", "lenet_3_batch_64", "--epochs", "2", "--folder"]
    quiet = {"cwd": tmp_path, "env": environment, "stderr": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*train, "parts"], **quiet)
    while not (tmp_path / "parts/resume.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for folder in ("parts", "whole"):
        said = subprocess.run([*train, folder], check=True, **quiet).stdout
        assert "kept: epoch 2, the last one" in said and f"are in {folder}" in said
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert not leftovers(tmp_path / "whole")


def interrupted(monkeypatch, recipe: Recipe, after: int, folder: Path, seed: int = 1) -> None:
    """A run that ends in the worst place: the epoch's kept weights are written, and what to go on from is not."""
    save = checkpoint.save

    def save_or_die(path, training, recipe, name, history, epoch, resumable):
        if resumable and epoch == after:
            raise KeyboardInterrupt
        save(path, training, recipe, name, history, epoch, resumable)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, seed, show=False, folder=folder)


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_that_was_interrupted_goes_on_and_equals_one_that_was_not(few, monkeypatch, after):
    whole = run(IMPATIENT, seed=1, show=False, folder=Path("whole"))
    interrupted(monkeypatch, IMPATIENT, after, Path("parts"))
    parts = run(IMPATIENT, seed=1, show=False, folder=Path("parts"))
    assert (parts.epoch, parts.tested) == (whole.epoch, whole.tested)
    assert contents(Path("parts")) == contents(Path("whole"))
    again = run(IMPATIENT, seed=1, show=False, folder=Path("parts"))  # nothing is left to do
    assert again == parts


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adadelta", "schedule": "cosine"},
        {"optimizer": "sgd", "schedule": "one-cycle"},
        {"optimizer": "adam", "plain_epochs": 2},
        {"plain_epochs": 1, "bfloat16": False},
    ],
    ids=lambda changes: ", ".join(map(str, changes.values())),
)
def test_every_optimizer_and_schedule_goes_on_to_the_same_bits(few, monkeypatch, changes):
    recipe = replace(TINY, **changes)
    run(recipe, seed=1, show=False, folder=Path("whole"))
    interrupted(monkeypatch, recipe, 3, Path("parts"))
    run(recipe, seed=1, show=False, folder=Path("parts"))
    assert contents(Path("parts")) == contents(Path("whole"))


def test_a_checkpoint_is_whole_at_every_moment_of_its_being_written(few, monkeypatch):
    path, failures, reads, done = Path("run/resume.pt"), [], [], threading.Event()
    save = checkpoint.save

    def save_and_wait(*arguments) -> None:
        """The reader gets a turn between two checkpoints, however busy the machine is, and goes on during the next."""
        save(*arguments)
        before, end = len(reads), time.monotonic() + 60
        while path.exists() and len(reads) == before and not failures and time.monotonic() < end:
            time.sleep(0.001)

    def read_on() -> None:
        while not done.is_set():
            if path.exists():
                try:
                    reads.append(load_model(path).epoch)
                except ValueError as error:
                    failures.append(error)

    monkeypatch.setattr(checkpoint, "save", save_and_wait)
    reader = threading.Thread(target=read_on)
    reader.start()
    run(replace(LENET, epochs=20, batch_size=300), seed=0, show=False, folder=Path("run"))
    done.set()
    reader.join()
    assert failures == []
    assert len(set(reads)) > 3  # it was read while it changed


@pytest.mark.parametrize("stop", [1, 2])  # within a step of the scheduler, and at its end
def test_a_run_may_be_asked_for_more_epochs_later(few, stop):
    run(replace(TINY, epochs=stop), seed=0, show=False, folder=Path("parts"))
    run(TINY, seed=0, show=False, folder=Path("parts"))
    run(TINY, seed=0, show=False, folder=Path("whole"))
    assert contents(Path("parts")) == contents(Path("whole"))


@pytest.mark.parametrize("changes", [{"plain_epochs": 1}, {"schedule": "cosine"}])
def test_a_run_that_would_have_trained_otherwise_cannot_be_asked_for_more_epochs(few, changes):
    run(replace(TINY, **changes, epochs=2), seed=0, show=False, folder=Path("a"))
    with pytest.raises(ValueError, match="a has a run with epochs 2, where 4 is asked for: give another --folder"):
        run(replace(TINY, **changes), seed=0, show=False, folder=Path("a"))


def test_a_finished_run_is_not_trained_again(few):
    expected = run(TINY, seed=0, show=False, folder=Path("run"))
    written = Path("run/resume.pt").read_bytes()
    assert run(TINY, seed=0, show=False, folder=Path("run")) == expected
    assert Path("run/resume.pt").read_bytes() == written
    assert leftovers(Path("run")) == []


def test_a_checkpoint_does_not_change_a_run(few):
    alone, kept = (run(TINY, seed=0, show=False, folder=folder) for folder in (None, Path("new folder/run")))
    assert but_for_seconds(alone.history) == but_for_seconds(kept.history)
    assert alone.tested == kept.tested


# ---------------------------------------------------------------------------------------------------------------------
# A file that is something else
# ---------------------------------------------------------------------------------------------------------------------


class Command:
    """Executes code when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def written(tmp_path) -> tuple[Path, checkpoint.Training]:
    """A checkpoint of LeNet after one epoch, and what it was written from."""
    model, optimizer, scheduler = a_network(0)
    made = checkpoint.Training(checkpoint.description(LENET, 0, model), model, optimizer, scheduler)
    path = tmp_path / "resume.pt"
    checkpoint.save(path, made, LENET, "lenet", a_history(1), epoch=1, resumable=True)
    return path, made


def a_network(seed: int) -> tuple:
    torch.manual_seed(seed)
    model = LENET.make_network()
    optimizer = training.make_optimizer(LENET, model)
    return model, optimizer, training.make_scheduler(LENET, optimizer)


def a_history(epochs: int) -> History:
    measured = {"learning_rate": [0.1] * epochs, "test_correct": [9] * epochs, "test_loss": [0.5] * epochs}
    return History("digits", 100, 10, 5, 0, {}, **measured)


def assert_refused(path: Path, error: type[Exception] = ValueError, sentence: str = "is not a checkpoint") -> None:
    with pytest.raises(error) as caught:
        load_model(path)
    said = str(caught.value)
    assert str(path) in said and sentence in said and "\n" not in said


def test_a_missing_checkpoint_is_named(tmp_path):
    assert_refused(tmp_path / "none.pt", FileNotFoundError, "there is no checkpoint")


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"\x80", bytes(1_000)], ids=["empty", "text", "stub", "0"]
)
def test_a_file_of_other_content_is_no_checkpoint(tmp_path, content):
    (tmp_path / "run.pt").write_bytes(content)
    assert_refused(tmp_path / "run.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_random_bytes_are_no_checkpoint_whatever_they_are(tmp_path):
    path, chance = tmp_path / "run.pt", random.Random(0)
    for _ in range(300):
        path.write_bytes(chance.randbytes(chance.randint(1, 300)))
        assert_refused(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(written, keep):
    path, _ = written
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert_refused(path)


def flip(path: Path, place: float) -> bytes:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)
    return bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.9, 0.99, 0.9999])
def test_a_flipped_byte_is_noticed_wherever_it_is(written, place):
    path, made = written
    before, content = copy.deepcopy(made.model.state_dict()), flip(path, place)
    assert_refused(path, sentence="is not a checkpoint that `python -m lab train` has written, or was altered since")
    with pytest.raises(ValueError, match="was altered"):
        checkpoint.resume(path, made)
    assert path.read_bytes() == content and same_weights(before, made.model.state_dict())


@pytest.mark.parametrize("file", ["model.pt", "resume.pt"])
def test_a_flipped_byte_in_a_runs_folder_is_one_sentence(few, monkeypatch, capsys, file):
    run(LENET, seed=0, show=False, folder=Path("run"), name="lenet")
    content = flip(Path("run", file), 0.5)
    if file == "model.pt":
        assert command(monkeypatch, "test", "run/model.pt") == 2
        said = capsys.readouterr().err
        assert "or was altered since" in said and said.count("\n") == 1
    else:
        with pytest.raises(ValueError, match="resume.pt is not a checkpoint .* or was altered since"):
            run(LENET, seed=0, show=False, folder=Path("run"))
    assert Path("run", file).read_bytes() == content and not leftovers(Path())


def test_a_checkpoint_from_before_checksums_is_read_and_a_flipped_weight_in_it_noticed(written):
    path, made = written
    torch.save(torch.load(path, weights_only=True), path)
    assert same_weights(load_model(path).model.state_dict(), made.model.state_dict())
    flip(path, 0.5)
    assert_refused(path, sentence="was altered")


def test_a_checkpoint_from_before_it_said_what_it_was_trained_on_is_read(written):
    path, _ = written
    content = torch.load(path, weights_only=True)
    del content["extent"], content["state"]
    torch.save(content, path)
    assert (load_model(path).extent, load_model(path).state) == (None, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(written, value):
    path, made = written
    content = torch.load(path, weights_only=True)
    content["model"]["0.weight"].view(-1)[3] = value
    checkpoint.write_sealed(content, path)
    assert_refused(path, sentence="holds NaN or infinite values in 0.weight, expected finite weights")
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        checkpoint.resume(path, made)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("where", ["alone", "saved by torch", "beside good weights"])
def test_code_in_a_checkpoint_is_not_executed(written, tmp_path, where):
    path, _ = written
    harmful = Command(tmp_path / "executed")
    if where == "alone":
        path.write_bytes(pickle.dumps(harmful))
    else:
        content = torch.load(path, weights_only=True)
        torch.save(harmful if where == "saved by torch" else content | {"name": harmful}, path)
    assert_refused(path)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False) if where != "alone" else pickle.loads(path.read_bytes())
    assert (tmp_path / "executed").exists()  # the command works: it is the loader that did not run it


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize(
    "change",
    [
        lambda whole: torch.zeros(3),
        lambda whole: [1, 2],
        lambda whole: None,
        lambda whole: linear(),
        lambda whole: whole["model"],
        lambda whole: {"model": 1},
        lambda whole: {"model": whole["model"]},
        lambda whole: whole | {"model": {"weight": 1}},
        lambda whole: whole | {"model": linear().state_dict()},
        lambda whole: whole | {"recipe": {"network": "LeNt"}},
        lambda whole: whole | {"state": {"run": {}}},
    ],
    ids=[
        "tensor",
        "list",
        "none",
        "network",
        "weights",
        "number",
        "weights in a dictionary",
        "no tensors",
        "weights of another network",
        "recipe of no network",
        "half a state",
    ],
)
def test_what_other_code_saved_is_no_checkpoint(written, change):
    path, _ = written
    torch.save(change(torch.load(path, weights_only=True)), path)
    assert_refused(path)


def test_a_checkpoint_gives_its_weights_and_all_that_was_stored(written):
    path, made = written
    loaded = load_model(path)
    assert same_weights(loaded.model.state_dict(), made.model.state_dict())
    assert (loaded.recipe, loaded.name, loaded.seed, loaded.epoch) == (LENET, "lenet", 0, 1)
    assert loaded.state["history"] == asdict(a_history(1))


def test_what_is_tested_cannot_be_resumed(written):
    path, made = written
    checkpoint.save(path, made, LENET, "lenet", a_history(1), epoch=1, resumable=False)
    with pytest.raises(ValueError, match="has the weights of a run but not what it goes on from, expected a resume.pt"):
        checkpoint.resume(path, made)


# ---------------------------------------------------------------------------------------------------------------------
# The checkpoint of another run
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def once(sample, tmp_path_factory) -> Path:
    """The folder of one run of one epoch on few images; to be copied."""
    folder = tmp_path_factory.mktemp("once") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "load_data", lambda device: (sample[0][:300], sample[1][:200]))
        run(replace(TINY, epochs=1), seed=0, show=False, folder=folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"switches": {"channels": (4, 4, 6), "capacity": 0, "dropout": 0.2}},
        {"learning_rate": 0.2},
        {"momentum": 0.8},
        {"weight_decay": 1e-4},
        {"step_size": 3},
        {"gamma": 0.1},
        {"augmentation": {"rotation": 5}},
        {"batch_size": 40},
        {"bfloat16": False},
        {"validation": 0.2},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("config", [True, False])
def test_another_run_is_refused_and_its_folder_left_alone(few, once, change, config):
    """Also where only the checkpoint says whose the folder is."""
    shutil.copytree(once, "a")
    if not config:
        Path("a/config.yaml").unlink()
    before = {path.name: path.read_bytes() for path in Path("a").iterdir()}
    seed = change.get("seed", 0)
    recipe = replace(TINY, **{name: value for name, value in change.items() if name != "seed"})
    place = "a" if config else "a/resume.pt"
    with pytest.raises(ValueError, match=f"^{place} has a run with {next(iter(change))} .*, where .*") as error:
        run(recipe, seed, show=False, folder=Path("a"))
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in Path("a").iterdir()} == before


def test_a_refused_checkpoint_touches_nothing(written):
    path, _ = written
    model, optimizer, scheduler = a_network(1)
    before, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    other = checkpoint.description(LENET, 1, model)
    with pytest.raises(ValueError, match="has a run with seed 0, where 1 is asked for"):
        checkpoint.resume(path, checkpoint.Training(other, model, optimizer, scheduler))
    assert same_weights(before, model.state_dict()) and optimizer.state_dict() == state


def test_another_network_of_the_same_name_is_refused(few, monkeypatch):
    """Its code has changed since: the weights would fit."""
    run(replace(LENET, epochs=1), seed=0, show=False, folder=Path("a"))
    make = Recipe.make_network
    monkeypatch.setattr(Recipe, "make_network", lambda recipe: make(recipe).append(torch.nn.Identity()))
    with pytest.raises(ValueError, match="has a run with layers .*, where .*Identity.* is asked for"):
        run(LENET, seed=0, show=False, folder=Path("a"))


def test_another_network_with_the_same_layers_is_refused(few, monkeypatch):
    """What its `forward` calls has changed since."""
    run(replace(LENET, epochs=1), seed=0, show=False, folder=Path("a"))
    monkeypatch.setattr(LeNet, "forward", lambda model, images: 2 * nn.Sequential.forward(model, images))
    with pytest.raises(ValueError, match="has a run with fingerprint '.{10}', where '.{10}' is asked for"):
        run(LENET, seed=0, show=False, folder=Path("a"))


@pytest.mark.parametrize(
    ("digits", "complaint"),
    [
        ((some_digits(300), some_digits(200)), "dataset '5,000-image sample of MNIST', where 'MNIST' is"),
        ((some_digits(290, utils.SAMPLE), some_digits(200)), "train_images 300, where 290 is"),
        ((some_digits(300, utils.SAMPLE), some_digits(190)), "measured_images 200, where 190 is"),
    ],
)
def test_a_run_on_other_data_is_refused(few, once, monkeypatch, digits, complaint):
    shutil.copytree(once, "a")
    monkeypatch.setattr(utils, "load_data", lambda device: digits)
    with pytest.raises(ValueError, match=f"a/resume.pt has a run with {complaint} asked for"):
        run(TINY, seed=0, show=False, folder=Path("a"))


def test_a_run_that_has_gone_further_than_asked_is_refused(few):
    run(replace(TINY, epochs=3), seed=0, show=False, folder=Path("a"))
    with pytest.raises(ValueError, match="the run has 3 epochs behind it, more than the 2 asked for"):
        run(replace(TINY, epochs=2), seed=0, show=False, folder=Path("a"))


# ---------------------------------------------------------------------------------------------------------------------
# A short run
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(monkeypatch, tmp_path) -> None:
    """More images than a short run uses."""
    monkeypatch.setattr(utils, "load_data", lambda device: (some_digits(2_500), some_digits(1_200)))
    monkeypatch.chdir(tmp_path)


def short_run(monkeypatch, recipe: Recipe, folder: Path | None = None) -> Trained:
    with monkeypatch.context() as patch:
        patch.setenv("SESSION7_SHORT", "1")
        return run(recipe, seed=0, show=False, folder=folder)


def test_a_short_run_takes_two_epochs_and_few_images(many, monkeypatch):
    plain = []
    fit = utils.fit
    monkeypatch.setattr(utils, "fit", lambda *rest, **more: plain.append(more["plain_epochs"]) or fit(*rest, **more))
    history, _, tested, _ = short_run(monkeypatch, replace(LENET, epochs=5, plain_epochs=3, batch_size=500))
    assert (len(history), history.train_images, history.test_images) == (2, 2_000, 1_000)
    assert plain == [1] and tested.images == 1_000


def test_a_short_run_does_not_go_on_as_a_whole_one(few, monkeypatch):
    short_run(monkeypatch, replace(LENET, epochs=5), Path("a"))
    with pytest.raises(ValueError, match="has a run with short True, where False is asked for"):
        run(replace(LENET, epochs=5), seed=0, show=False, folder=Path("a"))


def test_a_run_from_before_a_field_was_added_is_still_the_same_run():
    here = checkpoint.description(LENET, 3)
    checkpoint.expect_same_run(Path("older"), {what: value for what, value in here.items() if what != "monitor"}, here)
    with pytest.raises(ValueError, match="older has a run with monitor 'accuracy', where 'loss' is asked for"):
        checkpoint.expect_same_run(
            Path("older"),
            {what: value for what, value in here.items() if what != "monitor"},
            checkpoint.description(replace(LENET, monitor="loss"), 3),
        )
