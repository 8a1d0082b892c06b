"""What a network is, and what is wrong with it: shown at once, before it trains."""

import copy
import inspect
import io
import random
import re
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lab.judging import advice
from lab.judging.advice import BUDGET, DIGIT, SKELETON, Finding, Ingredients, Kind, Seen
from lab.judging.calls import HERE, NOT_THEIRS, TORCH, follow, line_of, place_of
from models import CLASSES, IMAGE_SIZE, LayerTable, layer_table

BUILDER = str(Path(HERE).parent / "runs" / "own.py")  # calls what is judged, and is not its author's
# What stands above the findings of a kind
TITLES: dict[Kind, str] = {
    "mistake": "Mistakes, to mend before you train:",
    "advice": "Look at this before you train:",
    "note": "Good to know:",
}
COUNT = 7  # images in the batch that it is tried on: no size that anybody writes into a network
WIDTH = 100  # columns of what is printed
MOST_SECONDS = 60  # of processor time, for what takes two
# What else a network may expect, and how to give it that.
OTHER_SHAPES = {
    (IMAGE_SIZE**2,): "It takes flat images of shape (N, 784): begin with nn.Flatten() or x.flatten(1).",
    (IMAGE_SIZE, IMAGE_SIZE): "It takes images without channels, (N, 28, 28): begin forward with x = x.squeeze(1).",
    (3, IMAGE_SIZE, IMAGE_SIZE): "It takes images of 3 colors: let its first layer take 1 channel.",
    (1, 32, 32): "It takes images of 32 x 32 pixels: begin forward with x = F.pad(x, (2, 2, 2, 2)).",
}
OTHER_COUNTS = (1, 128, 64, 100, 32, 256, 1_000)
# What PyTorch says, and what it means.
HINTS = {
    r"to have (\d+) channels, but got (\d+) channels": "A convolution gets {1} channels and was made for {0}",
    r"Calculated padded input size per channel: \((\d+) x": "The map has only {0} pixels a side there: pool less",
    r"Output size is too small": "The map is too small to be pooled there: pool less",
    r"before Module.__init__\(\) call": "Call super().__init__() first",
    r"running_mean should contain (\d+) elements not (\d+)": "Batch norm was made for {1} channels and gets {0}",
    r"__init__\(\) missing \d+ required": "It is built without arguments: give each of them a default",
    r"modified by an inplace operation": "A function that works in place, such as x += y, destroyed what backward needs",
}


