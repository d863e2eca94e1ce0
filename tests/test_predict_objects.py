"""Objects of images of any size by a run of detection, from the command to its files."""

import dataclasses
import importlib
import json
import re
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from scaling.boxes.convert import corners
from scaling.boxes.polygons import polygon_nms
from scaling.data.config import DataConfig
from scaling.data.sources.registry import open_source
from scaling.data.tiling import Tiling
from scaling.models.config import ViTConfig
from scaling.parallel.mesh import MeshConfig
from scaling.tasks.detection import Detecting
from scaling.tasks.finetuning import Finetuning
from scaling.tasks.segmentation import Segmenting
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig
from tests.commands import call, command, error_of
from tests.encoders.examples import small_encoder

COMMAND = importlib.import_module("scaling.predict")  # the package has a function of the name
SIZE = 32


@dataclasses.dataclass(frozen=True)
class Finding:
    """The task of a finished run."""

    name: str = "detection"
    classes: tuple[str, ...] = ("ship", "tank")
    rules: str = "dota"


CONFIG = FinetuneConfig(
    task=Finding(),
    model=ViTConfig(image_size=SIZE, patch_size=8),
    data=DataConfig(source="scenes?size=32&count=8&targets=boxes", crop="ratio", mean=(100.0,) * 3, std=(50.0,) * 3),
)


def bright_rectangles(pixels):
    """A stand-in for `Task.detections`: bright rectangles that touch no edge of a tile; blue ones are tanks."""
    told = {
        "boxes": np.zeros((len(pixels), 9, 5), np.float32),
        "scores": np.zeros((len(pixels), 9), np.float32),
        "labels": np.zeros((len(pixels), 9), np.int32),
        "valid": np.zeros((len(pixels), 9), bool),
    }
    for row, tile in enumerate(pixels):
        bright = tile[..., 2] > 180
        for n, (down, across) in enumerate(ndimage.find_objects(ndimage.label(bright)[0])):
            h, w = down.stop - down.start, across.stop - across.start
            if min(down.start, across.start) == 0 or SIZE in (down.stop, across.stop):
                continue
            angle = 0 if w >= h else np.pi / 2
            told["boxes"][row, n] = across.start + w / 2, down.start + h / 2, max(w, h), min(w, h), angle
            told["labels"][row, n] = tile[down.start, across.start, 0] < 100
            told["scores"][row, n], told["valid"][row, n] = 0.5 + 0.01 * w, True
    return told


@pytest.fixture
def run(monkeypatch):
    """A run that finds bright rectangles."""
    monkeypatch.setattr(COMMAND, "finished_config", lambda *args: CONFIG)
    monkeypatch.setattr("scaling.tasks.detection_run.DetectionRun.load", lambda self: bright_rectangles)
    monkeypatch.setattr("scaling.tasks.unseen.training_dtype", lambda encoder: None)


def predict(folder, output, **flags):
    return call(command("predict", checkpoint="run", input=folder, output=output, **flags))


def refused(*args, **flags):
    done = predict(*args, **flags)
    assert len(done.stderr.splitlines()) == 1
    return error_of(done, 2)


OBJECTS = ((5, 20, 9, 4, "ship"), (30, 31, 4, 8, "tank"), (60, 9, 6, 5, "ship"), (70, 40, 7, 7, "tank"))


def scene(height=60, width=90, objects=OBJECTS):
    image = np.random.default_rng(0).integers(60, 140, (height, width, 3), dtype=np.uint8)
    for x, y, w, h, name in objects:
        image[y : y + h, x : x + w] = (255, 255, 255) if name == "ship" else (20, 40, 255)
    return image


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def label_lines(objects=OBJECTS):
    return [f"{x} {y} {x + w} {y} {x + w} {y + h} {x} {y + h} {name} 0" for x, y, w, h, name in objects]


def features(path):
    return json.loads(path.read_text())["features"]


