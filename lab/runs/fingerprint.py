"""What a network computes, in some forty numbers. A record keeps them, so that a network whose code has changed is noticed.

Besides `models`, this imports PyTorch alone: a network can be looked at before the rest of the lab is loaded.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models import IMAGE_SIZE

SEED = 0
DIGITS = 6  # significant ones; float64 leaves ten to spare, so that they are the same on every machine
NOTHING = 1e-9  # a smaller number is rounding error

WHOLE_CHANNELS = ("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_alpha_dropout")
DROPOUTS = ("dropout", "alpha_dropout", *WHOLE_CHANNELS)


def fingerprint(make: Callable[[], nn.Module]) -> list[float]:
    """What the network that `make` returns computes from two images, with the initial weights of seed 0.

    make: returns a new network for images of shape (N, 1, 28, 28); it is run once in training mode, then in evaluation
          mode, and is not to be used afterwards

    Returns, for each mode, the outputs for the first image and by how much those for the second differ, rounded to six
    significant digits. They are computed in float64 on the CPU. The images are the same everywhere, and dropout is
    replaced by fixed factors. So layers, their order, their initial weights, the kind and the probability of dropout,
    and the momentum of batch norm all leave their mark, and the machine does not. PyTorch's generator stays as it is.

    Raises ValueError if the output is not one row of finite numbers per image, and what the network itself raises.
    """
    try:
        outputs = _run(make, torch.float64)
    except RuntimeError:  # a network may make float32 tensors where nobody can change that
        outputs = _run(make, torch.float32)
    for output in outputs:
        if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != 2:
            shape = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the network's output for two images is {shape}, expected one of shape (2, classes)")
        if not output.isfinite().all():
            raise ValueError("the network's output is not finite, with its initial weights and pixels from -2 to 2")
    # the differences show what becomes of the image even where it is faint beside the last layer's bias
    numbers = [number for first, second in outputs for part in (first, second - first) for number in part.flatten()]
    return [_rounded(float(number)) for number in numbers]


def digest(numbers: Sequence[float]) -> str:
    """Ten hexadecimal digits for a fingerprint, for names of files and folders on one machine."""
    return hashlib.sha256(repr(list(numbers)).encode()).hexdigest()[:10]


def _run(make: Callable[[], nn.Module], dtype: torch.dtype) -> list[Tensor]:
    """The outputs for two images in training mode and in evaluation mode.

    The weights are drawn in this type too: float32 draws differ between processors in their last bits.
    """
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(SEED)
        torch.set_default_dtype(dtype)
        try:
            model, images = make().cpu().to(dtype), _images().to(dtype)
            with _FixedDropout():
                # in this order, so that what batch norm kept shows; each with its own images, which a network may change
                return [model.train()(images.clone()), model.eval()(images.clone())]
        finally:
            torch.set_default_dtype(default)


def _images() -> Tensor:
    """Two images without symmetry, of shape (2, 1, 28, 28), by arithmetic on integers: the same bits everywhere."""
    numbers = torch.arange(2 * IMAGE_SIZE**2, dtype=torch.int64) ** 2 * 37 % 101
    light_on_dark, other = (numbers.double() / 40 - 0.5).reshape(2, 1, IMAGE_SIZE, IMAGE_SIZE)  # -0.5 to 2
    return torch.stack([light_on_dark, -other])


def _rounded(number: float) -> float:
    return 0.0 if abs(number) < NOTHING else float(f"{number:.{DIGITS}g}")


class _FixedDropout(TorchFunctionMode):
    """While it is active, dropout multiplies by fixed factors around one, which depend on its kind and probability."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = getattr(func, "__name__", "").strip("_")
        if name in DROPOUTS:
            return _fixed_dropout(name, *args, **kwargs or {})  # type: ignore[arg-type]
        return func(*args, **kwargs or {})


def _fixed_dropout(
    name: str, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *, train: bool = True
) -> Tensor:
    """In place of `torch.nn.functional.dropout` and its kin; `torch.dropout` calls the third argument `train`."""
    if not (training and train):
        return input
    shape = input.shape[1:] if name not in WHOLE_CHANNELS else (input.shape[1], *[1] * (input.dim() - 2))
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + DROPOUTS.index(name)
    factors = (1 - p * torch.cos(places)).reshape(shape).to(input.dtype)
    return input.mul_(factors) if inplace else input * factors
