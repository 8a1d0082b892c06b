"""A network as a list of PyTorch's functions, which runs without the code that made it.

Submitted code can do anything while it runs: train where nobody looks, keep a table of images, look for labels. So it runs
where there is no data: `record` notes which functions `forward` calls on random images, as plain JSON. A `Replay` calls the
same functions in the same order on the images that count. Its numbers are the network's own to the last bit, and there is
no room in it for anything but weights, which are counted.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import utils
from models import CLASSES, IMAGE_SIZE

BATCHES = (6, 10)  # two sizes, which tell a number that follows from the size of the batch from one that does not
# What a script may hold, so that it is no table of answers. The lesson's networks call 40 functions, with 60 references to earlier
# results and three numbers that are no sizes of layers; a vision transformer has 30 numbers, a ResNet-18 90 functions. What room
# is left, some hundred bytes, is that of any program of this size.
MOST_CALLS, MOST_REFERENCES = 400, 1_000
MOST_VALUES = 40  # in one call
MOST_LETTERS = 40  # in a text
MOST_NUMBERS = 64  # that are not the size of a layer; calls with the same ones count once
MOST_SIZES = 400  # of layers; layers with the same ones count once
LARGEST = 10_000
MOST_DIGITS, MOST_LONG = 8, 8  # in such a number, and how many may be longer: 1 / 3, the square root of a width

# What may be called: by name, in each of the three places where PyTorch has functions
NAMES = """
abs absolute acos adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d add add_ addbmm
addcdiv addcmul addmm alpha_dropout amax amin arange argmax argmin argsort asin atan avg_pool1d avg_pool2d baddbmm
batch_norm bernoulli bernoulli_ bilinear bmm broadcast_to cat cdist ceil celu channel_shuffle chunk clamp clamp_
clamp_max clamp_min clip clone concat contiguous conv1d conv2d conv_transpose1d conv_transpose2d copy_ cos
cosine_similarity cumsum detach diff div div_ divide double dropout dropout1d dropout2d dropout3d einsum elu elu_ empty
empty_like eq erf exp expand expand_as eye feature_alpha_dropout flatten flip float floor fold full full_like ge gelu
glu group_norm gru gru_cell gt gumbel_softmax hardshrink hardsigmoid hardswish hardtanh heaviside instance_norm
interpolate layer_norm lc_unfold le leaky_relu leaky_relu_ lerp linear linspace local_response_norm log log1p
log_sigmoid log_softmax logsigmoid logsumexp lp_pool2d lstm lstm_cell lt masked_fill matmul max max_pool1d max_pool2d
maximum mean median min minimum mish mm movedim mul mul_ multi_head_attention_forward multiply narrow ne neg negative
new_empty new_ones new_zeros norm normalize one_hot ones ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu
prod rand rand_like randn randn_like relu relu6 relu_ repeat reshape rms_norm rnn_relu rnn_relu_cell rnn_tanh
rnn_tanh_cell roll round rrelu rsqrt rsub scaled_dot_product_attention select selu sigmoid sigmoid_ sign silu sin sinc
softmax softmin softplus softshrink softsign sort split split_with_sizes sqrt square squeeze stack std sub sub_ subtract
sum swapaxes t tanh tanh_ tanhshrink tensor_split threshold to topk transpose tril triu true_divide type_as unbind
unflatten unfold unsqueeze upsample var view view_as where zero_ zeros zeros_like __add__ __and__ __getitem__ __invert__
__matmul__ __mul__ __neg__ __or__ __pow__ __radd__ __rmatmul__ __rmul__ __rpow__ __rsub__ __rtruediv__ __setitem__
__sub__ __truediv__ _weight_norm
"""
# Functions that are layers: their whole numbers are sizes, strides and paddings
LAYERS = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d alpha_dropout avg_pool1d avg_pool2d batch_norm
cat celu conv1d conv2d conv_transpose1d conv_transpose2d dropout dropout1d dropout2d dropout3d elu feature_alpha_dropout
flatten gelu group_norm gru hardsigmoid hardswish hardtanh instance_norm layer_norm leaky_relu linear log_softmax lp_pool2d
lstm max_pool1d max_pool2d mish multi_head_attention_forward prelu relu relu6 relu_ rnn_relu rnn_tanh
scaled_dot_product_attention selu sigmoid silu softmax softplus tanh
"""
_LAYERS = frozenset(LAYERS.split())
PLACES: dict[str, object] = {"torch": torch, "functional": F, "tensor": Tensor}
FUNCTIONS: dict[str, Callable[..., object]] = {
    f"{place}.{name}": getattr(owner, name)
    for place, owner in PLACES.items()
    for name in NAMES.split()
    if hasattr(owner, name)
}
_NAME_OF = {function: name for name, function in FUNCTIONS.items()}
# Attributes of a tensor that are tensors, too
VIEWS: dict[object, str] = {getattr(Tensor, name).__get__: name for name in ("T", "mT", "data")}
# Functions that hand values to Python, which may then decide what is computed
READS_VALUES = {
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "item",
    "tolist",
    "numpy",
    "__array__",
    "equal",
    "allclose",
}
CHANGES_GRADIENTS = {
    "_set_grad_enabled",
    "register_hook",
    "register_post_accumulate_grad_hook",
    "retain_grad",
    "requires_grad_",
}
LAYOUTS = {str(one): one for one in (torch.channels_last, torch.contiguous_format, torch.preserve_format)}
DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float64, torch.int64, torch.bool)}


