"""`python -m lab COMMAND`: see `python -m lab --help`.

Each command is a function. Its docstring is the command's help; a positional-only parameter becomes an argument, a
keyword-only one an option, and the text beside the type its help. What a command needs it imports itself, so that
--help answers at once.
"""

import argparse
import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import jsonargparse

from lab.runs.complaints import nearest, one_line, sentence, unknown_option
from lab.systems import listing

STUDY = f"one of {', '.join(listing.read())}"
Records = Annotated[Path | None, "folder of the records (lab/results/records)"]
Checkpoint = Annotated[Path, "model.pt of a run, such as runs/simple_cnn/0/model.pt"]


def main() -> None:
    """Run the command that `sys.argv` names. Exits with code 2 and one sentence for bad input."""
    with _errors_as_sentences():
        _run(sys.argv[1:])
        sys.stdout.flush()


@contextlib.contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Print an expected error as one sentence and exit: with 2 for bad input, with 1 for what went wrong later."""
    try:
        yield
    except BrokenPipeError:  # the reader stopped, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it exits
        sys.exit(1)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a folder that is read-only or full, a file in place of a folder
        print(f"cannot read or write {error.filename or 'here'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        sys.exit(
            f"this command needs {error.name}, which is not installed: python -m pip install -r tests/requirements.txt"
        )
    except (RuntimeError, FloatingPointError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted: finished work is kept, and the same command resumes")


def _run(arguments: Sequence[str]) -> None:
    if len(arguments) > 1 and arguments[0] == "train" and not arguments[1].startswith("-"):
        train(*arguments[1:])  # whose options are the recipe's
        return
    parser = _make_parser()
    try:
        parsed = parser.parse_args(list(arguments))
    except jsonargparse.ArgumentError as error:
        raise ValueError(_complaint(arguments, str(error))) from None
    except RecursionError:
        raise ValueError("the values are nested too deep, expected numbers, words, and lists of them") from None
    command, given = COMMANDS[parsed.command], parsed[parsed.command].as_dict()
    positional = [given[one.name] for one in _parameters(command) if one.kind is one.POSITIONAL_ONLY]
    command(*positional, **{one.name: given[one.name] for one in _parameters(command) if one.kind is one.KEYWORD_ONLY})


class _Help(jsonargparse.DefaultHelpFormatter):
    """An option's own words: they name its default, and jsonargparse would add Python's type."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help or ""


def _make_parser() -> jsonargparse.ArgumentParser:
    """jsonargparse's `auto_cli` would read lists only as [1, 2], where a shell has words: 1 2."""
    parser = jsonargparse.ArgumentParser(
        prog="python -m lab",
        description="Evidence for the lesson, and published systems beside it.",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_Help,
    )
    commands = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        text = one_line(inspect.getdoc(command) or "")
        subparser = jsonargparse.ArgumentParser(description=text, exit_on_error=False, allow_abbrev=False)
        for parameter in _parameters(command):
            _add(subparser, parameter)
        commands.add_subcommand(name, subparser, help=text)
        subparser.prog = f"{parser.prog} {name}"  # jsonargparse has just put "[options]" in between
    return parser


def _parameters(command: Callable[..., None]) -> list[inspect.Parameter]:
    return list(inspect.signature(command).parameters.values())


def _add(parser: jsonargparse.ArgumentParser, parameter: inspect.Parameter) -> None:
    kind, text = get_args(parameter.annotation)
    required = parameter.default is parameter.empty
    options: dict[str, Any] = {"type": kind, "help": text}
    if not required:
        options["default"] = parameter.default
    if get_origin(kind) is Sequence:
        at_least_one = required or parameter.kind is parameter.KEYWORD_ONLY
        options |= {"type": get_args(kind)[0], "nargs": "+" if at_least_one else "*"}
    elif kind is bool:
        options = {"help": text, "action": "store_true"}
    elif parameter.kind is parameter.VAR_POSITIONAL:
        options["nargs"] = "*"
    elif not required and parameter.kind is parameter.POSITIONAL_ONLY:
        options["nargs"] = "?"
    name = f"--{parameter.name}" if parameter.kind is parameter.KEYWORD_ONLY else parameter.name
    parser.add_argument(name, **options)


