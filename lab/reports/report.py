"""Tables, figures and `summary.json`, from the records alone: `python -m lab report` writes them into `lab/results/`."""

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import utils
from lab.evidence import figures, records, statistics, tables
from lab.evidence.contrasts import Contrast
from lab.evidence.places import RECORDS, RESULTS, expect_folder, refuse_evidence
from lab.reports import compare, errors, planned, readme, tsne
from lab.reports.compared import elsewhere, has_effects, study_contrasts
from lab.runs.recipes import STUDIES, Recipe, Study
from lab.systems.peers import PEERS

TSNE = RESULTS / "tsne.json"  # as `python -m lab tsne` wrote it, of the ladder's last rung

Runs = Mapping[int, utils.History]  # by seed


def report(folder: Path = RESULTS) -> None:
    """Write `summary.json`, `README.md` and the figures into a folder, from the committed records.

    Files are replaced only once all of them are made. An invalid record, and one of another network than that of the code
    as it is now, are named on stderr and left out.
    Raises ValueError for a folder that is a file, and for the committed results where a short run or the sample was
    asked for; FileNotFoundError where there are no records.
    """
    refuse_evidence(folder, "unset it, or name a folder of your own, `report --folder FOLDER`", data=False)
    expect_folder(folder)
    recorded = _of_this_code(records.by_recipe(RECORDS))
    studies = {name: _recorded(study, recorded) for name, study in STUDIES.items()}
    peers = compare.of_systems(recorded)
    if not any(studies.values()):
        raise FileNotFoundError(f"there are no records in {RECORDS}: make them with `python -m lab study NAME`")
    count = sum(map(len, recorded.values()))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="unfinished") as place:  # within the folder: moves are at once
        made = Path(place)
        summary = {name: _summarize(name, recorded) for name, recorded in studies.items()}
        utils.write_json(made / "summary.json", summary, indent=1)
        (made / "README.md").write_text(_text(studies, peers, count))
        figures.draw_all(studies, made)
        _draw_elsewhere(studies, made)
        _draw_peers(peers, made)
        if folder.resolve() == RESULTS.resolve():
            readme.write(recorded)
        for path in sorted(made.iterdir()):
            path.replace(folder / path.name)


def _of_this_code(recorded: records.Runs) -> records.Runs:
    """The records whose network is that of the code as it is now; the others are named on stderr, recipe by recipe."""
    fingerprints: dict[str, list[float]] = {}  # many recipes train one network
    kept: dict[str, dict[int, records.Record]] = {}
    for name, runs in recorded.items():
        recipe = next(iter(runs.values())).recipe
        network = f"{recipe.network} {recipe.switches}"
        if network not in fingerprints:
            fingerprints[network] = _fingerprint(recipe)
        now = fingerprints[network]
        same = {seed: run for seed, run in runs.items() if records.same_network(run.fingerprint, now)}
        if same:
            kept[name] = same
        if len(same) < len(runs):
            seeds = " ".join(str(seed) for seed in sorted(runs.keys() - same.keys()))
            why = f"recorded with another network than {recipe.network} is in this code"
            print(f"left out: {name}.seed*.json, seeds {seeds}: {why}", file=sys.stderr)
    return kept


def _fingerprint(recorded: records.RecordedRecipe) -> list[float]:
    """What the recipe's network computes with the code as it is now; empty where it is gone or does not run."""
    try:
        return Recipe(**recorded.model_dump()).fingerprint
    except (ValueError, RuntimeError):
        return []


def _recorded(study: Study, records_here: records.Runs) -> dict[str, Runs]:
    """The study's own seeds of each recipe, as far as they are recorded."""
    recorded: dict[str, Runs] = {}
    for key, recipe in study.recipes.items():
        runs = records_here.get(recipe.hash, {})
        recorded[key] = {seed: runs[seed].history for seed in study.all_seeds if seed in runs}
    recorded = {key: runs for key, runs in recorded.items() if runs}
    several = [runs for runs in recorded.values() if len(runs) > 1]
    return {} if study.against and len(several) < 2 else recorded  # nothing to compare


