"""How fast is the lesson's pipeline, side by side with the usual one: the same network, augmentation and machine."""

import contextlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import models
import utils
from lab.runs.recipes import STEP_3


def bench(rounds: int = 5, images: int = 60_000) -> dict[str, float]:
    """Time one training epoch of so many images, `rounds` times each in turn; return the medians in seconds, with ratios.

    usual_s: torchvision's transforms on PIL images, a DataLoader with two workers, float32; without the warp, which
             would be a filter of its own for every image there, so that the comparison errs on the usual one's side
    ours_s:  the lesson's loader and precision, and step 3's whole augmentation
    bare_s:  forward and backward passes alone, on one batch in memory, in the lesson's precision
    data_s:  the lesson's loader alone
    idle_s:  the lesson's epoch again, in turn with
    busy_s:  the same beside one process that keeps a core busy
    """
    train, _ = utils.load_data(utils.pick_device())
    ours = utils.Loader(train[:images], STEP_3.batch_size, utils.make_transform(STEP_3.augmentation), shuffle=True)
    epochs: dict[str, Callable[[], object]] = {
        "usual_s": _usual_epoch(_usual_loader(train[:images]), train.images.device),
        "ours_s": _our_epoch(ours),
        "bare_s": _bare_epoch(ours),
        "data_s": lambda: sum(len(labels) for _, labels in ours),
        "idle_s": _our_epoch(ours),
        "busy_s": _our_epoch(ours),
    }
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            with _busy_process() if name == "busy_s" else contextlib.nullcontext():
                started = time.perf_counter()
                epoch()
                _wait(train.images.device)
                seconds[name].append(time.perf_counter() - started)
    result = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on a Mac, in KiB elsewhere
    return result | {
        "ratio": round(result["usual_s"] / result["ours_s"], 2),
        "ours_to_bare": round(result["ours_s"] / result["bare_s"], 2),
        "busy_ratio": round(result["busy_s"] / result["idle_s"], 2),
        "data_share": round(result["data_s"] / result["ours_s"], 3),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20),
    }


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    """Other work on this machine: a process that computes on one core without a pause."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


class _Pictures(Dataset):
    """Images as torchvision's datasets give them, one by one and as PIL's."""

    def __init__(self, digits: utils.Digits, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.labels, self.transform = digits.images.cpu().numpy(), digits.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def _usual_loader(digits: utils.Digits) -> DataLoader:
    bounds = STEP_3.augmentation
    transform = transforms.Compose(
        [
            transforms.RandomAffine(
                degrees=bounds.get("rotation", 0),
                translate=(bounds.get("shift", 0), bounds.get("shift", 0)),
                scale=(1 - bounds.get("scale", 0), 1 + bounds.get("scale", 0)),
                shear=bounds.get("shear", 0),
                interpolation=transforms.InterpolationMode.BILINEAR,
            ),
            transforms.ToTensor(),
            transforms.Normalize((utils.MNIST_MEAN,), (utils.MNIST_STD,)),
        ]
    )
    return DataLoader(_Pictures(digits, transform), STEP_3.batch_size, shuffle=True, num_workers=2)


def _fresh_network(device: torch.device) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    utils.seed_everything(0)
    model = getattr(models, STEP_3.network)(**STEP_3.switches).to(device)
    return model, utils.make_optimizer(model, STEP_3.learning_rate, STEP_3.momentum, STEP_3.weight_decay)


def _usual_epoch(loader: DataLoader, device: torch.device) -> Callable[[], object]:
    model, optimizer = _fresh_network(device)

    def epoch() -> None:
        for images, labels in loader:
            loss = utils.loss_function(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def _our_epoch(loader: utils.Loader) -> Callable[[], object]:
    model, optimizer = _fresh_network(loader.digits.images.device)
    return lambda: utils.train(model, loader, optimizer)


def _bare_epoch(loader: utils.Loader) -> Callable[[], object]:
    device = loader.digits.images.device
    model, _ = _fresh_network(device)
    model.to(memory_format=utils.fast_layout(model, device))
    images, labels = next(iter(loader))

    def epoch() -> None:
        for _ in range(len(loader)):
            with utils.mixed_precision(device, bfloat16=True):
                logits = model(images)
            model.zero_grad()
            utils.loss_function(logits, labels).backward()

    return epoch


def _wait(device: torch.device) -> None:
    """A GPU works on after the call returned."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
