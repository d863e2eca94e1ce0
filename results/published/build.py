"""Writes the numbers that others published as rows, from the notes that they were copied into.

PYTHONPATH=. python results/published/build.py --reference=../shared/reference --output=results/published
"""

import argparse
import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from results.published.notes import number, percent, stated, table
from scaling.compute.counting import CONVENTIONS, image_flops, parameter_counts
from scaling.core.rows import Row, write_rows
from scaling.models.variants import Architecture, abstract_model, architecture
from scaling.slimming.cutting import axis_sizes, cut_shapes
from scaling.slimming.widths import mode_plan

MEMORY = "unverified (from memory)"
NOTHING = Row(
    study="", model="", objective="", params=0, flops=0, compute=0.0, compute_published=0.0, width_ratio=1.0,
    depth_ratio=1.0, mode="", ordering="", recovery="", dataset="", split="", probe="", metric="", value=None,
    device="published", certainty="published",
)  # fmt: skip
HACKEL = {
    "study": "slimmable_rsfms", "split": "test", "versions": "NeurIPS 2026 page",
    "source": "Hackel, Burgert, Demir, arXiv 2601.22841; project page hackelle/slimmable-rsfms",
}  # fmt: skip
IMAGENET = {"dataset": "ImageNet-1k", "split": "validation"}
SETS = {
    "m-eurosat": "macro_accuracy", "m-bigearthnet": "macro_map", "m-brick-kiln": "macro_accuracy",
    "m-so2sat": "macro_accuracy",
}  # fmt: skip

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
    return row(HACKEL | cost(model, width), model=model, **fields)


def cuts(model: str, widths: Sequence[float], cells: list[str], **fields: Any) -> Iterator[Row]:
    for width, cell in zip(widths, cells, strict=True):
        yield cut(model, width, value=number(cell), **fields)


def slimming(path: Path) -> Iterator[Row]:
    """Sections 6 to 10: the compute axis, k-NN over widths, dense tasks, bins, probes, splits, slimmable training."""
    axis = table(path, "6.", "full GMAC")
    for name, gmac, *relative in axis.rows:
        model = MODELS[name]
        yield cut(model, 1.0, metric="gmac", value=number(gmac), certainty="checked numerically", split="")
        for head, value in zip(axis.head[2:], relative, strict=True):
            yield cut(model, number(head.split("=")[1]), metric="relative_compute", value=number(value), split="")
    for dataset, metric in SETS.items():
        for name, head, value in table(path, "7.", f"**{dataset} (").stated():
            what, _, width = head.partition("=")
            if what == "s":  # not a retention, which is a quotient of two of them
                yield cut(MODELS[name], number(width), dataset=dataset, probe="knn", metric=metric, value=number(value))
    for name, dataset, cell in table(path, "7.", "Dense tasks").stated():
        fields = {"dataset": dataset, "probe": "segmentation head", "metric": "miou"}
        yield from cuts(MODELS[name], (0.001, 1.0), cell.split("->"), **fields)
    yield from _bins(path)
    yield from _probes(path)
    yield from _slimmable(path)


def _bins(path: Path) -> Iterator[Row]:
    """Figure 1: means over all rows of a bin of compute; `compute_published` is the bin's lower end."""
    about = HACKEL | {"study": "slimmable_rsfms_bins", "probe": "knn", "mode": "inner"}
    about |= {"ordering": "first", "recovery": "none"}
    for figure, metric in (("Fig. 1a", "retention"), ("Fig. 1b", "macro_accuracy")):
        for group, end, value in table(path, "8.", figure).stated():
            model, _, dataset = group.partition(" at ")
            fields = {"model": model, "dataset": dataset or "m-eurosat", "metric": metric}
            yield row(about, compute_published=number(end), value=number(value), **fields)


def _probes(path: Path) -> Iterator[Row]:
    widths = (0.001, 0.01, 0.1, 0.5, 1.0)
    for name, head, cell in table(path, "9.", "m-eurosat linear").stated():
        dataset, _, probe = head.partition(" ")
        fields = {"dataset": dataset, "probe": probe.replace("-", ""), "metric": SETS[dataset]}
        yield from cuts(MODELS[name], widths, cell.split(), **fields)
    for name, model, cell in table(path, "9.", "split | DOFA-b").stated():
        fields = {"study": "slimmable_rsfms_splits", "dataset": "m-so2sat", "split": name, "probe": "knn"}
        yield from cuts(MODELS[model], widths, cell.split(), metric="macro_accuracy", **fields)


def _slimmable(path: Path) -> Iterator[Row]:
    widths = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    for dataset, kind, cell in table(path, "10.", "MAE regular").stated():
        fields = {"study": "slimmable_training", "dataset": dataset, "probe": "knn", "metric": SETS[dataset]}
        yield from cuts(MODELS[kind], widths, cell.split(), objective=kind.split()[0], **fields)


