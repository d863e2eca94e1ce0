"""Writes the numbers that others published as rows, from the notes that they were copied into.

PYTHONPATH=. python results/published/build.py --reference=../shared/reference --output=results/published
"""

import argparse
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scaling.compute.counting import CONVENTIONS, image_flops, parameter_counts
from scaling.core.rows import Row, write_rows
from scaling.models.variants import Architecture, abstract_model, architecture
from scaling.slimming.cutting import axis_sizes, cut_shapes
from scaling.slimming.widths import mode_plan

PUBLISHED, MEMORY = "published", "unverified (from memory)"
NOTHING = Row(
    study="", model="", objective="", params=0, flops=0, compute=0.0, compute_published=0.0, width_ratio=1.0,
    depth_ratio=1.0, mode="", ordering="", recovery="", dataset="", split="", probe="", metric="", value=None,
    device="published",
)  # fmt: skip

# Names of the notes -> those of `scaling.models.variants`; the paper's own ViT-B has ten bands.
MODELS = {
    "DOFA (base)": "dofa_base", "DOFA b": "dofa_base", "DOFA-b": "dofa_base", "DOFA (large)": "dofa_large",
    "DOFA l": "dofa_large", "TerraMind-1.0 (base)": "terramind_v1_base", "TerraMind b": "terramind_v1_base",
    "TerraMind-b": "terramind_v1_base", "TerraMind-1.0 (large)": "terramind_v1_large",
    "TerraMind l": "terramind_v1_large", "Prithvi-EO-2.0 (300M)": "prithvi_eo_v2_300",
    "Prithvi-EO-2.0 300M": "prithvi_eo_v2_300", "Prithvi 300M": "prithvi_eo_v2_300",
    "Prithvi-300M": "prithvi_eo_v2_300",
    "Prithvi-EO-2.0 (600M)": "prithvi_eo_v2_600", "Prithvi 600M": "prithvi_eo_v2_600",
    "SSL4EO ViT-S (MoCo)": "ssl4eo_s12_vits16_moco", "SSL4EO MoCo": "ssl4eo_s12_vits16_moco",
    "SSL4EO ViT-S (DINO)": "ssl4eo_s12_vits16_dino", "SSL4EO DINO": "ssl4eo_s12_vits16_dino",
    "Panopticon": "panopticon_vitb14", "Copernicus-FM": "copernicus_fm_base", "own ViT-B, 10 bands": "vit_b",
    **{f"{o} {how}": f"vit_b {o} {how}" for o in ("MAE", "MoCo") for how in ("regular", "slimmable")},
}  # fmt: skip


def row(about: dict[str, Any], **fields: Any) -> Row:
    return dataclasses.replace(NOTHING, **(about | fields))


class Table(NamedTuple):
    """One table of the notes: the last bold or plain line before it, its heading, and its cells."""

    section: str
    caption: str
    head: list[str]
    rows: list[list[str]]


def tables(path: Path) -> list[Table]:
    found: list[Table] = []
    section, caption, inside = "", "", False
    for line in path.read_text().splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]
            if not inside:
                found.append(Table(section, caption, cells, []))
            elif not set(line) <= set("|-: "):
                found[-1].rows.append(cells)
            inside = True
            continue
        inside = False
        section = line.lstrip("# ") if line.startswith("#") else section
        caption = line if line.strip() else caption
    return found


def table(path: Path, section: str, head: str) -> Table:
    """The one table of a section whose first line holds a text."""
    (found,) = [t for t in tables(path) if t.section.startswith(section) and head in " | ".join((t.caption, *t.head))]
    return found


def number(cell: str) -> float:
    """The first number of a cell: `83.57 ± 0.08`, `**605.26M exactly**`, `.784`."""
    found = re.search(r"-?\d*\.?\d+", cell.replace(",", ""))
    if found is None:
        raise ValueError(f"no number in {cell!r}")
    return float(found[0])


def _stated(cell: str) -> bool:
    return re.search(r"\d", cell) is not None


def percent(cell: str) -> float:
    return round(number(cell) / 100, 6)


@functools.cache
def _whole(model: str) -> tuple[Architecture, Any, Any, dict[str, Any]]:
    """The architecture, shapes and names of its parameters, and its operations."""
    name = model.partition(" ")[0]
    a = architecture(name, **({"bands": 10} if name == "vit_b" else {}))
    shapes, names = abstract_model(a)
    return a, shapes, names, image_flops(a, names, shapes)


