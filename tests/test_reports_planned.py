"""The plan's questions: what counts as a yes, and what the report says of them."""

import re
from pathlib import Path

import pytest
from histories import seeds

from lab.reports import planned
from lab.reports.planned import QUESTIONS, Question
from lab.runs.recipes import STUDIES

PLAN = Path("lab/PLAN.md").read_text()
GOOD, BAD = [9_950] * 5, [9_950] * 4 + [9_930]

TEN = Question("?", "confirm_fast", "7_epochs_lighter", consistent=10)
NINE = Question("?", "confirm_fast", "7_epochs_lighter", consistent=9)
HIGH = Question("?", "confirm_fast", "7_epochs_lighter", mean=99.49)


@pytest.mark.parametrize(
    ("question", "good", "bad", "answer"),
    [
        (TEN, 0, 0, "open: 10 of 10 seeds to run"),
        (TEN, 9, 0, "open: 1 of 10 seeds to run"),
        (TEN, 10, 0, "yes"),
        (TEN, 1, 1, "no"),  # eight more seeds cannot change it
        (NINE, 1, 1, "open: 8 of 10 seeds to run"),
        (NINE, 9, 1, "yes"),
        (NINE, 8, 2, "no"),
        (HIGH, 9, 0, "open: 1 of 10 seeds to run"),
        (HIGH, 8, 2, "yes"),  # 48 epochs at 99.50 and 2 at 99.30: 99.492
        (HIGH, 0, 10, "no"),
    ],
)
def test_a_question_is_answered_once_no_seed_can_change_the_answer(question, good, bad, answer):
    assert question.answer(seeds(*[GOOD] * good, *[BAD] * bad)) == answer


def test_the_questions_are_those_of_the_plan():
    section = PLAN.split("## 2.")[1].split("## 3.")[0]
    rows = [line for line in section.splitlines() if re.match(r"\| .* \| .*\d", line)]
    assert len(rows) == len(QUESTIONS)
    for row, question in zip(rows, QUESTIONS):
        _, _, _, asked_seeds, asked, _ = (cell.strip() for cell in row.split("|"))
        first, last = map(int, asked_seeds.split(" to "))
        assert STUDIES[question.study].all_seeds == range(first, last + 1)
        assert question.recipe in STUDIES[question.study].recipes
        counts = [int(count) for count in re.findall(r"(\d+) of \d+", asked)]
        assert counts == ([question.consistent] if question.consistent else [])
        means = [float(mean) for mean in re.findall(r"at least (\d\d\.\d\d)", asked)]
        assert means == ([question.mean] if question.mean else [])


def test_the_table_has_what_is_recorded_and_its_bound():
    table = planned.answers({"confirm_fast": {"7_epochs_lighter": seeds(*[GOOD] * 10)}})
    assert "| 10 of 10 consistent | 10 of 10 consistent (at least 74 % of all), mean 99.50 | yes |" in table
    assert (
        "| Is Step 3 consistent? | 100 of 100 consistent, mean at least 99.53 |  | open: 100 of 100 seeds to run |"
        in table
    )
