"""What a study compares, from its recorded runs."""

from collections.abc import Mapping
from itertools import pairwise

import utils
from lab.evidence.contrasts import DIFFERENT, EQUIVALENT, Contrast, contrasts, effects
from lab.runs.recipes import Study

Runs = Mapping[int, utils.History]  # by seed


def study_contrasts(study: Study, recorded: Mapping[str, Runs]) -> dict[str, tuple[str, Contrast]]:
    """The recipe that each recipe of a study is compared with, and the contrast, adjusted for all of the study.

    Recipes that nothing is compared with, and those that share fewer than two recorded seeds with theirs, are left out.
    The recipes that a study's factors combine are compared by effects: these are compared with "".
    """
    others = _others(study)
    pairs = {
        key: (recorded[key], recorded[other])
        for key, other in others.items()
        if key in recorded and other in recorded and len(recorded[key].keys() & recorded[other].keys()) > 1
    }
    beside = effects(study.factors, recorded) if study.factors and has_effects(study, recorded) else None
    return {key: (others.get(key, ""), contrast) for key, contrast in contrasts(pairs, beside=beside).items()}


def elsewhere(here: Contrast, there: Contrast) -> str:
    """What becomes of a conclusion on another data set: it "survives" if both say *different* with the same sign or both
    *equivalent*, it "turns" if both say *different* with opposite signs, otherwise it is "open".
    """
    if here.says == there.says == EQUIVALENT:
        return "survives"
    if here.says == there.says == DIFFERENT:
        return "survives" if (here.difference.mean > 0) == (there.difference.mean > 0) else "turns"
    return "open"


def has_effects(study: Study, recorded: Mapping[str, Runs]) -> bool:
    """Whether two factors' effects can be told: all four recipes share at least two recorded seeds."""
    if not study.factors or not all(name in recorded for name in study.factors.recipes):
        return False
    return len(set.intersection(*(set(recorded[name]) for name in study.factors.recipes))) > 1


def _others(study: Study) -> dict[str, str]:
    """What each recipe is compared with."""
    if study.against == "above":
        return {key: above for above, key in pairwise(study.recipes)}
    combined = study.factors.recipes if study.factors else ()
    compared = [key for key in study.recipes if study.against and key != study.against and key not in combined]
    return dict.fromkeys(compared, study.against)
