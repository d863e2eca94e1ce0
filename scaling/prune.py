"""How deep must an encoder be? Uses unlabelled images to choose which blocks to keep, and writes the shallower encoder.

    python -m scaling.prune --checkpoint=DIR --rule=simpler --output=DIR2 [--source=SPEC --split=train --images=512]
    python -m scaling.prune --checkpoint=DIR --rule=shortgpt|angular|cka_interval --blocks=5 --output=DIR2
    python -m scaling.prune --checkpoint=DIR --rule=keep --keep=0,2,5 --output=DIR2 [--recover=linear]

`simpler` (2603.19873) keeps the first blocks, up to the one after which CKA no longer changes, and so chooses their
number itself; `shortgpt` keeps the blocks that change the direction of their tokens most; `angular` and `cka_interval`
remove the consecutive blocks between the two most similar states. The output also says whether other samples of the
images lead to the same decision, and where a random encoder would be cut. DIR2 is a checkpoint that every command
reads, and can be slimmed or fine-tuned; it also has `rows.jsonl` and `figures/`. With --recover=linear, the MLP before
the removed blocks takes over their role: its output kernel is fitted by least squares to the tokens after these blocks,
and the encoder gets no extra parameters. The rows contain the distance of the features from those of the whole encoder,
on held-out images, with and without this repair. `scaling.slim --config=depth.py` measures the score of every depth,
with probes and after fine-tuning.
"""

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from scaling import cli
from scaling.analysis.depth_figure import draw_decision
from scaling.compute.counting import encoder_cost
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file, check_folder, run_name
from scaling.core.rows import Results, write_rows
from scaling.encoders.calibration import images_used
from scaling.encoders.controls import random_weights
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import describe_encoder, load_encoder
from scaling.encoders.pruned import KEEP, RECOVERS, Stability, check_recovers, check_rule, decide, prune, stability
from scaling.encoders.similarity import MINIBATCH, measure_each
from scaling.encoders.splits import Split, gathered
from scaling.encoders.unlabelled import define_unlabelled_flags, looked_at, pixels, unlabelled
from scaling.encoders.writing import check_new
from scaling.evaluation.distance import Distance, error_interval, relative_error
from scaling.models.variants import Architecture
from scaling.slimming.depth import RULES, Decision, check_blocks
from scaling.studies.rows import pair_rows, states_row
from scaling.training.stored_config import named_blocks


class _Said(NamedTuple):
    """Words for a rule: the items that it scores, the score, the compared states, and what it keeps."""

    at: str
    score: str
    compared: str
    keeps: str


class _Decided(NamedTuple):
    """The decision of a rule, that on an encoder of random weights, decisions on other samples if there are images
    enough, and the number of images.
    """

    decision: Decision
    random: Decision
    steady: Stability | None
    images: int

    @property
    def content(self) -> dict[str, Any]:
        """The content of --json."""
        found = _content(self.decision) | {"random_encoder": _content(self.random)}
        if self.steady:
            found["halves"] = [{"keep": keep, "count": count} for keep, count in self.steady.draws.items()]
            found["first_images"] = [{"images": n, "keep": keep} for n, keep in self.steady.growing.items()]
        return found


def _content(decision: Decision) -> dict[str, Any]:
    scores = [float(score) for score in decision.scores]
    return {"keep": decision.keep, "candidates": decision.candidates, "scores": scores}


