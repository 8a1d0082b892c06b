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
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

import utils
from lab.evidence import figures, records
from lab.evidence.statistics import Difference, paired_difference, share_interval
from lab.grading.looked import Ingredients
from lab.grading.marks import COLUMNS, Grade, difference
from lab.grading.submissions import Skipped
from lab.grading.tells import LABELS, tells
from lab.grading.wording import in_words
from lab.judging.advice import Kind

SHOWN = 20  # mistakes
# The columns of the class page: first what one acts on
FIRST = ("name", "points", "consistent", "mean", "parameters", "what failed", "code to read", "recipe")
TITLES = (*FIRST, *(title for title in COLUMNS if title not in FIRST))
NUMBERS = ("parameters", "seeds", "mean", "worst", "difference to Step 3", "low", "high", "points")  # columns
MOST_LETTERS = 16  # of a name in the picture
TICKS = (10, 50, 80, 90, 95, 97, 98, 99, 99.2, 99.4, 99.6, 99.8)  # percent, in the class's picture
NEAREST_TO_ALL = 0.05  # percent wrong; whoever has fewer is drawn there
FINDINGS: dict[Kind, str] = {
    "mistake": "Mistakes",
    "advice": "Advice, which costs no points by itself",
    "note": "Good to know",
}


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
            recipe=in_words(grade.terms.recipe),
            looked=grade.looked,
            findings=[(title, found) for kind, title in FINDINGS.items() if (found := grade.looked.of_kind(kind))],
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
        if summary.collapsed:
            runs = f"{summary.collapsed} of {seeds} runs"
            yield "it did not learn", f"in {runs}, more than half of the answers are wrong in the last five epochs"
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
    notes = [
        f"The class's recipe: {in_words(terms.recipe)}. The table says what a submission's own recipe changes.",
        f"Each network is trained from {len(terms.seeds)} secret seed{'s' * (len(terms.seeds) > 1)}, the same for all.",
        "Mean and worst are of the last five epochs of all runs, in percent of the test images.",
    ]
    if terms.against:
        interval = "Welch's 95 % interval" if len(terms.seeds) > 1 else "a 95 % interval with the spread of its seeds"
        recorded = f"{len(terms.recorded)} recorded seeds of {terms.against}"
        notes.append(f"The difference is to {recorded}, in points, with {interval}; the seeds are not paired.")
    rows = [grade.cells() for grade in grades]
    if terms.why_not_judged:
        rows = [{**row, "consistent": "not judged"} for row in rows]
    longer = [grade.name for grade in grades if grade.runs and grade.recipe.epochs > terms.recipe.epochs]
    if longer:
        notes.append(
            f"Trained for more epochs than the class, which raises the mean of the last five: {', '.join(longer)}."
        )
    filled = [title for title in TITLES if any(row[title] for row in rows)]
    drawn = [grade for grade in grades if grade.summary and grade.parameters]
    groups = dict.fromkeys(tuple(sorted([grade.name, *grade.same_code])) for grade in grades if grade.same_code)
    return (
        _environment()
        .get_template("class.html")
        .render(
            grades=grades,
            why_not_judged=terms.why_not_judged,
            notes=notes,
            titles=filled,
            numbers=NUMBERS,
            rows=[{title: row[title] for title in filled} for row in rows],
            marked=LABELS,
            scatter=_as_data(draw_class(drawn, len(grades))) if drawn else "",
            same_code=[", ".join(names) for names in groups],
            disagreements=list(disagreements(grades)),
            skipped=skipped,
        )
    )


