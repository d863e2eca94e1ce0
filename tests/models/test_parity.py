"""Against transformers' ViTMAE on torch: the same weights, none of them zero or one, the same images and masks."""

import jax
import numpy as np
import pytest

from scaling.models.mae import MAE, abstract_mae
from tests.models.sizes import small
from tests.torch_only import needs

pytestmark = pytest.mark.parity
torch = needs("transformers")

from tests.bench.train_step import our_params, torch_model  # noqa: E402  needs torch

SIZES = {"image_size": 32, "width": 64, "heads": 4, "mlp": 256, "depth": 3, "decoder_width": 32, "decoder_depth": 2}


@pytest.fixture(scope="module", params=[True, False], ids=["normalised targets", "raw targets"])
def pair(request):
    """Our configuration and parameters, their model, images and noise."""
    c = small(**SIZES, normalize_targets=request.param)
    model = torch_model(c).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(0.3 * torch.randn(p.shape, generator=draw) / max(p.shape[-1], 16) ** 0.25 + 0.02)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(3, c.image_size, c.image_size, c.bands)).astype(np.float32)
    noise = rng.random((3, c.patches), dtype=np.float32)
    return c, our_params(model, abstract_mae(c)[0]), model, images, noise


def theirs(model, images, noise):
    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), noise=torch.from_numpy(noise))


def test_loss_and_predictions_agree(pair):
    c, params, model, images, noise = pair
    expected = theirs(model, images, noise)
    ours = jax.jit(MAE(c).apply)({"params": params}, images, noise)
    np.testing.assert_allclose(ours["loss"].mean(), expected.loss.item(), rtol=1e-5, atol=1e-5)
    logits = expected.logits.numpy()
    masked = np.take_along_axis(logits, np.asarray(ours["masked"])[:, :, None], axis=1)
    np.testing.assert_allclose(ours["prediction"], masked, rtol=0, atol=1e-5 * np.abs(logits).max())
    chosen = np.zeros((3, c.patches))
    np.put_along_axis(chosen, np.asarray(ours["masked"]), 1, axis=1)
    np.testing.assert_array_equal(chosen, expected.mask.numpy())


def test_gradients_agree(pair):
    c, params, model, images, noise = pair
    model.zero_grad()
    model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), noise=torch.from_numpy(noise)).loss.backward()
    gradients = jax.jit(jax.grad(lambda p: MAE(c).apply({"params": p}, images, noise)["loss"].mean()))(params)
    with torch.no_grad():
        for p in model.parameters():
            p.data = torch.zeros_like(p) if p.grad is None else p.grad.clone()
    expected = our_params(model, params)

    def same(path, ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max(), err_msg=str(path))

    jax.tree_util.tree_map_with_path(same, gradients, expected)


@pytest.mark.parametrize("broken", ["query and key swapped", "patch transposed", "epsilon"])
def test_the_comparison_notices(pair, broken):
    c, params, model, images, noise = pair
    if broken == "query and key swapped":
        qkv = params["encoder"]["blocks"]["qkv"]
        swapped = {"kernel": qkv["kernel"][:, :, :, [1, 0, 2]], "bias": qkv["bias"][:, :, [1, 0, 2]]}
        encoder = {**params["encoder"], "blocks": {**params["encoder"]["blocks"], "qkv": swapped}}
        params = {**params, "encoder": encoder}
    elif broken == "patch transposed":
        images = images.transpose(0, 2, 1, 3)
    else:
        c = small(**SIZES, normalize_targets=c.normalize_targets, norm_eps=1e-3)
    ours = jax.jit(MAE(c).apply)({"params": params}, images, noise)
    expected = theirs(model, pair[3], noise)
    assert abs(float(ours["loss"].mean()) - expected.loss.item()) > 1e-4
