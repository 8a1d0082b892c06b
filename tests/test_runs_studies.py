"""The lab: studies keep one whole record a run, the commands do what they say."""

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dask.distributed import Client
from PIL import Image
from scipy.stats import binom, ttest_rel
from servers import free_port
from torch import nn

import models
import utils
from lab.evidence import records
from lab.reports.notebooks import execute
from lab.reports.report import report
from lab.runs import study as studies
from lab.runs.bench import bench
from lab.runs.networks import ChannelAttention, Narrow, Shuffled
from lab.runs.recipes import STUDIES, Recipe, Study
from lab.runs.study import run_study
from lab.systems import catalog
from tests.short_kernel import write_startup

ROOT = Path(__file__).parent.parent
TINY = Recipe("Model_1", epochs=1, learning_rate=0.1)


@pytest.fixture
def tiny_study(sample, tmp_path, monkeypatch):
    """A study of one recipe on 2,000 images of the sample, and an empty folder for its records; in this process, unless
    jobs are asked for.
    """
    monkeypatch.setenv("SESSION7_SHORT", "1")
    monkeypatch.setenv("SESSION7_DATASET", "sample")  # for workers
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": sample)
    monkeypatch.setattr(studies, "cores", lambda: 1)
    monkeypatch.setitem(STUDIES, "tiny", Study("Does a study work?", 2, {"small": TINY}))
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def measured(folder):
    """All that was measured, by file, but the seconds."""
    histories = {path.name: json.loads(path.read_text())["history"] for path in folder.glob("*.json")}
    return {name: history | {"seconds": None} for name, history in histories.items()}


def test_a_study_writes_one_record_a_run_and_repeats_none(tiny_study, capsys):
    run_study("tiny", folder=tiny_study)
    records = {path.name: path.read_bytes() for path in tiny_study.iterdir()}
    assert names(tiny_study) == [f"{TINY.hash}.seed0.json", f"{TINY.hash}.seed1.json"]
    run_study("tiny", folder=tiny_study)
    assert {path.name: path.read_bytes() for path in tiny_study.iterdir()} == records
    assert "0 of 2 runs are missing" in capsys.readouterr().out


def test_a_recipe_of_two_studies_is_run_once(tiny_study, monkeypatch, capsys):
    run_study("tiny", folder=tiny_study)
    monkeypatch.setitem(STUDIES, "other", Study("Does it share?", 3, {"another name": TINY}))
    run_study("other", folder=tiny_study)
    assert "1 of 3 runs are missing" in capsys.readouterr().out
    assert len(names(tiny_study)) == 3


def test_a_recipe_with_two_names_in_a_study_is_run_once(tiny_study, monkeypatch, capsys):
    monkeypatch.setitem(STUDIES, "tiny", Study("Once?", 1, {"one": TINY, "again": TINY}))
    run_study("tiny", folder=tiny_study, seeds=[0, 0])
    assert "1 of 1 runs are missing" in capsys.readouterr().out
    assert len(names(tiny_study)) == 1


def test_progress_says_how_long_it_will_take(tiny_study, capsys):
    run_study("tiny", folder=tiny_study, seeds=[0])
    shown = capsys.readouterr()
    assert "small, seed 0: last five" in shown.out + shown.err
    assert re.search(r"1/1 \[\d\d:\d\d<\d\d:\d\d", shown.err)  # time spent < time to go


def test_a_recipe_names_every_switch_so_that_a_changed_default_makes_another_recipe(monkeypatch):
    before = Recipe("Model_1")
    assert before == Recipe("Model_1", {"dropout": 0.0, "channels": (8, 14, 10, 10, 10)})
    monkeypatch.setitem(models.Model_1.__init__.__kwdefaults__, "dropout", 0.5)
    assert Recipe("Model_1") != before == Recipe(**json.loads(json.dumps(asdict(before))))


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="no network 'Model_9', expected one of"):
        Recipe("Model_9")


def test_the_narrow_network_is_separable_from_the_second_convolution_on():
    rows = models.layer_table(Narrow((8, 16, 28)))
    # 9 weights for each of the 8 maps; 8 x 9, 8 x 16; 16 x 9, 16 x 28; two for each map in batch norm; 28 x 10 + 10
    assert [row.parameters for row in rows if row.parameters] == [72, 16, 72, 128, 32, 144, 448, 56, 290]
    assert [row.receptive_field for row in rows if row.name == "MaxPool2d"] == [6]  # pooled where it is 5
    assert rows[-1].output_shape == (10,)