def test_objects_of_a_folder_are_written_as_text_and_geojson_and_scored(run, tmp_path):
    write(tmp_path / "in/town/P1.png", scene())
    write(tmp_path / "in/P2.png", scene(20, 24, OBJECTS[:0]))
    write(tmp_path / "in/P3.png", scene(40, 33, OBJECTS[:1])[..., 0])  # grey
    for name, objects in (("P1", OBJECTS), ("P2", ()), ("P3", OBJECTS[:1])):
        (tmp_path / "labelTxt").mkdir(exist_ok=True)
        (tmp_path / f"labelTxt/{name}.txt").write_text("\n".join(label_lines(objects)))
    flags = {"pictures": tmp_path / "seen", "truth": tmp_path / "labelTxt", "stride": 16, "batch_size": 3}
    done = predict(tmp_path / "in", tmp_path / "out", **flags)
    assert done.returncode == 0, done.stderr
    assert "5 objects of 2 classes in 3 images" in done.stdout
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert names == ["P2.geojson", "P3.geojson", "Task1_ship.txt", "Task1_tank.txt", "town/P1.geojson"]
    ships = [line.split() for line in (tmp_path / "out/Task1_ship.txt").read_text().splitlines()]
    assert sorted(line[0] for line in ships) == ["P1", "P1", "P3"]
    found = features(tmp_path / "out/town/P1.geojson")
    assert [feature["properties"]["score"] for feature in found] == [0.59, 0.57, 0.56, 0.54]
    assert {feature["properties"]["class"] for feature in found} == {"ship", "tank"}
    boxes = {tuple(np.ptp(np.array(f["geometry"]["coordinates"][0]), axis=0).round(3).tolist()) for f in found}
    assert boxes == {(w, h) for _, _, w, h, _ in OBJECTS}
    assert "pixels" in json.loads((tmp_path / "out/P2.geojson").read_text())["coordinates"]
    assert sorted(path.stem for path in (tmp_path / "seen").rglob("*.png")) == ["P1", "P2", "P3"]
    report = tmp_path / "x.json"
    what = {"task": "detection", "predictions": tmp_path / "out", "truth": tmp_path / "labelTxt", "json": report}
    scored = call(command("score", classes="ship,tank", **what))
    assert scored.returncode == 0, scored.stderr
    assert json.loads(report.read_text())["map_50_95"] == 1


def test_low_scores_are_left_out_and_the_archive_for_the_server_is_written(run, tmp_path):
    write(tmp_path / "P1.png", scene())
    done = predict(tmp_path / "P1.png", tmp_path / "out", least_score=0.58, stride=16, format="dota")
    assert done.returncode == 0, done.stderr
    assert len(features(tmp_path / "out/P1.geojson")) == 1
    with zipfile.ZipFile(tmp_path / "out/Task1.zip") as archive:
        assert archive.namelist() == ["Task1_ship.txt"]
        assert archive.read("Task1_ship.txt") == (tmp_path / "out/Task1_ship.txt").read_bytes()
    assert (tmp_path / "out/Task1_tank.txt").read_text() == ""


RADIUS = 6378137.0  # metres, of the sphere of web maps


