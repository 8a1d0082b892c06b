"""The questions that lab/PLAN.md asks on seeds that chose nothing, and what the records answer."""

from collections.abc import Mapping
from dataclasses import dataclass

import utils
from lab.evidence import tables
from lab.evidence.statistics import over_seeds
from lab.runs.recipes import STUDIES

Runs = Mapping[int, utils.History]  # by seed


@dataclass(frozen=True)
class Question:
    """One row of the plan's section 2. The answer is yes if at least `consistent` of the study's seeds are, and if the mean
    of the last five epochs over all of them is at least `mean` percent.
    """

    text: str
    study: str
    recipe: str
    consistent: int = 0
    mean: float = 0.0

    @property
    def seeds(self) -> int:
        """How many seeds the plan asks for."""
        return STUDIES[self.study].seeds

    @property
    def asked(self) -> str:
        """What has to be measured for a yes."""
        count = f"{self.consistent} of {self.seeds} consistent" if self.consistent else f"{self.seeds} seeds"
        return count + (f", mean at least {self.mean:.2f}" if self.mean else "")

    def measured(self, runs: Runs) -> str:
        """What is recorded so far; the bound is that of the seeds which chose nothing."""
        if not runs:
            return ""
        together = over_seeds(runs)
        fresh = over_seeds({seed: run for seed, run in runs.items() if seed >= FRESH} or runs)
        count = f"{together.consistent} of {together.seeds} consistent"
        if fresh.seeds < together.seeds:
            count += f", {fresh.consistent} of the {fresh.seeds} that chose nothing"
        if fresh.consistent:
            count += f" ({tables.at_least_share(fresh.consistent, fresh.seeds)} of all)"
        return f"{count}, mean {together.mean:.2f}"

    def answer(self, runs: Runs) -> str:
        """Yes, no, or how many of the seeds are still to run.

        It is no as soon as the seeds to come cannot save the count; the mean is judged when all have run.
        """
        missing = self.seeds - len(runs)
        together = over_seeds(runs) if runs else None
        if together and together.consistent + missing < self.consistent:
            return "no"
        if missing or not together:
            return f"open: {missing} of {self.seeds} seeds to run"
        return "yes" if together.mean >= self.mean else "no"


FRESH = STUDIES["confirm_best"].first  # from this seed on, no run had a say in any choice

QUESTIONS = (
    Question("Is Step 3 consistent?", "hundred", "step3", consistent=100, mean=99.53),
    Question("Is the best network with fewer than 3,000 parameters consistent?", "confirm_size", "silu", consistent=20),
    Question(
        "Is the network with 3,982 parameters consistent on fresh seeds?",
        "confirm_size",
        "3982_parameters",
        consistent=19,
    ),
    Question(
        "Does Step 3's network average 99.60 % over the last five epochs, with a rate that falls after each epoch?",
        "confirm_best",
        "each_epoch",
        mean=99.60,
    ),
    Question("Are seven epochs enough?", "confirm_fast", "7_epochs_lighter", consistent=10),
)


def question_about(recipe: str) -> Question:
    """The plan's question about this recipe."""
    return next(question for question in QUESTIONS if question.recipe == recipe)


def answers(studies: Mapping[str, Mapping[str, Runs]]) -> str:
    """The plan's questions as a table in Markdown: what was asked, what is recorded, and the answer."""
    rows = []
    for question in QUESTIONS:
        runs = studies.get(question.study, {}).get(question.recipe, {})
        rows.append([question.text, question.asked, question.measured(runs), question.answer(runs)])
    return tables.markdown(["question", "the plan asks for", "recorded", "answer"], rows)
