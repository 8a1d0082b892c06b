"""What a class handed in: `NAME.py`, a folder `NAME/` with net.py and recipe.yaml, or an executed notebook `NAME.ipynb`.

Submitted code is read here, and never executed.
"""

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import stat
import tempfile
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from torch import nn

import models
import utils
from lab.runs import config, train
from lab.runs.complaints import nearest, one_line
from lab.runs.recipes import Recipe

MOST_SOURCE = 64 * 1024  # bytes of code; the lesson's networks take 2,000, a table of answers does not fit in
MOST_NOTEBOOK = 20 * 1024**2  # bytes; an executed one has pictures
# Characters of all strings and numbers in the code, and of all different names: what a network knows belongs into its weights.
# A network of the lesson has a hundred of each, and models.py, with all its messages, 1,600 and 1,500.
MOST_IN_LITERALS, MOST_IN_NAMES = 2_000, 5_000
MOST_NAME = 100  # characters
# What a submission may claim: how many of how many seeds are consistent, and accuracies in percent
OF_A_CLAIM = ("parameters", "consistent", "seeds", "mean", "worst")
NOT_YOURS = (
    "network",
    "switches",
    "held_out",
    "validation",
    "patience",
    "dataset",
)  # fields that a recipe.yaml may not have
RESERVED = ("index",)  # index.html is the page of the class


class Skipped(NamedTuple):
    """Something in the folder that is no submission, and the sentence that says why."""

    name: str
    why: str


@dataclass(frozen=True)
class Submission:
    """What one student handed in. `code` has the content of each Python file by name, and net.py has the network.

    `claims` are numbers by their name in `OF_A_CLAIM`. `trouble` says why it cannot be run, "" if it can. `entry` is the
    file or folder that it was read from, and `left_out` are others of this name.
    """

    name: str
    code: Mapping[str, bytes] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)
    claims: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""
    entry: str = ""
    left_out: tuple[str, ...] = ()

    def hash_with(self, recipe: Recipe) -> str:
        """Sixteen hexadecimal digits of the code and of the recipe that it is trained with."""
        content = [[name, code.hex()] for name, code in sorted(self.code.items())]
        decides = json.dumps([content, asdict(recipe)], sort_keys=True)
        return hashlib.sha256(decides.encode()).hexdigest()[:16]


