"""What a study compares, from its recorded runs."""

from collections.abc import Mapping
from itertools import pairwise

import utils
from lab.evidence.contrasts import Contrast, contrasts
from lab.runs.recipes import Study

Runs = Mapping[int, utils.History]  # by seed


def study_contrasts(study: Study, recorded: Mapping[str, Runs]) -> dict[str, tuple[str, Contrast]]:
    """The recipe that each recipe of a study is compared with, and the contrast, adjusted for all of the study.

    Recipes that nothing is compared with, and those that share fewer than two recorded seeds with theirs, are left out.
    """
    if not study.against:
        return {}
    one = dict.fromkeys(study.recipes, study.against)
    others = {key: above for above, key in pairwise(study.recipes)} if study.against == "above" else one
    pairs = {
        key: (recorded[key], recorded[other])
        for key, other in others.items()
        if key != other
        and key in recorded
        and other in recorded
        and len(recorded[key].keys() & recorded[other].keys()) > 1
    }
    return {key: (others[key], contrast) for key, contrast in contrasts(pairs).items()}
