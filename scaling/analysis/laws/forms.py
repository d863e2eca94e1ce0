"""The forms of scaling laws. All but the last are sums of powers, so that their logarithm is a log-sum-exp of terms
that are linear in the logarithms of what was varied: that is what is fitted.

A form is declared once: its terms, and the names under which its constants are reported. theta is the vector that the
optimiser moves; every constant that must be positive is in it by its logarithm.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
      formula: for people.
      inputs: names of what was varied, in the order in which it is given.
      log_value: (theta [p], log inputs [n, k]) -> log of the predictions [n].
      starts: for each entry of theta, values from which fits begin, in units where every input and the value have
        geometric mean 1.
      constants: (theta, log of the geometric means of the inputs, of the value) -> the constants of the formula.
      simpler: the form with one thing less, for comparison. Without an offset for a sum of powers, with one exponent
        for Kaplan's, with k = 1 for retention; of shape the chinchilla form of the same two inputs, in which the size
        costs nothing and there is no best one. Empty where the next simpler form would leave out an input.
      offset: the constant that is 0 where it is not needed, in the unit of the value. It is fitted by its logarithm and
        comes out as a number however small.
      coefficients: the constants that are positive factors, in units that depend on those of the inputs.
      exponents: the constants that are powers of an input.
      relative: whether 1 means something, in the inputs and in the value, so that they are fitted in the units given.
    """

    formula: str
    inputs: tuple[str, ...]
    log_value: Callable[[Array, Array], Array]
    starts: tuple[tuple[float, ...], ...]
    constants: Callable[[np.ndarray, np.ndarray, float], Mapping[str, np.ndarray]]
    simpler: str = ""
    offset: str = ""
    coefficients: tuple[str, ...] = ()
    exponents: tuple[str, ...] = ()
    relative: bool = False


def _sum(*terms: Array) -> Array:
    return jax.nn.logsumexp(jnp.stack(terms), axis=0)


_EXPONENTS = (0.1, 0.5, 1.0)
_LEVELS = (-3.0, -1.0, 0.0)
_OFFSETS = (-3.0, 0.0)


def _line(theta: Array, x: Array) -> Array:
    return theta[0] - theta[1] * x[:, 0]


def _power(theta: Array, x: Array) -> Array:
    return _sum(_line(theta, x), jnp.broadcast_to(theta[2], x[:, 0].shape))


def _saturating(theta: Array, x: Array) -> Array:
    shifted = jnp.logaddexp(x[:, 0], theta[3])
    return _sum(theta[0] - theta[1] * shifted, jnp.broadcast_to(theta[2], shifted.shape))


def _kaplan(theta: Array, x: Array) -> Array:
    """theta: log N_c, log D_c, alpha_N, alpha_D."""
    return theta[3] * _sum(theta[2] / theta[3] * (theta[0] - x[:, 0]), theta[1] - x[:, 1])


def _kaplan_one_exponent(theta: Array, x: Array) -> Array:
    """theta: log N_c, log D_c, alpha."""
    return theta[2] * _sum(theta[0] - x[:, 0], theta[1] - x[:, 1])


def _two_powers(theta: Array, x: Array) -> Array:
    """theta: log A, alpha, log B, beta."""
    return _sum(theta[0] - theta[1] * x[:, 0], theta[2] - theta[3] * x[:, 1])


def _chinchilla(theta: Array, x: Array) -> Array:
    """theta: log A, alpha, log B, beta, log E."""
    return _sum(_two_powers(theta, x), jnp.broadcast_to(theta[4], x[:, 0].shape))


def _shape(theta: Array, x: Array) -> Array:
    """theta: log alpha, a, log beta, b, log xi, c, log eps."""
    size, compute = x[:, 0], x[:, 1]
    return _sum(
        theta[0] - theta[1] * size,
        theta[2] + theta[3] * size - theta[5] * compute,
        theta[4] - theta[5] * compute,
        jnp.broadcast_to(theta[6], size.shape),
    )


def _retention(theta: Array, x: Array) -> Array:
    """theta: log u, log k."""
    log_u = jnp.maximum(theta[0], -30.0)  # from there on it is x^k to the last digit

    def kept(log_x: Array) -> Array:
        return jnp.log(-jnp.expm1(-jnp.exp(log_u + jnp.exp(theta[1]) * log_x)))

    return kept(x[:, 0]) - kept(jnp.zeros(()))


def _exponential(theta: Array, x: Array) -> Array:
    """theta: log u."""
    return _retention(jnp.stack([theta[0], jnp.zeros_like(theta[0])]), x)


