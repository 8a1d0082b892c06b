"""Recorded runs by the names of their study and recipe: loaded, listed, and guessed at."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from histories import FINGERPRINT, record, seeds

import utils
from lab.evidence import changes, experiment, load, load_study, records
from lab.evidence.records import Tested, Trained
from lab.runs.recipes import Recipe
from utils import History

pytestmark = pytest.mark.usefixtures("alone")

BASE = Recipe("Model_2")


def recipe_of(place: int) -> Recipe:
    """One of several recipes that differ in nothing of interest."""
    return replace(BASE, learning_rate=0.01 * (1 + place))


def keep(
    recipes: dict[str, dict[int, History]],
    folder: Path,
    tested: Tested | None = None,
    compared: Sequence[dict[str, str]] = (),
) -> None:
    """Write runs as the lab does: records, and the summary that says which are whose, and what is compared."""
    for place, runs in enumerate(recipes.values()):
        for run in runs.values():
            records.write(folder / "records", recipe_of(place), Trained(run, len(run), tested, FINGERPRINT))
    hashes = {name: {"hash": recipe_of(place).hash} for place, name in enumerate(recipes)}
    study = {"first_seed": 0, "seeds": 20, "recipes": hashes, "factors": None, "contrasts": list(compared)}
    utils.write_json(folder / "summary.json", {"study": study})


def path_of(place: int, seed: int, folder: Path) -> Path:
    return records.record_path(recipe_of(place), seed, folder / "records")


# ---------------------------------------------------------------------------------------------------------------------
# Loading
# ---------------------------------------------------------------------------------------------------------------------


def test_records_are_loaded_by_seed(tmp_path):
    step3 = {seed: record([9_940 + seed] * 5, seed=seed) for seed in (10, 2, 0)}
    keep({"step3": step3, "step33": seeds([9_900] * 5)}, tmp_path)
    loaded = records.load("study", "step3", tmp_path)
    assert list(loaded) == [0, 2, 10]
    assert loaded[2] == step3[2]


def test_a_study_is_loaded_with_all_of_its_recipes(tmp_path):
    study = {"first": seeds([9_900] * 5, [9_910] * 5), "second": seeds([9_940] * 5, [9_960] * 5)}
    keep(study, tmp_path)
    assert records.recipes("study", tmp_path) == ["first", "second"]
    assert records.load_study("study", tmp_path) == study


def test_held_out_images_stand_in_a_history_as_test_images_do(tmp_path):
    run, held_out = record([9_940] * 5), replace(BASE, held_out=True)
    path = records.write(tmp_path, held_out, Trained(run, 1, None, FINGERPRINT))
    assert '"held_out_correct"' in path.read_text() and '"test_correct"' not in path.read_text()
    assert records.read(path).history == run


@pytest.mark.parametrize("content", ['{"recipe"', "{}", "[]", '{"history": {}}'])
def test_a_torn_record_of_a_study_is_named(tmp_path, content):
    keep({"first": seeds([9_900] * 5)}, tmp_path)
    path_of(0, 0, tmp_path).write_text(content)
    with pytest.raises(ValueError, match=r"\.seed0\.json is not a record of a study"):
        records.load("study", "first", tmp_path)


def test_a_record_is_checked_when_a_notebook_loads_it(tmp_path):
    keep({"first": seeds([9_900] * 5)}, tmp_path)
    path = path_of(0, 0, tmp_path)
    path.write_text(path.read_text().replace("9900", "10001", 1))
    with pytest.raises(ValueError, match="test_correct has 10001, expected at most the 10000 images"):
        records.load("study", "first", tmp_path)


@pytest.mark.parametrize(("other", "same"), [([0.250001, -1.5], True), ([0.2501, -1.5], False), ([0.25], False)])
def test_records_of_one_recipe_are_of_one_network(tmp_path, other, same):
    """As computed on two machines, or by code that changed between the runs."""
    keep({"first": seeds([9_900] * 5)}, tmp_path)
    records.write(tmp_path / "records", recipe_of(0), Trained(record([9_950] * 5, seed=3), 5, None, other))
    if same:
        assert list(records.load("study", "first", tmp_path)) == [0, 3]
        return
    with pytest.raises(ValueError, match="seeds 0 and 3 of study/first are recorded with different networks, expected"):
        records.load("study", "first", tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"study": []}', '{"study": {"recipes": {"first": {}}, "contrasts": []}}', "[" * 5_000]
)
@pytest.mark.parametrize(
    "load", [lambda folder: records.load("study", "first", folder), lambda folder: records.load_study("study", folder)]
)
def test_a_torn_summary_is_named(tmp_path, content, load):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=r"summary\.json is torn"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("missing", "study", "recipe", "said"),
    [
        ("summary", "study", "step3", r"no recorded run of study/, the recorded studies are none"),
        ("study", "ladder", "step3", r"no recorded run of ladder/, the recorded studies are study"),
        ("recipe", "study", "step4", r"no recorded run of study/step4, the recorded recipes are step3, step2"),
        ("records", "study", "step3", r"no recorded run of study/step3 in .*records"),
    ],
)
def test_missing_records_are_named_with_what_is_there_and_the_way_to_get_them(tmp_path, missing, study, recipe, said):
    keep({"step3": {} if missing == "records" else seeds([9_900] * 5), "step2": {}}, tmp_path)
    if missing == "summary":
        (tmp_path / "summary.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"{said}: clone .* or run `python -m lab study {study}` and") as caught:
        records.load(study, recipe, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_study_without_records_is_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recorded run of another/.*python -m lab study another"):
        records.load_study("another", tmp_path)


def test_the_mistakes_of_a_run_are_loaded_where_its_record_has_them(tmp_path):
    tested = Tested(10_000, 0.02, [[index, 4, 9] for index in range(60)])
    keep({"step3": seeds([9_940] * 5)}, tmp_path, tested)
    records.write(tmp_path / "records", recipe_of(0), Trained(record([9_950] * 5, seed=1), 5, None, FINGERPRINT))
    assert records.load_mistakes("study", "step3", tmp_path) == {0: tested}


def test_a_recipe_without_recorded_mistakes_names_those_that_have_them():
    with pytest.raises(
        FileNotFoundError, match="no run of ladder/gap has its mistakes recorded; of ladder, step1, drop"
    ):
        records.load_mistakes("ladder", "gap")


def test_each_step_has_a_run_whose_mistakes_are_recorded():
    for step in ("step1", "step2", "step3"):
        ((seed, tested),) = records.load_mistakes("consistency", step).items()
        right = records.load("consistency", step)[seed].test_correct[-1]
        assert tested.images - len(tested.mistakes) == right


# ---------------------------------------------------------------------------------------------------------------------
# Guessing
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with one base and recipes that lose 0.2 points, change nothing that can be told, and collapse."""
    base = [9_950, 9_950, 9_960]
    study = {
        "base": base,
        "worse_gap": [count + by for count, by in zip(base, (-19, -20, -21))],
        "open": [count + by for count, by in zip(base, (-5, 10, -5))],
        "lost": [9_900, 1_135, 9_900],
    }
    keep({name: seeds(*[[count] * 5 for count in counts]) for name, counts in study.items()}, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("points", "recipe", "lines"),
    [
        (
            -0.21,
            "worse_gap",
            [
                "your guess  -0.21 points for worse GAP against base",
                # deviation 0.01, Student's t 4.303: 0.025 to either side
                "recorded    -0.20 (-0.22 to -0.18) points, paired over 3 seeds; in brackets the 95 % interval",
                "sign        right: it is a loss",
                "size        0.01 points off; your guess lies inside the interval",
            ],
        ),
        (
            0.3,
            "worse_gap",
            [
                "your guess  +0.30 points for worse GAP against base",
                "recorded    -0.20 (-0.22 to -0.18) points, paired over 3 seeds; in brackets the 95 % interval",
                "sign        wrong: you expected a gain, it is a loss",
                "size        0.50 points off; your guess lies outside the interval",
            ],
        ),
        (
            -1,
            "lost",
            [
                "your guess  -1.00 points for lost against base",
                "recorded    -29.75 points, paired over 3 seeds; no interval, 1 collapsed",
                "sign        right: it is a loss",
                "size        28.75 points off; there is no interval to hold the guess against",
            ],
        ),
    ],
)
def test_a_guess_is_held_against_the_record(recorded, points, recipe, lines):
    said = experiment.guess(points, recipe, study="study", against="base", folder=recorded)
    assert said.splitlines() == lines