def test_a_narrow_network_of_one_layer_is_refused():
    with pytest.raises(ValueError, match=r"channels are \[8\], expected at least two"):
        Narrow((8,))


def test_shuffled_channels_mix_within_groups_and_then_change_places():
    layers = [layer for layer in Shuffled((8, 16, 26, 28)) if not isinstance(layer, nn.BatchNorm2d | nn.ReLU)]
    mixing = [layer.groups for layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    assert mixing == [1, 2, 2] and sum(isinstance(layer, nn.ChannelShuffle) for layer in layers) == 2
    shuffled = nn.ChannelShuffle(2)(torch.arange(6.0).reshape(1, 6, 1, 1)).flatten()
    assert shuffled.tolist() == [0, 3, 1, 4, 2, 5]


def test_with_one_group_a_shuffled_network_is_the_narrow_one():
    channels = (8, 16, 20)
    kinds = [[type(layer) for layer in network] for network in (Narrow(channels), Shuffled(channels, groups=1))]
    assert kinds[0] == kinds[1]
    assert models.count_parameters(Narrow(channels)) == models.count_parameters(Shuffled(channels, groups=1))


def test_attention_scales_each_map_by_the_means_of_its_neighbors():
    attention = ChannelAttention()
    with torch.no_grad():
        attention.weigh.weight.copy_(torch.tensor([[[1.0, 0.0, 0.0]]]))  # the neighbor before
    maps = torch.tensor([2.0, 3.0, 5.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    scale = (attention(maps) / maps)[0, :, 0, 0]
    assert scale.tolist() == pytest.approx(torch.sigmoid(torch.tensor([0.0, 2.0, 3.0])).tolist())


@pytest.mark.parametrize(
    ("switches", "complaint"),
    [
        ({"channels": [8]}, "expected at least two"),
        ({"channels": [8, 16, 27]}, "expected multiples of 2 from the second on"),
        ({"activation": "tanh"}, "activation is 'tanh', expected one of relu, silu"),
    ],
)
def test_a_shuffled_network_that_cannot_be_is_refused(switches, complaint):
    with pytest.raises(ValueError, match=complaint):
        Shuffled(**switches)


def test_recipes_of_the_frontier_are_named_after_their_parameters():
    for key, recipe in STUDIES["frontier"].recipes.items():
        assert key == f"{models.count_parameters(recipe.make_network())}_parameters"


def test_recipes_that_differ_have_hashes_that_differ():
    different = [recipe for study in STUDIES.values() for recipe in study.recipes.values()]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert (one == other) == (one.hash == other.hash)


def test_a_record_has_the_recipe_and_what_was_measured(tiny_study):
    run_study("tiny", folder=tiny_study, seeds=[3])
    path = studies.record_path(TINY, 3, tiny_study)
    record, history = json.loads(path.read_text()), records.read(path).history
    assert Recipe(**record["recipe"]) == TINY
    assert record["versions"]["torch"] == torch.__version__
    assert len(history) == 1
    assert all(isinstance(count, int) for count in [*history.test_correct, history.final_train_correct])
    assert history.environment["torch"] == torch.__version__


def test_a_record_calls_held_out_images_so(tiny_study, monkeypatch):
    held_out = replace(TINY, held_out=True)
    monkeypatch.setitem(STUDIES, "tiny", Study("?", 1, {"small": held_out}))
    run_study("tiny", folder=tiny_study)
    path = studies.record_path(held_out, 0, tiny_study)
    columns = json.loads(path.read_text())["history"]
    assert columns["held_out_correct"] == records.read(path).history.test_correct
    assert not [name for name in columns if "test" in name]


@pytest.fixture
def cluster(tiny_study):
    """A Dask scheduler and two worker processes, started by the README's commands; they inherit the tests' variables."""
    port = str(free_port())
    address = f"tcp://127.0.0.1:{port}"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = ["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([sys.executable, "-m", "dask", *rest], **quiet) for rest in (scheduler, worker, worker)]
    try:
        with Client(address, timeout=300) as client:
            client.wait_for_workers(2, timeout=300)
        yield address
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_records(tiny_study, cluster, monkeypatch):
    run_study("tiny", folder=tiny_study)
    here = measured(tiny_study)
    there = tiny_study / "there"
    run_study("tiny", folder=there, backend="dask", address=cluster)
    assert measured(there) == here
    assert len(here) == 2


def test_without_a_scheduler_a_sentence_says_what_is_expected(tiny_study, monkeypatch):
    monkeypatch.setattr(studies, "CONNECT_SECONDS", 1)
    with pytest.raises(RuntimeError, match="there is no Dask scheduler at tcp://127.0.0.1:9, expected one such as"):
        run_study("tiny", folder=tiny_study, backend="dask", address="tcp://127.0.0.1:9")


def test_a_torn_record_is_set_aside_and_its_run_repeated(tiny_study, capsys):
    run_study("tiny", folder=tiny_study, seeds=[0])
    path = studies.record_path(TINY, 0, tiny_study)
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:200])
    run_study("tiny", folder=tiny_study, seeds=[0])
    assert json.loads(path.read_text())["history"]["test_correct"] == whole["history"]["test_correct"]
    assert path.with_suffix(".torn").exists()
    assert "is not a record of a study" in capsys.readouterr().out


@pytest.fixture
def sigmoid(monkeypatch):
    """Exchanges ReLU for Sigmoid in the code of the networks, when it is called."""
    return lambda: monkeypatch.setattr(torch.nn, "ReLU", torch.nn.Sigmoid)


def test_a_run_of_another_network_under_the_same_name_does_not_count_as_recorded(tiny_study, sigmoid, capsys):
    run_study("tiny", folder=tiny_study)
    before = {path.name: path.read_bytes() for path in tiny_study.iterdir()}
    sigmoid()
    run_study("tiny", folder=tiny_study)
    said = capsys.readouterr().out
    first = studies.record_path(TINY, 0, tiny_study)
    assert (
        f"{first} was recorded with another network than Model_1 is in this code: it is now {first.stem}.other" in said
    )
    assert "2 of 2 runs are missing" in said
    assert {f"{path.stem}.json": path.read_bytes() for path in tiny_study.glob("*.other")} == before
    assert {name: (tiny_study / name).read_bytes() == old for name, old in before.items()} == dict.fromkeys(
        before, False
    )
    run_study("tiny", folder=tiny_study)
    assert "0 of 2 runs are missing" in capsys.readouterr().out


def test_committed_records_of_another_network_are_named_and_stay_where_they_are(tiny_study, sigmoid, monkeypatch):
    run_study("tiny", folder=tiny_study)
    monkeypatch.setattr(studies, "is_evidence", lambda path: True)
    for path in tiny_study.iterdir():
        path.write_text(path.read_text().replace(f'"{utils.SAMPLE}"', '"MNIST"'))
    before = {path.name: path.read_bytes() for path in tiny_study.iterdir()}
    sigmoid()
    with pytest.raises(
        ValueError, match=r"\.json was recorded with another network than Model_1 .*: restore that"
    ) as error:
        run_study("tiny", folder=tiny_study)
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tiny_study.iterdir()} == before


def test_a_worker_with_another_network_leaves_no_record(tiny_study, sigmoid):
    """As on a machine of the cluster whose checkout is older."""
    trained = studies.run(TINY, 0, show=False)
    sigmoid()
    assert "it was run with another Model_1 than there is in this code" in studies._failure_to_write(
        tiny_study, TINY, trained
    )
    assert not names(tiny_study)


def test_a_killed_study_goes_on_where_it_stopped(tiny_study, monkeypatch, capsys):
    """Two processes run four seeds side by side; their parent is killed after a record, and the rest is made later, here.
    The records are those of a study that ran here from the start."""
    code = (
        "import time; from lab.runs import study; from lab.runs.recipes import STUDIES, Recipe, Study; from pathlib import Path; "
        "study.cores = lambda: 2; "
        "write = study._failure_to_write; "
        "study._failure_to_write = lambda *it: (write(*it), time.sleep(600))[0]; "  # it is killed before it writes another
        "STUDIES['tiny'] = Study('?', 4, {'small': Recipe('Model_1', epochs=1, learning_rate=0.1)}); "
        f"study.run_study('tiny', folder=Path({str(tiny_study)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not list(tiny_study.glob("*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = {path.name: path.read_bytes() for path in tiny_study.glob("*.json")}
    assert len(done) == 1
    run_study("tiny", folder=tiny_study, seeds=range(4))
    assert f"{4 - len(done)} of 4 runs are missing" in capsys.readouterr().out
    assert {name: (tiny_study / name).read_bytes() for name in done} == done
    in_two_parts = measured(tiny_study)
    run_study("tiny", folder=tiny_study / "at once", seeds=range(4))
    assert measured(tiny_study / "at once") == in_two_parts
    assert len(in_two_parts) == 4


def test_a_changed_recipe_is_run_beside_the_old_one(tiny_study, monkeypatch):
    run_study("tiny", folder=tiny_study, seeds=[0])
    changed = replace(TINY, learning_rate=0.05)
    monkeypatch.setitem(STUDIES, "tiny", Study("?", 1, {"small": changed}))
    run_study("tiny", folder=tiny_study)
    assert names(tiny_study) == sorted(f"{recipe.hash}.seed0.json" for recipe in (TINY, changed))


def test_a_run_that_fails_leaves_the_others_alone(tiny_study, monkeypatch):
    wild = replace(TINY, learning_rate=1e30)
    monkeypatch.setitem(STUDIES, "tiny", Study("?", 1, {"wild": wild, "small": TINY}))
    with pytest.raises(RuntimeError, match=r"1 of 2 runs failed and have no record: wild, seed 0: the loss is"):
        run_study("tiny", folder=tiny_study)
    assert names(tiny_study) == [f"{TINY.hash}.seed0.json"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"name": "nothing"}, "no study 'nothing', expected one of"),
        ({"name": "ladder", "recipes": ["rungs"]}, "the study ladder has no recipe 'rungs', expected some of"),
        ({"name": "ladder", "jobs": 0}, "jobs is 0, expected at least 1"),
        ({"name": "ladder", "backend": "slurm"}, "backend is 'slurm', expected one of loky, dask"),
        ({"name": "ladder", "backend": "dask"}, "go together: give both or neither"),
        ({"name": "ladder", "address": "tcp://127.0.0.1:9"}, "go together: give both or neither"),
    ],
)
def test_bad_arguments_of_a_study_are_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        run_study(**arguments)


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule is 'linear', expected one of step, cosine, one-cycle"):
        replace(TINY, schedule="linear")


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("step", [0.2, 0.2, 0.02, 0.02]), ("cosine", [0.2, 0.17071, 0.1, 0.02929]), ("one-cycle", [0.008, 0.2])],
)
def test_each_schedule_sets_the_rate_once_an_epoch(monkeypatch, schedule, rates):
    monkeypatch.setenv("SESSION7_DATASET", "sample")
    recipe = replace(TINY, epochs=4, learning_rate=0.2, step_size=2, gamma=0.1, schedule=schedule)
    history = studies.run(recipe, seed=0, show=False).history
    if schedule == "one-cycle":
        assert history.learning_rate[0] == pytest.approx(0.008)
        assert max(history.learning_rate) <= 0.2 and history.learning_rate[-1] < 0.001
    else:
        assert history.learning_rate == pytest.approx(rates, rel=1e-3)


