"""The global batch of a step depends on seed, source and batch size alone."""

import dataclasses
import functools
import multiprocessing
import threading
import time

import jax
import numpy as np
import pytest
import tifffile

from scaling.core.errors import TrainingError, UserError
from scaling.core.rows import config_hash
from scaling.data.arrays import normalise
from scaling.data.config import DataConfig, check_source, open_sources
from scaling.data.pipeline import eval_batches, train_batches
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import open_source
from scaling.data.spot_checks import layout
from scaling.data.statistics import band_statistics
from tests.data.batches import assert_same, digest, take
from tests.data.examples import class_folders, jpeg, png, shared, smooth, truncate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("images") / "set", 20)


@pytest.fixture
def config(folder):
    return DataConfig(source=f"folder:{folder}", eval_share=0.1, threads=2)


def test_what_a_batch_holds(config, folder):
    source = open_source(f"folder:{folder}")
    batch = take(2, config)[1]
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "image": ((8, 16, 16, 3), "uint8"),
        "label": ((8,), "int32"),
        "index": ((8,), "int64"),
        "id": ((8,), "int64"),
        "skipped": ((8,), "int64"),
    }
    np.testing.assert_array_equal(batch["index"], np.arange(8, 16))
    np.testing.assert_array_equal(batch["label"], [source[i]["label"] for i in batch["id"]])
    np.testing.assert_array_equal(batch["skipped"], -1)


def assert_hosts_make(alone, make, hosts):
    """Each host makes its own rows of every batch, and together they equal the batches of a single host."""
    for rows in hosts:
        mine = [row for block in rows for row in block]
        assert_same(make(rows=rows), [{key: x[mine] for key, x in batch.items()} for batch in alone])
    assert sorted({row for rows in hosts for block in rows for row in block}) == list(range(len(alone[0]["id"])))


HOSTS = {
    "2": [(range(4),), (range(4, 8),)],
    "4": [(range(i, i + 2),) for i in range(0, 8, 2)],
    "3, interleaved and unequal": [(range(2), range(4, 6)), (range(2, 4), range(7, 8)), (range(6, 7),)],
    "2 with the same rows": [(range(8),), (range(8),)],
}


@pytest.mark.parametrize("hosts", HOSTS.values(), ids=HOSTS)
def test_any_number_of_hosts_makes_the_same_global_batches(config, hosts):
    alone = take(6, config)  # 48 examples: beyond the first epoch of 36
    assert_hosts_make(alone, functools.partial(take, 6, config), hosts)


@pytest.mark.parametrize("start", [1, 4, 7, 1000])
def test_resuming_at_a_step_continues_the_straight_run(config, start):
    straight = take(3, config, start=start - 1)[1:]
    assert_same(take(2, config, start=start), straight)
    if start < 10:
        assert_same(take(2, config, start=start), take(start + 2, config)[start:])


def test_a_second_view_is_another_crop_of_the_same_images_and_changes_nothing_else(config):
    one, two = take(3, config, start=2), take(3, config, start=2, views=2)
    for alone, both in zip(one, two, strict=True):
        assert both["image_1"].shape == alone["image"].shape
        assert (both["image_1"] != alone["image"]).any(axis=(1, 2, 3)).all()
        assert_same([{key: x for key, x in both.items() if key != "image_1"}], [alone])
    assert_hosts_make(two, functools.partial(take, 3, config, start=2, views=2), HOSTS["2"])


def test_further_views_of_evaluation_are_crops_that_stay(config):
    source, sizes = open_sources(config)[1], {"image_size": 8, "batch_size": 4}
    first, again = (list(eval_batches(source, config, **sizes, views=2)) for _ in range(2))
    assert_same(first, again)
    padding = [batch["weight"] == 0 for batch in first]
    assert all((batch["image_1"][none] == 0).all() for batch, none in zip(first, padding, strict=True))
    for batch in first:
        assert batch.pop("image_1").any()
    assert_same(first, list(eval_batches(source, config, **sizes)))


def test_worker_processes_and_threads_change_nothing(config):
    expected = take(5, config, batch_size=48)  # three chunks per batch over two workers
    assert_same(take(5, dataclasses.replace(config, threads=5), batch_size=48), expected)
    assert_same(take(5, dataclasses.replace(config, workers=2), batch_size=48), expected)


