"""A network of your own by name: a class, a function or an object in a Python file, or one that was given in Python.

`mynet.py:MyNet` is the object MyNet in the file mynet.py; `mynet:MyNet`, `mynet.MyNet` and `mynet.py`, if it has one
network, mean the same.
"""

import ast
import copy
import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

import models
from lab.runs import networks
from lab.runs.complaints import nearest

Make = Callable[..., nn.Module]  # called with switches, it returns a network with its initial weights

EXPECTED = "expected a class, a function without required arguments that returns a network, or a network"
BUILT_IN: tuple[ModuleType, ...] = (models, networks)
_given: dict[str, Make] = {}  # what Python code gave, by the name that recipes call it


class Own(NamedTuple):
    """A network of your own. `name` is what a recipe calls it; `file` is None for one that was given in Python."""

    name: str
    make: Make
    file: Path | None


# ---------------------------------------------------------------------------------------------------------------------
# By name
# ---------------------------------------------------------------------------------------------------------------------


def find(name: str) -> Own:
    """The network of this name: one that was given in Python, one of this project's, or one in a Python file.

    Raises ValueError, with one sentence, for a file that is missing or cannot be imported, and for a name that is no
    network.
    """
    if name in _given:
        return Own(name, _given[name], None)
    built_in = _built_in(name)
    if built_in:
        return Own(name, built_in, None)
    place = _place(name)
    if not place:
        raise ValueError(
            f"there is no network {name!r}, expected one of models.py or lab/runs/networks.py, "
            "or one in a file, such as mynet.py:MyNet"
        )
    file, key = place
    if ".ipynb" in name:
        raise ValueError(
            f"{name} is a notebook, expected a Python file with a network, such as mynet.py:MyNet; in the notebook itself, "
            "judge(MyNet) does the same, and `grade` takes a folder of notebooks"
        )
    if not file.is_file():
        given = Path(name.rpartition(":")[0] or name)
        wrong = f"{given} is no Python file" if given.is_file() else f"there is no file {file}"
        raise ValueError(f"{wrong}, expected a Python file with a network, such as mynet.py:MyNet")
    for module in BUILT_IN:
        if module.__file__ and file.resolve() == Path(module.__file__).resolve():
            return find(key)
    module = _import(file)
    key = key or _only_network(module, file)
    if key not in vars(module):
        raise ValueError(f"{file} has no {key!r}{nearest(key, _networks_of(module))}, {EXPECTED}")
    return Own(f"{file.as_posix()}:{key}", _maker(vars(module)[key], f"{file}:{key}"), file)


def _built_in(name: str) -> type[nn.Module] | None:
    for module in BUILT_IN:
        found = vars(module).get(name)
        # no module that is imported there, nor a layer of PyTorch's
        if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module.__name__:
            return found
    return None


def _place(name: str) -> tuple[Path, str] | None:
    """File and object that a name stands for, such as `mynet.py:MyNet`; the object may be "". None for a plain word."""
    if not name.strip(":."):
        return None
    file, colon, key = name.rpartition(":") if ":" in name else (name, "", "")
    if file.endswith(".py"):
        return Path(file), key
    as_path = Path(*file.split(".")) if file.isidentifier() or "." in file else Path(file)
    if colon or as_path.with_suffix(".py").is_file():
        return as_path.with_suffix(".py"), key
    head, dot, last = file.rpartition(".")
    return (Path(*head.split(".")).with_suffix(".py"), last) if dot else None


@functools.cache
def _execute(file: Path, content: bytes) -> ModuleType:
    """The module in a file. Its folder is on the path while it runs, so that it finds its neighbours."""
    name = f"{file.stem}_{hashlib.sha256(str(file).encode() + content).hexdigest()[:8]}"
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # for whatever looks up a class's module: dataclasses, pickle
    sys.path.append(str(file.parent))
    try:
        exec(compile(content, str(file), "exec"), vars(module))  # noqa: S102 (the student's own code)
    finally:
        sys.path.remove(str(file.parent))
    return module


def _import(file: Path) -> ModuleType:
    try:
        return _execute(file.resolve(), file.read_bytes())
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a student's code raises)
        raise ValueError(f"{file} cannot be imported: {_described(error, file)}") from None


