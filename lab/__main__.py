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

    study = commands.add_parser("study", help="run what is missing of a study, one record a run")
    study.add_argument("name", choices=STUDIES)
    study.add_argument("--seeds", type=int, nargs="+", default=[], help="in place of the study's own")
    study.add_argument("--recipes", nargs="+", default=[], help="only these recipes of the study (all)")
    study.add_argument("--jobs", type=int, help="runs at a time, which share the cores (one a core)")
    study.add_argument(
        "--backend", choices=("loky", "dask"), default="loky", help="this machine (loky), or a Dask cluster"
    )
    study.add_argument("--address", help="of the Dask scheduler, such as tcp://HOST:8786")

    repeat = commands.add_parser("repeat", help="repeat a recorded run from its seed, in full, and compare")
    repeat.add_argument("name", choices=STUDIES)
    repeat.add_argument("recipe")
    repeat.add_argument("seed", type=int)

    commands.add_parser("report", help="write tables, figures and summary.json from the records")

    bench = commands.add_parser("bench", help="seconds an epoch, beside the usual pipeline")
    bench.add_argument("--json", action="store_true", help="print one JSON object")

    arguments = parser.parse_args()
    try:
        _run(arguments)
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: what was finished is kept, and the same command goes on from there")


def _run(arguments: argparse.Namespace) -> None:
    # Each command imports what it alone needs, so that --help answers at once.
    if arguments.command == "notebooks":
        from lab.notebooks import execute

        execute(arguments.folder)
    elif arguments.command == "study":
        from lab.study import run_study

        run_study(
            arguments.name,
            arguments.seeds,
            arguments.recipes,
            arguments.jobs,
            arguments.backend,
            arguments.address,
        )
    elif arguments.command == "repeat":
        from lab.study import repeat

        print(repeat(arguments.name, arguments.recipe, arguments.seed))
    elif arguments.command == "report":
        from lab.report import report

        report()
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
