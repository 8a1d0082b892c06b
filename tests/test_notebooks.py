"""The notebooks, the README and the records say the same; and a notebook is what a reader expects it to be."""

import ast
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

import models
import utils
from lab.recipes import STUDIES

ROOT = Path(__file__).parent.parent
STEPS = (1, 2, 3)
NOTEBOOKS = {step: nbformat.read(ROOT / f"Session7_Step{step}.ipynb", as_version=4) for step in STEPS}
NOTEBOOKS["peers"] = nbformat.read(ROOT / "lab/Peers.ipynb", as_version=4)


def code_cells(step):
    return [cell for cell in NOTEBOOKS[step].cells if cell.cell_type == "code"]


def text_of(cell):
    """All that a cell shows as text."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(shown)


def outputs(step):
    return "\n".join(text_of(cell) for cell in code_cells(step))


def record(step):
    return utils.load_records("consistency", f"step{step}", ROOT / utils.RESULTS)[0]


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
    assert cells[-1].source.startswith("## Exercises")
    assert len(re.findall(r"^\d\. ", cells[-1].source, re.MULTILINE)) >= 2


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_a_notebook_defines_no_network_and_no_loop_of_training(step):
    for cell in code_cells(step):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.While))
        assert "backward" not in cell.source


def common_code_cells(step):
    """Those of sections 1 to 7; from 8 on, a notebook has its own."""
    cells = NOTEBOOKS[step].cells
    (end,) = [i for i, cell in enumerate(cells) if cell.source.startswith("## 8. ")]
    return [cell for cell in cells[:end] if cell.cell_type == "code"]


def test_two_notebooks_differ_only_where_the_lesson_is():
    """All code but the lines that name the step, its network, its constants; and cells of its own at the end."""
    lesson = re.compile(
        r"Model_|step\d|Step\d|^(LEARNING_RATE|WEIGHT_DECAY|STEP_SIZE|GAMMA|AUGMENTATION|PLAIN_EPOCHS) = "
    )
    for first, second in pairwise(STEPS):
        for one, other in zip(common_code_cells(first), common_code_cells(second), strict=True):
            lines = [cell.source.splitlines() for cell in (one, other)]
            assert len(lines[0]) == len(lines[1])
            for line, its_counterpart in zip(*lines):
                assert line == its_counterpart or (lesson.search(line) and lesson.search(its_counterpart))


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


# What the text may say without a run having shown it: the targets, the sizes of MNIST and of its held-out part, and the
# luck of which images are tested.
GIVEN = {"8,000", "9,940", "99.4", "99.40", "99.50", "10,000", "50,000", "70,000"}
GIVEN |= {"99.5", f"{utils.standard_error(99.5, 10_000):.2f}", "99.85"}  # 15 labels of 10,000 are wrong


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_every_number_of_the_text_is_in_an_output(step):
    """Of this notebook, or of a step before it that it compares with; or in its code, as a hyperparameter is.
    The last cell's exercises claim nothing."""
    earlier = [] if step == "peers" else [outputs(before) for before in STEPS[: step - 1]]
    shown = [*earlier, outputs(step), *(cell.source for cell in code_cells(step))]
    known = GIVEN | set(re.findall(r"\d[\d,]*\.?\d*", "\n".join(shown)))
    texts = [cell.source for cell in NOTEBOOKS[step].cells[:-1] if cell.cell_type == "markdown"]
    claimed = [re.findall(r"\d[\d,]*\.\d+|\d+,\d{3}", text) for text in texts]
    assert len(claimed[0]) >= 5
    assert [number for numbers in claimed for number in numbers if number not in known] == []


INTERVAL = r"[+-]\d+\.\d+ \([+-]\d+\.\d+ to [+-]\d+\.\d+\)"
CONSISTENT = r"\d+ of \d+ seeds are consistent|no seed is consistent"


def words(text):
    return set(re.findall(r"\w+", text.lower()))


def not_of_a_row_named_beside_it(pattern, text, rows):
    """What a text claims in the form of the pattern, and no row says whose name is in the same item or paragraph: a
    value that has moved to another row is seen."""
    for passage in re.split(r"\n(?=- )|\n\n", text):
        for claimed in re.findall(pattern, re.sub(r"\s+", " ", passage)):
            names = [words(row) - {"no", "in", "at", "yet"} for row, value in rows if value == claimed]
            if not any(name & words(passage) for name in names):
                yield claimed, passage


