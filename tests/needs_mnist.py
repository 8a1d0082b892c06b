"""For nbval, `pytest -p tests.needs_mnist`: what notebooks do on a machine without MNIST, or in a hurry.

Without all of MNIST, the cells whose output depends on it run, but are not compared. They have the tag "needs-mnist" in
their notebooks; the last line says how many there are. SESSION7_SHORT=1 has every kernel train for two epochs only.
"""

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
import torch

import utils
from tests.notes import note
from tests.short_kernel import write_startup

TAG = "needs-mnist"


def pytest_configure(config: pytest.Config) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # the notebooks say where their images come from
        config.has_mnist = utils.load_data(torch.device("cpu"))[0].dataset == "MNIST"
    if os.environ.get("SESSION7_SHORT"):
        config.ipython_folder = Path(tempfile.mkdtemp())
        write_startup(config.ipython_folder)
        os.environ["IPYTHONDIR"] = str(config.ipython_folder)  # kernels inherit it


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if not config.has_mnist and is_tagged(item.cell):
            item.options["check"] = False


def pytest_unconfigure(config: pytest.Config) -> None:
    if folder := getattr(config, "ipython_folder", None):
        shutil.rmtree(folder, ignore_errors=True)
    if config.has_mnist or hasattr(config, "workerinput"):
        return
    notebooks = [nbformat.read(path, as_version=4) for path in config.args if Path(path).suffix == ".ipynb"]
    count = sum(is_tagged(cell) for notebook in notebooks for cell in notebook.cells)
    note(f"not compared: the outputs of {count} cells that ran, but depend on all of MNIST, which is not here")


def is_tagged(cell: nbformat.NotebookNode) -> bool:
    return TAG in cell.metadata.get("tags", [])
