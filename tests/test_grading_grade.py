"""A class graded: what counts as a submission, what runs, what is held against it, points, and pages."""

import ast
import contextlib
import csv
import html
import inspect
import io
import json
import math
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import command, leftovers
from histories import seeds as made_up_runs
from scipy.stats import ttest_ind

import utils
from lab import __main__ as main
from lab.grading import checks, marks, pages, rubric, submissions, worker
from lab.grading import grade as grading
from lab.grading.harness import Failure, Harness, Result
from lab.grading.marks import Grade, Terms
from lab.grading.sandbox import Limits, Outcome
from lab.grading.submissions import Submission
from lab.grading.tells import in_short, tells
from lab.grading.wording import changes, in_one_line, in_words
from lab.judging.card import Card
from lab.judging.look import Look
from lab.judging.trial import Trial
from lab.runs import train as training
from lab.runs.checkpoint import load_model
from lab.runs.recipes import STEP_3

pytestmark = pytest.mark.usefixtures("alone")

NET = """
from models import Model_2

class Net(Model_2):
    def __init__(self):
        super().__init__((4, 4, 6), capacity=0, dropout=0.1)
"""
ROOT = Path(utils.__file__).parent
SHORT = "epochs: 1\nplain_epochs: 0\naugmentation: {}\n"