def _summarize(name: str, recorded: Mapping[str, Runs]) -> dict[str, object]:
    """Each recipe's summary for programs, and what the study compares; accuracies in percent of the images that
    `measured_on` names, differences in points.
    """
    recipes, compared = {}, []
    for key, runs in recorded.items():
        recipe, together = STUDIES[name].recipes[key], statistics.over_seeds(runs)
        has_verdict = recipe.dataset == "mnist"
        low = round(statistics.share_at_least(together.consistent, together.seeds), 4)
        recipes[key] = {
            "hash": recipe.hash,
            "parameters": together.parameters,
            "epochs": recipe.epochs,
            "measured_on": "held-out" if recipe.held_out else "test",
            "seeds": together.seeds,
            "consistent": together.consistent if has_verdict else None,
            "consistent_low": low if has_verdict else None,
            "mean_last5": round(together.mean, 4),
            "worst_last5": round(together.worst, 4),
            "last": round(together.last, 4),
        }
    for key, (against, contrast) in study_contrasts(STUDIES[name], recorded).items():
        what = {"recipe": key, "against": against} if against else {"effect": key}
        compared.append(what | _in_numbers(contrast))
    factors = STUDIES[name].factors if has_effects(STUDIES[name], recorded) else None
    study = {"first_seed": STUDIES[name].first, "seeds": STUDIES[name].seeds}
    return study | {"recipes": recipes, "factors": factors, "contrasts": compared}


def _in_numbers(contrast: Contrast) -> dict[str, object]:
    """A contrast for programs; what a study with a collapsed run cannot have is null."""
    mean, low, high = contrast.difference
    numbers = {"difference": mean, "low": low, "high": high, "adjusted_p": contrast.adjusted_p}
    return {key: None if math.isnan(one) else round(one, 4) for key, one in numbers.items()} | {"says": contrast.says}


# ---------------------------------------------------------------------------------------------------------------------
# The page of tables
# ---------------------------------------------------------------------------------------------------------------------

HEAD = """# What the records say

`python -m lab report` writes this page, its figures and `summary.json` from the {count} runs in `records/`; no number in the
tables is typed. One run is one file, named after the hash of its recipe and its seed; a recipe that is in two studies ran once.

- *Mean* and *worst* are of the last five epochs, in percent of 10,000 images, over all seeds of the row; *spread* is the
  standard deviation of the seeds' means; *gap* is the accuracy after the last epoch on the training images, measured as the
  test images are, minus that on the test images.
- *Consistent* is the number of seeds for which each of the last five epochs is at 99.40 % or more; in brackets the exact one-sided
  95 % bound of the share of all seeds.
- A difference is paired, seed by seed, over the seeds that both rows have, and followed by Student's 95 % interval, adjusted by
  Holm's procedure for all differences of its table; so is *p*. The interval covers the luck of the seed. It does not
  cover the luck of which 10,000 images are tested: one standard error at 99.5 % is 0.07 points, though a part of it cancels where
  two networks see the same images.
- It says *different* if the interval, before rounding, leaves out zero, *equivalent* if it lies within 0.05 points of zero, else
  *cannot tell*.
- *Collapsed* in place of an interval: in one of the two rows, a seed learned nothing: more than half of its answers in the last
  five epochs are wrong. Student's interval assumes that all seeds are drawn from one bell curve; such a seed is not.
"""

QUESTIONS = """## What was asked before it was run

[The plan](../PLAN.md) says which seeds answer each question, and what would count as a yes. Seeds from 20 on *chose nothing*: no
choice rests on them. Step 3's first twenty had run already, and had helped to choose it. The answer is *no* as soon as the missing
seeds cannot change it. The tables of the planned studies follow.
"""

