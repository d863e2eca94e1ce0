"""How blocks are laid out on a TPU, forward and backward. 50 tokens fill no tiles of 8 rows: folded with the batch into
one axis they are copied from one layout to another, which on a chip costs as much as some of the matrix products.

The sizes are small, so that it compiles in seconds, and fill tiles otherwise.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from scaling.models.config import ViTConfig
from scaling.objectives import objective_config
from scaling.training.config import FinetuneConfig
from tests.bench.tpu_compiled import yardstick
from tests.bench.tpu_compiled.cycles import group_of
from tpu.compiler import hlo
from tpu.compiler.step import compile_step, compiler_options, train_step_for
from tpu.compiler.topology import parse

BATCH, TOKENS, WIDTH, HIDDEN = 8, 50, 128, 512
SIZES = {"width": WIDTH, "depth": 2, "heads": 2, "mlp": HIDDEN}
PLACE = "v5e:1x1"


class Theirs(nn.Module):
    @nn.compact
    def __call__(self, x):
        return yardstick.stack(yardstick.Yardstick(exact_gelu=True, float32_softmax=True, **SIZES), x)


def trained(**fields):
    """Our training step of a classifier of 49 patches and a class token, for one chip."""
    model = ViTConfig(**SIZES, head_dim=64, image_size=112, remat="dots", **fields)
    task = objective_config("classification", classes=2)
    place = parse(PLACE)
    return compile_step(train_step_for(FinetuneConfig(batch_size=BATCH, model=model, task=task), place), place).module


@pytest.fixture(scope="module")
def ours(compiler, full_compilation):
    return trained()


@pytest.fixture(scope="module")
def theirs(compiler, full_compilation):
    """Value and gradients of the blocks, of parameters and tokens."""
    place, model = parse(PLACE), Theirs()
    here = jax.sharding.SingleDeviceSharding(place.devices[0])
    x = jax.ShapeDtypeStruct((BATCH, TOKENS, WIDTH), jnp.bfloat16)
    params = nn.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(x.shape, x.dtype))))
    step = jax.value_and_grad(lambda params, x: model.apply(params, x).astype(jnp.float32).mean(), argnums=(0, 1))
    lowered = jax.jit(step, in_shardings=here, out_shardings=here).lower(params, x)
    return hlo.parse(lowered.compile(compiler_options=compiler_options(place)).as_text())


def copies(module):
    """Instructions inside the scans that only move an array as large as all tokens, or half as large."""
    scanned = [(where, x) for where, turns in module.runs() if turns > 1 for x in where.instructions.values()]
    assert sum(x.opcode == "fusion" for _, x in scanned) > 10
    large = BATCH * TOKENS * WIDTH  # bytes: two an element
    moved = [x for where, x in scanned if x.size >= large and group_of(module, where, x, ()) == "relayouts"]
    return [f"{x.opcode} {x.shape}" for x in moved]


def one_lane(module):
    """Arrays as large as a kernel of the MLP, or half as large, with one row per tile: an axis of size 1 is
    second-minor in memory, and the chip works at an eighth of its speed.
    """
    large = 2 * WIDTH * HIDDEN
    arrays = [x for where, _ in module.runs() for x in where.instructions.values() if len(x.results) == 1]
    return [f"{x.opcode} {x.shape}" for x in arrays if "T(1,128)" in x.shape and x.size >= large]


def test_no_tokens_are_copied_in_the_scans_and_no_kernel_fills_one_lane_of_its_tiles(ours):
    assert copies(ours) == one_lane(ours) == []


@pytest.mark.long
def test_neither_do_branches_and_gates(compiler, full_compilation):
    module = trained(branches=2, gated=True)
    assert copies(module) == one_lane(module) == []


def test_the_yardstick_has_neither(theirs):
    """The requirement can be met, and other implementations meet it."""
    assert copies(theirs) == one_lane(theirs) == []