@pytest.fixture
def recorded(tiny_study):
    run_study("tiny", folder=tiny_study, seeds=[0])
    return studies.record_path(TINY, 0, tiny_study)


def test_a_recorded_run_is_repeated_to_the_last_bit(recorded):
    assert "the same to the last bit" in studies.repeat("tiny", "small", 0, recorded.parent)


def test_a_run_of_another_network_is_not_repeated(recorded, sigmoid, monkeypatch):
    sigmoid()
    monkeypatch.setattr(studies, "run", None)
    with pytest.raises(RuntimeError, match="was recorded with another network than Model_1 is in this code$"):
        studies.repeat("tiny", "small", 0, recorded.parent)


def test_a_record_that_is_not_what_the_recipe_gives_is_found_out(recorded):
    record = json.loads(recorded.read_text())
    del record["test"]  # which would contradict the counts
    record["history"]["test_correct"][-1] += 1
    recorded.write_text(json.dumps(record))
    with pytest.raises(RuntimeError, match="the same machine gave other numbers"):
        studies.repeat("tiny", "small", 0, recorded.parent)


@pytest.mark.parametrize(("more", "near"), [(1, True), (200, False)])
def test_on_another_machine_a_repeated_run_must_be_near(recorded, more, near):
    record = json.loads(recorded.read_text())
    del record["test"]  # which would contradict the counts
    record["history"]["environment"]["processor"] = "an abacus"
    record["history"]["test_correct"] = [count - more for count in record["history"]["test_correct"]]
    recorded.write_text(json.dumps(record))
    if near:
        assert "within two standard errors" in studies.repeat("tiny", "small", 0, recorded.parent)
    else:
        with pytest.raises(RuntimeError, match="further apart than two standard errors"):
            studies.repeat("tiny", "small", 0, recorded.parent)


