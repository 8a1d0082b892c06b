"""Put the fingerprint of the network into the committed records from before there was one: `python -m lab.runs.backfill`.

To be run once, while the networks are still those that were recorded, and then to be removed. That they are was checked
in the history: the code of each commit that added records gives the same fingerprints.
"""

import json

import utils
from lab.evidence import records
from lab.evidence.places import RECORDS
from lab.runs.recipes import Recipe


def backfill() -> None:
    """Add the fingerprint behind the recipe, where it is missing; every other byte stays as it is."""
    fingerprints: dict[str, list[float]] = {}
    for path in sorted(RECORDS.glob("*.json")):
        text = path.read_text()
        content = json.loads(text)
        if "fingerprint" in content:
            continue
        if json.dumps(content) + "\n" != text:
            raise ValueError(f"{path} would change by more than its fingerprint")
        if content["hash"] not in fingerprints:
            fingerprints[content["hash"]] = Recipe(**content["recipe"]).fingerprint
        added = {"fingerprint": fingerprints[content["hash"]]}
        first = {name: content.pop(name) for name in ("hash", "recipe")}
        utils.write_json(path, first | added | content)
        records.read(path)


if __name__ == "__main__":
    backfill()