def _complaint(arguments: Sequence[str], complaint: str) -> str:
    """The parser's complaint as one sentence, naming the nearest command or option."""
    asked = next((argument for argument in arguments if not argument.startswith("-")), "")
    if asked not in COMMANDS:
        given = f"there is no command {asked!r}{nearest(asked, COMMANDS)}" if asked else "no command is given"
        return f"{given}, expected one of {', '.join(COMMANDS)}"
    if asked == "train":
        return "train expects a recipe, and then its options: see `python -m lab list`"
    names = [f"--{one.name}" for one in _parameters(COMMANDS[asked]) if one.kind is one.KEYWORD_ONLY]
    unknown = unknown_option(one_line(complaint))
    if unknown:
        return f"{asked} does not take {unknown!r}{nearest(unknown, names)}: see `python -m lab {asked} --help`"
    if "arguments are required" in complaint:
        missing = complaint.rsplit(": ", 1)[1].replace(f"{asked}.", "")
        return f"{asked} expects {missing}: see `python -m lab {asked} --help`"
    return sentence(complaint)


# ---------------------------------------------------------------------------------------------------------------------
# Evidence
# ---------------------------------------------------------------------------------------------------------------------


def study(
    name: Annotated[str, STUDY],
    /,
    *,
    seeds: Annotated[Sequence[str], "run these seeds instead of the study's own, such as 26-99 or 0 3 7"] = (),
    recipes: Annotated[Sequence[str], "run only these recipes of the study"] = (),
    jobs: Annotated[int | None, "runs at a time, which share the cores (one per core)"] = None,
    backend: Annotated[Literal["loky", "dask"], "run on this machine (loky) or on a Dask cluster"] = "loky",
    address: Annotated[str | None, "address of the Dask scheduler, such as tcp://HOST:8786"] = None,
    records: Records = None,
) -> None:
    """Run what a study lacks; each run writes one record."""
    from lab.evidence.places import RECORDS
    from lab.runs.config import seeds_from
    from lab.runs.study import run_study
    from lab.systems import catalog

    run_study(name, seeds_from(seeds), recipes, jobs, backend, address, records or RECORDS, catalog.studies())


def repeat(
    name: Annotated[str, STUDY],
    recipe: Annotated[str, "name of the recipe in that study"],
    seed: Annotated[int, "seed of the recorded run"],
    /,
    *,
    records: Records = None,
) -> None:
    """Repeat a recorded run in full from its seed, and compare."""
    from lab.evidence.places import RECORDS
    from lab.runs.study import repeat as repeat_run
    from lab.systems import catalog

    print(repeat_run(name, recipe, seed, records or RECORDS, catalog.studies()))


def report(*, folder: Annotated[Path | None, "where to write (lab/results)"] = None) -> None:
    """Write tables, figures and summary.json from the records."""
    from lab.evidence.places import RESULTS
    from lab.reports.report import report as write

    write(folder or RESULTS)


def notebooks(
    folder: Annotated[Path, "where to write the executed notebooks"],
    names: Annotated[Sequence[str], "notebooks instead of the three steps, such as lab/Peers"] = (),
    /,
) -> None:
    """Execute the notebooks with full training."""
    from lab.reports.notebooks import STEPS, execute

    execute(folder, names or STEPS)


def publish(
    address: Annotated[str, 'GitHub repository, such as https://github.com/NAME/REPOSITORY; "" undoes it'], /
) -> None:
    """Write the address of the repository, and badges for Colab, into README and notebooks."""
    from lab.reports import publish

    print(publish.publish(address))


def bench(*, json: Annotated[bool, "print one JSON object"] = False) -> None:
    """Measure seconds per epoch, beside the usual pipeline."""
    from lab.runs.bench import bench

    result = bench()
    print(dumps(result) if json else "\n".join(f"{name:<14} {value:>8}" for name, value in result.items()))


