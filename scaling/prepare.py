"""Writes any source of images as sharded ArrayRecord, the format training reads fastest.

    python -m scaling.prepare --source=folder:MillionAID --split=train+test --output=DIR --size=256

--split=train+test writes one split, named train+test, with the images of both; --split=train,test writes two. Images
keep their original bytes unless they are larger than --size; masks and boxes are written too. Corrupt images are left
out and listed in the manifest. After an interruption the same command resumes. Train on the images of both splits with
--config.data.source=arrayrecord:DIR --config.data.split=train+test.
"""

import os

from rich import progress

from scaling import cli
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import stored_spec


def define_flags(define: cli.Define) -> None:
    define.string("source", "", "Source of the images: see scaling/data/sources/registry.py.")
    define.path("output", "", "Folder to write, local or gs://.")
    define.splits(
        "split", ["train"], "Splits to write, separated by commas; train+test and train[:80%,stratified] are each one."
    )
    define.integer("size", 0, "Maximum of the shorter side in pixels; 0 leaves images unchanged.")
    define.integer("shard_size", 10_000, "Records per shard.")
    define.integer("workers", 0, "Shards written at the same time; 0: one per core.")


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> None:
    plan = Preparation(stored_spec(flags.source), tuple(flags.split), flags.output, flags.size, flags.shard_size)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TaskProgressColumn(show_speed=True),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bar:
        task = bar.add_task(f"{plan.source} -> {plan.output}", total=None, visible=False)
        manifest = convert(
            plan,
            workers=flags.workers or os.cpu_count() or 1,
            progress=lambda done: bar.advance(task, done),
            begin=lambda total: bar.update(task, total=total, visible=True),
        )
    for split, part in manifest["splits"].items():
        print(
            f"{split}: {part['count']} images in {len(part['shards'])} shards, {len(part['bad'])} unreadable left out"
        )
        for line in part["bad"][:10]:
            print(f"  {line}")


if __name__ == "__main__":
    cli.run(main)