NOTES = {
    "consistency": """![The three steps over the epochs, one thin line per seed](steps.png)

![The last five epochs of each seed of Step 3](seeds.png)""",
    "ladder": """![From Model_1 to Step 3: every seed of every row](ladder.png)

Each row builds on the row above; some of them change two things at once, and the records cannot tell which of the two made the
difference. *Pool at 5* also enlarges the last kernel, and *GAP* puts a smaller convolution and an average in its place, global average
pooling. *Fully connected* takes away the 3x3 convolution before the average pooling and puts a fully connected layer behind it.
*Separable* replaces whole convolutions by separable ones and spends what that saves on more channels. *Schedule* lets the rate fall
by `StepLR` and also starts at 0.2 in place of 0.05; `rates`, above, takes the two apart.

*Pool at 5* pools where the receptive field is 5 pixels; *width* spends what the budget has left; *dropout* is Step 2, and
*no dropout* takes it away again; *augmentation* augments all fifteen epochs; *plain epochs* leaves the last five plain, and is Step 3.""",
    "ablation": """![Step 3 without one ingredient: difference and interval](ablation.png)

The table has the same numbers, from the greatest loss to the greatest gain: what each ingredient adds where all the others are in
place. *Constant rate* is the 0.05 of Steps 1 and 2, so it changes the highest rate too; *cosine* has Step 3's highest rate, and
sets the rate once per epoch. *No GAP* reads out with one large kernel, which takes the network over the budget. *At the end* is the
last epoch alone: the mean over the seeds, and the number of seeds at 99.40 or more.""",
    "frontier": """![Accuracy against parameters](frontier.png)

The networks are Model_2 with a separable second convolution (`lab/runs/networks.py`), trained as Step 3 with lighter augmentation;
the last row is Step 3 itself. Five seeds do not rank neighboring sizes: look at the spread.""",
    "epochs": """![Accuracy over the epochs, by the number of epochs](epochs.png)

Each run has Step 3's three rates, shortened in proportion, and plain images at the last of them. *At the end* is the last epoch
alone. A run of eight epochs is the first eight of a run of nine, since their rates fall and their plain images begin after the
same epochs. A run of seven would therefore end where these are after their seventh.""",
    "choice": """Each recipe was trained on the first 50,000 training images and measured on the last 10,000; no test image was used. Runs
of this kind chose Step 2's dropout, the separable convolutions, Step 3's schedule, augmentation and plain epochs, and the frontier's
network with its lighter augmentation; the dozens of runs of that search are not kept.

Test images had a say in five choices. Early probes set the rate, the weight decay and the place of the pooling, before there were
held-out runs. These rows repeat those choices without test images; where none is better than Step 3 by more than luck (see
*chosen*), the choice stands. Several networks did equally well on the held-out images; Step 3's widths were kept after some of
these had run on test images. The frontier's 4,920 parameters were added after the five seeds of 4,534 were known.

*Step 1*, *step 2*, *dropout 0.05*, *whole convolutions* and *float32* are older runs. All other rows are [planned](../PLAN.md),
and change one thing of Step 3; *later pooling* also narrows the early layers, to stay within the budget.""",
    "hundred": """![The last five epochs of each seed of Step 3, up to a hundred](hundred.png)

Seeds 0 to 19 had run before [the plan](../PLAN.md) was written, and had helped to choose Step 3: the bound over all seeds is
optimistic. Seeds 20 to 99 had never been run; the table above counts them apart. The plan asks for 100 of 100, and for a mean of
at least 99.53.""",
    "chosen": """Held-out images, as in `choice`, and seeds 3 to 9. [The plan](../PLAN.md) says: if the interval of one of the two lies above
zero here, Step 3 becomes that recipe. Neither does, so Step 3 stays. On twenty fresh seeds and the test images, *each epoch* is
better: see *confirm best*.""",
    "fashion": """![The ladder's changes on MNIST and on Fashion-MNIST](fashion.png)

Ten kinds of clothes in place of ten digits, with the recipes of `ladder` as they are: its normalization, its rates and its
augmentation were chosen for digits, and 99.40 % is no target here.""",
    "rates": """*Falling 0.2* is Step 3, *constant 0.05* has the rate of Steps 1 and 2. *One cycle* rises to 0.2 and falls again once; the rate
changes after each epoch. *At the end* is the last epoch alone. *Rate* is 0.2 less 0.05, *schedule* is falling less constant, each
averaged over both settings of the other; the interaction says how much more the fall brings at the higher rate.""",
    "small": """Held-out images, as in `choice`. *Narrow* is the network of `frontier` with 2,958 parameters; *one mix* uses the same 1x1 weights
in all of its last layers, *one block* the same 3x3 weights too; the rows from *one mix each epoch* to *one mix lighter* train
*one mix* in other ways. The [second round](../PLAN.md) changes *narrow* in other ways: *shuffled* mixes within two groups of
channels and is wider, *attention* scales each map by a factor that is computed from the means of neighboring maps, *silu* has
another activation.""",
    "best": """Held-out images, as in `choice`. *Each epoch* is Step 3 with `StepLR(step_size=1, gamma=0.72)`; the other rows change one thing of
that.""",
    "fast": """Held-out images, as in `choice`. The rate starts at 0.2 and is halved after each epoch, or multiplied by 0.4 in the run of six.""",
    "confirm_best": """The winner of `best`, and Step 3 on the same seeds, on test images. [The plan](../PLAN.md) asks for a mean of at least
99.60.""",
    "confirm_size": """On test images. *Silu* was stopped when 20 of 20 had become impossible. It comes from `small`: no recipe there is consistent
on the held-out images, and this one has the highest worst epoch. [The plan](../PLAN.md) asks for 20 of 20. *3982 parameters*
was the smallest network of `frontier` that was consistent for every seed: was that luck? The plan asks for at least 19 of 20
fresh ones.""",
    "confirm_fast": """The winner of `fast`, on test images. [The plan](../PLAN.md) asks for 10 of 10. Every seed misses in the third
and the fourth epoch, with which the last five begin: there, the rate is still high. *At the end* is the last epoch alone.""",
}


