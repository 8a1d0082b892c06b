"""The images that a recipe names. Fashion-MNIST has the sizes of MNIST, and ten kinds of clothes in place of digits.

Han Xiao, Kashif Rasul and Roland Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", 2017.
"""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import FashionMNIST

import utils
from lab.evidence.records import DATASETS
from lab.runs.complaints import one_line
from utils import Digits

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of its package dataset-fashion-mnist
# MD5 of what the archives hold: Debian has recompressed them, so those of its archives are not torchvision's
CONTENT_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def load(dataset: str, device: torch.device) -> tuple[Digits, Digits]:
    """The training and the test images of a data set, one of DATASETS, on the device.

    MNIST comes as `utils.load_data` finds it, which may be the sample. Raises what that raises, and what `load_fashion`
    raises.
    """
    if dataset == "mnist":
        return utils.load_data(device)
    train, test = load_fashion()
    return train.to(device), test.to(device)


def load_fashion(root: Path = Path("data")) -> tuple[Digits, Digits]:
    """Fashion-MNIST's 60,000 training and 10,000 test images.

    Looks for the four archives in the folder that the environment variable FASHION_MNIST_ARCHIVES names and in that of
    Debian's package dataset-fashion-mnist; elsewhere torchvision fetches them into `root`. Raises RuntimeError for an
    archive that is missing or altered, and where nothing has them.
    """
    named = os.environ.get("FASHION_MNIST_ARCHIVES", "")
    shelf = Path(named) if named else DEBIAN
    if named or shelf.is_dir():
        return _from_archives(shelf, "train"), _from_archives(shelf, "t10k")
    try:
        parts = [FashionMNIST(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"Fashion-MNIST is neither in {root} nor at torchvision's mirror ({one_line(str(error))}): install Debian's package "
            "dataset-fashion-mnist, or name the folder of its four archives in FASHION_MNIST_ARCHIVES"
        ) from None
    train, test = (Digits(part.data, part.targets, DATASETS["fashion-mnist"]) for part in parts)
    return train, test


def _from_archives(shelf: Path, part: str) -> Digits:
    images = _content(shelf, f"{part}-images-idx3-ubyte", header=16)
    labels = _content(shelf, f"{part}-labels-idx1-ubyte", header=8)
    return Digits(images.view(-1, 28, 28), labels.long(), DATASETS["fashion-mnist"])


def _content(shelf: Path, name: str, header: int) -> torch.Tensor:
    """The bytes of an archive behind its header: uint8 of one dimension."""
    archive = shelf / f"{name}.gz"
    try:
        content = gzip.decompress(archive.read_bytes())
    except (OSError, EOFError) as error:
        raise RuntimeError(f"{archive} cannot be read ({error}), expected an archive of Fashion-MNIST") from None
    if hashlib.md5(content).hexdigest() != CONTENT_MD5[name]:
        raise RuntimeError(f"{archive} does not hold Fashion-MNIST's {name}: put an intact copy there")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy())
