"""Against transformers' ViTMAE on torch, whose modules are cut by hand: the published slimming of the same weights."""

import numpy as np
import pytest

from scaling.encoders.encoder import Encoder
from scaling.encoders.slimmed import slim
from scaling.models.config import ViTConfig
from scaling.models.mae import abstract_mae
from scaling.training.config import TrainConfig
from tests.models.sizes import small
from tests.torch_only import needs

pytestmark = pytest.mark.parity
torch = needs("transformers")

from tests.bench.train_step import our_params, torch_model  # noqa: E402  needs torch


def pair(width, heads, mlp):
    """Our encoder and their model, with the same weights, none of them zero or one."""
    c = small(image_size=32, width=width, heads=heads, head_dim=width // heads, mlp=mlp, depth=3)
    model = torch_model(c).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(0.3 * torch.randn(p.shape, generator=draw) / max(p.shape[-1], 16) ** 0.25 + 0.02)
    fields = {name: getattr(c, name) for name in ViTConfig.__dataclass_fields__}
    params = our_params(model, abstract_mae(c)[0])["encoder"]
    return Encoder(ViTConfig(**fields), params, TrainConfig()), model


def cut_by_hand(model, width):
    """Section 3 of 2601.22841 on torch's modules: rows of q, k, v and of the first layer of the MLP, columns of their
    output projections, and a softmax at the temperature of the smaller head."""
    for layer in model.vit.layers:
        a, mlp = layer.attention, layer.mlp
        kept = max(1, int(width * a.head_dim))
        index = [n * a.head_dim + h for n in range(a.num_attention_heads) for h in range(kept)]
        for linear in (a.q_proj, a.k_proj, a.v_proj):
            linear.weight.data, linear.bias.data = linear.weight.data[index], linear.bias.data[index]
        a.o_proj.weight.data = a.o_proj.weight.data[:, index]
        a.head_dim, a.scaling = kept, kept**-0.5
        hidden = max(1, int(width * len(mlp.fc1.bias)))
        mlp.fc1.weight.data, mlp.fc1.bias.data = mlp.fc1.weight.data[:hidden], mlp.fc1.bias.data[:hidden]
        mlp.fc2.weight.data = mlp.fc2.weight.data[:, :hidden]


def tokens(model, images):
    """Their encoder on all 64 patches, in order."""
    model.vit.config.mask_ratio = 0.0
    noise = torch.arange(64.0).repeat(len(images), 1)
    with torch.no_grad():
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        return model.vit(pixels, noise=noise).last_hidden_state.numpy()


@pytest.mark.parametrize("width", [0.001, 0.1, 0.25, 0.333, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("sizes", [(64, 4, 256), (48, 3, 100)], ids=str)
def test_features_agree(sizes, width):
    encoder, model = pair(*sizes)
    images = np.random.default_rng(1).normal(size=(3, 32, 32, 3)).astype(np.float32)
    full = tokens(model, images)
    cut_by_hand(model, width)
    expected = tokens(model, images)
    got = slim(encoder, width).features(images, "tokens", normalised=True)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert width == 1 or np.abs(expected - full).max() > 0.1
