"""Tables, figures and `summary.json`, from the records alone: `python -m lab report` writes them into `lab/results/`."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import utils
from lab.evidence import figures, records, statistics, tables
from lab.evidence.places import RECORDS, RESULTS, expect_folder, refuse_evidence
from lab.reports import compare, errors, readme, tsne
from lab.runs.recipes import STUDIES, Study
from lab.systems.peers import PEERS

TSNE = RESULTS / "tsne.json"  # as `python -m lab tsne` wrote it, of the ladder's last rung

Runs = Mapping[int, utils.History]  # by seed


def report(folder: Path = RESULTS) -> None:
    """Write `summary.json`, `README.md` and the figures into a folder, from the committed records.

    None of them takes its place before all are made. A record that cannot be is named on stderr, and left out.
    Raises ValueError for a folder that is a file, and for the committed results where a short run or the sample was
    asked for; FileNotFoundError where there are no records.
    """
    refuse_evidence(folder, "unset it, or name a folder of your own, `report --folder FOLDER`", data=False)
    expect_folder(folder)
    recorded = records.by_recipe(RECORDS)
    studies = {name: _recorded(study, recorded) for name, study in STUDIES.items()}
    peers = compare.of_systems(recorded)
    if not any(studies.values()):
        raise FileNotFoundError(f"there are no records in {RECORDS}: make them with `python -m lab study NAME`")
    count = sum(map(len, recorded.values()))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="unfinished") as place:  # within the folder: moves are at once
        made = Path(place)
        utils.write_json(made / "summary.json", {name: _summarize(name, studies[name]) for name in studies}, indent=1)
        (made / "README.md").write_text(_text(studies, peers, count))
        figures.draw_all(studies, made)
        _draw_peers(peers, made)
        if folder.resolve() == RESULTS.resolve():
            readme.write(recorded)
        for path in sorted(made.iterdir()):
            path.replace(folder / path.name)


def _recorded(study: Study, records_here: records.Runs) -> dict[str, Runs]:
    """The study's own seeds of each recipe, as far as they are recorded."""
    recorded = {}
    for key, recipe in study.recipes.items():
        runs = records_here.get(recipe.hash, {})
        recorded[key] = {seed: runs[seed].history for seed in range(study.seeds) if seed in runs}
    recorded = {key: runs for key, runs in recorded.items() if runs}
    several = [runs for runs in recorded.values() if len(runs) > 1]
    return {} if study.against and len(several) < 2 else recorded  # nothing to compare


def _summarize(name: str, recorded: Mapping[str, Runs]) -> dict[str, dict[str, object]]:
    """What a program wants to know of each recipe; accuracies in percent, of the images that `measured_on` names."""
    summary = {}
    for key, runs in recorded.items():
        recipe, together = STUDIES[name].recipes[key], statistics.over_seeds(runs)
        summary[key] = {
            "hash": recipe.hash,
            "parameters": together.parameters,
            "epochs": recipe.epochs,
            "measured_on": "held-out" if recipe.held_out else "test",
            "seeds": together.seeds,
            "consistent": together.consistent,
            "mean_last5": round(together.mean, 4),
            "worst_last5": round(together.worst, 4),
        }
    return summary


# ---------------------------------------------------------------------------------------------------------------------
# The page of tables
# ---------------------------------------------------------------------------------------------------------------------

HEAD = """# What the records say

`python -m lab report` makes this page, its figures and `summary.json` from the {count} runs in `records/`; no figure here
is typed. One run is one file, named after the hash of its recipe and its seed; a recipe that stands in two studies was run once.

- *Mean* and *worst* are of the last five epochs, in percent of 10,000 images, over all seeds of the row; *spread* is the
  standard deviation of the seeds' means; *gap* the accuracy after the last epoch on the training images, seen as the test
  sees them, less that on the test images.
- *Consistent*: in how many of the seeds each of the last five epochs is at 99.40 % or more.
- A difference is paired, seed by seed, over the seeds that both rows have; in brackets Student's 95 % interval. It covers the luck of the seed. It does
  not cover the luck of which 10,000 images are tested (one standard error at 99.5 % is 0.07 points, though most of it
  cancels where two networks see the same images), and of twenty intervals one misses the truth.
"""

NOTES = {
    "consistency": "![The last five epochs of each seed](seeds.png)",
    "ladder": """![From Model_1 to Step 3: every seed of every row](ladder.png)

Each row is the one above with one change. *Pool at 5* is where the receptive field is 5 pixels; *width* spends what the budget
has left; *dropout* is Step 2, and *no dropout* takes it away again; *schedule* is `StepLR` from a rate of 0.2 in place of a constant 0.05;
*augmentation* is of all fifteen epochs, until *plain epochs*, which is Step 3. Where a seed does not learn at all, a mean and
Student's interval say little: look at the picture.""",
    "ablation": """![Step 3 less one ingredient: difference and interval](ablation.png)

The same, as numbers, from what costs most to what gains: what each ingredient adds where all the others are in place. *Constant rate* is 0.05, that of
Steps 1 and 2; *cosine* has Step 3's highest rate, and is set once an epoch. *No GAP* reads out with one large kernel, which
takes it over the budget. *At the end* is the last epoch alone: the mean over the seeds, and how many of them are at 99.40 or more.""",
    "frontier": """![Accuracy against parameters](frontier.png)

The networks are Model_2 with the second convolution separable too (`lab/runs/networks.py`), trained as Step 3 with lighter augmentation; the
last row is Step 3 itself. Five seeds do not rank neighbouring sizes: look at the spread.""",
    "epochs": """![Accuracy over the epochs, by their number](epochs.png)

The three rates of Step 3, and its plain images at the last of them, in proportion. *At the end* is the last epoch alone. A run of eight
epochs is the first eight of one of nine, since their rates fall and their plain images begin after the same epochs. So one of seven would end
where they are after their seventh.""",
    "choice": """The recipe was trained on the first 50,000 training images and measured on the last 10,000; no test image was looked at.
These runs chose Step 2's dropout, the separable convolutions and Step 3's training; others of this kind, the frontier's network with its
lighter augmentation. The dozens of runs of the search itself are not kept.

Where the test images were looked at before a choice: the rate, the weight decay and the place of the pooling come from probes on
them, before there were held-out runs; of several networks that were alike on the held-out images, Step 3's was kept when some had
been tested; and the frontier's size of 4,920 parameters was added when the five seeds of 4,534 were known.""",
}