def data() -> None:
    """Check MNIST: counts, sizes, labels, classes."""
    from lab.reports.analysis import data

    print(data(Path("runs/data")))


# ---------------------------------------------------------------------------------------------------------------------
# Your own network
# ---------------------------------------------------------------------------------------------------------------------


def judge(
    network: Annotated[str, "your network, such as mynet.py:MyNet"],
    /,
    *,
    seeds: Annotated[Sequence[str], "train from these seeds, such as 0-4 or 0 3 7"] = (),
    like: Annotated[str, "recipe that trains it, or a YAML file (step3)"] = "",
    config: Annotated[Path | None, "YAML file with fields of a recipe, in place of that recipe's"] = None,
    jobs: Annotated[int | None, "runs at a time, which share the cores (one per core)"] = None,
    backend: Annotated[Literal["loky", "dask"], "run on this machine (loky) or on a Dask cluster"] = "loky",
    address: Annotated[str | None, "address of the Dask scheduler, such as tcp://HOST:8786"] = None,
    whole: Annotated[bool, "train every epoch, also where the verdict can no longer be met"] = False,
) -> None:
    """Look at a network; with --seeds, --like or --config, train it and compare it with Step 3."""
    if not (seeds or like or config):
        from lab.judging.look import look
        from lab.runs import own

        found = own.find(network)
        seen = look(found.make, found.name)
        print(seen)
        if seen.errors:
            sys.exit(1)
        return
    from lab.judging import judge as judging
    from lab.runs.config import seeds_from

    recipe = judging.recipe_for(network, like or "step3", config)
    chosen = seeds_from(seeds) or judging.DEFAULT
    if len(chosen) == 1:
        print(f"one run, from seed {chosen[0]}: several tell more, such as --seeds 0-4")
    judging.train(recipe, judging.look_at(recipe), like or "step3", chosen, jobs, backend, address, whole)


def grade(
    submissions: Annotated[Path, "folder with NAME.py, NAME/net.py or NAME.ipynb for each student"],
    /,
    *,
    out: Annotated[Path, "where to write grades.csv and the pages (runs/grades)"] = Path("runs/grades"),
    seeds: Annotated[int | None, "runs of each network, whose seeds the secret decides (5)"] = None,
    jobs: Annotated[int | None, "runs at a time, of one thread each (one per core)"] = None,
    secret: Annotated[str, "text, or file, that decides the seeds (a random one, kept in the folder)"] = "",
    recipe: Annotated[
        str, "how all are trained: step1, step2, step3, or a YAML file with fields of a recipe (step3)"
    ] = "step3",
    rubric: Annotated[Path | None, "YAML file that gives the points (lab/grading/rubric.yaml)"] = None,
    require_sandbox: Annotated[bool, "refuse to run submitted code without bubblewrap"] = False,
    minutes: Annotated[float, "of processor time that one run may take (15)"] = 15.0,
    trust: Annotated[str, "names, separated by commas, whose code may run with the data if it cannot be recorded"] = "",
) -> None:
    """Grade a class's networks: train them from secret seeds in sandboxes; write a table and a page for each student."""
    from lab.grading.grade import as_table
    from lab.grading.grade import grade as grade_all
    from lab.grading.rubric import DEFAULT

    chosen = rubric or DEFAULT
    grades = grade_all(submissions, out, seeds, jobs, secret, recipe, chosen, require_sandbox, minutes, trust)
    print(as_table(grades))
    print(f"grades.csv, index.html and a page for each student are in {out}")


# ---------------------------------------------------------------------------------------------------------------------
# Systems
# ---------------------------------------------------------------------------------------------------------------------


def list_recipes(*, update: Annotated[bool, "write the list again, after recipes or networks changed"] = False) -> None:
    """List every study and recipe, with parameters and claims."""
    if update:
        from lab.systems.catalog import write_listing

        write_listing()
    print(listing.listing())


