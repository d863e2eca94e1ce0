"""Files of weights are read as they are, and a file that would do more than hold weights is refused."""

import collections
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from scaling.errors import UserError
from scaling.interop.weights import read_weights
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
    with pytest.raises(UserError, match=r"w\.pth asks for (posix|nt)\.system, which is no part of a set of weights"):
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
        (half, "half.pth is no zip archive: truncated"),
        (packed, "compressed or too short"),
        (old, "saved by a torch before 1.6"),
        (other, r"without data\.pkl"),
        (short, "short.safetensors is damaged"),
        (tmp_path / "none", "there is no such file of weights"),
        (save(tmp_path / "empty.pth", {"epoch": 1}), "has no arrays"),
    ):
        with pytest.raises(UserError, match=message):
            read_weights(file)


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
