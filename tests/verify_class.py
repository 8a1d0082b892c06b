"""A class of 30, graded without a hand's help: nobody is missing, what is broken is named, and the grades are the records'.

python -m pytest -v tests/verify_class.py                            # on all of MNIST, half an hour on two cores
SESSION7_DATASET=sample python -m pytest -v tests/verify_class.py    # some minutes: everything but the accuracies
"""

import csv
import html
import math
import os
from dataclasses import replace

import pytest
import yaml
from scipy.stats import t as student_t

import utils
from lab.evidence import records
from lab.evidence.places import RESULTS
from lab.evidence.statistics import over_seeds
from lab.grading import grade as grading
from lab.runs.recipes import STUDIES
from tests.make_class import the_class, write_class

IS_SAMPLE = os.environ.get("SESSION7_DATASET") == "sample"
STUDENTS = the_class()
SEED = 0
CLASS_RECIPE = STUDIES["epochs"].recipes["8_epochs"]
FIELDS = ("epochs", "step_size", "plain_epochs")  # in which it differs from Step 3's


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Folder of the grades, and grades by name. The seed is one that has records, where others follow from the secret."""
    folder = tmp_path_factory.mktemp("class")
    (folder / "submissions").mkdir()
    assert write_class(folder / "submissions") == STUDENTS
    recipe = {"epochs": 1, "plain_epochs": 0} if IS_SAMPLE else {name: getattr(CLASS_RECIPE, name) for name in FIELDS}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "draw_seeds", lambda secret, count: (SEED,))
        if not IS_SAMPLE:
            patch.setenv("SESSION7_DATASET", "mnist")
        out = folder / "grades"
        grades = grading.grade(
            folder / "submissions", out, seeds=1, secret="of the class", recipe=str(folder / "recipe.yaml")
        )
    return out, {grade.name: grade for grade in grades}


def test_the_class_is_trained_by_a_recorded_recipe():
    step3 = STUDIES["consistency"].recipes["step3"]
    assert replace(step3, **{name: getattr(CLASS_RECIPE, name) for name in FIELDS}) == CLASS_RECIPE


def test_everybody_has_a_row_and_a_page(graded, capsys):
    out, grades = graded
    assert len(STUDENTS) == 30 and grades.keys() == STUDENTS.keys()
    with (out / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows.keys() == STUDENTS.keys()
    assert {path.name for path in out.glob("*.html")} == {"index.html", *(f"{name}.html" for name in STUDENTS)}
    with capsys.disabled():
        print("\n" + grading.as_table(list(grades.values())))


@pytest.mark.parametrize("name", STUDENTS)
def test_what_is_broken_is_named_and_nothing_else_is(name, graded):
    out, grades = graded
    student, failures = STUDENTS[name], [failure.why for failure in grades[name].failures]
    if not student.fails:
        assert not failures and grades[name].ended
        return
    assert not grades[name].ended and len(failures) == 1 and student.fails in failures[0]
    assert student.fails in html.unescape((out / f"{name}.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name, student in STUDENTS.items() if not student.fails])
def test_the_budget_is_counted(name, graded):
    assert graded[1][name].budget_met is STUDENTS[name].budget


@pytest.mark.skipif(IS_SAMPLE, reason="on all of MNIST alone")
@pytest.mark.parametrize("name", [name for name, student in STUDENTS.items() if not student.fails])
def test_nobody_is_far_below_what_such_a_network_learns(name, graded):
    assert graded[1][name].summary.mean >= STUDENTS[name].least


def test_the_same_network_gets_the_same_numbers_whoever_wrote_it(graded):
    """ada wrote Step 3's layers into a file, ben imported them."""
    one, other = (graded[1][name].runs[SEED] for name in ("ada", "ben"))
    assert one.test_correct == other.test_correct and one.train_loss == other.train_loss


@pytest.mark.skipif(IS_SAMPLE, reason="the records are of all of MNIST")
@pytest.mark.parametrize("name", [name for name, student in STUDENTS.items() if student.recorded])
def test_the_grade_of_a_recorded_recipe_is_that_of_the_record(name, graded):
    """To the last bit where the record was made with the same processor and PyTorch, else as another seed would be."""
    run, recorded = graded[1][name].runs[SEED], records.load(*STUDENTS[name].recorded, RESULTS)
    assert run.parameters == recorded[SEED].parameters
    assert run.learning_rate == pytest.approx(recorded[SEED].learning_rate)
    if run.environment == recorded[SEED].environment:
        assert run.test_correct == recorded[SEED].test_correct and run.train_loss == recorded[SEED].train_loss
        return
    known = over_seeds(recorded)
    reach = student_t.ppf(0.9995, known.seeds - 1) * known.spread * math.sqrt(1 + 1 / known.seeds)
    assert run.mean_last_five == pytest.approx(known.mean, abs=reach)


def test_recipes_of_their_own_are_named(graded):
    for name, student in STUDENTS.items():
        cell = graded[1][name].cells()["recipe"]
        assert ("learning_rate" in student.recipe) == ("learning_rate" in cell) or student.fails


def test_who_wrote_the_same_code_is_named_and_nobody_else_is(graded):
    """cleo and dan trained ada's network in other ways; dora's is max's, below an import that fails."""
    same = {"ada": ("cleo", "dan"), "cleo": ("ada", "dan"), "dan": ("ada", "cleo"), "dora": ("max",), "max": ("dora",)}
    assert {name: grade.same_code for name, grade in graded[1].items() if grade.same_code} == same


def test_the_seed_is_forced_and_nothing_else(graded):
    assert all(grade.runs.keys() <= {SEED} for grade in graded[1].values())
    assert {grade.terms.dataset for grade in graded[1].values()} == {utils.SAMPLE if IS_SAMPLE else "MNIST"}
