"""Images, and their tokens by a file of weights: as a plain ViT computes them, and as its import does."""

import json

import numpy as np
from etils import epath

from scaling.encoders.loading import load_encoder
from scaling.interop.importing import import_weights, write_checkpoint
from tests.interop.torch_layout import tokens

IMAGES = np.random.default_rng(5).normal(size=(2, 16, 16, 3)).astype(np.float32)


def expected(arrays, heads, eps=1e-6):
    return np.stack([tokens(arrays, image.transpose(2, 0, 1), heads, eps) for image in IMAGES])


def features(file, tmp_path, **options):
    """Features of the written checkpoint, read back as by every command."""
    write_checkpoint(import_weights(file, **options), epath.Path(tmp_path / "run"))
    return load_encoder(tmp_path / "run").features(IMAGES, "tokens", normalised=True)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def beside(folder, **settings):
    """The settings that transformers and timm store beside a file of weights."""
    (folder / "config.json").write_text(json.dumps(settings))
