"""t-SNE of images: of their pixels, and of a network's features before and after training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

import utils
from lab.evidence.figures import save
from lab.evidence.places import expect_folder
from lab.runs import datasets
from lab.runs.checkpoint import load_model
from lab.runs.recipes import Recipe
from lab.runs.train import predict


@torch.no_grad()
def features(model: nn.Module, recipe: Recipe, digits: utils.Digits) -> np.ndarray:
    """Return the inputs of the last linear or convolutional layer, one row per image (DeeperLeNet has 100 features)."""
    last = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].flatten(1)))
    try:
        predict(model, recipe, digits)
    finally:
        hook.remove()
    return torch.cat(seen)[-len(digits) :].float().cpu().numpy()  # `predict` may try the network on blank images first


NEIGHBOURS = 10


def embed(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Embed points in a plane with t-SNE (van der Maaten and Hinton, 2008), so that near points stay near.

    Also returns how well the plane separates the classes: the percentage of points whose class is the most common one
    among their ten nearest neighbors.
    """
    plane = TSNE(n_components=2, init="pca", perplexity=30, random_state=0).fit_transform(points)
    neighbours = KNeighborsClassifier(NEIGHBOURS).fit(plane, labels)
    nearest = neighbours.kneighbors(return_distance=False)  # excludes the point itself
    voted = np.array([np.bincount(labels[row], minlength=utils.CLASSES).argmax() for row in nearest])
    return plane, 100 * float((voted == labels).mean())


def tsne(path: Path, images: int = 1_000) -> str:
    """Plot t-SNE of the first test images by pixels, and by the features of the untrained and the trained network.

    Writes `tsne.png` and the points in `tsne.json` next to the checkpoint. Raises what `load_model` raises.
    """
    loaded = load_model(path)
    expect_folder(path.parent)
    digits = datasets.load(loaded.recipe.dataset, utils.pick_device())[1][:images]
    utils.seed_everything(loaded.seed)
    untrained = loaded.recipe.make_network().to(utils.pick_device())  # the run's initial weights
    labels = digits.labels.cpu().numpy()
    sources = {
        "raw pixels": digits.images.flatten(1).cpu().numpy() / 255,
        "untrained network": features(untrained, loaded.recipe, digits),
        "trained network": features(loaded.model, loaded.recipe, digits),
    }
    panels = {}
    for name, points in sources.items():
        plane, together = embed(points, labels)
        panels[name] = {"dimensions": points.shape[1], "neighbours": together, "points": plane.round(2).tolist()}
    content = {"name": loaded.name, "seed": loaded.seed, "dataset": digits.dataset}
    content |= {"labels": labels.tolist(), "panels": panels}
    utils.write_json(path.parent / "tsne.json", content)
    save(show_tsne(content), path.parent / "tsne.png")
    lines = [f"{name:<18} {one['dimensions']:>4} dimensions: {one['neighbours']:.1f} %" for name, one in panels.items()]
    note = utils.sample_note(digits.dataset)
    head = (
        f"share of {len(labels):,} test images that have mostly their own class among their {NEIGHBOURS} nearest{note}"
    )
    return "\n".join([head, *lines, f"tsne.png and tsne.json are in {path.parent}"])


def show_tsne(content: Mapping[str, Any]) -> Figure:
    """Plot the three panels of `tsne` from the content of `tsne.json`."""
    labels = np.array(content["labels"])
    figure, grid = plt.subplots(1, 3, figsize=(13, 4.9), layout="constrained")
    for axes, (name, panel) in zip(grid, content["panels"].items()):
        points = np.array(panel["points"])
        for digit in range(utils.CLASSES):
            axes.plot(*points[labels == digit].T, ".", color=f"C{digit}", markersize=5, label=str(digit))
        axes.set_title(
            f"{name}, {panel['dimensions']} dimensions\n{panel['neighbours']:.1f} % among their own class", fontsize=10
        )
        axes.set(xticks=[], yticks=[])
    handles = grid[0].get_legend_handles_labels()
    figure.legend(*handles, title="digit", loc="outside lower center", ncols=utils.CLASSES, markerscale=2)
    note = utils.sample_note(content.get("dataset", "MNIST"))  # older files do not name it
    figure.suptitle(f"{len(labels):,} test images by t-SNE: {content['name']}, seed {content['seed']}{note}")
    plt.close(figure)
    return figure
