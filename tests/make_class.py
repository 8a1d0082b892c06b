"""A simulated class: 30 students hand in variations of the course's networks, good and bad.

`python tests/make_class.py FOLDER` writes the submissions. Each is code as a student writes it: a file of its own, which
imports nothing of the project unless the student found that easier.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\n"


@dataclass(frozen=True)
class Student:
    """What a student hands in, and what has to come of it.

    recipe:   fields of recipe.yaml; with any, the submission is a folder
    notebook: hand in an executed notebook instead
    recorded: the study and recipe whose records its grade must agree with
    fails:    words that must say why it has no result; "" if it has one
    budget:   whether it keeps to 8,000 parameters
    least:    accuracy in percent that it must reach with the class's recipe on all of MNIST; for good and bad ones alike,
              far below what they do, so that a mistake of the harness's shows, not one of luck
    """

    source: str
    recipe: dict[str, object] = field(default_factory=dict)
    notebook: bool = False
    recorded: tuple[str, str] | None = None
    fails: str = ""
    budget: bool = True
    least: float = 98.5


# ---------------------------------------------------------------------------------------------------------------------
# Networks as nn.Sequential
# ---------------------------------------------------------------------------------------------------------------------


def layers_of(
    channels: Sequence[int],
    pool_after: int = 2,
    separable_from: int = 99,
    batch_norm: bool = True,
    dropout: float = 0.0,
    readout: str = "linear",
) -> list[str]:
    """The layers of a network of 3x3 convolutions, each as a line of Python.

    pool_after:     number of the convolution after which the maps are pooled
    separable_from: number of the first convolution that is built from one per channel and a 1x1 one
    readout:        "linear" after global average pooling, or "kernel", a convolution as large as the map
    """
    lines, side = [], 28
    for number, (width_in, width) in enumerate(pairwise([1, *channels]), start=1):
        if number >= separable_from:
            lines.append(f"nn.Conv2d({width_in}, {width_in}, 3, groups={width_in}, bias=False)")
            lines.append(f"nn.Conv2d({width_in}, {width}, 1, bias={not batch_norm})")
        else:
            lines.append(f"nn.Conv2d({width_in}, {width}, 3, bias={not batch_norm})")
        side -= 2
        if number == pool_after:
            lines.append("nn.MaxPool2d(2)")
            side //= 2
        lines += [f"nn.BatchNorm2d({width})"] * batch_norm + ["nn.ReLU()"]
        lines += [f"nn.Dropout2d({dropout})"] * (dropout > 0 and number >= pool_after)
    if readout == "kernel":
        return [*lines, f"nn.Conv2d({channels[-1]}, 10, {side})", "nn.Flatten()"]
    return [*lines, "nn.AdaptiveAvgPool2d(1)", "nn.Flatten()", f"nn.Linear({channels[-1]}, 10)"]


def sequential(lines: Sequence[str]) -> str:
    """A class `Net` with these layers."""
    body = "".join(f"            {line},\n" for line in lines)
    return HEAD + f"class Net(nn.Sequential):\n    def __init__(self):\n        super().__init__(\n{body}        )\n"


STEP_3 = layers_of((8, 16, 34, 36, 38, 40), separable_from=3)
LESS = layers_of((6, 10, 12, 12, 14), separable_from=3)
NARROW = layers_of((8, 16, 24, 26, 26, 26), separable_from=2)
LIGHTER = {"rotation": 8, "shift": 0.06, "scale": 0.08, "shear": 4, "warp": 0.03}

# ---------------------------------------------------------------------------------------------------------------------
# Networks with a forward of their own
# ---------------------------------------------------------------------------------------------------------------------

FUNCTIONS = '''class Net(nn.Module):
    """The network of pytorch/examples, smaller."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 1)
        self.conv2 = nn.Conv2d(8, 12, 3, 1)
        self.conv3 = nn.Conv2d(12, 16, 3, 1)
        self.dropout1 = nn.Dropout(0.1)
        self.fc1 = nn.Linear(16 * 5 * 5, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)
        x = self.dropout1(torch.flatten(x, 1))
        return F.log_softmax(self.fc1(x), dim=1)
