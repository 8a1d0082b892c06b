"""The pages of a class: one for each student, and one for all. Each is one file without scripts.

What comes from a submission is escaped by the templates in lab/grading/templates/; pictures have no text of a student's
but its name.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import utils
from lab.evidence import figures, records
from lab.evidence.statistics import Difference, paired_difference, share_interval
from lab.grading.looked import Ingredients
from lab.grading.marks import COLUMNS, Grade, difference
from lab.grading.submissions import Skipped
from lab.grading.tells import tells

SHOWN = 20  # mistakes
NUMBERS = ("parameters", "seeds", "mean", "worst", "difference to Step 3", "low", "high", "points")  # columns
BELOW = 0.6  # points below the lowest recorded network, where the axis of the class's picture ends
MOST_LETTERS = 16  # of a name in the picture


def pages(grades: Sequence[Grade], skipped: Sequence[Skipped], test: utils.Digits) -> Iterator[tuple[str, str]]:
    """Name and HTML of each page; `index` is that of the class."""
    for grade in grades:
        yield grade.name, student_page(grade, test)
    yield "index", class_page(grades, skipped)


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["address"] = lambda name: f"{quote(name)}.html"
    return environment


def _as_data(figure: Figure) -> str:
    """A figure as the address of a picture, which holds all of it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


# ---------------------------------------------------------------------------------------------------------------------
# One student
# ---------------------------------------------------------------------------------------------------------------------


def student_page(grade: Grade, test: utils.Digits) -> str:
    """A student's page: what was measured, points, what failed, curves, mistakes, and what the network is."""
    outputs = [result.output for result in grade.results if result.failures and result.output]
    return (
        _environment()
        .get_template("student.html")
        .render(
            grade=grade,
            why_not_judged=grade.terms.why_not_judged,
            facts=list(_facts(grade)),
            points=grade.points,
            claims=grade.claims,
            runs=list(_runs(grade)),
            curves=_as_data(_curves(grade)) if grade.runs else "",
            mistakes=_as_data(_mistakes(grade, test)) if any(result.mistakes for result in grade.ended) else "",
            looked=grade.looked,
            tells=tells(grade.submission.code),
            output=outputs[0] if outputs else "",
        )
    )


def _facts(grade: Grade) -> Iterator[tuple[str, str]]:
    """What was measured, by title."""
    budget, summary, seeds = grade.terms.rubric.budget, grade.summary, len(grade.terms.seeds)
    if grade.parameters is not None:
        within = {None: "", True: f", within the budget of {budget:,}", False: f", OVER the budget of {budget:,}"}
        yield "parameters", f"{grade.parameters:,}{within[grade.budget_met]}"
    if summary:
        if grade.consistent is not None:
            low, high = (f"{100 * share:.0f}" for share in share_interval(grade.consistent, seeds))
            proven = f"so between {low} and {high} % of all seeds are (exact 95 % interval)"
            yield "consistently at 99.4 %", f"{grade.consistent} of {seeds} runs; {proven}"
        yield "mean of the last epochs", f"{summary.mean:.3f} %"
        yield "worst of them", f"{summary.worst:.2f} %"
    if grade.difference:
        spread = "" if len(grade.runs) > 1 else "; one run, whose spread is taken to be that of the recorded ones"
        why = f"{grade.difference} points, not paired, 95 % interval{spread}"
        yield f"difference to {grade.terms.against}", f"{why}; {len(grade.terms.recorded)} recorded seeds"
    measured = [result.measured for result in grade.ended if result.measured]
    if measured:
        yield "right before training", f"at most {max(one['initial'] for one in measured):.1f} %"
    isolation = grade.cells()["isolation"]
    if isolation:
        yield "its code ran in", isolation


def _runs(grade: Grade) -> Iterator[list[str]]:
    """A row per run. Seeds are not shown: who knows them can look for a network that they suit."""
    for result in grade.ended:
        run = result.history()
        last = " ".join(f"{percent:.2f}" for percent in run.last_five)
        verdict = utils.verdict(run).sentence
        number = str(grade.terms.seeds.index(result.seed) + 1)
        yield [number, last, f"{run.mean_last_five:.2f}", f"{min(run.last_five):.2f}", f"{run.gap:.2f}", verdict]