@dataclass
class Look:
    """What `look` finds. Printed, it is what a student reads; `as_dict` has the same for JSON.

    name:            of the network
    parameters:      trainable ones; None if the network cannot be built
    frozen:          parameters that are not trained
    table:           the layer table; None if it cannot be computed
    no_table:        why there is no table; "" if there is one
    receptive_field: of the last map before global pooling or the readout, in pixels; None if unknown, or without maps
    last_map:        that map's shape: channels, height, width
    ingredients:     batch norm, global average pooling, dropout, capacity layer; None if the network does not run
    warnings:        mistakes, then advice, then what is good to know; the network trains all the same
    errors:          why it cannot be trained, a sentence each; empty if it can
    """

    name: str
    parameters: int | None = None
    frozen: int = 0
    table: LayerTable | None = None
    no_table: str = ""
    receptive_field: int | None = None
    last_map: tuple[int, ...] = ()
    ingredients: Ingredients | None = None
    warnings: list[Finding] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def within_budget(self) -> bool:
        """Whether the network has fewer than 8,000 parameters."""
        return self.parameters is not None and self.parameters < BUDGET

    def of_kind(self, *kinds: Kind) -> list[Finding]:
        """Those of its findings that are mistakes, advice or notes."""
        return [finding for finding in self.warnings if finding.kind in kinds]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers, strings, lists and dictionaries."""
        contents = asdict(self)
        contents["table"] = [asdict(row) for row in self.table] if self.table is not None else None
        contents["warnings"] = [finding._asdict() for finding in self.warnings]
        if self.ingredients:
            contents["ingredients"]["dropout"] = list(self.ingredients.dropout)
            contents["ingredients"]["capacity_layer"] = self.ingredients.capacity_layer
        return {**contents, "last_map": list(self.last_map), "budget": BUDGET, "within_budget": self.within_budget}

    def __str__(self) -> str:
        parts = [self.name]
        if self.table is not None:
            parts.append(str(self.table))
        elif self.no_table and not self.errors:
            parts.append(_wrapped(f"There is no layer table: {self.no_table}."))
        facts = [f"{title:<18} {value}" for title, value in self._facts()]
        if facts:
            parts.append("\n".join(facts))
        found = [(title, [_in_words(one) for one in self.of_kind(kind)]) for kind, title in TITLES.items()]
        for title, sentences in [("It cannot be trained:", self.errors), *found]:
            if sentences:
                parts.append("\n".join([title, *(_wrapped(sentence, "- ") for sentence in sentences)]))
        if not self.errors and not self.of_kind("mistake", "advice"):
            parts.append("Nothing looks wrong.")
        return "\n\n".join(parts)

    def _facts(self) -> Iterator[tuple[str, str]]:
        if self.parameters is not None:
            answer = "yes" if self.within_budget else "no"
            frozen = f"; {self.frozen:,} frozen ones do not count" if self.frozen else ""
            yield "parameters", f"{self.parameters:,}, fewer than {BUDGET:,}: {answer}{frozen}"
        if self.receptive_field is not None:
            shape = " x ".join(map(str, self.last_map))
            yield "receptive field", f"{self.receptive_field} of {IMAGE_SIZE} pixels, at the last map, {shape}"
        if self.ingredients:
            found = self.ingredients
            yield "batch norm", f"yes, {_times(found.batch_norm)}" if found.batch_norm else "no"
            yield "global average", "yes" if found.global_average else "no"
            yield "dropout", " and ".join(f"{rate:g}" for rate in found.dropout) or "no"
            count = f"{found.convolutions} convolution{'s' * (found.convolutions != 1)} before the readout"
            yield "capacity layer", f"{'yes' if found.capacity_layer else 'no'}: {count}, Step 1 has {SKELETON}"


def look(make: Callable[[], nn.Module], name: str) -> Look:
    """What a network is and what is wrong with it: layer table, parameters, receptive field, ingredients, mistakes.

    make: builds the network, whose input are float images of shape (N, 1, 28, 28) and whose output are ten logits
          each; it is called with several seeds. A network that cannot be built, run or trained has `errors`
    name: what to call it

    The network is tried on seven made-up images; it is not trained, and no data are read. What it prints is not shown. In
    the main thread, it has a minute of processor time, so that a loop that never ends becomes an error.
    The caller's generators, and a network that `make` hands out again and again, stay as they are.
    """
    seen = Look(name)
    with _as_it_was(), _silence() as ears:
        try:
            with _at_most(MOST_SECONDS):
                _look(make, seen, ears)
        except (_CannotTrain, _TakesTooLong) as error:
            seen.errors.append(str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (what others wrote raises anything)
            seen.errors.append(f"The network cannot be looked at: {_said(error)}.")
    return seen


class _TakesTooLong(BaseException):
    """Where the network was when its time was up, as a sentence. No `except Exception` of the network's catches it."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise _TakesTooLong after so many seconds of processor time; without a limit where the system has no such timer."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, frame: FrameType | None) -> None:
        while frame and frame.f_code.co_filename.startswith((*NOT_THEIRS, layer_table.__code__.co_filename)):
            frame = frame.f_back  # the layer table listens to what the network calls
        place = place_of(frame)
        raise _TakesTooLong(
            f"The network did not end within {seconds:g} seconds on {COUNT} images{f', and was at {place}' if place else ''}: "
            "does a loop there never stop?"
        )

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _CannotTrain(Exception):
    """Why the network cannot be trained, as a sentence."""