def test_a_run_without_a_record_cannot_be_repeated(tiny_study):
    with pytest.raises(
        FileNotFoundError, match="tiny/small has no record of seed 0: make it with `python -m lab study"
    ):
        studies.repeat("tiny", "small", 0, tiny_study)
    with pytest.raises(FileNotFoundError, match=r"tiny/small has no record of seed 99: the study has seeds 0 to \d$"):
        studies.repeat("tiny", "small", 99, tiny_study)


def test_a_held_out_run_never_sees_the_test_images(monkeypatch):
    monkeypatch.setenv("SESSION7_DATASET", "sample")
    seen = []
    loader = utils.Loader
    monkeypatch.setattr(
        utils, "Loader", lambda digits, *rest, **more: seen.append(digits) or loader(digits, *rest, **more)
    )
    studies.run(replace(TINY, held_out=True, epochs=1), seed=0, show=False)
    train, _ = utils.load_data(torch.device("cpu"))
    for digits, part in zip(seen, (train[:3_333], train[3_333:])):  # five sixths, as 50,000 of 60,000 are
        assert torch.equal(digits.images, part.images)


def committed(study, key):
    """The committed records of a study's recipe, for the seeds that the study asks for, as JSON."""
    recipe = STUDIES[study].recipes[key]
    paths = [studies.record_path(recipe, seed) for seed in STUDIES[study].all_seeds]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def test_every_committed_record_is_of_a_recipe_in_the_code():
    recipes = {recipe.hash: recipe for study in catalog.studies().values() for recipe in study.recipes.values()}
    paths = sorted(studies.RECORDS.iterdir())
    assert len(paths) == 802
    networks = {name: recipe.fingerprint for name, recipe in recipes.items()}
    for path in paths:
        recipe, history, tested, fingerprint = records.read(path)
        assert recipe.model_dump() == asdict(recipes[recipe.hash])
        assert records.same_network(fingerprint, networks[recipe.hash]), path
        held = (
            10_000 if recipe.held_out else round(recipe.validation * 60_000)
        )  # the rest of the training images trains
        assert history.dataset == records.DATASETS[recipe.dataset] and history.test_images == (held or 10_000), path
        assert history.train_images == 60_000 - held, path
        assert tested is None or tested.images == 10_000, path


