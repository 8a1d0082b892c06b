"""Evidence is full runs on all of MNIST: everything else is refused before it runs, and invalid records are named."""

import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from helpers import command

import utils
from lab.evidence import places, records
from lab.evidence.places import APP_NETWORK, RECORDS, RESULTS
from lab.evidence.records import Extent, shortfall
from lab.for_app.drawings import RESULT
from lab.for_app.export import export
from lab.reports import report
from lab.runs import study
from lab.runs import train as training
from lab.runs.recipes import STEP_1, STEP_3, Recipe
from lab.runs.train import run
from lab.systems.peers import PEERS

SMALL = Recipe("LeNet", epochs=2, batch_size=50, learning_rate=0.02, optimizer="adam")


@pytest.fixture
def few(sample, monkeypatch, tmp_path):
    """300 training and 200 test images of the sample, in an empty folder; nothing says so but the data."""
    digits = sample[0][:300], sample[1][:200]
    for name in ("SESSION7_SHORT", "SESSION7_DATASET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": digits)
    monkeypatch.chdir(tmp_path)
    return digits


@pytest.fixture
def kept(few):
    """The model.pt of a run on few images."""
    run(SMALL, seed=0, show=False, folder=Path("run"), name="small")
    return Path("run/model.pt")


def state():
    """When the evidence was last written, file by file."""
    files = [*RESULTS.rglob("*"), APP_NETWORK, *RESULTS.parent.parent.glob("*.ipynb")]
    return {path: path.stat().st_mtime_ns for path in files}


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------

READ_RECORDS = ["report", "compare", "compare --json"]
NEED_DATA = [
    "study consistency",
    f"study consistency --records {RECORDS}",
    "repeat consistency step3 7",
    "drawings",
    f"drawings {RESULT}",
    "export run/model.pt",
    f"export run/model.pt {APP_NETWORK}",
    f"notebooks {RESULTS.parent.parent}",
]


