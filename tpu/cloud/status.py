"""Cost of a slice and progress of its run: from gcloud, and from the run's own records in the bucket."""

import json
import time
from collections.abc import Mapping
from typing import Any

from scaling.core.errors import UserError
from scaling.training.goodput import STARTS, goodput, read_starts
from scaling.training.writers import parsed_metrics
from tpu.cloud.found import MISSING, READY, Found, Node
from tpu.cloud.gcloud import Gcloud
from tpu.flags import accelerator

HEADER = ("name", "zone", "state", "health", "age", "cost", "step", "loss", "left")


def progress(gcloud: Gcloud, workdir: str) -> dict[str, Any]:
    """`step`, `steps`, `loss`, `left` (seconds), `goodput` since the newest start, and a sentence on goodput `over
    all` starts; values that the run's files do not contain are missing.
    """
    if not workdir:
        return {}
    rows = parsed_metrics(gcloud.file(f"{workdir}/metrics.jsonl").encode())
    if not rows:
        return {}
    found: dict[str, Any] = {name: rows[-1][name] for name in ("step", "loss", "goodput") if name in rows[-1]}
    try:
        config = json.loads(gcloud.file(f"{workdir}/config.json") or "{}")
    except ValueError:
        return found
    starts = read_starts(gcloud.file(f"{workdir}/{STARTS}"))
    if whole := goodput(starts, rows, config.get("batch_size", 0)):
        found["over all"] = str(whole)
    if steps := config.get("steps"):
        found["steps"] = steps
        if rate := rows[-1].get("images_per_second"):
            found["left"] = (steps - rows[-1]["step"]) * config.get("batch_size", 0) / rate
    return found


def cells(found: Found, node: Node, zone: str, name: str, price: float, run: Mapping[str, Any]) -> list[str]:
    """A slice in the columns of HEADER."""
    age = time.time() - node.created if node.created and found.state != MISSING else 0.0
    price = price or float(found.about.get("price", node.about.get("price", 0)) or 0)
    chips = _chips(found.accelerator or node.accelerator)
    return [
        name,
        zone,
        found.state,
        node.health.lower() if node.well else str(node),
        duration(age) if age else "",
        f"{age / 3600 * price * chips:,.0f} USD" if age and price and chips else "",
        f"{run['step']:,}" + (f" of {run['steps']:,}" if "steps" in run else "") if "step" in run else "",
        f"{run['loss']:.4f}" if isinstance(run.get("loss"), float) else "",
        duration(run["left"]) if run.get("left") else "",
    ]


def _chips(kind: str) -> int:
    """Chips of an accelerator type; 0 if it is not known here: others in the zone may have older ones."""
    try:
        return accelerator(kind).chips
    except UserError:
        return 0


def duration(seconds: float) -> str:
    """`3 d 4 h`, `4 h 12 min` or `12 min`."""
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"


def everything(gcloud: Gcloud, zone: str, project: str, price: float) -> list[list[str]]:
    """All slices of a zone in the columns of HEADER, including those without a queued resource."""
    place = [f"--zone={zone}", *([f"--project={project}"] if project else [])]
    tpus = ["gcloud", "compute", "tpus"]
    resources = gcloud.listed([*tpus, "queued-resources", "list", *place])
    nodes = {node.name: node for node in map(Node.of, gcloud.listed([*tpus, "tpu-vm", "list", *place]))}
    rows = []
    for resource in resources:
        name, found = resource.get("name", "").rpartition("/")[2], Found.of(resource)
        node = nodes.pop(name, Node())
        rows.append(cells(found, node, zone, name, price, progress(gcloud, found.about.get("workdir", ""))))
    alone = (Found(READY, accelerator=node.accelerator) for node in nodes.values())
    rows += [cells(found, node, zone, node.name, price, {}) for found, node in zip(alone, nodes.values(), strict=True)]
    return rows
