"""How alike are the layers of an encoder, or of two, on unlabelled images?

    python -m scaling.similarity --checkpoint=DIR --output=DIR [--source=SPEC --split=train --images=512]
    python -m scaling.similarity --checkpoint=DIR --other=DIR2 --output=DIR      two encoders on the same images
    python -m scaling.similarity … [--tokens=all|mean|cls] [--estimator=debiased|biased|exact]

State 0 is the input of the first block, state i the output of the i-th. The output is `rows.jsonl`, with the CKA of
every pair of states, and `figures/`. For a single encoder the rows also have the cosine of its tokens and their angle
divided by pi or, with `--estimator=exact`, CCA. `debiased` and `biased` average over batches of about a thousand rows;
`exact` uses all rows. Memory does not grow with the number of images.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from etils import epath

from scaling import cli
from scaling.analysis.depth_figure import draw_similarity
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.paths import check_folder, run_name
from scaling.core.rows import write_rows
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import load_encoder
from scaling.encoders.similarity import ESTIMATORS, Covariances, measure
from scaling.encoders.splits import Split
from scaling.encoders.unlabelled import define_unlabelled_flags, looked_at, pixels, unlabelled
from scaling.studies.rows import pair_rows, states_row


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a run, or a checkpoint of scaling.convert or scaling.prune.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.path("other", None, "Second checkpoint, whose states are compared with those of the first.")
    define_unlabelled_flags(define)
    define.enum("estimator", "debiased", ESTIMATORS, "Estimator of CKA.")
    define.path("output", None, "Folder for rows and figures.")
    define.string("name", "", "Name of the model in the rows; by default that of its directory.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    cli.require(flags, "checkpoint=DIR", "output=DIR")
    if flags.other and flags.estimator == "exact":
        raise UserError("--estimator=exact is only for one encoder; to compare two, choose debiased or biased")
    output = check_folder("output", flags.output)
    encoders = [load_encoder(path, flags.step if path is flags.checkpoint else None) for path in _paths(flags)]
    opened = unlabelled(encoders, flags)
    matrices = dict(_matrices(encoders, opened, flags))
    two = len(encoders) > 1
    settings = {"tokens": flags.tokens, "estimator": flags.estimator, **looked_at(opened[0])}
    settings |= {"encoders": [encoder.identity for encoder in encoders]}
    probe = f"{flags.estimator} of {flags.tokens}" + (f" with {epath.Path(flags.other).name}" if two else "")
    name = flags.name or run_name(flags.checkpoint)
    about = states_row(encoders[0], name, opened[0], settings, study="similarity", probe=probe)
    rows = itertools.chain.from_iterable(pair_rows(about, name, matrix, two) for name, matrix in matrices.items())
    write_rows(output / "rows.jsonl", list(rows))
    states = [f"state of {epath.Path(path).name}" for path in _paths(flags)]
    for name, matrix in matrices.items():
        draw_similarity(matrix, output / "figures" / name, (states[0], states[-1]), name)
    _tell(matrices["cka"], flags)
    console().print(f"rows     {output / 'rows.jsonl'}\nfigures  {output / 'figures'}")


def _paths(flags: cli.Flags) -> list[str]:
    return [path for path in (flags.checkpoint, flags.other) if path]


def _matrices(encoders: list[Encoder], opened: list[Split], flags: cli.Flags) -> Iterator[tuple[str, np.ndarray]]:
    """Every measure by its name: [S, S] for one encoder, [S, T] for two."""
    if flags.estimator == "exact":
        all_rows = Covariances(encoders[0], flags.tokens)
        for (images,) in pixels(opened):
            all_rows.add(images)
        yield "cka", all_rows.cka()
        yield "cca", all_rows.cca()
        return
    found = measure(encoders, pixels(opened), flags.tokens)
    first = encoders[0].config.depth + 1
    cka = found.cka(flags.estimator)
    yield "cka", cka if len(encoders) == 1 else cka[:first, first:]
    if len(encoders) == 1:
        states = found.states(flags.estimator)
        yield "cosine", states.cosine
        yield "angle", states.angle


def _tell(cka: np.ndarray, flags: cli.Flags) -> None:
    if flags.other:
        for state, row in enumerate(np.nan_to_num(cka, nan=-np.inf)):
            other = row.argmax()
            like = f"most like state {other:3} of the other, CKA {row[other]:.3f}"
            console().print(f"state {state:3}  {like if np.isfinite(row[other]) else 'like none of the other'}")
        return
    for state in range(1, len(cka)):
        line = f"state {state:3}  CKA {cka[state, state - 1]:.3f} with the one before, {cka[state, 0]:.3f} with what"
        console().print(f"{line} enters, {cka[state, -1]:.3f} with the last")


if __name__ == "__main__":
    cli.run(main)
