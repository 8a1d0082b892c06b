"""What runs inside the sandbox: `python -m lab.grading.worker PHASE JOB.json`.

`record` runs submitted code, where there are no data: it leaves the initial weights, and a script of what the network does.
`train` and `predict` need no submitted code: they run the script. `train` sees the training images with their labels, and
leaves the weights after each epoch. `predict`, a new process, sees these weights and images without labels, and leaves one
answer for each image and each epoch. All leave what they have to say in the current folder, as plain arrays and JSON.

A network of which there is no script trains and predicts with its own code, if the instructor has read it and says so.
"""

import contextlib
import json
import os
import sys
import traceback
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import utils
from lab.grading import replay
from lab.judging import look as looking
from lab.runs import own
from lab.runs import train as training
from lab.runs.recipes import Recipe

CPU = torch.device("cpu")
REPORT = "report.json"
SCRIPT = "script.json"  # the recorded network
PREDICTIONS = "predictions.npz"
MEASURED = 1_000  # training images that measure each epoch here: the test images are elsewhere
MOST_CHARACTERS = 300  # of an error's message

# ---------------------------------------------------------------------------------------------------------------------
# Plain arrays in files
# ---------------------------------------------------------------------------------------------------------------------


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as `np.load` reads them; unlike `np.savez`, under any name. Raises ValueError for one of objects."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)


def weights_file(epoch: int) -> str:
    """The name of the file with the weights after an epoch; 0 stands for the initial ones."""
    return f"epoch{epoch:02}.npz"


# ---------------------------------------------------------------------------------------------------------------------
# The network
# ---------------------------------------------------------------------------------------------------------------------

# What the harness calls on every module of a network, and must therefore be PyTorch's
RESERVED = (
    "__call__",
    "_call_impl",
    "_load_from_state_dict",
    "_save_to_state_dict",
    "buffers",
    "eval",
    "get_extra_state",
    "load_state_dict",
    "modules",
    "named_modules",
    "named_parameters",
    "parameters",
    "set_extra_state",
    "state_dict",
)


def check_network(model: object) -> nn.Module:
    """The model, if it is a network with PyTorch's own methods and plain parameters. Raises ValueError if not."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"it makes a {type(model).__name__}, expected a network")  # noqa: TRY004 (bad input)
    for module in nn.Module.modules(model):
        for name in RESERVED:
            overridden = vars(type(module)).get(name)
            theirs = not type(module).__module__.startswith("torch.")
            if name in vars(module) or (theirs and overridden is not None):
                raise ValueError(f"{type(module).__name__} has a {name} of its own, expected PyTorch's")
    for name, tensor in nn.Module.state_dict(model).items():
        if type(tensor) is not Tensor:
            raise ValueError(f"the state {name} is a {type(tensor).__name__}, expected a plain tensor")
    return model


def expect_plain_tensor(model: nn.Module, _: object, output: object) -> None:
    """A hook: raise ValueError unless a network's output is a plain tensor."""
    if type(output) is not Tensor:
        raise ValueError(f"{type(model).__name__} returns a {type(output).__name__}, expected a plain tensor of logits")


def state(model: nn.Module) -> dict[str, np.ndarray]:
    """The network's parameters and buffers as arrays."""
    return {name: tensor.detach().contiguous().numpy().copy() for name, tensor in nn.Module.state_dict(model).items()}


def aliases(model: nn.Module) -> dict[str, str]:
    """The names of tensors that are shared, each with the first name of the same tensor."""
    first: dict[int, str] = {}
    shared = {}
    for name, tensor in nn.Module.state_dict(model, keep_vars=True).items():
        if id(tensor) in first:
            shared[name] = first[id(tensor)]
        first.setdefault(id(tensor), name)
    return shared


def find(code: str) -> Callable[[], nn.Module]:
    """What makes the network in a submission's net.py: `Net`, a class or a function, or else its only network."""
    try:
        return own.find(f"{code}/net.py:Net").make
    except ValueError:
        return own.find(f"{code}/net.py:").make


