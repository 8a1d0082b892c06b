"""What runs inside the sandbox: `python -m lab.grading.worker PHASE JOB.json`.

`record` runs submitted code, where there are no data: it leaves the initial weights, and a script of what the network does.
`train` and `predict` need no submitted code: they run the script. `train` sees the training images with their labels, and
leaves the weights after each epoch. `predict`, a new process, sees these weights and images without labels, and leaves one
answer for each image and each epoch. All leave what they have to say in the current folder, as plain arrays and JSON.

A network of which there is no script trains and predicts with its own code, if the instructor trusts it. What is checked
then is in `Snapshot`, `Watch` and `lab.grading.checks`; submitted code that means to can get round some of it.
"""

import builtins
import json
import math
import os
import sys
import traceback
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchvision.transforms import v2

import models
import utils
from lab.grading import replay
from lab.judging import look as looking
from lab.runs import own, recipes
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


def initial_file(seed: int) -> str:
    """The name of the file with the initial weights that follow from a seed."""
    return f"initial{seed}.npz"


# ---------------------------------------------------------------------------------------------------------------------
# What submitted code must leave alone
# ---------------------------------------------------------------------------------------------------------------------


class Snapshot:
    """The functions of Python, NumPy, PyTorch and this project as they are now; `changed` names those that changed."""

    def __init__(self) -> None:
        for optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.Adadelta):
            optimizer(
                nn.Linear(1, 1).parameters(), 0.1
            )  # PyTorch wraps each class's `step` once, when it is first used
        self._seen = {name: (value, _marks(value)) for name, value in _functions()}

    def changed(self) -> list[str]:
        """The names of the functions that are another object now, or have other code or defaults."""
        now = dict(_functions())
        return [
            name
            for name, (value, marks) in self._seen.items()
            if now.get(name, value) is not value or _marks(value) != marks
        ]


def _functions() -> Iterator[tuple[str, object]]:
    """Public functions and methods by their full name, and those private ones that Python calls itself."""
    for owner in _owners():
        prefix = "" if owner is builtins else f"{owner.__name__}."
        if isinstance(owner, type):
            prefix = f"{owner.__module__}.{prefix}"
        for name, value in list(vars(owner).items()):
            kept = callable(value) or isinstance(value, (staticmethod, classmethod, property))
            if kept and not isinstance(value, types.ModuleType):
                yield prefix + name, value


def _owners() -> list[Any]:
    modules = [builtins, json, math, zipfile, np, np.lib.format, torch, F, torch.autograd, torch.random, torch.optim]
    modules += [models, utils, own, recipes, training, looking, sys.modules[__name__]]
    classes = [
        Tensor,
        torch.Generator,
        nn.Module,
        Optimizer,
        Path,
        zipfile.ZipFile,
        v2.Compose,
        v2.ToDtype,
        v2.Normalize,
    ]
    for module in (nn, torch.optim, torch.optim.lr_scheduler, utils, training, sys.modules[__name__]):
        classes += [one for one in vars(module).values() if isinstance(one, type)]
    return list({id(owner): owner for owner in [*modules, *classes]}.values())


def _marks(value: object) -> list[int]:
    """What a function is made of: its code and defaults, and those of the functions that it wraps."""
    marks: list[int] = []
    for _ in range(10):
        value = getattr(value, "__func__", getattr(value, "fget", value)) or value
        marks += [id(getattr(value, part, None)) for part in ("__code__", "__defaults__", "__kwdefaults__")]
        wrapped = getattr(value, "__dict__", {}).get("__wrapped__") if isinstance(value, types.FunctionType) else None
        if wrapped is None:
            break
        value = wrapped
    return marks


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


# Where parameters, an optimizer, and all optimizers together keep their hooks
HOOKS = (
    "_backward_hooks",
    "_post_accumulate_grad_hooks",
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_global_optimizer_pre_hooks",
    "_global_optimizer_post_hooks",
)