_INTERVAL, _LAST = "first block of the interval", "of equal ones the last goes"
_SAID = {
    "simpler": _Said(
        "blocks that stay",
        "g",
        "CKA",
        "the largest g; two states at least on either side, of equal ones the one that keeps more",
    ),
    "shortgpt": _Said("block", "influence", "angles", "those with the largest influence; of equal ones the first"),
    "angular": _Said(_INTERVAL, "angle / pi", "angles", f"all but the interval with the smallest angle; {_LAST}"),
    "cka_interval": _Said(_INTERVAL, "1 - CKA", "CKA", f"all but the interval with the smallest 1 - CKA; {_LAST}"),
}


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a run, or a checkpoint of scaling.convert.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.enum("rule", "simpler", [*RULES, KEEP], "Rule that chooses the blocks.")
    define.list("keep", [], "For --rule=keep: indices of the blocks to keep, from 0.")
    define.integer("blocks", 0, "For shortgpt, angular and cka_interval: number of blocks to keep.")
    define.bool("with_input", False, "For simpler: count the input of the first block as a state too.")
    define.enum("recover", "none", RECOVERS, "Replacement of the removed blocks: none, or a linear map.")
    define_unlabelled_flags(define)
    define.enum("estimator", "debiased", MINIBATCH, "Estimator of CKA; see scaling.similarity.")
    define.integer("seed", 0, "Seed of the split of the images into halves, and of the random encoder.")
    define.path("output", None, "Checkpoint folder to write.")
    define.path("json", None, "File for the decision, that on a random encoder, and those on other samples.")
    define.string("name", "", "Name of the model in the rows; by default that of its directory.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    cli.require(flags, "checkpoint=DIR", "output=DIR")
    output = check_folder("output", flags.output, checkpoints=True)
    check_new(output)
    if flags.json:
        check_file("json", flags.json, {"the --checkpoint": [flags.checkpoint]})
    depth = describe_encoder(flags.checkpoint, flags.step).config.depth
    named = _named(flags, depth)
    encoder = load_encoder(flags.checkpoint, flags.step)
    about: dict[str, Any] = {"checkpoint": str(epath.Path(flags.checkpoint).resolve())}
    decision = Decision(named, (), np.zeros(0))
    content = _content(decision)
    if not named or flags.recover != "none":
        (opened,) = unlabelled([encoder], flags)
        images = opened.images
        if not named:
            found = _decided(encoder, opened, flags, output)
            decision, images, content = found.decision, found.images, found.content
        about |= {"calibration": opened.source, "calibration_split": opened.split, "calibration_images": images}
    keep = decision.keep
    if flags.recover == "none":
        small = prune(encoder, keep, flags.rule, seed=flags.seed, **about)
    else:
        small = _recovered(encoder, keep, opened, flags, about, output)
    whole = encoder.architecture
    del encoder
    small.save(output)
    if flags.json:
        write_whole(flags.json, json.dumps({"rule": flags.rule} | content, indent=2) + "\n")
    _report(whole, small, flags)


def _recovered(
    encoder: Encoder,
    kept: tuple[int, ...],
    opened: Split,
    flags: cli.Flags,
    about: dict[str, Any],
    output: epath.Path,
) -> Encoder:
    """The encoder whose blocks do the part of those that are gone; how near it is on images not fitted to, and how near
    it would be without that, is told and written as rows.
    """
    (images,) = gathered(((part.images,) for part in opened.parts()), opened.images)
    held_out = np.arange(len(images)) % 4 == 3
    if held_out.sum() < 2:
        raise UserError(
            f"--images={len(images)}: at least 8 are needed, for the fit and for the comparison; give a few hundred"
        )
    fitted = images[~held_out]
    used = images_used(len(fitted))
    about = about | {"calibration_images": used}
    small = prune(encoder, kept, flags.rule, fitted, seed=flags.seed, **about)
    distance, every = Distance(encoder, fitted, images[held_out]), np.arange(encoder.config.width)
    settings = {"encoder": encoder.identity, "compared": int(held_out.sum()), "fitted": used} | looked_at(opened)
    rows = []
    for one in (small, prune(encoder, kept, flags.rule)):
        errors = distance.errors(one.encode(images[held_out]), every)
        low, high = error_interval([errors], distance.spread)
        row = states_row(one, _name(flags), opened, settings, study="prune", probe="features")
        value = relative_error(errors, distance.spread)
        rows.append(dataclasses.replace(row, metric="relative_error", value=value, low=low, high=high))
    Results(output / "rows.jsonl").add(rows)
    with_, without = (f"{row.value:.3f}" for row in rows)
    out = console()
    out.print(f"recover  linear: folded into the MLP before the blocks that are gone, fitted to {used:,} images")
    out.print(f"         features of {held_out.sum():,} others: {with_} of their spread from the whole encoder's")
    out.print(f"         without it {without}")
    return small


def _named(flags: cli.Flags, depth: int) -> tuple[int, ...]:
    """The blocks of --rule=keep, () of another rule; what does not fit together is refused."""
    if (flags.rule == KEEP) != bool(flags.keep):
        named = ",".join(flags.keep)
        raise UserError(f"--keep={named} with --rule={flags.rule}: --keep is needed for --rule=keep, and only for that")
    if flags.rule == KEEP:
        if (flags.source and flags.recover == "none") or flags.blocks:
            raise UserError(
                "--source and --blocks are for rules that choose blocks; --rule=keep uses no images; leave them out"
            )
        try:
            kept = check_blocks([int(i) for i in flags.keep], depth)
        except ValueError as e:
            raise UserError(f"--keep={','.join(flags.keep)}: must be the indices of blocks, from 0") from e
        if len(kept) == depth:
            raise UserError(f"--keep={','.join(flags.keep)}: keeps all {depth} blocks; leave some out")
        if flags.recover != "none":
            check_recovers(kept)
        return kept
    check_rule(flags.rule, flags.blocks, depth, "--blocks")
    return ()


def _decided(encoder: Encoder, opened: Split, flags: cli.Flags, output: epath.Path) -> _Decided:
    """The decision of the rule; also prints it, draws it and writes rows."""
    asked = flags.rule, flags.blocks, flags.estimator, flags.with_input
    both = [encoder, random_weights(encoder, flags.seed)]
    found, of_random = measure_each(both, pixels([opened]), flags.tokens)
    decision, random = decide(found, *asked), decide(of_random, *asked)
    images = min(found.batches * found.images, opened.images)
    steady = stability(found, *asked, seed=flags.seed)
    decided = _Decided(decision, random, steady, images)
    _tell(decided, flags, opened)
    cka = found.cka(flags.estimator)
    curves = {flags.rule: decision.scores, "random encoder": random.scores}
    said = _SAID[flags.rule]
    labels = said.at, said.score
    draw_decision(cka, decision.candidates, curves, decision.keep, labels, output / "figures" / "depth")
    settings = {name: getattr(flags, name) for name in ("rule", "blocks", "with_input", "tokens", "estimator")}
    settings |= {"encoder": encoder.identity} | looked_at(opened)
    row = states_row(encoder, _name(flags), opened, settings, study="prune", probe=flags.rule)
    rows = pair_rows(row, "cka", cka)
    scores = zip(decision.candidates, decision.scores, strict=True)
    rows += [dataclasses.replace(row, metric=f"score/{at}", value=float(score)) for at, score in scores]
    write_rows(output / "rows.jsonl", rows)
    return decided


def _name(flags: cli.Flags) -> str:
    """Name of the model in the rows."""
    return flags.name or run_name(flags.checkpoint)


def _tell(decided: _Decided, flags: cli.Flags, opened: Split) -> None:
    out, said = console(), _SAID[flags.rule]
    decision, random, steady, images = decided
    of_tokens = {"all": "all tokens", "mean": "the mean of the patches", "cls": "the class token"}[flags.tokens]
    by = f"{flags.estimator} CKA" if said.compared == "CKA" else said.compared
    where = f"{opened.source}, split {opened.split}"
    out.print(f"{flags.rule} on {images:,} images of {where}, {by} of {of_tokens}:\n  {said.keeps}")
    out.print(f"  {said.at:>28}  {said.score:>12}  random encoder")
    for at, score, other in zip(decision.candidates, decision.scores, random.scores, strict=True):
        out.print(f"  {at:>28}  {score:12.5f}  {other:14.5f}")
    out.print(f"keeps    {_blocks(decision.keep)}")
    if random.keep == decision.keep:
        out.print("random   an encoder of random weights would keep the same: the rule sees the architecture here")
    else:
        out.print(f"random   an encoder of random weights would keep {_blocks(random.keep)}")
    if steady:
        draws = sum(steady.draws.values())
        same = steady.draws.get(decision.keep, 0)
        others = "".join(f"; {n} keep {_blocks(keep)}" for keep, n in steady.draws.items() if keep != decision.keep)
        out.print(f"halves   {same} of {draws} random halves of the images decide the same{others}")
        grown = ", ".join(f"{n}: {len(keep)}" for n, keep in steady.growing.items())
        out.print(f"images   blocks kept on the first {grown}")
    else:
        out.print(f"halves   {images} images are too few to say whether others decide the same")


def _blocks(keep: tuple[int, ...]) -> str:
    if keep == tuple(range(len(keep))):
        return f"the first {len(keep)}"
    return named_blocks(keep)


def _report(whole: Architecture, small: Encoder, flags: cli.Flags) -> None:
    params, _, relative = encoder_cost(whole, small.config)
    all_params = encoder_cost(whole, whole.config)[0]
    share = f"{params / all_params:.1%} of {all_params:,}"
    console().print(
        f"{params:,} parameters, {share}; {relative['full']:.1%} of the operations\nwritten  {flags.output}"
    )


if __name__ == "__main__":
    cli.run(main)