def assert_refused(arguments, why, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("it ran")

    for place in (
        "lab.runs.study.run",
        "lab.for_app.drawings.measure",
        "lab.for_app.export.predict",
        "lab.reports.notebooks.nbformat.read",
    ):
        monkeypatch.setattr(place, never)
    before = state()
    capsys.readouterr()
    assert command(monkeypatch, *arguments.split()) == 2
    said = capsys.readouterr()
    assert "is for what ran in full on all of MNIST, and " + why in said.err
    assert said.err.count("\n") == 1 and not said.out
    assert state() == before


@pytest.mark.parametrize("arguments", [*READ_RECORDS, *NEED_DATA])
@pytest.mark.parametrize(("name", "value"), [("SESSION7_SHORT", "1"), ("SESSION7_DATASET", "sample")])
def test_a_short_run_and_the_sample_are_no_evidence(few, monkeypatch, capsys, arguments, name, value):
    monkeypatch.setenv(name, value)
    assert_refused(arguments, f"{name}={value} is set", monkeypatch, capsys)


@pytest.mark.parametrize("arguments", NEED_DATA)
def test_where_mnist_cannot_be_had_nothing_is_evidence(few, monkeypatch, capsys, arguments):
    assert_refused(arguments, "the data is a 5,000-image sample", monkeypatch, capsys)


def test_a_link_to_the_evidence_is_the_evidence(few, monkeypatch, capsys):
    Path("link").symlink_to(RECORDS)
    assert_refused("study consistency --records link", "the data is a", monkeypatch, capsys)


def test_elsewhere_the_sample_may_be_used(few, kept, monkeypatch, capsys):
    before = state()
    monkeypatch.setattr("lab.for_app.drawings.PICTURES", 10)
    monkeypatch.setattr("lab.for_app.drawings.NO_DIGITS", 10)
    assert command(monkeypatch, "drawings", "drawings.json") == 0
    assert json.loads(Path("drawings.json").read_text())["ways"]["plain"] > 50
    assert command(monkeypatch, "export", kept, "small.onnx") == 0
    assert command(monkeypatch, "report", "--folder", "report") == 0  # of the committed records
    assert Path("report/README.md").read_text() == (RESULTS / "README.md").read_text()
    assert state() == before


def test_the_command_takes_a_folder_of_records(few, monkeypatch, capsys):
    monkeypatch.setattr(study, "cores", lambda: 1)
    monkeypatch.setitem(study.STUDIES, "tiny", study.Study("?", 1, {"small": SMALL}))
    assert command(monkeypatch, "study", "tiny", "--records", "mine") == 0
    assert records.read(records.record_path(SMALL, 0, Path("mine"))).history.dataset == utils.SAMPLE
    assert command(monkeypatch, "repeat", "tiny", "small", "0", "--records", "mine") == 0
    assert "the same to the last bit" in capsys.readouterr().out


@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_of_the_sample_is_no_network_for_the_app(few, kept, monkeypatch, older):
    """Even where all of MNIST is there by now; nor is one from before checkpoints said what they were trained on."""
    if older:
        content = torch.load(kept, weights_only=True)
        del content["extent"]
        torch.save(content, kept)
    mnist = [utils.Digits(digits.images, digits.labels, "MNIST") for digits in few]
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": mnist)
    before = state()
    why = "it does not say what it was trained on" if older else "it is of a 5,000-image sample"
    with pytest.raises(ValueError, match=f"for a full run on all of MNIST, and run/model.pt is none, {why}"):
        export(kept)
    assert state() == before


@pytest.mark.parametrize(
    ("recipe", "ran", "kept", "lacks"),
    [
        (STEP_3, ("MNIST", 60_000, 10_000, 15), 15, ""),
        (STEP_3, ("MNIST", 60_000, 10_000, 14), 14, "it has 14 epochs, expected 15"),
        (STEP_3, ("MNIST", 2_000, 1_000, 15), 15, "trained on 2,000 and measured on 1,000 images, expected 60,000"),
        (STEP_3, (utils.SAMPLE, 60_000, 10_000, 15), 15, "it is of a 5,000-image sample"),
        (replace(STEP_3, held_out=True), ("MNIST", 50_000, 10_000, 15), 9, ""),
        (replace(STEP_3, held_out=True), ("MNIST", 60_000, 10_000, 15), 9, "expected 50,000 and 10,000"),
        (replace(STEP_3, validation=0.1, patience=3), ("MNIST", 54_000, 6_000, 9), 6, ""),
        (replace(STEP_3, validation=0.1, patience=3), ("MNIST", 54_000, 6_000, 9), 7, "it has 9 epochs, expected 15"),
    ],
)
def test_what_a_run_lacks_to_be_evidence(recipe, ran, kept, lacks):
    said = shortfall(recipe, Extent(*ran), kept)
    assert lacks in said and bool(said) == bool(lacks)


# ---------------------------------------------------------------------------------------------------------------------
# Records
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that stands for that of the committed records."""
    monkeypatch.setattr(places, "RESULTS", tmp_path)
    return tmp_path


def one_with_test():
    return RECORDS / f"{PEERS['lenet_5_rate_5e-4'].recipe.hash}.seed0.json"


def spoil(*keys, by=None):
    """A change of the value that these keys lead to; it is left out without a new one."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        if by is None:
            del content[keys[-1]]
        else:
            content[keys[-1]] = by

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (spoil("hash", by="0123456789"), "its hash is 0123456789, expected that of its recipe"),
        (spoil("recipe", "epochs", by=14), "expected that of its recipe"),
        (spoil("recipe", "network"), "recipe.network: Field required"),
        (spoil("recipe", "colour", by=1), "recipe.colour: Extra inputs are not permitted"),
        (spoil("recipe", "momentum", by=2), "momentum is 2, expected"),
        (spoil("recipe"), "expected an object with a recipe"),
        (spoil("fingerprint"), "fingerprint: Field required"),
        (spoil("fingerprint", by=[]), "fingerprint: List should have at least 1 item"),
        (spoil("fingerprint", 0, by=float("nan")), "fingerprint.0: Input should be a finite number"),
        (spoil("versions"), "versions: Field required"),
        (spoil("versions", "numpy", by="2"), "versions.numpy: Extra inputs are not permitted"),
        (spoil("history", "seconds"), "history.seconds: Field required"),
        (spoil("history", "seed", by=99), "its name is "),
        (spoil("history", "dataset", by="FashionMNIST"), "it is of a FashionMNIST, expected all of MNIST"),
        (spoil("history", "train_images", by=59_999), "expected 60,000 and 10,000"),
        (spoil("history", "test_loss", 0, by=float("nan")), "history.test_loss.0: Input should be a finite number"),
        (spoil("history", "train_loss", 0, by=float("inf")), "history.train_loss.0: Input should be a finite number"),
        (spoil("history", "test_correct", 0, by=10_001), "test_correct has 10001, expected at most the 10000 images"),
        (
            spoil("history", "test_correct", 0, by=-1),
            "history.test_correct.0: Input should be greater than or equal to 0",
        ),
        (spoil("history", "test_correct", 0, by=99.5), "history.test_correct.0: Input should be a valid integer"),
        (spoil("history", "final_train_correct", by=60_001), "final_train_correct has 60001, expected at most"),
        (spoil("history", "test_correct", 0), "test_correct has 9 entries, learning_rate has 10"),
        (spoil("test", "epoch", by=3), "test.epoch is 3, expected the one that was kept, 10"),
        (spoil("test", "images", by=9_999), "right answers, expected those of the last epoch"),
        (spoil("test", "mistakes", 0), "right answers, expected those of the last epoch"),
        (spoil("test", "mistakes", 0, by=[3, 4, 4]), "expected an image, its label and another digit"),
        (spoil("test", "mistakes", 0, by=[3, 4]), "test.mistakes.0: List should have at least 3 items"),
    ],
)
def test_an_invalid_record_is_named(folder, change, complaint):
    source = one_with_test()
    content = json.loads(source.read_text())
    assert records.read(shutil.copy(source, folder / source.name)).history.dataset == "MNIST"
    change(content)
    path = folder / source.name
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is not a record of a study: ") as caught:
        records.read(path)
    assert complaint in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_records_describe_the_fields_that_recipes_have():
    """And a recipe that is read back from its record is the one that was run, to the number of its parameters."""
    assert list(records.RecordedRecipe.model_fields) == [one.name for one in fields(Recipe)]
    for record in records.read_all():
        recipe = Recipe(**record.recipe.model_dump())
        assert recipe.hash == record.recipe.hash
        assert recipe.parameters == record.history.parameters


