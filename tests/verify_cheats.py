"""Every cheat in tests/cheats/, graded in one call beside two honest networks: caught or harmless, and nobody else notices.

    python -m pytest -v tests/verify_cheats.py

takes some minutes for each isolation, on the sample. Everything runs in a PID namespace of its own, since some cheats kill
whatever they can; where there is none (`unshare`, Linux), those are left out.
"""

import csv
import html
import http.server
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lab.judging.sandbox import BUBBLEWRAP, PROCESS_LIMITS, bubblewrap_problem
from tests.make_cheats import write_cheats
from tests.notes import note

ROOT = Path(__file__).parent.parent
HONEST = ("honest", "honest_functions")
ISOLATIONS = (BUBBLEWRAP, PROCESS_LIMITS)
MARK = "cheat_was_here"  # what cheats leave and print
RECIPE = "epochs: 3\nplain_epochs: 0\naugmentation: {}\nlearning_rate: 0.02\nweight_decay: 0.0\ngamma: 1.0\n"
MINUTES = 1.0  # that a run may take
MARGIN = 0.0  # of percent

# Runs with one argument: the isolation. Everything it writes is below the current folder.
GRADER = """
import json, os, sys
from pathlib import Path
from lab.judging.grade import grade
from lab.judging.sandbox import Sandbox

isolation, submissions, out = sys.argv[1:]
grade(Path(submissions), Path(out), seeds=1, jobs=2, secret="of the test", recipe="recipe.yaml", minutes=MINUTES,
      sandbox=Sandbox(isolation))
""".replace("MINUTES", str(MINUTES))

# Runs the grader in namespaces of its own, and then says which processes and shared memory are still there.
CONTAINER = """
mount --bind "$PWD/tmp" /tmp && mount --bind "$PWD/shm" /dev/shm || exit 99
"$@"
status=$?
for process in /proc/[0-9]*; do
    name=${process#/proc/}
    [ "$name" = 1 ] || [ "$name" = $$ ] || tr '\\0' ' ' 2> /dev/null < "$process/cmdline" >> left.txt
done
tail -n +2 /proc/sysvipc/shm >> left.txt
exit $status
"""
UNSHARE = ["unshare", "--pid", "--ipc", "--mount", "--fork", "--kill-child", "--mount-proc"]