def _curves(grade: Grade) -> Figure:
    """Accuracy over the epochs, with the recorded runs of Step 3 behind."""
    groups = {"this network": grade.runs}
    if grade.terms.recorded:
        groups = {grade.terms.against: grade.terms.recorded, **groups}
    return figures.show_curves_over_seeds(groups)


def _mistakes(grade: Grade, test: utils.Digits) -> Figure:
    """The images that the network gets wrong after the last epoch: first those that are wrong in most runs."""
    wrong = Counter(index for result in grade.ended for index, _, _ in result.mistakes)
    answers = {index: (label, said) for result in grade.ended for index, label, said in result.mistakes}
    shown = sorted(wrong, key=lambda index: (-wrong[index], index))[:SHOWN]
    runs = len(grade.ended)
    titles = [f"{answers[i][0]}, said {answers[i][1]}" + f"\n{wrong[i]} of {runs} runs" * (runs > 1) for i in shown]
    first = f"; {SHOWN} of them" if len(wrong) > SHOWN else ""
    title = f"{len(wrong):,} test images are wrong after the last epoch{' of some run' * (runs > 1)}{first}"
    return utils.show_images(test.images[shown], titles, title + utils.sample_note(test.dataset))


# ---------------------------------------------------------------------------------------------------------------------
# The class
# ---------------------------------------------------------------------------------------------------------------------


def class_page(grades: Sequence[Grade], skipped: Sequence[Skipped]) -> str:
    """The page of the class: all grades, the picture of size and accuracy, and ablations that disagree."""
    terms = grades[0].terms
    trained = (
        f"Trained for {terms.recipe.epochs} epochs from {len(terms.seeds)} secret seed{'s' * (len(terms.seeds) > 1)}"
    )
    notes = [
        f"{trained}, the same for all, unless a submission has a recipe of its own.",
        "Mean and worst are of the last five epochs of all runs, in percent of the test images.",
    ]
    if terms.against:
        interval = "Welch's 95 % interval" if len(terms.seeds) > 1 else "a 95 % interval with the spread of its seeds"
        recorded = f"{len(terms.recorded)} recorded seeds of {terms.against}"
        notes.append(f"The difference is to {recorded}, in points, with {interval}; the seeds are not paired.")
    rows = [grade.cells() for grade in grades]
    if terms.why_not_judged:
        rows = [{**row, "consistent": "not judged"} for row in rows]
    drawn = [grade for grade in grades if grade.summary and grade.parameters]
    return (
        _environment()
        .get_template("class.html")
        .render(
            grades=grades,
            why_not_judged=terms.why_not_judged,
            notes=notes,
            titles=COLUMNS,
            numbers=NUMBERS,
            rows=rows,
            scatter=_as_data(draw_class(drawn)) if drawn else "",
            disagreements=list(disagreements(grades)),
            skipped=skipped,
        )
    )