class Unrecorded(ValueError):
    """What a network does cannot be written down as a list of functions; the message says why."""


# ---------------------------------------------------------------------------------------------------------------------
# Recording
# ---------------------------------------------------------------------------------------------------------------------


def record(model: nn.Module) -> dict[str, Any]:
    """What `forward` does in training and in evaluation mode, as JSON has it, with the names of the weights.

    The model's buffers change as in a few batches of training. Raises Unrecorded, and what `forward` raises.
    """
    weights = nn.Module.state_dict(model, keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in weights.items():
        first.setdefault(id(tensor), name)
    calls = {}
    for mode in ("train", "eval"):
        model.train(mode == "train")
        one, other = ([_recorded(model, first, batch) for batch in BATCHES] for _ in range(2))
        if one != other:
            raise Unrecorded("it does not do the same each time")
        calls[mode] = _merged(*one)
        expect_no_table(calls[mode]["calls"])
    return {
        "weights": {name: first[id(tensor)] for name, tensor in weights.items()},
        "buffers": [name for name, tensor in weights.items() if not isinstance(tensor, nn.Parameter)],
        "frozen": [name for name, tensor in weights.items() if not tensor.requires_grad],
        "channels_last": utils.fast_layout(model, torch.device("cpu")) is torch.channels_last,
        **calls,
    }


def _recorded(model: nn.Module, names: Mapping[int, str], batch: int) -> dict[str, Any]:
    images = torch.rand(batch, 1, IMAGE_SIZE, IMAGE_SIZE) * 3 - 0.4
    recorder = _Recorder(model, names, images)
    with torch.set_grad_enabled(model.training), recorder:
        output = model(images)
    if type(output) is not Tensor:
        raise ValueError(f"{type(model).__name__} returns a {type(output).__name__}, expected a plain tensor of logits")
    if output.shape != (batch, CLASSES):
        raise ValueError(f"the network's output has shape {tuple(output.shape)}, expected {(batch, CLASSES)}")
    for name, tensor in nn.Module.state_dict(model, keep_vars=True).items():
        if id(tensor) not in names:
            raise Unrecorded(f"it makes {name} anew while it runs, expected a tensor that is changed in place")
        if getattr(tensor, "_backward_hooks", None) or getattr(tensor, "_post_accumulate_grad_hooks", None):
            raise Unrecorded(f"it hooks into the gradient of {name}")
    _expect_plain_gradients(output)
    return {"calls": recorder.calls, "output": recorder.reference(output, "its output")}


def _expect_plain_gradients(output: Tensor) -> None:
    """Raise Unrecorded if a gradient is computed by Python code: an autograd function, or a hook of a module."""
    waiting: list[Any] = [output.grad_fn]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            raise Unrecorded(f"it has an autograd function of its own, {type(node).__name__.removesuffix('Backward')}")
        waiting += [before for before, _ in node.next_functions]


class _Recorder(TorchFunctionMode):
    """Notes each call of a function. While this mode is active, PyTorch calls `__torch_function__` in place of each."""

    def __init__(self, model: nn.Module, names: Mapping[int, str], images: Tensor) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []
        self.known: dict[int, object] = {**names, id(images): 0}  # how a call refers to a tensor: by name or number
        self.made = 0  # results
        # an id is a tensor's own only as long as it lives
        self.kept: list[object] = [images, *model.parameters(), *model.buffers()]
        self.why: dict[int, str] = {}  # what made a tensor that is not known

    def reference(self, tensor: Tensor, by: str) -> object:
        """How calls refer to a tensor."""
        if id(tensor) not in self.known:
            made = (
                "made out of sight, by compiled code for instance"
                if tensor.grad_fn
                else "neither a weight nor a buffer"
            )
            raise Unrecorded(f"{by} uses a tensor that is {self.why.get(id(tensor), made)}")
        return self.known[id(tensor)]

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "a function")
        if name in READS_VALUES:
            raise Unrecorded(
                f"{name.strip('_')}() reads values of a tensor while it runs: what it does may depend on them"
            )
        if name in CHANGES_GRADIENTS:
            raise Unrecorded(f"it calls {name.strip('_')} while it runs")
        output = func(*args, **kwargs)
        known = _name_of(func)
        made = [args[0]] if name == "__setitem__" else list(_flat(output))
        if not any(isinstance(one, Tensor) for one in made):
            return output  # a size or a type, which says nothing of the values
        if known:
            call: dict[str, Any] = {"call": known, "args": [self._plain(one, name) for one in args]}
            call["kwargs"] = {key: self._plain(value, name) for key, value in kwargs.items() if key != "_stacklevel"}
            self.calls.append(call)
            if len(self.calls) > MOST_CALLS:
                raise Unrecorded(f"it calls more than {MOST_CALLS:,} functions")
        self._number(made, known, name)
        return output

    def _number(self, made: Iterable[object], known: str, name: str) -> None:
        for one in made:
            self.kept.append(one)
            self.made += bool(known)
            if isinstance(one, Tensor) and known:
                self.known[id(one)] = self.made
            elif isinstance(one, Tensor) and id(one) not in self.known:
                self.why[id(one)] = f"made by {name}, which is not among the functions that are recorded"

    def _plain(self, value: object, by: str) -> object:
        """An argument as JSON has it."""
        if isinstance(value, Tensor):
            return {"tensor": self.reference(value, by)}
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, torch.dtype) and str(value) in DTYPES:
            return {"dtype": str(value)}
        if isinstance(value, torch.memory_format):
            return {"layout": str(value)}
        if isinstance(value, torch.device):
            return {"device": "cpu"}
        if value is Ellipsis:
            return {"ellipsis": True}
        if isinstance(value, slice):
            return {"slice": [self._plain(part, by) for part in (value.start, value.stop, value.step)]}
        if isinstance(value, (list, tuple)):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self._plain(part, by) for part in value]}
        raise Unrecorded(f"{by} is called with a {type(value).__name__}, which is not recorded")


