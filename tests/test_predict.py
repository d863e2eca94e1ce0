"""Maps of images of any size by a run of segmentation, beside the network applied by hand."""

import importlib
import json
import sys

import imagecodecs
import jax
import numpy as np
import pytest
from PIL import Image

from scaling.data.config import DataConfig
from scaling.data.masks import decode_mask
from scaling.data.sources.registry import open_source
from scaling.evaluation import submissions
from scaling.evaluation.windows import Windows, sliding_classes
from scaling.models.heads.spatial import resize
from scaling.parallel.mesh import MeshConfig
from scaling.tasks.finetuning import Finetuning
from scaling.tasks.segmentation import Segmenting
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig
from tests.commands import call, command, error_of
from tests.encoders.examples import small_encoder

COMMAND = importlib.import_module("scaling.predict")  # the package has a function of the name
SOURCE = "scenes?size=16&targets=mask"
RECIPE = FinetuneConfig(
    epochs=2.0,
    warmup_epochs=0.5,
    batch_size=16,
    task=Segmenting(head="mlp", channels=16),
    data=DataConfig(source=SOURCE, split="train[:64]", flips="dihedral"),
    test_split="test[:16]",
    optimizer=OptimizerConfig(base_lr=2e-2),
    mesh=MeshConfig(replica=1, fsdp=-1, min_shard_elements=0),
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("segment") / "run"
    tuned = Finetuning(small_encoder(), RECIPE).run(workdir)
    assert tuned.trained.state.extra  # statistics of norms, without which maps would be others
    return workdir, tuned


def by_hand(tuned, image, stride=12):
    """Classes of every pixel, from the parameters that the training ended with."""
    state, task = tuned.trained.state, tuned.task
    params, extra = jax.device_get((state.params, state.extra))
    tell = jax.jit(lambda x: resize(task.logits(params, extra, x), x.shape[1:3]))
    return sliding_classes(image, tell, Windows((16, 16), (stride, stride)))


def predict(tuned, folder, output, **flags):
    return call(command("predict", checkpoint=tuned[0], input=folder, output=output, **flags))


def refused(*args, **flags):
    done = predict(*args, **flags)
    assert len(done.stderr.splitlines()) == 1
    return error_of(done, 2)


def scene(height, width, seed=0):
    """Something with a structure, and not one of the training images."""
    source = open_source("scenes?size=64", "test")
    whole = np.concatenate([source[seed + i]["image"] for i in range(3)], axis=1)
    return np.ascontiguousarray(whole[:height, :width])


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def labels_of(path):
    return decode_mask(path.read_bytes(), str(path))


def agree(found, expected):
    """The same but for ties that the order of sums decides."""
    assert (found.shape, found.dtype) == (expected.shape, np.uint8)
    assert (found != expected).mean() < 0.002


def test_a_folder_of_pictures_of_any_size_is_mapped_and_scored(tuned, tmp_path):
    images = {
        "town/a.png": write(tmp_path / "in/town/a.png", scene(16, 16)),
        "b.png": write(tmp_path / "in/b.png", scene(40, 100, 3)),
        "small.png": write(tmp_path / "in/small.png", scene(9, 30, 6)),
        "grey.png": write(tmp_path / "in/grey.png", scene(20, 16)[..., 0]),
        "array.png": scene(40, 60, 3),
    }
    (tmp_path / "in/more").mkdir()
    np.save(tmp_path / "in/more/array.npy", images["array.png"])
    images["more/array.png"] = images.pop("array.png")
    done = predict(tuned, tmp_path / "in", tmp_path / "out", pictures=tmp_path / "seen")
    assert done.returncode == 0, done.stderr
    assert sorted(str(p.relative_to(tmp_path / "seen")) for p in (tmp_path / "seen").rglob("*.png")) == sorted(images)
    assert f"5 maps in {tmp_path / 'out'}" in done.stdout
    assert "images resized to 16 x 16 pixels; " in done.stderr
    assert "in/b.png has 40 x 100 and is looked at as it is stored" in done.stderr
    for name, image in images.items():
        expected = by_hand(tuned[1], np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image)
        assert len(np.unique(expected)) > 1
        agree(labels_of(tmp_path / "out" / name), expected)
    assert Image.open(tmp_path / "out/b.png").mode == "P"
    table = (tmp_path / "out/classes.csv").read_text().splitlines()
    assert table[0] == "index,name,rgb"
    assert [line.split(",")[1] for line in table[1:]] == [*tuned[1].config.task.classes, "no data"]
    flags = {"task": "segmentation", "classes": ",".join(tuned[1].config.task.classes), "json": tmp_path / "x.json"}
    scored = call(command("score", predictions=tmp_path / "out", truth=tmp_path / "out", **flags))
    assert scored.returncode == 0, scored.stderr
    assert json.loads((tmp_path / "x.json").read_text())["oa"] == 1


def test_the_stride_is_that_of_the_flag(tuned, tmp_path):
    image = write(tmp_path / "a.png", scene(33, 50))
    assert predict(tuned, tmp_path / "a.png", tmp_path / "out", stride=5, batch_size=1).returncode == 0
    agree(labels_of(tmp_path / "out/a.png"), by_hand(tuned[1], image, 5))
    assert (by_hand(tuned[1], image, 5) != by_hand(tuned[1], image, 16)).mean() > 0.002


def georaster(path, image, **profile):
    rasterio = pytest.importorskip("rasterio", reason="needs the extra [geo]")
    shape = {"height": image.shape[0], "width": image.shape[1], "count": image.shape[2], "dtype": image.dtype}
    place = {"crs": "EPSG:32639", "transform": rasterio.transform.from_origin(500_000, 2_800_000, 0.3, 0.3)}
    with rasterio.open(path, "w", **{"driver": "GTiff", **shape, **place, **profile}) as file:
        file.write(np.moveaxis(image, 2, 0))
    return rasterio


LOSSLESS = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES", "YCBCR420": "NO"}


@pytest.mark.parametrize(("name", "profile"), [("a.tif", {}), ("a.jp2", LOSSLESS)])
def test_an_image_with_a_place_becomes_a_geotiff_at_the_same_place(tuned, tmp_path, name, profile):
    image = scene(45, 70)
    rasterio = georaster(tmp_path / name, image, **profile)
    done = predict(tuned, tmp_path / name, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / name) as source, rasterio.open(tmp_path / "out/a.tif") as file:
        assert (file.crs, file.transform, file.shape) == (source.crs, source.transform, source.shape)
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
        agree(file.read(1), by_hand(tuned[1], image))
        assert len({file.colormap(1)[i] for i in range(8)}) == 8
        assert file.tags(1)["CLASS_0"] == tuned[1].config.task.classes[0]
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_what_was_not_measured_is_the_ignored_label_and_seen_as_the_mean(tuned, tmp_path):
    image = scene(40, 40).astype(np.float32)
    mean = np.asarray(tuned[1].config.data.mean, np.float32)
    seen, hole = image.copy(), np.zeros((40, 40), bool)
    hole[10:14, 20:29] = hole[30, 3] = True
    image[10:14, 20:29], image[30, 3], image[5, 5, 1] = -9999, np.nan, -9999
    seen[hole], seen[5, 5, 1] = mean, mean[1]
    rasterio = georaster(tmp_path / "a.tif", image, nodata=-9999)
    with pytest.MonkeyPatch.context() as patch:  # as of a run whose images are gone, so that nothing says 8 bits
        patch.setattr("scaling.tasks.unseen.training_dtype", lambda encoder: None)
        done = predict(tuned, tmp_path / "a.tif", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = by_hand(tuned[1], seen)
    expected[hole] = 255
    with rasterio.open(tmp_path / "out/a.tif") as file:
        agree(file.read(1), expected)
        np.testing.assert_array_equal(file.read(1) == 255, hole)
        np.testing.assert_array_equal(file.read_masks(1) == 0, hole)


def test_a_declared_zero_of_colours_is_not_measured_where_all_bands_have_it(tuned, tmp_path):
    image = np.maximum(scene(20, 30), 1)
    image[4:8, 5:9] = 0
    image[0, 0, 2] = 0
    rasterio = georaster(tmp_path / "a.tif", image, nodata=0)
    assert predict(tuned, tmp_path / "a.tif", tmp_path / "out").returncode == 0
    with rasterio.open(tmp_path / "out/a.tif") as file:
        np.testing.assert_array_equal(file.read(1) == 255, (image == 0).all(2))


def test_an_alpha_channel_says_what_was_measured(tuned, tmp_path):
    image = np.concatenate([scene(20, 30), np.full((20, 30, 1), 255, np.uint8)], axis=2)
    image[:3, :, 3] = 0
    rasterio = georaster(tmp_path / "a.tif", image, photometric="rgb", alpha="yes")
    assert predict(tuned, tmp_path / "a.tif", tmp_path / "out").returncode == 0
    with rasterio.open(tmp_path / "out/a.tif") as file:
        np.testing.assert_array_equal(file.read(1) == 255, image[..., 3] == 0)


def test_bands_are_chosen_and_otherwise_have_to_fit(tuned, tmp_path):
    image = scene(20, 20)
    more = np.concatenate([np.zeros_like(image[..., :1]), image[..., ::-1]], axis=2)
    rasterio = georaster(tmp_path / "a.tif", more, photometric="minisblack")
    message = refused(tuned, tmp_path / "a.tif", tmp_path / "out")
    assert "has 4 bands, but the model takes 3 bands" in message
    assert "with --bands=…" in message
    assert predict(tuned, tmp_path / "a.tif", tmp_path / "out", bands="3,2,1").returncode == 0
    with rasterio.open(tmp_path / "out/a.tif") as file:
        agree(file.read(1), by_hand(tuned[1], image))


def test_wrong_input_is_one_line_before_anything_is_computed(tuned, uninterrupted_run, tmp_path, monkeypatch):
    monkeypatch.setattr(COMMAND, "write_maps", lambda *args: pytest.fail("something was computed"))
    write(tmp_path / "in/a.png", scene(16, 20))
    inside, out = tmp_path / "in", tmp_path / "out"
    assert "is a run of train, which does not predict anything" in refused((uninterrupted_run[0],), inside, out)
    assert "has no folder `checkpoints`" in refused((tmp_path,), inside, out)
    assert "--output: is missing" in refused(tuned, inside, "")
    assert "no such file or folder" in refused(tuned, tmp_path / "nowhere", out)
    assert "--stride=17: must not skip pixels; windows have 16 x 16" in refused(tuned, inside, out, stride=17)
    (tmp_path / "none").mkdir()
    assert "must hold images" in refused(tuned, tmp_path / "none", out)
    pictures = {"pictures": tmp_path / "pictures"}
    for rgb, more in (("9,1,0", pictures), ("1,0", pictures)):
        assert f"--rgb={rgb}: must be three bands from 0 to 2" in refused(tuned, inside, out, rgb=rgb, **more)
    assert "--rgb=0,1,2: is for pictures; set --pictures=DIR" in refused(tuned, inside, out, rgb="0,1,2")
    (tmp_path / "a.txt").write_text("")
    assert "or .npy file, or a folder of them" in refused(tuned, tmp_path / "a.txt", out)
    assert "a.png: has pixels of uint16, the training had uint8" in refused(
        tuned, write_16_bits(tmp_path / "deep/a.png"), out
    )
    with monkeypatch.context() as patch:
        patch.setattr("scaling.tasks.unseen.training_dtype", lambda encoder: None)
        assert "they are in other units" in refused(tuned, tmp_path / "deep/a.png", out)
    assert not out.exists()
    write(out / "a.png", scene(4, 4))
    assert "a.png is there already (1 such files); choose another folder" in refused(tuned, inside, out)
    assert "would be lost; choose another folder" in refused(tuned, inside, tmp_path / "x", pictures=tmp_path / "x")
    message = refused(tuned, inside, tmp_path / "x", pictures=out)
    assert f"--pictures={out}: a.png is there already" in message
    write(inside / "a.jpg", scene(16, 20))
    assert "would both become a.png" in refused(tuned, inside, tmp_path / "other")
    (inside / "a.jpg").write_bytes(b"\xff\xd8\xff")
    assert "a.jpg: " in refused(tuned, inside, tmp_path / "other")


def write_16_bits(path):
    path.parent.mkdir()
    path.write_bytes(imagecodecs.png_encode(scene(16, 16).astype(np.uint16) * 40))
    return path


def test_a_damaged_geotiff_is_one_line(tuned, tmp_path):
    georaster(tmp_path / "a.tif", scene(64, 60))
    (tmp_path / "b.tif").write_bytes(b"II*\0 and nothing else")
    assert "b.tif: cannot be read" in refused(tuned, tmp_path / "b.tif", tmp_path / "out")
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    assert "a.tif: cannot be read" in refused(tuned, tmp_path / "a.tif", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tiff_without_rasterio_is_one_line(tuned, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    assert refused(tuned, tmp_path, tmp_path / "out") == "this needs rasterio: pip install rasterio, or the extra [geo]"


def test_a_map_is_whole_or_not_there(tuned, tmp_path, monkeypatch):
    write(tmp_path / "a.png", scene(60, 20))
    monkeypatch.setattr("scaling.tasks.maps._labels", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert predict(tuned, tmp_path / "a.png", tmp_path / "out").returncode == 3
    assert not (tmp_path / "out").exists()


def test_files_for_the_server_of_loveda_are_named_and_counted_as_it_reads_them(tuned, tmp_path, monkeypatch):
    images = {name: scene(20, 24, i) for i, name in enumerate(("Urban/images_png/4191", "Rural/images_png/5020"))}
    for name, image in images.items():
        write(tmp_path / f"LoveDA/Test/{name}.png", image)
    loveda, out = tmp_path / "LoveDA", tmp_path / "out"
    assert "give one of LoveDA's classes: background, building" in refused(tuned, loveda, out, format="loveda")
    for module in (COMMAND, submissions):
        monkeypatch.setattr(module, "CLASSES", tuned[1].config.task.classes)
    assert "no folders Train, Val or Test there" in refused(tuned, loveda / "Test", out, format="loveda")
    done = predict(tuned, loveda, out, format="loveda")
    assert done.returncode == 0, done.stderr
    assert "2 files, labels 0 to 7 as the server reads them" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["4191.png", "5020.png"]
    for name, image in images.items():
        file = out / f"{name.rpartition('/')[2]}.png"
        assert Image.open(file).mode == "L"
        agree(np.asarray(Image.open(file)), by_hand(tuned[1], image))
    assert "is there already; the files for the server are alone" in refused(tuned, loveda, out, format="loveda")
    write(loveda / "Test/Urban/images_png/5020.png", scene(20, 24))
    assert "would both become 5020.png" in refused(tuned, loveda, tmp_path / "other", format="loveda")