def test_evaluation_starts_no_processes(config, monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("a process was started")

    expected = list(eval_batches(open_sources(config)[1], config, image_size=8, batch_size=4))
    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", refused)
    workers = dataclasses.replace(config, workers=2)
    assert_same(list(eval_batches(open_sources(workers)[1], workers, image_size=8, batch_size=4)), expected)


def test_a_record_is_read_once(folder, tmp_path, monkeypatch):
    convert(Preparation(f"folder:{folder}", ("train",), str(tmp_path / "out")), 1, lambda n: None, lambda n: None)
    source = open_source(f"arrayrecord:{tmp_path / 'out'}")
    records, reads = source._records, []

    class Counted:
        def __getitem__(self, index):
            reads.append(index)
            return records[index]

    monkeypatch.setitem(source.__dict__, "_records", Counted())
    layout(source, ())  # looks at some of them
    looks, all_of_it = len(reads), DataConfig(eval_split="train", eval_examples=0)
    batches = list(eval_batches(source, all_of_it, image_size=16, batch_size=8))
    assert sum((batch["weight"] > 0).sum() for batch in batches) == len(source)
    assert len(reads) == 2 * looks + len(source)


def test_each_epoch_shows_every_training_image_once_and_no_held_out_one(config):
    source, evaluation = open_sources(config)
    held_out = np.concatenate([batch["id"] for batch in eval_batches(evaluation, config, image_size=8, batch_size=4)])
    assert source is evaluation
    assert sorted(held_out) == sorted(set(held_out))
    assert len(held_out) == 4
    shown = np.concatenate([batch["id"] for batch in take(9, config)])
    first, second = shown[:36], shown[36:72]
    for epoch in (first, second):
        assert sorted([*epoch, *held_out]) == list(range(40))
    assert list(first) != list(second)


def test_seed_changes_order_and_crops(config):
    (one,), (other,) = take(1, config), take(1, config, seed=4)
    assert list(one["id"]) != list(other["id"])


def test_an_image_is_cropped_anew_in_each_epoch(config):
    batches = take(9, config)
    found = [batch["image"][row] for batch in batches for row in range(8) if batch["id"][row] == batches[0]["id"][0]]
    assert len(found) == 2
    assert (found[0] != found[1]).any()


def test_corrupt_images_are_replaced_by_the_next_readable_one(tmp_path):
    root = class_folders(tmp_path / "set", 10)
    truncate(root / "river" / "003.jpg")
    truncate(root / "forest" / "005.jpg")
    config = DataConfig(source=f"folder:{root}", eval_share=0.05)
    batches = take(20, config)
    source = open_source(config.source)
    shown = {source.name(i) for batch in batches for i in batch["id"]}
    skipped = {source.name(i) for batch in batches for i in batch["skipped"] if i >= 0}
    assert skipped <= {"river/003.jpg", "forest/005.jpg"}
    assert skipped
    assert not skipped & shown
    assert_same(take(20, config), batches)
    assert_same(take(20, dataclasses.replace(config, workers=1)), batches)


def test_nothing_readable_is_an_error_not_a_hang(tmp_path):
    root = class_folders(tmp_path / "set", 4)
    config = DataConfig(source=f"folder:{root}", eval_split="train")
    source = open_source(config.source)
    batches = train_batches(source, config, image_size=8, seed=0, batch_size=4)
    for file in root.rglob("*.jpg"):
        truncate(file)
    with pytest.raises(TrainingError, match="no readable image among 8"):
        next(batches)
    batches.close()
    with pytest.raises(UserError, match=r"no readable image; the first is forest/000\.jpg"):
        train_batches(source, config, image_size=8, seed=0, batch_size=4)


def test_grey_images_among_coloured_ones(tmp_path):
    root = class_folders(tmp_path / "set", 6)
    (root / "river" / "grey.jpg").write_bytes(jpeg(smooth(0)[..., 0]))
    batches = take(4, DataConfig(source=f"folder:{root}", eval_share=0.01, flips="none"))
    source = open_source(f"folder:{root}")
    grey = [b["image"][i] for b in batches for i in range(8) if source.name(b["id"][i]) == "river/grey.jpg"]
    assert grey
    assert all((image[..., :1] == image).all() for image in grey)


def test_evaluation_is_fixed_and_padded(config):
    config = dataclasses.replace(config, eval_split="train", eval_examples=10)
    _, source = open_sources(config)

    def batches(**options):
        return list(eval_batches(source, config, image_size=12, batch_size=4, **options))

    alone = batches()
    assert_same(batches(), alone)
    np.testing.assert_array_equal(np.concatenate([b["weight"] for b in alone]), [1] * 10 + [0] * 2)
    np.testing.assert_array_equal(np.concatenate([b["index"] for b in alone]), np.arange(12))
    assert (alone[-1]["id"][2:] == -1).all()
    assert (alone[-1]["image"][2:] == 0).all()
    assert_hosts_make(alone, batches, [(range(1), range(2, 3)), (range(1, 2), range(3, 4))])


def test_a_corrupt_evaluation_image_has_no_weight(tmp_path):
    root = class_folders(tmp_path / "set", 4)
    truncate(root / "river" / "002.jpg")
    config = DataConfig(source=f"folder:{root}", eval_split="train")
    (batch,) = eval_batches(open_source(config.source), config, image_size=8, batch_size=8)
    assert batch["weight"].sum() == 7
    assert batch["skipped"][batch["weight"] == 0] == [6]


def test_own_evaluation_source_leaves_all_images_to_training(config):
    config = dataclasses.replace(config, eval_source=config.source)
    shown = np.concatenate([batch["id"] for batch in take(5, config)])
    assert sorted(shown) == list(range(40))


@pytest.fixture
def multispectral(tmp_path):
    for i in range(6):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.full((20, 24, 4), [1000, 2000, 3000, i], np.uint16))
    return DataConfig(source=f"folder:{tmp_path}", eval_share=0.01)


