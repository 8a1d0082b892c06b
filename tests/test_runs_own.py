"""A network of your own, by name and given in Python."""

import pickle

import pytest
import torch
from torch import nn

import models
from lab.runs import own
from lab.runs.recipes import Recipe

FILE = """
from torch import nn

class MyNet(nn.Module):
    def __init__(self, width=4, activation=nn.ReLU):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), activation(), nn.Linear(width, 10))

    def forward(self, images):
        return self.layers(images)

ready = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
number = 3

def factory(width=5):
    return MyNet(width)

def wrong():
    return 3
"""


@pytest.fixture
def mynet(tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mynet.py"


@pytest.mark.parametrize("name", ["mynet.py:MyNet", "mynet:MyNet", "mynet.MyNet"])
def test_one_network_has_three_spellings(mynet, name):
    found = own.find(name)
    assert found.name == "mynet.py:MyNet" == Recipe(name).network
    assert models.count_parameters(found.make(width=2)) == 784 * 2 + 2 + 2 * 10 + 10


def test_a_file_may_lie_in_a_folder_and_use_its_neighbours(mynet, tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/wide.py").write_text("from parts import Part\nclass Net(Part): pass\n")
    (tmp_path / "nets/parts.py").write_text(FILE.replace("MyNet", "Part"))
    for name in ("nets/wide.py:Net", "nets.wide:Net", "nets.wide.Net", "nets/wide.py", "nets.wide"):
        assert own.find(name).name == "nets/wide.py:Net"


def test_switches_are_arguments_and_defaults_that_json_knows(mynet):
    assert Recipe("mynet:MyNet").switches == {"width": 4}
    assert Recipe("mynet:factory", {"width": 3}).make_network().layers[1].out_features == 3
    with pytest.raises(ValueError, match="has no switch 'depth', expected some of: width"):
        Recipe("mynet:factory", {"depth": 3})


def test_a_network_of_this_project_keeps_its_name():
    assert own.find(models.__file__ + ":Model_2").name == "Model_2"


def test_an_object_gets_new_weights_for_each_seed_and_lazy_layers_their_shapes(mynet):
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(own.find("mynet:ready").make()[1].weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert weights[0].shape == (10, 784)


class Scaled(nn.Module):
    """Has a parameter that nobody can draw again."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images * self.scale


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("mynet:MyNte", "mynet.py has no 'MyNte', the nearest is 'MyNet', expected a class"),
        ("mynet:number", "mynet.py:number is a int, expected a class"),
        ("mynet:nn", "mynet.py:nn is a module, expected a class"),
        ("mynet.py", "mynet.py has the networks MyNet, ready, factory, expected one, or its name: mynet.py:MyNet"),
        ("nothing.py:Net", "there is no file nothing.py, expected a Python file with a network"),
        ("notes.md:Net", "notes.md is no Python file, expected a Python file with a network"),
        ("notes.md", "notes.md is no Python file, expected a Python file with a network"),
        ("nothing", "there is no network 'nothing', expected one of models.py"),
        ("torn.py:Net", "torn.py cannot be imported: SyntaxError: '(' was never closed (line 2)"),
        ("raises.py:Net", "raises.py cannot be imported: ZeroDivisionError: division by zero (line 3)"),
        ("quits.py:Net", "quits.py cannot be imported: SystemExit: 3 (line 2)"),
        ("empty.py", "empty.py has no network, expected one, or its name: empty.py:MyNet"),
    ],
)
def test_bad_names_and_files_are_one_sentence(mynet, tmp_path, name, complaint):
    files = {"torn": "\nclass Net(", "raises": "\n\n1 / 0", "quits": "\nraise SystemExit(3)", "empty": "x = 1"}
    for stem, text in files.items():
        (tmp_path / f"{stem}.py").write_text(text)
    (tmp_path / "notes.md").write_text("# Notes")
    with pytest.raises(ValueError) as error:
        own.find(name)
    assert str(error.value).startswith(complaint) and "\n" not in str(error.value)


MAKERS = """
import torch
from torch import nn

def block(width):
    return nn.Sequential(nn.Linear(784, width))

def one():
    net = nn.Sequential(nn.Flatten(), *block(10))
    return net

def two(width=10):
    return one()

def train(*arguments):
    raise AssertionError("nothing is called to find out what it returns")

def accuracy():
    return 99.99
"""


def test_functions_that_return_a_network_are_listed_and_found_without_being_called(mynet):
    mynet.write_text(MAKERS)
    with pytest.raises(
        ValueError, match="^mynet.py has the networks one, two, expected one, or its name: mynet.py:one$"
    ):
        own.find("mynet.py")
    with pytest.raises(ValueError, match="has no 'tow', the nearest is 'two'"):
        own.find("mynet:tow")
    mynet.write_text(
        MAKERS.replace("def two", "def two_of(a):\n    return one()\n\ndef _two").replace(
            "    return one()", "    return 1"
        )
    )
    assert own.find("mynet.py").name == "mynet.py:one"
    mynet.write_text(f"{MAKERS}\nclass Small(nn.Flatten): pass\n")
    assert own.find("mynet.py").name == "mynet.py:Small"  # its helpers are no networks beside it


def test_a_function_that_returns_no_network_is_refused_when_it_is_called(mynet):
    with pytest.raises(ValueError, match=r"mynet.py:wrong returns a int, expected a network"):
        own.find("mynet:wrong").make()


def test_an_object_whose_weights_cannot_be_drawn_again_is_refused():
    with pytest.raises(ValueError, match="the layer Scaled, whose weights cannot be drawn again"):
        own.find(own.give(Scaled())).make()


def test_what_python_gives_has_a_name_and_another_process_can_know_it():
    name = own.give(Scaled)
    assert name == "Scaled" and Recipe(name).make_network().scale.item() == 1
    make = pickle.loads(pickle.dumps(own.given(name)))
    own.know("elsewhere", make)
    assert isinstance(own.find("elsewhere").make(), Scaled)
    assert own.give(models.Model_1) == "Model_1"


def test_a_network_that_has_the_name_of_this_projects_is_another_one():
    assert own.give(type("Model_1", (Scaled,), {})) == "your Model_1"
    assert own.find("Model_1").make is models.Model_1


@pytest.mark.parametrize("given", [3, "x", nn, int])
def test_what_is_no_network_is_refused(given):
    with pytest.raises(ValueError, match="expected a class, a function"):
        own.find(own.give(given))


def test_code_changes_with_what_it_does_and_not_with_comments(mynet):
    def code(text):
        mynet.write_text(text)
        return own.code(own.find("mynet:MyNet"))

    assert code(FILE) == code(FILE.replace("import nn", "import nn  # layers\n"))
    assert code(FILE) != code(FILE.replace("nn.ReLU", "nn.Sigmoid"))
    assert own.code(own.find(own.give(Scaled))) == own.code(own.find(own.give(Scaled)))
    other = type("Scaled", (nn.Module,), {"forward": lambda self, images: images + 1})
    before = own.code(own.find(own.give(Scaled)))
    assert own.code(own.find(own.give(other))) != before


def test_a_notebook_is_named_as_what_it_is(tmp_path):
    (tmp_path / "bo.ipynb").write_text("{}")
    with pytest.raises(ValueError, match=r"bo.ipynb is a notebook, expected a Python file with a network"):
        own.find(str(tmp_path / "bo.ipynb"))
