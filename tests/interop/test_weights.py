"""Files of weights are read as they are, and a file that would do more than hold weights is refused."""

import collections
import gzip
import io
import json
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from scaling.core.errors import UserError
from scaling.interop.weights import files_of, read_weights
from tests.data.examples import shared, truncate
from tests.interop.torch_files import Tensor, save, tensor
from tests.torch_only import needs

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.bool_])
def test_arrays_of_every_type_come_back_to_the_last_bit(tmp_path, dtype):
    arrays = {"a.weight": RNG.normal(size=(3, 4)).astype(dtype), "b": np.asarray(1).astype(dtype)}
    read = read_weights(save(tmp_path / "w.pth", {name: tensor(x) for name, x in arrays.items()}))
    assert read.keys() == arrays.keys()
    for name, x in arrays.items():
        assert read[name].dtype == x.dtype
        np.testing.assert_array_equal(read[name], x)


def test_views_share_a_storage(tmp_path):
    storage = np.arange(12, dtype=np.float32)
    content = {"transposed": Tensor(storage, (4, 3), (1, 4)), "part": Tensor(storage, (2,), (3,), offset=5)}
    read = read_weights(save(tmp_path / "w.pth", content))
    np.testing.assert_array_equal(read["transposed"], storage.reshape(3, 4).T)
    np.testing.assert_array_equal(read["part"], [5, 8])


def test_wrappers_become_prefixes_and_the_rest_is_left_out(tmp_path):
    weights = collections.OrderedDict(weight=tensor(np.ones(2, np.float32)))
    read = read_weights(save(tmp_path / "w.pth", {"model": weights, "epoch": 3, "losses": [1.0], "name": "x"}))
    assert list(read) == ["model.weight"]


def test_safetensors_are_told_by_their_content(tmp_path):
    arrays = {"a": RNG.normal(size=(2, 3)).astype(np.float32), "b": np.arange(3)}
    save_file(arrays, tmp_path / "w.bin")
    read = read_weights(tmp_path / "w.bin")
    for name, x in arrays.items():
        np.testing.assert_array_equal(read[name], x)


