"""What could not be tested on this machine: printed, and kept for the last lines of `make test`."""

import os
from pathlib import Path


def note(sentence: str) -> None:
    """Say it now; and again at the end, where the variable NOTES names a file for that."""
    print(sentence)
    if path := os.environ.get("NOTES"):
        with Path(path).open("a") as notes:
            notes.write(f"{sentence}\n")
