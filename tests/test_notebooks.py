"""The notebooks and the records say the same; and a notebook is what a reader expects it to be."""

import ast
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import models
import utils
from lab.evidence import contrasts, records, statistics
from lab.evidence.places import RESULTS
from lab.evidence.tables import at_least_share
from lab.runs.recipes import STUDIES
from tests.short_kernel import write_startup

ROOT = Path(__file__).parent.parent
STEPS = (1, 2, 3)
NOTEBOOKS = {step: nbformat.read(ROOT / f"Session7_Step{step}.ipynb", as_version=4) for step in STEPS}
NOTEBOOKS["peers"] = nbformat.read(ROOT / "lab/Peers.ipynb", as_version=4)
NOTEBOOKS["your"] = nbformat.read(ROOT / "lab/Your_Network.ipynb", as_version=4)


def code_cells(step):
    return [cell for cell in NOTEBOOKS[step].cells if cell.cell_type == "code"]


def text_of(cell):
    """All that a cell shows as text."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(shown)


def outputs(step):
    return "\n".join(text_of(cell) for cell in code_cells(step))


def record(step):
    return records.load("consistency", f"step{step}", RESULTS)[0]


def constants(step):
    """What the notebook's assignments of literals assign, by name."""
    found = {}
    for cell in code_cells(step):
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
                found[node.targets[0].id.lower()] = ast.literal_eval(node.value)
    return found


# The form


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_cells_were_executed_from_top_to_bottom(step):
    assert [cell.execution_count for cell in code_cells(step)] == list(range(1, len(code_cells(step)) + 1))


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_outputs_hold_no_errors_no_warnings_and_no_progress(step):
    for cell in code_cells(step):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"
            assert not any("widget" in kind for kind in output.get("data", {}))
        assert "batch/s" not in text_of(cell)
        assert "\r" not in text_of(cell)


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_a_cell_is_short_and_has_a_sentence_before_it(step):
    for before, cell in pairwise(NOTEBOOKS[step].cells):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 15
            assert before.cell_type == "markdown"


@pytest.mark.parametrize("step", STEPS)
def test_a_notebook_opens_with_target_result_analysis_and_closes_with_exercises(step):
    cells = NOTEBOOKS[step].cells
    places = [cells[0].source.index(f"**{title}**") for title in ("Target", "Result", "Analysis")]
    assert places == sorted(places)
    assert len(cells[0].source.split()) <= 300
    analysis = cells[0].source[places[-1] :]
    assert 3 <= len(re.findall(r"^- ", analysis, re.MULTILINE)) <= 5
    headings = [cell.source.splitlines()[0] for cell in cells if cell.source.startswith("##")]
    assert [heading.split(":")[0] for heading in headings[-4:]] == [
        "## Exercises",
        *(f"### Exercise {step}{letter}" for letter in "abc"),
    ]


def test_step_3_opens_in_at_most_250_words():
    assert len(NOTEBOOKS[3].cells[0].source.split()) <= 250


@pytest.mark.parametrize("step", [*STEPS, "peers"])
def test_a_notebook_defines_no_network_and_no_loop_of_training(step):
    for cell in code_cells(step):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.While))
        assert "backward" not in cell.source


def common_code_cells(step):
    """The source of those of sections 1 to 7; from 8 on, a notebook has its own."""
    cells = NOTEBOOKS[step].cells
    (end,) = [i for i, cell in enumerate(cells) if cell.source.startswith("## 8. ")]
    return [cell.source for cell in cells[:end] if cell.cell_type == "code"]


LESSON = re.compile(
    r"Model_|step_?\d|Step\d|^(LEARNING_RATE|WEIGHT_DECAY|STEP_SIZE|GAMMA|AUGMENTATION|PLAIN_EPOCHS) = "
)
OWN = re.compile(r"inspect|show_augmented|show_dropout|stroke|gaps|lowest|hundred")  # cells that one step alone has


def test_two_notebooks_differ_only_where_the_lesson_is():
    """All code but the lines that name the step, its network, its constants; and the cells that one step alone has."""
    for first, second in pairwise(STEPS):
        common = [
            [source for source in common_code_cells(step) if not OWN.search(source) and "before=" not in source]
            for step in (first, second)
        ]
        for one, other in zip(*common, strict=True):
            for line, its_counterpart in zip(one.splitlines(), other.splitlines(), strict=True):
                assert line == its_counterpart or (LESSON.search(line) and LESSON.search(its_counterpart))