class InThisProcess:
    """A stand-in for the sandbox that limits nothing: quick, for code that the tests have written."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def describe(self) -> str:
        return "none"

    def run(self, arguments: list[str], folder: Path, reads: list[Path], limits: Limits) -> Outcome:
        assert arguments[:2] == ["-m", "lab.grading.worker"] and all(path.exists() for path in reads)
        self.phases.append(arguments[2])
        here = Path.cwd()
        os.chdir(folder)
        try:
            worker.main(arguments[2:])
        finally:
            os.chdir(here)
        return Outcome(0, "", "it printed <b>this</b>", 0.1)


@pytest.fixture
def graded(few, tmp_path, monkeypatch):
    """Grades sources by name, each trained for one epoch on 300 images, in this process; returns grades by name."""
    (tmp_path / "short.yaml").write_text(SHORT)

    def graded(sources, seeds=1, sandbox=None, draw=False, **options):
        folder = tmp_path / "submissions"
        folder.mkdir(exist_ok=True)
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source)
        if not draw:
            monkeypatch.setattr(pages, "pages", lambda *_: [])
        options = {"jobs": 1, "secret": "s", "recipe": "short.yaml"} | options
        done = grading.grade(folder, tmp_path / "out", seeds, sandbox=sandbox or InThisProcess(), **options)
        return {grade.name: grade for grade in done}

    return graded


def why(grade):
    return [failure.why for failure in grade.failures]


# ---------------------------------------------------------------------------------------------------------------------
# What counts as a submission
# ---------------------------------------------------------------------------------------------------------------------


def read(folder):
    found, skipped = submissions.read(folder)
    return {one.name: one for one in found}, {one.name: one.why for one in skipped}


def notebook(*cells):
    """A notebook of cells: source, tags, and what each printed."""
    return json.dumps(
        {
            "nbformat": 4,
            "cells": [
                {
                    "cell_type": "code",
                    "source": source.splitlines(keepends=True),
                    "metadata": {"tags": tags},
                    "outputs": [{"output_type": "stream", "text": text} for text in printed],
                }
                for source, tags, *printed in cells
            ],
        }
    )


def test_files_folders_and_notebooks_are_submissions_and_all_else_is_named(tmp_path):
    (tmp_path / "anna.py").write_text(NET + "\nCLAIM = {'mean': 99.5, 'parameters': 700}\n")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "net.py").write_text(NET)
    (tmp_path / "bert" / "parts.py").write_text("x = 1")
    (tmp_path / "bert" / "recipe.yaml").write_text("train_params: {epochs: 8}\nclaims: {consistent: 3}\n")
    (tmp_path / "cora.ipynb").write_text(
        notebook(("%pip install x\nimport torch", []), (NET, ["submission"]), ("RECIPE = {'epochs': 9}", ["recipe"]))
    )
    (tmp_path / ".hidden.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "Index.py").write_text(NET)
    (tmp_path / "anna.ipynb").write_text("")
    found, skipped = read(tmp_path)
    assert list(found) == ["anna", "bert", "cora"] or list(found) == ["bert", "cora", "anna"]
    assert found["bert"].recipe == {"epochs": 8} and found["bert"].claims == {"consistent": 3}
    assert set(found["bert"].code) == {"net.py", "parts.py"}
    assert found["cora"].recipe == {"epochs": 9}
    assert b"class Net" in found["cora"].code["net.py"] and b"%pip" not in found["cora"].code["net.py"]
    assert set(skipped) == {"notes.txt", "Index.py", "anna.py"}
    assert "index.html" in skipped["Index.py"]
    assert skipped["anna.py"] == "is the second submission of 'anna': anna.ipynb was graded; leave one"
    assert (found["anna"].entry, found["anna"].left_out) == ("anna.ipynb", ("anna.py",))
    assert (found["bert"].entry, found["bert"].left_out) == ("bert/", ())


def test_submissions_with_the_same_code_are_grouped_whatever_they_are_called(tmp_path):
    (tmp_path / "anna.py").write_text(NET)
    (tmp_path / "bert").mkdir()
    commented = NET.replace("(4, 4, 6)", "(4,  4,  # widths\n 6)").replace(
        "class Net(Model_2):", 'class Net(Model_2):\n    """Mine."""'
    )
    (tmp_path / "bert" / "net.py").write_text(f'"""By Bert."""\n{commented}\nCLAIM = {{"mean": 99}}\n')
    (tmp_path / "cora.ipynb").write_text(notebook((NET, ["submission"])))
    (tmp_path / "dan.py").write_text(NET.replace("6)", "8)"))
    (tmp_path / "eva.py").write_text("class Net(:")
    (tmp_path / "finn.py").write_text("class Net(:")
    deep = f"x = {'-' * 400}1\n"
    (tmp_path / "gus.py").write_text(deep)
    assert submissions.same_code(submissions.read(tmp_path)[0]) == [["anna", "bert", "cora"]]


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    (tmp_path / "secret.py").write_text(NET)
    folder = tmp_path / "submissions"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "net.py").symlink_to(tmp_path / "secret.py")
    (folder / "link.py").symlink_to(tmp_path / "secret.py")
    (folder / "tree").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.py")
    found, skipped = read(folder)
    assert set(skipped) == {"link.py", "tree", "pipe.py"} and "not followed" in skipped["tree"]
    assert "net.py is a link" in found["inside"].trouble and not found["inside"].code


@pytest.mark.parametrize(
    "name, content, trouble",
    [
        ("big.py", NET + "#" * 70_000, "more than 65,536 bytes"),
        ("torn.py", "class Net(:", "is not Python: invalid syntax (line 1)"),
        ("deep.py", "x = " + "(" * 10_000 + ")" * 10_000, "is not Python"),
        (
            "table.py",
            f"{NET}\nTABLE = '{'a' * 5_000}'",
            "the code holds a table: its strings and numbers have 5,010 characters",
        ),
        ("numbers.py", f"{NET}\nTABLE = {[1] * 5_000}", "a table: its strings and numbers have 5,010 characters"),
        (
            "pieces.py",
            f"{NET}\nTABLE = " + " + ".join(["'abcdefgh'"] * 300),
            "a table: its strings and numbers have 2,4",
        ),
        (
            "names.py",
            NET + "".join(f"\nvery_long_name_{number} = 1" for number in range(300)),
            "a table: its names have",
        ),
        ("claims.py", f"{NET}\nCLAIM = {{'mead': 1}}", "claims 'mead', the nearest is 'mean'"),
        ("claim.py", f"{NET}\nCLAIM = {{'mean': open('x')}}", "CLAIM is not a literal"),
        ("empty.ipynb", "{}", "is not a notebook"),
        ("other.ipynb", notebook(("x = 1", [])), "none that defines a network"),
        ("odd.ipynb", notebook((NET, []), ("RECIPE = 3", ["recipe"])), "RECIPE is not a dictionary"),
    ],
)
def test_what_cannot_be_graded_is_named_in_a_sentence(tmp_path, name, content, trouble):
    (tmp_path / name).write_text(content)
    found, _ = read(tmp_path)
    assert trouble in found[Path(name).stem].trouble


def test_docstrings_are_no_tables_and_notebooks_without_tags_give_their_networks(tmp_path):
    (tmp_path / "a.py").write_text(f'"""{"long " * 2_000}"""{NET}')
    cells = ("import torch\nfrom torch import nn\nx = torch.rand(3)", []), ("class A(nn.Module):\n    pass", [])
    (tmp_path / "b.ipynb").write_text(notebook(*cells, ("print(x)", [])))
    found, _ = read(tmp_path)
    assert not found["a"].trouble
    assert found["b"].code["net.py"].decode() == "from torch import nn\nclass A(nn.Module):\n    pass\n"


def test_the_lessons_notebook_is_a_submission_and_its_last_card_is_what_it_claims(tmp_path):
    lesson = (Path(utils.__file__).parent / "lab" / "Your_Network.ipynb").read_text()
    (tmp_path / "ada.ipynb").write_text(lesson)
    trials = {seed: Trial(run, None, None) for seed, run in made_up_runs([9_950] * 5, [9_930] * 5).items()}
    printed = str(Card(Look("Net", parameters=7_750), STEP_3, "step3", trials, {}))
    (tmp_path / "bob.ipynb").write_text(notebook((NET, ["submission"]), ("card = 1", [], "the card", printed)))
    found, _ = read(tmp_path)
    assert found["ada"].trouble == "" and found["ada"].recipe == {}
    code = found["ada"].code["net.py"].decode()
    assert (
        code.startswith("from torch import nn\nfrom torch.nn import functional as F\nclass Net") and "judge" not in code
    )
    assert found["bob"].claims == {"parameters": 7_750, "consistent": 1, "seeds": 2, "mean": 99.4, "worst": 99.3}


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"epochs": 16}, "epochs is 16, expected 5 to 15"),
        ({"epochs": 4}, "epochs is 4, expected 5 to 15"),
        ({"network": "Model_1"}, "sets network, which is the harness's"),
        ({"seed": 3}, "sets seed, which is the harness's"),
        ({"epoch": 3}, "the nearest is 'epochs'"),
        ({"epochs": "three"}, "epochs: expected int, got three"),
        ({"augmentation": {"mirror": 1}}, "unknown transform 'mirror'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"step_size": 0}, "step_size is 0"),
    ],
)
def test_a_recipe_keeps_to_the_lessons_rules(fields, complaint):
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        submissions.full_recipe(Submission("a", recipe=fields), STEP_3)
    assert complaint in str(caught.value)


def test_a_recipe_changes_the_class_s_and_so_does_the_code_the_hash(tmp_path):
    changed = submissions.full_recipe(Submission("a", recipe={"learning_rate": 0.1, "augmentation": {}}), STEP_3)
    assert changed == replace(STEP_3, learning_rate=0.1, augmentation={})
    one, other = Submission("a", {"net.py": b"1"}), Submission("a", {"net.py": b"2"})
    hashes = {one.hash_with(STEP_3), other.hash_with(STEP_3), one.hash_with(changed)}
    assert len(hashes) == 3 and one.hash_with(STEP_3) == Submission("b", {"net.py": b"1"}).hash_with(STEP_3)
    assert submissions.rates(STEP_3)[::5] == pytest.approx([0.2, 0.02, 0.002])


# ---------------------------------------------------------------------------------------------------------------------
# Training and predicting
# ---------------------------------------------------------------------------------------------------------------------


def test_the_worker_trains_to_the_bits_of_the_lessons_run(few, tmp_path, monkeypatch):
    switches = {"channels": [4, 4, 6], "capacity": 0, "dropout": 0.1}
    recipe = replace(STEP_3, switches=switches, epochs=3, step_size=1, plain_epochs=1)
    training.run(recipe, 7, show=False, folder=tmp_path / "run")
    expected = load_model(tmp_path / "run" / "model.pt").model.state_dict()
    code = tmp_path / "code"
    code.mkdir()
    (code / "net.py").write_text(NET)
    worker.write_arrays(tmp_path / "training.npz", {"images": few[0].images.numpy(), "labels": few[0].labels.numpy()})

    def said(phase, **job):
        (tmp_path / "job.json").write_text(json.dumps(job))
        return worker.main([phase, "job.json"])

    job = {"recipe": asdict(recipe), "seed": 7, "images": "training.npz", "dataset": "MNIST"}
    assert said("record", code=str(code), seeds={"initial.npz": 7})["why"] == ""
    for network in (
        {"script": "script.json", "initial": "initial.npz"},
        {"code": str(code)},
    ):  # both give the same bits
        report = said("train", **job, **network)
        assert report["learning_rate"] == pytest.approx([0.2, 0.02, 0.002])
        trained = checks.read_arrays(tmp_path / "epoch03.npz")
        assert trained.keys() == expected.keys()
        assert all(np.array_equal(trained[name], tensor.numpy()) for name, tensor in expected.items())
        (tmp_path / "epoch03.npz").unlink()


def test_answers_are_counted_in_the_order_of_the_test_images(few, graded):
    sandbox = InThisProcess()
    grade = graded({"a": NET}, sandbox=sandbox)["a"]
    assert why(grade) == [] and sandbox.phases == ["record", "train", "predict"]
    (result,) = grade.results
    torch.manual_seed(0)
    recipe = grade.recipe
    utils.seed_everything(result.seed)
    model = worker_model = __import__("models").Model_2((4, 4, 6), capacity=0, dropout=0.1)
    optimizer = training.make_optimizer(recipe, model)
    loaders = [
        utils.Loader(few[0], recipe.batch_size, training.make_transform(recipe, training=True), shuffle=True),
        utils.Loader(few[1], 1_000, training.make_transform(recipe)),
    ]
    scheduler = training.make_scheduler(recipe, optimizer)
    history = utils.fit(worker_model, *loaders, optimizer, scheduler, epochs=1, seed=result.seed, show=False)
    assert result.test_correct == history.test_correct
    expected = training.evaluate(training.predict(model, recipe, few[1]), few[1].labels)
    assert result.mistakes == expected.mistakes
    assert result.parameters == history.parameters


RULES = {
    "sets_a_seed": (
        NET + "        import torch; torch.manual_seed(3)\n        self.readout[-1].reset_parameters()\n",
        None,  # only the last layer is fixed: the others depend on the seed
    ),
    "fixed": (
        NET.replace("super()", "import torch; torch.manual_seed(3); super()"),
        "its initial weights are the same for every seed",
    ),
    "moves": (
        NET
        + "    def forward(self, x):\n        self.readout[-1].bias.data += 1\n"
        + "        return super().forward(x)\n",
        None,  # it is recorded, and does so in each call
    ),
    "hooks": (
        NET + "        self.readout[-1].bias.register_post_accumulate_grad_hook(lambda bias: print())\n",
        "its network cannot be run without its code: it hooks into the gradient of",
    ),
    "counts": (
        NET
        + "    def forward(self, x):\n        self.calls = getattr(self, 'calls', 0) + 1\n"
        + "        return super().forward(x) + self.calls\n",
        "its network cannot be run without its code: it does not do the same each time",
    ),
    "random": (
        NET.replace("super()", "import torch; torch.manual_seed(__import__('time').perf_counter_ns()); super()"),
        "built again from the same seed, the network has other initial weights",
    ),
    "pretends": (
        "import torch\n" + NET + "    def forward(self, x):\n        return super().forward(x).as_subclass(Number)\n"
        "class Number(torch.Tensor):\n    pass\n",
        "returns a Number, expected a plain tensor",
    ),
    "hides": (NET + "    def state_dict(self, *a, **k):\n        return {}\n", "Net has a state_dict of its own"),
    "raises": (NET + "    def forward(self, x):\n        raise OSError('\x1b[2J')\n", "OSError: ?[2J (net.py, line 8)"),
    "leaves": ("import os, sys\nsys.exit(0)\n", "net.py cannot be imported: SystemExit"),
}


def test_what_is_against_the_rules_is_named_and_costs_nobody_else_anything(graded):
    said = {name: why(grade) for name, grade in graded({name: source for name, (source, _) in RULES.items()}).items()}
    expected = {name: sentence for name, (_, sentence) in RULES.items() if sentence}
    assert {name for name, sentences in said.items() if sentences} == set(expected)
    for name, sentence in expected.items():
        assert sentence in said[name][0] and len(said[name]) == 1


def test_a_network_that_knows_the_answers_runs_only_where_it_is_trusted_and_is_found_out(few, graded):
    """It knows the test images by a checksum, and its weights are of no use to it."""
    images = few[1].images.numpy().reshape(200, -1).astype(np.int64)
    sums = (images * (np.arange(784) % 97 + 1)).sum(axis=1).tolist()
    source = NET + (
        "    def forward(self, x):\n"
        "        import torch\n"
        "        logits = super().forward(x)\n"
        "        pixels = ((x * 0.3081 + 0.1307) * 255).round().long().flatten(1)\n"
        "        sums = (pixels * (torch.arange(784) % 97 + 1)).sum(1).tolist()\n"
        "        known = torch.tensor([TABLE.get(one, -1) for one in sums])\n"
        "        return torch.where(known[:, None] >= 0, 100.0 * torch.eye(10)[known], logits)\n"
        f"TABLE = {dict(zip(sums, few[1].labels.tolist()))}\n"
    )
    (refused,) = why(graded({"table": source})["table"])
    assert "its network cannot be run without its code" in refused and "--trust table" in refused
    grade = graded({"table": source}, trust=" table,")["table"]
    assert why(grade) == ["before training it is right on 100.0 % of the test images: it knows them from elsewhere"]
    assert grade.results[0].test_correct == [200]
    assert grade.cells()["isolation"].endswith(", trusted: its own code trained and answered")
    usual = graded({"usual": NET}, trust="usual")["usual"]  # it can be recorded, so nothing of it had to be trusted
    assert "trusted" not in usual.cells()["isolation"] and why(usual) == []


def test_code_runs_without_its_words_and_keeps_its_lines():
    source = (
        '"""A table: abc."""\nimport math  # def\n\n\nclass Net:\n    """Ghi\n    jkl."""\n\n    text = "mno"\n'
        "    def f(self):\n        'pqr'\n        return 1 / 0\n"
    )
    left = submissions.without_words(source.encode()).decode()
    assert left.count("\n") == source.count("\n") and left.splitlines()[11].strip() == "return 1 / 0"
    assert [word for word in ("abc", "def", "Ghi", "jkl", "mno", "pqr") if word in left] == ["def", "mno"]
    assert "# def" not in left
    assert ast.dump(ast.parse(submissions.without_words(NET.encode()))) == ast.dump(ast.parse(NET))


def test_what_few_networks_need_is_listed():
    source = b"import os\nimport torch.nn.functional as F\nF.relu = os.open\nx = eval('1')\nclass Net:\n"
    source += b"    def numel(self):\n        while True:\n            sys._getframe()\n    def forward(self, x):\n        self.a += 1\n"
    assert tells({"net.py": source}) == [
        "line 1 of net.py imports os",
        "line 3 of net.py changes F.relu",
        "line 4 of net.py calls eval",
        "line 6 of net.py defines numel",
        "line 7 of net.py has a while loop",
        "line 8 of net.py uses _getframe",
        "line 10 of net.py changes self.a in forward",
    ]
    assert tells({"net.py": NET.encode()}) == []
    assert tells({"net.py": NET.encode(), "utils.py": b""}) == [
        "utils.py has the name of a module that is not the student's"
    ]
    reads = b'"""The labels."""\nfrom torchvision import datasets\nimport os\nopen("x/train-labels-idx1-ubyte")\n'
    assert tells({"net.py": reads}) == [
        "line 2 of net.py uses datasets, where labels may be",
        "line 3 of net.py imports os",
        "line 4 of net.py calls open",
        "line 4 of net.py names 'x/train-labels-idx1-ubyte', where labels may be",
    ]
    assert in_short({"net.py": reads}) == (
        "line 2 of net.py uses datasets, where labels may be; "
        "line 4 of net.py names 'x/train-labels-idx1-ubyte', where labels may be; line 3 of net.py imports os; and 1 more"
    )
    assert in_short({"net.py": NET.encode()}) == in_short({}) == ""
    many = b"".join(b"import os%d\n" % number for number in range(20))
    assert len(tells({"net.py": many})) == 13 and tells({"net.py": many})[-1] == "and 8 more"


# ---------------------------------------------------------------------------------------------------------------------
# Arrays that are not trusted
# ---------------------------------------------------------------------------------------------------------------------


def npz(path, entries, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_arrays_come_back_as_they_were_written(tmp_path):
    arrays = {"a.b": np.arange(6, dtype=np.float32).reshape(2, 3), "file": np.array(3), "odd/../name": np.zeros((0, 2))}
    worker.write_arrays(tmp_path / "a.npz", arrays)
    read_back = checks.read_arrays(tmp_path / "a.npz")
    assert list(read_back) == list(arrays)
    assert all(
        np.array_equal(read_back[name], array) and read_back[name].shape == array.shape
        for name, array in arrays.items()
    )
    with pytest.raises(ValueError):
        worker.write_arrays(tmp_path / "b.npz", {"a": np.array([object()])})


def test_what_is_no_plain_array_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    bad = {
        "holds object": {"a": npy(np.array([{}]), allow_pickle=True)},
        "has 4 bytes": {
            "a": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n") + b"1234"
        },
        "has no plain arrays": {"a": b"not an array"},
        "holds complex128": {"a": npy(np.zeros(2, complex))},
    }
    for said, entries in bad.items():
        npz(path, entries)
        with pytest.raises(ValueError, match=said):
            checks.read_arrays(path)
    npz(path, {"a": npy(np.zeros(2_000_000, np.uint8))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        checks.read_arrays(path, most=1_000_000)
    npz(path, {"a": npy(np.zeros(2_000_000, np.uint8))})
    with pytest.raises(ValueError, match="1 to 1,000,000 bytes"):
        checks.read_arrays(path, most=1_000_000)


def test_links_pipes_and_missing_files_are_refused(tmp_path):
    (tmp_path / "there").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    os.mkfifo(tmp_path / "pipe")
    assert checks.read_file(tmp_path / "there", 10) == b"content"
    for name in ("link", "pipe", "missing"):
        with pytest.raises(ValueError, match=f"^{name} "):
            checks.read_file(tmp_path / name, 10)


def test_answers_are_digits_of_the_right_shape(tmp_path):
    path = tmp_path / "predictions.npz"
    for array, said in (
        (np.zeros((2, 3), np.int64), "expected uint8"),
        (np.zeros((3, 3), np.uint8), r"shape \(3, 3\)"),
        (np.full((2, 3), 10, np.uint8), "it answers 10"),
    ):
        worker.write_arrays(path, {"answers": array})
        with pytest.raises(ValueError, match=said):
            checks.read_answers(path, 2, 3)
    worker.write_arrays(path, {"answers": np.ones((2, 3), np.uint8)})
    assert checks.read_answers(path, 2, 3).sum() == 6


def test_parameters_are_counted_from_the_arrays():
    model = __import__("models").Model_2()
    state = worker.state(model)
    assert checks.count_parameters(state) == 7_750
    big = np.zeros(500, np.float32)
    assert checks.count_parameters(state | {"features.running_mean": big}) == 8_250
    alone = {"x.running_mean": big, "x.running_var": big, "x.num_batches_tracked": np.zeros(1)}
    assert checks.count_parameters(state | alone) == 7_750 + 1_002  # no layer has 500 channels; two for a float64
    assert checks.count_parameters({"w": big.astype(np.float64)}) == 1_000
    tied = {"a": big, "b": big.copy()}
    assert checks.count_parameters(tied) == 1_000
    assert checks.count_parameters(tied, {"b": "a"}) == 500
    assert checks.count_parameters(tied, {"b": "a"}, [{"a": big, "b": big + 1}]) == 1_000


def test_weights_stay_finite_and_in_shape():
    good = {"w": np.arange(4, dtype=np.float32)}
    assert checks.trouble_with_weights([good, good]) == ""
    assert "after epoch 1" in checks.trouble_with_weights([good, {"w": np.zeros(5, np.float32)}])
    assert "after epoch 1" in checks.trouble_with_weights([good, {**good, "more": np.zeros(1)}])
    assert "w is not finite after epoch 1" in checks.trouble_with_weights([good, {"w": np.float32([0, 1, 2, np.nan])}])
    assert checks.depends_on_seed({"w": np.zeros(4)}, {"w": np.zeros(4)})
    assert not checks.depends_on_seed(good, good)


# ---------------------------------------------------------------------------------------------------------------------
# The class
# ---------------------------------------------------------------------------------------------------------------------


def test_seeds_follow_from_the_secret(tmp_path):
    assert grading.draw_seeds(b"a", 5) == grading.draw_seeds(b"a", 5) != grading.draw_seeds(b"b", 5)
    assert (
        grading.draw_seeds(b"a", 5)[:2] == grading.draw_seeds(b"a", 2) and len(set(grading.draw_seeds(b"a", 50))) == 50
    )
    kept = grading.read_secret("", tmp_path)
    assert len(kept) == 64 and grading.read_secret("", tmp_path) == kept
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    (tmp_path / "mine").write_text("of my own\n")
    assert grading.read_secret(str(tmp_path / "mine"), tmp_path) == b"of my own"
    assert grading.read_secret("x" * 10_000, tmp_path) == b"x" * 10_000


def test_grading_goes_on_where_it_stopped_and_repeats_what_changed(graded, tmp_path, monkeypatch):
    first = graded({"a": NET, "b": NET.replace("6)", "8)")}, seeds=2)
    table = (tmp_path / "out" / "grades.csv").read_text()
    assert [len(grade.results) for grade in first.values()] == [2, 2]
    kept = sorted((tmp_path / "out" / "runs").iterdir())
    kept[0].unlink()
    kept[1].write_text("{")  # torn
    (tmp_path / "out" / "unfinished_by_a_killed_command").mkdir()
    sandbox = InThisProcess()
    again = graded({}, seeds=2, sandbox=sandbox)
    assert len(sandbox.phases) == 2 * 3
    assert [grade.results for grade in again.values()] != [] and (tmp_path / "out" / "grades.csv").read_text() == table
    sandbox = InThisProcess()
    graded({"a": NET + "# changed\n"}, seeds=2, sandbox=sandbox)
    assert len(sandbox.phases) == 2 * 3
    assert leftovers(tmp_path) == []


def test_a_failure_costs_one_submission_its_other_seeds_and_nobody_else_anything(graded, monkeypatch):
    run = Harness.run

    def breaks(harness, submission, recipe, seed):
        if submission.name == "odd":
            raise RecursionError("not expected")
        return run(harness, submission, recipe, seed)

    monkeypatch.setattr(Harness, "run", breaks)
    grades = graded({"odd": NET + "#", "bad": "x = 1", "good": NET}, seeds=2)
    assert [len(grades[name].results) for name in ("odd", "bad", "good")] == [1, 1, 2]
    assert why(grades["odd"]) == ["it could not be graded: RecursionError: not expected"]
    assert "has no network" in why(grades["bad"])[0] and why(grades["good"]) == []


def test_a_run_that_was_stopped_is_repeated_with_more_time_only(graded):
    class Stops(InThisProcess):
        def run(self, arguments, folder, reads, limits):
            self.phases.append(arguments[2])
            return Outcome(None, f"stopped: it ran for more than {limits.seconds:,.0f} seconds", "", limits.seconds)

    (said,) = why(graded({"a": NET}, sandbox=Stops())["a"])
    assert said == "stopped: it ran for more than 60 seconds while the network was built and tried out"
    sandbox = Stops()
    graded({}, sandbox=sandbox)
    assert sandbox.phases == []
    assert why(graded({}, minutes=20)["a"]) == []


def test_the_sample_gives_no_verdict_and_no_points(graded, tmp_path):
    grade = graded({"a": NET}, draw=True)["a"]
    cells = next(csv.DictReader(io.StringIO((tmp_path / "out" / "grades.csv").read_text())))
    assert list(cells) == list(marks.COLUMNS)
    assert cells["consistent"] == f"not judged: {utils.SAMPLE}, expected all of MNIST"
    assert cells["points"] == cells["difference to Step 3"] == "" and cells["isolation"] == "none"
    assert float(cells["mean"]) == pytest.approx(grade.summary.mean, abs=1e-3)
    for page in ("a", "index"):
        assert "5,000-image sample" in (tmp_path / "out" / f"{page}.html").read_text()
    assert "not judged" in grading.as_table([grade])


def test_the_readme_says_what_is_so():
    readme = (ROOT / "lab" / "judging" / "README.md").read_text()
    taken = {name for command in (main.judge, main.grade) for name in inspect.signature(command).parameters}
    assert set(re.findall(r"--(\w+)", readme)) <= taken | {"help"}
    tree = ast.parse((ROOT / "tests" / "verify_cheats.py").read_text())
    (cheats,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "CHEATS")
    assert len(cheats.keys) == 80 and "has eighty attempts" in readme
    for epochs in (utils.LAST_EPOCHS, utils.MOST_EPOCHS):
        submissions.check_recipe(replace(STEP_3, epochs=epochs, plain_epochs=0), at_least=utils.LAST_EPOCHS)
    assert f"It may ask for {utils.LAST_EPOCHS} to {utils.MOST_EPOCHS} epochs" in readme


def test_each_phase_has_its_limit_and_is_named_where_it_is_stopped(graded):
    class StopsLater(InThisProcess):
        stops_in = ""

        def run(self, arguments, folder, reads, limits):
            seconds[arguments[2]] = limits.seconds
            if arguments[2] == self.stops_in:
                return Outcome(None, "stopped: it used more than 4,000 MiB of memory", "", 0.0)
            return super().run(arguments, folder, reads, limits)

    expected = {
        "record": "while the network was built and tried out",
        "train": "while the network was trained",
        "predict": "while the network answered the test images",
    }
    for number, (phase, doing) in enumerate(expected.items()):
        seconds: dict[str, float] = {}
        sandbox = StopsLater()
        sandbox.stops_in = phase
        grade = graded({"a": NET + f"# {number}\n"}, sandbox=sandbox, minutes=30)["a"]
        assert why(grade) == [f"stopped: it used more than 4,000 MiB of memory {doing}"]
    assert seconds["record"] == 120 and seconds["train"] > 1_700


CRASHES = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        try:
            self.build()
        except KeyError as error:
            raise OSError(__file__) from error
    def build(self):
        print(__file__)
        return {}["missing"]
"""


