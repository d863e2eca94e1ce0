"""Predictions in files, scored from the command line."""

import json
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn import metrics

from scaling.core.errors import UserError
from scaling.data.masks import ColourTable, decode_mask
from tests.commands import call, command, error_of

CLASSES = ("water", "road", "field")
COLOURS = ("#0000FF", "#808080", "#FEDD3A")


def maps(count=4, classes=3, seed=0):
    """(truth, prediction) of different sizes, uint8."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = rng.integers(6, 20, 2)
        truth = rng.integers(classes, size=shape)
        yield truth.astype(np.uint8), np.where(rng.random(shape) < 0.7, truth, 1).astype(np.uint8)


def palette_png(path, labels):
    image = Image.fromarray(labels, "P")
    image.putpalette([200, 10, 30, 0, 0, 0, 7, 7, 7])
    image.save(path)


WRITERS = {
    "png": lambda path, labels: Image.fromarray(labels).save(path),
    "PNG": palette_png,
    "tif": tifffile.imwrite,
    "tiff": lambda path, labels: tifffile.imwrite(path, labels.astype(np.uint16), compression="zlib"),
    "npy": lambda path, labels: np.save(path, labels.astype(np.int64)),
}


def write(folder, arrays, ending="png"):
    for i, labels in enumerate(arrays):
        file = folder / f"town/{i}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[ending](file, labels)
    return folder


def pair(tmp_path, truth, predictions, ending="png"):
    return {"truth": write(tmp_path / "truth", truth), "predictions": write(tmp_path / "said", predictions, ending)}


def score(tmp_path, folders, classes=CLASSES, **flags):
    file = tmp_path / "scores.json"
    taken = {"task": "segmentation", "classes": ",".join(classes), "json": file, **folders, **flags}
    done = call(command("score", **taken))
    return done, json.loads(file.read_text()) if file.exists() else None


def refused(tmp_path, folders, classes=CLASSES, **flags):
    done, report = score(tmp_path, folders, classes, **flags)
    assert report is None
    assert len(done.stderr.splitlines()) == 1
    return error_of(done, 2)


@pytest.mark.parametrize("ending", WRITERS)
def test_files_of_every_kind_are_scored_as_by_scikit_learn(tmp_path, ending):
    truth, said = zip(*maps(), strict=True)
    done, report = score(tmp_path, pair(tmp_path, truth, said, ending))
    assert done.returncode == 0, done.stderr
    flat_truth, flat_said = (np.concatenate([x.ravel() for x in side]) for side in (truth, said))
    assert list(report) == ["miou", "oa", "mf1", "macc", "classes"]
    assert report["miou"] == pytest.approx(metrics.jaccard_score(flat_truth, flat_said, average="macro"))
    assert report["oa"] == pytest.approx(metrics.accuracy_score(flat_truth, flat_said))
    assert report["mf1"] == pytest.approx(metrics.f1_score(flat_truth, flat_said, average="macro"))
    assert report["macc"] == pytest.approx(metrics.balanced_accuracy_score(flat_truth, flat_said))
    each = {
        "iou": metrics.jaccard_score(flat_truth, flat_said, average=None),
        "f1": metrics.f1_score(flat_truth, flat_said, average=None),
        "accuracy": metrics.recall_score(flat_truth, flat_said, average=None),
    }
    for i, name in enumerate(CLASSES):
        assert report["classes"][name] == pytest.approx({score: values[i] for score, values in each.items()})
    assert "4 images" in done.stdout
    assert "95% interval" in done.stdout


def test_a_class_that_occurs_nowhere_is_left_out_and_named(tmp_path):
    truth, said = zip(*maps(), strict=True)
    folders = pair(tmp_path, truth, said)
    _, without = score(tmp_path, folders)
    done, report = score(tmp_path, folders, (*CLASSES, "tree", "car"))
    assert "occur nowhere or are ignored: tree, car" in done.stdout
    assert report["classes"].pop("tree") == report["classes"].pop("car") == dict.fromkeys(("iou", "f1", "accuracy"))
    assert report == without


def test_ignored_pixels_of_the_truth_count_nowhere(tmp_path):
    truth = np.array([[0, 0, 1, 255], [0, 1, 1, 255]], np.uint8)
    said = np.array([[0, 0, 1, 0], [0, 1, 0, 9]], np.uint8)
    _, report = score(tmp_path, pair(tmp_path, [truth], [said]), CLASSES[:2])
    assert report["oa"] == pytest.approx(5 / 6)
    assert report["classes"]["water"]["iou"] == pytest.approx(3 / 4)


def test_truth_counted_from_one_beside_predictions_counted_from_zero(tmp_path):
    """LoveDA as downloaded, beside the format of its server."""
    truth, said = zip(*maps(), strict=True)
    nothing = np.array([[0]], np.uint8)
    shifted = [np.pad(labels + 1, ((0, 1), (0, 0))) for labels in truth]
    padded = [np.pad(labels, ((0, 1), (0, 0)), constant_values=2) for labels in said]
    _, expected = score(tmp_path / "a", pair(tmp_path / "a", truth, said))
    folders = pair(tmp_path / "b", [*shifted, nothing], [*padded, nothing])
    assert score(tmp_path / "b", folders, reduce_zero_label="true")[1] == expected
    (tmp_path / "b/scores.json").unlink()
    assert "3 (" in refused(tmp_path / "b", folders)
    assert "--ignore=2: --reduce_zero_label renumbers this label" in refused(
        tmp_path / "b", folders, reduce_zero_label="true", ignore=2
    )


def test_colours_are_labels_where_a_table_says_so(tmp_path):
    truth, said = zip(*maps(), strict=True)
    palette = np.array([[0, 0, 255], [128, 128, 128], [0xFE, 0xDD, 0x3A]], np.uint8)
    _, expected = score(tmp_path / "a", pair(tmp_path / "a", truth, said))
    folders = pair(tmp_path / "b", [palette[labels] for labels in truth], said)
    assert "has 3 channels, not one label a pixel; give the colour of each class" in refused(tmp_path / "b", folders)
    assert score(tmp_path / "b", folders, colours=",".join(COLOURS))[1] == expected
    (tmp_path / "b/scores.json").unlink()
    message = refused(tmp_path / "b", folders, colours=",".join([*COLOURS[:2], "#000000"]))
    assert "colours that are not in the table of colours: #FEDD3A (" in message
    assert "2 colours for 3 classes" in refused(tmp_path / "b", folders, colours=",".join(COLOURS[:2]))
    assert "not written as in" in refused(tmp_path / "b", folders, colours="red,green,blue")


def test_wrong_input_is_one_line(tmp_path):
    truth, said = zip(*maps(), strict=True)
    folders = pair(tmp_path, truth, said)
    other = {**folders, "predictions": write(tmp_path / "short", said[:3])}
    assert "no partner of 1 of the 4 files of --truth=" in refused(tmp_path, other)
    assert "first 3.png" in refused(tmp_path, other)
    other = {"predictions": folders["truth"], "truth": other["predictions"]}
    assert "no partner of 1 of the 4 files of --predictions=" in refused(tmp_path, other)
    assert "no such folder" in refused(tmp_path, {**folders, "truth": tmp_path / "nowhere"})
    (tmp_path / "empty").mkdir()
    assert "no files of labels (.png" in refused(tmp_path, {**folders, "truth": tmp_path / "empty"})
    message = refused(tmp_path, folders, CLASSES[:2])
    assert "a class (0 to 1) nor ignored (255): 2 (" in message
    assert "all of its labels: 0 (" in message
    assert "town/0.png" in message
    assert "name 2 is empty" in refused(tmp_path, folders, ("water", "", "field"))
    assert "road occurs twice" in refused(tmp_path, folders, ("water", "road", "road"))
    assert "--classes: is missing" in refused(tmp_path, folders, ())
    assert "--truth: is missing" in refused(tmp_path, {"predictions": folders["predictions"]})
    write(tmp_path / "said", [said[0][:-1]])
    assert "pixels and its truth" in refused(tmp_path, folders)
    (tmp_path / "said/town/0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "said/town/0.png: " in refused(tmp_path, folders)
    write(tmp_path / "said", [said[0]], "npy")
    assert "town/0.npy and town/0.png have the same name" in refused(tmp_path, folders)


def test_truth_in_which_nothing_counts_is_refused(tmp_path):
    folders = pair(tmp_path, [np.full((4, 4), 255, np.uint8)], [np.zeros((4, 4), np.uint8)])
    assert "no pixel of 1 images counts: all of the truth is the ignored label 255" in refused(tmp_path, folders)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_few_bits_stay_the_numbers_that_are_stored(tmp_path, bits):
    """Most readers of pictures make 255 of the 1 of a black and white PNG."""
    labels = np.array([[0, 1, 1], [1, 0, 1]])
    chunk = lambda kind, data: len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)  # noqa: E731
    rows = b""
    for row in labels:
        written = "".join(f"{v:0{bits}b}" for v in row)
        written += "0" * (-len(written) % 8)
        rows += b"\0" + int(written, 2).to_bytes(len(written) // 8)
    header = (3).to_bytes(4) + (2).to_bytes(4) + bytes([bits, 0, 0, 0, 0])
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    png = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts.items())
    np.testing.assert_array_equal(decode_mask(png, "x"), labels)


def test_a_table_of_colours_gives_each_colour_one_label():
    with pytest.raises(UserError, match="stands for labels 0 and 2"):
        ColourTable.of_classes(["#000001", "#000002", "#000001"])


def test_detections_are_scored_by_the_rules_of_dota(tmp_path):
    square, away = "0 0 10 0 10 10 0 10", "100 0 110 0 110 10 100 10"
    for name, text in {
        "labelTxt/A.txt": f"gsd:0.1\n{square} ship 0\n{away} ship 1\n",
        "labelTxt/B.txt": f"{square} ship\n",
        "found/Task1_ship.txt": f"A .9 {square}\nA .8 {square}\nA .7 {away}\nB .6 0 0 10 0 10 5 0 5\nB .5 {square}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    flags = {"task": "detection", "predictions": tmp_path / "found", "truth": tmp_path / "labelTxt"}
    for rules, expected in (("dota", 0.772727), ("area", 0.75), ("dior", (4 + 7 * 0.75) / 11)):
        done = call(command("score", **flags, rules=rules, json=tmp_path / "scores.json"))
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "scores.json").read_text())
        assert report["map"] == report["classes"]["ship"]["ap"]
        assert report["map"] == pytest.approx(expected, abs=5e-7)
        assert "2 images" in done.stdout
    (tmp_path / "found/Task1_ship.txt").write_text(f"C .9 {square}\n")
    assert "1 of its images are not in" in error_of(call(command("score", **flags)), 2)
    assert "--truth: is missing" in error_of(call(command("score", **flags | {"truth": ""})), 2)
    assert "--classes: is missing" in error_of(call(command("score", **flags | {"task": "segmentation"})), 2)
