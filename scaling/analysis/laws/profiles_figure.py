"""isoFLOP profiles in one figure: losses over parameters at every budget, and the best parameters over compute."""

import numpy as np
from etils import epath

from scaling.analysis.laws.isoflop import Profiles
from scaling.core.canvas import LINES, new_figure, plain_axes, plain_numbers, save


def draw_profiles(
    profiles: Profiles, parameters: np.ndarray, losses: np.ndarray, names: tuple[str, str, str], path: epath.Path
) -> None:
    """Writes PATH.png and PATH.svg.

    Args:
      profiles: profiles of the runs.
      parameters, losses: parameters and loss of each run [n].
      names: names of parameters, compute and loss.
      path: path without ending.
    """
    figure = new_figure(8.0, 3.4)
    left, right = figure.subplots(1, 2)
    left.set(xscale="log", yscale="log", xlabel=names[0], ylabel=names[2])
    right.set(xscale="log", yscale="log", xlabel=names[1], ylabel=f"best {names[0]}")
    for axes, title in ((left, "points, parabolas and their vertices"), (right, "N_opt ~ C^exponent")):
        axes.set_title(title, loc="left", fontsize=8)
        plain_axes(axes)
    if losses.max() < 10 * losses.min():
        plain_numbers(left.yaxis)
    budgets = profiles.budgets[profiles.numbers]
    points = left.scatter(parameters, losses, c=budgets, norm="log", cmap="viridis", zorder=3, s=18)
    for b, budget in enumerate(profiles.budgets):
        here, colour = parameters[profiles.numbers == b], points.cmap(points.norm(budget))
        curve, middle, vertex = (
            profiles.parabolas.coefficients[0, b],
            profiles.parabolas.middles[b],
            profiles.vertices[b],
        )
        x = np.geomspace(min(here.min(), vertex), max(here.max(), vertex), 100)
        left.plot(x, np.polyval(curve, np.log(x) - middle), color=colour)
        left.plot(vertex, np.polyval(curve, np.log(vertex) - middle), "*", color=colour, markeredgecolor="0.2", ms=11)
    figure.colorbar(points, label=names[1])
    for (shade, dash, _), (label, exponent, best, mark) in zip(
        LINES,
        (
            ("vertices of the parabolas", profiles.parabola, profiles.vertices, "*"),
            ("lowest point of the law", profiles.law, profiles.optima, "o"),
        ),
        strict=False,
    ):
        middle = np.exp(np.log(profiles.budgets).mean()), np.exp(np.log(best).mean())
        right.plot(
            profiles.budgets, middle[1] * (profiles.budgets / middle[0]) ** exponent, ls=dash, color=shade, lw=1.1
        )
        right.plot(profiles.budgets, best, mark, color=shade, label=f"{label}: {exponent:.3f}")
    right.legend(fontsize=7, frameon=False)
    right.tick_params(axis="x", which="both", labelrotation=30)  # less than a decade has a label at every digit
    save(figure, path, ("png", "svg"))
