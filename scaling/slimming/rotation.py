"""Refactorises the products inside a head so that its leading dimensions carry the most.

A head uses its queries and keys only in the product q kᵀ, and its values only in their product with the output
projection. Any invertible T with q T and k T⁻ᵀ, or with v T and T⁻¹ W, gives the same head. The T chosen here makes the
first k dimensions the best rank-k approximation (Eckart and Young, 1936) of the logits, or of the output of the head,
in the mean square over the activations whose moments are given. All matrices have the size of a head, in float64.
"""

from typing import Any

import numpy as np

_FLOOR = 1e-10  # of an eigenvalue, relative to the largest: directions that never occur leave T invertible


def rotate_queries_keys(tree: Any) -> Any:
    """Rotates queries and keys so that the leading dimensions carry most of the logits.

    With R_qᵀ R_q = E[q qᵀ] and R_kᵀ R_k the covariance of the keys within an image, the singular value decomposition
    R_q R_kᵀ = U S Vᵀ gives T_q = R_q⁻¹ U √S and T_k = R_k⁻¹ V √S, and T_q T_kᵀ = 1. Biases are part of q and k. The
    common part of the keys of an image adds the same to all logits of a query and cancels in the softmax.
    """
    moments = tree["moments"]
    root_q, inverse_q = _roots(moments["query"]["square"])
    root_k, inverse_k = _roots(moments["key"]["covariance"])
    u, s, vt = np.linalg.svd(root_q @ root_k)  # [L, R, N, H, H]
    t_q, t_k = inverse_q @ u * np.sqrt(s)[..., None, :], inverse_k @ vt.swapaxes(-1, -2) * np.sqrt(s)[..., None, :]
    measured = {
        "query": {"square": t_q.swapaxes(-1, -2) @ moments["query"]["square"] @ t_q},
        "key": {"covariance": t_k.swapaxes(-1, -2) @ moments["key"]["covariance"] @ t_k},
    }
    return _with(tree, _transformed(tree["blocks"]["qkv"], t_q, t_k, None), {}, measured)


def rotate_values(tree: Any) -> Any:
    """Rotates values so that the leading dimensions carry most of the head's output: its principal components.

    With Rᵀ R the covariance of the mixed values m and W = L P, P with orthonormal rows, the decomposition R L = U S Vᵀ
    gives T = L V and T⁻¹ W = Vᵀ P. The mean of m goes through W into the output bias: attention weights sum to one, so
    a shift of the values is a shift of m.
    """
    blocks, moments = tree["blocks"], tree["moments"]
    mean = moments["mixed"]["mean"]  # [L, R, N, H]
    covariance = moments["mixed"]["square"] - mean[..., :, None] * mean[..., None, :]
    kernel = blocks["attention_out"]["kernel"].astype(np.float64)  # [L, R, N, H, D]
    q, r = np.linalg.qr(kernel.swapaxes(-1, -2))  # W = rᵀ qᵀ
    lower, rows = r.swapaxes(-1, -2), q.swapaxes(-1, -2)
    vt = np.linalg.svd(_roots(covariance)[0] @ lower)[2]
    t = lower @ vt.swapaxes(-1, -2)
    missing = t.shape[-2] - t.shape[-1]  # if heads are wider than tokens, W has fewer dimensions than the head
    t = np.pad(t, [(0, 0)] * 4 + [(0, missing)])
    out = np.pad(vt @ rows, [(0, 0)] * 3 + [(0, missing), (0, 0)])
    bias = blocks["attention_out"]["bias"] + np.einsum("LRNH,LRNHD->LRD", mean, kernel)
    qkv = {"kernel": blocks["qkv"]["kernel"], "bias": blocks["qkv"]["bias"].astype(np.float64)}
    qkv["bias"][:, :, 2] -= mean
    attention_out = {"kernel": out.astype(np.float32), "bias": bias.astype(np.float32)}
    measured = {"mixed": {"mean": np.zeros_like(mean), "square": t.swapaxes(-1, -2) @ covariance @ t}}
    return _with(tree, _transformed(qkv, None, None, t), {"attention_out": attention_out}, measured)


def _transformed(qkv: dict[str, np.ndarray], *maps: np.ndarray | None) -> dict[str, np.ndarray]:
    """Multiplies queries, keys and values of every head by their T [L, R, N, H, H]; None leaves them unchanged."""
    kernel, bias = (np.array(qkv[k], np.float64) for k in ("kernel", "bias"))  # [L, D, R, S, N, H] and [L, R, S, N, H]
    for s, t in enumerate(maps):
        if t is not None:
            kernel[:, :, :, s] = np.einsum("LDRNH,LRNHK->LDRNK", kernel[:, :, :, s], t, optimize=True)
            bias[:, :, s] = np.einsum("LRNH,LRNHK->LRNK", bias[:, :, s], t)
    return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}


def _with(tree: Any, qkv: Any, groups: Any, moments: Any) -> Any:
    blocks = {**tree["blocks"], "qkv": qkv, **groups}
    return {**tree, "blocks": blocks, "moments": {**tree["moments"], **moments}}


def _roots(square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric square roots of positive semidefinite matrices [..., H, H], and the inverses of these."""
    values, vectors = np.linalg.eigh(square)
    values = np.maximum(values, _FLOOR * np.maximum(values[..., -1:], np.finfo(np.float32).tiny))
    roots = np.sqrt(values)[..., None, :]
    return vectors * roots @ vectors.swapaxes(-1, -2), vectors / roots @ vectors.swapaxes(-1, -2)


def weight_moments(blocks: Any) -> Any:
    """Moments that follow from the weights alone, used if there are no images: normalised tokens are taken as
    white, so that scale and bias of the LayerNorm are their standard deviation and mean. Hidden units are taken as
    linear, with zero mean.
    """
    scale, shift = (blocks["attention_norm"][k].astype(np.float64) for k in ("scale", "bias"))  # [L, D]
    kernel, bias = (blocks["qkv"][k].astype(np.float64) for k in ("kernel", "bias"))
    mean = np.einsum("LD,LDRSNH->LRSNH", shift, kernel) + bias
    scaled = kernel * scale[:, :, None, None, None, None]
    covariance = np.einsum("LDRSNH,LDRSNK->LRSNHK", scaled, scaled, optimize=True)
    square = covariance + mean[..., :, None] * mean[..., None, :]
    return {
        "query": {"square": square[:, :, 0]},
        "key": {"covariance": covariance[:, :, 1]},
        "mixed": {"mean": mean[:, :, 2], "square": square[:, :, 2]},
        **_linear_mlp(blocks),
    }


def _linear_mlp(blocks: Any) -> Any:
    scale, shift = (blocks["mlp_norm"][k].astype(np.float64) for k in ("scale", "bias"))
    kernel, bias = (blocks["mlp_in"][k].astype(np.float64) for k in ("kernel", "bias"))  # [L, D, R, (G,) F], [L, R, ..]
    mean = np.einsum("LD,LD...->L...", shift, kernel) + bias
    square = np.einsum("LD,LD...->L...", scale**2, kernel**2) + mean**2
    square = square.prod(axis=2) if square.ndim == 4 else square  # value times gate
    return {
        "hidden": {"mean": np.zeros_like(square), "square": square},
        "attention_in": {"square": blocks["attention_norm"]["scale"] ** 2 + blocks["attention_norm"]["bias"] ** 2},
        "mlp_in": {"square": scale**2 + shift**2},
    }
