"""Write a published copy's address into the notebooks and the README: the repository to clone, and badges for Colab."""

import re
from pathlib import Path

import nbformat

import utils
from lab.reports.readme import put

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ("Session7_Step1", "Session7_Step2", "Session7_Step3", "lab/Peers", "lab/Answers", "lab/Your_Network")
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
MARKS = ("<!-- badges: written by make publish -->\n", "<!-- end of badges -->\n")


def publish(repository: str, root: Path = ROOT, branch: str = "main") -> str:
    """Make the notebooks in a folder open in Colab from a GitHub repository; an empty address undoes it.

    Returns one line that says what changed. Raises ValueError for any other address, before it writes anything.
    """
    address = repository.strip().removesuffix("/").removesuffix(".git")
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(f"the address is {repository!r}, expected one such as https://github.com/NAME/REPOSITORY")
    badges = {name: _badge(address, branch, name) for name in NOTEBOOKS}
    contents = {root / f"{name}.ipynb": _notebook(root / f"{name}.ipynb", address, badges[name]) for name in NOTEBOOKS}
    contents[root / "README.md"] = _readme((root / "README.md").read_text(), badges)
    for path, content in contents.items():
        with utils.whole_or_not_at_all(path) as unfinished:
            unfinished.write_text(content)
    done = f"open in Colab from {address}, branch {branch}" if address else "no longer name a published address"
    return f"{len(NOTEBOOKS)} notebooks and the README {done}"


def _badge(address: str, branch: str, name: str) -> str:
    colab = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    return f"[![Open {Path(name).name} in Colab]({BADGE})]({colab}/blob/{branch}/{name}.ipynb)" if address else ""


def _notebook(path: Path, address: str, badge: str) -> str:
    """The notebook with the address in its first code cell and the badge above its title."""
    notebook = nbformat.read(path, as_version=4)
    head = notebook.cells[0]
    head.source = re.sub(r"\A\[!\[Open .*\n\n", "", head.source)
    if badge:
        head.source = f"{badge}\n\n{head.source}"
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.source = re.sub(r'^REPOSITORY = ".*"$', f'REPOSITORY = "{address}"', code.source, flags=re.MULTILINE)
    return nbformat.writes(notebook) + "\n"


def _readme(text: str, badges: dict[str, str]) -> str:
    """The README with a line of badges between its marks. Raises ValueError if the marks are missing."""
    try:
        return put(text, *MARKS, " ".join(badge for badge in badges.values() if badge))
    except ValueError as error:
        raise ValueError(f"README.md: {error}") from None