def test_bands_are_taken_in_the_given_order(multispectral):
    (batch,) = take(1, dataclasses.replace(multispectral, bands=(2, 0)), batch_size=4)
    assert batch["image"].dtype == np.float32
    np.testing.assert_allclose(batch["image"], np.broadcast_to([3000, 1000], (4, 16, 16, 2)), rtol=1e-5)


def test_real_multi_band_images():
    config = DataConfig(source=f"folder:{shared('terramesh/S2L2A')}", bands=(3, 2, 1), eval_share=0.1)
    (batch,) = take(1, config, batch_size=4, image_size=32)
    assert batch["image"].shape == (4, 32, 32, 3)
    assert batch["image"].std() > 1


@pytest.mark.parametrize(
    ("bands", "model", "message"),
    [
        ((), 3, "has 4 bands, but the model takes 3: choose with data.bands=… or set model.bands=4"),
        ((0, 1), 3, "data.bands takes 2, but the model takes 3"),
        ((0, 4), 2, "has bands 0 to 3"),
    ],
)
def test_bands_that_do_not_fit_the_model(multispectral, bands, model, message):
    config = dataclasses.replace(multispectral, bands=bands)
    with pytest.raises(UserError, match=message):
        check_source(open_source(config.source), model, config)


def test_bands_that_fit(multispectral):
    check_source(open_source(multispectral.source), 4, multispectral)


@pytest.mark.parametrize("four", [2, 6])
def test_every_image_that_has_the_chosen_bands_is_taken(tmp_path, four):
    for i in range(8):
        image = np.full((20, 24, 4 if i < four else 3), 10 * i, np.uint8)
        tifffile.imwrite(tmp_path / f"{i}.tif", image, photometric="rgb", extrasamples=["unassalpha"] * (i < four))
    config = DataConfig(source=f"folder:{tmp_path}", eval_source="scenes?size=8&count=1", bands=(0, 1, 2))
    (batch,) = take(1, config, batch_size=8)
    assert (batch["skipped"] == -1).all()
    assert sorted(batch["id"]) == list(range(8))
    assert batch["image"].shape[-1] == 3
    # and the normalisation is theirs: images of constant values 0 to 70
    mean, std = band_statistics(open_sources(config)[0], config)
    assert mean == (35.0,) * 3
    np.testing.assert_allclose(std, np.std(np.arange(0, 80, 10)))