class Watch:
    """Sees to it that the optimizer alone changes the parameters, and counts its steps."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._parameters: list[Tensor] = [one for group in optimizer.param_groups for one in group["params"]]
        self._after = self._values()
        self.steps, self.moved, self.hooks = 0, 0, 0
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)

    def _values(self) -> Tensor:
        return torch.cat([one.detach().reshape(-1).double() for one in self._parameters])

    def _count_hooks(self) -> int:
        """How many functions are called within a step, or with the gradients of the parameters."""
        owners = [*self._parameters, self._optimizer, sys.modules[Optimizer.__module__]]
        return sum(len(getattr(owner, name, None) or ()) for owner in owners for name in HOOKS)

    def look(self) -> None:
        """Count a change if the parameters are not those that the last step left, and if there are other hooks than this one's.

        A NaN that stays is no change.
        """
        self.hooks += self._count_hooks() != 2  # those of `__init__`
        self.moved += not torch.equal(self._values().nan_to_num(), self._after.nan_to_num())

    def _before_step(self, *_: object) -> None:
        self.look()

    def _after_step(self, *_: object) -> None:
        self.steps += 1
        self._after = self._values()


# ---------------------------------------------------------------------------------------------------------------------
# The two phases
# ---------------------------------------------------------------------------------------------------------------------


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

    job: `code`, the submission's folder; `seeds`, for each of which the network is built.
    """
    snapshot = Snapshot()
    make = find(job["code"])
    looked = looking.look(make, "Net").as_dict()
    why = ""
    for seed in job["seeds"]:
        utils.seed_everything(seed)
        model = check_network(make()).to(CPU)
        write_arrays(Path(initial_file(seed)), state(model))
    shared = aliases(model)
    try:
        Path(SCRIPT).write_text(json.dumps(replay.record(model)), encoding="utf-8")
    except replay.Unrecorded as error:
        why = str(error)
    return {"look": looked, "shared": shared, "changed": snapshot.changed(), "why": why}


def train(job: Mapping[str, Any]) -> dict[str, object]:
    """Train a submitted network as `lab.runs.train.run` does, and leave its weights: initially, and after each epoch.

    job: as for `network`; `recipe`, as a dictionary; `seed`; `images`, the training images and labels as npz; `dataset`,
    what to call them.
    """
    recipe, seed = Recipe(**job["recipe"]), int(job["seed"])
    arrays = dict(np.load(job["images"], allow_pickle=False))
    images, labels = (torch.from_numpy(arrays[name].copy()) for name in ("images", "labels"))
    digits = utils.Digits(images, labels, job["dataset"])
    snapshot = Snapshot()
    make = network(job)
    # from here on, the calls and their order are those of lab.runs.train.run
    train_loader = utils.Loader(digits, recipe.batch_size, training.make_transform(recipe, training=True), shuffle=True)
    measured_loader = utils.Loader(digits[:MEASURED], 1_000, training.make_transform(recipe))
    utils.seed_everything(seed)
    model = check_network(make()).to(CPU)
    optimizer = training.make_optimizer(recipe, model)
    scheduler = training.make_scheduler(recipe, optimizer)
    watch = Watch(optimizer)
    model.register_forward_hook(expect_plain_tensor)
    write_arrays(Path(weights_file(0)), state(model))

    def keep(history: utils.History) -> None:
        watch.look()
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
    intact = all(np.array_equal(getattr(digits, name).numpy(), arrays[name]) for name in ("images", "labels"))
    return {
        "steps": watch.steps,
        "moved": watch.moved,
        "hooks": watch.hooks,
        "changed": snapshot.changed(),
        "images_intact": intact and asdict(recipe) == asdict(Recipe(**job["recipe"])),
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
    snapshot = Snapshot()
    make = network(job)
    answers, moved = [], 0
    for file in job["weights"]:
        given = dict(np.load(file, allow_pickle=False))
        model = check_network(make())
        model.register_forward_hook(expect_plain_tensor)
        nn.Module.load_state_dict(model, {name: torch.from_numpy(array.copy()) for name, array in given.items()})
        logits = training.predict(model, recipe, unlabelled)
        if logits.shape != (len(images), utils.CLASSES):
            raise ValueError(f"the network's output has shape {tuple(logits.shape)}, expected {(len(images), 10)}")
        answers.append(logits.argmax(dim=1).to(torch.uint8).numpy())
        moved += any(not np.array_equal(array, given[name], equal_nan=True) for name, array in state(model).items())
    write_arrays(Path(PREDICTIONS), {"answers": np.stack(answers)})
    return {"changed": snapshot.changed(), "moved": moved}


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
    if isinstance(error, (FloatingPointError, ValueError)) and message:
        said = message.replace(f"{code}/", "") if code else message
    else:
        said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if code and frame.filename.startswith(code)]
    return said + (f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else "")


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
            traceback.print_exc()
        report = {"error": explain(error, job.get("code", "")), "diverged": isinstance(error, FloatingPointError)}
    write(Path(REPORT), dumps(report), encoding="utf-8")
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # whatever submitted code left to be done at the end is not done
