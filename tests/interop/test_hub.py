"""From a published name or an address in the hub to a cut encoder with its card."""

from pathlib import Path

import pytest
import yaml

from scaling.core.errors import UserError
from scaling.core.rows import Results
from scaling.encoders.loading import load_encoder
from scaling.interop.card import check_card, write_card
from scaling.interop.exporting import export_weights
from tests.commands import call, command, error_of
from tests.encoders.examples import small_encoder
from tests.hub import serving
from tests.rows import ROW

NANO = Path(__file__).resolve().parents[3] / "shared" / "data" / "weights" / "galileo_nano"


def converted(**flags):
    done = call(command("convert", **flags))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_address_is_converted_cut_and_carded(tmp_path):
    encoder = small_encoder(position="learned")
    export_weights(encoder, "timm_vit", tmp_path / "w.safetensors")
    served = {"acme/tiny": {"model.safetensors": (tmp_path / "w.safetensors").read_bytes()}}
    with serving(served, str(tmp_path / "cache")):
        address, whole, cut = "hf://acme/tiny@main/model.safetensors", tmp_path / "whole", tmp_path / "cut"
        converted(input=address, output=whole, heads=encoder.config.heads, **{"from": "timm_vit"})
        wrong = command("convert", input="hf://acme/tinny/model.safetensors", output=tmp_path / "none")
        assert "acme/tinny does not exist" in error_of(call(wrong), 2)
    assert load_encoder(whole).config.width == encoder.config.width
    converted(checkpoint=whole, width_ratio=0.5, output=cut)
    _, head, text = (cut / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head) == {"library_name": "scaling", "license": "other", "license_name": "of the model card"}
    assert "- width 0.5 inner" in text
    assert "| from | model.safetensors timm_vit |" in text


def test_a_card_holds_what_cuts_keep_and_replaces_nobodys_readme(tmp_path):
    rows = tmp_path / "rows.jsonl"
    fields = {
        "dataset": "scenes",
        "probe": "knn",
        "metric": "accuracy_retention",
        "value": 0.9,
        "low": 0.8,
        "high": 0.95,
    }
    Results(rows).add([type(ROW)(**{**vars(ROW), **fields, "width_ratio": 0.5, "compute": 0.4, "ordering": "svd"})])
    (tmp_path / "README.md").write_text("# mine\n")
    card = check_card(tmp_path, "w")
    assert card == tmp_path / "w.md"
    write_card(card, small_encoder(), "w", "timm_vit", Results(rows).rows)
    assert "| scenes | knn | accuracy | 0.5 | 40.0% | svd,  | 0.900 (0.800 to 0.950) |" in card.read_text()
    assert check_card(tmp_path, "w") == card  # ours
    card.write_text("# mine\n")
    for name, place in (("w", card), ("", tmp_path / "README.md")):
        with pytest.raises(UserError, match=f"the model card would replace {place}; choose another"):
            check_card(tmp_path, name)


@pytest.mark.long
@pytest.mark.skipif(not NANO.is_dir(), reason="needs ../shared/data/weights/galileo_nano")
def test_a_published_name_is_enough(tmp_path):
    nano = {f"models/nano/{name}": (NANO / name).read_bytes() for name in ("encoder.pt", "config.json")}
    with serving({"nasaharvest/galileo": nano}, str(tmp_path / "cache")):
        said = converted(model="galileo_nano", output=tmp_path / "whole", time="2021-07-15", image_size=16)
        assert "galileo: encoder" in said
        assert "licence  MIT" in said
        converted(checkpoint=tmp_path / "whole", width_ratio=0.5, output=tmp_path / "cut")
    assert "license: mit" in (tmp_path / "cut" / "README.md").read_text()
    assert "--model=galileo_nan: not known by name; did you mean galileo_nano" in error_of(
        call(command("convert", model="galileo_nan", output=tmp_path / "none")), 2
    )