@pytest.mark.parametrize(("points", "judged"), [(0.1, "open"), (-0.1, "open"), (0, "right")])
def test_no_sign_is_right_or_wrong_where_the_interval_contains_zero(recorded, points, judged):
    said = experiment.guess(points, "open", study="study", against="base", folder=recorded)
    assert f"\nsign        {judged}: the difference is not distinguishable from zero over 3 seeds\n" in said


def test_no_difference_is_a_wrong_guess_where_there_is_one(recorded):
    said = experiment.guess(0, "worse_gap", study="study", against="base", folder=recorded)
    assert "wrong: you expected no difference, it is a loss" in said


def test_a_guess_at_an_unknown_recipe_lists_the_recorded_ones():
    with pytest.raises(
        FileNotFoundError, match="no recorded run of ablation/no_bn, the recorded recipes are step3, no_"
    ):
        experiment.guess(-0.1, "no_bn")


@pytest.mark.parametrize("points", [None, "0.1", True, float("nan"), float("inf"), ...])
def test_a_guess_is_a_number_of_points(points):
    with pytest.raises(ValueError, match="points is .*, expected a number such as -0.1"):
        experiment.guess(points, "no_gap")


def test_a_recipe_is_not_guessed_against_itself():
    with pytest.raises(ValueError, match="step3 is compared with itself, expected two recipes"):
        experiment.guess(0, "step3")


