"""A spec opens a source; the error for a wrong one lists the known ones."""

import dataclasses
import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.core.rows import config_hash
from scaling.data.config import DataConfig
from scaling.data.pipeline import eval_batches
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.default_splits import default_splits
from scaling.data.sources.registry import limited_split, open_source, same_source
from scaling.encoders.splits import Split
from scaling.studies.search.confirming import Labelled
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig
from scaling.studies.sweeps.plan import ProbeConfig
from tests.data.examples import class_folders
from tests.data.sources.test_tfds import write_colours
from tests.encoders.examples import small_encoder


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imagenet", "unknown source 'imagenet'; it starts with one of: arrayrecord, folder, zip, tfds, scenes"),
        ("images/train", "a folder is written folder:images/train"),
        ("folder:nowhere", "no such folder"),
        ("folder:", "no such folder"),
        ("zip:nowhere.zip", "no such file"),
        ("arrayrecord:nowhere", "scaling.prepare"),
        ("scenes?sise=3", "unknown option 'sise'; scenes takes size, count, seed"),
        ("scenes?size=big", "size=big is not a whole number"),
        ("scenes:infrared", "infrared"),
    ],
)
def test_wrong_spec(spec, message):
    with pytest.raises(UserError) as error:
        open_source(spec)
    assert message in str(error.value)


def prepared(root, output):
    convert(Preparation(f"folder:{root}", ("train",), str(output)), 1, lambda done: None, lambda total: None)


def test_a_path_alone_is_the_folder_archive_or_prepared_set_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, archive = class_folders(tmp_path / "my tiles", 3), shutil.make_archive("tiles", "zip", "my tiles")
    prepared(root, tmp_path / "prepared")
    specs = ["folder:my tiles", "my tiles", str(root), archive, "prepared", "arrayrecord:prepared"]
    sources = [open_source(spec) for spec in specs]
    names = [{source.name(i).removeprefix("my tiles/") for i in range(6)} for source in sources]
    assert len(names[0]) == 6
    assert all(found == names[0] for found in names)
    assert same_source("my tiles", f"folder:{root}/")
    (tmp_path / "few.csv").write_text(f"name,label\n{names[3].pop()},wet\n")
    assert len(open_source(f"{archive}?labels=few.csv")) == 1
    (tmp_path / "scenes").mkdir()
    assert open_source("scenes?size=16").info.classes[0] not in ("", None)  # the built-in one


def test_a_set_has_one_identity_however_its_path_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = class_folders(tmp_path / "tiles", 3)
    prepared(root, tmp_path / "prepared")
    shutil.make_archive("tiles", "zip", root)
    pairs = {
        "tiles": "folder:tiles",
        "prepared": "arrayrecord:prepared",
        "tiles.zip?labels=x.csv": "zip:tiles.zip?labels=x.csv",
    }
    pairs |= {
        spec: spec for spec in ("", "folder:tiles/", "folder:./tiles", "scenes?size=16", "nowhere", "gs://b/tiles")
    }
    for given, kept in pairs.items():
        config, same = (DataConfig(source=spec, eval_source=spec) for spec in (given, kept))
        assert config.source == config.eval_source == kept
        assert config_hash(dataclasses.asdict(config)) == config_hash(dataclasses.asdict(same))
        assert DatasetConfig(given).source == ProbeConfig(given).source == Labelled(given).source == kept
    assert SlimmingStudyConfig(calibration_source="tiles").calibration_source == "folder:tiles"
    (tmp_path / "probed").mkdir()
    assert SlimmingStudyConfig(calibration_source="probed").calibration_source == "probed"
    assert Split(small_encoder(), "tiles", "train", statistics=((1.0,) * 3, (1.0,) * 3)).source == "folder:tiles"


@pytest.mark.parametrize(
    ("made", "inside", "what"),
    [
        (
            ("config.json", "checkpoints/20/x"),
            "",
            "not the working directory of a run; give the folder that holds the images",
        ),
        (("checkpoints/20/_CHECKPOINT_METADATA",), "figures", "not the working directory of a run"),
        (("config.json", "rows.jsonl"), "", r"not the output of a command \(config.json and rows.jsonl are in it\)"),
        (("config.json", "metrics.jsonl"), "pictures", "not the working directory of a run"),
    ],
)
def test_figures_of_a_run_are_not_taken_for_images(tmp_path, made, inside, what):
    root = class_folders(tmp_path / "run", 3)
    class_folders(root / "figures", 2)
    class_folders(root / "pictures", 2)
    for name in made:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(dict.fromkeys(["study", "model", "dataset", "metric", "value"])))
    for spec in (f"folder:{root / inside}", str(root / inside)):
        with pytest.raises(UserError, match=f"{root / inside}: must be a folder of images, {what}"):
            open_source(spec)


