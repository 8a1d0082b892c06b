"""Execute notebooks with progress on the terminal, and summarize the three steps in a table."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

import utils
from lab.evidence.places import expect_folder, refuse_evidence

ROOT = Path(__file__).parents[2]
STEPS = ("Session7_Step1", "Session7_Step2", "Session7_Step3")


def execute(folder: Path, names: Sequence[str] = STEPS) -> None:
    """Execute notebooks (the steps with full training), write them with outputs to `folder`, and print the summary.

    names: paths in the repository, without ".ipynb": "Session7_Step1", "lab/Peers"

    Before it executes anything, raises FileNotFoundError if a notebook does not exist, and ValueError if the
    repository's own notebooks would get the outputs of a short run or of the sample.
    """
    for name in names:
        if not (ROOT / f"{name}.ipynb").is_file():
            raise FileNotFoundError(f"there is no notebook {name}.ipynb, expected one such as {STEPS[0]} or lab/Peers")
        refuse_evidence(folder / f"{name}.ipynb", "name another folder, `notebooks FOLDER`")
    expect_folder(folder)
    minutes = {}
    for name in names:
        print(f"{name}.ipynb", flush=True)
        path = ROOT / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        started = time.perf_counter()
        # log errors only: each kernel would warn about its unencrypted connection to this process
        quiet = ["--log-level=40"]
        where = {"metadata": {"path": path.parent}}
        # one output for what a cell prints, however slowly: else a notebook's file would differ from run to run
        _Client(notebook, timeout=None, resources=where, extra_arguments=quiet, coalesce_streams=True).execute()
        minutes[name] = (time.perf_counter() - started) / 60
        _drop_timestamps(notebook)
        executed = folder / f"{name}.ipynb"
        with utils.whole_or_not_at_all(executed) as unfinished:
            nbformat.write(notebook, unfinished)
    steps = {name: spent for name, spent in minutes.items() if name in STEPS}
    if steps:
        print("\n" + summary(steps))


def summary(minutes: Mapping[str, float]) -> str:
    """Return the summary table, from the histories that the notebooks wrote to `runs/`."""
    lines = ["step             parameters   best %   last five epochs, test %        minutes   consistently 99.4 %"]
    for step, spent in minutes.items():
        run = utils.History.load(ROOT / "runs" / f"{step}.json")
        last = " ".join(f"{percent:.2f}" for percent in run.last_five)
        lines.append(
            f"{step:<16} {run.parameters:>10,} {run.best:>8.2f}   {last:<29} {spent:>9.1f}   {utils.verdict(run)}"
        )
    return "\n".join(lines)


class _Client(NotebookClient):
    """Prints what a cell updates in place (the progress bar, then the table) to the terminal."""

    def process_message(
        self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int
    ) -> nbformat.NotebookNode | None:
        content = msg["content"]
        if msg["msg_type"] == "update_display_data":
            text = content["data"].get("text/plain", "")
            if "\n" in text:
                print("\r\033[K" + text, flush=True)
            elif sys.stdout.isatty():
                print("\r\033[K" + text, end="", flush=True)
        return super().process_message(msg, cell, cell_index)


def _drop_timestamps(notebook: nbformat.NotebookNode) -> None:
    """Remove execution times, which would change the file with every run."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
