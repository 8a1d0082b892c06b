"""The generated parts of the READMEs: every figure there stands between two marks, and `python -m lab report` writes it.

A block is a function of the evidence. In a page it stands between `<!-- NAME -->` and `<!-- end of NAME -->`.
"""

import json
import re
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import utils
from lab.evidence import odds, records
from lab.evidence.contrasts import DIFFERENT, Contrast
from lab.evidence.figures import PUBLISHED
from lab.evidence.places import APP_NETWORK, RECORDS, RESULTS, refuse_evidence
from lab.evidence.statistics import OverSeeds, over_seeds, standard_error
from lab.evidence.tables import at_least_share, readable
from lab.reports import compare, planned
from lab.reports.compared import elsewhere, study_contrasts
from lab.runs.recipes import STEP_2, STEP_3, STUDIES, Recipe
from lab.systems import peers

ROOT = Path(__file__).parents[2]
LINE = 118
STEPS = (1, 2, 3)

Runs = Mapping[int, utils.History]  # by seed


@dataclass(frozen=True)
class Evidence:
    """What the blocks are made from: all recorded runs, and what the benchmarks measured."""

    recorded: records.Runs
    bench: Mapping[str, float]
    bench_app: Mapping[str, Any]
    drawings: Mapping[str, Any]  # by `lab.for_app.drawings.measure`
    app_network: Mapping[str, Any]  # what the exported network says about itself

    def runs(self, study: str, recipe: str) -> Runs:
        """The runs of a recipe for its study's own seeds. Raises ValueError if there are none."""
        found = self.recorded.get(STUDIES[study].recipes[recipe].hash, {})
        runs = {seed: found[seed].history for seed in STUDIES[study].all_seeds if seed in found}
        if not runs:
            raise ValueError(f"{study}/{recipe} has no recorded run, expected some: `python -m lab study {study}`")
        return runs


def gather(recorded: records.Runs | None = None) -> Evidence:
    """Read all evidence: the committed records, unless others are given, and the results of the benchmarks.

    Raises ModuleNotFoundError without onnxruntime, which reads the app's network.
    """
    from app.network import Network  # noqa: PLC0415 (the lesson's own requirements do not include onnxruntime)

    bench, bench_app, drawings = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("bench", "bench_app", "drawings")
    )
    recorded = records.by_recipe(RECORDS) if recorded is None else recorded
    return Evidence(recorded, bench, bench_app, drawings, Network(APP_NETWORK).about)


def write(recorded: records.Runs | None = None, root: Path = ROOT) -> None:
    """Write the generated blocks into the READMEs of a checkout; none is written unless all can be made.

    Raises ValueError where a short run or the sample was asked for, and for a page whose marks are missing.
    """
    refuse_evidence(RESULTS, "unset it to write the READMEs", data=False)
    for path, text in fill(gather(recorded), root).items():
        with utils.whole_or_not_at_all(path) as unfinished:
            unfinished.write_text(text)


def fill(evidence: Evidence, root: Path = ROOT) -> dict[Path, str]:
    """The text of each README as it should be: what is there, with fresh blocks. Raises ValueError for missing marks."""
    pages = {}
    for name, blocks in PAGES.items():
        text = (root / name).read_text()
        for title, block in blocks.items():
            try:
                text = put(text, f"<!-- {title} -->\n", f"<!-- end of {title} -->\n", block(evidence))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        pages[root / name] = text
    return pages


def put(text: str, opening: str, closing: str, content: str) -> str:
    """The text with this content between two marks. Raises ValueError unless each mark is there once, and in order."""
    for mark in (opening, closing):
        if text.count(mark) != 1:
            raise ValueError(f"the mark {mark.strip()!r} is there {text.count(mark)} times, expected once")
    begin, end = text.index(opening) + len(opening), text.index(closing)
    if end < begin:
        raise ValueError(f"the mark {closing.strip()!r} is above {opening.strip()!r}, expected it below")
    return text[:begin] + (content + "\n" if content else "") + text[end:]


# ---------------------------------------------------------------------------------------------------------------------
# Forms
# ---------------------------------------------------------------------------------------------------------------------