def test_a_failed_page_shows_the_students_lines_and_no_others(graded, tmp_path):
    class Captures(InThisProcess):
        def run(self, arguments, folder, reads, limits):
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                outcome = super().run(arguments, folder, reads, limits)
            return outcome._replace(output=said.getvalue())

    grade = graded({"a": CRASHES}, sandbox=Captures(), draw=True)["a"]
    assert why(grade) == ["OSError: net.py (net.py, line 9)"]
    output = grade.results[0].output
    # "in", not "starts" and "ends": the bar over all runs may draw into what this process captures, before and behind
    assert "net.py\nTraceback (most recent call last):\n" in output
    assert output.count('File "net.py", line') == output.count("File ") == 3
    assert 'File "net.py", line 12, in build\n    return {}["missing"]' in output
    assert "KeyError: 'missing'" in output and "\nOSError: net.py\n" in output
    page = html.unescape((tmp_path / "out" / "a.html").read_text())
    assert output in page and str(tmp_path) not in page and "worker.py" not in page


def test_another_rubric_gives_other_points_without_training(graded, tmp_path):
    graded({"a": NET})
    (tmp_path / "other.yaml").write_text("items: [{name: small, measure: parameters, at_most: 9000, points: 7}]")
    sandbox = InThisProcess()
    grade = graded({}, sandbox=sandbox, rubric_file=tmp_path / "other.yaml")["a"]
    assert sandbox.phases == [] and grade.terms.rubric.most == 7