# The page begins with what was planned before it was run: see lab/PLAN.md.
PLANNED = (
    *("hundred", "confirm_size", "confirm_best", "confirm_fast"),
    *("chosen", "choice", "rates", "fashion", "small", "best", "fast"),
)
# the studies whose tables show the last epoch alone too
AT_THE_END = ("ablation", "epochs", "choice", "rates", "best", "confirm_best", "confirm_fast")


def _text(studies: Mapping[str, Mapping[str, Runs]], peers: Mapping[str, compare.Runs], count: int) -> str:
    parts = [HEAD.format(count=count), QUESTIONS + "\n" + planned.answers(studies) + "\n"]
    for name in [*PLANNED, *(study for study in studies if study not in PLANNED)]:
        recorded = studies.get(name)
        if recorded:
            study = STUDIES[name]
            parts.append(f"## {tables.readable(name).capitalize()}: {study.question[0].lower()}{study.question[1:]}\n")
            parts.append(NOTES[name] + "\n")
            parts.append(_table(name, recorded) + "\n")
            if name == "fashion":
                parts.append(_elsewhere(studies) + "\n")
    if any(peers.values()):
        parts.append(_peers(peers))
    return "\n".join(parts)


def _table(name: str, recorded: Mapping[str, Runs]) -> str:
    study, changes = STUDIES[name], study_contrasts(STUDIES[name], recorded)
    titles = ["", "parameters", "seeds", "consistent", "mean", "spread", "worst", "gap"]
    has_verdict = all(recipe.dataset == "mnist" for recipe in study.recipes.values())
    if name in AT_THE_END:
        titles.append("at the end")
    if study.against:
        other = "the row above" if study.against == "above" else tables.readable(study.against)
        titles += [f"{'change' if study.against == 'above' else 'difference'} to {other}", "p", "says"]
    rows = {key: _row(name, key, runs) for key, runs in recorded.items()}
    if not has_verdict:
        titles.remove("consistent")
        rows = {key: row[:3] + row[4:] for key, row in rows.items()}
    if study.against:
        rows = {key: row + _cells(changes.get(key)) for key, row in rows.items()}
    if study.against and study.against != "above":
        rows = dict(
            sorted(rows.items(), key=lambda row: changes[row[0]][1].difference.mean if row[0] in changes else 0)
        )
    text = tables.markdown(titles, list(rows.values()))
    effects = [[key, *_cells(change)] for key, change in changes.items() if key not in rows]
    return text + ("\n\n" + tables.markdown(["effect of", "points", "p", "says"], effects) if effects else "")


ELSEWHERE = """A conclusion *survives* if both data sets say *different* with the same sign or both say *equivalent*; it *turns* if both
say *different* with opposite signs; otherwise it is *open*. Each column is adjusted for its own ladder. *No dropout*
takes the row *dropout* back: the two are one comparison, seen from both sides.
"""


