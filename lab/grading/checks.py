"""What is held against a submission, from arrays alone: none of this runs submitted code, or believes what it says."""

import io
import math
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import utils

Arrays = Mapping[str, np.ndarray]

MOST_STATE = 16 * 1024**2  # bytes of one epoch's weights
MOST_ARRAYS = 5_000  # tensors in a network
MOST_HEADER = 10_000  # bytes that describe an array

# ---------------------------------------------------------------------------------------------------------------------
# Files that submitted code has written
# ---------------------------------------------------------------------------------------------------------------------


def read_file(path: Path, most: int) -> bytes:
    """The content of a plain file that is not above a size in bytes. Raises ValueError for a missing file, a link or a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            content = file.read(most + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from None
    if not 0 < len(content) <= most:
        raise ValueError(f"{path.name} is no plain file of 1 to {most:,} bytes")
    return content


def read_arrays(path: Path, most: int = MOST_STATE) -> dict[str, np.ndarray]:
    """The arrays of numbers in an npz file, which is not trusted to be one.

    Raises ValueError for anything else: objects, compressed arrays, which may be a thousand times as large as the file,
    and arrays that declare more than there is.
    """
    content = read_file(path, most)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ARRAYS or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed, or has too many arrays")
            if sum(entry.file_size for entry in entries) > most:
                raise ValueError("its arrays overlap")
            return {entry.filename.removesuffix(".npy"): _read_array(archive.read(entry)) for entry in entries}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path.name} has no plain arrays: {error}") from None


def _read_array(content: bytes) -> np.ndarray:
    """One array in NumPy's format, of numbers that are all there."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"its format is {version}, expected (1, 0)")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=MOST_HEADER)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, expected numbers")
    left = content[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(left) or any(side < 0 for side in shape):
        raise ValueError(f"an array of shape {shape} has {len(left)} bytes")
    return np.frombuffer(left, dtype).reshape(shape, order="F" if in_columns else "C")


# ---------------------------------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------------------------------

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def count_parameters(weights: Arrays, shared: Mapping[str, str] | None = None, epochs: Sequence[Arrays] = ()) -> int:
    """How many numbers a network keeps: all that its state holds but batch norm's running statistics.

    Frozen parameters and buffers count: they are numbers that somebody chose. `shared` names tensors that are said to be
    another one; that is believed where they are equal in all `epochs`.
    """
    counted = 0
    for name, array in weights.items():
        first = (shared or {}).get(name)
        known = first is not None and all(
            first in one and name in one and one[name].tobytes() == one[first].tobytes() for one in (weights, *epochs)
        )
        if not known and not _is_statistic(name, weights):
            counted += array.size * max(1, array.itemsize // 4)  # a float64 has room for two
    return counted


def _is_statistic(name: str, weights: Arrays) -> bool:
    """Whether an array is one of the three that batch norm keeps: by its name, its shape and those beside it.

    Anybody can call a buffer running_mean. One number is excused for each channel of a batch norm with weights, or, where
    it has none, of a layer that makes so many channels.
    """
    prefix, _, last = name.rpartition(".")
    beside = {one: weights.get(f"{prefix}.{one}" if prefix else one) for one in (*STATISTICS, "weight")}
    mean, variance, batches = (beside[one] for one in STATISTICS)
    if last not in STATISTICS or mean is None or variance is None or batches is None:
        return False
    if mean.ndim != 1 or mean.shape != variance.shape or batches.size != 1:
        return False
    if beside["weight"] is not None:
        return beside["weight"].shape == mean.shape
    return any(one.ndim > 1 and len(one) == len(mean) for one in weights.values())


def trouble_with_weights(epochs: Sequence[Arrays]) -> str:
    """What is wrong with the weights, of which the first are the initial ones; "" if nothing is."""
    first = {name: (array.shape, array.dtype) for name, array in epochs[0].items()}
    for epoch, weights in enumerate(epochs):
        if {name: (array.shape, array.dtype) for name, array in weights.items()} != first:
            return f"the shapes of its weights after epoch {epoch} are not those that it began with"
        for name, array in weights.items():
            if not np.isfinite(array).all():
                return f"{name} is not finite after epoch {epoch}"
    return ""


def same(one: Arrays, other: Arrays) -> bool:
    """Whether two states are equal to the last bit."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def depends_on_seed(one: Arrays, other: Arrays) -> bool:
    """Whether the initial weights of two seeds differ. Weights that are all zeros or ones in each tensor are drawn by none."""
    drawn = any(array.size > 1 and array.min() != array.max() for array in one.values())
    return not drawn or not same(one, other)


# ---------------------------------------------------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------------------------------------------------

# Percent that may be right before training. Measured: a linear layer, an MLP, LeNet, a network of 1,450 parameters, Model_1 and
# Step 3's: at most 11.8 on MNIST, and 13.5 on the sample.
MOST_UNLEARNED = 50.0


def read_answers(path: Path, sets: int, images: int) -> np.ndarray:
    """The answers of several sets of weights, uint8 of shape (sets, images). Raises ValueError for anything else."""
    arrays = read_arrays(path, most=sets * images + MOST_HEADER)
    answers = arrays.get("answers", np.zeros(0))
    if list(arrays) != ["answers"] or answers.dtype != np.uint8 or answers.shape != (sets, images):
        raise ValueError(
            f"its answers are {answers.dtype} of shape {answers.shape}, expected uint8 of {(sets, images)}"
        )
    if answers.max() >= utils.CLASSES:
        raise ValueError(f"it answers {answers.max()}, expected digits from 0 to 9")
    return answers


def percent_right(answers: np.ndarray, labels: np.ndarray) -> float:
    """Percent of the answers that are right."""
    return 100 * float((answers == labels).mean())
