"""`python -m lab COMMAND`: see `python -m lab --help`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main() -> None:
    arguments, rest = _parser().parse_known_args()
    if rest and arguments.command != "train":  # which has a parser of its own for the recipe's fields
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        _run(arguments, rest)
        sys.stdout.flush()
    except BrokenPipeError:  # its reader has enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        sys.exit(1)
    except (ValueError, FileNotFoundError) as error:  # what was asked for cannot be
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a place that is read-only or full, a file where a folder should be
        print(f"cannot read or write {error.filename or 'here'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed, and this command needs it: pip install -r tests/requirements.txt")
    except (RuntimeError, FloatingPointError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: what was finished is kept, and the same command goes on from there")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab", description="Evidence for the lesson, and published systems beside it."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_evidence(commands)
    _add_peers(commands)
    return parser


def _add_evidence(commands: argparse._SubParsersAction) -> None:
    notebooks = commands.add_parser("notebooks", help="execute the three notebooks with full training")
    notebooks.add_argument("folder", type=Path, help="where the executed notebooks go")
    notebooks.add_argument("names", nargs="*", help="in place of the three, such as lab/Peers")

    study = commands.add_parser("study", help="run what is missing of a study, one record a run")
    study.add_argument("name", help="one of those in lab/runs/recipes.py and lab/systems/peers.py")
    study.add_argument("--seeds", type=int, nargs="+", default=[], help="in place of the study's own")
    study.add_argument("--recipes", nargs="+", default=[], help="only these recipes of the study (all)")
    study.add_argument("--jobs", type=int, help="runs at a time, which share the cores (one a core)")
    study.add_argument(
        "--backend", choices=("loky", "dask"), default="loky", help="this machine (loky), or a Dask cluster"
    )
    study.add_argument("--address", help="of the Dask scheduler, such as tcp://HOST:8786")
    study.add_argument("--records", type=Path, metavar="FOLDER", help="in place of lab/results/records")

    repeat = commands.add_parser("repeat", help="repeat a recorded run from its seed, in full, and compare")
    repeat.add_argument("name", help="of the study")
    repeat.add_argument("recipe")
    repeat.add_argument("seed", type=int)
    repeat.add_argument("--records", type=Path, metavar="FOLDER", help="in place of lab/results/records")

    report = commands.add_parser("report", help="write tables, figures and summary.json from the records")
    report.add_argument("--folder", type=Path, help="in place of lab/results")

    publish = commands.add_parser(
        "publish", help="write a GitHub repository's address, and badges for Colab, everywhere"
    )
    publish.add_argument("address", help='such as https://github.com/NAME/REPOSITORY; "" undoes it')

    bench = commands.add_parser("bench", help="seconds an epoch, beside the usual pipeline")
    bench.add_argument("--json", action="store_true", help="print one JSON object")


def _add_peers(commands: argparse._SubParsersAction) -> None:
    commands.add_parser("list", help="published systems: recipes, with parameters and claims")

    train = commands.add_parser(
        "train", help="train a recipe of the list into runs/RECIPE/SEED/, or go on where it stopped", add_help=False
    )
    train.add_argument("recipe", nargs="?", default="", help="its fields follow as options: `train RECIPE --help`")

    test = commands.add_parser("test", help="test a run's model.pt: metrics and figures beside it")
    test.add_argument("checkpoint", type=Path)
    test.add_argument(
        "images", type=Path, nargs="*", help="pictures of one digit each, to classify in place of the test"
    )

    compare = commands.add_parser("compare", help="claimed and measured, from the committed records")
    compare.add_argument("--json", action="store_true", help="print one JSON array")

    tsne = commands.add_parser("tsne", help="1,000 test images by pixels, and by features before and after training")
    tsne.add_argument("checkpoint", type=Path)

    errors = commands.add_parser("errors", help="which test images several networks get wrong, and which together")
    errors.add_argument("checkpoints", type=Path, nargs="+")
    errors.add_argument("--folder", type=Path, default=Path("runs/errors"), help="where tables and figures go")

    commands.add_parser("data", help="check MNIST: counts, sizes, labels, classes")

    export = commands.add_parser("export", help="write a run's model.pt as ONNX, for the app")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("file", type=Path, nargs="?", help="in place of app/step3.onnx")

    drawings = commands.add_parser(
        "drawings", help="what the app's preparation of a drawing is worth: digits of MNIST, redrawn"
    )
    drawings.add_argument("file", type=Path, nargs="?", help="in place of lab/results/drawings.json")


def _run(arguments: argparse.Namespace, rest: Sequence[str]) -> None:
    # Each command imports what it alone needs, so that --help answers at once.
    if arguments.command == "notebooks":
        from lab.reports.notebooks import STEPS, execute

        execute(arguments.folder, arguments.names or STEPS)
    elif arguments.command == "study":
        from lab.runs.study import RECORDS, run_study

        run_study(
            arguments.name,
            arguments.seeds,
            arguments.recipes,
            arguments.jobs,
            arguments.backend,
            arguments.address,
            arguments.records or RECORDS,
        )
    elif arguments.command == "repeat":
        from lab.runs.study import RECORDS, repeat

        print(repeat(arguments.name, arguments.recipe, arguments.seed, arguments.records or RECORDS))
    elif arguments.command == "report":
        from lab.reports.report import RESULTS, report

        report(arguments.folder or RESULTS)
    elif arguments.command == "publish":
        from lab.reports.publish import publish

        print(publish(arguments.address))
    elif arguments.command == "bench":
        from lab.runs.bench import bench

        result = bench()
        print(
            json.dumps(result)
            if arguments.json
            else "\n".join(f"{name:<14} {value:>8}" for name, value in result.items())
        )
    elif arguments.command == "train":
        _train(arguments.recipe, rest)
    elif arguments.command in ("list", "compare"):
        from lab.reports import compare

        if arguments.command == "list":
            print(compare.listing())
        else:
            print(compare.as_json() if arguments.json else compare.text())
    else:
        _analyse(arguments)


def _train(name: str, rest: Sequence[str]) -> None:
    from lab.runs import config
    from lab.runs.train import run, run_folder

    if name in ("-h", "--help", ""):
        raise ValueError("train expects a recipe: see `python -m lab list`, and `python -m lab train RECIPE --help`")
    asked = config.parse(name, rest)
    folder = asked.folder or run_folder(name, asked.seed)
    run(asked.recipe, asked.seed, folder=folder, name=name)
    print(
        (folder / "log.txt").read_text().split("\n\n", 1)[1]
        + f"model.pt, log.txt, history.json, curves.png and config.yaml are in {folder}"
    )


def _analyse(arguments: argparse.Namespace) -> None:
    if arguments.command == "test" and arguments.images:
        from lab.reports.pictures import classify

        print(classify(arguments.checkpoint, arguments.images))
    elif arguments.command == "test":
        from lab.reports.analysis import test

        print(test(arguments.checkpoint))
    elif arguments.command == "tsne":
        from lab.reports.tsne import tsne

        print(tsne(arguments.checkpoint))
    elif arguments.command == "errors":
        from lab.reports.errors import compare_errors

        print(compare_errors(arguments.checkpoints, arguments.folder))
    elif arguments.command == "export":
        from lab.reports.export import APP_NETWORK, export

        print(export(arguments.checkpoint, arguments.file or APP_NETWORK))
    elif arguments.command == "drawings":
        from lab.reports.drawings import RESULT, drawings

        print(drawings(arguments.file or RESULT))
    else:
        from lab.reports.analysis import data

        print(data(Path("runs/data")))


if __name__ == "__main__":
    main()