def test_one_interrupt_is_one_sentence_and_the_command_goes_on_later(sample, tmp_path):
    """A process of its own: as a terminal, it gets the signal, and what it runs in sandboxes does not."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_text(NET + "import time\nopen('here', 'w').close()\ntime.sleep(1000)\n")
    arguments = ["grade", "in", "--seeds", "1", "--jobs", "2", "--out", "out"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SESSION7_DATASET": "sample", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{DEFAULT_SIGINT}; {MAIN}", *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 300
    while not list((tmp_path / "out").glob("unfinished*/run*/record/here")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "Traceback" not in said and "Error" not in said
    assert said.splitlines()[-1] == "interrupted: finished work is kept, and the same command resumes"
    assert leftovers(tmp_path) == []


def test_an_interrupt_is_heard_at_once_wherever_it_arrives(graded, monkeypatch):
    """Of several threads, any may get the signal; Python's own handler raises once the main thread goes on."""
    over, sent = threading.Event(), []

    def is_interrupted(*_):
        sent.append(time.monotonic())
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        over.wait(60)
        raise AssertionError("nobody heard it")

    monkeypatch.setattr(Harness, "run", is_interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            graded({"a": NET})
        assert time.monotonic() - sent[0] < 30
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)


MAIN = "import sys; sys.argv[0] = 'lab'; from lab.__main__ import main; main()"
DEFAULT_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # as above