def test_a_record_with_fewer_epochs_than_its_recipe_is_no_evidence(folder):
    source = RECORDS / f"{STEP_1.hash}.seed0.json"
    content = json.loads(source.read_text())
    for name, column in content["history"].items():
        if isinstance(column, list):
            content["history"][name] = column[:-1]
    (folder / source.name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="it has 14 epochs, expected 15"):
        records.read(folder / source.name)


def test_a_record_under_another_name_is_refused(folder):
    source = RECORDS / f"{STEP_1.hash}.seed0.json"
    shutil.copy(source, folder / f"{STEP_1.hash}.seed1.json")
    with pytest.raises(ValueError, match="its name is .*seed1.json, expected .*seed0.json"):
        records.read(folder / f"{STEP_1.hash}.seed1.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"hash": 1}', "[" * 5_000, "\0"])
def test_a_file_that_is_not_a_record_at_all_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="a.json is not a record of a study: "):
        records.read(tmp_path / "a.json")


def test_a_short_run_is_not_written_among_the_committed_records(few, folder):
    """As from a worker elsewhere, whose data is the sample."""
    trained = run(SMALL, seed=0, show=False)
    assert "it is of a 5,000-image sample" in study._failure_to_write(folder, SMALL, trained)
    assert not list(folder.glob("*.json"))


def test_a_report_names_a_bad_record_and_leaves_it_out(tmp_path, monkeypatch, capsys):
    copied = tmp_path / "records"
    copied.mkdir()
    for path in RECORDS.glob(f"{STEP_1.hash}.seed*.json"):
        shutil.copy(path, copied)
    bad = copied / f"{STEP_1.hash}.seed3.json"
    bad.write_text(bad.read_text().replace('"seed": 3', '"seed": 4'))
    monkeypatch.setattr(report, "RECORDS", copied)
    report.report(tmp_path / "report")
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith(f"left out: {bad} is not a record of a study: its name is")
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert summary["consistency"]["recipes"]["step1"]["seeds"] == 19
    assert "from the 19 runs in" in (tmp_path / "report/README.md").read_text()
    assert '"seed": 4' in bad.read_text()


def test_a_report_names_records_of_another_network_and_leaves_them_out(tmp_path, monkeypatch, capsys):
    copied = tmp_path / "records"
    copied.mkdir()
    for recipe in (STEP_1, STEP_3):
        for seed in range(2):
            shutil.copy(records.record_path(recipe, seed), copied)
    other = copied / f"{STEP_1.hash}.seed1.json"
    content = json.loads(other.read_text())
    content["fingerprint"][0] *= 1.001
    other.write_text(json.dumps(content))
    recorded = records.by_recipe(copied)
    kept = report._of_this_code(recorded)
    said = f"left out: {STEP_1.hash}.seed*.json, seeds 1: recorded with another network than Model_1 is in this code\n"
    assert capsys.readouterr().err == said
    assert {name: list(runs) for name, runs in kept.items()} == {STEP_1.hash: [0], STEP_3.hash: [0, 1]}
    with monkeypatch.context() as changed:
        changed.delattr("models.Model_1")
        changed.setattr(torch.nn, "ReLU", torch.nn.Sigmoid)
        assert not report._of_this_code(recorded)


def test_a_report_that_fails_on_the_way_changes_nothing(tmp_path, monkeypatch):
    for name in ("README.md", "summary.json", "seeds.png"):
        (tmp_path / name).write_text("before")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_draw_peers", fail)
    with pytest.raises(OSError, match="No space left"):
        report.report(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "README.md": "before",
        "summary.json": "before",
        "seeds.png": "before",
    }


def test_a_study_does_not_overwrite_what_it_cannot_read(few, monkeypatch, capsys):
    monkeypatch.setattr(study, "cores", lambda: 1)
    monkeypatch.setitem(study.STUDIES, "tiny", study.Study("?", 1, {"small": SMALL}))
    path = records.record_path(SMALL, 0, Path("mine"))
    path.parent.mkdir()
    for bad in ("{}", "{"):
        path.write_text(bad)
        study.run_study("tiny", folder=Path("mine"))
        assert records.read(path).recipe.model_dump() == asdict(SMALL)
    assert [Path(f"mine/{path.stem}.{end}").read_text() for end in ("torn", "torn2")] == ["{}", "{"]


def test_records_of_other_data_are_not_taken_for_those_of_this(few, monkeypatch):
    monkeypatch.setattr(study, "cores", lambda: 1)
    monkeypatch.setitem(study.STUDIES, "tiny", study.Study("?", 1, {"small": SMALL}))
    study.run_study("tiny", folder=Path("mine"))
    mnist = [utils.Digits(digits.images, digits.labels, "MNIST") for digits in few]
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": mnist)
    with pytest.raises(ValueError, match="sample of MNIST, and the data here is MNIST: name another folder"):
        study.run_study("tiny", folder=Path("mine"))


def test_a_checkpoint_says_on_what_it_was_trained(few, kept):
    assert training.load_model(kept).extent == Extent(utils.SAMPLE, 300, 200, 2)
    assert asdict(training.load_model(kept).recipe) == asdict(SMALL)