def _described(error: BaseException, file: Path) -> str:
    """An error in one line, with the last line of the file that it came from."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace:
        if Path(trace.tb_frame.f_code.co_filename) == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    what = str(getattr(error, "msg", error)).strip().partition("\n")[0]
    return f"{type(error).__name__}{f': {what}' if what else ''}{f' (line {line})' if line else ''}"


def _networks_of(module: ModuleType) -> list[str]:
    """The names of the networks that a file defines itself: classes and networks, then functions that return one."""
    ready = [
        name
        for name, found in vars(module).items()
        if isinstance(found, nn.Module)
        or (isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module.__name__)
    ]
    return ready + _makers_of(module)


def _makers_of(module: ModuleType) -> list[str]:
    """The names of functions without required arguments that return a network, by what their code says: none is called."""
    functions = {
        name: found
        for name, found in vars(module).items()
        if inspect.isfunction(found) and found.__module__ == module.__name__
    }
    code = ast.parse(Path(str(module.__file__)).read_bytes())
    defined = {node.name: node for node in code.body if isinstance(node, ast.FunctionDef)}
    known: set[str] = set()
    for _ in defined:  # a function may return what another one makes
        known |= {name for name in defined.keys() & functions.keys() if _returns_network(defined[name], module, known)}
    return [name for name in functions if name in known and not _required(functions[name])]


def _required(function: Callable[..., object]) -> bool:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return any(one.default is one.empty and one.kind not in kinds for one in parameters)


def _returns_network(function: ast.FunctionDef, module: ModuleType, makers: set[str]) -> bool:
    """Whether a function returns a call of a network's class, of one of `makers`, or a variable that has such a value."""

    def is_network(node: ast.expr | None) -> bool:
        if isinstance(node, ast.Name):
            return node.id in variables
        if not isinstance(node, ast.Call):
            return False
        if isinstance(node.func, ast.Name) and node.func.id in makers:
            return True
        found: object = module
        for part in ast.unparse(node.func).split("."):
            found = getattr(found, part, None)
        return isinstance(found, type) and issubclass(found, nn.Module)

    inside = list(ast.walk(function))
    variables: set[str] = set()
    for node in inside:
        if isinstance(node, ast.Assign) and is_network(node.value):
            variables |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return any(isinstance(node, ast.Return) and is_network(node.value) for node in inside)


def _only_network(module: ModuleType, file: Path) -> str:
    """`Net`, or the only network of the file; a function counts where there is no class or network beside it."""
    found = _networks_of(module)
    if "Net" in found:
        return "Net"
    ready = [name for name in found if not inspect.isfunction(vars(module)[name])] or found
    if len(ready) != 1:
        has = f"has the networks {', '.join(found)}" if found else "has no network"
        raise ValueError(f"{file} {has}, expected one, or its name: {file}:{found[0] if found else 'MyNet'}")
    return ready[0]


# ---------------------------------------------------------------------------------------------------------------------
# Given in Python
# ---------------------------------------------------------------------------------------------------------------------


def give(network: object) -> str:
    """Make a class, function or network known to recipes in this process; return what they call it.

    Raises ValueError for anything else.
    """
    name = getattr(network, "__name__", type(network).__name__)
    if _built_in(name) is network:
        return name
    if _built_in(name) or name.startswith("<"):
        name = f"your {name.strip('<>')}"
    _given[name] = _maker(network, name)
    return name


def given(name: str) -> Make | None:
    """What was given under a name, for a process that has to know it too: see `know`."""
    return _given.get(name)


def know(name: str, make: Make | None) -> None:
    """Let recipes of this process use what another process was given."""
    if make:
        _given[name] = make


# ---------------------------------------------------------------------------------------------------------------------
# Making it
# ---------------------------------------------------------------------------------------------------------------------


def _maker(found: object, name: str) -> Make:
    if isinstance(found, nn.Module):
        return _Anew(found, name)
    if isinstance(found, type) and not issubclass(found, nn.Module):
        raise ValueError(f"{name} is a class, but not one of torch.nn.Module: {EXPECTED}")  # noqa: TRY004 (bad input)
    if not callable(found):
        raise ValueError(f"{name} is a {type(found).__name__}, {EXPECTED}")  # noqa: TRY004
    return _Made(found, name)


class _Made:
    """Calls a class or a function, and checks what it returns."""

    def __init__(self, function: Callable[..., object], name: str) -> None:
        self.function, self.name = function, name
        self.__signature__ = inspect.signature(function)

    def __call__(self, **switches: object) -> nn.Module:
        network = self.function(**switches)
        if not isinstance(network, nn.Module):
            raise ValueError(f"{self.name} returns a {type(network).__name__}, expected a network")  # noqa: TRY004
        return _with_shapes(network)


class _Anew:
    """Copies a network, and draws new initial weights for it: those it has were drawn once, for no seed."""

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network, self.name = network, name

    def __call__(self) -> nn.Module:
        network = copy.deepcopy(self.network)
        for layer in network.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
            elif any(True for _ in layer.parameters(recurse=False)):
                raise ValueError(
                    f"{self.name} has the layer {type(layer).__name__}, whose weights cannot be drawn again for each "
                    "seed: expected a class or a function that makes the network"
                )
        return _with_shapes(network)


def _with_shapes(network: nn.Module) -> nn.Module:
    """The network once its lazy layers, if it has any, know their shapes: they see them with the first image."""
    if any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers())):
        training = network.training
        with torch.no_grad():
            network.eval()(torch.zeros(2, 1, 28, 28))
        network.train(training)
    return network


# ---------------------------------------------------------------------------------------------------------------------
# Its code
# ---------------------------------------------------------------------------------------------------------------------


def code(own: Own) -> str:
    """The code of a network, such that comments and line breaks do not matter: the file's, or that of the class."""
    if own.file:
        return ast.dump(ast.parse(own.file.read_text(encoding="utf-8")))
    made = getattr(own.make, "function", getattr(own.make, "network", own.make))
    cls = made if isinstance(made, type) else type(made)
    functions = [made] if inspect.isfunction(made) else [one for one in vars(cls).values() if inspect.isfunction(one)]
    return repr([_bytecode(one.__code__) for one in functions])


def _bytecode(code: object) -> object:
    """What a function does, without names of files and numbers of lines."""
    if not inspect.iscode(code):
        return repr(code)
    return code.co_name, code.co_code, code.co_names, [_bytecode(one) for one in code.co_consts]