class _CannotRun(_CannotTrain):
    """Why it does not even take an image."""


def _look(make: Callable[[], nn.Module], seen: Look, ears: "_Ears") -> None:
    """Fill in what can be seen, up to the first error."""
    builds = [_build(make, seed, to_change=i == 0) for i, seed in enumerate((0, 0, 1))]
    network = builds[0].network
    if network is builds[-1].given:
        raise _CannotRun("This is one network that was built before, and it cannot be copied: hand over its class.")
    parameters = [parameter for parameter in network.parameters() if not is_lazy(parameter)]
    seen.parameters = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    seen.frozen = sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)

    images = _images()
    ears.begin()
    try:
        with _not_compiled():
            try:
                evaluation = _evaluate(network, images)
            except _CannotRun:
                if not torch.cuda.is_available():
                    raise
                network, images = network.cuda(), images.cuda()  # its forward may make tensors there
                evaluation = _evaluate(network, images)
            training = _train(network, images)
    except _CannotRun:
        raise
    except _CannotTrain:
        _measure(seen, network, untrained=())
        raise
    heard = ears.heard()

    _measure(seen, network, training["untrained"])
    seen.ingredients = advice.ingredients(training["trained"])
    tried = {**evaluation, **training, "seeds": _about_seeds(*builds), "printed_at": ears.printed_at, "heard": heard}
    seen.warnings = advice.findings(Seen(network, seen.parameters, seen.table, **tried))
    if not seen.parameters:
        raise _CannotTrain("The network has no trainable parameters.")


# ---------------------------------------------------------------------------------------------------------------------
# Building it
# ---------------------------------------------------------------------------------------------------------------------


class _Build(NamedTuple):
    """A network as `make` gave it, the same or a copy that may be changed, and the generator's state after building."""

    given: nn.Module
    network: nn.Module
    generator: Tensor


def _build(make: Callable[[], nn.Module], seed: int, to_change: bool) -> _Build:
    _seed(seed)
    try:
        given = make()
    except (Exception, SystemExit) as error:  # noqa: BLE001 (what others wrote raises anything)
        raise _CannotRun(f"Building the network raises {_said(error)}.") from None
    if isinstance(given, type) and issubclass(given, nn.Module):
        raise _CannotRun(f"Building the network gives the class {given.__name__}, expected an object: call it.")
    if not isinstance(given, nn.Module):
        raise _CannotRun(f"Building the network gives {_kind(given)}, expected an nn.Module.")
    lazy = any(is_lazy(parameter) for parameter in given.parameters())
    network = _copied(given) if to_change or lazy else given
    if lazy:
        _run_once(network)  # its weights are drawn now
    return _Build(given, network, torch.get_rng_state())


def _seed(seed: int) -> None:
    """As torch.manual_seed, but for generators that `_as_it_was` does not keep."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def _copied(network: nn.Module) -> nn.Module:
    """A copy on the CPU; the network itself where PyTorch does not copy it, or copies it without its gradients."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        return network.cpu()
    try:
        return copy.deepcopy(network).cpu()
    except (Exception, SystemExit):  # noqa: BLE001 (what others wrote raises anything)
        return network.cpu()


def _run_once(network: nn.Module) -> None:
    try:
        with torch.no_grad():
            network.eval()
            network(_images())
    except (Exception, SystemExit):  # noqa: BLE001 (it will be raised, and told, when the network is evaluated)
        return