def _power_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
    known = {"a": np.exp(t[..., 0] + t[..., 1] * x[0] + y), "b": t[..., 1]}
    return known if t.shape[-1] < 3 else known | {"c": np.exp(t[..., 2] + y)}


def _saturating_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
    return {**_power_constants(t[..., :3], x, y), "d": np.exp(t[..., 3] + x[0])}


def _kaplan_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
    """Of y = s [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D the scale s is taken into N_c and D_c."""
    return {
        "N_c": np.exp(t[..., 0] + x[0] + y / t[..., 2]),
        "D_c": np.exp(t[..., 1] + x[1] + y / t[..., 3]),
        "alpha_N": t[..., 2],
        "alpha_D": t[..., 3],
    }


def _kaplan_one_exponent_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
    alpha = t[..., 2]
    return {"N_c": np.exp(t[..., 0] + x[0] + y / alpha), "D_c": np.exp(t[..., 1] + x[1] + y / alpha), "alpha": alpha}


def _chinchilla_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
    alpha, beta = t[..., 1], t[..., 3]
    return {
        "A": np.exp(t[..., 0] + alpha * x[0] + y),
        "B": np.exp(t[..., 2] + beta * x[1] + y),
        **({"E": np.exp(t[..., 4] + y)} if t.shape[-1] > 4 else {}),
        "alpha": alpha,
        "beta": beta,
        "N_opt_exponent": beta / (alpha + beta),
    }


def _shape_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
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


def _retention_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
    u, k = np.exp(np.maximum(t[..., 0], -30.0)), np.exp(np.maximum(t[..., 1], -30.0))
    return {"u": u, "k": k, "x_90": (-np.log1p(0.9 * np.expm1(-u)) / u) ** (1 / k)}


def _exponential_constants(t: np.ndarray, x: np.ndarray, y: float) -> Mapping[str, np.ndarray]:
    found = dict(_retention_constants(np.concatenate([t, np.zeros_like(t)], axis=-1), x, y))
    return {name: found[name] for name in ("u", "x_90")}


FORMS = {
    "line": Form("a x^-b", ("x",), _line, (_LEVELS, _EXPONENTS), _power_constants, "", "", ("a",), ("b",)),
    "power": Form(
        "a x^-b + c", ("x",), _power, (_LEVELS, _EXPONENTS, _LEVELS), _power_constants, "line", "c", ("a",), ("b",)
    ),
    "saturating": Form(  # Zhai et al., 2106.04560, section 2.2
        "a (x + d)^-b + c",
        ("x",),
        _saturating,
        (_LEVELS, _EXPONENTS, _LEVELS, _OFFSETS),
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
        ((-2.0, 0.0, 2.0), (-2.0, 0.0, 2.0), _EXPONENTS, _EXPONENTS),
        _kaplan_constants,
        "kaplan_one_exponent",
        coefficients=("N_c", "D_c"),
        exponents=("alpha_N", "alpha_D"),
    ),
    "kaplan_one_exponent": Form(
        "(N_c / N + D_c / D)^alpha",
        ("N", "D"),
        _kaplan_one_exponent,
        ((-2.0, 0.0, 2.0), (-2.0, 0.0, 2.0), _EXPONENTS),
        _kaplan_one_exponent_constants,
        coefficients=("N_c", "D_c"),
        exponents=("alpha",),
    ),
    "chinchilla": Form(  # Hoffmann et al., 2203.15556, equation 2
        "A / N^alpha + B / D^beta + E",
        ("N", "D"),
        _chinchilla,
        (_LEVELS, _EXPONENTS, _LEVELS, _EXPONENTS, _LEVELS),
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
        (_LEVELS, _EXPONENTS, _LEVELS, _EXPONENTS),
        _chinchilla_constants,
        coefficients=("A", "B"),
        exponents=("alpha", "beta"),
    ),
    "shape": Form(  # Alabdulmohsin et al., 2305.13035, equation 1
        "alpha x^-a + (beta x^b + xi) t^-c + eps",
        ("x", "t"),
        _shape,
        ((-2.0, 0.0), _EXPONENTS, (-2.0, 0.0), _EXPONENTS, (-2.0, 0.0), _EXPONENTS, (-2.0, 0.0)),
        _shape_constants,
        "chinchilla",
        "eps",
        ("alpha", "beta", "xi"),
        ("a", "b", "c"),
    ),
    "retention": Form(  # what a cut model keeps of its score at relative compute x, 90 % of it at x_90
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
}