def read(folder: Path) -> tuple[list[Submission], list[Skipped]]:
    """The submissions in a folder by name, and what is in it besides them. Hidden files are left out.

    Raises FileNotFoundError for a folder that is not there, and ValueError for one that has nothing to grade.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}, expected one file or folder per student in it")
    found: dict[str, Submission] = {}
    skipped = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith((".", "__")):
            continue
        path, kind = folder / entry.name, _kind(entry)
        name = entry.name if kind == "folder" else Path(entry.name).stem
        first = next((one for one in found.values() if one.name.lower() == name.lower()), None)
        why = _why_not(entry, kind, name, first)
        if why:
            skipped.append(Skipped(printable(entry.name), why))
            if first and kind in _READERS:
                found[first.name] = replace(first, left_out=(*first.left_out, _shown(entry.name, kind)))
        else:
            found[name] = replace(_READERS[kind](name, path), entry=_shown(entry.name, kind))
    if not found:
        raise ValueError(
            f"{folder} has nothing to grade, expected NAME.py, NAME/ with net.py, or NAME.ipynb per student"
        )
    return list(found.values()), skipped


def _kind(entry: os.DirEntry[str]) -> str:
    """What a directory entry is: a link to something else is never followed."""
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if not entry.is_file(follow_symlinks=False):
        return "special"
    return {".py": "file", ".ipynb": "notebook"}.get(Path(entry.name).suffix, "other")


def _shown(name: str, kind: str) -> str:
    return printable(name) + "/" * (kind == "folder")


def _why_not(entry: os.DirEntry[str], kind: str, name: str, first: Submission | None) -> str:
    """Why an entry is skipped, as a sentence; "" if it is not."""
    whys = {
        "link": "is a link, which is not followed: expected the file itself",
        "special": "is neither a file nor a folder",
        "other": "is neither NAME.py, nor NAME.ipynb, nor a folder with net.py",
    }
    if kind in whys:
        return whys[kind]
    if printable(entry.name) != entry.name or len(name) > MOST_NAME:
        return f"has a name that is no page's: expected at most {MOST_NAME} printable characters"
    if name.lower() in RESERVED:
        return f"has the name of the class page, {name.lower()}.html: rename it"
    if first:
        return f"is the second submission of {name!r}: {first.entry} was graded; leave one"
    return ""


def printable(text: str) -> str:
    """The text on one line, with a question mark in place of what a terminal or a file name could take for a command."""
    return "".join(letter if letter.isprintable() else "?" for letter in text.encode(errors="replace").decode())


# ---------------------------------------------------------------------------------------------------------------------
# The three kinds
# ---------------------------------------------------------------------------------------------------------------------


def _read_file(name: str, path: Path) -> Submission:
    try:
        code = {"net.py": read_bytes(path, MOST_SOURCE)}
        return _checked(name, code, {}, _assigned(_parse(code["net.py"], path.name), "CLAIM"))
    except (OSError, ValueError) as error:
        return Submission(name, trouble=_in_words(error))


def _read_folder(name: str, path: Path) -> Submission:
    """net.py, the other Python files beside it, and recipe.yaml; folders below it are left out."""
    try:
        files = sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith("."))
        if "net.py" not in files:
            raise ValueError(f"{name}/ has no net.py")
        code = {one: read_bytes(path / one, MOST_SOURCE) for one in files if one.endswith(".py")}
        recipe: dict[str, object] = {}
        if "recipe.yaml" in files:
            read_bytes(path / "recipe.yaml", config.MOST_BYTES)  # no link, and not too large
            recipe = config.read_yaml(path / "recipe.yaml")
        claims = recipe.pop("claims", None) or _assigned(_parse(code["net.py"], "net.py"), "CLAIM")
        recipe = config.flat(recipe, "recipe.yaml")
        return _checked(name, code, recipe, claims)
    except (OSError, ValueError) as error:
        return Submission(name, trouble=_in_words(error).replace(f"{path}/", ""))


def _read_notebook(name: str, path: Path) -> Submission:
    """The network and RECIPE in a notebook's cells; what its last card says is what it claims."""
    try:
        cells = list(_code_cells(read_bytes(path, MOST_NOTEBOOK)))
        source = _network_source(cells)
        tagged = "\n".join(cell.source for cell in cells if "recipe" in cell.tags)
        recipe = _assigned(_parse(tagged.encode(), "the cell tagged recipe"), "RECIPE")
        if not isinstance(recipe, dict):
            raise ValueError("RECIPE is not a dictionary, expected one such as {'epochs': 15}")  # noqa: TRY004
        claims = _on_the_card(cells) | _as_claims(_assigned(_parse(source.encode(), "its network"), "CLAIM"))
        return _checked(name, {"net.py": source.encode()}, recipe, claims)
    except (OSError, ValueError) as error:
        return Submission(name, trouble=_in_words(error))


_READERS = {"file": _read_file, "folder": _read_folder, "notebook": _read_notebook}


def _checked(name: str, code: Mapping[str, bytes], recipe: Mapping[str, object], claims: object) -> Submission:
    """The submission, with the first thing that is wrong with its code as trouble."""
    size = sum(map(len, code.values()))
    if size > MOST_SOURCE:
        raise ValueError(f"the code has {size:,} bytes, expected at most {MOST_SOURCE:,}")
    _expect_no_tables([_parse(source, file) for file, source in code.items()])
    return Submission(name, code, recipe, _as_claims(claims))


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename).name if error.filename else 'it'} cannot be read: {error.strerror}"
    return printable(one_line(str(error)))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a plain file that is not above a size in bytes. A link is not followed, and a pipe not waited for.

    Raises OSError for what cannot be read, and ValueError for anything but a plain file, and for one that is larger.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link, which is not followed: expected the file itself")
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path.name} is not a plain file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path.name} has more than {most:,} bytes, which is the limit")
    return content


# ---------------------------------------------------------------------------------------------------------------------
# Code, without executing it
# ---------------------------------------------------------------------------------------------------------------------


def _parse(source: bytes, file: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape such as \\d is for its author to see
            return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{file} is not Python: {error.msg} (line {error.lineno})") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{file} is not Python that is read here: {one_line(str(error)) or 'nested too deep'}"
        ) from None