def test_sides_that_were_read_as_bands_are_said(tmp_path):
    for i in range(3):  # bands written last, and taken for the width
        tifffile.imwrite(tmp_path / f"{i}.tif", np.ones((32, 32, 12), np.float32))
    config = DataConfig(source=f"folder:{tmp_path}")
    with pytest.raises(UserError) as error:
        check_source(open_source(config.source), 12, config)
    assert "is of 32 x 12 pixels of 32 bands; were the bands the last axis of an array?" in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flips": "sideways"},
        {"crop_scale": (0.5, 0.2)},
        {"crop_scale": (0.0, 1.0)},
        {"mean": (1.0,)},
        {"mean": (1.0,), "std": (0.0,)},
        {"eval_share": 1.0},
        {"crop": "square"},
        {"resize_ratio": (2.0, 0.5)},
        {"resize_base": -1},
        {"max_class_share": 0.0},
        {"photometric": "blur"},
        {"rotate": 1.5},
        {"rotate_upright": ("ship",)},
        {"threads": -1},
        {"prefetch": 0},
        {"rgb": (1, 2)},
        {"rgb": (2, 1, -1)},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(UserError, match=f"data.{next(iter(wrong))}"):
        DataConfig(**wrong)


def test_bands_of_pictures_are_among_those_taken_and_belong_to_no_result():
    config = DataConfig(source="scenes:ms?size=16&count=20", bands=(5, 3, 2, 1), rgb=(3, 2, 1))
    check_source(open_source(config.source), 4, config)
    other = dataclasses.replace(config, rgb=(4, 2, 1))
    with pytest.raises(UserError, match=r"data.rgb=\(4, 2, 1\): must be of the 4 bands taken"):
        check_source(open_source(config.source), 4, other)
    plain = dataclasses.replace(config, rgb=())
    assert len({config_hash({"data": dataclasses.asdict(data)}) for data in (config, other, plain)}) == 1


def test_normalise_agrees_between_numpy_and_jax():
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    expected = (image - np.array(mean)) / std
    np.testing.assert_allclose(normalise(image, mean, std), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda x: normalise(x, mean, std))(image), expected, atol=1e-5)


def test_closing_ends_the_threads(config):
    before = threading.active_count()
    for _ in range(3):
        take(2, config)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


DIGESTS = {  # training and evaluation, recorded when no source had other targets than labels
    ("scenes?size=40&count=60", "none"): ("8b9530fd4cfd81e6", "6c3bfd284aafc569"),
    ("scenes:ms?size=24&count=60", "none"): ("22cf1ec74d3e41a9", "a0b930c5f94a3e81"),
    ("folder", "none"): ("b2d3c0d9ea5ebdfa", "085ac88ccad25b1f"),
    ("scenes?size=40&count=60", "horizontal"): ("f580b39e71557c0d", "f4719ba6806e614b"),
    ("scenes:ms?size=24&count=60", "horizontal"): ("1fd6b19e58ef12af", "3912990d980bcadc"),
    ("folder", "horizontal"): ("5f07ea0bde054830", "c179f9a9c6fd14b6"),
    ("scenes?size=40&count=60", "dihedral"): ("8cbcf98734dfe5f4", "5055efe5aa1217c8"),
    ("scenes:ms?size=24&count=60", "dihedral"): ("ac742e2a8b8f622b", "704b32d4f6794b55"),
    ("folder", "dihedral"): ("a8ed0513447e22f7", "0e20c7f63e0e1a4a"),
}


@pytest.mark.parametrize("spec", ["scenes?size=40&count=60", "scenes:ms?size=24&count=60", "folder"])
@pytest.mark.parametrize("flips", ["none", "horizontal", "dihedral"])
def test_the_pixels_of_a_configuration_stay_what_they_were(tmp_path, spec, flips):
    for i in range(12):  # neither square nor of one size
        image = np.random.default_rng(i).integers(0, 256, (30 + 2 * i, 55 - 3 * i, 3), dtype=np.uint8)
        (tmp_path / f"{i}.png").write_bytes(png(image))
    config = DataConfig(source=f"folder:{tmp_path}" if spec == "folder" else spec, eval_share=0.3, flips=flips)
    held_out = list(eval_batches(open_sources(config)[1], config, image_size=20, batch_size=4, views=2))
    found = digest(take(3, config, start=5, image_size=20, views=2)), digest(held_out)
    assert found == DIGESTS[spec, flips]
