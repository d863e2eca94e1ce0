"""Position embeddings resampled to other grids."""

import numpy as np
import pytest

from scaling.models.positions import resample_positions
from tests.torch_only import needs


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("old", "new"), [((3, 5), (6, 2)), ((4, 2), (3, 7)), ((3, 4), (3, 4))])
def test_rows_and_columns_are_resampled_alike(old, new, antialias):
    table = np.random.default_rng(0).normal(size=(*old, 3)).astype(np.float32)
    got = resample_positions(table.reshape(-1, 3), old, new, antialias).reshape(*new, 3)
    turned = resample_positions(table.swapaxes(0, 1).reshape(-1, 3), old[::-1], new[::-1], antialias)
    np.testing.assert_allclose(got.swapaxes(0, 1), turned.reshape(*new[::-1], 3), atol=1e-5)
    assert got.dtype == np.float32
    if old == new:
        np.testing.assert_array_equal(got, table)


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parity
@pytest.mark.parametrize("grid", [(5, 5), (9, 9), (4, 10)])
def test_positions_are_resampled_as_by_timm_and_by_transformers(grid):
    torch = needs("timm")
    from timm.layers import resample_abs_pos_embed

    table = np.random.default_rng(0).normal(size=(49, 8)).astype(np.float32)
    theirs = resample_abs_pos_embed(torch.from_numpy(table)[None], list(grid), num_prefix_tokens=0)[0]
    assert relative(resample_positions(table, (7, 7), grid, antialias=True), theirs.numpy()) < 1e-5
    square = torch.from_numpy(table.reshape(1, 7, 7, 8)).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    theirs = theirs.permute(0, 2, 3, 1).reshape(-1, 8).numpy()
    assert relative(resample_positions(table, (7, 7), grid, antialias=False), theirs) < 1e-5
