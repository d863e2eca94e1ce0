"""Several splits as one: every image once, under its own name, with the classes of all."""

import pickle
import zipfile
from collections import Counter

import numpy as np
import pytest
from absl import flags

from scaling import prepare
from scaling.core.errors import UserError
from scaling.data.config import DataConfig, open_sources
from scaling.data.pipeline import train_batches
from scaling.data.sources.base import Info
from scaling.data.sources.registry import open_source
from scaling.data.sources.united import United
from tests.data.examples import class_folders, jpeg, smooth
from tests.data.sources.test_tfds import write_colours

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def millionaid(tmp_path):
    """Million-AID in small: three levels of classes to train on, one flat folder to test on."""
    root = tmp_path / "MillionAID"
    class_folders(root / "train" / "agriculture_land" / "arable_land", 2, ("dry_field", "greenhouse"))
    class_folders(root / "train" / "water_area" / "river", 1, ("river",))
    (root / "test" / "test").mkdir(parents=True)
    for i in range(11):
        (root / "test" / "test" / f"P{i}.jpg").write_bytes(jpeg(smooth(100 + i)))
    return root


def names(source):
    return [source.name(i) for i in range(len(source))]


def prepared(source, output, split):
    flags = {"source": f"folder:{source}", "output": output, "split": ",".join(split), "shard_size": 4, "workers": 1}
    prepare.main(*prepare.main.parsed(["prepare", *(f"--{name}={value}" for name, value in flags.items())]))
    return f"arrayrecord:{output}"


def epoch(spec, split):
    """How often every image is trained on in one epoch; a single one that is held out is of another source."""
    config = DataConfig(source=spec, split=split, eval_source="scenes?size=8&count=1", threads=1)
    source, _ = open_sources(config)
    batches = train_batches(source, config, image_size=8, seed=0, batch_size=4)
    seen = Counter(source.name(int(i)) for _ in range(4) for i in next(batches)["id"])
    batches.close()
    return len(source), seen


@pytest.mark.parametrize("given", [None, ["train+test"], ["train", "test"]])
def test_an_epoch_of_millionaid_sees_every_image_of_both_splits_once(millionaid, tmp_path, given):
    spec = prepared(millionaid, tmp_path / "out", given) if given else f"folder:{millionaid}"
    there = sorted(str(file.relative_to(millionaid)) for file in millionaid.rglob("*.jpg"))
    assert len(there) == 16
    assert epoch(spec, "train+test") == (16, Counter(there))


def test_labels_are_those_of_the_parts(millionaid):
    source = pickle.loads(pickle.dumps(open_source(f"folder:{millionaid}", "train+test")))
    assert source.info.classes == ("dry_field", "greenhouse", "river")
    assert source.labels.tolist() == [source[i]["label"] for i in range(16)] == [0, 0, 1, 1, 2] + [-1] * 11
    assert source.name(15) == "test/test/P9.jpg"
    assert source.state(0) != source.state(5)
    with pytest.raises(IndexError):
        source.name(16)


def test_prepared_files_keep_their_bytes(millionaid, tmp_path):
    first, second = (open_source(f"folder:{millionaid}", split) for split in ("train[:50%]", "test"))
    source = open_source(prepared(millionaid, tmp_path / "out", ["train[:50%]+test"]), "train[:50%]+test")
    assert names(source) == names(first) + names(second)
    assert [source.stored(i) for i in range(2, 13)] == [second.stored(i) for i in range(11)]
    assert [source.stored(i)[0] for i in range(2)] == [(millionaid / name).read_bytes() for name in names(first)]


def test_prepared_parts_are_found_under_the_names_they_were_given(tmp_path):
    images = class_folders(tmp_path / "images", 10)
    spec = prepared(images, tmp_path / "out", ["train[:80%]", "train[80%:]"])
    large, small = open_source(spec, "train[:80%]"), open_source(spec, "train[80%:]")
    assert (len(large), len(small)) == (16, 4)
    assert names(small) == names(open_source(f"folder:{images}", "train[80%:]"))
    assert sorted(names(open_source(spec, "train[:80%]+train[80%:]"))) == sorted(names(large) + names(small))
    assert names(open_source(spec, "train[80%:][:2]")) != names(small)
    with pytest.raises(UserError, match=r"no split 'test'; there is train\[:80%\], train\[80%:\]"):
        open_source(spec, "test")


def test_parts_and_sums_can_be_mixed(millionaid):
    spec = f"folder:{millionaid}"
    whole = names(open_source(spec, "train+test"))
    mixed = names(open_source(spec, "train[:40%]+test"))
    assert len(mixed) == 13
    assert mixed[2:] == whole[5:]
    first, rest = names(open_source(spec, "(train+test)[:10]")), names(open_source(spec, "(train+test)[10:]"))
    assert len(first) == 10
    assert sorted(first + rest) == sorted(whole)


@pytest.mark.parametrize(
    "split",
    ["train[:3]+train[3:]", "(train+test)[:9]+(train+test)[9:]", "train[:60%][:2]+train[:60%][2:]+train[60%:]+test"],
)
def test_parts_of_one_split_are_united_where_they_share_nothing(millionaid, split):
    found = names(open_source(f"folder:{millionaid}", split))
    assert len(set(found)) == len(found)
    assert set(found) in (set(names(open_source(f"folder:{millionaid}", whole))) for whole in ("train", "train+test"))