def _table(titles: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table; a column whose filled cells all begin with a number is aligned to the right."""
    rows = [[str(cell) for cell in line] for line in lines]
    numbers = [all(re.match(r"[+-]?\d", cell) for cell in column if cell) for column in zip(*rows)]
    ruler = ["---:" if number else "---" for number in numbers]
    return "\n".join("| " + " | ".join(row) + " |" for row in [titles, ruler, *rows])


def _paragraph(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), LINE, break_long_words=False, break_on_hyphens=False)


def _percents(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _all_or(count: int, of: int) -> str:
    return f"all {of}" if count == of else f"{count} of {of}"


def _share(count: int, of: int) -> str:
    """The count in a table, such as "3 of 5 (at least 19 %)"."""
    return f"{count} of {of}" + (f" ({at_least_share(count, of)})" if count else "")


def _seeds(count: int, of: int) -> str:
    """The count in a sentence, such as "3 of 5 seeds (at least 19 % of all)"."""
    return f"{count} of {of} seeds" + (f" ({at_least_share(count, of)} of all)" if count else "")


# ---------------------------------------------------------------------------------------------------------------------
# README.md
# ---------------------------------------------------------------------------------------------------------------------


def _share_of_fresh(fresh: OverSeeds) -> str:
    bound = (
        f"{at_least_share(fresh.consistent, fresh.seeds)} of all seeds do on these test images (one-sided 95 % bound)."
    )
    if fresh.consistent == fresh.seeds:
        return f"The {fresh.seeds} that had no part in any choice all do, so {bound}"
    return f"Of the {fresh.seeds} that had no part in any choice, {fresh.consistent} do, so {bound}"


def _result(evidence: Evidence) -> str:
    runs = evidence.runs("hundred", "step3")
    step3 = over_seeds(runs)
    fresh = over_seeds({seed: run for seed, run in runs.items() if seed >= planned.FRESH})
    minutes = [_minutes(evidence.runs("consistency", f"step{step}")) for step in STEPS]
    return _paragraph(
        f"Step 3 meets it with {step3.parameters:,} parameters for {_all_or(step3.consistent, step3.seeds)} recorded",
        f"seeds. {_share_of_fresh(fresh)}",
        f"Training takes {minutes[0]:.1f}, {minutes[1]:.1f} and {minutes[2]:.1f} minutes for Steps 1, 2 and 3 on one server",
        "core.",
    )


def _minutes(runs: Runs) -> float:
    """What a run on one thread takes: the median over seeds."""
    return statistics.median(sum(run.seconds) for run in runs.values() if run.environment["threads"] == 1) / 60


def _steps(evidence: Evidence) -> str:
    lines = []
    for step in STEPS:
        runs = evidence.runs("consistency", f"step{step}")
        shown, together = runs[0], over_seeds(runs)
        lines.append(
            [
                f"[{step}](Session7_Step{step}.ipynb)",
                f"{shown.parameters:,}",
                f"{shown.best:.2f}",
                _percents(shown.last_five),
                f"{together.mean:.2f}",
                f"{together.gap:+.2f}",
                _share(together.consistent, together.seeds),
            ]
        )
    titles = ["step", "parameters", "best %", "last five epochs, test %"]
    return _table([*titles, "mean over seeds", "train - test", "consistent"], lines)


# study, recipe, the recipe it is compared with, and what changes between them
FINDINGS = (
    (
        "ladder",
        "gap",
        "pool_at_5",
        "towards Step 2: a smaller kernel and global average pooling",
    ),
    ("ladder", "fully_connected", "gap", "towards Step 2: a linear layer in place of the last 3x3 convolution"),
    ("ladder", "capacity", "fully_connected", "towards Step 2: add a capacity layer, again a 3x3 convolution"),
    ("ladder", "dropout", "separable", f"towards Step 2: add dropout of {STEP_2.switches['dropout']}"),
    (
        "ladder",
        "schedule",
        "no_dropout",
        f"towards Step 3: a rate that falls from {STEP_3.learning_rate}, not constant at {STEP_2.learning_rate}",
    ),
    ("ablation", "constant_rate", "step3", f"Step 3 with a constant rate of {STEP_2.learning_rate}"),
    ("ablation", "dropout_0.1", "step3", f"Step 3 with dropout of {STEP_2.switches['dropout']}"),
    ("ablation", "no_augmentation", "step3", "Step 3 without augmentation"),
)


def change(evidence: Evidence, study: str, recipe: str, other: str) -> tuple[Contrast, float, float]:
    """What one change does: its contrast, adjusted for all of its study, and the gap train - test before and after."""
    runs = _all_runs(evidence, study)
    against, contrast = study_contrasts(STUDIES[study], runs)[recipe]
    if not _same_recipe(study, against, other):
        raise ValueError(f"{study}/{recipe} is compared with {against}, not with {other}")
    return contrast, over_seeds(runs[other]).gap, over_seeds(runs[recipe]).gap


def _same_recipe(study: str, one: str, other: str) -> bool:
    return STUDIES[study].recipes[one] == STUDIES[study].recipes[other]


def _findings(evidence: Evidence) -> str:
    lines = []
    for study, recipe, other, words in FINDINGS:
        contrast, before, after = change(evidence, study, recipe, other)
        lines.append([words, contrast.difference, contrast.says, f"{before:.2f} -> {after:.2f}"])
    points = f"test accuracy, points, over {STUDIES['ladder'].seeds} seeds"
    return _table(["change", points, "says", "gap train - test"], lines)


def _uncertainty(evidence: Evidence) -> str:
    spread = over_seeds(evidence.runs("consistency", "step3")).spread
    return _paragraph(
        f"The test set has 10,000 images: at 99.5 %, one standard error is {standard_error(99.5, 10_000):.2f} points.",
        f"Step 3's seeds add a standard deviation of {spread:.2f}. Two networks that differ by 0.1 in a single run each",
        "cannot be told apart.",
    )


# ---------------------------------------------------------------------------------------------------------------------
# lab/README.md
# ---------------------------------------------------------------------------------------------------------------------


def _studies(evidence: Evidence) -> str:
    studies = STUDIES | peers.STUDIES
    lines = []
    for name, study in studies.items():
        found = [evidence.recorded.get(recipe.hash, {}) for recipe in study.recipes.values()]
        runs = sum(seed in runs for runs in found for seed in study.all_seeds)
        asked = len(study.recipes) * study.seeds
        lines.append([f"`{name}`", study.question, len(study.recipes), study.seeds, f"{runs} of {asked}"])
    return _table(["study", "question", "recipes", "seeds", "runs recorded"], lines)


def _machines(evidence: Evidence) -> str:
    histories = [record.history for runs in evidence.recorded.values() for record in runs.values()]
    environments = [history.environment for history in histories]
    processors = sorted({str(environment["processor"]) for environment in environments})
    precisions = [str(environment["precision"]) for environment in environments]
    releases = [str(environment["torch"]).partition("+")[0] for environment in environments]
    versions = sorted(set(releases))
    counts = " and ".join(f"{precisions.count(name)} in {name}" for name in sorted(set(precisions)))
    return _paragraph(
        f"All {len(histories)} records were made on server processors ({', '.join(processors)}), {counts};",
        "no laptop and no GPU is among them. By version of PyTorch:",
        f"{', '.join(f'{releases.count(version)} from {version}' for version in versions)}.",
    )


def _one_change(evidence: Evidence) -> str:
    fall = f"from {STEP_3.learning_rate}, times {STEP_3.gamma} every {STEP_3.step_size} epochs"
    ends = {
        name: f"{over_seeds(evidence.runs('rates', name)).mean:.2f} %"
        for name in ("falling_0.05", "constant_0.05", "falling_0.2", "constant_0.2")
    }
    return _paragraph(
        "Some rows of the ladder change two things at once, and their differences cannot be split: *pool at 5* also enlarges",
        "the last kernel; *GAP* puts a smaller convolution and an average in its place; *fully connected* drops that",
        "convolution and puts a linear layer behind the average; *separable* makes the",
        f"convolutions separable and wider; *schedule* starts at another rate and lets it fall ({fall}), where Step 2 keeps",
        f"{STEP_2.learning_rate} throughout. The study `rates` takes the last one apart with the rest of Step 3's training:",
        f"from 0.05, a falling rate gives {ends['falling_0.05']} and a constant one {ends['constant_0.05']}; from 0.2,",
        f"{ends['falling_0.2']} and {ends['constant_0.2']}. It is the fall that counts.",
    )


# What five annotators each said of the test images whose labels an algorithm doubted: cleanlab/label-errors,
# mturk/mnist_mturk.json. Of those where fewer than three confirmed MNIST's label, the majority was for ...
DOUBTED = {"another": 10, "neither": 3, "none": 2}


def _labels(evidence: Evidence) -> str:
    return _paragraph(
        "Some of MNIST's labels are doubtful. [An audit](https://github.com/cleanlab/label-errors) showed suspicious ones",
        f"to five annotators each. For {sum(DOUBTED.values())} test images, fewer than three agreed with MNIST:",
        f"{DOUBTED['another']} have a majority for another digit, {DOUBTED['neither']} for neither of the two on offer,",
        f"{DOUBTED['none']} have no majority (`mturk/mnist_mturk.json`).",
    )


CHANCE = 12.0  # percent: no more than naming the most frequent digit every time gives


def _batch_norm(evidence: Evidence) -> str:
    runs = evidence.runs("ladder", "no_batch_norm")
    never = sum(max(run.test_accuracy) < CHANCE for run in runs.values())
    return _paragraph(
        f"Without batch norm, Step 1 does not learn at all for {never} of {len(runs)} seeds: its test accuracy stays below",
        f"{CHANCE:.0f} %.",
    )


RULES: Mapping[str, odds.Rule] = {
    "3 of 3": odds.at_least(3, 3),
    "4 of 5": odds.at_least(4, 5),
    "5 of 5": odds.at_least(5, 5),
    "5 of 5, else 9 of 10": odds.in_two_rounds(5),
    "9 of 10": odds.at_least(9, 10),
    "10 of 10": odds.at_least(10, 10),
}
FEWEST_SEEDS = 5  # that a recipe must have to be resampled
MOST_NAMES = 6  # in a row


def _resampled(evidence: Evidence) -> dict[str, Runs]:
    """The recipes by name that are judged on the test images and have enough recorded seeds, with all of these."""
    found: dict[str, Runs] = {}
    hashes = set()
    for study, one in (STUDIES | peers.STUDIES).items():
        for name, recipe in one.recipes.items():
            runs = evidence.recorded.get(recipe.hash, {})
            if len(runs) >= FEWEST_SEEDS and _is_judged(recipe) and recipe.hash not in hashes:
                hashes.add(recipe.hash)
                key = name if name not in found else f"{study}/{name}"
                found[key] = {seed: record.history for seed, record in runs.items()}
    return found


def _is_judged(recipe: Recipe) -> bool:
    return recipe.dataset == "mnist" and not recipe.validates


def _odds(evidence: Evidence) -> str:
    """How often each rule accepts a network, by its true share; and what follows for the number of seeds."""
    recipes = _resampled(evidence)
    together = {name: over_seeds(runs) for name, runs in recipes.items()}
    by_share: dict[float, list[str]] = {odds.BAD: [], odds.GOOD: []}
    for name, one in together.items():
        by_share.setdefault(one.consistent / one.seeds, []).append(name)
    lines = []
    for share, names in sorted(by_share.items()):
        chances = [odds.chance(rule, share) for rule in RULES.values()]
        lines.append([f"{100 * share:.0f} %", _recorded_so(names), *map(_percent, chances)])
    counts = [(one.consistent, one.seeds) for one in together.values()]
    for words, low, high in (
        (f"below {100 * odds.BAD:.0f} %", 0.0, odds.BAD),
        (f"above {100 * odds.GOOD:.0f} %", odds.GOOD, 1.0),
    ):
        chances = [odds.unsure(rule, counts, low, high) for rule in RULES.values()]
        lines.append([words, f"all {len(recipes)}, their shares unsure", *map(_percent, chances)])
    return _table(["true share", "recorded for", *RULES], lines) + "\n\n" + _default_seeds()


def _recorded_so(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMES:
        return f"{len(names)} recipes"
    return ", ".join(f"`{name}`" for name in names)


def _percent(chance: float) -> str:
    return f"{100 * chance:.1f}"


def _default_seeds() -> str:
    seeds = odds.DEFAULT_SEEDS
    passes = {rule: _percent(odds.chance(odds.at_least(*rule), odds.BAD)) for rule in ((3, 3), (4, 4), (4, 5), (5, 5))}
    twice = odds.in_two_rounds(seeds)
    refused = [_percent(1 - odds.chance(rule, odds.GOOD)) for rule in (odds.at_least(seeds, seeds), twice)]
    return _paragraph(
        f"`judge` and `grade` therefore run {seeds} seeds by default: call a network consistent if all {seeds} are. No",
        f"fewer can keep false acceptances below 5 %: a network that is consistent for {100 * odds.BAD:.0f} % of its seeds passes",
        f"in {passes[seeds, seeds]} % of cases, but with 4 of 4 in {passes[4, 4]} %, with 3 of 3 in {passes[3, 3]} %, and with",
        f"4 of 5 in {passes[4, 5]} %. The price is false refusals: one that is consistent for {100 * odds.GOOD:.0f} % of its",
        f"seeds fails in {refused[0]} % of cases. So after exactly one miss, run {seeds} more seeds, and accept if these are",
        f"all consistent: then {_percent(odds.chance(twice, odds.BAD))} % are falsely accepted and {refused[1]} % falsely",
        f"refused. Even {seeds} of {seeds} shows only that {at_least_share(seeds, seeds)} of all seeds are consistent.",
    )


SHOWN_SYSTEMS = (
    "step3",
    "lenet_1_vanilla",
    "lenet_7_sgd",
    "web_app",
    "simple_cnn",
    "deeper_cnn",
    "pytorch_example",
    "mini_vgg",
    "two_branches",
    "two_branches_regularized",
)


def _systems(evidence: Evidence) -> str:
    runs = compare.of_systems(evidence.recorded)
    rows = {row.system: row for row in compare.rows(runs)}
    lines = []
    for name in SHOWN_SYSTEMS:
        row = rows[name]
        difference = compare.less_step3(row) or ""
        claim = "" if row.claim is None else f"{row.claim:.2f}"
        mean = "not run yet" if row.mean is None else f"{row.mean:.2f}"
        lines.append([f"`{name}`", f"{row.parameters:,}", claim, mean, row.runs, difference])
    titles = ["system", "parameters", "claimed %", "measured %", "runs"]
    return _table([*titles, "difference from Step 3, points"], lines)


# Where the single runs in PUBLISHED are published, and which epochs they report.
SOURCES = {
    "snehanshu-raj": ("[snehanshu-raj/ERA](https://github.com/snehanshu-raj/ERA), assignment 6", "last five epochs"),
    "nitin-vig": ("[nitin-vig/ERAv4S6](https://github.com/nitin-vig/ERAv4S6)", "last five epochs"),
    "Madhur-1": ("[Madhur-1/ERA-v1](https://github.com/Madhur-1/ERA-v1), S7", "last four epochs"),
}


def _others(evidence: Evidence) -> str:
    reported = {name: (parameters, percents) for name, parameters, percents, *_ in PUBLISHED}
    lines = []
    for name, (source, epochs) in SOURCES.items():
        parameters, percents = reported[name]
        lines.append([source, epochs, f"{parameters:,}", f"{min(percents):.2f} to {max(percents):.2f}", 1])
    small = _smallest(evidence)
    for name, runs in (
        ("Step 3", evidence.runs("hundred", "step3")),
        (
            "the smallest network of `frontier` whose first five seeds are consistent, and its fresh seeds",
            {**evidence.runs("frontier", small), **evidence.runs("confirm_size", small)},
        ),
    ):
        last = [percent for run in runs.values() for percent in run.last_five]
        parameters = over_seeds(runs).parameters
        lines.append([name, "last five epochs", f"{parameters:,}", f"{min(last):.2f} to {max(last):.2f}", len(runs)])
    return _table(["", "epochs", "parameters", "test accuracy, %", "runs"], lines)


def _smallest(evidence: Evidence) -> str:
    """The smallest network of the frontier that meets the verdict for each of the study's seeds."""
    sizes = {recipe: over_seeds(evidence.runs("frontier", recipe)) for recipe in STUDIES["frontier"].recipes}
    every = {recipe: size for recipe, size in sizes.items() if size.consistent == size.seeds}
    return min(every, key=lambda recipe: every[recipe].parameters)


def _frontier(evidence: Evidence) -> str:
    sizes = [over_seeds(evidence.runs("frontier", recipe)) for recipe in STUDIES["frontier"].recipes]
    smallest = over_seeds(evidence.runs("frontier", _smallest(evidence)))
    sentences = [
        f"**How small?** A network with {smallest.parameters:,} parameters is consistent for",
        f"{_seeds(smallest.seeds, smallest.seeds)}.",
        f"Its last five epochs are at {smallest.mean:.2f} % on average and at {smallest.worst:.2f} % in the worst case.",
        f"But it is the smallest of {len(sizes)} sizes that passes, so luck may have chosen it.",
        _on_fresh_seeds(evidence, _smallest(evidence)),
    ]
    sentences += [
        f"A larger one with {size.parameters:,} is consistent for {_seeds(size.consistent, size.seeds)}: so few seeds"
        " do not rank neighboring sizes."
        for size in sizes
        if size.parameters > smallest.parameters and size.consistent < size.seeds
    ]
    below = over_seeds(evidence.runs("confirm_size", "silu"))
    sentences += [
        f"Below 3,000 parameters, the best of {len(STUDIES['small'].recipes)} recipes on held-out images has",
        f"{below.parameters:,}.",
        _on_fresh_seeds(evidence, "silu"),
    ]
    return _paragraph(*sentences)


def _on_fresh_seeds(evidence: Evidence, recipe: str) -> str:
    """What became of a small network on seeds that had chosen nothing, and whether that is what the plan asks for."""
    runs, question = evidence.runs("confirm_size", recipe), planned.question_about(recipe)
    together = over_seeds(runs)
    return (
        f"On fresh seeds it is consistent for {_seeds(together.consistent, together.seeds)}. The plan asks for"
        f" {question.asked}, so the answer is {question.answer(runs)}."
    )


def _better(evidence: Evidence) -> str:
    """What a rate that falls after each epoch gives on seeds that had chosen nothing, beside Step 3 on the same seeds."""
    recorded, question = _all_runs(evidence, "confirm_best"), planned.question_about("each_epoch")
    there = over_seeds(recorded["each_epoch"])
    _, contrast = study_contrasts(STUDIES["confirm_best"], recorded)["each_epoch"]
    return _paragraph(
        "**How accurate?** With a rate that falls after each epoch, Step 3's network averages",
        f"{there.mean:.2f} % in the last five epochs of {there.seeds} fresh seeds. The difference to Step 3 on the same seeds is",
        f"{contrast.difference} points: *{contrast.says}*. The plan asks for at least {question.mean:.2f} %, so the answer is",
        f"{question.answer(recorded['each_epoch'])}.",
    )


def _elsewhere(evidence: Evidence) -> str:
    """What becomes of the ladder's conclusions on Fashion-MNIST, and what is *different* there alone."""
    here, there = (
        {key: contrast for key, (_, contrast) in study_contrasts(STUDIES[name], _all_runs(evidence, name)).items()}
        for name in ("ladder", "fashion")
    )
    become: dict[str, list[str]] = {"survives": [], "turns": [], "open": []}
    for key, contrast in there.items():
        become[elsewhere(here[key], contrast)].append(key)

    def listed(keys: Sequence[str]) -> str:
        points = ((readable(key), there[key].difference.mean, here[key].difference.mean) for key in keys)
        return "; ".join(
            f"*{name}* ({on_clothes:+.2f}, on MNIST {on_digits:+.2f})" for name, on_clothes, on_digits in points
        )

    alone = [key for key in become["open"] if there[key].says == DIFFERENT]
    sentences = [
        f"**On clothes?** Of the ladder's {len(there)} conclusions, {len(become['survives'])} survive on Fashion-MNIST"
    ]
    sentences[0] += f": {listed(become['survives'])}." if become["survives"] else "."
    turned = become["turns"]
    sentences.append(f"{len(turned)} turn: {listed(turned)}." if turned else "None turns.")
    if alone:
        sentences.append(f"The others are open; there alone, these say *different*: {listed(alone)}.")
    return _paragraph(*sentences)


def _all_runs(evidence: Evidence, study: str) -> dict[str, Runs]:
    return {key: evidence.runs(study, key) for key in STUDIES[study].recipes}


def _epochs(evidence: Evidence) -> str:
    """In how few epochs every seed ends at the target, and what fewer give."""
    target = utils.TARGET_PERCENT
    runs = {recipe.epochs: evidence.runs("epochs", key) for key, recipe in STUDIES["epochs"].recipes.items()}
    ends = {epochs: [run.test_accuracy[-1] for run in of.values()] for epochs, of in runs.items()}
    fewest = min(epochs for epochs, end in ends.items() if min(end) >= target)
    end = ends[fewest]
    one_before = min(run.test_accuracy[-2] for run in runs[fewest].values())
    sentences = [
        f"**How fast?** With {fewest} epochs instead of {STEP_3.epochs}, Step 3 ends at {min(end):.2f} % or more for",
        f"{_seeds(len(end), len(end))}, at {statistics.mean(end):.2f} % on average; one epoch earlier, no seed is below",
        f"{one_before:.2f} %.",
    ]
    for epochs in sorted(ends):
        if epochs < fewest:
            above = sum(percent >= target for percent in ends[epochs])
            sentences.append(f"With {epochs} epochs, {_seeds(above, len(ends[epochs]))} end at {target:.1f} % or more.")
    fast = list(evidence.runs("confirm_fast", "7_epochs_lighter").values())
    epochs, consistent = len(fast[0]), sum(min(run.last_five) >= target for run in fast)
    calm = sum(min(run.test_accuracy[-3:]) >= target for run in fast)
    sentences += [
        f"Are {epochs} epochs enough for the verdict, with a rate that halves after each, lighter augmentation and fresh seeds?",
        f"{_seeds(consistent, len(fast))} are consistent, since the last five epochs begin with epoch {epochs - 4}, when the",
        "rate is still high. The plan did not ask for this, but after each of the last three epochs,",
        f"{_seeds(calm, len(fast))} are at {target:.1f} % or more.",
    ]
    return _paragraph(*sentences)


def _speed(evidence: Evidence) -> str:
    timed = evidence.bench
    usual = (
        "the usual pipeline: torchvision's random affine on PIL images, a `DataLoader` with 2 workers, float32. It leaves"
        " out the warp, which would slow it further"
    )
    ours = (
        "this pipeline: `uint8` images in memory, each moved and bent in its own way, a whole batch at once; bfloat16"
        " where the processor computes it, channels last, memory kept between batches"
    )
    lines = [
        [usual, timed["usual_s"]],
        [ours, timed["ours_s"]],
        ["forward and backward passes alone, on one batch in memory", timed["bare_s"]],
        ["this pipeline again, alternating with the next row", timed["idle_s"]],
        ["this pipeline beside a process that keeps one of the two cores busy", timed["busy_s"]],
    ]
    sentences = _paragraph(
        f"This pipeline, with bfloat16, is {timed['ratio']} times as fast as the usual one in float32. Loading and augmenting,",
        f"timed by themselves, take {100 * timed['data_share']:.1f} % of an epoch; the process needs {timed['memory_mib']} MiB.",
        f"Beside other work, an epoch takes {timed['busy_ratio']} times as long and gives the same numbers to the last bit.",
    )
    return _table(["", "seconds per epoch"], lines) + "\n\n" + sentences


# ---------------------------------------------------------------------------------------------------------------------
# app/README.md
# ---------------------------------------------------------------------------------------------------------------------


def _network(evidence: Evidence) -> str:
    about = evidence.app_network
    return _paragraph(
        f"The network is Step 3's, seed {about['seed']}: [`step3.onnx`](step3.onnx), {APP_NETWORK.stat().st_size / 1000:.0f}",
        f"KB, {about['accuracy']} % of the test images right. `python -m lab export` makes it.",
    )


def _drawings(evidence: Evidence) -> str:
    read_as = {
        "plain": "the same test images, unchanged",
        "prepared": "redrawn, and prepared",
        "resized": "redrawn, the page resized to 28 x 28",
        "resized_light_on_dark": "redrawn, resized, and inverted to light on dark",
        "cropped": "redrawn, light on dark, cut to the digit's box and resized",
    }
    ways = evidence.drawings["ways"]
    return _table(["read as", "accuracy %"], [[words, f"{ways[key]:.2f}"] for key, words in read_as.items()])


def _groups(evidence: Evidence) -> str:
    lines = [
        [name, f"{one['pictures']:,}", f"{one['accuracy']:.1f}", f"{one['doubted']:.1f}"]
        for name, one in evidence.drawings["groups"].items()
    ]
    return _table(["a digit", "pictures", "accuracy %", "doubted %"], lines)


def _doubt(evidence: Evidence) -> str:
    found = evidence.drawings
    lines = [[f"{name}", one["pictures"], f"{one['doubted']:.1f}"] for name, one in found["no_digits"].items()]
    calibration = found["calibration"]
    sentences = _paragraph(
        f"Of MNIST's test images, {found['doubted_test_images']:.2f} % are doubted. Over all the drawn digits above,",
        f"confidence and accuracy differ by {calibration['error']:.2f} points (expected calibration error, 15 bins);",
        f"without the temperature of {calibration['temperature']:.2f} by which the logits are divided, by",
        f"{calibration['error_without']:.2f}.",
    )
    return _table(["not one digit", "pictures", "doubted %"], lines) + "\n\n" + sentences


def _benchmark(evidence: Evidence) -> str:
    timed = evidence.bench_app
    several = {  # of five runs each: its name, its decimals, its unit
        "predictions_per_second": ("predictions per second", 0, ""),
        "median_ms_at_half_load": ("at half that load, half of the predictions take less than", 1, " ms"),
        "p99_ms_at_half_load": ("and 99 % of them less than", 1, " ms"),
        "class_median_seconds": ("30 students behind one address: half of them have their last answer within", 2, " s"),
        "class_90_percent_seconds": ("90 % of them within", 2, " s"),
        "class_worst_seconds": ("all of them within", 2, " s"),
        "class_corrections": ("their corrections", 0, ""),
        "class_corrections_refused": ("of these, refused", 0, ""),
        "seconds_to_first_prediction": ("from start to first prediction", 1, " s"),
    }
    lines = [
        [words, *(f"{timed[key][which]:,.{digits}f}{unit}" for which in (1, 0, 2))]
        for key, (words, digits, unit) in several.items()
    ]
    lines += [
        ["memory (one run)", f"{timed['megabytes']:.0f} MB", "", ""],
        [
            "corrections sent while PostgreSQL was stopped and started three times (one run)",
            f"{timed['feedback_rows']:,}",
            "",
            "",
        ],
        ["of these, lost or recorded twice", f"{timed['feedback_lost_or_double']:.0f}", "", ""],
    ]
    return _table(["", "median of five runs", "least", "most"], lines)


Block = Callable[[Evidence], str]

PAGES: Mapping[str, Mapping[str, Block]] = {
    "README.md": {"result": _result, "steps": _steps, "findings": _findings, "uncertainty": _uncertainty},
    "lab/README.md": {
        "studies": _studies,
        "machines": _machines,
        "one change": _one_change,
        "batch norm": _batch_norm,
        "labels": _labels,
        "odds": _odds,
        "systems": _systems,
        "others": _others,
        "frontier": _frontier,
        "elsewhere": _elsewhere,
        "epochs": _epochs,
        "better": _better,
        "speed": _speed,
    },
    "app/README.md": {
        "network": _network,
        "drawings": _drawings,
        "groups": _groups,
        "doubt": _doubt,
        "benchmark": _benchmark,
    },
}
