"""Which functions of PyTorch's a network calls on a batch of images, and which of them read whose output.

`models.layer_table` measures the layers of a network. Here the question is how they are connected: what comes after
the last convolution, whether anything stands between two linear layers, which weights are used.
"""

import inspect
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from models import CONTAINERS, tensors

TORCH = str(Path(torch.__file__).parent)
NOT_THEIRS = (TORCH, sysconfig.get_path("stdlib"), __file__, "<frozen")  # whose lines tell an author nothing
HERE = str(Path(__file__).parent)
WEIGHTED = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("linear", "bilinear", "matmul", "rmatmul", "mm", "bmm", "einsum", "addmm", "baddbmm"),
}


@dataclass(eq=False)
class Call:
    """A function that reads values computed from the images.

    name:      of the function, without underscores: conv2d, relu, add. "images" stands for the batch itself, "unseen"
               for what computed a tensor out of sight: compiled code, an autograd function
    inputs:    the calls whose outputs it reads; the same call twice for x * x
    constants: the other tensors that it reads: weights, biases, running statistics
    shape:     of its (first) output, with the batch
    layer:     the qualified name of the layer of torch.nn that called it; "" if `forward` did
    kind:      that layer's class
    place:     where in the network's code: "line 23 of mynet.py"; "" if unknown
    readers:   the calls that read its output
    """

    name: str
    inputs: tuple["Call", ...] = ()
    constants: tuple[Tensor, ...] = ()
    shape: tuple[int, ...] = ()
    layer: str = ""
    kind: str = ""
    place: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    readers: list["Call"] = field(default_factory=list)

    def argument(self, position: int, key: str, default: Any = None) -> Any:
        """An argument of the function, whether it was given by position or by name."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(key, default)

    @property
    def has_weights(self) -> bool:
        """Whether it is a convolution or a linear layer: a weighted sum of its inputs."""
        return self.name in WEIGHTED and any(tensor.dim() >= 2 for tensor in self.constants)

    @property
    def side(self) -> int:
        """The width of the maps that it makes; 1 where it makes no maps."""
        return self.shape[-1] if len(self.shape) == 4 else 1

    @property
    def named(self) -> str:
        """The layer or function as the network's author knows it: "fc2 (Linear)", "relu"."""
        return describe(self.layer, self.kind) if self.layer else self.name

    @property
    def where(self) -> str:
        """The same with its line: "relu, line 23 of mynet.py"."""
        # behind a dot is a layer of a block: the line that calls the block says no more
        return ", ".join(filter(None, (self.named, self.place if "." not in self.layer else "")))


def describe(layer: str, kind: str) -> str:
    """A layer by its name in the network: "fc2 (Linear)", and "layer 3 (Linear)" in an nn.Sequential."""
    return f"layer {layer} ({kind})" if layer.isdecimal() else f"{layer} ({kind})"


@dataclass(frozen=True)
class Trace:
    """What one pass called.

    output: what `forward` returned
    calls:  in order
    last:   the call that made the output; None if that cannot be followed
    ran:    the qualified names of all modules whose `forward` ran
    """

    output: Any
    calls: Sequence[Call]
    last: Call | None
    ran: frozenset[str]

    def named(self, *names: str) -> list[Call]:
        """The calls of these functions."""
        return [call for call in self.calls if call.name in names]


def follow(network: nn.Module, images: Tensor) -> Trace:
    """Run the network in its present mode, with gradients, and note what it calls. Raises what `forward` raises."""
    follower = _Follower(images)
    with _watched(network, follower), follower:
        output = network(images)
    made = next((follower.made_by.get(tensor) for tensor in tensors(output)), None)
    return Trace(output, follower.calls, made, frozenset(follower.ran))


class _Follower(TorchFunctionMode):
    """While this mode is active, PyTorch calls `__torch_function__` in place of each function."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.count = len(images)
        self.calls: list[Call] = []
        self.ran: set[str] = set()
        self.layer: tuple[str, str] | None = None  # name and class of the layer of torch.nn that runs now
        # None marks a tensor that was computed from weights alone
        self.made_by: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.made_by[images] = Call("images", shape=tuple(images.shape))

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "function").strip("_")
        made = list(tensors(args[0] if name == "setitem" else output))
        if made:
            self._note(name, args, kwargs, made)
        return output

    def _note(self, name: str, args: Sequence[object], kwargs: Mapping[str, object], made: list[Tensor]) -> None:
        read = list(tensors([args, kwargs]))
        sources = [self._source(tensor) for tensor in read]
        inputs = tuple(source for source in sources if source)
        call = None
        if inputs:
            constants = tuple(tensor for tensor, source in zip(read, sources) if not source)
            layer, kind = self.layer or ("", "")
            place = place_of(inspect.currentframe())
            call = Call(name, inputs, constants, tuple(made[0].shape), layer, kind, place, args, kwargs)
            self.calls.append(call)
            for source in inputs:
                source.readers.append(call)
        for tensor in made:
            # a parameter comes out of functions that initialize it, and stays one
            if call or not isinstance(tensor, nn.Parameter):
                self.made_by[tensor] = call

    def _source(self, tensor: Tensor) -> Call | None:
        if tensor not in self.made_by and tensor.grad_fn and tensor.dim() >= 2 and len(tensor) == self.count:
            self.made_by[tensor] = Call("unseen", shape=tuple(tensor.shape))
        return self.made_by.get(tensor)


@contextmanager
def _watched(network: nn.Module, follower: _Follower) -> Iterator[None]:
    """Tell the follower which module runs. In place of hooks, which a direct call of `forward` does not reach."""
    watched = [pair for pair in network.named_modules() if not isinstance(pair[1], torch.jit.ScriptModule)]
    before = [(module, module.__dict__.get("forward")) for _, module in watched]
    for name, module in watched:
        object.__setattr__(module, "forward", _watching(name, module, follower))
    try:
        yield
    finally:
        for module, forward in before:
            if forward is None:
                object.__delattr__(module, "forward")
            else:
                object.__setattr__(module, "forward", forward)


def _watching(name: str, module: nn.Module, follower: _Follower) -> Callable[..., object]:
    forward = module.forward
    is_layer = is_layer_of_torch(module)

    def watching(*args: object, **kwargs: object) -> object:
        follower.ran.add(name)
        outermost = is_layer and follower.layer is None
        if outermost:
            follower.layer = (name, kind_of(module))
        try:
            return forward(*args, **kwargs)
        finally:
            if outermost:
                follower.layer = None

    return watching


def kind_of(module: nn.Module) -> str:
    """The class of a module, as its author wrote it."""
    return type(module).__name__.removeprefix("Parametrized")


def is_layer_of_torch(module: nn.Module) -> bool:
    """Whether it is one of PyTorch's layers, and no container of others."""
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, CONTAINERS)


def place_of(frame: FrameType | None) -> str:
    """The innermost line that is not PyTorch's, Python's nor this room's: "line 23 of mynet.py"; "" if there is none."""
    while frame and frame.f_code.co_filename.startswith(NOT_THEIRS):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(HERE):
        return ""
    return line_of(frame.f_code.co_filename, frame.f_lineno)


def line_of(path: str, number: int) -> str:
    """A line of the network's code in words; a cell of a notebook has no name that its author knows."""
    in_a_cell = "ipykernel" in path or path.startswith("<")
    return f"line {number} of {'the cell' if in_a_cell else Path(path).name}"