def draw_class(grades: Sequence[Grade]) -> Figure:
    """Accuracy against parameters: a mark for each submission, and the recorded networks of other sizes.

    Whoever lies below the axis is marked at its lower end.
    """
    terms = grades[0].terms
    figure, axes = plt.subplots(figsize=(11, 6), layout="constrained")
    plt.close(figure)
    if terms.dataset == "MNIST":
        figures.frontier_on(axes, records.load_study("frontier"), names=False)
    places = [(grade.parameters or 0, grade.summary.mean) for grade in grades if grade.summary]
    lowest = axes.get_ylim()[0] - BELOW if terms.dataset == "MNIST" else 0.0
    for grade, (parameters, mean) in zip(grades, places):
        color = utils.YOUR_COLOR if grade.breaks_rules else "tab:green" if grade.budget_met else "tab:orange"
        place = parameters, max(mean, lowest)
        axes.plot(*place, "v" if mean < lowest else "o", color=color, clip_on=False, zorder=5)
        name = grade.name.encode("ascii", "replace").decode()[:MOST_LETTERS]
        name += f" {mean:.1f} %" if mean < lowest else ""
        axes.annotate(name, place, (5, 4), textcoords="offset points", fontsize=7, parse_math=False, zorder=6)
    sizes = [parameters for parameters, _ in places]
    if max(sizes) > 9_200:
        axes.set_xscale("log")
    axes.set_xlim(min(400, 0.8 * min(sizes)), max(9_200, 1.4 * max(sizes)))
    axes.set_ylim(lowest, min(100.05, max(mean for _, mean in places) + 0.5))
    for color, label in (
        ("tab:green", "within the budget"),
        ("tab:orange", "over it"),
        (utils.YOUR_COLOR, "against the rules"),
    ):
        axes.plot([], [], "o", color=color, label=label)
    axes.set(xlabel="parameters", ylabel="test accuracy, percent, mean of the last epochs")
    axes.set_title(f"{len(grades)} submissions{utils.sample_note(terms.dataset)}")
    axes.legend(loc="lower right", fontsize=8)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Ablations that disagree
# ---------------------------------------------------------------------------------------------------------------------

# What the lesson adds; the recorded recipe that differs from Step 3 in it; and whether that recipe has it, or lacks it
ABLATIONS = {
    "batch norm": ("no_batch_norm", False),
    "global average pooling": ("no_gap", False),
    "the capacity layer": ("no_capacity", False),
    "dropout": ("dropout_0.1", True),
}
OF_STEP_3 = frozenset({"batch norm", "global average pooling", "the capacity layer"})


class _Network(NamedTuple):
    """A network of the class, or Step 3."""

    name: str
    has: frozenset[str]
    recipe: object
    runs: Any


def ingredients(found: Ingredients) -> frozenset[str]:
    """What a network has of what the lesson adds."""
    has = {
        "batch norm": found.batch_norm > 0,
        "global average pooling": found.global_average,
        "the capacity layer": found.capacity_layer,
        "dropout": any(rate > 0 for rate in found.dropout),
    }
    return frozenset(name for name, there in has.items() if there)


def disagreements(grades: Sequence[Grade]) -> Iterator[str]:
    """Pairs of networks, trained alike, that differ in one ingredient, where it does the opposite of what was recorded.

    Both differences must be told apart from zero.
    """
    terms = grades[0].terms
    if terms.why_not_judged or not terms.recorded:
        return
    networks = [
        _Network(grade.name, ingredients(grade.looked.ingredients), grade.recipe, grade.runs)
        for grade in grades
        if grade.looked.ingredients and grade.runs and not grade.breaks_rules
    ]
    if terms.alike:
        networks.append(_Network("Step 3", OF_STEP_3, terms.recipe, terms.recorded))
    for one, other in permutations(networks, 2):
        more = one.has - other.has
        if len(more) != 1 or other.has - one.has or one.recipe != other.recipe:
            continue
        (ingredient,) = more
        here, there = _difference(one, other), recorded_effect(ingredient)
        if here and here.sign * there.sign < 0:
            yield (
                f"{one.name} has {ingredient}, {other.name} has not: {here} points here, "
                f"{there} points in the recorded ablation of Step 3"
            )


def _difference(one: _Network, other: _Network) -> Difference | None:
    """How much more accurate one network is than another; None where neither has several seeds."""
    if len(other.runs) > 1:
        return difference(one.runs, other.runs)
    if len(one.runs) > 1:
        turned = difference(other.runs, one.runs)
        return Difference(-turned.mean, -turned.high, -turned.low)
    return None


def recorded_effect(ingredient: str) -> Difference:
    """What an ingredient was worth in the recorded ablation: with it less without it, in points."""
    recipe, has_it = ABLATIONS[ingredient]
    changed, step3 = (records.load("ablation", name) for name in (recipe, "step3"))
    return paired_difference(changed, step3) if has_it else paired_difference(step3, changed)
