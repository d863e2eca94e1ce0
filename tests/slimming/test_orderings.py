"""Re-parameterisations: the function stays, and the leading units are the ones that matter."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.models.activations import MOMENT_NAMES
from scaling.models.vit import abstract_vit
from scaling.slimming.orderings import ORDERINGS, UNITS, reorder
from scaling.slimming.rotation import rotate_queries_keys, rotate_values, weight_moments
from tests.models import reference
from tests.slimming.encoders import encoder, images


def with_moments(e, seed=0):
    """The tree of an encoder with moments as random activations would have them, and its names."""
    random = np.random.default_rng(seed)
    blocks = e.params["blocks"]
    *leading, H = blocks["qkv"]["bias"].shape
    samples = random.normal(size=(*leading, 3 * H, H)) @ random.normal(size=(*leading, H, H)) + 0.5
    query, key, mixed = np.moveaxis(samples, 2, 0)
    square = lambda x: np.einsum("...XH,...XK->...HK", x, x) / x.shape[-2]  # noqa: E731
    moments = weight_moments(blocks) | {
        "query": {"square": square(query)},
        "key": {"covariance": square(key - key.mean(-2, keepdims=True))},
        "mixed": {"mean": mixed.mean(-2), "square": square(mixed)},
    }
    tree = e.params | {"moments": moments}
    return tree, abstract_vit(e.config)[1] | {"moments": MOMENT_NAMES}


def function(tree, c, n=2):
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
    return np.stack([reference.encode(exact, image, c) for image in images(n, c)])


@settings(max_examples=25)
@given(
    ordering=st.sampled_from(ORDERINGS),
    cut=st.sets(st.sampled_from(sorted(set(UNITS) - {"embed"}))),
    sizes=st.fixed_dictionaries(
        {
            "branches": st.integers(1, 2),
            "heads": st.integers(1, 3),
            "head_dim": st.sampled_from([1, 4, 20]),  # the last one is more than the tokens are wide
            "mlp": st.integers(1, 9),
            "gated": st.booleans(),
            "qk_norm": st.booleans(),
            "layer_scale": st.sampled_from([0.0, 0.5]),
        }
    ),
    seed=st.integers(0, 99),
)
def test_the_function_stays_as_it_is(ordering, cut, sizes, seed):
    e = encoder(seed, **sizes)
    tree, names = with_moments(e, seed)
    np.testing.assert_allclose(
        function(reorder(tree, names, ordering, cut, seed), e.config), function(tree, e.config), atol=1e-5
    )


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_ordering_the_residual_stream_permutes_the_features(ordering):
    e = encoder(position="learned", gated=True)
    tree, names = with_moments(e)
    new = reorder(tree | {"channels": np.arange(16)}, names | {"channels": ("embed",)}, ordering, set(UNITS), 1)
    assert sorted(new["channels"]) == list(range(16))
    np.testing.assert_allclose(function(new, e.config), function(tree, e.config)[..., new["channels"]], atol=1e-5)


def falls(x):
    return (np.diff(x, axis=-1) <= 1e-9 * np.abs(x).max()).all()


def energies(tree):
    """Energies of every kind of unit, from the tree after the ordering."""
    b, m = tree["blocks"], tree["moments"]
    out = b["attention_out"]["kernel"].astype(np.float64)  # [L, R, N, H, D]
    hidden = m["hidden"]["square"] * (b["mlp_out"]["kernel"].astype(np.float64) ** 2).sum(-1)
    heads = np.einsum("LRNHD,LRNHK,LRNKD->LRN", out, m["mixed"]["square"], out)
    return {
        "mlp": hidden,
        "heads": heads,
        "branch": heads.sum(-1) + hidden.sum(-1),
        "values": np.einsum("LRNHH,LRNHD->LRNH", m["mixed"]["square"], out**2),
        "logits": np.einsum("LRNHH,LRNHH->LRNH", m["query"]["square"], m["key"]["covariance"]),
        "embed": np.einsum("LD,LDRSNH->D", m["attention_in"]["square"], b["qkv"]["kernel"].astype(np.float64) ** 2)
        + np.einsum("LD,LDRF->D", m["mlp_in"]["square"], b["mlp_in"]["kernel"].astype(np.float64) ** 2),
    }


@pytest.mark.parametrize("ordering", ["energy", "svd"])
@pytest.mark.parametrize("kind", ["mlp", "heads", "branch", "values", "logits", "embed"])
def test_units_come_in_the_order_of_what_they_send_on(ordering, kind):
    tree, names = with_moments(encoder(branches=3))
    axis = "head_dim" if kind in ("values", "logits") else kind
    assert not falls(energies(tree)[kind])
    assert falls(energies(reorder(tree, names, ordering, [axis]))[kind])


def test_normalised_queries_and_keys_share_one_order_over_heads_and_branches():
    tree, names = with_moments(encoder(branches=2, qk_norm=True))
    new = reorder(tree, names, "energy", ["head_dim"])
    assert falls(energies(new)["logits"].sum((1, 2)))
    assert falls(energies(new)["values"])


def test_last_reverses_and_random_depends_on_the_seed():
    tree, names = with_moments(encoder())
    hidden = lambda *a: reorder(tree, names, *a)["blocks"]["mlp_in"]["bias"]  # noqa: E731
    original = tree["blocks"]["mlp_in"]["bias"]
    np.testing.assert_array_equal(hidden("last", ["mlp"]), original[..., ::-1])
    np.testing.assert_array_equal(hidden("random", ["mlp"], 3), hidden("random", ["mlp"], 3))
    assert (hidden("random", ["mlp"], 3) != hidden("random", ["mlp"], 4)).any()
    one, two = hidden("random", ["mlp"], 3)[:, 0]
    assert (np.argsort(one) != np.argsort(original[0, 0])).any()
    assert (np.argsort(one) != np.argsort(two)).any()  # every layer has an order of its own


def one_head(width=12, tokens=30, head_dim=6):
    """One head, tokens, and its moments on them."""
    e = encoder(width=width, depth=1, heads=1, head_dim=head_dim)
    x = np.random.default_rng(1).normal(size=(tokens, width)) * np.arange(1, width + 1) + 1.0
    return e, x


def project(tree, x):
    kernel, bias = (tree["blocks"]["qkv"][k].astype(np.float64) for k in ("kernel", "bias"))
    return np.einsum("XD,DSH->SXH", x, kernel[0, :, 0, :, 0]) + bias[0, 0, :, 0][:, None]


def test_leading_queries_and_keys_are_the_best_approximation_of_the_logits():
    e, x = one_head()
    q, k, _ = project(e.params, x)
    centred = k - k.mean(0)
    moments = {
        "query": {"square": (q.T @ q / len(q))[None, None, None]},
        "key": {"covariance": (centred.T @ centred / len(k))[None, None, None]},
    }
    q2, k2, _ = project(rotate_queries_keys(e.params | {"moments": moments}), x)
    k2 -= k2.mean(0)
    logits = q @ centred.T
    singular = np.linalg.svd(logits, compute_uv=False)
    np.testing.assert_allclose(q2 @ k2.T, logits, atol=1e-4 * singular[0])
    for r in range(7):
        error = np.linalg.norm(q2[:, :r] @ k2[:, :r].T - logits)
        assert error == pytest.approx(np.sqrt((singular[r:] ** 2).sum()), rel=1e-4, abs=1e-4 * singular[0])


@pytest.mark.parametrize("head_dim", [6, 20])
def test_leading_values_are_the_principal_components_of_the_output(head_dim):
    e, x = one_head(head_dim=head_dim)
    mix = np.random.default_rng(2).dirichlet(np.ones(len(x)), len(x))  # attention weights

    def output(tree, r):
        out = tree["blocks"]["attention_out"]
        mixed = mix @ project(tree, x)[2]
        return mixed[:, :r] @ out["kernel"][0, 0, 0, :r].astype(np.float64) + out["bias"][0, 0]

    mixed = mix @ project(e.params, x)[2]
    moments = {
        "mixed": {"mean": mixed.mean(0)[None, None, None], "square": (mixed.T @ mixed / len(x))[None, None, None]}
    }
    new, full = rotate_values(e.params | {"moments": moments}), output(e.params, head_dim)
    singular = np.linalg.svd(full - full.mean(0), compute_uv=False)
    for r in range(head_dim + 1):
        error = np.linalg.norm(output(new, r) - full)
        assert error == pytest.approx(np.sqrt((singular[r:] ** 2).sum()), rel=1e-4, abs=1e-4 * singular[0])
    np.testing.assert_allclose(new["moments"]["mixed"]["mean"], 0)


def test_moments_from_weights_are_those_of_white_tokens():
    """Compared with many tokens drawn at random."""
    e = encoder(width=8, heads=2, head_dim=3, mlp=5, gated=True)
    blocks, random = e.params["blocks"], np.random.default_rng(0)
    got = weight_moments(blocks)
    white = random.normal(size=(400_000, 8))
    x = white * blocks["attention_norm"]["scale"][1] + blocks["attention_norm"]["bias"][1]
    q, k, v = np.einsum("XD,DSNH->SXNH", x, blocks["qkv"]["kernel"][1, :, 0]) + blocks["qkv"]["bias"][1, 0][:, None]
    for name, value, of in (("query", "square", q), ("key", "covariance", k - k.mean(0)), ("mixed", "square", v)):
        measured = np.einsum("XNH,XNK->NHK", of, of) / len(x)
        np.testing.assert_allclose(got[name][value][1, 0], measured, atol=0.02 * np.abs(measured).max())
    np.testing.assert_allclose(got["mixed"]["mean"][1, 0], v.mean(0), atol=0.01)
    y = white * blocks["mlp_norm"]["scale"][1] + blocks["mlp_norm"]["bias"][1]
    parts = np.einsum("XD,DGF->GXF", y, blocks["mlp_in"]["kernel"][1, :, 0]) + blocks["mlp_in"]["bias"][1, 0][:, None]
    squares = (parts**2).mean(1)
    np.testing.assert_allclose(got["hidden"]["square"][1, 0], squares[0] * squares[1], rtol=0.02)
    np.testing.assert_allclose(got["mlp_in"]["square"][1], (y**2).mean(0), rtol=0.02)
    np.testing.assert_allclose(got["attention_in"]["square"][1], (x**2).mean(0), rtol=0.02)