def prose(step):
    return "\n\n".join(cell.source for cell in NOTEBOOKS[step].cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("step", NOTEBOOKS)
def test_a_difference_with_its_interval_is_that_of_a_row_of_the_notebook(step):
    rows = re.findall(rf"^(\S.*?) {{2,}}.* ({INTERVAL})$", outputs(step), re.MULTILINE)
    assert not list(not_of_a_row_named_beside_it(INTERVAL, prose(step), rows))


@pytest.mark.parametrize("step", STEPS)
def test_how_many_seeds_are_consistent_is_what_a_row_of_the_notebook_says(step):
    rows = []
    for name, met, of in re.findall(r"^ ?(\S.*?) {2,}.* (\d+) of (\d+)(?: {2,}.*)?$", outputs(step), re.MULTILINE):
        name = "seeds" if name == "all" else name  # the last row of a table of seeds
        rows.append((name, f"{met} of {of} seeds are consistent"))
        if met == "0":
            rows.append((name, "no seed is consistent"))
    assert not list(not_of_a_row_named_beside_it(CONSISTENT, prose(step), rows))


def test_a_difference_in_the_readme_is_that_of_a_row_of_the_report():
    report = (ROOT / utils.RESULTS / "README.md").read_text()
    rows = re.findall(rf"^\| (.*?) \|.* ({INTERVAL}) \|$", report, re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    assert re.findall(INTERVAL, re.sub(r"\s+", " ", readme))
    assert not list(not_of_a_row_named_beside_it(INTERVAL, readme, rows))


@pytest.mark.parametrize("step", STEPS)
def test_a_network_of_the_lesson_has_fewer_than_8000_parameters(step):
    assert f"{record(step).parameters:,} parameters, fewer than 8,000: True" in outputs(step)


def test_step_1_overfits_step_2_closes_the_gap():
    gaps = {step: [run.gap for run in utils.load_records("consistency", f"step{step}").values()] for step in STEPS}
    assert max(gaps[2]) < min(gaps[1]) / 1.5
    assert sum(gaps[2]) / len(gaps[2]) < sum(gaps[1]) / len(gaps[1]) / 2


def test_without_batch_norm_a_seed_never_learns_and_the_others_learn_less():
    without, step1 = (utils.load_records("ladder", name, ROOT / utils.RESULTS) for name in ("no_batch_norm", "step1"))
    assert sorted(without) == list(range(10))
    assert [seed for seed, run in without.items() if max(run.test_accuracy) < 12] == [1]
    assert all(without[seed].mean_last_five < step1[seed].mean_last_five for seed in without)


def test_step_3_meets_its_target_for_each_of_twenty_seeds():
    runs = utils.load_records("consistency", "step3", ROOT / utils.RESULTS)
    assert list(runs) == list(range(20))
    for run in runs.values():
        assert utils.verdict(run).consistent
        assert run.parameters < 8_000 and len(run) <= 15
    assert sum(run.mean_last_five for run in runs.values()) / len(runs) >= 99.50
    assert all(runs[seed].mean_last_five >= 99.50 for seed in range(5))


def test_the_readme_has_the_row_of_each_step():
    readme = (ROOT / "README.md").read_text()
    for step in STEPS:
        run, seeds = record(step), utils.load_records("consistency", f"step{step}").values()
        last = " ".join(f"{percent:.2f}" for percent in run.last_five)
        mean = sum(run.mean_last_five for run in seeds) / len(seeds)
        met = sum(utils.verdict(run).consistent for run in seeds)
        row = (
            f"| [{step}](Session7_Step{step}.ipynb) | {run.parameters:,} | {run.best:.2f} | {last} | {run.gap:+.2f} "
            f"| {mean:.2f} | {met} of {len(seeds)} |"
        )
        assert row in readme, row


def test_the_readme_says_between_which_figures_step_3_lies():
    last = [percent for run in utils.load_records("consistency", "step3").values() for percent in run.last_five]
    sentence = f"Step 3's last five epochs lie between {min(last):.2f} and {max(last):.2f} %, over all seeds."
    assert sentence in (ROOT / "README.md").read_text()


def test_the_readme_says_how_small_the_network_can_be():
    row = json.loads((ROOT / utils.RESULTS / "summary.json").read_text())["frontier"]["3982_parameters"]
    sentence = (
        f"{row['parameters']:,} parameters meet the verdict for {row['consistent']} of {row['seeds']} seeds, "
        f"at {row['mean_last5']:.2f} % on their mean and {row['worst_last5']:.2f} % in the worst epoch that counts."
    )
    assert sentence in (ROOT / "README.md").read_text().replace("\n", " ")
    assert row["parameters"] < 4_000 and row["consistent"] == row["seeds"] == 5


def test_the_readme_says_in_how_few_epochs_every_seed_ends_at_the_target():
    ends = {}
    for key, recipe in STUDIES["epochs"].recipes.items():
        runs = utils.load_records("epochs", key, ROOT / utils.RESULTS)
        ends[recipe.epochs] = [runs[seed].test_accuracy[-1] for seed in range(STUDIES["epochs"].seeds)]
    fewest = min(epochs for epochs, end in ends.items() if min(end) >= 99.40)
    end = ends[fewest]
    after_seven = [run.test_accuracy[6] for run in utils.load_records("epochs", "8_epochs").values()]
    sentence = (
        f"in {fewest} epochs in place of 15, Step 3 ends at {min(end):.2f} % or more for each of {len(end)} seeds, at "
        f"{sum(end) / len(end):.2f} % on their mean; after the seventh of them, each seed is at "
        f"{min(after_seven):.2f} % or more already."
    )
    assert sentence in (ROOT / "README.md").read_text().replace("\n", " ")


def test_the_readme_has_the_recorded_timings():
    readme = (ROOT / "README.md").read_text()
    timed = json.loads((ROOT / utils.RESULTS / "bench.json").read_text())
    for name in ("usual_s", "ours_s", "bare_s"):
        assert f"| {timed[name]} |" in readme, name
    assert f"That is {timed['ratio']} times faster" in readme
    assert f"takes {100 * timed['data_share']:.1f} % of an epoch, the process {timed['memory_mib']} MiB" in readme


# Away from home


def run_first_cell(tmp_path, repository, colab):
    """Execute the notebook's first code cell in an empty folder, in a process that has a module google.colab."""
    source = code_cells(1)[0].source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    (tmp_path / "cell.py").write_text(
        f"{colab}\n{source}\nsys.path.insert(0, '')  # as in a notebook\nimport models, utils\nprint(models.__file__)"
    )
    answer = subprocess.run(
        [sys.executable, "cell.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout


def test_in_colab_the_first_cell_clones_the_repository(tmp_path):
    origin = tmp_path / "origin"
    origin.mkdir()
    for name in ("models.py", "utils.py"):
        (origin / name).write_bytes((ROOT / name).read_bytes())
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "lesson"]):
        subprocess.run(["git", *command], cwd=origin, check=True)
    session = tmp_path / "session"
    session.mkdir()
    colab = 'import sys, types\nsys.modules["google.colab"] = types.ModuleType("google.colab")'
    for _ in range(2):  # a reader runs the cell again
        assert str(session / "lesson" / "models.py") in run_first_cell(session, str(origin), colab)


def test_in_colab_without_an_address_the_first_cell_asks_for_an_upload(tmp_path):
    colab = f"""
import sys, types, shutil
for name in ("google", "google.colab", "google.colab.files"):
    sys.modules[name] = types.ModuleType(name)
copies = lambda: [shutil.copy("{ROOT}/" + name, name) for name in ("models.py", "utils.py")]
sys.modules["google.colab.files"].upload = copies
"""
    assert str(tmp_path / "models.py") in run_first_cell(tmp_path, "", colab)


def test_records_and_figures_name_no_place_of_the_machine_that_made_them():
    for path in [
        *ROOT.glob("*.ipynb"),
        ROOT / "lab/Peers.ipynb",
        *ROOT.glob("lab/results/**/*.json"),
        ROOT / "README.md",
    ]:
        assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text()), path