def _about_seeds(first: _Build, again: _Build, other: _Build) -> str:
    """What is wrong with the weights of other seeds, as a sentence; "" if nothing."""
    weights, same, others = (
        {name: p.cpu() for name, p in build.network.named_parameters()} for build in (first, again, other)
    )
    shapes, same_shapes, other_shapes = (
        {name: weight.shape for name, weight in group.items()} for group in (weights, same, others)
    )
    if shapes != same_shapes or not all(torch.equal(weights[name], same[name]) for name in weights):
        return (
            "Two networks of the same seed start from different weights: they come from a generator that"
            " torch.manual_seed does not set. Then a run cannot be repeated."
        )
    if shapes != other_shapes:
        return "Seed 0 and seed 1 build different networks. Every seed must build the same layers."
    drawn = [name for name, p in weights.items() if p.numel() > 1 and not bool((p == p.flatten()[0]).all())]
    if drawn and all(torch.equal(weights[name], others[name]) for name in drawn):
        reason = (
            "This is one network that was built before: hand over its class, or a function that builds it."
            if first.given is other.given
            else "Does the constructor set a seed, or load weights?"
        )
        return f"Every seed starts from the same weights, so seeds differ less than they should. {reason}"
    if torch.equal(first.generator, other.generator):
        return "The constructor sets a seed of its own, so not all weights depend on the seed of the run."
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Trying it out
# ---------------------------------------------------------------------------------------------------------------------


def _images() -> Tensor:
    """Made-up images, some bolder than others, of which only the middle is drawn on; scaled as MNIST is."""
    pixels = torch.zeros(COUNT, 1, IMAGE_SIZE, IMAGE_SIZE)
    edge = (IMAGE_SIZE - DIGIT) // 2
    middle = torch.rand(COUNT, 1, DIGIT, DIGIT, generator=torch.Generator().manual_seed(0))
    pixels[:, :, edge:-edge, edge:-edge] = middle * torch.linspace(0.3, 1, COUNT).view(COUNT, 1, 1, 1)
    return (pixels - 0.13) / 0.31


def _evaluate(network: nn.Module, images: Tensor) -> dict[str, Any]:
    """What passes in evaluation mode show, as `Seen` names it."""
    before = {name: tensor.clone() for name, tensor in _state(network).items()}
    try:
        network.eval()
        evaluated = follow(network, images)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (what others wrote raises anything)
        raise _CannotRun(f"The network raises {_said(error)}.{_other_input(network)}") from None
    _expect_logits(evaluated.output, network)
    after = _state(network)
    changed = [name for name in after if name not in before or not _same(before[name], after[name])]
    with torch.no_grad():
        repeated = _output(network, images)
        few, one = _output(network, images[:3]), _output(network, images[:1])
    if not isinstance(repeated, Tensor) or not isinstance(few, Tensor):
        raise _CannotTrain(f"The network takes {len(images)} images at once, but not 3, or not a second time.")
    single = tuple(one.shape) if isinstance(one, Tensor) else None
    return {"evaluated": evaluated, "repeated": repeated, "few": few, "single": single, "changed": changed}


def _state(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor) and not is_lazy(value)}


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.nan_to_num(), second.nan_to_num())


def _output(network: nn.Module, images: Tensor) -> object:
    """What it returns; None if it raises."""
    try:
        return network(images)
    except (Exception, SystemExit):  # noqa: BLE001 (what others wrote raises anything)
        return None


def _train(network: nn.Module, images: Tensor) -> dict[str, Any]:
    """What a pass in training mode and its gradients show, as `Seen` names it."""
    try:
        network.train()
        network.zero_grad(set_to_none=True)
        trained = follow(network, images)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (what others wrote raises anything)
        raise _CannotTrain(f"In training mode, the network raises {_said(error)}.") from None
    _expect_logits(trained.output, network)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if parameters and not trained.output.requires_grad:
        raise _CannotTrain("No gradient reaches the parameters: forward cuts it off, with detach, no_grad or .data.")
    _backward(trained.output)
    for _ in range(8):
        if all(p.grad is not None for p in parameters.values()):
            break
        again = _output(network, images)  # a network that skips layers at random needs more than one pass
        if isinstance(again, Tensor):
            _backward(again)
    return {
        "trained": trained,
        "untrained": [name for name, p in parameters.items() if p.grad is None],
        "nan_gradients": [name for name, p in parameters.items() if p.grad is not None and not p.grad.isfinite().all()],
    }


