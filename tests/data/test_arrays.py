"""Files of numpy: every kind that people have is read, or refused in a sentence."""

import io
import zipfile

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.arrays import read_images, written_rows

IMAGES = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "array",
    [
        IMAGES,
        IMAGES.astype(np.float64),
        IMAGES.astype(np.float16),
        IMAGES.astype(">f4"),
        np.asfortranarray(IMAGES),
        IMAGES[::2],
        IMAGES[:0],
    ],
    ids=["float32", "float64", "float16", "big-endian", "Fortran", "strided", "no images"],
)
def test_numbers_are_read_whatever_their_layout(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", images=array)
    np.savez_compressed(tmp_path / "small.npz", array)
    for name in ("x.npy", "x.npz", "small.npz"):
        np.testing.assert_array_equal(read_images("input", str(tmp_path / name)), array)


def test_a_local_file_is_mapped_not_read(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    assert isinstance(read_images("input", str(tmp_path / "x.npy")), np.memmap)


def saved(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def archive(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("0.jpg", content)
    return file.getvalue()


NPY, NPZ = saved(np.save, IMAGES), saved(np.savez_compressed, IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"", "it is empty"),
        (b"PK\x03\x04", "File is not a zip file"),
        (NPY[:100], "cannot be read as .npy: "),
        (NPY[:-8], "cannot be read as .npy: "),
        (NPZ[:-30], "File is not a zip file"),
        (NPZ[:100] + NPZ[140:], "cannot be read as .npy: "),
        (b"<html>not found</html>", "it is not an array of numbers"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is not an array of numbers"),
        (saved(np.save, np.array([{"a": 1}, None])), "it holds Python objects, not numbers"),
        (saved(np.savez, np.array([None])), "it holds Python objects, not numbers"),
        (saved(np.savez, a=IMAGES, b=IMAGES), r"holds 2 arrays \(a, b\); give a file with one"),
        (saved(np.savez), r"holds 0 arrays \(none\)|File is not a zip file"),
        (archive(b"\xff\xd8"), "an archive without arrays"),
        (saved(np.save, IMAGES.astype(np.uint8)), "is uint8; give normalised float images"),
        (saved(np.save, IMAGES > 0), "is bool; give normalised float images"),
        (saved(np.save, IMAGES.astype(np.complex64)), "is complex64; give normalised float images"),
        (saved(np.save, np.array(["a"])), "is <U1; give normalised float images"),
        (saved(np.save, np.zeros(3, [("r", "f4"), ("g", "f4")])), "give normalised float images"),
    ],
    ids=range(19),
)
def test_what_cannot_be_read_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=message) as e:
        read_images("input", str(tmp_path / "x.npy"))
    assert str(e.value).startswith(f"--input={tmp_path}/x.npy: ")
    assert "\n" not in str(e.value)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match="is a folder; give the images in it as a source, folder:"):
        read_images("input", str(tmp_path))


@pytest.mark.parametrize("blocks", [[5], [2, 3], [0], [1] * 12, [7, 0, 5]])
@pytest.mark.parametrize("shape", [(), (6,), (3, 2)])
def test_a_file_grows_by_blocks(tmp_path, blocks, shape):
    parts = [np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32) for n in blocks]
    with written_rows(str(tmp_path / "y.npy")) as rows:
        for part in parts:
            rows.add(part)
            assert not (tmp_path / "y.npy").exists()
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.concatenate(parts))
    assert rows.shape == (sum(blocks), *shape)


def test_a_file_is_whole_or_what_it_was(tmp_path):
    (tmp_path / "y.npy").write_bytes(b"before")
    with pytest.raises(ValueError, match="cannot reshape"), written_rows(str(tmp_path / "y.npy")) as rows:
        rows.add(np.reshape(IMAGES, (7, 7)))
    assert (tmp_path / "y.npy").read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["y.npy"]


def test_a_file_in_a_bucket(bucket):
    with written_rows("gs://bucket/y.npy") as rows:
        rows.add(IMAGES)
        rows.add(IMAGES)
    np.testing.assert_array_equal(read_images("input", "gs://bucket/y.npy"), np.concatenate([IMAGES, IMAGES]))