@functools.cache
def cost(model: str, width: float) -> dict[str, Any]:
    """Parameters and operations of a model at a width, by our counter (it agrees with the published axis to 1.3e-4)."""
    a, shapes, names, whole = _whole(model)
    small = cut_shapes(shapes, names, mode_plan(axis_sizes(shapes, names), width))
    left = image_flops(a, names, small)
    relative = {kind: left[kind]["encoder"] / whole[kind]["encoder"] for kind in CONVENTIONS}
    params, flops = parameter_counts(names, small)["encoder"], left["full"]["encoder"]
    return {
        "params": params, "flops": flops, "compute": relative["full"], "compute_published": relative["published"],
        "width_ratio": width, "mode": "inner", "ordering": "first", "recovery": "none",
    }  # fmt: skip


def cut(model: str, width: float, **fields: Any) -> Row:
    """A row of one of the paper's models, cut."""
    about = {"study": "slimmable_rsfms", "source": SLIMMING, "versions": PAGE, "certainty": PUBLISHED, "split": "test"}
    return row(about | cost(model, width), model=model, **fields)


SLIMMING = "Hackel, Burgert, Demir, arXiv 2601.22841; project page hackelle/slimmable-rsfms"
PAGE = "NeurIPS 2026 page"
METRICS = {"macro acc": "macro_accuracy", "macro mAP": "macro_map"}
SETS = {"m-eurosat": "macro_accuracy", "m-bigearthnet": "macro_map", "m-brick-kiln": "macro_accuracy"} | {
    "m-so2sat": "macro_accuracy"
}


def slimming(path: Path) -> Iterator[Row]:
    """Sections 6 to 10: the compute axis, k-NN over widths, dense tasks, bins, probes, splits, slimmable training."""
    axis = table(path, "6.", "full GMAC")
    for name, gmac, *relative in axis.rows:
        model = MODELS[name]
        yield cut(model, 1.0, metric="gmac", value=number(gmac), certainty="checked numerically", split="")
        for head, value in zip(axis.head[2:], relative, strict=True):
            yield cut(model, number(head.split("=")[1]), metric="relative_compute", value=number(value), split="")
    for dataset, metric in SETS.items():
        knn = table(path, "7.", f"**{dataset} (")
        widths = [number(head.split("=")[1]) for head in knn.head[1:7]]
        for name, *values in knn.rows:
            for width, value in zip(widths, values[:6], strict=True):
                yield cut(MODELS[name], width, dataset=dataset, probe="knn", metric=metric, value=number(value))
    dense = table(path, "7.", "Dense tasks")
    for name, *cells in dense.rows:
        for dataset, cell in zip(dense.head[1:], cells, strict=True):
            for width, value in zip((0.001, 1.0), cell.split("->"), strict=True):
                yield cut(
                    MODELS[name], width, dataset=dataset, probe="segmentation head", metric="miou", value=number(value)
                )
    yield from _bins(path)
    yield from _probes(path)
    yield from _slimmable(path)


def _bins(path: Path) -> Iterator[Row]:
    """Figure 1: means over all rows of a bin of compute; `compute_published` is the bin's lower end."""
    about = {"study": "slimmable_rsfms_bins", "source": SLIMMING, "versions": PAGE, "certainty": PUBLISHED}
    for head, metric in (("Fig. 1a", "retention"), ("Fig. 1b", "macro_accuracy")):
        found = next(t for t in tables(path) if t.section.startswith("8.") and t.caption.startswith(head))
        for group, *values in found.rows:
            model, _, dataset = group.partition(" at ")
            for end, value in zip(found.head[1:] if metric == "retention" else BINS, values, strict=True):
                yield row(
                    about,
                    model=model,
                    dataset=dataset or "m-eurosat",
                    split="test",
                    probe="knn",
                    metric=metric,
                    value=number(value),
                    compute_published=number(end),
                    mode="inner",
                    ordering="first",
                    recovery="none",
                )


BINS = ("0", ".1", ".2", ".3", ".4", ".5", ".6", ".7", ".8", "1.0")


