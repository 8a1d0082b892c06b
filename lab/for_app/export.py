"""Export a trained network to ONNX, so that it runs without PyTorch."""

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

import models
import utils
from lab.evidence.places import APP_NETWORK, expect_folder, is_evidence, refuse_evidence
from lab.evidence.records import shortfall
from lab.for_app.calibration import add_temperature
from lab.for_app.maps import describe_maps
from lab.runs import datasets
from lab.runs.checkpoint import Loaded, load_model
from lab.runs.train import evaluate, predict


class FromPixels(nn.Module):
    """Wrap a network to take raw pixels, uint8 of shape (N, 1, 28, 28), and normalize them as in training."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images.float() / 255 - self.mean) / self.std)


def export(path: Path, to: Path = APP_NETWORK) -> str:
    """Export the network of a checkpoint to ONNX, with input `images` and output `logits`; return a one-line summary.

    The file's metadata holds the recipe, the seed, the test accuracy, the temperature that calibrates confidence, and where
    the feature maps are. Raises what `load_model` raises, and ValueError if `to` is the app's network and the run was not
    a full run on all of MNIST.
    """
    refuse_evidence(to, "name another file, `export CHECKPOINT FILE`")
    expect_folder(to.parent)
    loaded = load_model(path)
    if is_evidence(to):
        _refuse_short(path, to, loaded)
    training, test = datasets.load(loaded.recipe.dataset, utils.pick_device())
    tested = evaluate(predict(loaded.model, loaded.recipe, test), test.labels)
    network = FromPixels(loaded.model.cpu().eval(), loaded.recipe.mean, loaded.recipe.std).to(
        memory_format=torch.contiguous_format
    )
    content = to_onnx(network)
    about = {
        "name": loaded.name,
        "recipe": json.dumps(asdict(loaded.recipe)),
        "seed": str(loaded.seed),
        "epoch": str(loaded.epoch),
        "parameters": str(models.count_parameters(loaded.model)),
        "accuracy": f"{tested.accuracy:.2f}",
        "tested_on": f"{tested.images} test images of {test.dataset}",
    } | describe_maps(content)
    onnx.helper.set_model_props(content, about)
    with utils.whole_or_not_at_all(to) as unfinished:
        onnx.save(content, unfinished)
        add_temperature(unfinished, training)
    return f"{loaded.name}, seed {loaded.seed}: {tested.accuracy:.2f} % of {tested.images:,} test images, in {to}"


def _refuse_short(path: Path, to: Path, loaded: Loaded) -> None:
    lacks = "it does not say what it was trained on: train it again"
    if loaded.recipe.dataset != "mnist":
        lacks = f"it is of {loaded.recipe.dataset}"
    elif loaded.extent:
        lacks = shortfall(loaded.recipe, loaded.extent, loaded.epoch)
    if lacks:
        raise ValueError(f"{to} is for a full run on all of MNIST, and {path} is none, {lacks}")


def to_onnx(network: nn.Module) -> onnx.ModelProto:
    """Convert a network of raw pixels, see FromPixels, to ONNX, without any trace of this machine."""
    images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own missing features
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("images")},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    content = program.model_proto  # type: ignore[union-attr]  # only without dynamo is there no program
    for described in [*content.graph.node, *content.graph.initializer, *content.graph.input, *content.graph.value_info]:
        described.ClearField("metadata_props")  # source locations: paths on this machine
        described.ClearField("doc_string")
    return content