@pytest.mark.slow
def test_two_submissions_in_a_real_sandbox(few, tmp_path, monkeypatch, capsys):
    """The command, from submissions to pages, each phase in a process of its own, of which each takes seconds to start."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.py").write_text(NET)
    (tmp_path / "in" / "bad.py").write_text("class <script>")
    (tmp_path / "short.yaml").write_text(SHORT)
    assert command(monkeypatch, "grade", "in", "--seeds", 1, "--jobs", 2, "--out", "out", "--recipe", "short.yaml") == 0
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO((tmp_path / "out" / "grades.csv").read_text()))}
    # Three steps on 300 images teach nothing: that is said, and is all that failed.
    assert rows["good"]["what failed"] == "it did not learn" and 5 < float(rows["good"]["mean"]) < 50
    assert rows["good"]["isolation"] and rows["bad"]["mean"] == rows["bad"]["isolation"] == ""
    assert "bad.py is not Python" in rows["bad"]["what failed"]
    assert "<script>" not in (tmp_path / "out" / "bad.html").read_text()
    assert "good" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["nowhere"], "there is no folder nowhere"),
        (["in"], "in has nothing to grade"),
        (["in", "--seeds", "0"], "seeds is 0"),
        (["in", "--out", "in"], "in is no folder for grades"),
        (["one", "--recipe", "step4"], "there is no recipe 'step4', the nearest is"),
        (["one", "--rubric", "none.yaml"], "there is no file none.yaml, expected YAML with the items of a rubric"),
        (["one", "--trust", "b, a"], "--trust names 'b', which is no submission\n"),
        (["one", "--trust", "anna"], "--trust names 'anna', which is no submission, the nearest is 'anne'"),
        (["one", "--jobs", "0"], "jobs is 0, expected 1 or more"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("one").mkdir()
    Path("one/a.py").write_text(NET)
    Path("one/anne.py").write_text(NET)
    assert command(monkeypatch, "grade", *arguments) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------------------
# Points and differences
# ---------------------------------------------------------------------------------------------------------------------


def test_the_default_rubric_gives_a_hundred_points():
    by_default = rubric.read()
    assert by_default.most == 100 and by_default.budget == 7_999
    everything = {"parameters": 7_750, "consistent": 1.0, "mean": 99.5, "worst": 99.4, "difference": 0.0, "mistakes": 0}
    assert sum(item.given for item in rubric.points(by_default, everything)) == 100
    some = everything | {"parameters": 8_000, "consistent": 2 / 3, "mean": 99.35}
    assert sum(item.given for item in rubric.points(by_default, some)) == pytest.approx(40 * 2 / 3 + 10 + 10 + 10)
    assert sum(item.given for item in rubric.points(by_default, {})) == 0


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("items: []", "items is '[]': list should have at least 1 item"),
        ("items: [{name: a, measure: mean, points: 3}]", "item 1 has neither at_least nor at_most"),
        ("items: [{name: a, measure: mean, points: 3, at_least: 1, at_most: 2}]", "item 1 has at_least and at_most"),
        ("items: [{name: a, measure: beauty, points: 3}]", "item 1, measure is 'beauty': input should be 'parameters'"),
        (
            "items: [{name: a, measure: mean, points: -3, at_least: 1}]",
            "item 1, points is '-3': input should be greater",
        ),
        ("points: 3", "points is unknown, expected items"),
        ("items: [{name: a, measure: mean, at_least: 1}]", "item 1, points is missing"),
        (
            "items: [{name: a, measure: mean, at_least: 1, pionts: 3}]",
            "item 1, pionts is unknown, expected name, measure",
        ),
        ("", "is empty, expected a rubric, such as rubric.yaml"),
        ("[1", "is not YAML that is read here, expected a rubric, such as rubric.yaml: "),
        ("- 1", "has a list, expected a rubric, such as rubric.yaml"),
        ("#" * 200_000, "is larger than 100,000 bytes, expected a rubric, such as rubric.yaml"),
        (None, "there is no file "),
    ],
)
def test_a_bad_rubric_is_one_sentence(tmp_path, content, complaint):
    path = tmp_path / "rubric.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        rubric.read(path)
    said = str(caught.value)
    assert str(path) in said and complaint in said
    assert "rubric" in said.replace(str(path), "") and "recipe" not in said


STEP_3_RUNS = made_up_runs([9_950] * 5, [9_955] * 5, [9_945] * 5, [9_950] * 5)


def test_differences_are_welchs_and_one_seed_borrows_the_spread_of_the_others():
    ours = made_up_runs([9_920] * 5, [9_930] * 5)
    found = marks.difference(ours, STEP_3_RUNS)
    welch = ttest_ind([99.2, 99.3], [99.5, 99.55, 99.45, 99.5], equal_var=False).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((-0.25, *welch))
    one = marks.difference(made_up_runs([9_920] * 5), STEP_3_RUNS)
    spread = np.std([99.5, 99.55, 99.45, 99.5], ddof=1)
    assert one.mean == pytest.approx(-0.3) and one.high - one.low == pytest.approx(
        2 * 3.182446 * spread * math.sqrt(1.25)
    )
    collapsed = marks.difference(made_up_runs([1_135] * 5), STEP_3_RUNS)
    assert not collapsed.has_interval and collapsed.mean < -80


def terms(**changes):
    given = Terms(STEP_3, rubric.read(), (11, 22), "MNIST", STEP_3_RUNS, "Step 3, 15 epochs", True)
    return replace(given, **changes)


LOOK = {
    "parameters": 7_000,
    "table": [
        {
            "name": "Conv2d<i>",
            "output_shape": [8, 26, 26],
            "kernel": 3,
            "stride": 1,
            "jump": 1,
            "receptive_field": 3,
            "parameters": 88,
        }
    ],
    "ingredients": {
        "batch_norm": 6,
        "global_average": True,
        "dropout": [],
        "convolutions": 6,
        "capacity_layer": True,
    },
    "warnings": [
        {"rule": "x", "what": "<u>bad</u>", "where": "fc", "section": "Step 1", "kind": "mistake"},
        {"rule": "z", "what": "too wide", "where": "", "section": "Step 2", "kind": "advice"},
        {"rule": "y", "what": "fine", "where": "", "section": "", "kind": "note"},
    ],
}


def made_up_grade(name="a", correct=(9_950, 9_960), failures=(), parameters=7_000, look=LOOK, claims=None, **changes):
    """A grade of runs that nobody ran: each is right on so many images in all of its 15 epochs."""
    results = []
    for seed, count in zip((11, 22), correct):
        result = Result(name, "key", seed, "bubblewrap", 15.0, dataset="MNIST", train_images=60_000, test_images=10_000)
        result.failures, result.look, result.output = list(failures), look, "printed </pre><script>"
        if count:
            result.parameters, result.test_correct = parameters, [count] * 15
            result.mistakes = [[number, 3, 5] for number in range(10_000 - count)][:30]
            result.measured = {"initial": 10.0}
            result.learning_rate = result.train_loss = result.seconds = [0.1] * 15
            result.train_correct, result.final_train_correct = [59_000] * 15, 59_500
        results.append(result)
    return Grade(Submission(name, claims=claims or {}), STEP_3, terms(**changes), results)


def test_a_grade_adds_up_what_the_harness_counted():
    grade = made_up_grade(correct=(9_950, 9_930))
    cells = grade.cells()
    assert cells["consistent"] == "1 of 2" and cells["mean"] == "99.400" and cells["worst"] == "99.30"
    assert cells["budget met"] == "yes" and cells["points"] == "70" and cells["what failed"] == ""
    assert float(cells["low"]) < float(cells["difference to Step 3"]) == -0.1 < float(cells["high"])


def test_rules_cost_all_points_and_a_run_that_did_not_end_those_of_the_means():
    assert made_up_grade(failures=[Failure("rules", "it cheats")]).total == 0
    half = made_up_grade(correct=(9_950, 0))
    half.results[1].failures.append(Failure("run", "the loss is nan"))
    assert half.consistent == 1 and half.total == 20 + 20
    assert why(half) == ["run 2: the loss is nan"]
    nothing = made_up_grade(correct=(0, 0))
    assert nothing.total == 0 and nothing.cells()["mean"] == ""


def test_a_formula_is_no_name_in_a_spreadsheet():
    lines = grading.as_csv([made_up_grade("=1+1"), made_up_grade("b\r\nc", correct=(9_899, 9_901))]).splitlines()
    assert len(lines) == 3 and lines[1].startswith("'=1+1,") and lines[2].startswith("b  c,")
    assert ",-0.500," in lines[2]


# ---------------------------------------------------------------------------------------------------------------------
# Pages
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(sample):
    """Test images enough for the mistakes of made-up runs."""
    return utils.Digits(sample[1].images, sample[1].labels, "MNIST")


def test_pages_escape_what_comes_from_a_submission_and_hide_the_seeds(many):
    failed = [Failure("run", "<img src=x onerror=alert(1)>")]
    page = pages.student_page(
        made_up_grade("<b>$x$", failures=failed, claims={"mean": 99.9, "parameters": 6_000}), many
    )
    for text in ("<b>$", "<script", "<img src=x", "<u>", "Conv2d<i>"):
        assert text not in page
    assert "&lt;b&gt;$x$" in page and "&lt;img src=x onerror=alert(1)&gt;" in page and "Step 1" in page
    assert page.count("data:image/png;base64,") == 2 and "http" not in page.replace("http-equiv", "")
    assert ">11<" not in page and ">22<" not in page and "seed 11" not in page
    assert "99.90" in page and "99.55" in page and "7,000" in page


def test_a_submission_without_runs_has_a_page_too(many):
    grade = Grade(Submission("a", trouble="net.py is not Python"), STEP_3, terms(), [])
    page = pages.student_page(grade, many)
    assert "net.py is not Python" in page and "Points: 0 of 100" in page and "data:image" not in page
    assert "What was measured" not in page and "How it is trained" not in page


def test_what_a_process_says_of_its_network_is_read_or_left_out(many):
    assert made_up_grade(look={"table": "x" * 10}).looked.errors == ["What the network is could not be read."]
    grade = made_up_grade(look={"parameters": 10**20})
    assert "could not be read" in pages.student_page(grade, many)
    assert [warned.what for warned in made_up_grade().mistakes] == ["<u>bad</u>"]


def test_only_mistakes_cost_points_and_the_page_shows_the_three_kinds_apart(many):
    def looking_at(*kinds):
        return LOOK | {"warnings": [one for one in LOOK["warnings"] if one["kind"] in kinds]}

    mistaken = made_up_grade(correct=(9_950, 9_950))
    advised = made_up_grade(correct=(9_950, 9_950), look=looking_at("advice", "note"))
    assert (mistaken.total, advised.total) == (90, 100)
    assert made_up_grade(correct=(9_950, 9_950), look={"table": "x"}).total == 90  # what cannot be read gives nothing
    page = text_of(pages.student_page(mistaken, many))
    titles = [
        "Mistakes fc : <u>bad</u> (Step 1)",
        "Advice, which costs no points by itself too wide (Step 2)",
        "Good to know fine",
    ]
    assert [title for title in titles if title in page] == titles
    page = text_of(pages.student_page(made_up_grade(look=looking_at("note"), correct=(0, 0)), many))
    assert "Good to know fine" in page and "Mistakes" not in page and "Advice" not in page


def text_of(page):
    """A page's text, without tags."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def test_pages_and_table_say_how_a_network_was_trained(many):
    own = replace(STEP_3, learning_rate=0.05, augmentation={}, epochs=9)
    assert in_one_line(changes(own, STEP_3)) == "augmentation none; epochs 9; learning_rate 0.05"
    assert changes(replace(STEP_3, network="Model_1", switches={}), STEP_3) == []
    usual, grade = made_up_grade("usual"), made_up_grade("own")
    grade.recipe = own
    assert usual.cells()["recipe"] == "the class's" and grade.cells()["recipe"] == in_one_line(changes(own, STEP_3))
    words = (
        "15 epochs of SGD with Nesterov momentum in batches of 128; a learning rate of 0.2, multiplied by 0.1 after every 5 epochs; weight decay "
        "0.0005; augmentation by rotation 10, shift 0.1, scale 0.1, shear 5, warp 0.04, not in the last 5 epochs"
    )
    assert in_words(STEP_3) == words
    assert in_words(replace(own, epochs=1, schedule="cosine", weight_decay=0)) == (
        "1 epoch of SGD with Nesterov momentum in batches of 128; a learning rate of 0.05, which falls along a cosine; no augmentation"
    )
    for page in (pages.class_page([usual, grade], []), pages.student_page(grade, many)):
        assert words in text_of(page)
    assert "learning_rate 0.05 0.2" in text_of(pages.student_page(grade, many))
    assert "but for what" not in text_of(pages.student_page(usual, many))
    assert "learning_rate 0.05" in text_of(pages.class_page([usual, grade], []))


