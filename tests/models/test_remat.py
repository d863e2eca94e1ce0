"""What the backward pass computes again, counted in the program that is differentiated."""

import dataclasses

import jax
import pytest
from jax.extend import core

from scaling.models.mae import MAE, abstract_mae, mae_inputs
from tests.models.sizes import small

POLICIES = ("none", "dots", "full")
FORWARD = 6  # products of a block: qkv, logits, mixing, output of attention, into and out of the MLP


def products(jaxpr) -> list[int]:
    """Numbers of matrix products in the bodies of the scans over layers, forward and backward."""
    found = []
    for equation in jaxpr.eqns:
        for inner in core.jaxprs_in_params(equation.params):
            if equation.primitive.name == "scan":
                found.append(str(inner).count("dot_general["))
            else:
                found += products(inner)
    return found


def counts(policy, **fields):
    """Products of the decoder's and of the encoder's backward scan, per layer."""
    c = dataclasses.replace(small(**fields), remat=policy)
    images, noise = (jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for x in mae_inputs(c))

    def loss(p, images, noise):
        return MAE(c).apply({"params": p}, images, noise)["loss"].mean()

    found = products(jax.make_jaxpr(jax.grad(loss))(abstract_mae(c)[0], images, noise).jaxpr)
    assert found[:2] == [FORWARD, FORWARD]
    return found[2:]


@pytest.mark.parametrize("fields", [{}, {"branches": 2, "gated": True, "qk_norm": True, "layer_scale": 0.1}], ids=str)
def test_dots_repeats_the_two_products_of_attention_and_full_all_but_the_last(fields):
    backward = 2 * FORWARD  # each product has two gradients
    repeated = {policy: [n - backward for n in counts(policy, **fields)] for policy in POLICIES}
    last = int("layer_scale" in fields)  # whose gradient needs what the last product computes
    assert repeated == {"none": [0, 0], "dots": [2, 2], "full": [FORWARD - 1, FORWARD - 1 + last]}
