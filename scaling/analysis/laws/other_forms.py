"""Forms of later papers: one exponent for both, repeated data, over-training, and a law that bends once."""

import jax
import jax.numpy as jnp
import numpy as np

from scaling.analysis.laws.form import EXPONENTS, LEVELS, Array, Constants, Form, log_sum


def _one_exponent(theta: Array, x: Array) -> Array:
    """theta: log A, alpha, log B, log E."""
    return log_sum(
        theta[0] - theta[1] * x[:, 0], theta[2] - theta[1] * x[:, 1], jnp.broadcast_to(theta[3], x[:, 0].shape)
    )


def _one_exponent_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    alpha = t[..., 1]
    return {
        "A": np.exp(t[..., 0] + alpha * x[0] + y),
        "B": np.exp(t[..., 2] + alpha * x[1] + y),
        "E": np.exp(t[..., 3] + y),
        "alpha": alpha,
    }


def _worth(log_unique: Array, log_all: Array, log_half: Array) -> Array:
    """Log of the effective number of repeated samples in unique ones: U + U R* (1 - exp(-R / R*)), with R = all / U
    - 1.
    """
    more = jnp.expm1(jnp.maximum(log_all - log_unique, 0.0))
    return log_unique + jnp.log1p(-jnp.exp(log_half) * jnp.expm1(-more * jnp.exp(-log_half)))


def _data_constrained(theta: Array, x: Array) -> Array:
    """theta: log A, alpha, log B, log E, log R_D, log R_N; inputs N, D, and U, the unique ones of D."""
    n, d, unique = x[:, 0], x[:, 1], x[:, 2]
    enough = (theta[0] - theta[2]) / theta[1] + unique  # log of the best N for this many unique samples, seen once
    parameters, samples = _worth(jnp.minimum(n, enough), n, theta[5]), _worth(jnp.minimum(unique, d), d, theta[4])
    return _one_exponent(theta, jnp.stack([parameters, samples], axis=1))


def _data_constrained_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    return {**_one_exponent_constants(t, x, y), "R_D": np.exp(t[..., 4]), "R_N": np.exp(t[..., 5])}


def _overtraining(theta: Array, x: Array) -> Array:
    """theta: log a, log b, eta, log E; inputs C and M = D / N."""
    c, m, eta = x[:, 0], x[:, 1], theta[2]
    return log_sum(theta[0] + eta * (m - c), theta[1] - eta * (m + c), jnp.broadcast_to(theta[3], c.shape))


def _overtraining_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    eta = t[..., 2]
    return {
        "a": np.exp(t[..., 0] - eta * (x[1] - x[0]) + y),
        "b": np.exp(t[..., 1] + eta * (x[1] + x[0]) + y),
        "E": np.exp(t[..., 3] + y),
        "eta": eta,
    }


def _broken(theta: Array, x: Array) -> Array:
    """theta: log b, c_0, log d, c_1, log f, log a."""
    log_x, width = x[:, 0], jnp.exp(theta[4])
    bend = theta[3] * width * jax.nn.softplus((log_x - theta[2]) / width)
    return log_sum(theta[0] - theta[1] * log_x - bend, jnp.broadcast_to(theta[5], log_x.shape))


def _broken_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    return {
        "b": np.exp(t[..., 0] + t[..., 1] * x[0] + y),
        "c_0": t[..., 1],
        "d": np.exp(t[..., 2] + x[0]),
        "c_1": t[..., 3],
        "f": np.exp(t[..., 4]),
        "a": np.exp(t[..., 5] + y),
    }


OTHERS = {
    "one_exponent": Form(  # of Chinchilla's: what Muennighoff et al. (2305.16264) and Gadre et al. (2403.08540) assume
        "A / N^alpha + B / D^alpha + E",
        ("N", "D"),
        _one_exponent,
        (LEVELS, EXPONENTS, LEVELS, LEVELS),
        _one_exponent_constants,
        offset="E",
        coefficients=("A", "B"),
        exponents=("alpha",),
        asked_only=True,
    ),
    "data_constrained": Form(  # Muennighoff et al., 2305.16264, equations 5 and 6
        "A / N'^alpha + B / D'^alpha + E, X' = U + U R (1 - exp(-(X / U - 1) / R))",
        ("N", "D", "U"),
        _data_constrained,
        (LEVELS, EXPONENTS, LEVELS, LEVELS, (0.0, 3.0), (0.0, 3.0)),
        _data_constrained_constants,
        offset="E",
        coefficients=("A", "B"),
        exponents=("alpha",),
        same_unit=(1, 2),
    ),
    "overtraining": Form(  # Gadre et al., 2403.08540, equation 4
        "(a M^eta + b M^-eta) C^-eta + E",
        ("C", "M"),
        _overtraining,
        (LEVELS, LEVELS, EXPONENTS, LEVELS),
        _overtraining_constants,
        offset="E",
        coefficients=("a", "b"),
        exponents=("eta",),
        turning=("M",),
    ),
    "broken": Form(  # Caballero et al., 2210.14891, equation 1, with one break
        "b x^-c_0 (1 + (x / d)^(1 / f))^(-c_1 f) + a",
        ("x",),
        _broken,
        ((-1.0, 0.0), (0.1, 0.5), (-2.0, 0.0, 2.0), (-0.3, 0.3), (-1.5, 0.0), (-3.0, -1.0)),
        _broken_constants,
        "power",
        "a",
        ("b",),
        ("c_0",),
        asked_only=True,
    ),
}
