"""The probe prints the scores of the features beside those of the pixels."""

import dataclasses
import json
import re

import pytest

from scaling.data.config import DataConfig
from scaling.training.config import TrainConfig
from tests.commands import call, command, error_of, run
from tests.data.examples import class_folders
from tests.data.sources.test_geobench import multi_label_set
from tests.encoders.examples import small_encoder

SCENES = "scenes?size=16&count=96"


def probe(workdir, *arguments, **flags):
    done = call(command("probe", *arguments, checkpoint=workdir, source=SCENES, **flags))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_accuracies_are_printed_and_are_those_of_the_json(uninterrupted_run):
    report = json.loads(probe(uninterrupted_run[0], "--json", k=3))
    assert {name: report[name] for name in ("source", "k", "metric")} == {
        "source": SCENES,
        "k": 3,
        "metric": "cosine",
    }
    text = probe(uninterrupted_run[0], k=3)
    assert f"3-NN accuracy on {SCENES}, 96 training images, 96 test images" in text
    for name in ("features", "raw pixels"):
        accuracy = report["accuracy"][name]["accuracy"]
        assert 1 / 12 < accuracy <= 1  # better than a guess
        low, high = report["intervals"][name]["accuracy"]
        assert low < accuracy < high
        assert re.search(
            rf"{name} +{accuracy:.1%} \(mean of the classes .*\)  95% interval {low:.1%} to {high:.1%} \(", text
        )
    assert report["chance"]["accuracy"] == pytest.approx(10 / 96)
    assert re.search(r"chance +10\.4% \(mean of the classes 10\.0%\)", text)


def test_the_raw_pixels_can_be_left_out(uninterrupted_run):
    report = json.loads(probe(uninterrupted_run[0], "--json", "--noraw_pixels", limit=40))
    assert set(report["accuracy"]) == {"features"}


@pytest.mark.long
def test_the_linear_probe_and_the_controls(uninterrupted_run):
    report = json.loads(
        probe(uninterrupted_run[0], "--json", "--controls", probe="linear", validation_split="test", limit=60)
    )
    assert set(report["accuracy"]) == {
        "features",
        "raw pixels",
        "patch embedding",
        "depth 0",
        "random weights",
        "band statistics",
    }
    for name, scores in report["accuracy"].items():
        assert scores["macro_accuracy"] > report["chance"]["macro_accuracy"]
        assert report["details"][name]["C"] > 0


def test_images_with_several_labels_in_units_of_their_own(uninterrupted_run, tmp_path):
    source = f"geobench:{multi_label_set(tmp_path)}?bands=B04,B03,B02"
    done = call(command("probe", checkpoint=uninterrupted_run[0], source=source, normalise="source", k=3))
    assert done.returncode == 0, done.stderr
    assert f"3-NN mean average precision on {source}, 4 training images, 4 test images" in done.stdout
    assert re.search(r"features +[\d.]+%  95% interval [\d.]+% to [\d.]+%\n", done.stdout)
    assert "8 of 43 labels have no test image and are left out" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"pool": "tokens"}, "--pool=tokens: must be cls or mean"),
        ({"bands": "0,red"}, "--bands=0,red: must be whole numbers from 0"),
        ({"source": "nothing"}, "unknown source 'nothing'"),
        ({"test_split": "somewhere"}, "split='somewhere': must be one of train, test"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line(uninterrupted_run, flags, message):
    assert message in error_of(call(command("probe", checkpoint=uninterrupted_run[0], **flags)), 2)


def test_the_checkpoint_must_be_given():
    said = error_of(run(command("probe")), 2)
    assert said == "--checkpoint: is missing; give --checkpoint=DIR, the --workdir of a training run"


def test_own_statistics_are_of_the_bands_of_the_training(tmp_path):
    source = f"folder:{class_folders(tmp_path / 'set', 8)}"
    data = DataConfig(source=source, bands=(2, 1, 0), mean=(10.0, 120.0, 200.0), std=(20.0, 50.0, 90.0))
    dataclasses.replace(small_encoder(), train=TrainConfig(data=data)).save(tmp_path / "run")
    flags = {"checkpoint": tmp_path / "run", "train_split": "train[:50%]", "test_split": "train[50%:]", "k": 1}
    silent, said = (
        json.loads(call(command("probe", "--json", **flags, normalise="source", **more)).stdout)
        for more in ({}, {"source": f"{source}/", "bands": "2,1,0"})
    )
    assert {**silent, "source": ""} == {**said, "source": ""}


def test_class_folders_without_splits_are_probed(tmp_path):
    small_encoder().save(tmp_path / "kept")
    folders = class_folders(tmp_path / "images", 30)
    asked = {"checkpoint": tmp_path / "kept", "source": f"folder:{folders}", "k": 1}
    done = call(command("probe", "--json", **asked))
    assert done.returncode == 0, done.stderr
    parts = "train[:80%,stratified]", "train[80%:,stratified]"
    assert "has no split test: {} is learned from, {} is scored (always the same)".format(*parts) in done.stderr
    named = call(command("probe", "--json", train_split=parts[0], test_split=parts[1], **asked))
    assert json.loads(done.stdout) == json.loads(named.stdout)
