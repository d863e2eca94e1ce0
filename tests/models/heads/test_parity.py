"""Against mmsegmentation's formulas on torch: pyramid, UperNet head, auxiliary head and loss, with random weights.

Written from the published code of uper_head.py, psp_head.py, fcn_head.py, RVSA's backbone and cross_entropy_loss.py,
in torch's own layout; the loss is divided by the pixels that count (mmsegmentation's avg_non_ignore=True).
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.models.heads.heads import HEADS
from scaling.models.heads.loss import pixel_losses, shares
from scaling.models.heads.norms import Norms, updated
from tests.models.heads.examples import CONFIG, IGNORE, maps, mask, weights
from tests.torch_only import needs

pytestmark = pytest.mark.parity
torch = needs()
F = torch.nn.functional


class Reference:
    """The published network; `fault` is a mistake that is easily made."""

    def __init__(self, p, c, fault=""):
        self.p = jax.tree.map(lambda x: torch.from_numpy(np.asarray(x)), p)
        self.c, self.fault, self.running = c, fault, {}

    def conv(self, name, x):
        kernel = self.p[name]["kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.p[name].get("bias"), padding=kernel.shape[-1] // 2)

    def double(self, name, x):
        return F.conv_transpose2d(x, self.p[name]["kernel"].permute(2, 3, 0, 1), self.p[name]["bias"], stride=2)

    def norm(self, name, x):
        p = self.p[f"{name}_norm"]
        if self.c.norm == "group":
            return F.group_norm(x, self.c.norm_groups, p["scale"], p["bias"])
        mean, variance = torch.zeros_like(p["scale"]), torch.ones_like(p["scale"])
        y = F.batch_norm(x, mean, variance, p["scale"], p["bias"], training=True, momentum=0.1)
        self.running[name] = {"mean": mean, "variance": variance}
        return y

    def module(self, name, x):
        return F.relu(self.norm(name, self.conv(name, x)))

    def resize(self, x, like):
        corners = self.fault == "align_corners"
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=corners)

    def pool(self, x, bins):
        if self.fault == "apart":  # bins that do not overlap
            edges = [round(i * x.shape[2] / bins) for i in range(bins + 1)]
            steps = list(itertools.pairwise(edges))
            rows = [torch.stack([x[:, :, a:b, c:d].mean((2, 3)) for c, d in steps], 2) for a, b in steps]
            return torch.stack(rows, 2)
        return F.adaptive_avg_pool2d(x, bins)

    def pyramid(self, four):
        a, b, c, d = four
        a = self.double("up4_second", F.gelu(self.norm("up4_first", self.double("up4_first", a))))
        return [a, self.double("up2", b), c, F.max_pool2d(d, 2, 2)]

    def __call__(self, four):
        levels = self.pyramid(four)
        top = levels[3]
        pooled = [self.resize(self.module(f"pool_{s}", self.pool(top, s)), top) for s in (1, 2, 3, 6)]
        top = self.module("bottleneck", torch.cat([top, *pooled], 1))
        if self.fault == "smooth top":  # a 3 x 3 convolution on the pooled level too
            top = self.module("smooth_2", top)
        laterals = [self.module(f"lateral_{i}", levels[i]) for i in range(3)] + [top]
        for i in (3, 2, 1):
            laterals[i - 1] = laterals[i - 1] + self.resize(laterals[i], laterals[i - 1])
        outs = [self.module(f"smooth_{i}", laterals[i]) for i in range(3)] + [top]
        fused = self.module("fusion", torch.cat([self.resize(x, outs[0]) for x in outs], 1))
        beside = self.conv("auxiliary_classes", self.module("auxiliary", levels[2]))
        return self.conv("classes", fused), beside

    def loss(self, four, labels):
        def one(logits):
            resized = self.resize(logits, labels[:, None])
            losses = F.cross_entropy(resized, labels, ignore_index=IGNORE, reduction="none")
            return losses.mean() if self.fault == "mean of all" else losses.sum() / (labels != IGNORE).sum()

        logits, beside = self(four)
        return one(logits) + 0.4 * one(beside)


def ours(p, four, labels, c, running=None):
    norms = Norms(c.norm, c.norm_groups, running)
    said = HEADS["upernet"].apply(p, four, norms, {})
    share = shares(labels, IGNORE)
    losses = {name: (pixel_losses(x, labels, IGNORE).sum((1, 2)) * share).mean() for name, x in said.items()}
    return losses["logits"] + 0.4 * losses["auxiliary"], (said, norms.seen)


def theirs(p, four, labels, c, fault=""):
    """Loss, both logits, gradients of the maps and running statistics."""
    leaves = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_() for x in four]
    reference = Reference(p, c, fault)
    loss = reference.loss(leaves, torch.from_numpy(labels.astype(np.int64)))
    loss.backward()
    fresh = Reference(p, c, fault)
    with torch.no_grad():
        said = [x.numpy().transpose(0, 2, 3, 1) for x in fresh(leaves)]
    gradients = [x.grad.numpy().transpose(0, 2, 3, 1) for x in leaves]
    return loss.item(), said, gradients, jax.tree.map(lambda x: x.numpy(), fresh.running)


def error(x, y):
    return np.abs(np.asarray(x) - y).max() / max(np.abs(y).max(), 1)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-5), (np.float64, 1e-9)], ids=["float32", "float64"])
@pytest.mark.parametrize(("norm", "width"), [("batch", 0), ("group", 0), ("batch", 72)])
def test_logits_losses_gradients_and_statistics_agree(norm, width, dtype, bound):
    c = dataclasses.replace(CONFIG, norm=norm, image_width=width)
    p, four, labels = weights(c, dtype=dtype), maps(c, dtype=dtype), mask(c)
    loss, said, gradients, running = theirs(p, four, labels, c)
    with jax.enable_x64(dtype == np.float64):
        arguments = jax.tree.map(jnp.asarray, p), [jnp.asarray(x) for x in four], jnp.asarray(labels)
        whole = jax.jit(jax.value_and_grad(lambda *x: ours(*x, c), argnums=1, has_aux=True))
        (our_loss, (our_said, seen)), our_gradients = whole(*arguments)
        zero = jax.tree.map(jnp.zeros_like, seen)
        start = {name: {"mean": s["mean"], "variance": s["variance"] + 1} for name, s in zero.items()}
        our_running = updated(start, seen)
    assert abs(float(our_loss) - loss) < bound * abs(loss)
    for x, y in zip((our_said["logits"], our_said["auxiliary"]), said, strict=True):
        assert error(x, y) < bound
    for x, y in zip(our_gradients, gradients, strict=True):
        assert np.abs(np.asarray(x) - y).max() < 100 * bound * np.abs(y).max()
    assert set(our_running) == set(running)
    for name, kept in running.items():
        for which in kept:
            assert error(our_running[name][which], kept[which]) < bound


@pytest.mark.parametrize("fault", ["align_corners", "smooth top", "mean of all", "apart"])
def test_what_is_easily_mistaken_is_seen(fault):
    p, four, labels = weights(), maps(), mask()
    loss = theirs(p, four, labels, CONFIG, fault)[0]
    mine = float(jax.jit(lambda *x: ours(*x, CONFIG)[0])(p, four, labels))
    assert abs(mine - loss) > 1e-4 * abs(loss)