AT_THE_END = ("ablation", "epochs")  # the studies whose tables show the last epoch alone too


def _text(studies: Mapping[str, Mapping[str, Runs]], peers: Mapping[str, compare.Runs], count: int) -> str:
    parts = [HEAD.format(count=count)]
    for name, recorded in studies.items():
        if recorded:
            study = STUDIES[name]
            parts.append(f"## {name.capitalize()}: {study.question[0].lower()}{study.question[1:]}\n")
            parts.append(NOTES[name] + "\n")
            parts.append(_table(name, recorded) + "\n")
    if any(peers.values()):
        parts.append(_peers(peers))
    return "\n".join(parts)


def _table(name: str, recorded: Mapping[str, Runs]) -> str:
    study = STUDIES[name]
    titles = ["", "parameters", "seeds", "consistent", "mean", "spread", "worst", "gap"]
    if name in AT_THE_END:
        titles.append("at the end")
    if study.against:
        titles.append(
            "change to the row above" if study.against == "above" else f"difference to {tables.readable(study.against)}"
        )
    rows = []
    above = dict(pairwise(study.recipes)) if study.against == "above" else {}
    above = {key: other for other, key in above.items()}
    for key, runs in recorded.items():
        other = recorded.get(above.get(key, study.against))
        change = paired(runs, other) if other and other is not runs else None
        rows.append(
            (change.mean if change else 0.0, _row(name, key, runs) + ([str(change or "")] if study.against else []))
        )
    if study.against and study.against != "above":
        rows.sort(key=lambda row: row[0])
    return _markdown(titles, [row for _, row in rows])


def _markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruler = ["---:" if number else "---" for number in compare.are_numbers(lines)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [titles, ruler, *lines])


def _row(name: str, key: str, runs: Runs) -> list[str]:
    together = statistics.over_seeds(runs)
    row = [
        tables.readable(key),
        f"{together.parameters:,}",
        str(together.seeds),
        str(together.consistent),
        f"{together.mean:.2f}",
        f"{together.spread:.2f}" if together.seeds > 1 else "",
        f"{together.worst:.2f}",
        f"{together.gap:.2f}",
    ]
    if name in AT_THE_END:
        above = sum(run.test_accuracy[-1] >= utils.TARGET_PERCENT for run in runs.values())
        row.append(f"{together.last:.2f}, at 99.40 or more: {above}")
    return row


def paired(runs: Runs, others: Runs) -> statistics.Difference | None:
    """The paired difference, or None where fewer than two seeds are in common."""
    return statistics.paired_difference(runs, others) if len(runs.keys() & others.keys()) > 1 else None


# ---------------------------------------------------------------------------------------------------------------------
# Published systems
# ---------------------------------------------------------------------------------------------------------------------

PEERS_HEAD = """## Peers: published systems, rebuilt and measured

![A row a system: measured and claimed](peers.png)

Each is a recipe in `lab/systems/peers.py`, trained by the same `fit` as the lesson's steps. *Claim* is what its author published, of *its runs*.
"""


PICTURES = """
### Which images?

![Mistakes that two networks share](overlap.png)

![t-SNE of pixels and features](tsne.png)

### What their authors left open, and what was taken
"""


def _draw_peers(peers: Mapping[str, compare.Runs], folder: Path) -> None:
    if any(peers.values()):
        figures.save(compare.draw(peers), folder / "peers.png", shown=figures.counts(peers))
    tested = compare.mistakes(peers)
    if len(tested) > 1:
        shown = [[name, one.mistakes] for name, one in tested.items()]
        figures.save(errors.show_overlap(tested), folder / "overlap.png", shown=shown)
    if TSNE.exists():
        content = json.loads(TSNE.read_text())
        figures.save(tsne.show_tsne(content), folder / "tsne.png", shown=content)


def _peers(peers: Mapping[str, compare.Runs]) -> str:
    rows = compare.rows(peers)
    left_open = [[row.system, PEERS[row.system].left_open] for row in rows if PEERS[row.system].left_open]
    parts = [
        PEERS_HEAD,
        _markdown(compare.TITLES, [compare.cells(row) for row in rows]),
        "".join(f"\n- {reason}" for reason in compare.reasons(rows)),
        f"\nHere, {compare.LEGEND}",
        "\n### What do parameters buy?\n",
        _markdown(compare.SIZE_TITLES, compare.by_size(peers)),
        f"\nHere, {compare.SIZE_LEGEND} {compare.sentence(peers)}",
        PICTURES,
        _markdown(["system", "left open: taken"], left_open),
    ]
    return "\n".join(parts) + "\n"