def _name_of(func: Callable[..., object]) -> str:
    """The name by which a function is recorded; "" if it is not."""
    try:
        return f"view.{VIEWS[func]}" if func in VIEWS else _NAME_OF.get(func, "")
    except TypeError:  # not hashable
        return ""


def _flat(output: object) -> Iterator[Any]:
    """The results of a function in order; a result that is no tensor is in it, too."""
    if isinstance(output, (list, tuple)) and not isinstance(output, torch.Size):
        for one in output:
            yield from _flat(one)
    else:
        yield output


def expect_no_table(calls: Sequence[Mapping[str, Any]]) -> None:
    """Raise Unrecorded if calls hold so many numbers, or such long ones, that they may be a table."""
    references = sum(1 for call in calls for _ in _references([call["args"], call["kwargs"]]))
    if len(calls) > MOST_CALLS or references > MOST_REFERENCES:
        raise Unrecorded(
            f"it calls more than {MOST_CALLS:,} functions, or refers to more than {MOST_REFERENCES:,} tensors"
        )
    different, floats = set(), set()
    for call in calls:
        values = list(_leaves([call["args"], call["kwargs"]]))
        if len(values) > MOST_VALUES or any(isinstance(one, str) and len(one) > MOST_LETTERS for one in values):
            raise Unrecorded(f"{call['call']} is called with more than {MOST_VALUES} values, or with a long text")
        is_layer = call["call"].partition(".")[2] in _LAYERS
        found = tuple(one for one in values if isinstance(one, (int, float)))  # True and False, too
        if is_layer:
            floats |= {one for one in found if isinstance(one, float)}
            found = tuple(one for one in found if isinstance(one, int))
        different.add((is_layer, call["call"], found))
    sizes = [one for is_layer, _, several in different if is_layer for one in several]
    numbers = [*floats, *(one for is_layer, _, several in different if not is_layer for one in several)]
    long = {one for one in (*numbers, *sizes) if abs(one) > LARGEST or len(repr(one)) > MOST_DIGITS}
    if (
        len(numbers) > MOST_NUMBERS
        or len(sizes) > MOST_SIZES
        or len(long) > MOST_LONG
        or not long <= floats | set(numbers)
    ):
        raise Unrecorded(
            f"its functions are called with {len(numbers)} numbers that are no sizes of layers, {len(sizes)} that are, and "
            f"{len(long)} of them are long or large: expected at most {MOST_NUMBERS}, {MOST_SIZES} and {MOST_LONG}, since what a "
            "network knows is in its weights"
        )
    if any(isinstance(one, int) for one in long):
        raise Unrecorded(f"a function is called with a whole number above {LARGEST:,}")