@pytest.mark.parametrize("study", ["consistency", "ladder", "ablation", "frontier", "epochs"])
def test_every_run_of_a_study_is_committed(study):
    for key in STUDIES[study].recipes:
        assert len(committed(study, key)) == STUDIES[study].seeds, key


def test_a_run_of_eight_epochs_is_the_first_eight_of_one_of_nine():
    """As the report says, which draws a conclusion on seven from it."""
    eight, nine = ([record["history"]["test_correct"] for record in committed("epochs", f"{n}_epochs")] for n in (8, 9))
    assert eight == [counts[:8] for counts in nine]


@pytest.fixture(scope="module")
def fresh_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report(folder)
    return folder


def test_the_committed_report_is_that_of_the_committed_records(fresh_report):
    for path in fresh_report.iterdir():
        there = studies.RECORDS.parent / path.name
        if path.suffix == ".png":
            with Image.open(path) as here, Image.open(there) as committed:
                assert here.text["Records"] == committed.text["Records"], path.name
        else:
            assert path.read_text() == there.read_text(), path.name
    drawn = {"drawings.png"}  # by `python -m lab drawings`, from pictures
    figures = {path.name for path in studies.RECORDS.parent.glob("*.png")} - drawn
    assert figures == {path.name for path in fresh_report.glob("*.png")}


