"""The forms of scaling laws. All but the last are sums of powers: their logarithm, which is fitted, is a log-sum-exp of
terms that are linear in the logarithms of the inputs.

A form is declared once: its terms, and the names under which its constants are reported. theta is the optimiser's
vector, in which constants that must be positive are represented by their logarithms.
"""

import jax.numpy as jnp
import numpy as np

from scaling.analysis.laws.form import EXPONENTS, LEVELS, Array, Constants, Form, log_sum
from scaling.analysis.laws.other_forms import OTHERS

_OFFSETS = (-3.0, 0.0)


def _line(theta: Array, x: Array) -> Array:
    return theta[0] - theta[1] * x[:, 0]


def _power(theta: Array, x: Array) -> Array:
    return log_sum(_line(theta, x), jnp.broadcast_to(theta[2], x[:, 0].shape))


def _saturating(theta: Array, x: Array) -> Array:
    shifted = jnp.logaddexp(x[:, 0], theta[3])
    return log_sum(theta[0] - theta[1] * shifted, jnp.broadcast_to(theta[2], shifted.shape))


def _kaplan(theta: Array, x: Array) -> Array:
    """theta: log N_c, log D_c, alpha_N, alpha_D."""
    return theta[3] * log_sum(theta[2] / theta[3] * (theta[0] - x[:, 0]), theta[1] - x[:, 1])


def _kaplan_one_exponent(theta: Array, x: Array) -> Array:
    """theta: log N_c, log D_c, alpha."""
    return theta[2] * log_sum(theta[0] - x[:, 0], theta[1] - x[:, 1])


def _two_powers(theta: Array, x: Array) -> Array:
    """theta: log A, alpha, log B, beta."""
    return log_sum(theta[0] - theta[1] * x[:, 0], theta[2] - theta[3] * x[:, 1])


def _chinchilla(theta: Array, x: Array) -> Array:
    """theta: log A, alpha, log B, beta, log E."""
    return log_sum(_two_powers(theta, x), jnp.broadcast_to(theta[4], x[:, 0].shape))


def _shape(theta: Array, x: Array) -> Array:
    """theta: log alpha, a, log beta, b, log xi, c, log eps."""
    size, compute = x[:, 0], x[:, 1]
    return log_sum(
        theta[0] - theta[1] * size,
        theta[2] + theta[3] * size - theta[5] * compute,
        theta[4] - theta[5] * compute,
        jnp.broadcast_to(theta[6], size.shape),
    )


def _retention(theta: Array, x: Array) -> Array:
    """theta: log u, log k."""
    log_u = jnp.maximum(theta[0], -30.0)  # beyond which it equals x^k to the last digit

    def kept(log_x: Array) -> Array:
        return jnp.log(-jnp.expm1(-jnp.exp(log_u + jnp.exp(theta[1]) * log_x)))

    return kept(x[:, 0]) - kept(jnp.zeros(()))


def _exponential(theta: Array, x: Array) -> Array:
    """theta: log u."""
    return _retention(jnp.stack([theta[0], jnp.zeros_like(theta[0])]), x)


def _power_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    known = {"a": np.exp(t[..., 0] + t[..., 1] * x[0] + y), "b": t[..., 1]}
    return known if t.shape[-1] < 3 else known | {"c": np.exp(t[..., 2] + y)}


def _saturating_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    return {**_power_constants(t[..., :3], x, y), "d": np.exp(t[..., 3] + x[0])}


def _kaplan_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    """Constants of y = s [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D, with the scale s absorbed into N_c and D_c."""
    return {
        "N_c": np.exp(t[..., 0] + x[0] + y / t[..., 2]),
        "D_c": np.exp(t[..., 1] + x[1] + y / t[..., 3]),
        "alpha_N": t[..., 2],
        "alpha_D": t[..., 3],
    }


def _kaplan_one_exponent_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    alpha = t[..., 2]
    return {"N_c": np.exp(t[..., 0] + x[0] + y / alpha), "D_c": np.exp(t[..., 1] + x[1] + y / alpha), "alpha": alpha}


def _chinchilla_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    alpha, beta = t[..., 1], t[..., 3]
    return {
        "A": np.exp(t[..., 0] + alpha * x[0] + y),
        "B": np.exp(t[..., 2] + beta * x[1] + y),
        **({"E": np.exp(t[..., 4] + y)} if t.shape[-1] > 4 else {}),
        "alpha": alpha,
        "beta": beta,
        "N_opt_exponent": beta / (alpha + beta),
    }


