"""Recomputes the table of a paper from published weights and data, and shows it beside the published numbers.

    python -m scaling.reproduce --paper=hackel2026 --data=DIR --output=OUT --plan
    python -m scaling.reproduce --paper=hackel2026 --models=dofa_base,prithvi_eo_v2_300 --datasets=m-eurosat \\
        --data=DIR --output=OUT [--weights=DIR] [--fill=nearest] [--names=stored]
    python -m scaling.reproduce --paper=hackel2026 --models=galileo_nano --time=2021-07-15 --patch_size=8 \\
        --image_size=64 --datasets=m-eurosat --data=DIR --output=OUT     # public weights that are not in the paper

--data is the folder of the unpacked GEO-Bench, here or in the hub (hf://datasets/ORG/REPO); weights come from the hub,
or from --weights=DIR as DIR/NAME/FILE, or as DIR/FILE if no other model has a file of this name. OUT gets `table.md`,
`rows.jsonl`, `figures/` and `models/`, the encoders. The same command resumes after the last finished encoder; more
models and data sets can be added later. --plan lists what would be downloaded and computed, estimates how long that
takes on this device, and exits.

Details that the paper does not state are choices, which the table lists: here the distance of neighbours, the pooling
of tokens, the normalisation of images, and the replacement of bands that a data set does not have. Combinations of
model and data set that are incompatible are skipped and listed. The interval of a difference reflects only the sampling
of our test images and, where a score is a mean over several seeds, of our seeds: the paper states no uncertainty of its
own. With --limit, table and figures are marked as a trial.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from scaling import cli
from scaling.analysis.beside import beside_tables, beyond
from scaling.analysis.retention import draw_curves
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_folder, user_path
from scaling.core.rows import Row, read_rows
from scaling.encoders.loading import load_encoder
from scaling.evaluation.probes import PROBES
from scaling.interop.acquisition import acquisition, define_acquisition_flags
from scaling.slimming.widths import PUBLISHED_WIDTHS
from scaling.studies.grid import StoppedError
from scaling.studies.reproduction.papers import PAPERS, Paper, paper_of
from scaling.studies.reproduction.parts import FILLS, Subject, check_datasets, source_of, subjects
from scaling.studies.reproduction.planning import Asked, plan
from scaling.studies.reproduction.record import Record
from scaling.studies.reproduction.seeds import means, newest
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.study import Study
from scaling.studies.sweeps.announce import operations_per_second

_LINEAR_SEEDS = 5  # of the linear probe, as published


def define_flags(define: cli.Define) -> None:
    define.string("paper", "", f"Paper whose table is computed: {', '.join(PAPERS)}.")
    define.list("models", [], "Models of the paper, or any of `convert --model=?`; by default all of the paper.")
    define.list("datasets", [], "Data sets of the paper; by default all.")
    define.string("data", "", "Folder of the data sets, here or in the hub (hf://datasets/ORG/REPO).")
    define.path("weights", None, "Folder of the weights; by default they come from the hub.")
    define.path("output", None, "Folder for table, rows, figures and encoders; an unfinished study in it is resumed.")
    define.bool("plan", False, "Show the downloads, the computations and their time; do nothing.")
    define.alias("dry_run", "plan")
    define.list("widths", [], "Widths s; the 31 published ones by default.")
    define.list("probes", ["knn"], f"Probes: {', '.join(PROBES)}.")
    define.enum("pool", "mean", ["mean", "cls"], "Features: mean of the patches, or the class token.")
    define.enum("distance", "cosine", ["cosine", "euclidean"], "Distance of the neighbours.")
    define.enum(
        "names", "corrected", ["corrected", "stored"], "Names of the bands of GEO-Bench: corrected, or as stored."
    )
    define.enum("fill", "none", FILLS, "Replacement of a band that a data set does not have.")
    define.integer("limit", 0, "Maximum number of images of each split, for a trial; 0 for all.", lower_bound=0)
    define_acquisition_flags(define)


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> int:
    if not flags.paper or not flags.output:
        raise UserError(
            f"--paper and --output: must be given; give --paper, one of {', '.join(PAPERS)}, and --output=DIR"
        )
    paper, output = paper_of(flags.paper), epath.Path(flags.output)
    datasets = check_datasets(paper, flags.datasets)
    chosen = subjects(paper, flags.models, acquisition(flags), output)
    asked = _asked(flags, paper, output)
    if flags.plan:
        asked.check()
        for line in plan(asked, paper, chosen, datasets, operations_per_second(())[0]):
            console().print(line, markup=False, soft_wrap=True)
        return 0
    for dataset in datasets:
        source_of(paper, asked.data, dataset, asked.stored)
    check_folder("output", output)
    asked.keep()
    try:
        left_out = _measured(asked, paper, chosen, datasets)
    except StoppedError as e:
        return e.code
    if len(left_out) == len(chosen) * len(datasets):
        raise UserError(f"nothing can be measured: {left_out[0]}")
    _show(asked, paper)
    return 0


def _asked(flags: cli.Flags, paper: Paper, output: epath.Path) -> Asked:
    try:
        widths = tuple(sorted({float(width) for width in flags.widths})) or PUBLISHED_WIDTHS
    except ValueError as e:
        raise UserError(f"--widths={','.join(flags.widths)}: must be numbers above 0, up to 1") from e
    if not all(0 < width <= 1 for width in widths) or 1.0 not in widths:
        raise UserError(
            f"--widths={','.join(flags.widths)}: must be numbers above 0, up to 1, and include 1, the full encoder"
        )
    study = SlimmingStudyConfig(
        study=paper.name,
        widths=widths,
        controls=(),
        floors=(),
        probes=tuple(flags.probes),
        pool=flags.pool,
        distance=flags.distance,
        datasets={},
        seeds=tuple(range(_LINEAR_SEEDS)) if "linear" in flags.probes else (0,),
    )
    if wrong := [probe for probe in flags.probes if probe not in PROBES]:
        raise UserError(f"--probes={wrong[0]}: must be one of {', '.join(PROBES)}")
    if not flags.data and not flags.plan:
        raise UserError(f"--data: must be the folder of {', '.join(paper.datasets)}; give one, or --plan")
    data = flags.data if flags.data.startswith("hf://") or not flags.data else str(user_path("data", flags.data))
    weights = Path(flags.weights) if flags.weights else None
    return Asked(study, data, weights, flags.names == "stored", flags.fill, flags.limit, output)


def _measured(asked: Asked, paper: Paper, chosen: Sequence[Subject], datasets: Sequence[str]) -> list[str]:
    """Measures all parts. Returns a message for each part that could not be measured."""
    left_out, record = list[str](), Record(asked.output)
    for subject in chosen:
        subject.make(asked.weights)
        record.add("models", subject.name, subject.said())
        console().print(subject.said(), markup=False, soft_wrap=True)
        studies = []
        for dataset in datasets:
            part = f"{subject.name} on {dataset}"
            try:
                c, normalised = asked.of(dataset, subject, paper)
            except UserError as e:
                left_out.append(f"{part}: {e}")
                record.add("left_out", part, str(e))
                console().print(f"left out: {left_out[-1]}", markup=False, soft_wrap=True)
            else:
                studies.append(c)
                record.add("normalised", part, normalised)
        encoder = load_encoder(subject.folder) if studies else None
        for c in studies:
            assert encoder is not None
            c.check()
            study = Study(encoder, c, subject.name, asked.output)
            with study.open():
                study.measure().check("cells", "measured")
    return left_out


def _show(asked: Asked, paper: Paper) -> None:
    """Writes and prints the table, and draws the curves beside the published ones."""
    output, theirs = asked.output, paper.published()
    rows = newest([row for row in read_rows(output / "rows.jsonl") if row.study == paper.name])
    said = ", ".join(f"{name} {asked.choices[name]}" for name in ("distance", "pool", "names", "fill"))
    head = [
        f"# {paper.title}",
        *([f"**{asked.trial}.**"] if asked.trial else []),
        f"Chosen here: {said}, {f'limit {asked.limit}' if asked.limit else 'all images'}. Not said by the paper: "
        f"{paper.unknown}. Intervals are 95 %, of our test images if no table says otherwise; of theirs none is "
        "published.",
        "\n".join(f"* {line}" for line in Record(output).lines(dict.fromkeys(row.model for row in rows))),
    ]
    ours, kinds = means(rows, theirs)
    more = [f"* {line}" for line in beyond(rows, theirs)]
    tail = ["\n".join(["Measured, but not published (all numbers are in `rows.jsonl`):", "", *more])] if more else []
    text = "\n\n".join([*head, beside_tables(ours, theirs, kinds).rstrip("\n"), *tail]) + "\n"
    write_whole(output / "table.md", text)
    draw_curves(rows + _beside(rows, theirs), output / "figures" / "curves", note=asked.trial)
    print(text, end="")
    for what, name in (("table", "table.md"), ("rows", "rows.jsonl"), ("figures", "figures")):
        console().print(f"{what:<8} {output / name}", markup=False)


def _beside(rows: Sequence[Row], theirs: Sequence[Row]) -> list[Row]:
    """The published rows of the tables that were measured, under names of their own."""
    there = {(row.dataset, row.probe, row.metric, row.model) for row in rows}
    kept = [row for row in theirs if (row.dataset, row.probe, row.metric, row.model) in there]
    return [dataclasses.replace(row, model=f"{row.model} (published)") for row in kept]


if __name__ == "__main__":
    cli.run(main)