def test_the_summary_is_worked_out_from_the_counts(fresh_report):
    """Once more, from the files, without the functions that made it."""
    summary = json.loads((fresh_report / "summary.json").read_text())
    assert list(summary) == list(STUDIES)
    for study, found in summary.items():
        for key, row in found["recipes"].items():
            records = committed(study, key)
            column = "held_out_correct" if STUDIES[study].recipes[key].held_out else "test_correct"
            counts = [record["history"][column] for record in records]
            last = [five[-5:] for five in counts]
            consistent = sum(min(five) >= 9_940 for five in last)
            assert row["seeds"] == len(records)
            assert row["epochs"] == len(counts[0])
            assert row["parameters"] == records[0]["history"]["parameters"]
            assert row["worst_last5"] == pytest.approx(min(map(min, last)) / 100)
            assert row["mean_last5"] == pytest.approx(sum(map(sum, last)) / len(last) / 500, abs=1e-4)
            assert row["last"] == pytest.approx(sum(five[-1] for five in last) / len(last) / 100, abs=1e-4)
            if STUDIES[study].recipes[key].dataset != "mnist":
                assert row["consistent"] is row["consistent_low"] is None
                continue
            assert row["consistent"] == consistent
            # the share of which so many or more would be consistent in one case of twenty
            assert binom.sf(consistent - 1, len(records), row["consistent_low"]) == pytest.approx(
                0.05 if consistent else 1.0, abs=2e-3
            )


def last_counts(study, recipe):
    """The last five counts of each committed run, by seed."""
    return {record["history"]["seed"]: record["history"]["test_correct"][-5:] for record in committed(study, recipe)}


def test_the_summary_has_contrasts_that_holms_procedure_gives(fresh_report):
    """Once more, from the files, with SciPy's test in place of ours."""
    summary = json.loads((fresh_report / "summary.json").read_text())
    for name in ("ladder", "ablation"):
        found, p_values = {contrast["recipe"]: contrast for contrast in summary[name]["contrasts"]}, {}
        for key, contrast in found.items():
            one, other = (last_counts(name, recipe) for recipe in (key, contrast["against"]))
            seeds = sorted(one.keys() & other.keys())
            ours, theirs = ([np.mean(runs[seed]) / 100 for seed in seeds] for runs in (one, other))
            assert contrast["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-3)
            if contrast["says"] != "collapsed":
                p_values[key] = ttest_rel(ours, theirs).pvalue
        adjusted = 0.0
        for place, key in enumerate(sorted(p_values, key=p_values.__getitem__)):
            adjusted = max(adjusted, min(1.0, p_values[key] * (len(p_values) - place)))
            contrast = found[key]
            assert contrast["adjusted_p"] == pytest.approx(adjusted, abs=2e-3)
            leaves_out_zero = contrast["low"] > 0 or contrast["high"] < 0
            assert (contrast["says"] == "different") == (adjusted < 0.05) == leaves_out_zero
            narrow = max(-contrast["low"], contrast["high"]) <= 0.05
            assert (contrast["says"] == "equivalent") == (narrow and not leaves_out_zero)


def test_a_report_without_records_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("lab.reports.report.RECORDS", tmp_path)
    with pytest.raises(FileNotFoundError, match="there are no records in"):
        report(tmp_path)
    assert not names(tmp_path)


def test_the_benchmark_times_all_six_and_their_ratios_agree(monkeypatch):
    monkeypatch.setenv("SESSION7_DATASET", "sample")
    result = bench(rounds=1, images=2_000)
    assert result["ratio"] == pytest.approx(result["usual_s"] / result["ours_s"], abs=0.1 * result["ratio"])
    assert result["busy_ratio"] == pytest.approx(result["busy_s"] / result["idle_s"], abs=0.1 * result["busy_ratio"])
    assert result["ours_s"] > 0 and result["bare_s"] > 0 and result["memory_mib"] > 100


def test_notebooks_are_executed_into_a_folder_with_a_closing_table(tmp_path, monkeypatch, capsys):
    write_startup(tmp_path / "ipython")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("SESSION7_DATASET", "sample")
    execute(tmp_path / "executed", ["Session7_Step3"])
    table = capsys.readouterr().out.split("\n\n")[-1]
    assert [path.stem for path in (tmp_path / "executed").iterdir()] == ["Session7_Step3"]
    assert table.count("not judged: 5,000-image sample of MNIST, expected all of MNIST") == 1
    run = utils.History.load(ROOT / "runs/Session7_Step3.json")
    assert (len(run), run.train_images, run.test_images) == (2, 2_000, 1_000)


def test_the_command_line_names_what_it_knows():
    command = [sys.executable, "-m", "lab", "study", "nothing"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stderr.startswith("there is no study 'nothing', expected one of consistency, ladder")
    assert answer.stderr.count("\n") == 1
