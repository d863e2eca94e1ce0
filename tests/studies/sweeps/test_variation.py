"""Fields that a sweep changes, and fields that change with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.compute.counting import parameter_counts
from scaling.core.errors import UserError
from scaling.studies.sweeps.variation import product, vary
from scaling.training.recipes import small_mae_recipe

BASE = small_mae_recipe()


@given(st.integers(1, 32), st.integers(1, 12), st.permutations(["width", "depth", "parametrization"]))
def test_wider_is_more_heads_and_a_hidden_layer_in_proportion_in_any_order(heads, depth, order):
    fields = {"width": 32 * heads, "depth": depth, "parametrization": "mup"}
    _, c = vary(BASE, {name: fields[name] for name in order})
    c.check()
    m, p = c.model, c.parametrization
    assert (m.width, m.heads, m.head_dim, m.mlp, m.depth) == (32 * heads, heads, 32, 128 * heads, depth)
    assert p.base(m, c.objective)[0].width == BASE.model.width  # the base is what was there before
    assert (p.depth, p.heads, p.mlp) == (BASE.model.depth, BASE.model.heads, BASE.model.mlp)


def test_a_longer_run_has_its_warm_up_and_its_evaluations_in_proportion():
    _, c = vary(BASE, {"steps": 2 * BASE.steps})
    assert (c.steps, c.optimizer.warmup, c.eval_every) == (800, 80, 200)
    assert vary(BASE, {"steps": 3})[1].log_every == 1


def test_other_fields():
    _, c = vary(BASE, {"bands": (0, 2), "images": 500, "lr": 0.1, "seed": 3, "mask_ratio": 0.5, "mlp": 100})
    assert (c.data.bands, c.model.bands, c.data.split) == ((0, 2), 2, "train[:500]")
    assert (c.optimizer.base_lr, c.seed, c.objective.mask_ratio, c.model.mlp) == (0.1, 3, 0.5, 100)
    shapes, names = c.objective.abstract(c.model)
    assert parameter_counts(names, shapes)["stem"] == 2 * 16 * 64  # two bands


def test_names_are_made_of_what_varies():
    runs = dict(product(BASE, {"width": (64, 128), "lr": (1e-3, 0.5), "parametrization": ("standard", "mup")}))
    assert len(runs) == 8
    assert "width128_lr0.001_mup" in runs
    assert runs["width128_lr0.5_standard"].parametrization.name == "standard"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"widht": 64}, "vary: cannot vary widht; did you mean width?"),
        ({"width": 64.0}, "vary.width: 64.0 is not a whole number"),
        ({"depth": 2.5}, "vary.depth: 2.5 is not a whole number"),
        ({"lr": "a"}, "vary.lr: 'a' is not a number"),
        ({"width": 65}, "width 65 is not a whole number of heads of model.head_dim=32"),
    ],
)
def test_what_cannot_be_varied_is_said(fields, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        vary(BASE, fields)


def test_the_number_of_images_needs_a_split_to_evaluate_on():
    held_out = small_mae_recipe()
    object.__setattr__(held_out.data, "eval_split", "")
    with pytest.raises(UserError, match="held-out images must not change with it"):
        vary(held_out, {"images": 10})