def _leaves(plain: object) -> Iterator[object]:
    """The values in arguments, without those that only refer to a tensor."""
    if isinstance(plain, dict):
        if "tensor" not in plain:
            for one in plain.values():
                yield from _leaves(one)
    elif isinstance(plain, list):
        for one in plain:
            yield from _leaves(one)
    else:
        yield plain


def _merged(small: Any, large: Any) -> Any:
    """Two recordings as one: a number that differs as the sizes of the batches do becomes {"batch": [numerator, size]}."""
    if isinstance(small, dict) and isinstance(large, dict) and small.keys() == large.keys():
        return {key: _merged(small[key], large[key]) for key in small}
    if isinstance(small, list) and isinstance(large, list) and len(small) == len(large):
        return [_merged(one, other) for one, other in zip(small, large)]
    if type(small) is type(large) and small == large:
        return small
    if type(small) is type(large) is int and small * BATCHES[1] == large * BATCHES[0]:
        return {"batch": [small, BATCHES[0]]}
    raise Unrecorded("what it computes depends on the size of the batch")


# ---------------------------------------------------------------------------------------------------------------------
# Running
# ---------------------------------------------------------------------------------------------------------------------


class Replay(nn.Module):
    """A recorded network, with the same names of weights.

    script:  what `record` returned, or anything else: it comes from where submitted code ran
    weights: a tensor for each name, which become the network's own

    Raises ValueError for a text that is no script, or has more in it than `record` writes.
    """

    def __init__(self, script: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.__script = script  # two underscores: the network may have a layer of any name
        try:
            for mode in ("train", "eval"):
                expect_no_table(script[mode]["calls"])
                _expect_known(call["call"] for call in script[mode]["calls"])
            self.__last = {mode: _last_uses(script[mode]) for mode in ("train", "eval")}
            shared = {
                name: nn.Parameter(weights[name], requires_grad=name not in script["frozen"])
                for name in script["weights"].values()
                if name not in script["buffers"]
            }
            for name, first in script["weights"].items():
                if name in script["buffers"]:
                    self._owner(name).register_buffer(name.rpartition(".")[2], weights[name])
                else:
                    self._owner(name).register_parameter(name.rpartition(".")[2], shared[first])
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"this is not the script of a network: {error}") from None

    def _owner(self, name: str) -> nn.Module:
        """The module that has the weight of this name."""
        owner: nn.Module = self
        for part in name.split(".")[:-1]:
            if part not in dict(owner.named_children()):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        return owner

    def to(self, *args: Any, **kwargs: Any) -> "Replay":
        """As of every module, but the memory layout is that which the recorded network's layers ask for; it decides bits."""
        if "memory_format" in kwargs:
            kwargs["memory_format"] = torch.channels_last if self.__script["channels_last"] else torch.contiguous_format
        return super().to(*args, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        mode = "train" if self.training else "eval"
        script, last = self.__script[mode], self.__last[mode]
        known = _Known(images, nn.Module.state_dict(self, keep_vars=True))
        for number, call in enumerate(script["calls"]):
            args = [known.read(one) for one in call["args"]]
            kwargs = {key: known.read(value) for key, value in call["kwargs"].items()}
            known.results.extend(_run(call["call"], args, kwargs))
            for done in last.get(number, ()):
                known.results[done] = None  # a wide network's maps do not fit into memory all at once
        output: Tensor = known.read({"tensor": script["output"]})
        return output


class _Known:
    """What arguments may refer to, while a script runs."""

    def __init__(self, images: Tensor, weights: Mapping[str, Tensor]) -> None:
        self.images, self.weights = images, weights
        self.results: list[object] = [images]

    def read(self, plain: Any) -> Any:
        """An argument, from what JSON has for it."""
        if not isinstance(plain, dict):
            return plain
        ((kind, content),) = plain.items()
        match kind:
            case "tensor":
                return self.weights[content] if isinstance(content, str) else self.results[content]
            case "batch":
                return _share_of(len(self.images), *content)
            case "dtype":
                return DTYPES[content]
            case "layout":
                return LAYOUTS[content]
            case "device":
                return self.images.device
            case "float":
                return {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}[content]
            case "ellipsis":
                return Ellipsis
        parts = [self.read(part) for part in content]
        return slice(*parts) if kind == "slice" else tuple(parts) if kind == "tuple" else parts


def _expect_known(names: Iterable[str]) -> None:
    """Raise KeyError for a function that is not recorded: nothing else is ever called."""
    for name in names:
        if name not in FUNCTIONS and name not in (f"view.{view}" for view in VIEWS.values()):
            raise KeyError(name)


def _last_uses(script: Mapping[str, Any]) -> dict[int, list[int]]:
    """For the number of a call, the results that no later call uses."""
    last: dict[int, int] = {}
    for number, call in enumerate(script["calls"]):
        for used in _references([call["args"], call["kwargs"]]):
            last[used] = number
    last.pop(script["output"], None)
    found: dict[int, list[int]] = {}
    for used, number in last.items():
        found.setdefault(number, []).append(used)
    return found


def _references(plain: object) -> Iterator[int]:
    """The results that arguments refer to, by number."""
    parts = plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ()
    for part in parts:
        if isinstance(plain, dict) and "tensor" in plain:
            if isinstance(part, int):
                yield part
        else:
            yield from _references(part)


def _run(name: str, args: list[Any], kwargs: dict[str, Any]) -> Iterator[Any]:
    place, _, view = name.partition(".")
    if place == "view":
        return iter([getattr(args[0], view)])
    output = FUNCTIONS[name](*args, **kwargs)
    return iter([args[0]]) if view == "__setitem__" else _flat(output)


def _share_of(batch: int, numerator: int, size: int) -> int:
    if numerator * batch % size:
        raise ValueError(f"a batch of {batch} cannot be parted as the network does it")
    return numerator * batch // size
