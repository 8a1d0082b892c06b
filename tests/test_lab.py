"""The lab: studies keep one whole record a run, the commands do what they say."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import models
import utils
from lab import study as studies
from lab.bench import bench
from lab.figures import PICTURE, records_digest
from lab.notebooks import execute
from lab.recipes import STUDIES, Recipe

ROOT = Path(__file__).parent.parent
TINY = Recipe("Model_1", epochs=2, learning_rate=0.1)


@pytest.fixture
def tiny_study(tmp_path, monkeypatch):
    """A study of one recipe on 2,000 images, with records in an empty folder."""
    monkeypatch.setenv("SESSION7_SHORT", "1")
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    monkeypatch.setitem(STUDIES, "tiny", {"small": TINY})
    return tmp_path / "tiny"


def test_a_study_writes_one_record_a_run_and_repeats_none(tiny_study, capsys):
    studies.study("tiny", seeds=[0, 1])
    records = {path.name: path.read_bytes() for path in tiny_study.iterdir()}
    assert sorted(records) == ["small.seed0.json", "small.seed1.json"]
    studies.study("tiny", seeds=[0, 1])
    assert {path.name: path.read_bytes() for path in tiny_study.iterdir()} == records
    assert "0 of 2 runs are missing" in capsys.readouterr().out


def test_a_recipe_names_every_switch_so_that_a_changed_default_makes_another_recipe(monkeypatch):
    before = Recipe("Model_1")
    assert before == Recipe("Model_1", {"dropout": 0.0, "channels": (8, 14, 10, 10, 10)})
    monkeypatch.setitem(models.Model_1.__init__.__kwdefaults__, "dropout", 0.5)
    assert Recipe("Model_1") != before == Recipe(**json.loads(json.dumps(asdict(before))))


def test_a_record_has_the_recipe_and_what_was_measured(tiny_study):
    studies.study("tiny", seeds=[3])
    record = json.loads((tiny_study / "small.seed3.json").read_text())
    history = utils.load_records("tiny", "small", folder=tiny_study.parent)[3]
    assert Recipe(**record["recipe"]) == TINY
    assert len(history) == 2
    assert all(isinstance(count, int) for count in [*history.test_correct, history.final_train_correct])
    assert history.environment["torch"] == torch.__version__


def test_runs_side_by_side_give_the_numbers_of_runs_one_by_one(tiny_study, monkeypatch):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = studies.run(TINY, seed=1, show=False)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(studies.os, "cpu_count", lambda: 2)
    studies.study("tiny", seeds=[0, 1], jobs=2)
    beside = utils.load_records("tiny", "small", folder=tiny_study.parent)[1]
    assert (beside.test_correct, beside.train_loss) == (alone.test_correct, alone.train_loss)


def test_a_torn_record_is_set_aside_and_its_run_repeated(tiny_study, capsys):
    studies.study("tiny", seeds=[0])
    path = tiny_study / "small.seed0.json"
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:200])
    studies.study("tiny", seeds=[0])
    again = json.loads(path.read_text())
    assert again["history"]["test_correct"] == whole["history"]["test_correct"]
    assert path.with_suffix(".torn").exists()
    assert "is no whole record" in capsys.readouterr().out


def test_a_changed_recipe_is_run_anew(tiny_study, monkeypatch):
    studies.study("tiny", seeds=[0])
    monkeypatch.setitem(STUDIES, "tiny", {"small": replace(TINY, learning_rate=0.05)})
    studies.study("tiny", seeds=[0])
    assert json.loads((tiny_study / "small.seed0.json").read_text())["recipe"]["learning_rate"] == 0.05


def test_a_study_without_mnist_is_an_error_and_records_nothing(tiny_study, monkeypatch):
    monkeypatch.setenv("SESSION7_DATASET", "digits")
    with pytest.raises(RuntimeError, match="a study needs MNIST"):
        studies.study("tiny", seeds=[0])
    assert not tiny_study.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "nothing", "seeds": [0]}, "no study 'nothing', expected one of"),
        ({"name": "steps", "seeds": [0], "jobs": 0}, "jobs is 0, expected at least 1"),
    ],
)
def test_bad_arguments_of_a_study_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        studies.study(**arguments)


def test_a_held_out_run_never_sees_the_test_images(monkeypatch):
    monkeypatch.setenv("SESSION7_SHORT", "1")
    seen = []
    loader = utils.Loader
    monkeypatch.setattr(
        utils, "Loader", lambda digits, *rest, **more: seen.append(digits) or loader(digits, *rest, **more)
    )
    studies.run(replace(TINY, held_out=True, epochs=1), seed=0, show=False)
    train, _ = utils.load_data(torch.device("cpu"))
    for digits, part in zip(seen, (train[:50_000], train[50_000:])):
        assert torch.equal(digits.images, part.images)


def test_every_committed_record_is_of_the_recipe_in_the_code():
    paths = sorted(studies.RESULTS.glob("*/*.json"))
    for path in paths:
        arm, seed, _ = path.name.split(".")
        record = json.loads(path.read_text())
        recipe = STUDIES[path.parent.name][arm]
        assert Recipe(**record["recipe"]) == recipe, path
        assert f"seed{record['history']['seed']}" == seed, path
        assert len(utils.History(**record["history"])) == recipe.epochs, path
    recorded = {(path.parent.name, path.name.split(".")[0]) for path in paths}
    assert recorded == {(study, arm) for study, arms in STUDIES.items() for arm in arms}


def test_the_picture_shows_the_committed_records():
    from PIL import Image

    assert Image.open(PICTURE).text["Records"] == records_digest()


def test_the_benchmark_times_all_four_and_their_ratios_agree():
    result = bench(rounds=1, images=2_000)
    assert result["ratio"] == pytest.approx(result["usual_s"] / result["ours_s"], abs=0.1 * result["ratio"])
    assert result["ours_s"] > 0 and result["bare_s"] > 0 and result["memory_mib"] > 100


def test_notebooks_are_executed_into_a_folder_with_a_closing_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SESSION7_SHORT", "1")
    monkeypatch.setenv("SESSION7_DATASET", "digits")
    execute(tmp_path)
    table = capsys.readouterr().out.split("\n\n")[-1]
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"Session7_Step{i}.ipynb" for i in (1, 2, 3)]
    assert table.count("not judged: this is not MNIST") == 3


def test_the_command_line_names_what_it_knows():
    command = [sys.executable, "-m", "lab", "study", "nothing"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "choose from" in answer.stderr