def test_parts_of_a_prepared_split_that_share_images(millionaid, tmp_path):
    spec = prepared(millionaid, tmp_path / "out", ["train", "test"])
    with pytest.raises(UserError, match="share images"):
        open_source(spec, "train[:2]+test+train")


@pytest.mark.parametrize(
    ("given", "split"),
    [
        (["train+test", "train"], "(train+test)[:100%]+train"),
        (["train+test", "test"], "test[:3]+(train+test)[:4]"),
        (["train[:80%]", "train"], "train[:80%]+train"),
        (["train[:60%]", "train[40%:]"], "train[:60%]+train[40%:]"),
        (["train[:3]", "train[80%:]"], "train[:3]+train[80%:]"),
        (["(train+test)[:80%]", "test"], "(train+test)[:80%]+test"),
    ],
)
def test_prepared_splits_that_share_images_are_not_united(millionaid, tmp_path, given, split):
    spec = prepared(millionaid, tmp_path / "out", given)
    with pytest.raises(UserError, match="share images"):
        open_source(spec, split)


def test_prepared_parts_and_sums_that_share_nothing_are_united(millionaid, tmp_path):
    spec = prepared(millionaid, tmp_path / "out", ["train[:2]+test", "train[2:4]", "train[4:]"])
    found = names(open_source(spec, "(train[:2]+test)[:100%]+train[2:4]+train[4:]"))
    assert sorted(found) == sorted(names(open_source(f"folder:{millionaid}", "train+test")))


@pytest.mark.parametrize("split", ["train+train", "train[:3]+train[2:]", "train[-2:]+train", "all+train"])
def test_sums_of_tensorflow_datasets_that_have_images_twice(tmp_path, split):
    colours = write_colours(tmp_path / "tfds")
    with pytest.raises(UserError, match="images twice"):
        open_source(colours, split)
    assert len(open_source(colours, "train[:3]+train[3:]")) == 5


@pytest.mark.parametrize("split", ["(train[:3])[:2]+train[2:]", "(train)[:2]+train", "(all)[:2]+train[:1]"])
def test_sums_of_parts_of_tensorflow_datasets_that_share_images(tmp_path, split):
    colours = write_colours(tmp_path / "tfds")
    with pytest.raises(UserError, match="share images"):
        open_source(colours, split)
    assert len(open_source(colours, "(train)[:2]+(train)[2:]")) == 5
    assert len(open_source(colours, "(train[:3])[:2]+train[3:]")) == 4


def test_every_scheme_can_unite(millionaid, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        for file in millionaid.rglob("*.jpg"):
            packed.write(file, str(file.relative_to(millionaid)))
    folder, archive = (
        open_source(spec, "test+train") for spec in (f"folder:{millionaid}", f"zip:{tmp_path / 'images.zip'}")
    )
    assert names(archive) == names(folder)
    assert archive.labels.tolist() == folder.labels.tolist()
    scenes = open_source("scenes?size=8&count=12", "train+test")
    assert (len(scenes), len(scenes.info.classes)) == (24, 10)
    colours = write_colours(tmp_path / "tfds")
    assert [open_source(colours, "train[3:]+train[:1]")[i]["label"] for i in range(3)] == [1, 0, 0]


class Labelled:
    """Black images with labels of their own classes."""

    def __init__(self, classes, labels, **info):
        self.info, self.labels = Info(classes, **info), np.array(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": np.zeros((4, 4, 1), np.uint8), "label": int(self.labels[index])}

    def name(self, index):
        return f"{self.info.classes}/{index}"


def test_classes_of_different_parts_are_united():
    both = United([Labelled(("b", "c"), [0, 1, -1]), Labelled(("a", "b"), [0, 1]), Labelled((), [-1])], ["x", "y", "z"])
    assert both.info.classes == ("a", "b", "c")
    assert both.labels.tolist() == [both[i]["label"] for i in range(6)] == [1, 2, -1, 0, 1, -1]
    assert both.stored(1)[1] == 2


def test_statistics_of_several_parts_are_measured():
    one, other = (Labelled(("a",), [0], statistics=((mean,), (1.0,))) for mean in (2.0, 3.0))
    assert United([one, other], ["x", "y"]).info.statistics is None
    assert United([one, one], ["x", "y"]).info.statistics == one.info.statistics


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train+", "a name is missing next to"),
        ("train+train", "names a subset twice"),
        ("train+Training", "train and Training share images"),
        ("train[:80%]+train", "share images"),
        ("train[:3]+train[2:]", "train[:3] and train[2:] share images"),
        ("(train+test)[:3]+test", "share images"),
        ("(train+test)[:9]+(train+test)[8:]", "share images"),
        ("train[:60%][:2]+train[:60%][1:]", "share images"),
        ("train+validation", "no split 'validation'; there is test, train"),
        ("train[:80%]+test[90:]", "only 11 images"),
    ],
)
def test_sums_that_cannot_be(millionaid, split, message):
    with pytest.raises(UserError) as error:
        open_source(f"folder:{millionaid}", split)
    assert message in str(error.value)


def test_parts_with_different_bands():
    with pytest.raises(UserError, match="differ in band names"):
        United([Labelled((), [-1], bands=("B01",)), Labelled((), [-1])], ["x", "y"])
