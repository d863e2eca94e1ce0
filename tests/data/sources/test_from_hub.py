"""Data sets in the hub: GEO-Bench folders and ArrayRecord sets, by hf:// in the place of a path."""

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import limited_split, open_source
from tests.commands import call, command, error_of
from tests.data.sources.test_geobench import multi_label_set, single_label_set
from tests.hub import COMMIT, serving


def served(folder, below):
    """The files of a folder as a repository has them."""
    return {f"{below}/{file.name}": file.read_bytes() for file in folder.iterdir() if file.is_file()}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Folders of two GEO-Bench sets and of the ArrayRecord files of one."""
    root = tmp_path_factory.mktemp("sets")
    single, several = single_label_set(root), multi_label_set(root)
    source = f"geobench:{several}"
    convert(
        Preparation(source, ("train", "test"), str(root / "records"), shard_size=3), 1, lambda _: None, lambda _: None
    )
    return {"geo/m-eurosat": single, "geo/m-bigearthnet": several, "records": root / "records"}


@pytest.fixture
def hub(sets, tmp_path):
    files = {path: content for below, folder in sets.items() for path, content in served(folder, below).items()}
    with serving({"acme/sets": files}, str(tmp_path / "cache")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("scheme", "path", "options"),
    [
        ("geobench", "geo/m-eurosat", "?bands=B04,B03,B02"),
        ("geobench", "geo/m-bigearthnet", ""),
        ("arrayrecord", "records", ""),
    ],
)
@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_a_set_in_the_hub_is_the_set_in_the_folder(sets, hub, scheme, path, options, revision):
    for split in ("train", "test", "train[:50%]"):
        ours = open_source(f"{scheme}:hf://datasets/acme/sets{revision}/{path}{options}", split)
        theirs = open_source(f"{scheme}:{sets[path]}{options}", split)
        assert (len(ours), ours.info) == (len(theirs), theirs.info)
        for i in range(len(theirs)):
            np.testing.assert_array_equal(ours[i]["image"], theirs[i]["image"])
            np.testing.assert_array_equal(ours[i]["label"], theirs[i]["label"])
    asked = len(hub.asked)
    assert limited_split(f"{scheme}:hf://datasets/acme/sets{revision}/{path}", "train", 1) == "train[:1]"
    assert len(hub.asked) == asked  # from the cache
    mine = [file for file in hub.files["acme/sets"] if file.startswith(f"{path}/")]
    assert asked == len(mine)  # nothing of the other sets


def test_an_interrupted_set_is_resumed_and_a_wrong_file_refused(sets, hub, tmp_path):
    spec = "arrayrecord:hf://datasets/acme/sets/records"
    shard = next(path for path in hub.files["acme/sets"] if path.endswith(".arrayrecord"))
    hub.lie.add(shard)
    with pytest.raises(UserError, match="the downloaded file has the checksum"):
        open_source(spec, "train")
    hub.lie.clear()
    assert len(open_source(spec, "train")) == 4
    with pytest.raises(UserError, match=r"there is no file or folder none in acme/sets"):
        open_source("geobench:hf://datasets/acme/sets/none", "train")
    with pytest.raises(UserError, match="acme/set does not exist, or is private"):
        open_source("arrayrecord:hf://datasets/acme/set/records", "train")
    hub.gated.add("acme/sets")
    with pytest.raises(UserError, match="is gated: accept its terms"):
        open_source("arrayrecord:hf://datasets/acme/sets@main/geo", "train")


def test_a_set_in_the_hub_is_prepared_here_and_not_there(hub, tmp_path):
    flags = {"source": "geobench:hf://datasets/acme/sets/geo/m-eurosat", "split": "train"}
    done = call(command("prepare", output="hf://datasets/acme/new", **flags))
    assert "--output=hf://datasets/acme/new: nothing is uploaded to the hub" in error_of(done, 2)
    done = call(command("prepare", output=tmp_path / "records", **flags))
    assert done.returncode == 0, done.stderr
    assert len(open_source(f"arrayrecord:{tmp_path}/records", "train")) == 2