@pytest.mark.parametrize(
    ("made", "inside"),
    [("predictions.csv", ""), ("rows.jsonl", "pictures"), ("run.json", "figures"), ("checkpoints/20/x", "pictures")],
)
def test_one_name_alone_does_not_make_images_those_of_a_run(tmp_path, made, inside):
    class_folders(tmp_path / "pictures", 2)
    class_folders(tmp_path / "figures", 2)
    (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
    for name in (made, "config.json" if made == "predictions.csv" else "notes.json"):
        (tmp_path / name).write_text('{"label": "river"}')
    assert len(open_source(str(tmp_path / inside))) == (4 if inside else 8)


def test_a_prepared_set_is_not_read_as_files_and_folders_of_images_may_be_named_like_those_of_runs(tmp_path):
    root = class_folders(tmp_path / "set", 3)
    prepared(root, tmp_path / "prepared")
    with pytest.raises(UserError, match=f"give it as arrayrecord:{tmp_path}/prepared"):
        open_source(f"folder:{tmp_path}/prepared")
    class_folders(root / "checkpoints", 2)
    (root / "manifest.json").write_text("[]")
    assert len(open_source(str(root))) == 10


def test_scenes_take_variant_and_options():
    source = open_source("scenes:ms?size=16&count=20", "test")
    assert len(source) == 20
    assert source[3]["image"].shape[:2] == (16, 16)
    assert source[3]["image"].dtype == np.uint16
    assert source.info.classes[source[3]["label"]]


def test_a_source_survives_pickling_after_use(tmp_path):
    source = open_source(f"folder:{class_folders(tmp_path / 'images', 3)}")
    before = source[4]
    after = pickle.loads(pickle.dumps(source))[4]
    np.testing.assert_array_equal(after["image"], before["image"])
    assert after["label"] == before["label"] == 1


@pytest.mark.parametrize(
    "spec",
    [
        "folder:s3://bucket/x",
        "zip:https://host/x.zip",
        "zip:x.zip?labels=s3://bucket/labels.csv",
        "arrayrecord:s3://x",
        "geobench:abfs://x/m-eurosat",
        "tfds:eurosat?data_dir=s3://bucket",
        "s3://bucket/x",
    ],
)
def test_only_local_paths_and_buckets_of_google(spec):
    with pytest.raises(UserError, match=r"only local paths and gs://") as error:
        open_source(spec)
    assert "\n" not in str(error.value)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with the same images as files, as an archive with a table, and prepared."""
    home = tmp_path / "home"
    class_folders(home / "images", 3)
    convert(Preparation(f"folder:{home}/images", ("train",), f"{home}/out"), 1, lambda done: None, lambda total: None)
    with zipfile.ZipFile(home / "images.zip", "w") as archive:
        for file in sorted((home / "images").glob("*/*")):
            archive.write(file, f"{file.parent.name}/{file.name}")
    names = zipfile.ZipFile(home / "images.zip").namelist()
    (home / "table.csv").write_text("name,label\n" + "".join(f"{name},a\n" for name in names))
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.mark.parametrize("spec", ["folder:~/images", "arrayrecord:~/out", "zip:~/images.zip?labels=~/table.csv"])
def test_the_home_is_written_with_a_tilde_in_every_path(home, spec):
    found, same = open_source(spec), open_source(spec.replace("~", str(home)))
    assert len(found) == len(same) > 0
    assert found.name(0) == same.name(0)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("folder:~/none", "/none: no such folder"),
        ("arrayrecord:~/none", "/none: no manifest.json"),
        ("zip:~/none.zip", "/none.zip: no such file"),
        ("zip:~/images.zip?labels=~/none.csv", "/none.csv: there is no such table"),
        ("geobench:~/m-eurosat", "/m-eurosat: no such folder"),
        ("geobench:~/images", "/images: the folder must have the name of a data set"),
    ],
)
def test_messages_name_the_place_that_was_looked_at(home, spec, named):
    with pytest.raises(UserError) as error:
        open_source(spec)
    assert f"{home}{named}" in str(error.value)
    assert "~" not in str(error.value)


@pytest.mark.parametrize("name", ["a*b", "a[0-9]b", "[1:2]", "a?b", "a?size=3", "what?&=", "a b%20", "a:b"])
def test_a_folder_may_have_any_name(home, tmp_path, name):
    shutil.copytree(home, tmp_path / name)
    for spec in ("folder:{}/images", "arrayrecord:{}/out", "zip:{}/images.zip", "zip:{}/images.zip?labels=~/table.csv"):
        found, same = open_source(spec.format(tmp_path / name)), open_source(spec.format(home))
        assert [found.name(i) for i in range(len(found))] == [same.name(i) for i in range(len(same))]
        np.testing.assert_array_equal(found[1]["image"], same[1]["image"])


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("my images", "folder:my images"),
        ("x/tiles.zip", "zip:x/tiles.zip"),
        ("tfds.zip", "an archive is written zip:tfds.zip"),
        ("foldr:x", "mean folder"),
        ("scene", "folder:scene: no images"),
        ("one.png", "a single file is no source: give its folder, folder:"),
    ],
)
def test_a_path_without_a_scheme_is_answered_with_one(tmp_path, monkeypatch, spec, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scene").mkdir()
    (tmp_path / "one.png").touch()
    with pytest.raises(UserError, match=hint):
        open_source(spec)


def drawn(spec, split, limit):
    """Names of the images that a probe with a limit reads."""
    config = DataConfig(source=spec, split=split, eval_source=spec, eval_split=split, eval_examples=limit, threads=1)
    source = open_source(spec, split)
    batches = list(eval_batches(source, config, image_size=8, batch_size=4))
    return [source.name(int(i)) for batch in batches for i in batch["id"] if i >= 0]


@pytest.mark.parametrize("split", ["train", "train+test", "train[:60%]", "train[20%:]+test"])
@pytest.mark.parametrize("limit", [0, 4, 5, 50])
def test_a_limit_is_of_the_same_images_wherever_it_is_set(tmp_path, split, limit):
    for name in ("train", "test"):
        class_folders(tmp_path / name, 5)
    spec = f"folder:{tmp_path}"
    limited = limited_split(spec, split, limit)
    source = open_source(spec, limited)
    assert {source.name(i) for i in range(len(source))} == set(drawn(spec, split, limit))
    assert (limited == split) == (limit in (0, 50))


def test_a_limit_is_of_the_same_images_of_a_prepared_set(tmp_path):
    spec = write_colours(tmp_path)  # that library would cut it in its own order
    source, whole = open_source(spec, limited_split(spec, "train", 3)), open_source(spec)
    assert [source.name(i) for i in range(3)] == drawn(spec, "train", 3)
    assert {source.name(i) for i in range(3)} <= {whole.name(i) for i in range(5)}


def test_parts_of_parts():
    whole = open_source("scenes?size=8&count=40", "train[:50%]")
    part = open_source("scenes?size=8&count=40", "(train[:50%])[:5]")
    assert [part.name(i) for i in range(5)] == [
        open_source("scenes?size=8&count=40", "train[:50%][:5]").name(i) for i in range(5)
    ]
    assert {part.name(i) for i in range(5)} <= {whole.name(i) for i in range(20)}


def test_splits_that_nobody_asked_for_are_those_of_the_source(tmp_path):
    plain = f"folder:{class_folders(tmp_path / 'plain', 5)}"
    for name in ("train", "test"):
        class_folders(tmp_path / "whole" / name, 1)
    class_folders(tmp_path / "other" / "train", 1)
    class_folders(tmp_path / "other" / "val", 1)
    assert default_splits(plain, "train", "test") == ("train[:80%,stratified]", "train[80%:,stratified]")
    assert default_splits(plain, "train", "train[:2]") == ("train", "train[:2]")
    assert default_splits(f"folder:{tmp_path / 'whole'}", "train", "test") == ("train", "test")
    assert default_splits("scenes?size=16", "train", "test") == ("train", "test")
    with pytest.raises(UserError, match="there is train, validation"):
        default_splits(f"folder:{tmp_path / 'other'}", "train", "test")


def test_classes_that_are_too_small_to_be_scored_are_named(tmp_path, caplog):
    class_folders(tmp_path / "set", 4)
    class_folders(tmp_path / "set", 1, classes=("lake",))
    default_splits(f"folder:{tmp_path / 'set'}", "train", "test")
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.endswith(
        "only one image of lake: these classes are not scored, which needs two; the scores are of 2 of 3 classes"
    )
    for name, count, classes, message in (
        ("single", 1, ("a", "b", "c"), "no class has more than one image, .*; give at least two images of every class"),
        ("same", 3, ("x/only",), "all 3 images have the same class; a score needs at least two classes"),
    ):
        spec = f"folder:{class_folders(tmp_path / name, count, classes=classes)}"
        with pytest.raises(UserError, match=message):
            default_splits(spec, "train", "test")


@pytest.mark.parametrize(
    ("train", "test", "shared"),
    [
        ("train", "train", True),
        ("train[:80%]", "train[50%:]", True),
        ("train[:100]", "train[90%:]", False),
        ("train[:150]", "train[50%:]", True),
        ("train", "test+train[:1]", True),
        ("train[:50%]+test", "train[50%:]", False),
        ("train[:50%,stratified]", "train[50%:,stratified]", False),
        ("train[:60%,stratified]", "train[50%:,stratified]", True),
        ("train[:50%]", "train[50%:,stratified]", True),
        ("train", "test[:50%]", False),
    ],
)
def test_images_that_are_learned_from_and_scored_are_told(caplog, tmp_path, train, test, shared):
    spec = "scenes?size=16&count=200"
    if "stratified" in train + test:
        spec = f"folder:{class_folders(tmp_path)}"
    default_splits(spec, train, test)
    assert ("images of" in caplog.text) == shared