# The figures


@pytest.mark.parametrize("step", STEPS)
def test_the_recipe_of_the_lab_is_the_notebook(step):
    recipe = STUDIES["consistency"].recipes[f"step{step}"]
    here = constants(step)
    for name in (
        "epochs",
        "batch_size",
        "learning_rate",
        "momentum",
        "weight_decay",
        "step_size",
        "gamma",
        "augmentation",
        "plain_epochs",
    ):
        assert here[name] == getattr(recipe, name), name
    (call,) = {line for cell in code_cells(step) for line in cell.source.splitlines() if line.startswith("model = ")}
    network = eval(call.removeprefix("model = ").removesuffix(".to(device)"), vars(models).copy())
    assert str(network) == str(recipe.make_network())


@pytest.mark.parametrize("step", STEPS)
def test_the_notebook_shows_the_recorded_run_of_its_seed(step):
    """All columns but the seconds: the notebook and the study are one run, to the last digit shown."""
    shown = [
        line.split()[:6] for line in outputs(step).splitlines() if re.match(r" +\d+ +[\d.e-]+( +[\d.]+){5}$", line)
    ]
    assert shown == [line.split()[:6] for line in str(record(step)).splitlines()[1:]]


# What the text may say without a run having shown it: the targets, the sizes of MNIST, of its sample and of its held-out part,
# the luck of which images are tested, the margin of "equivalent", and how many labels five annotators did not confirm (see lab/README.md).
GIVEN = {"5,000", "8,000", "9,940", "99.4", "99.40", "99.50", "10,000", "50,000", "70,000", "55", "15", "95"}
GIVEN |= {"99.5", f"{contrasts.MARGIN}", f"{statistics.standard_error(99.5, 10_000):.2f}", "0.30"}
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")