def _probes(path: Path) -> Iterator[Row]:
    widths = (0.001, 0.01, 0.1, 0.5, 1.0)
    probes = next(t for t in tables(path) if t.section.startswith("9.") and "m-eurosat linear" in t.head)
    for name, *cells in probes.rows:
        for head, cell in zip(probes.head[1:], cells, strict=True):
            dataset, _, probe = head.partition(" ")
            for width, value in zip(widths, cell.split(), strict=True) if _stated(cell) else ():
                fields = {"dataset": dataset, "probe": probe.replace("-", ""), "metric": SETS[dataset]}
                yield cut(MODELS[name], width, value=number(value), **fields)
    splits = table(path, "9.", "split | DOFA-b")
    for name, *cells in splits.rows:
        for model, cell in zip(splits.head[1:], cells, strict=True):
            for width, value in zip(widths, cell.split(), strict=True):
                fields = {"dataset": "m-so2sat", "split": name, "probe": "knn", "metric": "macro_accuracy"}
                yield cut(MODELS[model], width, value=number(value), study="slimmable_rsfms_splits", **fields)


def _slimmable(path: Path) -> Iterator[Row]:
    widths = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    found = table(path, "10.", "MAE regular")
    for dataset, *cells in found.rows:
        for kind, cell in zip(found.head[1:], cells, strict=True):
            for width, value in zip(widths, cell.split(), strict=True):
                fields = {"dataset": dataset, "probe": "knn", "metric": SETS[dataset], "objective": kind.split()[0]}
                yield cut(MODELS[kind], width, value=number(value), study="slimmable_training", **fields)


def elsewhere(path: Path) -> Iterator[Row]:
    """Section 13: slimmable networks of other fields."""
    about: dict[str, Any] = {
        "dataset": "ImageNet-1k",
        "split": "validation",
        "certainty": PUBLISHED,
        "ordering": "first",
    }
    nets = next(t for t in tables(path) if t.section.startswith("13.") and t.head[0] == "network")
    for name, *cells in nets.rows:
        for width, cell in zip((1.0, 0.75, 0.5, 0.35 if name.endswith("v2") else 0.25), cells, strict=True):
            yield row(
                about,
                study="us_nets",
                model=name.partition(" (")[0],
                width_ratio=width,
                mode="channels",
                metric="top1_error",
                value=percent(cell),
                source="JiahuiYu/slimmable_networks",
                versions="README",
            )
    scala = next(t for t in tables(path) if t.section.startswith("13.") and "Scala coarse" in t.head)
    for name, *cells in scala.rows:
        for head, cell in zip(scala.head[1:], cells, strict=True):
            prefix, _, values = cell.rpartition(":")
            for width, value in zip((0.25, 0.5, 0.75, 1.0), values.split("/"), strict=True):
                yield row(
                    about,
                    study="scala",
                    model=f"{name}, {head} {prefix}".strip(),
                    width_ratio=width,
                    mode="token",
                    metric="top1_accuracy",
                    value=percent(value),
                    source="BeSpontaneous/Scala-pytorch",
                    versions="NeurIPS 2024",
                )
    nested = next(t for t in tables(path) if t.section.startswith("13.") and t.head[0] == "dim")
    for name, *cells in nested.rows:
        for width, value in zip(nested.head[1:], cells, strict=True):
            yield row(
                about,
                certainty=MEMORY,
                study="matryoshka",
                model=f"ResNet-50 {name}",
                mode="features",
                width_ratio=number(width) / 2048,
                embed=int(width),
                metric="top1_accuracy",
                value=percent(value),
                source="arXiv 2205.13147",
                versions="",
            )


def billions(path: Path) -> Iterator[Row]:
    """Parallel branches on ImageNet, parameter counts, and detection and segmentation at the largest size."""
    paper = {"source": "Cha, Seo, Lee, arXiv 2304.05215", "versions": "v4", "certainty": PUBLISHED}
    for name, width, mlp, shape, _, said in table(path, "2.", "our count").rows:
        scale = 1e9 if said.endswith("B") or "B (" in said else 1e6
        yield row(
            paper,
            study="billion_scale",
            model=f"vit_{name[4:].lower()}",
            embed=int(width),
            mlp=int(mlp),
            layers=12,
            metric="params",
            value=number(said) * scale,
            split=f"{shape} layers x branches",
        )
    branches = {"source": "Touvron et al., arXiv 2203.09795", "versions": "tables", "certainty": PUBLISHED}
    found = table(path, "3.", "fixed complexity")
    for name, *cells in found.rows:
        for count, cell in zip((1, 2, 3, 4), cells, strict=True):
            yield row(
                branches,
                study="parallel_branches",
                model=f"{name} as {count} branches",
                dataset="ImageNet-1k",
                split="validation",
                metric="top1_accuracy",
                value=percent(cell),
            )
    cited = {"versions": "comparison tables of the S5 paper", "certainty": PUBLISHED, "split": "test"}
    context = table(path, "6.", "model | DIOR-R")
    for name, *cells in context.rows:
        for head, cell in zip(context.head[1:], cells, strict=True):
            dataset = head.removesuffix(" mF1")
            metric = "mf1" if head.endswith("mF1") else "miou" if dataset == "LoveDA" else "map"
            if _stated(cell):
                yield row(
                    cited,
                    study="billion_scale_downstream",
                    model=name,
                    dataset=dataset,
                    probe="finetune",
                    metric=metric,
                    value=percent(cell),
                    source="S5 paper, citing each",
                )
    yield row(
        paper,
        study="billion_scale_downstream",
        model="ViT-G12x4 (paper B)",
        dataset="Potsdam",
        split="test",
        probe="finetune",
        metric="accuracy",
        value=percent(table(path, "6.", "set | metric").rows[2][2]),
    )