def network(job: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """What makes the network that a job is about: the submission's `code`, or without it a `script` and its `initial`
    weights.
    """
    if "code" in job:
        return find(job["code"])
    script = json.loads(Path(job["script"]).read_text(encoding="utf-8"))
    weights = dict(np.load(job["initial"], allow_pickle=False))
    return lambda: replay.Replay(script, {name: torch.from_numpy(array.copy()) for name, array in weights.items()})


def record(job: Mapping[str, Any]) -> dict[str, object]:
    """Look at a submitted network, and write down what it does and its initial weights; no data is here.

    job: `code`, the submission's folder; `seeds`, from each of which the network is built, by the name of the file that gets
    its weights.
    """
    make = find(job["code"])
    looked = looking.look(make, "Net").as_dict()
    why = ""
    for name, seed in job["seeds"].items():
        utils.seed_everything(seed)
        model = check_network(make()).to(CPU)
        write_arrays(Path(name), state(model))
    shared = aliases(model)
    try:
        Path(SCRIPT).write_text(json.dumps(replay.record(model)), encoding="utf-8")
    except replay.Unrecorded as error:
        why = str(error)
    return {"look": looked, "shared": shared, "why": why}


def train(job: Mapping[str, Any]) -> dict[str, object]:
    """Train a submitted network as `lab.runs.train.run` does, and leave its weights: initially, and after each epoch.

    job: as for `network`; `recipe`, as a dictionary; `seed`; `images`, the training images and labels as npz; `dataset`,
    what to call them.
    """
    recipe, seed = Recipe(**job["recipe"]), int(job["seed"])
    arrays = dict(np.load(job["images"], allow_pickle=False))
    images, labels = (torch.from_numpy(arrays[name].copy()) for name in ("images", "labels"))
    digits = utils.Digits(images, labels, job["dataset"])
    make = network(job)
    # from here on, the calls and their order are those of lab.runs.train.run
    train_loader = utils.Loader(digits, recipe.batch_size, training.make_transform(recipe, training=True), shuffle=True)
    measured_loader = utils.Loader(digits[:MEASURED], 1_000, training.make_transform(recipe))
    utils.seed_everything(seed)
    model = check_network(make()).to(CPU)
    optimizer = training.make_optimizer(recipe, model)
    scheduler = training.make_scheduler(recipe, optimizer)
    model.register_forward_hook(expect_plain_tensor)
    write_arrays(Path(weights_file(0)), state(model))

    def keep(history: utils.History) -> None:
        write_arrays(Path(weights_file(len(history))), state(model))

    history = utils.fit(
        model,
        train_loader,
        measured_loader,
        optimizer,
        scheduler,
        epochs=recipe.epochs,
        plain_epochs=recipe.plain_epochs,
        bfloat16=recipe.bfloat16,
        seed=seed,
        after_epoch=keep,
        show=False,
    )
    return {
        "environment": history.environment,
        **{name: getattr(history, name) for name in ("learning_rate", "train_loss", "train_correct", "seconds")},
        "final_train_correct": history.final_train_correct,
    }


@torch.no_grad()
def predict(job: Mapping[str, Any]) -> dict[str, object]:
    """Answer images with each of some sets of weights, and leave the answers, uint8 of shape (sets, images).

    job: as for `network`; `recipe` as for `train`; `images`, npz without labels; `weights`, the files of the sets.
    """
    recipe = Recipe(**job["recipe"])
    images = torch.from_numpy(np.load(job["images"], allow_pickle=False)["images"])
    unlabelled = utils.Digits(images, torch.zeros(len(images), dtype=torch.int64), "")
    make = network(job)
    answers = []
    for file in job["weights"]:
        weights = dict(np.load(file, allow_pickle=False))
        model = check_network(make())
        model.register_forward_hook(expect_plain_tensor)
        nn.Module.load_state_dict(model, {name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        logits = training.predict(model, recipe, unlabelled)
        if logits.shape != (len(images), utils.CLASSES):
            raise ValueError(f"the network's output has shape {tuple(logits.shape)}, expected {(len(images), 10)}")
        answers.append(logits.argmax(dim=1).to(torch.uint8).numpy())
    write_arrays(Path(PREDICTIONS), {"answers": np.stack(answers)})
    return {}


PHASES: dict[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
    "record": record,
    "train": train,
    "predict": predict,
}


def explain(error: BaseException, code: str) -> str:
    """An error in one line, with the last line of the submission's code that it came through."""
    try:
        message = str(error).strip().partition("\n")[0][:MOST_CHARACTERS]
    except Exception:  # noqa: BLE001 (it is the submission's own error)
        message = ""
    message = message.replace(f"{code}/", "") if code else message
    if isinstance(error, (FloatingPointError, ValueError)) and message:
        said = message
    else:
        said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if code and frame.filename.startswith(code)]
    return said + (f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else "")


def print_traceback(error: BaseException, code: str) -> None:
    """Print where an error came from as Python does, but only the lines of the submission's code."""
    said = traceback.TracebackException.from_exception(error)
    waiting, known = [said], set()
    while waiting:
        one = waiting.pop()
        known.add(id(one))
        frames = [frame for frame in one.stack if code and frame.filename.startswith(f"{code}/")]
        for frame in frames:
            frame.line  # noqa: B018 (it is read from the file now, whose name is about to change)
            frame.filename = frame.filename.removeprefix(f"{code}/")
        one.stack = traceback.StackSummary.from_list(frames)
        others = (one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ()))
        waiting += [other for other in others if other and id(other) not in known]
    print("".join(said.format()).replace(f"{code}/" if code else "\0", ""), file=sys.stderr, end="")


def main(arguments: Sequence[str]) -> dict[str, object]:
    """Run a phase in the current folder; leave and return its report, which has an `error` if there was one."""
    phase, file = arguments
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    write, dumps = Path.write_text, json.dumps  # as they are before any submitted code runs
    report: dict[str, object]
    try:
        report = PHASES[phase](job)
    except BaseException as error:  # noqa: BLE001 (SystemExit of submitted code, too)
        if not isinstance(error, (ValueError, FloatingPointError)):
            with contextlib.suppress(Exception):  # it is the submission's own error
                print_traceback(error, job.get("code", ""))
        report = {"error": explain(error, job.get("code", "")), "diverged": isinstance(error, FloatingPointError)}
    write(Path(REPORT), dumps(report), encoding="utf-8")
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # whatever submitted code left to be done at the end is not done
