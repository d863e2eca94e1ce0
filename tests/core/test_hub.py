"""Addresses in the hub, against a local server of its protocol."""

import pytest

from scaling.core import hub as client
from scaling.core.errors import TemporaryError, UserError
from scaling.core.paths import user_path
from scaling.data.sources.registry import parsed
from scaling.interop.published import PUBLISHED, published
from tests.hub import COMMIT, serving

BIG = bytes(range(256)) * 4096


@pytest.fixture
def hub(tmp_path):
    files = {"acme/tiny": {"a/x.bin": BIG, "a/config.json": b"{}", "b.txt": b"b"}, "acme/set": {"m/one.hdf5": b"1"}}
    files["torchgeo/dofa"] = {"dofa_base_patch16_224-a0275954.pth": BIG}
    with serving(files, str(tmp_path / "cache")) as served:
        yield served


def test_an_address_has_its_parts():
    at = client.address("hf://datasets/acme/set@v1.0/m-eurosat/x.hdf5")
    assert (at.kind, at.repo, at.revision, at.path) == ("dataset", "acme/set", "v1.0", "m-eurosat/x.hdf5")
    at = client.address("hf://acme/tiny/")
    assert (at.kind, at.repo, at.revision, at.path) == ("model", "acme/tiny", "", "")
    with pytest.raises(UserError, match="hf://acme: must be hf://ORG/REPO"):
        client.address("hf://acme")


def test_a_file_comes_with_what_is_read_beside_it_and_from_the_cache_again(hub):
    file = user_path("input", f"hf://acme/tiny@{COMMIT}/a/x.bin")
    assert file.read_bytes() == BIG
    assert file.with_name("config.json").read_bytes() == b"{}"
    asked = len(hub.asked)
    assert user_path("input", f"hf://acme/tiny@{COMMIT}/a/x.bin") == file
    assert len(hub.asked) == asked


def test_a_folder_of_a_data_set_comes_whole(hub):
    folder = client.fetch("hf://datasets/acme/set/m")
    assert [file.name for file in folder.iterdir()] == ["one.hdf5"]
    assert parsed("geobench:hf://datasets/acme/set/m") == ("geobench", str(folder), {})


def test_an_interrupted_download_is_resumed(hub):
    hub.cut_at = 300_000
    assert client.fetch("hf://acme/tiny/a/x.bin").read_bytes() == BIG
    assert any(asked.startswith("bytes=2") for asked in hub.asked)  # from where it broke off


def test_a_wrong_checksum_is_refused_and_nothing_stays(hub, tmp_path):
    hub.lie.add("a/x.bin")
    with pytest.raises(UserError, match=r"the downloaded file has the checksum .*, but the hub lists .*it was deleted"):
        client.fetch("hf://acme/tiny/a/x.bin")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.stat().st_size == len(BIG)]


def test_what_cannot_be_read_is_refused_in_one_line(hub, monkeypatch):
    for address, said in (
        ("hf://acme/none/x", "acme/none does not exist, or is private: check the name, or `hf auth login`"),
        ("hf://acme/tiny@v9/b.txt", "acme/tiny has no revision v9"),
        ("hf://acme/tiny/none.txt", "there is no file or folder none.txt in acme/tiny"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            client.fetch(address)
        assert "\n" not in str(refused.value)
    hub.gated.add("acme/tiny")
    with pytest.raises(UserError, match="is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN"):
        client.fetch("hf://acme/tiny/b.txt")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert client.fetch("hf://acme/tiny/b.txt").read_bytes() == b"b"
    with pytest.raises(UserError, match="--output=hf://acme/tiny: nothing is uploaded to the hub"):
        user_path("output", "hf://acme/tiny")


@pytest.mark.long  # the client tries again for half a minute
def test_a_hub_that_does_not_answer_is_for_later(tmp_path):
    with serving({}, str(tmp_path / "cache")) as served:
        served.shutdown()
        served.server_close()
        with pytest.raises(TemporaryError, match="start again"):
            client.fetch("hf://acme/tiny/b.txt")


def test_published_weights_are_those_of_their_checksum(hub):
    with pytest.raises(UserError, match=r"published is a0275954…; these are other weights"):
        published("dofa_base").fetch()
    with pytest.raises(UserError, match="--model=dofa_bse: not known by name; did you mean dofa_base"):
        published("dofa_bse")
    with pytest.raises(UserError, match=r"its weights lie at https://dl\.fbaipublicfiles\.com/mae"):
        published("fb_mae_base").fetch()


def test_every_published_model_is_of_a_family_that_is_read():
    from scaling.interop.families import FAMILIES

    for weights in PUBLISHED.values():
        assert not weights.family or weights.family in FAMILIES
        if weights.address.startswith("hf://"):
            assert client.address(weights.address).path
