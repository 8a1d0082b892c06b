"""What one student's submission gave, from the results of its runs."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t as student_t

import utils
from lab.evidence.statistics import Difference, OverSeeds, Runs, has_collapsed, over_seeds, unpaired_difference
from lab.grading import rubric
from lab.grading.harness import Failure, Result
from lab.grading.looked import Looked, Warned
from lab.grading.rubric import Points, Rubric
from lab.grading.submissions import Submission
from lab.grading.tells import in_short
from lab.grading.wording import Change, changes, in_one_line
from lab.runs.recipes import Recipe

COLUMNS = (
    "name",
    "points",
    "consistent",
    "mean",
    "worst",
    "parameters",
    "budget met",
    "difference to Step 3",
    "seeds",
    "what failed",
    "recipe",
    "graded from",
    "same code as",
    "code to read",
    "low",
    "high",
    "isolation",
)


@dataclass(frozen=True)
class Terms:
    """What all submissions of a class have in common.

    recorded: the recorded runs of Step 3's network, with the class's recipe where there are such, else with the lesson's;
              empty where the data is not MNIST
    against:  what these runs are, in words
    alike:    whether they were trained with the class's recipe
    """

    recipe: Recipe
    rubric: Rubric
    seeds: tuple[int, ...]
    dataset: str
    recorded: Runs
    against: str
    alike: bool

    @property
    def why_not_judged(self) -> str:
        """Why there is no verdict, and there are no points, for anybody; "" if there are."""
        if self.dataset != "MNIST":
            return f"not judged: {self.dataset}, expected all of MNIST"
        if self.recipe.epochs < utils.LAST_EPOCHS:
            return f"not judged: {self.recipe.epochs} epochs, expected at least {utils.LAST_EPOCHS}"
        return ""


@dataclass
class Grade:
    """What one student's submission gave. `results` are those of the runs that were made, in the order of the seeds.

    `same_code` are the names of the submissions whose network has the same code.
    """

    submission: Submission
    recipe: Recipe
    terms: Terms
    results: list[Result]
    same_code: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The student's, or the team's."""
        return self.submission.name

    @property
    def ended(self) -> list[Result]:
        """The runs that came to their end."""
        return [result for result in self.results if result.ended]

    @cached_property
    def runs(self) -> Runs:
        """Their histories, by seed."""
        return {result.seed: result.history() for result in self.ended}

    @cached_property
    def summary(self) -> OverSeeds | None:
        """Their summary; None where no run came to its end."""
        return over_seeds(self.runs) if self.runs else None

    @property
    def failures(self) -> list[Failure]:
        """What failed, each once; with the number of the run where that is not the same for all."""
        if self.submission.trouble:
            return [Failure("run", self.submission.trouble)]
        found: dict[Failure, list[int]] = {}
        for number, result in enumerate(self.results, start=1):
            for failure in result.failures:
                found.setdefault(failure, []).append(number)
        several = len(self.terms.seeds) > 1
        return [
            failure._replace(why=f"run {', '.join(map(str, numbers))}: {failure.why}")
            if several and len(numbers) < len(self.results)
            else failure
            for failure, numbers in found.items()
        ]

    @property
    def breaks_rules(self) -> bool:
        """Whether it is out of points for what it did."""
        return any(failure.kind == "rules" for failure in self.failures)

    @property
    def parameters(self) -> int | None:
        """Counted from the weights; None where there are none."""
        return next((result.parameters for result in self.results if result.parameters), None)

    @property
    def budget_met(self) -> bool | None:
        """Whether the network keeps to the rubric's budget; None where that is not known, or there is none."""
        budget = self.terms.rubric.budget
        return None if budget is None or self.parameters is None else self.parameters <= budget

    @property
    def consistent(self) -> int | None:
        """How many of the seeds are consistently at 99.4 %; None where that is not judged."""
        if self.terms.why_not_judged:
            return None
        return self.summary.consistent if self.summary else 0

    @cached_property
    def difference(self) -> Difference | None:
        """To the recorded runs of Step 3; None where there is nothing to compare."""
        return difference(self.runs, self.terms.recorded) if self.runs and self.terms.recorded else None

    @cached_property
    def looked(self) -> Looked:
        """What `look` found, as the training process said."""
        return next((Looked.of(result.look) for result in self.results if result.look), Looked())

    @property
    def mistakes(self) -> list[Warned]:
        """What `look` found to be a mistake; advice and notes cost nothing."""
        return self.looked.of_kind("mistake")

    @cached_property
    def changes(self) -> list[Change]:
        """The fields of the recipe that it was trained with that are not the class's."""
        return changes(self.recipe, self.terms.recipe)

    @property
    def graded_from(self) -> str:
        """Which of the files that were handed in under this name was graded."""
        left_out = self.submission.left_out
        return self.submission.entry + (f", not {' or '.join(left_out)}" if left_out else "")

    @property
    def points(self) -> list[Points] | None:
        """By the rubric; None where nobody is judged."""
        if self.terms.why_not_judged:
            return None
        given = rubric.points(self.terms.rubric, self._measured())
        return [item._replace(given=0.0) for item in given] if self.breaks_rules else given

    def _measured(self) -> dict[str, float]:
        """What the rubric looks at, as far as it is known. The means count where every seed came to its end."""
        if not self.ended:
            return {}
        measured: dict[str, float] = {}
        if not self.looked.errors:
            measured["mistakes"] = len(self.mistakes)
        if self.parameters:
            measured["parameters"] = self.parameters
        measured["consistent"] = (self.consistent or 0) / len(self.terms.seeds)
        if self.summary and len(self.ended) == len(self.terms.seeds):
            measured |= {"mean": self.summary.mean, "worst": self.summary.worst}
            if self.difference:
                measured["difference"] = self.difference.mean
        return measured

    @property
    def total(self) -> float | None:
        """The sum of the points."""
        return None if self.points is None else sum(item.given for item in self.points)

    @property
    def did_not_learn(self) -> bool:
        """Whether a run that came to its end gets more than half of the images wrong."""
        return bool(self.summary and self.summary.collapsed)

    def cells(self) -> dict[str, str]:
        """The student's line of grades.csv, by `COLUMNS`."""
        summary, to_step3 = self.summary, self.difference
        ends = [f"{value:+.3f}" if math.isfinite(value) else "" for value in to_step3] if to_step3 else [""] * 3
        difference, low, high = ends
        cells = [
            self.name,
            "" if self.total is None else f"{self.total:.4g}",
            self.terms.why_not_judged or f"{self.consistent} of {len(self.terms.seeds)}",
            f"{summary.mean:.3f}" if summary else "",
            f"{summary.worst:.2f}" if summary else "",
            "" if self.parameters is None else str(self.parameters),
            {None: "", True: "yes", False: "no"}[self.budget_met],
            difference,
            str(len(self.terms.seeds)),
            "; ".join([*(failure.why for failure in self.failures), *["it did not learn"] * self.did_not_learn]),
            "" if self.submission.trouble else in_one_line(self.changes) or "the class's",
            self.graded_from,
            ", ".join(self.same_code),
            in_short(self.submission.code),
            low,
            high,
            ", ".join(dict.fromkeys(_isolation(result) for result in self.results)),
        ]
        return dict(zip(COLUMNS, cells, strict=True))

    @property
    def claims(self) -> list[tuple[str, str, str]]:
        """What the submission claims, each beside what was measured."""
        claimed, measured = dict(self.submission.claims), self.summary
        rows = {
            "parameters": "" if self.parameters is None else f"{self.parameters:,}",
            "consistent": "not judged" if self.consistent is None else f"{self.consistent} of {len(self.terms.seeds)}",
            "mean": f"{measured.mean:.2f}" if measured else "",
            "worst": f"{measured.worst:.2f}" if measured else "",
        }
        words = {name: f"{claimed[name]:,.2f}".removesuffix(".00") for name in claimed}
        if "consistent" in words and "seeds" in words:
            words["consistent"] += f" of {words['seeds']}"
        return [(name, words[name], found) for name, found in rows.items() if name in words]


def _isolation(result: Result) -> str:
    """What kept its code from the rest of the machine; and whether its code was let in where the images are."""
    return result.isolation + ", trusted: its own code trained and answered" * result.trusted


def difference(ours: Runs, theirs: Runs) -> Difference:
    """The difference of the means of the last five epochs, in points, with a 95 % interval: Welch's, since the seeds differ.

    One seed has no spread of its own. It is taken to be that of the others, which are several.
    """
    one, other = (np.array([run.mean_last_five for run in runs.values()]) for runs in (ours, theirs))
    mean = float(one.mean() - other.mean())
    if any(has_collapsed(run) for runs in (ours, theirs) for run in runs.values()):
        return Difference(mean, math.nan, math.nan)
    if len(one) > 1:
        return unpaired_difference(ours, theirs)
    reach = float(student_t.ppf(0.975, len(other) - 1) * other.std(ddof=1) * math.sqrt(1 + 1 / len(other)))
    return Difference(mean, mean - reach, mean + reach)
