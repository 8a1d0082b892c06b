"""The command line: its help, its names, its complaints; and the rooms that the code is in."""

import ast
import functools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import command

from lab import __main__ as command_line
from lab.runs import config, recipes
from lab.runs.recipes import Recipe, Study
from lab.systems import catalog, listing
from lab.systems.peers import PEERS

ROOT = Path(__file__).parent.parent


# ---------------------------------------------------------------------------------------------------------------------
# Rooms
# ---------------------------------------------------------------------------------------------------------------------

# What each room may import of the project. lab.__main__ may import everything: it is where all commands start.
MAY_IMPORT = {
    "models": set(),
    "utils": set(),
    "app": {"app"},
    "lab": {"lab.judging"},  # whose two functions it offers
    "lab.evidence": {"lab.evidence", "utils"},
    "lab.runs": {"lab.runs", "lab.evidence", "utils", "models"},
    "lab.systems": {"lab.systems", "lab.runs", "lab.evidence", "utils", "models"},
    "lab.judging": {"lab.judging", "lab.systems", "lab.runs", "lab.evidence", "utils", "models"},
    "lab.grading": {"lab.grading", "lab.judging", "lab.runs", "lab.evidence", "utils", "models"},
    "lab.for_app": {"lab.for_app", "lab.runs", "lab.evidence", "utils", "models"},
    "lab.reports": {"lab.reports", "lab.systems", "lab.runs", "lab.evidence", "utils", "models"},
}
OF_THE_APP = {"app.digit", "app.doubt", "app.network", "app.picture", "app.runtime"}  # what WITH_THE_APP may import
WITH_THE_APP = {"lab.for_app", "lab.reports"}


@functools.cache
def modules():
    """Every module of the project by its dotted name, with its syntax tree."""
    found = {}
    paths = [ROOT / "models.py", ROOT / "utils.py", *(ROOT / "lab").rglob("*.py"), *(ROOT / "app").rglob("*.py")]
    for path in paths:
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[dotted] = ast.parse(path.read_text())
    return found


def room(module):
    """The room that a module is in: the longest of the names above that it starts with."""
    return max((name for name in MAY_IMPORT if f"{module}.".startswith(f"{name}.")), key=len)