def _assigned(tree: ast.Module, name: str) -> Any:
    """The literal that a module assigns to a name at its top; an empty dictionary if it does not. Nothing is executed."""
    found: object = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and _assigns_to(node, name):
            try:
                found = ast.literal_eval(node.value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                raise ValueError(f"{name} is not a literal, expected numbers and words written out") from None
    return found


def _assigns_to(node: ast.Assign, name: str) -> bool:
    return any(isinstance(to, ast.Name) and to.id == name for to in node.targets)


def _expect_no_tables(trees: Iterable[ast.Module]) -> None:
    """Raise ValueError for code that holds much text or many numbers, in whatever pieces. Docstrings do not count."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
    constants = [node.value for node in nodes if isinstance(node, ast.Constant) and node not in docstrings]
    in_literals = sum(len(one) if isinstance(one, (str, bytes)) else _digits(one) for one in constants)
    names = {getattr(node, key, None) for node in nodes for key in ("id", "attr", "arg", "name", "asname")}
    in_names = sum(len(name) for name in names if isinstance(name, str))
    for size, most, what in (
        (in_literals, MOST_IN_LITERALS, "its strings and numbers"),
        (in_names, MOST_IN_NAMES, "its names"),
    ):
        if size > most:
            raise ValueError(f"the code holds a table: {what} have {size:,} characters, expected at most {most:,}")


def _digits(constant: object) -> int:
    """How many characters a number has, about."""
    if isinstance(constant, bool) or constant is None or constant is Ellipsis:
        return 0
    return constant.bit_length() // 3 + 1 if isinstance(constant, int) else len(repr(constant))


def without_words(source: bytes) -> bytes:
    """Code without its comments and docstrings, with the same lines: code can read its own text, which is then no store."""
    with io.BytesIO(source) as file:
        tokens = list(tokenize.tokenize(file.readline))
    ends = (tokenize.ENCODING, tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
    kept: list[tokenize.TokenInfo] = []
    for token, after in pairwise([*tokens, tokens[-1]]):
        words = token.string
        if token.type == tokenize.COMMENT:
            words = ""
        elif token.type == tokenize.STRING and kept[-1].type in ends and after.type == tokenize.NEWLINE:
            lines = token.end[0] - token.start[0]
            words = f'"""{chr(10) * lines}"""' if lines else '""'
        kept.append(token._replace(string=words))
    return cast(bytes, tokenize.untokenize(kept))


def same_code(submissions: Iterable[Submission]) -> list[list[str]]:
    """The names of submissions whose code is the same but for comments, docstrings, layout, claims and unused imports.

    One list per group.
    """
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for one in submissions:
        with contextlib.suppress(RecursionError):  # nested so deep that nobody else's is the same
            code = tuple((file, _structure(_parse(source, file))) for file, source in sorted(one.code.items()))
            groups.setdefault(code, []).append(one.name)
    return [names for code, names in groups.items() if code and len(names) > 1]


def _structure(tree: ast.Module) -> str:
    """A module's code without docstrings and claims, with each import that it uses once: what the network does."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports, rest = set(), []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", "")
            names = [one for one in node.names if (one.asname or one.name.partition(".")[0]) in {*used, "*"}]
            imports |= {f"{module} {one.name} {one.asname}" for one in names}
        elif not (isinstance(node, ast.Assign) and _assigns_to(node, "CLAIM")):
            rest.append(node)
    for outer in ast.walk(ast.Module(rest, [])):
        if isinstance(body := getattr(outer, "body", None), list):
            body[:] = [one for one in body if not _is_text(one)]
    return f"{sorted(imports)} {[ast.dump(node) for node in rest if not _is_text(node)]}"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


# ---------------------------------------------------------------------------------------------------------------------
# Notebooks
# ---------------------------------------------------------------------------------------------------------------------


class _Cell(NamedTuple):
    """A code cell, without the lines that are for IPython or a shell; `printed` is its output as text."""

    source: str
    tags: list[str]
    printed: str


def _code_cells(content: bytes) -> Iterator[_Cell]:
    try:
        for cell in json.loads(content)["cells"]:
            if cell["cell_type"] != "code":
                continue
            lines = "".join(cell["source"]).splitlines()
            lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in lines]
            tags = [str(tag) for tag in cell.get("metadata", {}).get("tags", [])]
            texts = [one.get("text", one.get("data", {}).get("text/plain", "")) for one in cell.get("outputs", [])]
            yield _Cell("\n".join(lines), tags, "\n".join("".join(text) for text in texts))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("it is not a notebook that is read here, expected the format of Jupyter, version 4") from None


