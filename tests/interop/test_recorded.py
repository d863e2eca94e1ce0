"""Every token as the published implementations computed it, recorded by tests/interop/record.py: no torch here."""

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from scaling.compute.counting import encoder_cost, flops, whole_image
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import slim
from scaling.interop.importing import import_weights, write_checkpoint
from scaling.models.stems.channels import attention_over_channels
from scaling.models.vit import abstract_vit
from tests.interop.records import RECORDS, acquisition, arrays_of, options_of

CUT_BY_DEFAULT = ("terramind_gated", "galileo", "panopticon")  # a gated MLP, groups, attention over channels
CUT = [pytest.param(name, marks=[] if name in CUT_BY_DEFAULT else pytest.mark.long) for name in RECORDS]


@pytest.fixture(scope="module", params=RECORDS)
def converted(request, tmp_path_factory):
    """A record, and the checkpoint that its file becomes."""
    record, folder = np.load(RECORDS[request.param]), tmp_path_factory.mktemp("converted")
    save_file(arrays_of(record), folder / "w.safetensors")
    given, options = acquisition(record)
    write_checkpoint(import_weights(folder / "w.safetensors", given=given, **options), epath.Path(folder / "run"))
    return record, folder / "run"


def test_all_tokens_agree(converted):
    record, run = converted
    ours, theirs = load_encoder(run).features(record["images"], "tokens", normalised=True), record["tokens"]
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("converted", CUT, indirect=True)
def test_every_family_can_be_cut(converted):
    record, run = converted
    full = load_encoder(run)
    for mode in ("inner", "token") if full.config.groups > 1 else ("inner",):
        restored, cut = load_encoder(run, width_ratio=0.5, mode=mode), slim(full, 0.5, mode)
        assert restored.config == cut.config
        features = restored.features(record["images"], normalised=True)
        np.testing.assert_allclose(
            features, cut.features(record["images"], normalised=True), atol=1e-5 * np.abs(features).max()
        )
        most = 0.95 if full.config.channel_width else 0.9  # attention over channels, which is not cut, is most of it
        assert 0.1 < encoder_cost(full.architecture, cut.config)[2]["full"] < most


# Families whose published code multiplies queries and keys itself, in the encoder or in the stem.
EXPLICIT = {"terramind_s1grd": ("",), "panopticon": ("channel",)}


def test_the_published_convention_counts_for_a_checkpoint_what_it_counts_for_the_model_by_name(converted):
    record, run = converted
    full, cut = load_encoder(run), load_encoder(run, width_ratio=0.5)
    (shapes, names), (small, _) = abstract_vit(full.config), abstract_vit(cut.config)
    stem = attention_over_channels(full.config).uses if full.config.channel_width else None
    explicit = EXPLICIT.get(options_of(record)["family"], ())
    counts = [
        flops(names, x, whole_image(c), stem, explicit)["published"]["encoder"]
        for x, c in ((small, cut.config), (shapes, full.config))
    ]
    assert encoder_cost(full.architecture, cut.config)[2]["published"] == counts[0] / counts[1]
