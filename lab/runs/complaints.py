"""What a parser complains about, as one sentence; and the name that was probably meant."""

import difflib
import re
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence, ", the nearest is 'epochs'", or "" if no known name is similar."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", the nearest is {found[0]!r}" if found else ""


def one_line(text: str) -> str:
    """The text without line breaks and repeated spaces."""
    return re.sub(r"\s+", " ", text).strip()


def sentence(complaint: str) -> str:
    """jsonargparse's complaint in one line: "epochs: expected int, got three"."""
    complaint = one_line(complaint).replace("<class '", "").replace("'>", "")
    key = r'Parser key "([\w.]+)"(?: element \d+)?: '
    complaint = re.sub(key + r"Expected an? (.+?)\. Got value: ", r"\1: expected \2, got ", complaint)
    union = re.search(key + r"Does not validate .* Subtypes: \[(.+?), NoneType\] .* Given value: (.*)", complaint)
    if union:
        return f"{union[1]}: expected {union[2]}, got {union[3]}"
    complaint = complaint.replace('Parser key "config": ', "--config: ")
    return re.sub(r"(?:typing\.)?Literal\[(.+?)\]", lambda found: "one of " + found[1].replace("'", ""), complaint)


def unknown_option(complaint: str) -> str:
    """The option that the parser does not know, without dashes, or "" if the complaint is another one."""
    # worded so by the versions of jsonargparse that requirements.txt allows
    found = re.search(r"(?:Option|Key) '([\w.]+)' is not|[Uu]nrecognized arguments: -*([\w.-]+)", complaint)
    return (found[1] or found[2]) if found else ""
