"""Every cheat in tests/cheats/, graded in one call beside two honest networks: caught or harmless, and nobody else notices.

    python -m pytest -v tests/verify_cheats.py

takes some ten minutes for each isolation, on the sample. Everything runs in a PID namespace of its own, since some cheats
kill whatever they can. Where there is none (Linux has them, for root or with user namespaces), those are left out.
"""

from pathlib import Path
from typing import Literal, NamedTuple

from lab.grading.sandbox import BUBBLEWRAP, PROCESS_LIMITS

ROOT = Path(__file__).resolve().parent.parent
ISOLATIONS = (BUBBLEWRAP, PROCESS_LIMITS)
HONEST = ("honest", "honest_functions")
MARK = "cheat_was_here"  # what cheats leave and print
RECIPE = "epochs: 3\nplain_epochs: 0\naugmentation: {}\nlearning_rate: 0.02\nweight_decay: 0.0\ngamma: 1.0\n"
MINUTES = 1.0  # that a run may take
KILLERS = ("kills_its_parent", "kills_everybody", "freezes_its_parent")


class Cheat(NamedTuple):
    """What has to come of a cheat.

    end:  "caught": it has no result, or one that is out of points
          "same": it has an honest network's result to the last bit, as if it had not tried
          "own": it has a result of its own, which is no better than what its own network learned
          "skipped": it is no submission
    says: words on the student's page, or for what is skipped on the class's
    """

    end: Literal["caught", "same", "own", "skipped"]
    says: str


CHEATS: dict[str, Cheat] = {}
