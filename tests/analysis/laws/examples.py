"""Known laws, and losses that follow them: at given inputs, and at budgets of compute."""

import numpy as np

ONE = np.geomspace(1e6, 1e9, 14)
GRID = np.stack([x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e10, 8), np.geomspace(1e9, 1e12, 8))], axis=1)
BUDGETS, SIZES = np.geomspace(2e13, 2e15, 4), np.geomspace(1e5, 2e7, 10)
_N, _U, _R = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e10, 6), [1e8, 1e9, 1e10], [1.0, 2, 8, 40, 200]))
REPEATED = np.stack([_N, _U * _R, _U], axis=1)
SHAPES = np.stack([x.ravel() for x in np.meshgrid(np.geomspace(100, 3000, 8), np.geomspace(1, 1e3, 8))], axis=1)


def kaplan(x, N_c, D_c, alpha_N, alpha_D):
    n, d = x.T
    return ((N_c / n) ** (alpha_N / alpha_D) + D_c / d) ** alpha_D


def chinchilla(x, A, B, E, alpha, beta):
    n, d = x.T
    return A / n**alpha + B / d**beta + E


def shape(x, alpha, a, beta, b, xi, c, eps):
    size, t = x.T
    return alpha * size**-a + (beta * size**b + xi) * t**-c + eps


def data_constrained(x, A, B, E, alpha, R_D, R_N):
    """The law as in the authors' code: scaling_law of huggingface/datablations."""
    n, d, u = x.T
    g = (A / B) ** (1 / (2 * alpha))
    best = np.minimum(n, u * g * g)
    parameters = best + best * R_N * (1 - np.exp(-(np.maximum(n / best - 1, 0)) / R_N))
    samples = u + u * R_D * (1 - np.exp(-(np.maximum(d / u - 1, 0)) / R_D))
    return A / parameters**alpha + B / samples**alpha + E


def retention(x, u, k=1.0):
    return np.expm1(-u * x**k) / np.expm1(-u)


# form: the law, inputs, true constants. Chinchilla's are those of Hoffmann et al. (2203.15556), Kaplan's of 2001.08361,
# the saturating one is ImageNet 10-shot of Zhai et al. (2106.04560).
TRUTH = {
    "line": (lambda x, a, b: a * x**-b, ONE, {"a": 400.0, "b": 0.35}),
    "power": (lambda x, a, b, c: a * x**-b + c, ONE, {"a": 400.0, "b": 0.35, "c": 1.7}),
    "saturating": (
        lambda x, a, b, c, d: a * (x + d) ** -b + c,
        ONE / 1e7,
        {"a": 0.63, "b": 0.32, "c": 0.12, "d": 0.52},
    ),
    "kaplan": (kaplan, GRID, {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103}),
    "kaplan_one_exponent": (
        lambda x, N_c, D_c, alpha: kaplan(x, N_c, D_c, alpha, alpha),
        GRID,
        {"N_c": 6.4e13, "D_c": 1.8e13, "alpha": 0.09},
    ),
    "two_powers": (
        lambda x, A, B, alpha, beta: chinchilla(x, A, B, 0.0, alpha, beta),
        GRID,
        {"A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
    ),
    "chinchilla": (chinchilla, GRID, {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}),
    "shape": (
        shape,
        SHAPES,
        {"alpha": 5.0, "a": 0.6, "beta": 0.02, "b": 0.5, "xi": 0.3, "c": 0.4, "eps": 0.2},
    ),
    "one_exponent": (
        lambda x, A, B, E, alpha: chinchilla(x, A, B, E, alpha, alpha),
        GRID,
        {"A": 521.0, "B": 1488.0, "E": 1.87, "alpha": 0.353},
    ),
    "data_constrained": (
        data_constrained,
        REPEATED,
        {"A": 521.0, "B": 1488.0, "E": 1.87, "alpha": 0.353, "R_D": 15.39, "R_N": 5.31},
    ),
    "overtraining": (
        lambda x, a, b, E, eta: (a * x[:, 1] ** eta + b * x[:, 1] ** -eta) * x[:, 0] ** -eta + E,
        np.stack([x.ravel() for x in np.meshgrid(np.geomspace(1e17, 1e21, 6), np.geomspace(5, 640, 6))], axis=1),
        {"a": 60.0, "b": 700.0, "E": 1.8, "eta": 0.14},
    ),
    "broken": (
        lambda x, a, b, c_0, c_1, d, f: a + b * x**-c_0 * (1 + (x / d) ** (1 / f)) ** (-c_1 * f),
        np.geomspace(1e6, 1e12, 40),
        {"a": 0.3, "b": 20.0, "c_0": 0.1, "c_1": 0.25, "d": 1e9, "f": 0.5},
    ),
    "retention": (retention, np.geomspace(0.02, 1, 16), {"u": 2.5, "k": 0.6}),
    "exponential": (retention, np.geomspace(0.02, 1, 16), {"u": 2.5}),
}


def losses(form, noise=0.0, seed=0):
    """Inputs and values, with log-normal noise."""
    law, inputs, truth = TRUTH[form]
    values = law(inputs, **truth)
    return inputs, values * np.exp(noise * np.random.default_rng(seed).normal(size=len(values)))


def with_decoder(n):
    """Operations per sample of encoders of n parameters with a decoder of fixed size, which costs most of the small."""
    return 6 * n + 3e3 * n**0.5 + 2e7


def counted(sizes=SIZES, noise=0.0, seed=0, cost=with_decoder):
    """Runs of all sizes at all budgets, of the form chinchilla: N, D, loss, compute."""
    c, n = (x.ravel() for x in np.meshgrid(BUDGETS, sizes, indexing="ij"))
    d = c / cost(n)
    loss = chinchilla(np.stack([n, d], axis=1), **TRUTH["chinchilla"][2])
    return n, d, loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(n))), c


def exponent_along(cost):
    """Slope of the best N over the budgets, found by trying all."""
    n = np.geomspace(SIZES[0], SIZES[-1], 200_001)
    best = [n[chinchilla(np.stack([n, c / cost(n)], axis=1), **TRUTH["chinchilla"][2]).argmin()] for c in BUDGETS]
    return np.polyfit(np.log(BUDGETS), np.log(best), 1)[0]