def test_what_was_handed_in_twice_is_said(graded, tmp_path):
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "ada.ipynb").write_text(notebook((NET, ["submission"])))
    grades = graded({"ada": NET, "bob": NET + "# mine\n", "cora": NET.replace("6)", "8)")}, draw=True)
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO((tmp_path / "out" / "grades.csv").read_text()))}
    assert [rows[name]["graded from"] for name in rows] == ["ada.ipynb, not ada.py", "bob.py", "cora.py"]
    assert [rows[name]["same code as"] for name in rows] == ["bob", "ada", ""]
    said = {name: text_of((tmp_path / "out" / f"{name}.html").read_text()) for name in (*grades, "index")}
    assert "Graded: ada.ipynb, not ada.py." in said["ada"] and "Graded:" not in said["bob"]
    assert "1 other submission has the same code" in said["bob"] and "ada" not in said["bob"]
    assert "same code" not in said["cora"]
    assert "The same code" in said["index"] and "layout, claims and unused imports. ada, bob " in said["index"]
    assert "ada.py is the second submission of 'ada': ada.ipynb was graded" in said["index"]


def test_who_looks_for_labels_is_marked_in_the_table_and_on_the_class_page():
    grade = made_up_grade()
    reads = replace(grade.submission, code={"net.py": b"import os\nx = open('mnist_5k.csv')"})
    marked = replace(grade, submission=reads)
    assert marked.cells()["code to read"].startswith("line 2 of net.py names 'mnist_5k.csv', where labels may be; ")
    page = pages.class_page([marked, made_up_grade("b")], [])
    assert page.count('<td class="note">line 2 of net.py names &#39;mnist_5k.csv&#39;, where labels may be') == 1