def draw_class(grades: Sequence[Grade], handed_in: int) -> Figure:
    """Accuracy against parameters: a mark with a name for each submission that was trained, of so many that were handed in,
    and the recorded networks of other sizes.

    The axis grows with the logarithm of what is wrong, so that there is room for 99.3 % and 99.5 %, and for 11 % too.
    """
    terms = grades[0].terms
    figure, axes = plt.subplots(figsize=(11, 7), layout="constrained")
    plt.close(figure)
    if terms.dataset == "MNIST":
        figures.frontier_on(axes, records.load_study("frontier"), whose="recorded", names=False)
    known = axes.dataLim.intervaly if terms.dataset == "MNIST" else ()
    marks = [(grade.parameters or 0, grade.summary.mean) for grade in grades if grade.summary]
    others = [*axes.lines, *axes.collections]
    for grade, mark in zip(grades, marks):
        color = utils.YOUR_COLOR if grade.breaks_rules else "tab:green" if grade.budget_met else "tab:orange"
        axes.plot(*mark, "o", color=color, clip_on=False, zorder=5)
    sizes, means = zip(*marks)
    if max(sizes) > 9_200:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda parameters, _: f"{parameters:,.0f}")
    axes.set_xlim(min(400, 0.8 * min(sizes)), max(9_200, 1.4 * max(sizes)))
    ends = [*means, *known]
    axes.set_yscale("function", functions=(_nines, _percent))
    lowest, highest = _percent(_nines(min(ends)) - 0.1), _percent(_nines(max(ends)) + 0.1)
    axes.set_ylim(lowest, highest)
    axes.set_yticks([tick for tick in TICKS if lowest <= tick <= highest])
    axes.yaxis.set_major_formatter(lambda percent, _: f"{percent:g}")
    for color, label in (
        ("tab:green", "within the budget"),
        ("tab:orange", "over it"),
        (utils.YOUR_COLOR, "against the rules"),
    ):
        axes.plot([], [], "o", color=color, label=label)
    axes.set(xlabel="parameters", ylabel="test accuracy, percent, mean of the last epochs")
    trained = f"{len(grades)} of {handed_in} submissions were trained to the end"
    axes.set_title(trained + utils.sample_note(terms.dataset))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    names = [grade.name.encode("ascii", "replace").decode()[:MOST_LETTERS] for grade in grades]
    _write_names(axes, names, marks, others)
    return figure


def _nines(percent: Any) -> Any:
    """How high an accuracy stands: minus the logarithm of what is wrong, so that 90, 99 and 99.9 % are equally far apart."""
    return -np.log10(np.maximum(100 - np.asarray(percent, float), NEAREST_TO_ALL))


def _percent(nines: Any) -> Any:
    return 100 - 10 ** -np.asarray(nines, float)


def _write_names(
    axes: Axes, names: Sequence[str], marks: Sequence[tuple[float, float]], others: Sequence[Artist]
) -> None:
    """Write each name beside its mark where it covers no name, no mark and nothing of the `others`, with a line to the mark
    where it is farther away.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    figure.set_layout_engine("none")  # type: ignore[union-attr]  # what follows counts in pixels
    dots = [axes.transData.transform(mark) for mark in marks]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    taken += [text.get_window_extent() for text in axes.texts]
    taken += [box for one in others for box in _boxes_of(one)]
    inside = axes.get_window_extent()
    for name, (x, y), mark in sorted(zip(names, dots, marks), key=lambda one: (one[1][0], one[1][1])):
        text = axes.annotate(
            name, mark, (0, 0), textcoords="offset pixels", fontsize=8, parse_math=False, zorder=6, va="center"
        )
        size = text.get_window_extent()
        width, height = size.width + 2, size.height + 1

        def box(
            place: tuple[float, float], at: tuple[float, float] = (x, y), w: float = width, h: float = height
        ) -> Bbox:
            return Bbox.from_bounds(at[0] + place[0], at[1] + place[1] - h / 2, w, h)

        places = [(dx, dy) for radius in RADII for dx, dy in _around(radius, width, height)]
        fits = (one for one in places if not box(one).count_overlaps(taken) and _is_inside(box(one), inside))
        place = next(fits, places[0])
        taken.append(box(place))
        text.set_position(place)
        if place not in places[: len(DIRECTIONS)]:
            end = (place[0] if place[0] > 0 else min(0, place[0] + width), place[1])
            axes.annotate(
                "",
                mark,
                end,
                textcoords="offset pixels",
                arrowprops={"arrowstyle": "-", "color": "gray", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
                zorder=4,
            )


RADII = (7, 14, 22, 32, 44, 58, 74, 92, 112, 134, 160, 190, 220)  # pixels from a mark to its name
DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))


def _around(radius: float, width: float, height: float) -> Iterator[tuple[float, float]]:
    """Left edge and middle of a name in eight directions from a mark, in pixels."""
    for right, up in DIRECTIONS:
        left = {1: radius * (0.7 if up else 1), 0: -width / 2, -1: -radius * (0.7 if up else 1) - width}[right]
        yield left, up * (radius * (1 if not right else 0.7) + height / 2)


def _boxes_of(drawn: Artist) -> Iterator[Bbox]:
    """What a line's marks, or the strokes of error bars, cover, in pixels."""
    if isinstance(drawn, LineCollection):
        for stroke in drawn.get_segments():
            yield Bbox(drawn.get_transform().transform(stroke)).padded(1)
    elif isinstance(drawn, Line2D) and drawn.get_marker() not in ("None", None, ""):
        for x, y in drawn.get_transform().transform(drawn.get_xydata()):
            yield Bbox.from_bounds(x - 4, y - 4, 8, 8)


def _is_inside(box: Bbox, of: Bbox) -> bool:
    return bool(of.x0 <= box.x0 and box.x1 <= of.x1 and of.y0 <= box.y0 and box.y1 <= of.y1)


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
