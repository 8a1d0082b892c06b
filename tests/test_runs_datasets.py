"""Recipes name their images: MNIST, or Fashion-MNIST for the same ladder elsewhere."""

import gzip
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import command
from torchvision.datasets import FashionMNIST

import utils
from lab.evidence.contrasts import Contrast
from lab.evidence.statistics import Difference
from lab.reports.compared import elsewhere
from lab.runs import datasets
from lab.runs import study as studies
from lab.runs.recipes import LADDER, STUDIES, Recipe, Study
from lab.runs.study import run_study
from lab.systems import catalog

CPU = torch.device("cpu")
LENET = Recipe("LeNet", epochs=1, batch_size=50, optimizer="adam", learning_rate=0.001)


@pytest.fixture
def small_fashion(archives, extracted, monkeypatch, tmp_path):
    """Small archives that are taken for Fashion-MNIST's: their checksums stand where those of its files stand."""
    shelf = tmp_path / "shelf"
    shutil.copytree(archives, shelf)
    md5s = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in extracted.iterdir()}
    monkeypatch.setattr(datasets, "CONTENT_MD5", md5s)
    monkeypatch.setenv("FASHION_MNIST_ARCHIVES", str(shelf))
    monkeypatch.chdir(tmp_path)
    return shelf


def test_fashion_comes_from_a_folder_of_archives(small_fashion, sample):
    for found, there in zip(datasets.load("fashion-mnist", CPU), sample):
        assert found.dataset == "Fashion-MNIST"
        assert torch.equal(found.images, there.images) and torch.equal(found.labels, there.labels)


def test_recompressed_archives_are_intact_too(small_fashion):
    archive = small_fashion / "t10k-labels-idx1-ubyte.gz"
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()), compresslevel=1, mtime=7))
    datasets.load_fashion()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda archive: archive.write_bytes(archive.read_bytes()[:-9]), "cannot be read"),
        (lambda archive: archive.unlink(), "cannot be read"),
        (lambda archive: archive.write_bytes(gzip.compress(b"other")), "does not hold Fashion-MNIST's train-images"),
    ],
)
def test_an_archive_that_is_not_whole_is_named(small_fashion, damage, complaint):
    damage(small_fashion / "train-images-idx3-ubyte.gz")
    with pytest.raises(RuntimeError, match=f"train-images-idx3-ubyte.gz {complaint}"):
        datasets.load_fashion()


def test_without_archives_and_without_a_mirror_a_sentence_says_where_to_get_them(monkeypatch, tmp_path):
    monkeypatch.delenv("FASHION_MNIST_ARCHIVES", raising=False)
    monkeypatch.setattr(datasets, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(RuntimeError, match="Fashion-MNIST is neither in .* install Debian's package dataset-fashion"):
        datasets.load_fashion(tmp_path)


@pytest.mark.skipif(not datasets.DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_archives_are_fashion_mnist(monkeypatch):
    monkeypatch.delenv("FASHION_MNIST_ARCHIVES", raising=False)
    train, test = datasets.load_fashion()
    assert train.labels.bincount().tolist() == [6_000] * 10 and test.labels.bincount().tolist() == [1_000] * 10


def test_a_study_of_other_images_is_recorded_under_another_hash(small_fashion, sample, monkeypatch, capsys):
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": sample)
    monkeypatch.setattr(studies, "cores", lambda: 1)
    both = {"digits": LENET, "clothes": replace(LENET, dataset="fashion-mnist")}
    monkeypatch.setitem(STUDIES, "both", Study("Digits or clothes?", 1, both))
    assert both["digits"].hash != both["clothes"].hash
    run_study("both", folder=Path("records"))
    said = capsys.readouterr().out
    recorded = {
        key: json.loads(studies.record_path(recipe, 0, Path("records")).read_text()) for key, recipe in both.items()
    }
    assert recorded["clothes"]["history"]["dataset"] == "Fashion-MNIST"
    assert recorded["digits"]["history"]["dataset"] == utils.SAMPLE
    assert "not judged: Fashion-MNIST, expected all of MNIST" in said  # no verdict


def test_a_network_of_clothes_is_tested_on_clothes(small_fashion, monkeypatch, capsys, sample):
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": sample)
    options = "--dataset", "fashion-mnist", "--epochs", "1", "--folder", "run"
    assert command(monkeypatch, "train", "lenet_1_vanilla", *options) == 0
    assert command(monkeypatch, "test", "run/model.pt") == 0
    assert json.loads(Path("run/metrics.json").read_text())["dataset"] == "Fashion-MNIST"
    assert command(monkeypatch, "train", "lenet_1_vanilla", "--epochs", "1", "--folder", "other") == 0
    capsys.readouterr()
    assert command(monkeypatch, "errors", "run/model.pt", "other/model.pt") == 2
    assert (
        "the checkpoints are of fashion-mnist and mnist, expected networks of one data set" in capsys.readouterr().err
    )


def test_an_unknown_data_set_is_named():
    with pytest.raises(ValueError, match="dataset is 'emnist', expected one of mnist, fashion-mnist"):
        replace(LENET, dataset="emnist")


def test_the_ladder_elsewhere_is_the_ladder():
    assert list(STUDIES["fashion"].recipes) == list(LADDER)
    for key, recipe in STUDIES["fashion"].recipes.items():
        assert replace(recipe, dataset="mnist") == LADDER[key]
        assert catalog.find_recipe(f"fashion/{key}") == recipe
    assert catalog.find_recipe("gap") == LADDER["gap"]  # plain names are those of digits


def said(mean, p=0.01, half=0.01):
    """A contrast of this mean and adjusted p-value, with an interval of this half width."""
    return Contrast(Difference(mean, mean - half, mean + half), p, 13)


@pytest.mark.parametrize(
    ("here", "there", "becomes"),
    [
        (said(0.2), said(0.9), "survives"),
        (said(0.2), said(-0.9), "turns"),
        (said(-0.2), said(-0.9), "survives"),
        (said(0.0, p=0.9), said(0.01, p=0.8), "survives"),  # both equivalent
        (said(0.0, p=0.9), said(0.9), "open"),
        (said(0.2), said(0.9, p=0.4, half=1.0), "open"),
        (said(0.2, p=0.4, half=1.0), said(0.9, p=0.4, half=1.0), "open"),  # neither can be told
    ],
)
def test_what_becomes_of_a_conclusion_elsewhere(here, there, becomes):
    assert elsewhere(here, there) == becomes