class Command:
    """Runs a command when it is unpickled by whoever is careless."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_a_file_that_would_run_a_command_is_refused(tmp_path):
    file = save(tmp_path / "w.pth", {"a": tensor(np.ones(2, np.float32)), "b": Command(tmp_path / "ran")})
    with pytest.raises(
        UserError, match=r"w\.pth: asks for (posix|nt)\.system, which does not belong in a file of weights"
    ):
        read_weights(file)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Command(tmp_path / "ran")))  # it would have
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        Tensor(np.arange(4, dtype=np.float32), (5,), (1,)),
        Tensor(np.arange(4, dtype=np.float32), (2, 2), (3, 1)),
        Tensor(np.arange(4, dtype=np.float32), (2,), (1,), offset=3),
        Tensor(np.arange(4, dtype=np.float32), (2,), (-1,), offset=1),
        Tensor(np.arange(4, dtype=np.float32), (2, 2), (1,)),
    ],
    ids=["too long", "too wide", "beyond the end", "backwards", "strides missing"],
)
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="is damaged"):
        read_weights(save(tmp_path / "w.pth", {"a": content}))


def test_damaged_files_are_one_sentence(tmp_path):
    whole = {"a": tensor(RNG.normal(size=1000).astype(np.float32))}
    half = save(tmp_path / "half.pth", whole)
    truncate(half)
    packed = save(tmp_path / "packed.pth", whole, compression=zipfile.ZIP_DEFLATED)
    old, other, short = tmp_path / "old.pth", tmp_path / "other.zip", tmp_path / "short.safetensors"
    old.write_bytes(pickle.dumps({"a": 1}))
    save_file({"a": np.ones(1000)}, short)
    truncate(short)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "a")
    for file, message in (
        (half, "half.pth: is not a zip archive: truncated"),
        (packed, "compressed or too short"),
        (old, "saved by a torch before 1.6"),
        (other, r"without data\.pkl"),
        (short, "short.safetensors: is damaged"),
        (tmp_path / "none", "there is no such file of weights"),
        (save(tmp_path / "empty.pth", {"epoch": 1}), "has no arrays"),
    ):
        with pytest.raises(UserError, match=message):
            read_weights(file)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'[{"weight": [1.0, 2.0]}]', "a JSON list"),
        (b" \n[]", "a JSON list"),
        (b"accuracy: 0.9\n", "plain text"),
        ("weights of the encoder, gewöhnlich\r\n".encode(), "plain text"),
        ("gewöhnlich".encode("latin-1"), "plain text"),
        ("name,value\na,1\n".encode("utf-16"), "plain text"),
        (b"a, b\n" * 1000, "plain text"),
        (b"\xef\xbb\xbf" + b'{"weight_map": {}}', "JSON with a byte-order mark"),
    ],
)
def test_text_is_named(tmp_path, content, what):
    file = tmp_path / "weights.bin"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_weights(file)
    assert (
        f"weights.bin: must be a file of weights, and is {what}, and no weights; weights are a .safetensors file"
        in str(error.value)
    )


def test_binary_that_is_of_no_kind_is_no_text(tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(UserError, match="neither safetensors nor a zip archive: truncated"):
        read_weights(file)


def shards(folder, ending="safetensors"):
    """Two files and their index, as the hub keeps large models."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    parts = {"a": np.ones((2, 3), np.float32), "b": np.arange(4, dtype=np.float32)}
    where = {}
    for i, (key, x) in enumerate(parts.items(), start=1):
        where[key] = f"{stem}-{i:05d}-of-00002.{ending}"
        if ending == "safetensors":
            save_file({key: x}, folder / where[key])
        else:
            save(folder / where[key], {key: tensor(x)})
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 40}, "weight_map": where}))
    return index, parts


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_an_index_stands_for_all_its_files(tmp_path, ending):
    index, parts = shards(tmp_path, ending)
    read = read_weights(index)
    assert read.keys() == parts.keys()
    for name, x in parts.items():
        np.testing.assert_array_equal(read[name], x)
    assert [file.name[-len(ending) :] for file in files_of(index)[1:]] == [ending, ending]
    one = next(tmp_path.glob("*-00001-of-00002*"))
    with pytest.raises(UserError, match=rf"is one file of 2; give their index, .*{ending}.index.json"):
        read_weights(one)
    one.unlink()
    with pytest.raises(UserError, match=r"1 of 2 files are not beside it, first .*-00001-of-00002"):
        read_weights(index)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a": "../a.safetensors"}, r"a is in '\.\./a\.safetensors', which is not a file beside it"),
        ({"a": 3}, "which is not a file beside it"),
        ({"c": "model-00001-of-00002.safetensors"}, "c is not in model-00001-of-00002.safetensors"),
        ({}, "is JSON without a weight_map"),
    ],
    ids=str,
)
def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path, where, message):
    index, _ = shards(tmp_path)
    index.write_text(json.dumps({"weight_map": where}))
    with pytest.raises(UserError, match=message):
        read_weights(index)


def archive(**files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
    return content.getvalue()


def numpy_file(write):
    content = io.BytesIO()
    write(content)
    return content.getvalue()


OTHERS = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
    "page": (b"\n<!DOCTYPE html>\n<html>", "a web page"),
    "small page": (b"<html><body>Sign in", "a web page"),
    "answer": (b"<?xml version='1.0'?><Error>", "an XML answer of a server"),
    "settings": (b'{"hidden_size": 768}', "JSON without a weight_map"),
    "list": (b"[1, 2, 3]              ", "a JSON list"),
    "broken index": (b'{"weight_map": {', "is text, and no weights"),
    "empty": (b"", "is empty"),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "npy": (numpy_file(lambda f: np.save(f, np.ones(3))), "a NumPy array without a name"),
    "npz": (numpy_file(lambda f: np.savez(f, a=np.ones(3))), r"a NumPy archive \(\.npz\)"),
    "gzip": (gzip.compress(b"weights"), "compressed by gzip"),
    "tar": (bytes(257) + b"ustar" + bytes(300), "a tar archive"),
    "old torch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "saved by a torch before 1.6"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a", "an ONNX program"),
    "script": (archive(**{"w/data.pkl": "", "w/code/__torch__.py": ""}), "a TorchScript program"),
    "gguf": (b"GGUF" + bytes(20), "a GGUF file"),
}


