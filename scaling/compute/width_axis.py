"""The compute saved by slimming: the horizontal axis of every curve over widths, next to the published one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from rich.table import Table

from scaling.compute.counting import CONVENTIONS, image_flops
from scaling.core.errors import UserError
from scaling.models.variants import Architecture, abstract_model
from scaling.slimming.cutting import axis_sizes, cut_shapes
from scaling.slimming.widths import mode_plan


def width_axis(
    a: Architecture, widths: Sequence[float], reference: Mapping[float, float] | None = None
) -> list[dict[str, Any]]:
    """Operations of the slimmed encoder, one whole image, relative to its full width.

    Args:
      a: the model.
      widths: s in (0, 1], in mode `inner` (`scaling.slimming.widths`).
      reference: width -> published value in the convention `published`, to be shown next to ours.

    Returns:
      One `{"s": width, "compute": {convention: ratio}}` per width, with `reference` if there is one.

    Raises:
      UserError: a width outside of (0, 1].
    """
    shapes, names = abstract_model(a)
    sizes, full = axis_sizes(shapes, names), image_flops(a, names, shapes)
    rows = []
    for s in widths:
        slim = image_flops(a, names, cut_shapes(shapes, names, mode_plan(sizes, s)))
        row: dict[str, Any] = {"s": s, "compute": {k: slim[k]["encoder"] / full[k]["encoder"] for k in CONVENTIONS}}
        rows.append(row | ({"reference": reference[s]} if reference and s in reference else {}))
    return rows


def read_reference(path: epath.Path, model: str) -> dict[float, float]:
    """Width -> relative operations of one model, from a JSON file {model: {width: relative operations}}.

    Raises:
      UserError: the file cannot be read, has another form, or lacks the model.
    """
    try:
        models = {
            name: {float(s): float(x) for s, x in row.items()} for name, row in json.loads(path.read_text()).items()
        }
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from None
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} is not JSON of the form {{model: {{width: relative operations}}}}") from None
    if model not in models:
        raise UserError(f"{path} has no model {model!r}; it has {', '.join(models)}")
    return models[model]


def width_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of `width_axis` as a table for printing."""
    columns = ["width", *CONVENTIONS]
    if any("reference" in row for row in rows):
        columns += ["reference", "published - reference"]
    table = Table(title="operations of the encoder relative to full width")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        cells = [f"{row['s']:g}", *(f"{row['compute'][convention]:.4f}" for convention in CONVENTIONS)]
        if "reference" in row:
            cells += [f"{row['reference']:.4f}", f"{row['compute']['published'] - row['reference']:+.1e}"]
        table.add_row(*cells)
    return table
