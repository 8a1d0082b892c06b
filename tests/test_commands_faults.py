"""The lab's faults: processes that are killed, disks that are full, files that are none, bytes that are flipped."""

import errno
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from helpers import command, leftovers

import utils
from lab.evidence import records
from lab.runs import study
from lab.runs.config import read_yaml
from lab.runs.recipes import Recipe
from lab.runs.train import run

ROOT = Path(__file__).parent.parent
SMALL = Recipe("LeNet", epochs=2, batch_size=50, learning_rate=0.02, optimizer="adam")


@pytest.fixture
def two_runs(few, monkeypatch):
    """A study of two recipes, one seed each, in this process."""
    monkeypatch.setattr(study, "cores", lambda: 1)
    both = {"first": replace(SMALL, epochs=1), "second": SMALL}
    monkeypatch.setitem(study.STUDIES, "tiny", study.Study("?", 1, both))
    return both


# ---------------------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------------------


def alive(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            pass
    return found


@pytest.mark.parametrize(
    ("how", "seconds"), [pytest.param(signal.SIGKILL, 10, marks=pytest.mark.slow), (signal.SIGTERM, 1)]
)
def test_a_killed_study_leaves_no_worker_behind(tmp_path, how, seconds):
    """While its workers train, and while they still start. Three workers for two runs: one of them has nothing to do, and ends as the others do."""
    environment = os.environ | {"SESSION7_DATASET": "sample"}
    arguments = ["study", "consistency", "--seeds", "0", "--recipes", "step1", "step2", "--jobs", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", *arguments, "--records", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while len(alive(process.pid)) < 4:
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(seconds)
        assert process.poll() is None and len(alive(process.pid)) >= 4
        process.send_signal(how)
        process.wait()
        deadline = time.monotonic() + 60
        while alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert alive(process.pid) == []
    finally:
        for left in alive(process.pid):
            os.kill(left, signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------------------------
# Disks
# ---------------------------------------------------------------------------------------------------------------------


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_in_one_run_leaves_the_others_alone(two_runs, monkeypatch):
    monkeypatch.setattr(
        study, "run", lambda recipe, *rest, **more: full() if recipe.epochs == 1 else run(recipe, *rest, **more)
    )
    with pytest.raises(RuntimeError, match="1 of 2 runs failed and have no record: first, seed 0: .*No space left"):
        study.run_study("tiny", folder=Path("mine"))
    assert [path.name for path in Path("mine").glob("*")] == [f"{SMALL.hash}.seed0.json"]


def test_a_record_that_cannot_be_written_leaves_the_others_alone(two_runs, monkeypatch):
    write = utils.write_json
    first = two_runs["first"].hash
    monkeypatch.setattr(utils, "write_json", lambda path, *rest: full() if first in path.name else write(path, *rest))
    with pytest.raises(
        RuntimeError, match="1 of 2 runs failed .*: first, seed 0: its record was not written: .*No space"
    ):
        study.run_study("tiny", folder=Path("mine"))
    assert [path.name for path in Path("mine").glob("*")] == [f"{SMALL.hash}.seed0.json"]


def test_a_record_of_a_study_is_whole_whenever_it_is_there(two_runs):
    study.run_study("tiny", folder=Path("mine"))
    assert len(list(records.read_all(Path("mine")))) == 2 and not leftovers(Path("mine"))


@pytest.fixture
def checkpoint(few):
    run(SMALL, seed=0, show=False, folder=Path("run"), name="small")
    return Path("run/model.pt")


WRITING = [
    "train lenet_1_vanilla --folder {}",
    "study consistency --records {}",
    "report --folder {}",
    "errors run/model.pt --folder {}",
    "drawings {}/drawings.json",
    "export run/model.pt {}/small.onnx",
    "notebooks {}",
]


def never(*_, **__):
    raise AssertionError("it ran")


@pytest.fixture
def stands_still(monkeypatch):
    """Nothing is trained or measured: what is wrong is said before that."""
    for place in (
        "lab.runs.train.utils.fit",
        "lab.for_app.drawings.measure",
        "lab.for_app.export.predict",
        "lab.reports.errors.predict",
    ):
        monkeypatch.setattr(place, never)
    monkeypatch.setattr("lab.reports.notebooks.nbformat.read", never)


@pytest.mark.parametrize("arguments", WRITING)
@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_in_place_of_a_folder_is_named(checkpoint, stands_still, monkeypatch, capsys, arguments, below):
    Path("file").write_text("precious")
    before = sorted(Path().rglob("*"))
    assert command(monkeypatch, *arguments.format("file" + below).split()) == 2
    said = capsys.readouterr()
    assert "file is a file, expected a folder" in said.err and said.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before and Path("file").read_text() == "precious"


@pytest.mark.parametrize("arguments", [*WRITING, "test run/model.pt", "tsne run/model.pt"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_place_that_takes_no_file_is_named_before_anything_runs(
    checkpoint, stands_still, monkeypatch, capsys, arguments, code
):
    def refuse(dir):
        raise OSError(code, os.strerror(code), str(dir))

    monkeypatch.setattr("lab.evidence.places.tempfile.TemporaryFile", refuse)
    before = sorted(Path().rglob("*"))
    assert command(monkeypatch, *arguments.format("out").split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith("cannot read or write /") and os.strerror(code) in said.err
    assert said.err.count("\n") == 1 and not said.out
    assert sorted(Path().rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_named(few, monkeypatch, capsys):
    Path("locked").mkdir(mode=0)
    assert command(monkeypatch, "train", "lenet_1_vanilla", "--folder", "locked/run") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_a_disk_that_fills_up_while_a_run_writes_leaves_nothing_half_written(few, monkeypatch, capsys):
    """The system's own refusal: no file may grow beyond 100 kB, and LeNet's checkpoint has more."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
        "sys.argv = ['lab', 'train', 'lenet_1_vanilla', '--epochs', '1', '--folder', 'out']; "
        "from lab.__main__ import main; main()"
    )
    environment = os.environ | {"SESSION7_DATASET": "sample", "SESSION7_SHORT": "1", "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].startswith("cannot read or write here: File too large")
    assert "Traceback" not in answer.stderr
    assert list(Path("out").iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------------
# Files and options that are none
# ---------------------------------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
YAMLS = {
    "": "is empty, expected fields of a recipe, such as 'epochs: 3'",
    "# nothing\n": "is empty",
    "- 1\n- 2\n": "has a list, expected fields",
    "three": "has a str, expected fields",
    BOMB: "is not YAML that is read here, expected fields of a recipe, such as 'epochs: 3': it has the alias *a0, expected",
    "switches: " + "[" * 45_000 + "]" * 45_000: "is not YAML that is read here, expected fields",
    "switches: " + "{a: " * 20_000: "is not YAML that is read here, expected fields",
    "- " * 40_000: "is not YAML that is read here, expected fields",
    "a: [\n": "is not YAML",
    "a: \x01": "is not YAML",
    "# " + "x" * 200_000: "is larger than 100,000 bytes",
}


@pytest.mark.parametrize(("text", "complaint"), YAMLS.items(), ids=range(len(YAMLS)))
@pytest.mark.parametrize("option", ["--config my.yaml", "--config=my.yaml", "--folder old"])
def test_yaml_without_fields_is_one_sentence_at_once(few, stands_still, monkeypatch, capsys, text, complaint, option):
    """As --config, and as what a run's folder has in place of its config.yaml."""
    path = Path("old/config.yaml" if option == "--folder old" else "my.yaml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    started = time.monotonic()
    assert command(monkeypatch, "train", "simple_cnn", *option.split()) == 2
    assert time.monotonic() - started < 60  # a bomb takes for ever
    said = capsys.readouterr()
    assert f"{path} {complaint}" in said.err and said.err.count("\n") == 1 and len(said.err) < 1_000
    assert path.read_text() == text and len(list(Path().rglob("*.*"))) == 1


def test_a_config_that_is_no_text_or_no_file_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="a.yaml is not YAML that is read here, expected fields"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match="there is no file"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "name", ["torch", "nn", "utils", "Sequence", "pairwise", "separable_convolution", "Tensor", ""]
)
def test_what_is_no_network_is_none(few, monkeypatch, capsys, name):
    assert command(monkeypatch, "train", "simple_cnn", f"--network={name}") == 2
    said = capsys.readouterr().err
    assert (
        said
        == f"there is no network {name!r}, expected one of models.py or lab/runs/networks.py, or one in a file, such as mynet.py:MyNet\n"
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"momentum": 2}, "momentum is 2, expected a number from 0 to below 1"),
        ({"momentum": -0.5}, "momentum is -0.5, expected"),
        ({"gamma": -1}, "gamma is -1, expected a number above 0 and at most 1"),
        ({"gamma": 1e39}, "gamma is 1e\\+39, expected"),
        ({"learning_rate": -1}, "learning_rate is -1, expected a finite number of 0 or more"),
        ({"learning_rate": math.nan}, "learning_rate is nan, expected"),
        ({"weight_decay": -1}, "weight_decay is -1, expected a finite number of 0 or more"),
    ],
)
def test_a_recipe_with_rates_out_of_range_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(SMALL, **changes)