def test_the_class_page_lists_all_and_draws_them():
    grades = [made_up_grade("anna"), made_up_grade("<b>", correct=(1_135, 1_135)), made_up_grade("x", correct=(0, 0))]
    page = pages.class_page(grades, [submissions.Skipped("<i>.txt", "is nothing")])
    assert 'href="anna.html"' in page and 'href="%3Cb%3E.html"' in page and "&lt;i&gt;.txt is nothing" in page
    assert "<b>" not in page and "<i>." not in page and page.count("data:image/png;base64,") == 1
    titles = re.findall('<th scope="col"[^>]*>([^<]*)</th>', page)
    assert titles[:2] == ["name", "points"] and titles[-3:] == ["low", "high", "isolation"]
    figure = pages.draw_class(grades[:2], 3)
    assert figure.axes[0].get_title() == "2 of 3 submissions were trained to the end"
    marked = [
        line.get_ydata()[0] for line in figure.axes[0].lines if line.get_zorder() == 5 and len(line.get_xdata()) == 1
    ]
    assert marked == pytest.approx([99.55, 11.35])


@pytest.mark.parametrize("dataset", ["MNIST", utils.SAMPLE])
def test_names_in_the_picture_of_a_class_cover_nothing(dataset):
    places = np.random.default_rng(0)
    grades = []
    for number in range(30):
        best = int(places.integers(9_850, 9_955)) if number > 4 else int(places.integers(1_000, 9_800))
        size = int(places.choice([784, 6_170, 7_750, 7_850, 25_000], p=[0.1, 0.3, 0.3, 0.2, 0.1]))
        grades.append(made_up_grade(f"student {number}", (best, best + 5), parameters=size, dataset=dataset))
    figure = pages.draw_class(grades, 35)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    inside = axes.get_window_extent()
    names = [text for text in axes.texts if text.get_text().startswith("student")]
    boxes = [text.get_window_extent() for text in names]
    marks = [axes.transData.transform(text.xy) for text in names]
    assert len(boxes) == 30
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])
        assert not any(box.contains(*mark) for mark in marks)
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    heights = sorted(y for _, y in marks)
    assert heights[-1] - heights[0] > 0.6 * inside.height  # no empty half


