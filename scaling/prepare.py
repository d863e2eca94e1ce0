"""Writes any source of images as sharded ArrayRecord, the format training reads fastest.

    python -m scaling.prepare --source=folder:MillionAID --split=train+test --output=DIR --size=256

--split=train+test writes one split of that name with the images of both, --split=train,test writes two.
Original bytes are kept unless an image is larger than --size. Corrupt images are left out and named in the manifest.
Interrupted, the same command goes on where it stopped. Either way, train on all of it with
--config.data.source=arrayrecord:DIR --config.data.split=train+test.
"""

import os

from absl import flags
from rich import progress

from scaling import cli
from scaling.data.conversion import Plan, convert
from scaling.errors import UserError

_SOURCE = flags.DEFINE_string("source", "", "what to convert, see scaling/data/sources.py")
_OUTPUT = cli.define_path("output", "", "the folder to write, local or gs://")
_SPLIT = flags.DEFINE_list("split", ["train"], "splits of the source, separated by commas; train+test is one")
_SIZE = flags.DEFINE_integer("size", 0, "shorter side in pixels at most; 0: images stay as they are")
_SHARD_SIZE = flags.DEFINE_integer("shard_size", 10_000, "records per shard")
_WORKERS = flags.DEFINE_integer("workers", 0, "shards written at the same time; 0: one per core")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags are written --source=… --output=…")
    plan = Plan(_SOURCE.value, tuple(_SPLIT.value), _OUTPUT.value, _SIZE.value, _SHARD_SIZE.value)
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
            workers=_WORKERS.value or os.cpu_count() or 1,
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
    from scaling import cli

    cli.run(main)
