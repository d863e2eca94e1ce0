"""The model card of a written encoder, in the format of the hub's README.md."""

import dataclasses
from collections.abc import Sequence

import yaml
from etils import epath

from scaling.compute import counting
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.rows import Row
from scaling.encoders.encoder import Encoder
from scaling.encoders.origin import origin

_OURS = "library_name: scaling"
_HUB_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC-BY-4.0": "cc-by-4.0", "CC-BY-NC 4.0": "cc-by-nc-4.0"}
_KEPT = "_retention"  # ending of the names of metrics that are a share of the whole encoder's score


def check_card(folder: epath.Path, name: str = "") -> epath.Path:
    """Path of the card: NAME.md beside a file, or README.md in a folder.

    Raises:
      UserError: that file exists and is not a card.
    """
    place = folder / (f"{name}.md" if name else "README.md")
    if place.exists() and _OURS not in place.read_text():
        raise UserError(
            f"--output: the model card would replace {place}; choose another {'name' if name else 'folder'}"
        )
    return place


def write_card(path: epath.Path, encoder: Encoder, name: str, layout: str, rows: Sequence[Row] = ()) -> None:
    """Writes sizes, licence, origin and cuts of an encoder and, from rows, the retention of its cuts.

    Args:
      path: path of the card.
      encoder: the written encoder.
      name: name of the file or folder.
      layout: format that it was written in.
      rows: rows of a slimming study of the whole encoder.
    """
    about, c = origin(encoder), encoder.config
    params, operations, relative = counting.encoder_cost(
        dataclasses.replace(encoder.architecture, config=encoder.train.model), c
    )
    licence = about["licence"] or "not stated"
    head = {"library_name": "scaling", "license": _HUB_LICENCES.get(about["licence"], "other")}
    head |= {"license_name": licence} if head["license"] == "other" else {}
    numbers = {
        "written as": layout,
        "parameters": f"{params:,}",
        "operations an image": f"{operations:,} (2 for a multiply-accumulate)",
        "of the uncut encoder's": f"{relative['full']:.1%}, {relative['published']:.1%} by the `published` count",
        "images": f"{' x '.join(map(str, c.image_shape))} pixels, patches of {c.patch_size}, {c.bands} bands",
        "bands": ", ".join(about["band_names"]) or "not named",
        "normalisation": about["normalisation"],
        "width, depth, heads": f"{c.width}, {c.depth}, {c.heads} of {c.head_dim}",
        "pretrained by": about["objective"],
        "from": f"{about['source']} {about['family']}".strip(),
        "licence of the weights": licence,
    }
    table = "".join(f"| {what} | {value} |\n" for what, value in numbers.items())
    cuts = "".join(f"- {cut}\n" for cut in encoder.cuts) or "Not cut.\n"
    text = (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {name}\n\n| | |\n|---|---|\n{table}\n## Cuts\n\n{cuts}"
    )
    write_whole(path, text + _retention(rows))


def _retention(rows: Sequence[Row]) -> str:
    """A table of the shares of the score that smaller widths retain; empty if no row has one."""
    kept = [row for row in rows if row.metric.endswith(_KEPT) and row.value is not None and row.mode != "control"]
    if not kept:
        return ""
    lines = [
        f"| {r.dataset} | {r.probe} | {r.metric.removesuffix(_KEPT).replace('_', ' ')} | {r.width_ratio:g} | "
        f"{r.compute:.1%} | {r.ordering}, {r.recovery} | {r.value:.3f}{_interval(r)} |\n"
        for r in sorted(kept, key=lambda r: (r.dataset, r.probe, r.metric, r.ordering, r.recovery, -r.width_ratio))
    ]
    head = "| data | probe | score | width | operations | how | kept |\n|---|---|---|---|---|---|---|\n"
    return f"\n## What cuts of the whole encoder keep of its score\n\n{head}{''.join(lines)}"


def _interval(row: Row) -> str:
    return "" if row.low is None or row.high is None else f" ({row.low:.3f} to {row.high:.3f})"