def train(
    recipe: Annotated[str, "name in `python -m lab list`"],
    /,
    *options: Annotated[str, "fields of the recipe, such as --epochs 3: see `python -m lab train RECIPE --help`"],
) -> None:
    """Train a recipe into runs/RECIPE/SEED/, or resume a run that was interrupted; with --test, test it too."""
    from lab.runs import config
    from lab.runs.train import run, run_folder
    from lab.systems import catalog

    asked = config.parse(recipe, catalog.find_recipe(recipe), options)
    folder = asked.folder or run_folder(recipe, asked.seed)
    run(asked.recipe, asked.seed, folder=folder, name=recipe)
    log = (folder / "log.txt").read_text().split("\n\n", 1)[1]
    print(f"{log}model.pt, log.txt, history.json, curves.png and config.yaml are in {folder}")
    if asked.test:
        from lab.reports import analysis

        print(f"\n{analysis.test(folder / 'model.pt')}")


def test(
    checkpoint: Checkpoint,
    images: Annotated[
        Sequence[Path], "pictures of one digit each, to classify, or the folder of a class, to test on"
    ] = (),
    /,
) -> None:
    """Test a trained network; write metrics and figures beside it."""
    folders = [image for image in images if image.is_dir()]
    if folders and len(images) > 1:
        raise ValueError(f"{folders[0]} is a folder, expected either pictures, or the folder of one class alone")
    if folders:
        from lab.reports.classroom import evaluate_on_class

        print(evaluate_on_class(checkpoint, folders[0]))
    elif images:
        from lab.reports.pictures import classify

        print(classify(checkpoint, images))
    else:
        from lab.reports import analysis

        print(analysis.test(checkpoint))


def compare(*, json: Annotated[bool, "print one JSON array"] = False) -> None:
    """Compare claimed and measured accuracies, from the committed records."""
    from lab.reports import compare

    print(compare.as_json() if json else compare.text())


def tsne(checkpoint: Checkpoint, /) -> None:
    """Draw 1,000 test images by pixels, and by features before and after training."""
    from lab.reports import tsne

    print(tsne.tsne(checkpoint))


def errors(
    checkpoints: Annotated[Sequence[Path], "model.pt of several runs"],
    /,
    *,
    folder: Annotated[Path, "where to write tables and figures"] = Path("runs/errors"),
) -> None:
    """Show which test images several networks get wrong, and which they all do."""
    from lab.reports.errors import compare_errors

    print(compare_errors(checkpoints, folder))


def export(checkpoint: Checkpoint, file: Annotated[Path | None, "where to write (app/step3.onnx)"] = None, /) -> None:
    """Write a trained network as ONNX, for the app."""
    from lab.evidence.places import APP_NETWORK
    from lab.for_app.export import export as write

    print(write(checkpoint, file or APP_NETWORK))


def calibrate(file: Annotated[Path | None, "a file of `export` (app/step3.onnx)"] = None, /) -> None:
    """Fit the temperature of an exported network, so that its confidence says how often it is right."""
    from lab.evidence.places import APP_NETWORK
    from lab.for_app.calibration import calibrate as fit

    print(fit(file or APP_NETWORK))


def doubt(file: Annotated[Path | None, "where to write (app/doubt.onnx)"] = None, /) -> None:
    """Train the app's small network that tells one digit from several and from none."""
    from lab.evidence.places import APP_DOUBT
    from lab.for_app.doubt import doubt as train

    print(train(file or APP_DOUBT))


def drawings(file: Annotated[Path | None, "where to write (lab/results/drawings.json)"] = None, /) -> None:
    """Measure how the app reads drawings and photos of digits, and what it doubts."""
    from lab.for_app.drawings import RESULT
    from lab.for_app.drawings import drawings as measure

    print(measure(file or RESULT))


COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_recipes,
    "judge": judge,
    "grade": grade,
    "train": train,
    "test": test,
    "compare": compare,
    "errors": errors,
    "tsne": tsne,
    "data": data,
    "export": export,
    "calibrate": calibrate,
    "doubt": doubt,
    "drawings": drawings,
    "study": study,
    "repeat": repeat,
    "report": report,
    "bench": bench,
    "notebooks": notebooks,
    "publish": publish,
}


if __name__ == "__main__":
    main()
