"""Repairs a cut encoder without gradients or labels: refits its output projections to the units that are kept."""

from typing import Any

import numpy as np
import scipy.linalg

from scaling.core.errors import UserError

RECOVERIES = ("none", "mean", "ridge")

# group of an output projection -> the moments of the units that feed it, and the axes of these
OUTPUTS = {"attention_out": ("mixed", "RNH"), "mlp_out": ("hidden", "RF")}

# Share of the mean variance of a unit. The loss of a small autoencoder at widths from 0.01 to 0.75 was the same from
# 1e-5 to 1e-3, and larger above.
DAMPING = 1e-3
ROUNDING = 1e-6  # rounding error of a variance from float32 sums, relative to the mean square of a unit


def mean_output(tree: Any, group: str) -> np.ndarray:
    """Mean contribution of an output projection to the residual stream, from the means of its units. [L, D],
    float64.
    """
    moments, axes = OUTPUTS[group]
    out = tree["blocks"][group]
    mean = tree["moments"][moments]["mean"]
    return np.einsum(f"L{axes},L{axes}D->LD", mean, out["kernel"], dtype=np.float64) + out["bias"].sum(1)


def add_means(blocks: Any, missing: dict[str, np.ndarray]) -> Any:
    """Recovery `mean`: the mean output of the units that were dropped goes into the output bias.

    The bias compensation of FLAP (An et al., 2312.11983).

    Args:
      blocks: parameters of the blocks after the cut.
      missing: group -> [L, D], `mean_output` before the cut minus that after it.
    """
    return blocks | {
        group: blocks[group] | {"bias": _shared(blocks[group]["bias"], shift)} for group, shift in missing.items()
    }


def ridge(kernel: np.ndarray, bias: np.ndarray, sums: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Recovery `ridge`: the output projection of one sublayer by least squares, all branches and heads at once.

    Ordinary ridge regression of the error of the present output on the units, in closed form from sums over tokens. The
    penalty on the change of the kernel is `DAMPING` times the mean variance of a unit, but at least `ROUNDING` times
    its mean square; the bias has none. A network with correct outputs is unchanged.

    Args:
      kernel: [R, ..., D], bias: [R, D], current values.
      sums: sums over n tokens of units u [U] (flat) and errors e [D]: `rows` n, `unit` Σu, `error` Σe, `gram` Σu uᵀ,
        `cross` Σu eᵀ.

    Returns:
      The new kernel and bias, float32.
    """
    n, mean, error = sums["rows"], sums["unit"] / sums["rows"], sums["error"] / sums["rows"]
    covariance = sums["gram"] / n - np.outer(mean, mean)
    cross = sums["cross"] / n - np.outer(mean, error)
    variance, square = np.trace(covariance) / len(mean), np.trace(sums["gram"]) / n / len(mean)
    penalty = max(DAMPING * variance, ROUNDING * square, np.finfo(np.float32).tiny)
    covariance[np.diag_indices_from(covariance)] += penalty
    try:
        change = scipy.linalg.solve(covariance, cross, assume_a="pos", overwrite_a=True)
    except np.linalg.LinAlgError as e:
        raise UserError(
            "recovery=ridge: the calibration images are too similar for a fit; give a few hundred that differ"
        ) from e
    new = kernel + change.reshape(kernel.shape)
    return new.astype(np.float32), _shared(bias, error - mean @ change)


def _shared(bias: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Distributes a shift [..., D] of the sum of the branches' biases [..., R, D] equally over the branches."""
    return (bias + np.expand_dims(shift / bias.shape[-2], -2)).astype(np.float32)
