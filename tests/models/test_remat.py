"""Recomputation in the backward pass, counted in the differentiated program."""

import dataclasses

import jax
import pytest
from jax.extend import core

from scaling import axes
from scaling.models.mae import MAE, abstract_mae, mae_inputs
from tests.models.sizes import small

POLICIES = ("none", "dots", "full")
FORWARD = 6  # products of a block: qkv, logits, mixing, output of attention, into and out of the MLP


def operations(jaxpr, name="dot_general") -> list[int]:
    """Number of occurrences of an operation, by default a matrix product, in the bodies of the scans over layers,
    forward and backward.
    """
    found = []
    for equation in jaxpr.eqns:
        for inner in core.jaxprs_in_params(equation.params):
            if equation.primitive.name == "scan":
                found.append(str(inner).count(f"{name}["))
            else:
                found += operations(inner, name)
    return found


def gradient(policy, **fields):
    """The program that computes the gradients."""
    c = dataclasses.replace(small(**fields), remat=policy)
    images, noise = (jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for x in mae_inputs(c))

    def loss(p, images, noise):
        return MAE(c).apply({"params": p}, images, noise)["loss"].mean()

    return jax.make_jaxpr(jax.grad(loss))(abstract_mae(c)[0], images, noise).jaxpr


def counts(policy, **fields):
    """Products of the decoder's and of the encoder's backward scan, per layer."""
    found = operations(gradient(policy, **fields))
    assert found[:2] == [FORWARD, FORWARD]
    return found[2:]


@pytest.mark.parametrize("fields", [{}, {"branches": 2, "gated": True, "qk_norm": True, "layer_scale": 0.1}], ids=str)
def test_dots_repeats_the_two_products_of_attention_and_full_all_but_the_last(fields):
    backward = 2 * FORWARD  # each product has two gradients
    repeated = {policy: [n - backward for n in counts(policy, **fields)] for policy in POLICIES}
    last = int("layer_scale" in fields)  # whose gradient needs what the last product computes
    assert repeated == {"none": [0, 0], "dots": [2, 2], "full": [FORWARD - 1, FORWARD - 1 + last]}


def test_accelerators_keep_what_the_softmax_sums_to_under_dots(monkeypatch):
    """One number a row, with which the weights are computed again without another maximum over the row."""
    monkeypatch.setattr(axes, "platform", lambda mesh=None: "tpu")
    maxima = {policy: operations(gradient(policy), "reduce_max") for policy in POLICIES}
    assert maxima == {"none": [1, 1, 0, 0], "dots": [1, 1, 0, 0], "full": [1, 1, 1, 1]}
