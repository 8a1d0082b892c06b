"""For nbval: without all of MNIST, the cells whose output depends on it run, and are not compared.

They have the tag "needs-mnist" in their notebooks. The last line says how many there are: `pytest -p tests.needs_mnist`.
"""

import contextlib
import io
from pathlib import Path

import nbformat
import pytest
import torch

import utils
from tests.notes import note

TAG = "needs-mnist"


def pytest_configure(config: pytest.Config) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # the notebooks say where their images come from
        config.has_mnist = utils.load_data(torch.device("cpu"))[0].dataset == "MNIST"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not config.has_mnist and is_tagged(item.cell):
            item.options["check"] = False


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.has_mnist or hasattr(config, "workerinput"):
        return
    notebooks = [nbformat.read(path, as_version=4) for path in config.args if Path(path).suffix == ".ipynb"]
    count = sum(is_tagged(cell) for notebook in notebooks for cell in notebook.cells)
    note(f"not compared: the outputs of {count} cells that ran, but depend on all of MNIST, which is not here")


def is_tagged(cell: nbformat.NotebookNode) -> bool:
    return TAG in cell.metadata.get("tags", [])