'''
PADDED = """class Net(nn.Module):
    def __init__(self):
        super().__init__()

        def block(width_in, width):
            return nn.Sequential(nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

        self.block1 = nn.Sequential(block(1, 8), block(8, 12), nn.MaxPool2d(2))
        self.block2 = nn.Sequential(block(12, 14), block(14, 14), nn.MaxPool2d(2))
        self.block3 = block(14, 16)
        self.gap = nn.AvgPool2d(7)
        self.fc = nn.Conv2d(16, 10, 1)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(self.gap(x)).view(-1, 10)
"""
SHORTCUT = """class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.body = nn.Sequential(Residual(12), nn.MaxPool2d(2), Residual(12))
        self.head = nn.Linear(12 * 6 * 6, 5)
        self.last = nn.Linear(5, 10)

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.last(self.head(x.flatten(1)))
"""
BRANCHES = """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.coarse = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2))
        self.both = nn.Sequential(nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(16 * 6 * 6, 8)
        self.out = nn.Linear(8, 10)

    def forward(self, x):
        x = self.both(torch.cat([self.fine(x), self.coarse(x)], dim=1))
        return self.out(F.relu(self.fc(torch.flatten(x, start_dim=1))))
"""
FACTORY = """def conv(width_in, width):
    return [nn.Conv2d(width_in, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def Net():
    return nn.Sequential(
        *conv(1, 8), *conv(8, 14), nn.MaxPool2d(2), *conv(14, 14), *conv(14, 14), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(14, 10),
    )
"""
OBJECT = """model = nn.Sequential(
    nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 14, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
    nn.Linear(224, 10),
)
"""
IMPORTED = '''from models import Model_2


class Net(Model_2):
    """Step 3's, which is Model_2 without dropout."""

    def __init__(self):
        super().__init__(dropout=0.0)