@pytest.mark.parametrize(("content", "message"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_weights_is_said_to_be_what_it_is(tmp_path, content, message):
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        read_weights(tmp_path / "w.bin")
    assert "\n" not in str(refused.value)


def test_a_folder_names_the_weights_in_it(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"is a folder; give one of its files, there is model.safetensors"):
        read_weights(tmp_path)


@pytest.mark.parametrize("keys", range(1, 40))
def test_safetensors_of_any_header_are_not_taken_for_something_else(tmp_path, keys):
    save_file({f"{'k' * 15}{i}": np.ones(1, np.float32) for i in range(keys)}, tmp_path / "w.safetensors")
    assert len(read_weights(tmp_path / "w.safetensors")) == keys


@pytest.mark.parametrize(("kind", "dtype"), [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")])
def test_eight_bit_floats_are_read(tmp_path, kind, dtype):
    x = np.array([0.5, -2.0, 1.5], getattr(ml_dtypes, dtype))
    raw_safetensors(tmp_path / "w.safetensors", kind, x.tobytes())
    np.testing.assert_array_equal(read_weights(tmp_path / "w.safetensors")["a"].astype(np.float32), [0.5, -2, 1.5])


@pytest.mark.parametrize(("kind", "size"), [("C64", 8), ("F4", 0.5)])
def test_a_type_that_is_not_read_is_named_with_its_key(tmp_path, kind, size):
    count = 4
    raw_safetensors(tmp_path / "w.safetensors", kind, bytes(int(count * size)), count)
    with pytest.raises(UserError, match=f"a has the type {kind}; those that are read"):
        read_weights(tmp_path / "w.safetensors")


def raw_safetensors(path, kind, content, count=3):
    header = json.dumps({"a": {"dtype": kind, "shape": [count], "data_offsets": [0, len(content)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)


def test_what_is_not_looked_at_is_not_read(tmp_path):
    big = {str(i): tensor(np.full(2**20, i, np.float32)) for i in range(16)}  # 64 MiB
    file = save(tmp_path / "w.pth", big)
    del big
    tracemalloc.start()
    read = read_weights(file)
    assert read["7"].mean() == 7
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


def test_a_real_file_has_the_shapes_its_model_says():
    read = read_weights(shared("weights/galileo_nano/encoder.pt"))
    assert len(read) == 106
    assert {x.dtype.name for x in read.values()} == {"float32"}
    assert read["blocks.0.attn.q.weight"].shape == (128, 128)
    assert all(np.isfinite(x).all() for x in read.values())


@pytest.mark.parity
def test_torch_reads_the_same(tmp_path):
    torch = needs()
    layer = torch.nn.Linear(3, 4)
    content = {"model": layer.state_dict(), "half": torch.randn(4, 6).bfloat16()[:, ::2].T, "parameter": layer.weight}
    torch.save(content, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth")
    np.testing.assert_array_equal(read["model.weight"], layer.weight.detach().numpy())
    np.testing.assert_array_equal(read["parameter"], layer.weight.detach().numpy())
    np.testing.assert_array_equal(read["half"].astype(np.float32), content["half"].float().numpy())
    theirs = torch.load(shared("weights/galileo_nano/encoder.pt"), map_location="cpu", weights_only=True)
    ours = read_weights(shared("weights/galileo_nano/encoder.pt"))
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        np.testing.assert_array_equal(ours[name], x.numpy())
