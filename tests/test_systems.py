"""Published systems: rebuilt as described, trained by the lesson's `fit`, analysed and compared by the commands."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import command, some_digits
from PIL import Image
from torch import nn

import models
import utils
from lab.evidence.crossed import crossed_difference
from lab.evidence.records import Tested, best_epoch, kept_epoch
from lab.reports import analysis, compare, errors, tsne
from lab.runs import networks, study
from lab.runs import train as training
from lab.runs.checkpoint import load_model
from lab.runs.config import parse
from lab.runs.recipes import Recipe, Study
from lab.runs.train import run
from lab.systems import peers
from lab.systems.peers import PEERS

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")

# a recipe that trains in a second on few images, validates, and soon runs out of patience
SMALL = Recipe("LeNet", epochs=6, batch_size=20, learning_rate=0.02, optimizer="adam", validation=0.2, patience=2)


# ---------------------------------------------------------------------------------------------------------------------
# As described
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        # by hand: inputs x outputs x kernel, and a bias for each output
        (networks.LeNet(), 156 + 2_416 + 30_840 + 10_164 + 850),
        (networks.TanhLeNet(), 156 + 2_416 + 30_840 + 10_164 + 850),
        (networks.DeeperLeNet(), 320 + 18_496 + 36_928 + 102_500 + 1_010),
        (networks.Stages(((32,), (64,)), 128), 320 + 18_496 + 401_536 + 1_290),
        (networks.BatchNormLeNet(), 320 + 18_496 + 36_928 + 2 * (32 + 64 + 64) + 102_500 + 1_010),
        (networks.DeepestLeNet(), 320 + 18_496 + 2 * 36_928 + 57_700 + 1_010),
        (networks.DeeperCNN(), 320 + 9_248 + 18_496 + 36_928 + 803_072 + 2_570),
        (networks.TwoBranches(), 320 + 2 * (18_496 + 147_712) + 25_089_000 + 500_500 + 5_010),
        (networks.WebApp(), 160 + 32 + 4_640 + 64 + 100_416 + 650),
        (networks.PyTorchExample(), 1_199_882),  # as its users report
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_network_has_the_parameters_that_its_description_gives(network, parameters):
    assert models.count_parameters(network) == parameters
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def sides(network):
    """The side of the maps, wherever it changes."""
    shapes = [row.output_shape[-1] for row in models.layer_table(network) if len(row.output_shape) == 3]
    return [side for i, side in enumerate(shapes) if i == 0 or side != shapes[i - 1]]


def test_maps_have_the_described_sides():
    assert sides(networks.LeNet()) == [24, 12, 8, 4, 1]
    assert sides(networks.DeeperLeNet()) == [26, 13, 11, 9, 4]
    assert sides(networks.DeepestLeNet()) == [26, 13, 11, 9, 7, 3]
    assert sides(PEERS["mini_vgg"].recipe.make_network()) == [28, 14, 7, 3]


def test_two_branches_are_concatenated_to_512_maps_of_7_by_7():
    network = networks.TwoBranches()
    seen = []
    network.readout.register_forward_pre_hook(lambda readout, inputs: seen.append(inputs[0].shape))
    network(torch.zeros(1, 1, 28, 28))
    assert seen == [(1, 512, 7, 7)]


def test_mini_vgg_has_seven_convolutions_with_batch_norm_each_and_dropout():
    layers = kinds(PEERS["mini_vgg"].recipe.make_network())
    assert layers.count("Conv2d") == layers.count("BatchNorm2d") == 7
    assert layers[-3:] == ["ReLU", "Dropout", "Linear"]


def kinds(network):
    return [row.name for row in models.layer_table(network)]


def test_two_convolutions_of_deeper_cnn_share_one_relu():
    assert kinds(PEERS["deeper_cnn"].recipe.make_network())[:8] == ["Conv2d", "Conv2d", "ReLU", "MaxPool2d"] * 2


def test_batch_norm_is_between_each_convolution_and_its_relu():
    normed = [kind for kind in kinds(networks.BatchNormLeNet()) if kind != "BatchNorm2d"]
    assert normed == kinds(networks.DeeperLeNet())
    assert " ".join(kinds(networks.BatchNormLeNet())).count("Conv2d BatchNorm2d ReLU") == 3


def test_the_untrained_baseline_is_not_trained():
    recipe = PEERS["lenet_untrained"].recipe
    torch.manual_seed(3)
    network = recipe.make_network()
    before = [weights.clone() for weights in network.state_dict().values()]
    loader = utils.Loader(some_digits(256), recipe.batch_size, training.make_transform(recipe))
    utils.train(network, loader, training.make_optimizer(recipe, network))
    assert all(map(torch.equal, before, network.state_dict().values()))


def test_sizes_run_to_their_last_epoch_and_the_two_branches_stop_on_their_loss():
    sizes = [PEERS[name].recipe for name in ("simple_cnn", "deeper_cnn", "mini_vgg")]
    assert {(size.epochs, size.patience) for size in sizes} == {(30, 0)}
    branches = [PEERS[name].recipe for name in ("two_branches", "two_branches_regularized")]
    assert {(recipe.monitor, recipe.patience) for recipe in branches} == {("loss", 5)}


def test_too_many_stages_are_refused():
    with pytest.raises(ValueError, match="5 stages halve 28 pixels to nothing, expected at most four"):
        networks.Stages(((8,),) * 5)


def test_each_rung_is_the_one_below_with_one_change():
    """A new network or optimizer brings its own rate, and its precision."""
    rungs = [PEERS[name].recipe for name in peers.RUNGS]
    changes = []
    for below, above in pairwise(rungs):
        changes.append({field for field, value in asdict(above).items() if value != asdict(below)[field]})
    assert changes == [
        {"mean", "std"},
        {"batch_size"},
        {"batch_size"},
        {"learning_rate"},
        {"network", "bfloat16"},
        {"optimizer", "learning_rate"},
    ]


def test_rungs_and_claims_are_those_published():
    assert [PEERS[name].claim for name in peers.RUNGS] == [97.25, 97.98, 98.36, 98.48, 98.73, 99.05, 99.20]
    claims = {name: peer.claim for name, peer in (peers.OTHERS | peers.LARGE).items() if peer.claim is not None}
    assert claims == {
        "simple_cnn": 99.31,
        "deeper_cnn": 99.38,
        "mini_vgg": 99.60,
        "two_branches": 99.2,
        "two_branches_regularized": 99.5,
        "pytorch_example": 99.2,
    }


@pytest.mark.parametrize(
    ("name", "low", "high"), [("lenet_1_vanilla", 0, 1), ("lenet_2_signed_pixels", -1, 1), ("mini_vgg", 0, 1)]
)
def test_pixels_come_as_described(name, low, high):
    batch = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 28, 28)
    seen = training.make_transform(PEERS[name].recipe)(batch)
    assert (seen.min(), seen.max()) == (low, high)


def test_a_flip_mirrors_each_image_or_not():
    images = some_digits(200).images.unsqueeze(1)
    torch.manual_seed(0)
    flipped = training.RandomFlipEach(0.5)(images)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    same = (flipped == images).flatten(1).all(dim=1)
    assert (mirrored ^ same).all() and 60 < mirrored.sum() < 140
    assert "RandomFlipEach(0.5)" in str(training.make_transform(PEERS["lenet_flip"].recipe, training=True))
    assert "RandomFlipEach" not in str(training.make_transform(PEERS["lenet_flip"].recipe))


@pytest.mark.parametrize(
    ("changes", "kind", "group"),
    [
        ({}, torch.optim.SGD, {"nesterov": True, "momentum": 0.9}),
        ({"optimizer": "sgd", "momentum": 0.8}, torch.optim.SGD, {"nesterov": False, "momentum": 0.8}),
        ({"optimizer": "adam", "weight_decay": 1e-3}, torch.optim.Adam, {"weight_decay": 1e-3, "betas": (0.9, 0.999)}),
        ({"optimizer": "adadelta", "learning_rate": 1.0}, torch.optim.Adadelta, {"lr": 1.0, "rho": 0.9}),
    ],
)
def test_a_recipe_names_its_optimizer(changes, kind, group):
    optimizer = training.make_optimizer(replace(Recipe("LeNet"), **changes), networks.LeNet())
    assert type(optimizer) is kind
    assert {name: optimizer.param_groups[0][name] for name in group} == group


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"optimizer": "adamw"}, "optimizer is 'adamw', expected one of nesterov, sgd, adam, adadelta"),
        ({"flip": 2}, "flip is 2, expected a fraction from 0 to 1"),
        ({"validation": 1}, "validation is 1, expected a fraction from 0 to 0.9"),
        ({"patience": -1}, "patience is -1, expected a number of epochs"),
        ({"std": 0}, "std is 0, expected more than 0"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"held_out": True}, "held_out and validation are both given"),
        ({"switches": {"width": 3}}, "LeNet has no switch 'width', expected some of: none"),
    ],
)
def test_a_recipe_out_of_range_is_named(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(SMALL, **changes)


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEERS)
def test_every_recipe_trains_an_epoch_and_leaves_its_folder(few, name):
    recipe, folder = replace(PEERS[name].recipe, epochs=1), Path("runs", name)
    trained = run(recipe, seed=0, show=False, folder=folder, name=name)
    names = ["config.yaml", "curves.png", "history.json", "log.txt", "model.pt", "resume.pt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert utils.History.load(folder / "history.json") == trained.history
    assert len(trained.history) == trained.epoch == 1
    assert np.isfinite(trained.history.train_loss[0])
    assert trained.history.test_images == (round(300 * recipe.validation) or 200)
    loaded = load_model(folder / "model.pt")
    assert (loaded.recipe, loaded.name, loaded.seed, loaded.epoch) == (recipe, name, 0, 1)
    assert training.evaluate(training.predict(loaded.model, recipe, few[1]), few[1].labels) == trained.tested
    assert f"test: {trained.tested.accuracy:.2f} % of 200 images" in (folder / "log.txt").read_text()
    shutil.rmtree(folder)  # 26 million parameters and two moments of each: pytest would keep them


def test_what_is_tested_is_what_the_last_epoch_measured_where_nothing_validates(few):
    trained = run(replace(SMALL, validation=0.0, patience=0, epochs=2), seed=0, show=False)
    assert 200 - len(trained.tested.mistakes) == trained.history.test_correct[-1]
    assert trained.tested.loss == pytest.approx(trained.history.test_loss[-1], rel=1e-5)
    assert trained.epoch == 2
    labels = few[1].labels.tolist()
    assert all(labels[index] == true != said for index, true, said in trained.tested.mistakes)


def test_validation_images_are_the_last_of_the_training_images_and_choose_the_epoch(few):
    first, measured = training.split(SMALL, *few)
    assert torch.equal(first.images, few[0].images[:240]) and torch.equal(measured.images, few[0].images[240:])
    patient = replace(SMALL, epochs=30)
    trained = run(patient, seed=0, show=False, folder=Path("a"))
    history = trained.history
    assert trained.epoch == best_epoch(patient, history)
    assert trained.epoch == len(history) - patient.patience < patient.epochs - patient.patience
    shorter = run(replace(patient, epochs=trained.epoch), seed=0, show=False)
    assert shorter.tested == trained.tested  # the kept weights are those after that epoch
    assert f"kept: epoch {trained.epoch}, the best on 60 validation images" in Path("a/log.txt").read_text()
    assert "stopped early: no better epoch for 2" in Path("a/log.txt").read_text()


def test_of_equally_right_epochs_the_one_with_the_lower_loss_is_best():
    history = utils.History("MNIST", 100, 10, 5, 0, {}, test_correct=[7, 9, 9, 8], test_loss=[0.1, 0.5, 0.4, 0.2])
    assert best_epoch(SMALL, history) == 3


def test_a_recipe_that_monitors_the_loss_keeps_the_epoch_of_the_lowest_and_waits_for_a_lower_one():
    history = utils.History("MNIST", 100, 10, 5, 0, {}, test_correct=[7, 9, 9, 8], test_loss=[0.1, 0.5, 0.4, 0.2])
    by_loss = replace(SMALL, monitor="loss", patience=3)
    assert best_epoch(by_loss, history) == kept_epoch(by_loss, history) == 1
    assert training.is_out_of_patience(by_loss, history) and not training.is_out_of_patience(SMALL, history)
    assert by_loss.hash != replace(SMALL, patience=3).hash


def test_a_run_on_the_sample_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("SESSION7_DATASET", "sample")
    run(replace(SMALL, epochs=1), seed=0, show=False, folder=tmp_path)
    assert "measured on: 5,000-image sample of MNIST, expected all of MNIST" in (tmp_path / "log.txt").read_text()


def test_a_study_of_systems_leaves_records_with_mistakes_and_a_folder_a_run(few, monkeypatch):
    monkeypatch.setattr(study, "cores", lambda: 1)  # in this process, which sees few images
    tiny = {"tiny": Study("?", 2, {"small": SMALL}, keeps_runs=True)}
    study.run_study("tiny", folder=Path("records"), studies=tiny)
    for seed in (0, 1):
        record = json.loads(study.record_path(SMALL, seed, Path("records")).read_text())
        kept = load_model(Path("records/runs/small", str(seed), "model.pt"))
        assert (kept.name, kept.seed, kept.epoch) == ("small", seed, record["test"]["epoch"])
        tested = training.evaluate(training.predict(kept.model, SMALL, few[1]), few[1].labels)
        assert asdict(tested).items() <= record["test"].items()
        assert "held_out_correct" in record["history"] and "test_correct" not in record["history"]


def test_a_run_that_diverges_is_one_sentence_and_no_folder(few, monkeypatch, capsys):
    code = command(monkeypatch, "train", "lenet_7_sgd", "--learning_rate", "1e30")
    assert "the loss is nan" in str(code) + capsys.readouterr().err
    assert not Path("runs").exists()


# ---------------------------------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------------------------------


def test_fields_come_from_yaml_and_the_command_line_has_the_last_word(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("epochs: 3\nlearning_rate: 0.01\naugmentation: {rotation: 5}\n")
    arguments = ["--config", str(path), "--epochs", "4", "--seed", "7", "--switches.dropout", "0.3"]
    base = PEERS["two_branches"].recipe
    changes = {"epochs": 4, "learning_rate": 0.01, "augmentation": {"rotation": 5}, "switches": {"dropout": 0.3}}
    assert parse("two_branches", base, arguments)[:3] == (replace(base, **changes), 7, None)


@pytest.mark.parametrize("name", PEERS)
def test_without_options_a_recipe_is_what_it_is(name):
    assert parse(name, PEERS[name].recipe, []).recipe.hash == PEERS[name].recipe.hash


def test_fields_may_stand_in_groups_whatever_these_are_called(tmp_path):
    flat, grouped, twice = (tmp_path / f"{name}.yaml" for name in ("flat", "grouped", "twice"))
    flat.write_text("{epochs: 3, batch_size: 32, switches: {dropout: 0.3}, seed: 4}")
    grouped.write_text("train_params: {epochs: 3, batch_size: 32}\nmodel_params: {switches: {dropout: 0.3}}\nseed: 4")
    recipe = PEERS["mini_vgg"].recipe
    assert parse("mini_vgg", recipe, ["--config", str(grouped)]) == parse("mini_vgg", recipe, ["--config", str(flat)])
    assert parse("mini_vgg", recipe, ["--config", str(grouped), "--epochs", "5"]).recipe.epochs == 5
    twice.write_text("train_params: {epochs: 3}\nepochs: 4")
    with pytest.raises(ValueError, match="has epochs twice, expected each field once"):
        parse("mini_vgg", recipe, ["--config", str(twice)])
    for text in ("epochs: 3\nepochs: 4", "a: {epochs: 3, epochs: 4}"):
        twice.write_text(text)
        with pytest.raises(ValueError, match="it has epochs twice, expected each field once"):
            parse("mini_vgg", recipe, ["--config", str(twice)])
    grouped.write_text("train_params: {epoch: 3}")
    with pytest.raises(ValueError, match="no field 'epoch', the nearest is 'epochs'"):
        parse("mini_vgg", recipe, ["--config", str(grouped)])


def test_a_run_can_be_trained_and_tested_in_one_call(few, monkeypatch, capsys):
    assert command(monkeypatch, "train", "lenet_1_vanilla", "--epochs", "1", "--folder", "both", "--test") == 0
    said, report = capsys.readouterr().out, Path("both/metrics.txt").read_text()
    assert "f1-score" in report and report in said
    wrong = len(json.loads(Path("both/metrics.json").read_text())["mistakes"])
    assert f"{wrong} of 200 test images are wrong" in report
    with Image.open("both/predictions.png") as picture:
        assert picture.width > 300


def test_the_log_grows_by_a_line_per_epoch_and_is_whole_after_a_resumed_run(few, monkeypatch):
    """So that `tail -f` follows it: the file stays the same one, and what is in it stays."""
    path, recipe, seen = Path("a/log.txt"), replace(SMALL, validation=0.0, patience=0, epochs=3), []
    monkeypatch.setattr(
        training.checkpoint,
        "save",
        lambda *_: seen.append((path.stat().st_ino, path.read_text())) if path.exists() else None,
    )
    run(recipe, seed=0, show=False, folder=Path("a"))
    seen = list(dict.fromkeys(seen))
    assert len({inode for inode, _ in seen}) == 1
    texts = [text for _, text in seen]
    assert len(texts) == 3 and all(after.startswith(before) for before, after in pairwise([*texts]))
    assert [len(text.splitlines()) for text in texts] == [2, 3, 4]
    assert path.read_text().startswith(texts[-1])


@pytest.mark.parametrize("name", ["mini_vgg", "step3"])
def test_the_config_as_used_gives_the_same_run_again(name, tmp_path):
    recipe = replace(PEERS[name].recipe, epochs=3)
    (tmp_path / "config.yaml").write_text(training.config(recipe, seed=5))
    asked = parse(name, PEERS[name].recipe, ["--config", str(tmp_path / "config.yaml")])
    assert (asked.recipe, asked.seed) == (recipe, 5)


def test_another_network_has_its_own_switches():
    asked = parse("two_branches", PEERS["two_branches"].recipe, ["--network", "Stages"])
    assert asked.recipe.switches == Recipe("Stages").switches


YAMLS = {
    "field.yaml": "epoch: 3\n",
    "type.yaml": "epochs: three\n",
    "torn.yaml": "a: [\n",
    "list.yaml": "- 1\n- 2\n",
    "deep.yaml": "augmentation: {rotation: far}\n",
}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("train simple", "there is no recipe 'simple', the nearest is 'simple_cnn'"),
        ("train", "train expects a recipe"),
        ("train simple_cnn --epohcs 3", "no field 'epohcs', the nearest is 'epochs'"),
        ("train simple_cnn --learning-rate 3", "no field 'learning-rate', the nearest is 'learning_rate'"),
        ("train simple_cnn --config field.yaml", "no field 'epoch', the nearest is 'epochs'"),
        ("train simple_cnn --config type.yaml", "epochs: expected int, got three"),
        ("train simple_cnn --config torn.yaml", "torn.yaml is not YAML that is read here, expected fields of a recipe"),
        ("train simple_cnn --config list.yaml", "list.yaml has a list, expected fields of a recipe"),
        ("train simple_cnn --config deep.yaml", "augmentation: expected float, got far"),
        ("train simple_cnn --config none.yaml", "there is no file none.yaml, expected YAML with fields of a recipe"),
        ("train simple_cnn --epochs three", "epochs: expected int, got three"),
        ("train simple_cnn --seed=-1", "seed is -1, expected 0 or more"),
        ("train simple_cnn --batch_size 0", "batch_size is 0, expected at least 1"),
        ("train simple_cnn --augmentation.rotatoin 3", "unknown transform 'rotatoin', expected one of rotation"),
        ("train simple_cnn --switches.widths 3", "Stages does not take the switches"),
        ("train simple_cnn --network LeNt", "there is no network 'LeNt', expected one of"),
        ("test none.pt", "there is no checkpoint none.pt, expected the model.pt of a run"),
        ("test random.pt", "random.pt is not a checkpoint that `python -m lab train` has written"),
        ("test fit.pt", "fit.pt is not a checkpoint that `python -m lab train` has written"),
        ("tsne random.pt", "random.pt is not a checkpoint"),
        ("errors random.pt", "random.pt is not a checkpoint"),
        ("errors good.pt good.pt", "good.pt is given more than once, expected checkpoints of different runs"),
        ("test good.pt none.png", "there is no image none.png, expected a PNG or JPEG of one digit"),
        ("test good.pt field.yaml", "field.yaml: the file is not a PNG, JPEG, GIF or WebP"),
        ("test good.pt blank.png", "blank.png: draw something first"),
        ("export none.pt out.onnx", "there is no checkpoint none.pt"),
        ("export random.pt out.onnx", "random.pt is not a checkpoint"),
    ],
)
def test_bad_input_is_one_sentence_with_exit_code_2_and_nothing_written(few, monkeypatch, capsys, arguments, complaint):
    for name, text in YAMLS.items():
        Path(name).write_text(text)
    Path("random.pt").write_bytes(np.random.default_rng(0).bytes(1_000))
    torch.save({"run": {}, "model": {}, "optimizer": {}}, "fit.pt")
    torch.save(
        {
            "name": "lenet",
            "recipe": asdict(Recipe("LeNet")),
            "seed": 0,
            "epoch": 1,
            "model": networks.LeNet().state_dict(),
        },
        "good.pt",
    )
    Image.new("L", (40, 40), 255).save("blank.png")
    before = sorted(Path().rglob("*"))
    assert command(monkeypatch, *arguments.split()) == 2
    said = capsys.readouterr()
    assert complaint in said.err and said.err.count("\n") == 1 and not said.out
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("arguments", ["nothing", "list --json", "test", "train", "compare --jsn"])
def test_bad_commands_have_exit_code_2_too(monkeypatch, capsys, arguments):
    assert command(monkeypatch, *arguments.split()) == 2
    assert capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error():
    """As `python -m lab list | head -1`, whose reader goes before all is written."""
    quiet = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "lab", "list"], **quiet) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


# ---------------------------------------------------------------------------------------------------------------------
# Analysis
# ---------------------------------------------------------------------------------------------------------------------


def size(path):
    with Image.open(path) as picture:
        return picture.size


def outcome(mistakes, images=20):
    return Tested(images, 0.1, [list(mistake) for mistake in mistakes])


def test_metrics_are_those_worked_out_by_hand():
    """Two images of each digit; a 4 is taken for a 9, a 9 for a 4, the other 4 for a 9 too."""
    labels = torch.arange(20) % 10
    scores = analysis.metrics(labels, outcome([(4, 4, 9), (9, 9, 4), (14, 4, 9)]))
    assert scores["accuracy"] == pytest.approx(85)
    assert scores["digits"]["4"] == {"precision": 0, "recall": 0, "f1": 0, "images": 2}
    nine = scores["digits"]["9"]
    assert (nine["precision"], nine["recall"]) == (pytest.approx(100 / 3), pytest.approx(50))
    assert nine["f1"] == pytest.approx(40)
    assert scores["precision"] == pytest.approx((8 * 100 + 0 + 100 / 3) / 10)
    assert scores["recall"] == pytest.approx((8 * 100 + 0 + 50) / 10)
    matrix = np.array(scores["confusion_matrix"])
    assert matrix.sum() == 20 and matrix[4, 9] == 2 and matrix[9, 4] == 1 and matrix[4, 4] == 0 and matrix[9, 9] == 1


def test_overlap_is_the_one_counted_by_hand():
    networks_tested = {
        "a": outcome([(1, 1, 7), (2, 2, 3), (3, 3, 5)]),
        "b": outcome([(2, 2, 3), (3, 3, 8)]),
        "c": outcome([(3, 3, 5)]),
    }
    shared = errors.overlap(networks_tested)
    assert shared.shared == [[3, 2, 1], [2, 2, 1], [1, 1, 1]]
    assert shared.by_all == [3]
    assert "wrong for all of them: 1 test images, 3\n" in errors.describe_errors(networks_tested)
    title = errors.show_overlap(networks_tested).axes[0].get_title()
    assert title.startswith("c makes the fewest mistakes, 1; each other network shares 1 of them\n")
    del networks_tested["c"]
    title = errors.show_overlap(networks_tested).axes[0].get_title()
    assert title.startswith("b makes the fewest mistakes, 2; each other network shares 2 of them\n")
    alone = errors.show_overlap({"a": networks_tested["a"]}).axes[0].get_title()
    assert alone == "in each cell, how many mistakes of the row's network the column's makes too"


def test_the_commonest_pairs_are_counted():
    one = outcome([(1, 4, 9), (2, 4, 9), (3, 7, 2), (4, 4, 9), (5, 7, 2), (6, 0, 6)])
    assert errors.commonest_pairs({"a": one}, count=2) == {"a": [(4, 9, 3), (7, 2, 2)]}


@pytest.fixture
def trained(few):
    for seed in (0, 1):
        run(replace(SMALL, epochs=2, patience=0), seed, show=False, folder=Path("runs/lenet", str(seed)), name="lenet")
    return [Path("runs/lenet", str(seed), "model.pt") for seed in (0, 1)]


def test_a_test_writes_metrics_and_figures_beside_the_checkpoint(trained, few, monkeypatch, capsys):
    assert command(monkeypatch, "test", trained[0]) == 0
    folder = trained[0].parent
    content = json.loads((folder / "metrics.json").read_text())
    loaded = load_model(trained[0])
    logits = training.predict(loaded.model, loaded.recipe, few[1])
    assert content["accuracy"] == pytest.approx(100 * (logits.argmax(1) == few[1].labels).float().mean().item())
    assert len(content["mistakes"]) == 200 - round(2 * content["accuracy"])
    assert (content["name"], content["seed"], content["unit"]) == ("lenet", 0, "percent")
    for name in ("confusion", "scores", "predictions", "mistakes"):
        assert size(folder / f"{name}.png") > (100, 100)
    said = capsys.readouterr().out
    assert f"{content['accuracy']:.2f} %" in said and "(5,000-image sample of MNIST)" in said


def test_what_a_test_left_goes_once_the_run_has_other_weights(trained, few, monkeypatch, capsys):
    """And the command says that the folder has a run, and how far that is."""
    folder, longer = trained[0].parent, replace(SMALL, epochs=3, patience=0)
    assert command(monkeypatch, "test", trained[0]) == 0
    left = [folder / name for name in training.LEFT_BY_TEST]
    assert all(file.exists() for file in left)
    run(replace(longer, epochs=2), seed=0, folder=folder, name="lenet")
    assert "runs/lenet/0 has 2 of 2 epochs: nothing is left to train" in capsys.readouterr().out
    assert all(file.exists() for file in left)  # the weights are the same
    run(longer, seed=0, folder=folder, name="lenet")
    assert "runs/lenet/0 has 2 of 3 epochs: going on with epoch 3" in capsys.readouterr().out
    history = utils.History.load(folder / "history.json")
    kept = load_model(trained[0]).epoch
    assert [file.exists() for file in left] == [kept != 3] * len(left) and len(history) == 3


def test_errors_are_those_of_all_networks(trained, few, monkeypatch, capsys):
    assert command(monkeypatch, "errors", *trained, "--folder", "out") == 0
    content = json.loads(Path("out/errors.json").read_text())
    one, other = ({mistake[0] for mistake in network["mistakes"]} for network in content["networks"].values())
    assert content["wrong_for_all"] == sorted(one & other)
    assert content["shared"] == [[len(one), len(one & other)], [len(one & other), len(other)]]
    assert size("out/overlap.png") > (100, 100) < size("out/wrong_for_all.png")
    assert "lenet, seed 1" in capsys.readouterr().out


def test_two_runs_of_one_recipe_and_seed_are_told_apart_by_their_folders(trained, few, monkeypatch, capsys):
    run(replace(SMALL, epochs=1, patience=0), seed=0, show=False, folder=Path("shorter"), name="lenet")
    assert command(monkeypatch, "errors", trained[0], "shorter/model.pt") == 0
    assert set(json.loads(Path("runs/errors/errors.json").read_text())["networks"]) == {
        "lenet, seed 0, runs/lenet/0",
        "lenet, seed 0, shorter",
    }


def test_tsne_has_three_panels_of_every_image(trained, few, monkeypatch, capsys):
    assert command(monkeypatch, "tsne", trained[0]) == 0
    content = json.loads((trained[0].parent / "tsne.json").read_text())
    assert content["labels"] == few[1].labels.tolist()
    assert {name: panel["dimensions"] for name, panel in content["panels"].items()} == {
        "raw pixels": 784,
        "untrained network": 84,
        "trained network": 84,
    }
    assert all(np.array(panel["points"]).shape == (200, 2) for panel in content["panels"].values())
    figure = tsne.show_tsne(content)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [str(digit) for digit in range(10)]
    assert all(len(axes.lines) == 10 for axes in figure.axes)


def test_features_are_what_the_last_layer_reads(few):
    network = networks.DeeperLeNet()
    recipe = PEERS["lenet_6_deeper"].recipe
    features = torch.from_numpy(tsne.features(network, recipe, few[1]))
    assert features.shape == (200, 100)
    torch.testing.assert_close(network[-1](features), training.predict(network, recipe, few[1]))


def test_neighbours_tell_separate_classes_from_mixed_ones():
    labels = np.repeat(np.arange(4), 30)
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(120, 8)) + 20 * np.eye(8)[labels]
    assert tsne.embed(apart, labels)[1] == 100
    assert tsne.embed(rng.normal(size=(120, 8)), labels)[1] < 60


def test_the_untrained_network_of_tsne_is_the_one_that_the_run_began_with(few, monkeypatch):
    """Its features come from the seed alone: a run of no learning at all ends where it began."""
    recipe = replace(SMALL, optimizer="sgd", learning_rate=0.0, validation=0.0, patience=0, epochs=1)
    run(recipe, seed=4, show=False, folder=Path("still"), name="still")
    assert command(monkeypatch, "tsne", "still/model.pt") == 0
    panels = json.loads(Path("still/tsne.json").read_text())["panels"]
    assert panels["untrained network"] == panels["trained network"] != panels["raw pixels"]


def test_the_data_are_described(sample, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(utils, "load_data", lambda device: sample)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "data") == 0
    training_line, test_line = capsys.readouterr().out.splitlines()[1:3]
    assert training_line.split()[1] == "4,000" and test_line.split()[1] == "1,000"
    for line, total in ((training_line, 4_000), (test_line, 1_000)):
        assert "28 x 28" in line and "0 to 255" in line and "0 to 9" in line
        assert sum(int(count.replace(",", "")) for count in line.split()[-10:]) == total
    assert size("runs/data/classes.png") > (100, 100)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures from files
# ---------------------------------------------------------------------------------------------------------------------


def test_a_picture_is_classified_with_ten_confidences(trained, few, monkeypatch, capsys):
    Image.fromarray(few[1].images[0].numpy()).save("seven.png")
    assert command(monkeypatch, "test", trained[0], "seven.png") == 0
    said = capsys.readouterr().out
    confidences = [float(part.split(": ")[1].rstrip(" %)")) for part in said.strip().split("(")[1].split(", ")]
    assert len(confidences) == 10 and sum(confidences) == pytest.approx(100, abs=1)
    assert said.startswith(f"seven.png: {int(np.argmax(confidences))} ")


# ---------------------------------------------------------------------------------------------------------------------
# Comparison
# ---------------------------------------------------------------------------------------------------------------------


def committed(name):
    """The records of a system, as JSON, without the lab's code that reads them."""
    paths = sorted(study.RECORDS.glob(f"{PEERS[name].recipe.hash}.seed*.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.fixture(scope="module")
def rows():
    return {row.system: row for row in compare.rows(compare.recorded())}


@pytest.mark.parametrize("name", PEERS)
def test_every_system_is_measured_and_its_mean_is_that_of_its_records(rows, name):
    records = committed(name)
    planned = [study.seeds for study in peers.STUDIES.values() if name in study.recipes]
    assert len(records) >= max(planned, default=1)
    accuracies = []
    for record in records:
        if "test" in record:
            accuracies.append(100 - len(record["test"]["mistakes"]) / 100)
        else:
            accuracies.append(record["history"]["test_correct"][-1] / 100)
    assert rows[name].runs == len(records)
    assert rows[name].mean == pytest.approx(np.mean(accuracies))
    assert rows[name].std == (pytest.approx(np.std(accuracies, ddof=1)) if len(records) > 1 else None)
    assert rows[name].parameters == records[0]["history"]["parameters"]


@pytest.mark.parametrize("name", PEERS)
def test_records_of_systems_agree_with_themselves(name):
    """Their labels are held to those of MNIST by `make verify`."""
    recipe = PEERS[name].recipe
    for record in committed(name):
        history, test = record["history"], record.get("test")
        if not test:
            continue  # of the lesson's studies, which keep the counts alone
        assert test["images"] == 10_000
        if recipe.validation:
            assert history["train_images"] + history["held_out_images"] == 60_000
            by = {"accuracy": history["held_out_correct"], "loss": [-loss for loss in history["held_out_loss"]]}
            monitored = by[recipe.monitor]
            assert monitored[test["epoch"] - 1] == max(monitored)
            stopped = len(history["held_out_correct"])
            assert stopped == recipe.epochs or stopped - test["epoch"] == recipe.patience
        else:
            assert test["epoch"] == recipe.epochs
            assert 10_000 - len(test["mistakes"]) == history["test_correct"][-1]


@pytest.mark.parametrize("name", PEERS)
def test_a_claim_that_is_not_met_has_a_reason_in_the_table(rows, name):
    """And only such a claim has: a reason does not outlive its row."""
    assert (rows[name].claim_says == "missed") == bool(PEERS[name].why)


def test_the_table_is_printed_and_the_json_has_the_named_fields(monkeypatch, capsys):
    assert command(monkeypatch, "compare") == 0
    table = capsys.readouterr().out
    assert command(monkeypatch, "compare", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["system"] for row in content] == list(PEERS)
    measured = {"system", "parameters", "claim", "mean", "std", "runs", "seconds_per_epoch"}
    assert measured | {"claim_says", "less_step3", "low", "high"} <= content[0].keys()
    for row in content:
        line = next(line for line in table.splitlines() if line.startswith(f"{row['system']} "))
        assert f"{row['parameters']:,}" in line and f"{row['mean']:.2f}" in line
        assert (row["claim_says"] == "missed") == (f"\n{row['system']} misses its claim: " in table)
        assert row["claim_says"] in {None, "met", "missed", "cannot tell"}
        histories = [one["history"] for one in committed(row["system"])]
        seconds = [one["seconds"] for one in histories if one["environment"]["threads"] == 1]
        assert row["seconds_per_epoch"] == min(map(min, seconds))
        assert (row["claim_says"] is None) == (row["claim"] is None)


def histories(accuracies):
    return {
        seed: utils.History("MNIST", 60_000, 10_000, 5, seed, {}, test_correct=[round(100 * percent)], seconds=[2.0])
        for seed, percent in enumerate(accuracies)
    }


@pytest.mark.parametrize(
    ("accuracies", "claim_runs", "reach"),
    [
        # Student's 2.776 for five runs; both means have the spread of 0.1 over five
        ([99.0, 99.1, 99.2, 98.9, 99.1], 5, 2.776 * np.std([99.0, 99.1, 99.2, 98.9, 99.1], ddof=1) * np.sqrt(2 / 5)),
        ([99.0], 1, 1.96 * np.sqrt(99.0 * 1.0 / 10_000) * np.sqrt(2)),
    ],
)
def test_luck_is_worked_out_as_by_hand(accuracies, claim_runs, reach):
    runs = compare.Runs()
    runs.update(histories(accuracies))
    peer = replace(PEERS["simple_cnn"], claim=99.1, claim_runs=claim_runs)
    row = compare._row("x", peer, runs)
    assert row.reach == pytest.approx(reach, rel=1e-3)
    assert row.difference == pytest.approx(np.mean(accuracies) - 99.1)


@pytest.mark.parametrize(
    ("difference", "reach", "says"),
    [
        (0.0, 0.05, "met"),
        (-0.02, 0.07, "met"),
        (0.3, 0.35, "met"),
        (0.0, 0.2, "cannot tell"),  # noise alone meets no claim
        (-0.1, 0.15, "cannot tell"),
        (-0.1, 0.09, "missed"),
    ],
)
def test_a_claim_is_met_missed_or_we_cannot_tell(difference, reach, says):
    assert compare.claim_says(difference, reach) == says


def runs_with(mistakes_by_seed):
    runs = compare.Runs()
    runs.tested = {seed: outcome([(i, 1, 2) for i in wrong], images=100) for seed, wrong in enumerate(mistakes_by_seed)}
    runs.update(histories([100.0 - len(wrong) for wrong in mistakes_by_seed]))
    return runs


def test_the_sentence_is_of_the_largest_system_that_can_be_compared_and_the_better_of_two_as_large():
    runs = {name: compare.Runs() for name in PEERS}
    runs["step3"] = runs_with([[0, 1], [1, 2]])
    runs["two_branches"], runs["two_branches_regularized"] = runs_with([[1, 5, 6]]), runs_with([[1, 7]])
    runs["mini_vgg"] = runs_with([[3]])
    row = next(row for row in compare.rows(runs) if row.system == "two_branches_regularized")
    said = compare.sentence(runs)
    assert (
        said.startswith("two_branches_regularized has 25,927,246 parameters") and str(compare.less_step3(row)) in said
    )


def test_two_systems_are_compared_over_runs_and_images_together():
    runs = dict.fromkeys(PEERS, compare.Runs()) | {"step3": runs_with([[0, 1], [1, 2]]), "mini_vgg": runs_with([[1]])}
    row = next(row for row in compare.rows(runs) if row.system == "mini_vgg")
    assert compare.less_step3(row) == pytest.approx(crossed_difference(runs["mini_vgg"].right, runs["step3"].right))
    assert row.less_step3 == pytest.approx(1.0)
    assert row.compared == 1 and row.says in {"different", "cannot tell"}


def test_intervals_are_adjusted_for_all_systems_and_the_lessons_own_steps_are_none():
    one = {"step3": runs_with([[0, 1], [1, 2], [3]]), "mini_vgg": runs_with([[1, 4, 5, 6, 7], [4, 5, 6, 7, 8]])}
    two = one | {"two_branches": one["mini_vgg"], "step2": one["mini_vgg"]}
    alone, among = (
        {row.system: row for row in compare.rows(dict.fromkeys(PEERS, compare.Runs()) | runs)} for runs in (one, two)
    )
    assert among["mini_vgg"].low < alone["mini_vgg"].low < alone["mini_vgg"].high < among["mini_vgg"].high
    assert among["two_branches"].compared == 2 and among["step2"].less_step3 is None


@pytest.mark.parametrize(("theirs", "ours"), [([], [[0], [1]]), ([[0]], [[1]]), ([[0], [1]], [])])
def test_without_mistakes_on_record_or_with_one_run_on_either_side_nothing_is_compared(theirs, ours):
    runs = dict.fromkeys(PEERS, compare.Runs()) | {"step3": runs_with(ours), "mini_vgg": runs_with(theirs)}
    row = next(row for row in compare.rows(runs) if row.system == "mini_vgg")
    assert (row.less_step3, row.low, row.high) == (None, None, None) and compare.less_step3(row) is None


def test_configs_of_runs_are_yaml_that_others_can_read():
    assert yaml.safe_load(training.config(PEERS["web_app"].recipe, 3))["weight_decay"] == 1e-3
