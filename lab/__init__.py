"""What is measured beyond the three notebooks, on top of `utils` and `models`.

`from lab import judge, look` has the two functions that a network of your own is judged with.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("GOMP_SPINCOUNT", "1500")  # as utils does: modules here may import PyTorch before it

if TYPE_CHECKING:
    from lab.judging.judge import judge as judge
    from lab.judging.judge import look as look


FUNCTIONS = ("judge", "look")


def __getattr__(name: str) -> Any:
    """Import the two functions when they are asked for: PyTorch takes seconds, and `python -m lab list` must not."""
    if name in FUNCTIONS:
        return getattr(importlib.import_module("lab.judging.judge"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