def numbers(text):
    """Its numbers as they are written, less those in code, in addresses, of steps, of kernels, and the years of sources."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|\w+://\S+|[Ss]teps? \d(?:(?:,| and| to) \d)*|\dx\d|, (?:19|20)\d\d\)", "", text)
    return NUMBER.findall(text)


def texts(step):
    """The markdown of a notebook up to its exercises, which claim nothing."""
    sources = [cell.source for cell in NOTEBOOKS[step].cells if cell.cell_type == "markdown"]
    exercises = [i for i, source in enumerate(sources) if source.startswith("## Exercises")]
    return sources[: exercises[0]] if exercises else sources


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_every_number_of_the_text_is_in_an_output(step):
    """Of this notebook, or of a step before it that it compares with; or in its code, as a hyperparameter is."""
    earlier = [] if step not in STEPS else [outputs(before) for before in STEPS[: step - 1]]
    shown = [*earlier, outputs(step), *(cell.source for cell in code_cells(step))]
    known = GIVEN | set(NUMBER.findall("\n".join(shown)))
    claimed = [numbers(text) for text in texts(step)]
    assert len(claimed[0]) >= 5 or step == "your"
    assert [number for one in claimed for number in one if number not in known] == []


def test_peers_counts_the_mistakes_that_all_share():
    said = re.sub(r"\s+", " ", NOTEBOOKS["peers"].cells[0].source)
    networks, images = re.search(
        r"One run of each of (\d+) networks: all misclassify the same (\d+) test images", said
    ).groups()
    assert f"wrong for all of them: {images} test images," in outputs("peers")
    assert len(
        re.findall(r"^\w+ +\d+ +\d+( +\d+)+$", outputs("peers").split("shared mistakes")[1], re.MULTILINE)
    ) == int(networks)


INTERVAL = r"[+-]\d+\.\d+ \([+-]\d+\.\d+ to [+-]\d+\.\d+\)"


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_every_interval_of_the_text_is_in_an_output_as_a_whole(step):
    shown = re.sub(r"\s+", " ", outputs(step))
    claimed = [interval for text in texts(step) for interval in re.findall(INTERVAL, re.sub(r"\s+", " ", text))]
    assert claimed or step in (1, "your")
    assert [interval for interval in claimed if interval not in shown] == []


@pytest.mark.parametrize("step", STEPS)
def test_a_network_of_the_lesson_has_fewer_than_8000_parameters(step):
    assert f"{record(step).parameters:,} parameters, fewer than 8,000: True" in outputs(step)


def test_step_1_overfits_step_2_closes_the_gap():
    gaps = {step: [run.gap for run in records.load("consistency", f"step{step}").values()] for step in STEPS}
    assert max(gaps[2]) < min(gaps[1]) / 1.5
    assert sum(gaps[2]) / len(gaps[2]) < sum(gaps[1]) / len(gaps[1]) / 2


def test_without_batch_norm_a_seed_never_learns_and_the_others_learn_less():
    without, step1 = (records.load("ladder", name, RESULTS) for name in ("no_batch_norm", "step1"))
    assert sorted(without) == list(range(10))
    assert [seed for seed, run in without.items() if max(run.test_accuracy) < 12] == [1]
    assert all(without[seed].mean_last_five < step1[seed].mean_last_five for seed in without)


def test_step_3_meets_its_target_for_each_of_twenty_seeds():
    runs = records.load("consistency", "step3", RESULTS)
    assert list(runs) == list(range(20))
    for run in runs.values():
        assert utils.verdict(run).consistent
        assert run.parameters < 8_000 and len(run) <= 15
    assert sum(run.mean_last_five for run in runs.values()) / len(runs) >= 99.50
    assert all(runs[seed].mean_last_five >= 99.50 for seed in range(5))


def test_step_3_meets_its_target_for_each_of_eighty_seeds_that_chose_nothing():
    fresh = {seed: run for seed, run in records.load("hundred", "step3", RESULTS).items() if seed >= 20}
    assert list(fresh) == list(range(20, 100))
    assert all(utils.verdict(run).consistent for run in fresh.values())
    opening = NOTEBOOKS[3].cells[0].source
    assert f"{at_least_share(80, 80)} of all (95 % bound, section 7)" in " ".join(opening.split())


def test_what_step_3_says_of_clothes_is_recorded():
    on_digits, on_clothes = contrasts.changes("ladder"), contrasts.changes("fashion")
    points = {key: contrast.difference.mean for key, contrast in on_clothes.items()}
    for key in ("schedule", "dropout", "augmentation", "plain_epochs"):
        assert on_clothes[key].says == contrasts.DIFFERENT
    assert on_digits["schedule"].says == contrasts.DIFFERENT and points["schedule"] > 0
    assert points["augmentation"] < points["dropout"] == pytest.approx(-1, abs=0.05)
    assert 0 < points["plain_epochs"] < -points["augmentation"]
    digits, clothes = (
        {key: statistics.over_seeds(runs).mean for key, runs in records.load_study(name).items()}
        for name in ("ladder", "fashion")
    )
    more = [(100 - clothes[key]) / (100 - digits[key]) for key in points if key != "no_batch_norm"]
    assert all(10 <= times < 21 for times in more)
    larger = [abs(points[key]) > abs(on_digits[key].difference.mean) for key in points]
    assert sum(larger) > len(larger) / 2
    assert {len(runs) for runs in records.load_study("fashion").values()} == {5}


# Away from home


COLAB = """
import os, shutil, sys, types
for name in ("google", "google.colab", "google.colab.files"):
    sys.modules.setdefault(name, types.ModuleType(name))
files = sys.modules["google.colab"].files = sys.modules["google.colab.files"]

def upload():
    chosen = os.environ["CHOSEN"].split()
    for path in chosen:
        shutil.copy(path, ".")  # as Colab's does
    return {os.path.basename(path): b"" for path in chosen}

files.upload = upload
"""


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """An empty folder to open a notebook in, whose kernel takes itself for Colab's: the user chooses a file to upload."""
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "colab.py").write_text(COLAB)
    write_startup(tmp_path / "ipython")
    (tmp_path / "content").mkdir()
    for name, value in {"IPYTHONDIR": tmp_path / "ipython", "SESSION7_DATASET": "sample"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path / "content"


@pytest.fixture
def lesson_zip(tmp_path):
    """What GitHub's "Download ZIP" gives: the repository in a folder of its own."""
    for name in ("models.py", "utils.py"):
        (tmp_path / "zip/lesson-main").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "zip/lesson-main")
    for room in ("lab", "app"):
        shutil.copytree(ROOT / room, tmp_path / "zip/lesson-main" / room, ignore=shutil.ignore_patterns("__pycache__"))
    return shutil.make_archive(str(tmp_path / "lesson-main"), "zip", tmp_path / "zip")