def depth(path: Path) -> Iterator[Row]:
    """Depth pruning before fine-tuning; what is inferred of the sizes of the models is left out of their names."""
    paper = {"source": "Barreiro et al., arXiv 2603.19873", "versions": "20 March 2026", "certainty": PUBLISHED}
    names = {"mIoU": "miou", "mAP": "map", "F1-macro": "macro_f1", "OA": "accuracy", "accuracy": "accuracy"}
    for name, data, *cells in table(path, "4.", "SIMPLER").rows:
        dataset, _, metrics = data.replace(" / ", "/").rpartition(" ")
        for how, cell in zip(("SIMPLER", "full"), cells[:2], strict=True):
            for metric, value in zip(metrics.split("/"), cell.split("/"), strict=False):
                if _stated(value):
                    yield row(
                        paper,
                        study="simpler",
                        model=name.partition(" (")[0],
                        mode="layers",
                        ordering="prefix" if how == "SIMPLER" else "",
                        recovery=how,
                        dataset=dataset,
                        split="test",
                        probe="finetune",
                        metric=names[metric],
                        value=percent(value),
                    )


def pretraining(path: Path) -> Iterator[Row]:
    """Check numbers of MAE, and fine-tuning of encoders pretrained on Sentinel-2."""
    about = {"dataset": "ImageNet-1k", "split": "validation", "metric": "top1_accuracy", "certainty": PUBLISHED}
    found = table(path, "1.", "ViT-B | ViT-L")
    for what, *cells in found.rows:
        for head, cell in zip(found.head[1:], cells, strict=True):
            if _stated(cell):
                yield row(
                    about,
                    study=f"mae: {what}",
                    model=f"mae_{head.lower().replace('-', '_')}",
                    objective="mae",
                    probe="linear" if what.startswith("linear") else "finetune",
                    value=percent(cell),
                    source="He et al., arXiv 2111.06377; facebookresearch/mae",
                    versions=what,
                )
    (cell,) = [row[1] for row in table(path, "2.", "source | facts").rows if row[0].startswith("zhu-xlab")]
    for name, *values in re.findall(r"(MAE|MoCo-v3|DINO) ViT-S ([\d.]+) / ([\d.]+) / ([\d.]+)", cell):
        for dataset, value in zip(("BigEarthNet", "EuroSAT", "So2Sat"), values, strict=True):
            yield row(
                about,
                dataset=dataset,
                split="test",
                metric="map" if dataset == "BigEarthNet" else "accuracy",
                study="ssl4eo_s12",
                model=f"{name} ViT-S",
                objective=name,
                probe="finetune",
                value=percent(value),
                source="zhu-xlab/SSL4EO-S12",
                versions="README",
            )


FILES = {
    "slimming": ("slimming.md", (slimming, elsewhere)),
    "billion_scale": ("billion_scale.md", (billions,)),
    "simpler": ("simpler.md", (depth,)),
    "pretraining": ("pretraining.md", (pretraining,)),
}


def rows(reference: Path, name: str) -> list[Row]:
    """All rows of one file of the notes."""
    file, readers = FILES[name]
    return [row for read in readers for row in read(reference / file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="folder with the notes")
    parser.add_argument("--output", type=Path, required=True, help="folder of the rows")
    arguments = parser.parse_args()
    for name in FILES:
        found = rows(arguments.reference, name)
        write_rows(arguments.output / f"{name}.rows.jsonl", found)
        print(f"{name:<14} {len(found):>4} rows")


if __name__ == "__main__":
    main()