def _backward(output: Tensor) -> None:
    if not output.requires_grad:
        return
    try:
        nn.functional.cross_entropy(output, torch.arange(COUNT, device=output.device)).backward()
    except (Exception, SystemExit) as error:  # noqa: BLE001 (hooks of others raise anything too)
        raise _CannotTrain(f"loss.backward() raises {_said(error)}.") from None


def _expect_logits(output: object, network: nn.Module) -> None:
    """Raises _CannotTrain unless the output are ten floating-point numbers for each image."""
    if output is None:
        raise _CannotTrain("forward returns nothing: does it end with return?")
    if not isinstance(output, Tensor):
        raise _CannotTrain(f"forward returns {_kind(output)}, expected one tensor: the logits alone.")
    if not output.is_floating_point():
        numbers = str(output.dtype).removeprefix("torch.")
        raise _CannotTrain(
            f"forward returns {numbers} numbers, expected logits: floating-point numbers before any argmax."
        )
    shape = tuple(output.shape)
    if shape != (COUNT, CLASSES):
        sentence = f"The output for {COUNT} images has the shape {shape}, expected {(COUNT, CLASSES)}."
        raise _CannotTrain(f"{sentence}{_remedy(shape) or _other_input(network)}")


def _remedy(shape: tuple[int, ...]) -> str:
    if shape[:2] == (COUNT, CLASSES):
        return " End with x.flatten(1)." if set(shape[2:]) == {1} else " Average over the positions, then x.flatten(1)."
    if len(shape) == 2 and shape[0] == COUNT:
        return f" Let the last layer have {CLASSES} outputs, one for each class."
    if shape[1:] == (CLASSES,) and shape[0] % COUNT == 0:
        return " The values of one image went to several rows: reshape with x.flatten(1), not with x.view(-1, ...)."
    return ""


def _other_input(network: nn.Module) -> str:
    """Which other input the network takes, as a sentence after a space; "" if none of the usual ones."""
    device = next((parameter.device for parameter in network.parameters()), None)
    with torch.no_grad():
        for shape, sentence in OTHER_SHAPES.items():
            if _is_logits(_output(network, torch.rand(COUNT, *shape, device=device)), COUNT):
                return f" {sentence}"
        for count in OTHER_COUNTS:
            if _is_logits(_output(network, torch.rand(count, 1, IMAGE_SIZE, IMAGE_SIZE, device=device)), count):
                takes = "one image at a time" if count == 1 else f"only batches of {count}"
                return (
                    f" It takes {takes}, and batches differ in size: reshape with x.flatten(1), not with a fixed size."
                )
    return ""


def _is_logits(output: object, count: int) -> bool:
    return isinstance(output, Tensor) and output.shape == (count, CLASSES)


def _measure(seen: Look, network: nn.Module, untrained: Sequence[str]) -> None:
    """The layer table, and the field of the last map. What is not used would be refused there; it is a finding here."""
    asleep = [p for name, p in network.named_parameters() if name in untrained]
    for parameter in asleep:
        parameter.requires_grad_(False)
    try:
        seen.table = layer_table(network)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (what others wrote raises anything)
        seen.no_table = str(error) if isinstance(error, ValueError) else _said(error)
    for parameter in asleep:
        parameter.requires_grad_(True)
    row = advice.last_map(seen.table)
    if row:
        seen.receptive_field, seen.last_map = row.receptive_field, row.output_shape