def elsewhere(path: Path) -> Iterator[Row]:
    """Section 13: slimmable networks of other fields."""
    about = IMAGENET | {"ordering": "first"}
    nets = about | {"study": "us_nets", "source": "JiahuiYu/slimmable_networks", "versions": "README"}
    for name, head, cell in table(path, "13.", "network | 1.0").stated():
        width = 0.35 if name.endswith("v2") and head.startswith(".25") else number(head)
        fields = {"model": name.partition(" (")[0], "mode": "channels", "metric": "top1_error"}
        yield row(nets, width_ratio=width, value=percent(cell), **fields)
    scala = about | {"study": "scala", "source": "BeSpontaneous/Scala-pytorch", "versions": "NeurIPS 2024"}
    for name, head, cell in table(path, "13.", "Scala coarse").stated():
        prefix, _, values = cell.rpartition(":")
        fields = {"model": f"{name}, {head} {prefix}".strip(), "mode": "token", "metric": "top1_accuracy"}
        for width, value in zip((0.25, 0.5, 0.75, 1.0), values.split("/"), strict=True):
            yield row(scala, width_ratio=width, value=percent(value), **fields)
    nested = about | {"study": "matryoshka", "source": "arXiv 2205.13147", "versions": "", "certainty": MEMORY}
    for name, head, cell in table(path, "13.", "dim | 8").stated():
        fields = {"model": f"ResNet-50 {name}", "mode": "features", "metric": "top1_accuracy"}
        yield row(nested, width_ratio=number(head) / 2048, embed=int(head), value=percent(cell), **fields)


def billions(path: Path) -> Iterator[Row]:
    """Parallel branches on ImageNet, parameter counts, and detection and segmentation at the largest size."""
    paper = {"source": "Cha, Seo, Lee, arXiv 2304.05215", "versions": "v4"}
    for name, width, mlp, shape, _, said in table(path, "2.", "our count").rows:
        scale = 1e9 if said.endswith("B") or "B (" in said else 1e6
        fields = {"study": "billion_scale", "model": f"vit_{name[4:].lower()}", "metric": "params"}
        sizes = {"embed": int(width), "mlp": int(mlp), "layers": 12, "split": f"{shape} layers x branches"}
        yield row(paper, value=number(said) * scale, **fields, **sizes)
    touvron = IMAGENET | {"source": "Touvron et al., arXiv 2203.09795", "versions": "tables"}
    for name, head, cell in table(path, "3.", "fixed complexity").stated():
        model = f"{name} as {number(head):.0f} branches"
        yield row(touvron, study="parallel_branches", model=model, metric="top1_accuracy", value=percent(cell))
    scores = {"study": "billion_scale_downstream", "split": "test", "probe": "finetune"}
    cited = scores | {"source": "S5 paper, citing each", "versions": "comparison tables of the S5 paper"}
    for name, head, cell in table(path, "6.", "model | DIOR-R").stated():
        dataset = head.removesuffix(" mF1")
        metric = "mf1" if head.endswith("mF1") else "miou" if dataset == "LoveDA" else "map"
        yield row(cited, model=name, dataset=dataset, metric=metric, value=percent(cell))
    potsdam = percent(table(path, "6.", "set | metric").rows[2][2])
    fields = {"model": "ViT-G12x4 (paper B)", "dataset": "Potsdam", "metric": "accuracy"}
    yield row(paper | scores, value=potsdam, **fields)


def depth(path: Path) -> Iterator[Row]:
    """Depth pruning before fine-tuning; what is inferred of the sizes of the models is left out of their names."""
    about = {"study": "simpler", "source": "Barreiro et al., arXiv 2603.19873", "versions": "20 March 2026"}
    about |= {"mode": "layers", "split": "test", "probe": "finetune"}
    names = {"mIoU": "miou", "mAP": "map", "F1-macro": "macro_f1", "OA": "accuracy", "accuracy": "accuracy"}
    for name, data, *cells in table(path, "4.", "SIMPLER").rows:
        dataset, _, metrics = data.replace(" / ", "/").rpartition(" ")
        for how, cell in zip(("SIMPLER", "full"), cells[:2], strict=True):
            fields = {"model": name.partition(" (")[0], "ordering": "prefix" if how == "SIMPLER" else ""}
            for metric, value in zip(metrics.split("/"), cell.split("/"), strict=False):
                if stated(value):
                    yield row(
                        about, recovery=how, dataset=dataset, metric=names[metric], value=percent(value), **fields
                    )


def pretraining(path: Path) -> Iterator[Row]:
    """Check numbers of MAE, and fine-tuning of encoders pretrained on Sentinel-2."""
    mae = IMAGENET | {"objective": "mae", "source": "He et al., arXiv 2111.06377; facebookresearch/mae"}
    for what, head, cell in table(path, "1.", "ViT-B | ViT-L").stated():
        fields = {"study": f"mae: {what}", "model": f"mae_{head.lower().replace('-', '_')}", "versions": what}
        probe = "linear" if what.startswith("linear") else "finetune"
        yield row(mae, probe=probe, metric="top1_accuracy", value=percent(cell), **fields)
    about = {"study": "ssl4eo_s12", "source": "zhu-xlab/SSL4EO-S12", "versions": "README"}
    about |= {"split": "test", "probe": "finetune"}
    (cell,) = [row[1] for row in table(path, "2.", "source | facts").rows if row[0].startswith("zhu-xlab")]
    for name, *values in re.findall(r"(MAE|MoCo-v3|DINO) ViT-S ([\d.]+) / ([\d.]+) / ([\d.]+)", cell):
        for dataset, value in zip(("BigEarthNet", "EuroSAT", "So2Sat"), values, strict=True):
            metric = "map" if dataset == "BigEarthNet" else "accuracy"
            fields = {"model": f"{name} ViT-S", "objective": name}
            yield row(about, dataset=dataset, metric=metric, value=percent(value), **fields)


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