def run_alone(step, folder, cells=None):
    """Execute a notebook in a folder, or only its first `cells` code cells."""
    notebook = nbformat.from_dict(json.loads(json.dumps(NOTEBOOKS[step])))
    if cells:
        notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][:cells]
    # a print that comes in two parts is one output, as in the committed notebooks
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}, coalesce_streams=True).execute()
    return notebook


# What is slow runs in `make verify`: the set-up is the same in all notebooks, and one shows whether it works.
@pytest.mark.parametrize(
    "step", [1, *(pytest.param(other, marks=pytest.mark.slow) for other in (2, 3, "peers")), "your"]
)
def test_a_notebook_alone_in_colab_runs_with_the_zip_and_shows_the_records(colab, lesson_zip, monkeypatch, step):
    monkeypatch.setenv("CHOSEN", lesson_zip)
    executed = [cell for cell in run_alone(step, colab).cells if cell.cell_type == "code"]
    assert len(executed) == len(code_cells(step))
    for cell, committed in zip(executed, code_cells(step)):
        assert "no recorded run" not in text_of(cell)
        assert bool(cell.outputs) == bool(committed.outputs), cell.source
        if "recorded" in cell.source and "ignore" not in str(cell.metadata):
            assert text_of(cell) == text_of(committed)
    placed = [text_of(cell) for cell in executed if "place_among" in cell.source]
    assert step not in STEPS or "cannot be placed among the 20 recorded seeds: it has 1,000 test images" in placed[0]


@pytest.mark.parametrize("chosen", ["", "utils.py", "other.zip"], ids=["cancelled", "no ZIP", "another ZIP"])
def test_in_colab_a_wrong_file_is_one_sentence_that_says_what_to_do(colab, tmp_path, monkeypatch, chosen):
    shutil.copy(ROOT / "utils.py", tmp_path)
    (tmp_path / "somewhere").mkdir()
    shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path / "somewhere")
    monkeypatch.setenv("CHOSEN", chosen and str(tmp_path / chosen))
    with pytest.raises(CellExecutionError) as error:
        run_alone(1, colab, cells=2)
    assert str(error.value).strip().endswith("The lesson's ZIP is not here: run the cell above again and choose it.")


def test_in_colab_a_published_notebook_clones_and_a_second_run_of_its_cells_does_nothing(colab, tmp_path, monkeypatch):
    origin = tmp_path / "origin"
    shutil.copytree(ROOT / "lab", origin / "lab", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("models.py", "utils.py"):
        shutil.copy(ROOT / name, origin)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "lesson"]):
        subprocess.run(["git", *command], cwd=origin, check=True)
    first, second = (cell.source for cell in code_cells(1)[:2])
    first = first.replace('REPOSITORY = ""', f'REPOSITORY = "{origin}"')
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in (first, second) * 2])
    notebook.cells.append(nbformat.v4.new_code_cell("import utils\nprint(utils.__file__)"))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": colab}}).execute()
    assert text_of(notebook.cells[-1]).strip() == str(colab / "lesson" / "utils.py")


# Your network


def test_the_notebook_of_your_network_is_a_submission():
    """`grade` takes the cells with these tags; the recipe is a literal, which it can read without running anything."""
    tagged = {tag: cell.source for cell in code_cells("your") for tag in cell.metadata.get("tags", [])}
    assert "class Net(nn.Module)" in tagged["submission"]
    assert isinstance(ast.literal_eval(tagged["recipe"].removeprefix("RECIPE = ")), dict)


def test_your_network_misses_the_target_and_the_card_says_by_how_much():
    """Else there would be nothing left to do."""
    (judged,) = [text_of(cell) for cell in code_cells("your") if cell.source.startswith("card = judge")]
    consistent, seeds = map(int, re.search(r"^consistent +(\d) of (\d) seeds", judged, re.MULTILINE).groups())
    assert consistent < seeds == 3
    assert re.search(r"^to Step 3 .* points, paired over seeds 0 1 2", judged, re.MULTILINE)