# ---------------------------------------------------------------------------------------------------------------------
# Manners
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Leave the generators of Python, NumPy and PyTorch as they were, the type of new tensors, and the threads."""
    numpy = sys.modules.get("numpy")
    states = random.getstate(), numpy.random.get_state() if numpy else None, torch.get_rng_state()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    # so few images are no work for two threads, and beside a busy processor the second one costs seconds
    torch.set_num_threads(1)
    try:
        with torch.enable_grad():
            yield
    finally:
        random.setstate(states[0])
        if numpy:
            numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
        elif torch.cuda.is_available():
            torch.cuda.manual_seed_all(torch.initial_seed())  # what the caller's torch.manual_seed set


@contextmanager
def _not_compiled() -> Iterator[None]:
    """What torch.compile made runs as it was written: compiling takes minutes, and a look a moment."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):  # from PyTorch 2.6 on
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


class _Deaf(io.TextIOBase):
    """Takes what is written, and drops it."""

    def write(self, text: str) -> int:
        return len(text)


class _Ears(_Deaf):
    """Drops what the network prints and keeps what Python warns of, and remembers where."""

    def __init__(self) -> None:
        self.printed_at: str | None = None
        self.caught: list[warnings.WarningMessage] = []

    def begin(self) -> None:
        """Forget what was said while the network was built: that happens once."""
        self.printed_at = None
        self.caught.clear()

    def write(self, text: str) -> int:
        frame = inspect.currentframe()
        self.printed_at = self.printed_at or place_of(frame and frame.f_back) or None
        return super().write(text)

    def heard(self) -> list[tuple[str, str]]:
        """Each warning once, with its place."""
        said: dict[str, str] = {}
        for warning in self.caught:
            message, place = _first_line(str(warning.message)), _line_of_theirs(warning.filename, warning.lineno)
            if "Lazy modules" not in message:
                said[message] = said.get(message) or place
        return list(said.items())


@contextmanager
def _silence() -> Iterator[_Ears]:
    ears = _Ears()
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(ears), redirect_stderr(_Deaf()):
        warnings.simplefilter("always")
        ears.caught = caught
        yield ears


# ---------------------------------------------------------------------------------------------------------------------
# In words
# ---------------------------------------------------------------------------------------------------------------------


def _said(error: BaseException) -> str:
    """An error in words: its class, the line of the network's code, what it says, and what that means."""
    try:
        message = _first_line(str(error))
    except Exception:  # noqa: BLE001 (an error of others may fail to print)
        message = ""
    lines = [_line_of_theirs(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    at = next((f" at {line}" for line in reversed(lines) if line), "")
    words = f"{type(error).__name__}{at}" + f": {message.rstrip('.')}" * bool(message)
    return ". ".join([words, *_hints(message)])


def _hints(message: str) -> Iterator[str]:
    """What a message of PyTorch's means, in sentences without the period."""
    for says, hint in HINTS.items():
        if found := re.search(says, message):
            yield hint.format(*found.groups())
    if found := re.search(r"shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x\d+\)", message):
        rows, features, expected = map(int, found.groups())
        yield f"A linear layer gets {features:,} features and was made for {expected:,}"
        if rows * features == COUNT * expected:
            yield "Flatten before it, with nn.Flatten() or x.flatten(1)"


def _line_of_theirs(path: str, number: int) -> str:
    """A line of the network's code; "" for one of PyTorch's, Python's, or this room's."""
    return "" if path.startswith((TORCH, HERE, BUILDER, "<frozen")) else line_of(path, number)


def _first_line(message: str) -> str:
    return textwrap.shorten(message.strip().partition("\n")[0], 200, placeholder=" ...")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _kind(value: object) -> str:
    return "nothing" if value is None else f"an object of the class {type(value).__name__}"


def _in_words(finding: Finding) -> str:
    where = f"{finding.where}: " if finding.where else ""
    section = finding.section.replace(" ", "\u00a0")  # stays on one line
    return f"{where}{finding.what}" + f" ({section})" * bool(section)


def _wrapped(sentence: str, bullet: str = "") -> str:
    lines = textwrap.wrap(
        sentence, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet), break_on_hyphens=False
    )
    return "\n".join(lines).replace("\u00a0", " ")