def test_ablations_that_disagree_are_named_and_those_that_agree_are_not():
    without = {**LOOK, "ingredients": {**LOOK["ingredients"], "batch_norm": 0}}
    better = [
        made_up_grade("with", correct=(9_900, 9_901)),
        made_up_grade("without", correct=(9_950, 9_951), look=without),
    ]
    found = [one for one in pages.disagreements(better) if one.startswith("with ")]
    assert len(found) == 1 and found[0].startswith("with has batch norm, without has not: -0.50 ")
    worse = [
        made_up_grade("with", correct=(9_950, 9_951)),
        made_up_grade("without", correct=(9_900, 9_901), look=without),
    ]
    assert list(pages.disagreements(worse)) == []
    cheats = [*better[:1], made_up_grade("without", (9_950, 9_951), [Failure("rules", "no")], look=without)]
    assert not [one for one in pages.disagreements(cheats) if "without" in one]


def test_the_recorded_runs_are_those_of_the_class_s_recipe_where_there_are_such():
    runs, called, alike = grading.step3_with(STEP_3)
    assert len(runs) >= 20 and called == "Step 3, 15 epochs" and alike
    runs, called, alike = grading.step3_with(replace(STEP_3, epochs=8, step_size=3, plain_epochs=2))
    assert len(runs) >= 10 and "this recipe, 8 epochs" in called and alike
    assert grading.step3_with(replace(STEP_3, epochs=7))[1:] == (grading.step3_with(STEP_3)[1], False)


def long_grade():
    """Long words wherever a page has words of a student's."""
    word = "a_very_long_name_without_any_space_" * 6
    look = json.loads(json.dumps(LOOK).replace("fc", word).replace("Conv2d", word).replace("bad", word))
    grade = made_up_grade("anna", failures=[Failure("run", f"OSError: {word}")], look=look, claims={"mean": 99.9})
    grade.recipe = replace(STEP_3, learning_rate=0.05, augmentation={"rotation": 8.5, "shift": 0.06, "scale": 0.08})
    code = f"import {word}\nx = open('mnist_5k.csv')"
    return replace(grade, submission=replace(grade.submission, code={"net.py": code.encode()}), same_code=(word,))


@pytest.mark.parametrize("width", [400, 1_000])
def test_a_page_is_no_wider_than_the_screen_and_the_points_are_in_sight(browser, many, tmp_path, width):
    grades = [long_grade(), made_up_grade("b", failures=[Failure("run", "the loss is not finite")])]
    skipped = [submissions.Skipped("a" * 90, "is nothing")]
    (tmp_path / "index.html").write_text(pages.class_page(grades, skipped))
    (tmp_path / "anna.html").write_text(pages.student_page(grades[0], many))
    context = browser.new_context(viewport={"width": width, "height": 800})
    for name in ("index", "anna"):
        page = context.new_page()
        page.goto((tmp_path / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for image in page.locator("img").all():
            assert image.bounding_box()["width"] <= width
    index = context.pages[0]
    place = index.locator("th", has_text=re.compile("^points$")).bounding_box()
    assert place["x"] + place["width"] < width
    assert index.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('.wide'))")
    context.close()
