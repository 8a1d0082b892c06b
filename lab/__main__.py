"""`python -m lab COMMAND`: see `python -m lab --help`."""

import argparse
import json
import sys
from pathlib import Path

from lab.recipes import STUDIES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab", description="Evidence for the lesson.")
    commands = parser.add_subparsers(dest="command", required=True)

    notebooks = commands.add_parser("notebooks", help="execute the three notebooks with full training")
    notebooks.add_argument("folder", type=Path, help="where the executed notebooks go")

    study = commands.add_parser("study", help="run the recipes of a study over seeds, one record a run")
    study.add_argument("name", choices=STUDIES)
    study.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    study.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the cores (1)")

    commands.add_parser("figure", help="draw the README's picture from the records")

    study.add_argument("--recipes", nargs="+", default=[], help="only these recipes of the study (all)")

    bench = commands.add_parser("bench", help="seconds an epoch, beside the usual pipeline")
    bench.add_argument("--json", action="store_true", help="print one JSON object")

    arguments = parser.parse_args()
    try:
        _run(arguments)
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        sys.exit(f"{error}")


def _run(arguments: argparse.Namespace) -> None:
    # Each command imports what it alone needs, so that --help answers at once.
    if arguments.command == "notebooks":
        from lab.notebooks import execute

        execute(arguments.folder)
    elif arguments.command == "study":
        from lab.study import study

        study(arguments.name, arguments.seeds, arguments.jobs, arguments.recipes)
    elif arguments.command == "figure":
        from lab.figures import draw_steps

        draw_steps()
    else:
        from lab.bench import bench

        result = bench()
        print(
            json.dumps(result)
            if arguments.json
            else "\n".join(f"{name:<14} {value:>8}" for name, value in result.items())
        )


if __name__ == "__main__":
    main()
