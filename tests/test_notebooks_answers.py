"""The exercises of the steps, and lab/Answers.ipynb: every exercise has an answer, and every answer its evidence."""

import contextlib
import io
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch

import models
import utils
from lab import evidence
from tests import test_notebooks

ROOT = Path(__file__).parent.parent
ANSWERS = nbformat.read(ROOT / "lab/Answers.ipynb", as_version=4)
STEPS = (1, 2, 3)
HEADING = re.compile(r"^### (Exercise \d[a-c]: .+)$", re.MULTILINE)


def exercise_cells(step):
    """The section "Exercises" of a step: (kind of cell, source)."""
    cells = [(cell.cell_type, cell.source) for cell in test_notebooks.NOTEBOOKS[step].cells]
    (start,) = [i for i, (_, source) in enumerate(cells) if source.startswith("## Exercises")]
    return cells[start:]


def headings(sources):
    return [heading for source in sources for heading in HEADING.findall(source)]


def exercises(step):
    return headings(source for _, source in exercise_cells(step))


def code_of_exercises(step):
    return [source for kind, source in exercise_cells(step) if kind == "code"]


def answer_code():
    return [cell for cell in ANSWERS.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output.text for output in cell.outputs)


# The exercises


@pytest.fixture
def names(sample):
    """What a step's notebook has defined before its exercises; few images in place of its own."""
    transform, digits = utils.make_transform(), [part[:100] for part in sample]
    loaders = {
        "train_loader": utils.Loader(digits[0], 50, transform),
        "test_loader": utils.Loader(digits[1], 50, transform),
    }
    rates = {"LEARNING_RATE": 0.05, "MOMENTUM": 0.9, "WEIGHT_DECAY": 0.0, "STEP_SIZE": 5, "GAMMA": 0.5}
    counts = {"SEED": 0, "EPOCHS": 1, "PLAIN_EPOCHS": 0, "device": torch.device("cpu")}
    return {**vars(models), "utils": utils, "evidence": evidence, **loaders, **rates, **counts}


def run(code, names):
    """What a cell prints."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(code, names)
    return shown.getvalue()


@pytest.mark.parametrize("step", STEPS)
def test_a_step_has_three_exercises_each_with_a_prediction_code_and_a_hint(step):
    assert [heading[:11] for heading in exercises(step)] == [f"Exercise {step}{letter}" for letter in "abc"]
    text = "\n".join(source for _, source in exercise_cells(step))
    for exercise in re.split(HEADING, text)[2::2]:
        assert re.search(r"^MY_\w+ = None", exercise, re.MULTILINE)
        assert exercise.count("<details><summary>Hint</summary>\n\n") == exercise.count("\n\n</details>") == 1


@pytest.mark.parametrize("step", STEPS)
def test_an_exercise_left_as_it_is_says_what_to_do_and_trains_nothing(step, names, monkeypatch):
    monkeypatch.setattr(utils, "fit", None)
    asked = [run(code, names) for code in code_of_exercises(step)]
    assert (
        len([line for line in asked if re.fullmatch(r"Set MY_\w+( and MY_\w+)?, then run this cell again.\n", line)])
        == 3
    )
    assert all(line == "" for line in asked if not line.startswith("Set "))


@pytest.mark.parametrize("step", STEPS)
def test_a_prediction_is_held_against_the_records_and_training_runs_when_it_is_switched_on(step, names):
    for code in code_of_exercises(step):
        shown = run(code.replace(" = None", " = 3").replace("TRAIN = False", "TRAIN = True"), names)
        assert re.search(r"\d", shown) and "Set MY_" not in shown


# The answers


def test_every_exercise_has_an_answer_under_its_heading():
    answered = headings(cell.source for cell in ANSWERS.cells)
    assert answered == [heading for step in STEPS for heading in exercises(step)]


def test_the_notebook_was_executed_from_top_to_bottom_without_errors():
    assert [cell.execution_count for cell in answer_code()] == list(range(1, len(answer_code()) + 1))
    for cell in answer_code():
        assert all(output.output_type == "stream" and output.name == "stdout" for output in cell.outputs)


def test_a_cell_is_short_and_has_a_sentence_before_it():
    for before, cell in pairwise(ANSWERS.cells):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 15
            assert before.cell_type == "markdown"


def test_every_number_of_an_answer_is_in_an_output_of_that_answer():
    """Or in its code, as a difference that it asks about is."""
    answers, current = {}, None
    for cell in ANSWERS.cells:
        for current in HEADING.findall(cell.source) if cell.cell_type == "markdown" else ():
            answers[current] = [], []
        if current:
            said, shown = answers[current]
            (said if cell.cell_type == "markdown" else shown).append(cell.source)
            shown += [output.text for output in cell.get("outputs", [])]
    for heading, (said, shown) in answers.items():
        claimed = test_notebooks.numbers(re.sub(HEADING, "", "\n".join(said)))
        known = test_notebooks.GIVEN | set(test_notebooks.NUMBER.findall("\n".join(shown)))
        assert len(claimed) >= 3, heading
        assert [number for number in claimed if number not in known] == [], heading


def test_an_answer_over_the_budget_says_so():
    for cell in ANSWERS.cells:
        if cell.cell_type == "markdown" and (large := re.findall(r"(\d+,\d{3}) parameters", cell.source)):
            over = any(int(number.replace(",", "")) >= 8_000 for number in large) and not cell.source.startswith("# ")
            assert over == ("**over the budget**" in cell.source), cell.source


def test_the_answers_follow_from_the_records_without_mnist(monkeypatch):
    """Each cell prints what the committed notebook shows."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(utils, "load_data", None)
    names = {}
    for cell in answer_code():
        assert run(cell.source, names) == printed(cell), cell.source


def test_the_set_up_is_that_of_the_other_notebook_of_the_lab():
    """Publishing writes the repository's address into the first code cell, and the badge above the title."""
    assert answer_code()[0].source == test_notebooks.code_cells("peers")[0].source
    assert ANSWERS.cells[0].source.startswith("# ")