def imports(tree, known):
    """The modules of the project that a module imports, at its top or inside a function."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports here are absolute"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in full]
        yield from (name for name in names if name.split(".")[0] in ("models", "utils", "lab", "app", "tests"))


def upward(trees):
    """Each import that a room may not do."""
    for module, tree in trees.items():
        if module == "lab.__main__":
            continue
        allowed = MAY_IMPORT[room(module)]
        for name in imports(tree, trees):
            if name in OF_THE_APP and room(module) in WITH_THE_APP:
                continue
            if name.startswith("tests") or room(name) not in allowed:
                yield f"{module} imports {name}"


def test_no_import_runs_upward():
    assert list(upward(modules())) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("utils", "import models"),
        ("models", "from lab.evidence import records"),
        ("app.digit", "import utils"),
        ("lab.evidence.records", "from lab.runs.recipes import Recipe"),
        ("lab.runs.study", "def f():\n    from lab.systems import peers"),
        ("lab.runs.study", "from lab import systems"),
        ("lab.systems.peers", "import lab.reports.compare"),
        ("lab.reports.errors", "from app import server"),
    ],
)
def test_an_upward_import_is_found(module, line):
    trees = dict(modules())
    trees[module] = ast.parse(line)
    assert len(list(upward(trees))) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Names of recipes and studies
# ---------------------------------------------------------------------------------------------------------------------


def test_the_recorded_list_is_that_of_the_recipes_and_networks():
    """After a change: `python -m lab list --update`."""
    assert listing.read() == json.loads(json.dumps(catalog.listed()))


def test_every_recipe_of_every_study_has_a_name_that_train_takes():
    for study in listing.read().values():
        for name in study["recipes"]:
            assert catalog.find_recipe(name).epochs == study["recipes"][name]["epochs"]
    assert set(PEERS) < set(catalog.names())
    for name, peer in PEERS.items():
        assert catalog.find_recipe(name) == peer.recipe


def test_a_name_means_one_recipe():
    for study, one in catalog.studies().items():
        for (key, recipe), name in zip(one.recipes.items(), listing.read()[study]["recipes"], strict=True):
            assert catalog.find_recipe(name) == catalog.find_recipe(f"{study}/{key}") == recipe


@pytest.mark.parametrize(
    ("name", "study", "key"),
    [
        ("3982_parameters", "frontier", "3982_parameters"),
        ("ladder/no_batch_norm", "ladder", "no_batch_norm"),
        ("ablation/no_batch_norm", "ablation", "no_batch_norm"),
        ("step1", "consistency", "step1"),
        ("choice/step1", "choice", "step1"),
    ],
)
def test_recipes_are_found_by_name(name, study, key):
    assert catalog.find_recipe(name) == recipes.STUDIES[study].recipes[key]


def test_one_name_for_two_recipes_is_refused_with_the_names_to_choose_from():
    with pytest.raises(ValueError, match="expected one of ladder/no_batch_norm, fashion/no_batch_norm, ablation"):
        catalog.find_recipe("no_batch_norm")


def test_a_new_study_needs_no_other_place(monkeypatch):
    monkeypatch.setitem(recipes.STUDIES, "tiny", Study("?", 1, {"step1": Recipe("LeNet"), "small": Recipe("LeNet")}))
    assert catalog.names()["tiny/step1"] == catalog.names()["small"] == Recipe("LeNet")


def test_every_name_can_be_trained(few, monkeypatch):
    """A recipe with a slash in its name has its folder too."""
    assert command(monkeypatch, "train", "frontier/1450_parameters", "--epochs", "1", "--seed", "3") == 0
    assert Path("runs/frontier/1450_parameters/3/model.pt").exists()


# ---------------------------------------------------------------------------------------------------------------------
# The list
# ---------------------------------------------------------------------------------------------------------------------


def test_the_list_has_studies_and_recipes_in_100_columns(monkeypatch, capsys):
    assert command(monkeypatch, "list") == 0
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines() if line}
    assert {f"{study}:" for study in catalog.studies()} | set(catalog.names()) < set(lines)
    assert max(map(len, said.splitlines())) <= 100
    assert "25,927,246" in lines["two_branches"] and "99.20, 1 run" in lines["two_branches"]
    assert "97.25, 5 runs" in lines["lenet_1_vanilla"]
    assert lines["3982_parameters"].split() == ["3982_parameters", "3,982", "15"]


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["study", "--help"], ["train", "--help"], ["lits"]])
def test_what_needs_no_network_imports_no_pytorch(arguments):
    """PyTorch and matplotlib take seconds to import; these commands answer at once."""
    code = (
        "import sys; from lab.__main__ import main\n"
        f"sys.argv = ['lab', *{arguments}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'scipy', 'utils', 'models'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# Help
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_each_command_and_each_of_its_fields_has_a_help_text(monkeypatch, capsys, name):
    assert command(monkeypatch, name, "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"usage: python -m lab {name} ") and "type:" not in said and "default:" not in said
    for parameter in command_line._parameters(command_line.COMMANDS[name]):
        text = parameter.annotation.__metadata__[0]
        assert len(text) > 10 and text in said.replace("- ", "-")
    assert command(monkeypatch, "--help") == 0
    assert " ".join(command_line.COMMANDS[name].__doc__.split()) in " ".join(capsys.readouterr().out.split())


def test_help_of_a_recipe_has_its_fields_values_and_choices(monkeypatch, capsys):
    assert command(monkeypatch, "train", "simple_cnn", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    for field in config.FIELDS:
        text = Recipe.__annotations__[field].__metadata__[0]
        assert f"--{field} " in said and text in said
    assert "{nesterov,sgd,adam,adadelta}" in said and "{step,cosine,one-cycle}" in said
    assert "default: adam" in said and "default: 30" in said


def test_help_of_a_study_names_the_studies(monkeypatch, capsys):
    assert command(monkeypatch, "study", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"one of {', '.join(catalog.studies())}" in said and "{loky,dask}" in said


# ---------------------------------------------------------------------------------------------------------------------
# Complaints
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "no command is given, expected one of list, judge, grade, train,"),
        ("lits", "there is no command 'lits', the nearest is 'list', expected one of"),
        ("list --upate", "list does not take 'upate', the nearest is '--update': see `python -m lab list --help`"),
        ("data again", "data does not take 'again': see `python -m lab data --help`"),
        ("test", "test expects checkpoint: see `python -m lab test --help`"),
        ("repeat ladder", "repeat expects recipe, seed: see `python -m lab repeat --help`"),
        ("repeat ladder gap first", "seed: expected int, got first"),
        ("repeat ladder gpa 0", "the study ladder has no recipe 'gpa', the nearest is 'gap', expected some of"),
        ("study ablaton", "there is no study 'ablaton', the nearest is 'ablation', expected one of"),
        ("study ladder --seeds 0 one", "--seeds has 'one', expected seeds such as 0 1 2, or 0-4"),
        ("study ladder --seeds", "argument --seeds: expected at least one argument"),
        ("study ladder --jobs many", "jobs: expected int, got many"),
        ("study ladder --backend slurm", "backend: expected one of loky, dask, got slurm"),
        ("study ladder --jobs 0", "jobs is 0, expected at least 1"),
        ("train --epochs 3", "train expects a recipe, and then its options"),
        ("train 3982_parameter", "there is no recipe '3982_parameter', the nearest is '3982_parameters'"),
        ("train step3 --optimizer adm", "optimizer: expected one of nesterov, sgd, adam, adadelta, got adm"),
        ("train step3 --seed one", "seed: expected int, got one"),
        ("train step3 --bfloat16 maybe", "bfloat16: expected bool, got maybe"),
    ],
)
def test_bad_input_is_one_sentence_with_exit_code_2(few, monkeypatch, capsys, arguments, complaint):
    assert command(monkeypatch, *arguments.split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith(complaint) and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize("option", ["--switches", "--epochs", "--augmentation", "--seed"])
def test_values_that_are_yaml_bombs_are_refused_at_once(few, monkeypatch, capsys, option):
    started = time.monotonic()
    assert command(monkeypatch, "train", "step3", option, "[" * 5_000) == 2
    assert time.monotonic() - started < 60  # a bomb takes for ever
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), "interrupted: finished work is kept, and the same command resumes", ""),
        (
            ModuleNotFoundError("x", name="onnx"),
            "this command needs onnx, which is not installed: python -m pip install -r",
            "",
        ),
        (RuntimeError("2 of 3 runs failed"), "2 of 3 runs failed", ""),
        (PermissionError(13, "Permission denied", "a/b"), 2, "cannot read or write a/b: Permission denied\n"),
    ],
)
def test_expected_errors_are_sentences(monkeypatch, capsys, error, code, sentence):
    def fail():
        raise error

    monkeypatch.setitem(command_line.COMMANDS, "data", fail)
    given = command(monkeypatch, "data")
    assert given == code if isinstance(code, int) else given.startswith(code)
    assert capsys.readouterr().err == sentence


def test_lists_of_a_command_are_words(monkeypatch):
    given = {}
    monkeypatch.setattr("lab.runs.study.run_study", lambda *arguments: given.update(study=arguments))
    arguments = ["--seeds", "3", "6-7", "--recipes", "gap", "step1", "--records", "mine", "--jobs", "2"]
    assert command(monkeypatch, "study", "ladder", *arguments) == 0
    assert given["study"][:7] == ("ladder", [3, 6, 7], ["gap", "step1"], 2, "loky", None, Path("mine"))
    monkeypatch.setattr("lab.reports.notebooks.execute", lambda *arguments: given.update(notebooks=arguments))
    assert command(monkeypatch, "notebooks", "out", "a", "lab/Peers") == 0
    assert given["notebooks"] == (Path("out"), ["a", "lab/Peers"])


def test_without_options_a_recipe_of_a_study_is_what_it_is():
    for name, recipe in catalog.names().items():
        assert config.parse(name, recipe, []).recipe.hash == recipe.hash == replace(recipe).hash