def _network_source(cells: Sequence[_Cell]) -> str:
    """The cells tagged `submission`, or else those that define a network, below the imports that they use."""
    trees, defining = [], []
    for cell in cells:
        with contextlib.suppress(ValueError):  # a cell that does not run is of no use to the others
            trees.append(_parse(cell.source.encode(), "a cell"))
            if any(map(_is_network, trees[-1].body)):
                defining.append(cell.source)
    chosen = [cell.source for cell in cells if "submission" in cell.tags] or defining
    if not chosen:
        raise ValueError("the notebook has no cell tagged submission, and none that defines a network")
    source = "\n".join(chosen) + "\n"
    used = {node.id for node in ast.walk(_parse(source.encode(), "its network")) if isinstance(node, ast.Name)}
    imports = [node for tree in trees for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in imports:
        node.names = [one for one in node.names if (one.asname or one.name.partition(".")[0]) in {*used, "*"}]
    return "\n".join([*dict.fromkeys(ast.unparse(node) for node in imports if node.names), source])


# What the card of `judge` prints
CARD = {
    "parameters": r"^parameters +([\d,]+);",
    "consistent": r"^consistent +(\d+) of \d+ seeds",
    "seeds": r"^consistent +\d+ of (\d+) seeds",
    "mean": r"^ *all +(\d+\.\d+) +\d+\.\d+ ",
    "worst": r"^ *all +\d+\.\d+ +(\d+\.\d+) ",
}


def _on_the_card(cells: Iterable[_Cell]) -> dict[str, float]:
    """The numbers of the last card that a notebook shows."""
    claims: dict[str, float] = {}
    for cell in cells:
        found = {name: re.search(pattern, cell.printed, re.MULTILINE) for name, pattern in CARD.items()}
        shown = {name: float(match[1][:20].replace(",", "")) for name, match in found.items() if match}
        claims = shown if "mean" in shown else claims
    return claims


def _is_network(node: ast.stmt) -> bool:
    """Whether a statement looks like a network's class, by the names of its bases: those of torch.nn, or the lesson's own."""
    if not isinstance(node, ast.ClassDef):
        return False
    names = [base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases]
    found = [getattr(module, name, None) for name in names for module in (nn, models)]
    return any(isinstance(one, type) and issubclass(one, nn.Module) for one in found)


# ---------------------------------------------------------------------------------------------------------------------
# Claims and recipe
# ---------------------------------------------------------------------------------------------------------------------


def _as_claims(claims: object) -> dict[str, float]:
    """The numbers that a submission claims. Raises ValueError for anything else."""
    if not isinstance(claims, dict):
        raise ValueError(f"its claims are a {type(claims).__name__}, expected some of {', '.join(OF_A_CLAIM)}")  # noqa: TRY004
    for name, value in claims.items():
        if name not in OF_A_CLAIM:
            near = nearest(str(name), OF_A_CLAIM)
            raise ValueError(f"it claims {str(name)[:40]!r}{near}, expected some of {', '.join(OF_A_CLAIM)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
            raise ValueError(f"it claims {name} {str(value)[:40]!r}, expected a number")
    return dict(claims)


def full_recipe(submission: Submission, base: Recipe) -> Recipe:
    """The class's recipe with the fields that the submission sets.

    Raises ValueError, with one sentence, for a field that is unknown or not the student's, and a value out of range.
    """
    for name in submission.recipe:
        if name in (*NOT_YOURS, "seed", "folder"):
            raise ValueError(f"recipe.yaml sets {name}, which is the harness's")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "recipe.yaml"
        try:
            file.write_text(yaml.safe_dump(dict(submission.recipe)), encoding="utf-8")
        except (yaml.YAMLError, RecursionError):
            raise ValueError("its recipe has values of other kinds, expected numbers and words") from None
        asked = config.parse("grade", base, ["--config", str(file)] if submission.recipe else [])
    check_recipe(asked.recipe, at_least=min(utils.LAST_EPOCHS, base.epochs))
    return asked.recipe


def check_recipe(recipe: Recipe, at_least: int = 1) -> None:
    """Raise ValueError for a recipe that cannot be run, or is outside of the lesson's rules."""
    if not at_least <= recipe.epochs <= utils.MOST_EPOCHS:
        raise ValueError(f"epochs is {recipe.epochs}, expected {at_least} to {utils.MOST_EPOCHS}")
    if recipe.validates or recipe.patience:
        raise ValueError(
            "a recipe with held_out, validation or patience is not graded: all images train, all epochs count"
        )
    if recipe.batch_size < 1:
        raise ValueError(f"batch_size is {recipe.batch_size}, expected at least 1")
    utils.check_epochs(recipe.epochs, recipe.plain_epochs, None)
    train.make_transform(recipe, training=True)
    rates(replace(recipe, epochs=1))


def rates(recipe: Recipe) -> list[float]:
    """The learning rate of each epoch, by the recipe's own optimizer and schedule."""
    optimizer = train.make_optimizer(recipe, nn.Linear(1, 1))
    scheduler = train.make_scheduler(recipe, optimizer)
    found = []
    for _ in range(recipe.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found