def test_objects_of_a_geotiff_lie_on_earth_and_not_where_nothing_was_measured(run, tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="needs the extra [geo]")
    image = scene()
    image[35:, 66:] = 0
    image[40:47, 70:77] = (20, 40, 255)
    shape = {"height": 60, "width": 90, "count": 3, "dtype": "uint8"}
    mask = np.full((60, 90), 255, np.uint8)
    mask[38:50, 68:80] = 0
    place = {"crs": "EPSG:3857", "transform": rasterio.transform.from_origin(1_000_000, 6_000_000, 2, 2)}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "a.tif", "w", "GTiff", **shape, **place) as f,
    ):
        f.write(np.moveaxis(image, 2, 0))
        f.write_mask(mask)
    done = predict(tmp_path / "a.tif", tmp_path / "out", stride=16)
    assert done.returncode == 0, done.stderr
    found = features(tmp_path / "out/a.geojson")
    assert "coordinates" not in json.loads((tmp_path / "out/a.geojson").read_text())
    assert len(found) == 3  # that of which the middle was not measured is not there
    for feature in found:
        pixels, (ring,) = np.array(feature["properties"]["pixels"]), feature["geometry"]["coordinates"]
        x, y = 1_000_000 + 2 * pixels[:, 0], 6_000_000 - 2 * pixels[:, 1]
        degrees = np.degrees(np.stack([x / RADIUS, 2 * np.arctan(np.exp(y / RADIUS)) - np.pi / 2], 1))
        assert {tuple(point) for point in np.round(ring, 7).tolist()} == {tuple(p) for p in degrees.round(7).tolist()}
        longitude, latitude = np.array(ring).T
        assert (longitude[:-1] * latitude[1:] - longitude[1:] * latitude[:-1]).sum() > 0
    assert {tuple(f["properties"]["pixels"][0]) for f in found} <= {
        corner for x, y, w, h, _ in OBJECTS for corner in ((x, y), (x + w, y), (x, y + h), (x + w, y + h))
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"stride": 33}, "--stride=33: must not skip pixels; tiles have 32 x 32"),
        ({"rates": "1,x"}, "--rates=1,x: give numbers, as 0.5,1,1.5"),
        ({"rates": "0"}, "rates=0.0: must be numbers above 0, by which images are resized"),
        ({"format": "loveda"}, "--format=loveda: a run of detection writes no maps; leave it out"),
        ({"truth": "labelTxt"}, "--truth=.*labelTxt: it is drawn in pictures; set --pictures=DIR"),
        ({"truth": "nowhere", "pictures": "x"}, "--truth=.*nowhere: no such folder"),
        ({"truth": ".", "pictures": "x"}, r"no P1.txt there; an image without objects needs an empty one"),
        ({"truth": "labelTxt", "pictures": "x"}, r"P1.txt: unknown class 'ships'; did you mean ship\?"),
        ({"input": "twice"}, "would both be called P1 in Task1_<class>.txt; rename one"),
        ({"input": "spaces"}, "must have no spaces, because it becomes a word of a line of text; rename it"),
        ({"input": "tiles", "format": "dota"}, r"P1__1__0___0.png: DOTA's server refuses detections of tiles"),
        ({"output": "there"}, r"Task1_tank.txt is there already \(1 such files\); choose another folder"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_computed(run, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr(COMMAND, "write_found", lambda *args: pytest.fail("something was computed"))
    for name in ("in/P1.png", "twice/P1.png", "twice/a/P1.jpg", "spaces/P 1.png", "tiles/P1__1__0___0.png"):
        write(tmp_path / name, scene(20, 20))
    for name in ("labelTxt", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "labelTxt/P1.txt").write_text("1 1 2 1 2 2 1 2 ships 0")
    (tmp_path / "there/Task1_tank.txt").write_text("")
    given = {"input": "in", "output": "out", **flags}
    given |= {name: tmp_path / given[name] for name in ("input", "output", "truth", "pictures") if name in given}
    assert re.search(message, refused(given.pop("input"), given.pop("output"), **given))
    assert not (tmp_path / "out").exists()


def test_flags_of_one_kind_of_run_are_refused_by_the_other(run, tmp_path, monkeypatch):
    other = dataclasses.replace(CONFIG, task=Segmenting(classes=("a", "b")))
    monkeypatch.setattr(COMMAND, "finished_config", lambda *args: other)
    write(tmp_path / "a.png", scene(20, 20))
    for flag, value in (("rates", "1,2"), ("least_score", 0.5), ("truth", tmp_path)):
        message = refused(tmp_path / "a.png", tmp_path / "out", **{flag: value})
        assert f"--{flag} is for runs of detection; run is one of segmentation" in message
    assert "finds no objects" in refused(tmp_path / "a.png", tmp_path / "out", format="dota")


def test_tiles_are_square(run, tmp_path, monkeypatch):
    model = dataclasses.replace(CONFIG.model, image_size=32, image_width=64)
    monkeypatch.setattr(COMMAND, "finished_config", lambda *args: dataclasses.replace(CONFIG, model=model))
    write(tmp_path / "a.png", scene(20, 20))
    assert "takes 32 x 64 pixels, and tiles are square" in refused(tmp_path / "a.png", tmp_path / "out")


@pytest.mark.long
def test_a_run_finds_what_its_task_finds_in_the_tiles(tmp_path):
    recipe = FinetuneConfig(
        epochs=1.0,
        warmup_epochs=0.0,
        batch_size=8,
        task=Detecting(
            channels=16,
            hidden=32,
            proposals=20,
            anchor_samples=16,
            roi_samples=16,
            detections=10,
            most=64,
            least_score=0.0,
        ),
        data=DataConfig(source="scenes?size=32&targets=boxes", split="train[:16]", crop="ratio"),
        test_split="test[:8]",
        optimizer=OptimizerConfig(base_lr=1e-3),
        mesh=MeshConfig(replica=1, fsdp=-1, min_shard_elements=0),
    )
    tuned = Finetuning(small_encoder(), recipe).run(tmp_path / "run")
    image = open_source("scenes?size=64&targets=boxes", "test")[2]["image"][:30, :50]
    write(tmp_path / "a.png", image)
    done = call(command("predict", checkpoint=tmp_path / "run", input=tmp_path / "a.png", output=tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    params, classes = jax.device_get(tuned.trained.state.params), tuned.config.task.classes
    find = jax.jit(lambda x: tuned.task.detections(params, {}, x))
    expected = []
    for tile in Tiling(16, 3).tiles(30, 50):
        told = {name: np.asarray(x)[0] for name, x in find(tile.cut(image)[None]).items()}
        for box, score, label, valid in zip(
            *(told[name] for name in ("boxes", "scores", "labels", "valid")), strict=True
        ):
            if valid:
                expected.append((corners(box.astype(float)) + np.array([tile.x, tile.y]), score, label))
    inside = [(q, s, k) for q, s, k in expected if (q.mean(0) >= 0).all() and (q.mean(0) < (50, 30)).all()]
    found = 0
    for i, name in enumerate(classes):
        outlines, scores = (np.array([one[part] for one in inside if one[2] == i]) for part in (0, 1))
        kept = polygon_nms(outlines.reshape(-1, 4, 2), scores)
        lines = [line.split() for line in (tmp_path / f"out/Task1_{name}.txt").read_text().splitlines()]
        assert len(lines) == len(kept)
        told = np.array([line[1:] for line in lines], float).reshape(-1, 9)
        np.testing.assert_allclose(told[:, 0], scores[kept], atol=1e-4)
        np.testing.assert_allclose(told[:, 1:], outlines.reshape(-1, 8)[kept], atol=2e-2)
        found += len(kept)
    assert found > 10
