"""Compute the fingerprints in the committed records again, after the way they are computed changed.

To be run once, by `python -m lab.runs.backfill`, while the networks are those that were recorded, and then to be removed.
"""

import json

import utils
from lab.evidence import records
from lab.evidence.places import RECORDS
from lab.runs.recipes import Recipe


def backfill() -> None:
    """Replace the fingerprint in each record; every other byte stays as it is."""
    fingerprints: dict[str, list[float]] = {}
    for path in sorted(RECORDS.glob("*.json")):
        text = path.read_text()
        content = json.loads(text)
        if json.dumps(content) + "\n" != text:
            raise ValueError(f"{path} would change by more than its fingerprint")
        if content["hash"] not in fingerprints:
            fingerprints[content["hash"]] = Recipe(**content["recipe"]).fingerprint
        utils.write_json(path, content | {"fingerprint": fingerprints[content["hash"]]})
        records.read(path)


if __name__ == "__main__":
    backfill()