'''
UNUSED = """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.conv3 = nn.Conv2d(16, 16, 3)
        self.fc = nn.Linear(16 * 5 * 5, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))
"""
TUPLE = FUNCTIONS.replace("return F.log_softmax(self.fc1(x), dim=1)", "return self.fc1(x), x")
MISFIT = FUNCTIONS.replace("nn.Linear(16 * 5 * 5, 10)", "nn.Linear(16 * 4 * 4, 10)")
TYPING_ERROR = FUNCTIONS.replace("F.max_pool2d(F.relu(self.conv2(x)), 2)", "F.max_pool2d(F.relu(self.conv22(x)), 2)")
NO_PACKAGE = "import torch_geometric_extras\n" + HEAD + FUNCTIONS


# ---------------------------------------------------------------------------------------------------------------------
# The class
# ---------------------------------------------------------------------------------------------------------------------


def the_class() -> dict[str, Student]:
    """The students by name."""
    two_layers = ["nn.Flatten()", "nn.Linear(784, 10)", "nn.Tanh()", "nn.Linear(10, 10)"]
    return {
        # recorded recipes, as files of their own
        "ada": Student(sequential(STEP_3), recorded=("epochs", "8_epochs")),
        "ben": Student(IMPORTED, recorded=("epochs", "8_epochs")),
        "cleo": Student(
            sequential(STEP_3), {"epochs": 9, "step_size": 3, "plain_epochs": 3}, recorded=("epochs", "9_epochs")
        ),
        "dan": Student(
            sequential(STEP_3), {"epochs": 6, "step_size": 2, "plain_epochs": 2}, recorded=("epochs", "6_epochs")
        ),
        "eva": Student(
            sequential(NARROW),
            {"epochs": 15, "step_size": 5, "plain_epochs": 5, "augmentation": LIGHTER},
            recorded=("frontier", "3982_parameters"),
        ),
        # variations
        "finn": Student(sequential(LESS), notebook=True),
        "gus": Student(sequential(layers_of((16, 32, 32, 32, 32))), budget=False),
        "hana": Student(sequential(layers_of((4, 8, 8, 8), separable_from=3)), least=90.0),
        # without batch norm, at the class's rate of 0.2: it stayed at 11.35 %, as some recorded seeds of such networks do
        "ida": Student(sequential(layers_of((8, 12, 12, 12), batch_norm=False)), least=9.0),
        "jon": Student(sequential(layers_of((8, 8, 8, 8), readout="kernel"))),
        "kim": Student(sequential(layers_of((8, 14, 16, 16), dropout=0.1)), least=96.0),
        "lea": Student(sequential(layers_of((8, 14, 16, 16), dropout=0.5)), least=50.0),
        "max": Student(HEAD + FUNCTIONS, {"learning_rate": 0.05}, least=96.0),
        "nia": Student(HEAD + PADDED),
        # at the class's rate its loss was infinite after eight batches
        "oli": Student(HEAD + SHORTCUT, recipe={"learning_rate": 0.05}, least=90.0),
        "pia": Student(HEAD + BRANCHES, {"optimizer": "adam", "learning_rate": 0.003}, least=90.0),
        "quin": Student(HEAD + FACTORY),
        "ray": Student(HEAD + OBJECT, {"learning_rate": 0.05, "augmentation": {}}, least=96.0),
        "sam": Student(sequential([*LESS, "nn.ReLU()"]), least=0.0),
        "tia": Student(sequential([*LESS, "nn.Softmax(dim=1)"]), least=0.0),
        "uli": Student(sequential([*LESS, "nn.BatchNorm1d(10)"]), least=96.0),
        "vera": Student(sequential(["nn.MaxPool2d(4)", *layers_of((12, 20), pool_after=9)]), least=80.0),
        "wim": Student(
            sequential(["nn.Flatten()", "nn.Linear(784, 10)"]), {"learning_rate": 0.01, "augmentation": {}}, least=85.0
        ),
        "xia": Student(sequential(two_layers), {"learning_rate": 0.05, "augmentation": {}}, least=70.0),
        "yan": Student(HEAD + UNUSED, {"learning_rate": 0.02}, least=80.0),
        # broken
        "zoe": Student(sequential([*LESS[:-1], "nn.Linear(14, 11)"]), fails="11"),
        "amy": Student(HEAD + MISFIT, fails="shape"),
        "bob": Student(HEAD + TYPING_ERROR, fails="conv22"),
        "cas": Student(HEAD + TUPLE, fails="tuple"),
        "dora": Student(NO_PACKAGE, fails="torch_geometric_extras"),
    }


def write_class(folder: Path) -> dict[str, Student]:
    """Write all submissions into an empty folder; return the students by name."""
    students = the_class()
    for name, student in students.items():
        if student.notebook:
            cells = ["%matplotlib inline\nimport torch", student.source, "net = Net()\nprint(net)"]
            (folder / f"{name}.ipynb").write_text(json.dumps(_notebook(cells)), encoding="utf-8")
        elif student.recipe:
            (folder / name).mkdir()
            (folder / name / "net.py").write_text(student.source, encoding="utf-8")
            (folder / name / "recipe.yaml").write_text(json.dumps(student.recipe), encoding="utf-8")  # JSON is YAML
        else:
            (folder / f"{name}.py").write_text(student.source, encoding="utf-8")
    return students


def _notebook(sources: Sequence[str]) -> dict[str, object]:
    cells = [
        {
            "cell_type": "code",
            "execution_count": number,
            "metadata": {},
            "outputs": [],
            "source": source.splitlines(keepends=True),
        }
        for number, source in enumerate(sources, start=1)
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    to = Path(sys.argv[1])
    to.mkdir(parents=True)
    print(f"{len(write_class(to))} submissions are in {to}")