def _shape_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    a, b, c = t[..., 1], t[..., 3], t[..., 5]
    return {
        "alpha": np.exp(t[..., 0] + a * x[0] + y),
        "a": a,
        "beta": np.exp(t[..., 2] - b * x[0] + c * x[1] + y),
        "b": b,
        "xi": np.exp(t[..., 4] + c * x[1] + y),
        "c": c,
        "eps": np.exp(t[..., 6] + y),
        "s": c / (a + b),
    }


def _retention_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    u, k = np.exp(np.maximum(t[..., 0], -30.0)), np.exp(np.maximum(t[..., 1], -30.0))
    return {"u": u, "k": k, "x_90": (-np.log1p(0.9 * np.expm1(-u)) / u) ** (1 / k)}


def _exponential_constants(t: np.ndarray, x: np.ndarray, y: float) -> Constants:
    found = dict(_retention_constants(np.concatenate([t, np.zeros_like(t)], axis=-1), x, y))
    return {name: found[name] for name in ("u", "x_90")}


FORMS = {
    "line": Form("a x^-b", ("x",), _line, (LEVELS, EXPONENTS), _power_constants, "", "", ("a",), ("b",)),
    "power": Form(
        "a x^-b + c", ("x",), _power, (LEVELS, EXPONENTS, LEVELS), _power_constants, "line", "c", ("a",), ("b",)
    ),
    "saturating": Form(  # Zhai et al., 2106.04560, section 2.2
        "a (x + d)^-b + c",
        ("x",),
        _saturating,
        (LEVELS, EXPONENTS, LEVELS, _OFFSETS),
        _saturating_constants,
        "power",
        "c",
        ("a",),
        ("b",),
    ),
    "kaplan": Form(  # Kaplan et al., 2001.08361, equation 1.5
        "[(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D",
        ("N", "D"),
        _kaplan,
        ((-2.0, 0.0, 2.0), (-2.0, 0.0, 2.0), EXPONENTS, EXPONENTS),
        _kaplan_constants,
        "kaplan_one_exponent",
        coefficients=("N_c", "D_c"),
        exponents=("alpha_N", "alpha_D"),
    ),
    "kaplan_one_exponent": Form(
        "(N_c / N + D_c / D)^alpha",
        ("N", "D"),
        _kaplan_one_exponent,
        ((-2.0, 0.0, 2.0), (-2.0, 0.0, 2.0), EXPONENTS),
        _kaplan_one_exponent_constants,
        coefficients=("N_c", "D_c"),
        exponents=("alpha",),
    ),
    "chinchilla": Form(  # Hoffmann et al., 2203.15556, equation 2
        "A / N^alpha + B / D^beta + E",
        ("N", "D"),
        _chinchilla,
        (LEVELS, EXPONENTS, LEVELS, EXPONENTS, LEVELS),
        _chinchilla_constants,
        "two_powers",
        "E",
        ("A", "B"),
        ("alpha", "beta"),
    ),
    "two_powers": Form(
        "A / N^alpha + B / D^beta",
        ("N", "D"),
        _two_powers,
        (LEVELS, EXPONENTS, LEVELS, EXPONENTS),
        _chinchilla_constants,
        coefficients=("A", "B"),
        exponents=("alpha", "beta"),
    ),
    "shape": Form(  # Alabdulmohsin et al., 2305.13035, equation 1
        "alpha x^-a + (beta x^b + xi) t^-c + eps",
        ("x", "t"),
        _shape,
        ((-2.0, 0.0), EXPONENTS, (-2.0, 0.0), EXPONENTS, (-2.0, 0.0), EXPONENTS, (-2.0, 0.0)),
        _shape_constants,
        "chinchilla",
        "eps",
        ("alpha", "beta", "xi"),
        ("a", "b", "c"),
    ),
    "retention": Form(  # share of its score that a cut model retains at relative compute x; 90 % at x_90
        "(1 - exp(-u x^k)) / (1 - exp(-u))",
        ("x",),
        _retention,
        ((-4.0, 0.0, 1.0, 2.0), (-2.5, -1.0, 0.0, 0.7)),
        _retention_constants,
        "exponential",
        "u",
        relative=True,
    ),
    "exponential": Form(
        "(1 - exp(-u x)) / (1 - exp(-u))",
        ("x",),
        _exponential,
        ((-4.0, 0.0, 1.0, 2.0),),
        _exponential_constants,
        relative=True,
    ),
} | OTHERS