def test_a_guess_is_held_against_the_difference_that_its_study_adjusts(tmp_path):
    """With another recipe compared beside it, p doubles and the interval is wider; in another study's pair it is not."""
    base, more = [9_950, 9_950, 9_960], [9_955, 9_958, 9_966]
    study = {"base": base, "more": more, "other": [9_950, 9_960, 9_960]}
    compared = [{"recipe": name, "against": "base"} for name in ("more", "other")]
    keep({name: seeds(*[[count] * 5 for count in counts]) for name, counts in study.items()}, tmp_path, None, compared)
    said = experiment.guess(0.05, "more", study="study", against="base", folder=tmp_path)
    # differences 0.05, 0.08, 0.06: mean 0.0633, deviation 0.0153; Student's t at 2.5 % / 2 is 6.205
    assert (
        "+0.06 (+0.01 to +0.12) points, paired over 3 seeds; in brackets the 95 % interval, adjusted for 2 comp" in said
    )
    assert "sign        right: it is a gain" in said
    alone = experiment.guess(0.05, "more", study="study", against="other", folder=tmp_path)
    assert "in brackets the 95 % interval\n" in alone


@pytest.mark.parametrize(("points", "judged"), [(0, "right"), (0.05, "right"), (-0.2, "wrong")])
def test_a_guess_at_a_difference_that_is_none_is_right_if_it_is_small(tmp_path, points, judged):
    counts = {"base": [9_950, 9_950, 9_960], "same": [9_951, 9_949, 9_960]}
    keep({name: seeds(*[[count] * 5 for count in of]) for name, of in counts.items()}, tmp_path)
    said = experiment.guess(points, "same", study="study", against="base", folder=tmp_path)
    assert f"sign        {judged}: over 3 seeds, the two are equivalent, within 0.05 points" in said


def test_a_study_says_what_it_compares(tmp_path):
    compared = [{"recipe": "more", "against": "base"}]
    keep({"base": seeds([9_900] * 5, [9_900] * 5), "more": seeds([9_910] * 5, [9_911] * 5)}, tmp_path, None, compared)
    assert records.compared("study", tmp_path) == [("more", "base")]
    assert list(changes("study", tmp_path)) == ["more"]
    assert changes("study", tmp_path)["more"].difference.mean == pytest.approx(0.105)


def test_a_study_has_its_own_seeds_whatever_else_is_recorded_of_its_recipes():
    """Seeds 0 to 2 chose the two recipes of `chosen`; they must not confirm them."""
    assert [list(runs) for runs in load_study("chosen").values()] == [[3, 4, 5, 6, 7, 8, 9]] * 3
    assert list(load("choice", "each_epoch")) == [0, 1, 2]
    assert list(load("consistency", "step3")) == list(range(20)) and 20 in load("hundred", "step3")