def _elsewhere(studies: Mapping[str, Mapping[str, Runs]]) -> str:
    """What becomes of each of the ladder's conclusions on Fashion-MNIST."""
    here, there = (study_contrasts(STUDIES[name], studies[name]) for name in ("ladder", "fashion"))
    rows = [
        [
            tables.readable(key),
            *(f"{contrast.difference}, {contrast.says}" for contrast in (here[key][1], there[key][1])),
            elsewhere(here[key][1], there[key][1]),
        ]
        for key in there
        if key in here
    ]
    return ELSEWHERE + "\n" + tables.markdown(["change", "on MNIST", "on Fashion-MNIST", "the conclusion"], rows)


def _share(together: statistics.OverSeeds) -> str:
    """How many seeds are consistent, and at least how large that makes their share."""
    if not together.consistent:
        return "0"
    return f"{together.consistent} ({tables.at_least_share(together.consistent, together.seeds)})"


def _cells(change: tuple[str, Contrast] | None) -> list[str]:
    """A contrast in a table: the difference with its interval, the adjusted p-value, what it says."""
    if not change:
        return ["", "", ""]
    _, contrast = change
    p = (
        ""
        if math.isnan(contrast.adjusted_p)
        else f"{contrast.adjusted_p:.3f}"
        if contrast.adjusted_p >= 0.001
        else "< 0.001"
    )
    return [str(contrast.difference), p, contrast.says]


def _row(name: str, key: str, runs: Runs) -> list[str]:
    together = statistics.over_seeds(runs)
    row = [
        tables.readable(key),
        f"{together.parameters:,}",
        str(together.seeds),
        _share(together),
        f"{together.mean:.2f}",
        f"{together.spread:.2f}" if together.seeds > 1 else "",
        f"{together.worst:.2f}",
        f"{together.gap:.2f}",
    ]
    if name in AT_THE_END:
        above = sum(run.test_accuracy[-1] >= utils.TARGET_PERCENT for run in runs.values())
        row.append(f"{together.last:.2f}, at 99.40 or more: {above}")
    return row


def _draw_elsewhere(studies: Mapping[str, Mapping[str, Runs]], folder: Path) -> None:
    if not studies["ladder"] or not studies["fashion"]:
        return
    changes = {
        words: {key: contrast for key, (_, contrast) in study_contrasts(STUDIES[name], studies[name]).items()}
        for name, words in (("ladder", "MNIST"), ("fashion", "Fashion-MNIST"))
    }
    become = [elsewhere(changes["MNIST"][key], one) for key, one in changes["Fashion-MNIST"].items()]
    title = f"{become.count('survives')} of {len(become)} conclusions survive on Fashion-MNIST, {become.count('turns')} turn"
    shown = [figures.counts(studies[name]) for name in ("ladder", "fashion")]
    figures.save(figures.show_changes(changes, title), folder / "fashion.png", shown=shown)


# ---------------------------------------------------------------------------------------------------------------------
# Published systems
# ---------------------------------------------------------------------------------------------------------------------

PEERS_HEAD = """## Peers: published systems, rebuilt and measured

![One row per system: measured and claimed](peers.png)

Each is a recipe in `lab/systems/peers.py`, trained by the same `fit` as the lesson's steps. *Claim* is the accuracy that its author published.
"""


PICTURES = """
### Which images?

![Mistakes that two networks share](overlap.png)

![t-SNE of pixels and features](tsne.png)

### What their authors left open, and what we chose
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
        tables.markdown(compare.TITLES, [compare.cells(row) for row in rows]),
        "".join(f"\n- {reason}" for reason in compare.reasons(rows)),
        f"\nHere, {compare.LEGEND}",
        "\n### What do parameters buy?\n",
        tables.markdown(compare.SIZE_TITLES, compare.by_size(peers)),
        f"\nHere, {compare.size_legend(peers)} {compare.check(peers)} {compare.sentence(peers)}",
        PICTURES,
        tables.markdown(["system", "left open: our choice"], left_open),
    ]
    return "\n".join(parts) + "\n"
