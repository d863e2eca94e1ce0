"""The commands: `scaling COMMAND --flag=value …`, or `python -m scaling.COMMAND`."""

import runpy
import sys
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """The question that a command answers, and its output."""

    question: str
    writes: str


# In the order of the work. README has the same table.
COMMANDS = {
    "prepare": Command("How do I make my images fast to read?", "ArrayRecord files"),
    "describe": Command("How many parameters and operations does a model have?", "a table, or JSON"),
    "train": Command("How do I pretrain an encoder?", "a run: checkpoints, metrics, figures"),
    "convert": Command(
        "How do I read public weights, or export mine?", "a checkpoint, or a file for timm, transformers or StableHLO"
    ),
    "features": Command("What are the features of my images?", ".npy, and a .csv of its rows"),
    "probe": Command("How good are the features, without training?", "a table, or JSON"),
    "finetune": Command("How good is the encoder after fine-tuning on labels?", "a run, rows.jsonl"),
    "predict": Command("What does a fine-tuned model predict for new images?", "classes, maps, boxes"),
    "score": Command("How good are predictions in files, from any program?", "a table, or JSON"),
    "efficiency": Command("How many labels does an encoder need?", "rows.jsonl, figures"),
    "slim": Command("How narrow can the encoder be?", "rows.jsonl, figures, tables.md"),
    "prune": Command("How many blocks does it need?", "a checkpoint, rows.jsonl, figures"),
    "search": Command("Which depth and widths are best under one budget?", "a checkpoint, rows.jsonl, figures"),
    "similarity": Command("How alike are the layers of one encoder, or of two?", "rows.jsonl, figures"),
    "reproduce": Command("Can a paper's published table be reproduced?", "table.md, rows.jsonl, figures"),
    "sweep": Command(
        "How does the loss change with width, depth, data, training length or learning rate?",
        "runs, rows.jsonl, figures",
    ),
    "coordcheck": Command("Does muP keep activations the same size at every width?", "rows.jsonl, a figure"),
    "laws": Command("Which scaling law fits the measurements, and how certain is it?", "a table, JSON, a figure"),
    "report": Command("What do all the measurements look like on one page?", "one HTML page"),
}


def commands() -> tuple[str, ...]:
    """Names of the commands in this folder: the files that run a `main`."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if file.read_text().endswith("\n    cli.run(main)\n")))


def usage() -> str:
    """Usage message: the commands, with the question that each answers."""
    here = commands()
    lines = [f"  {name:<12}{about.question}" for name, about in COMMANDS.items() if name in here]
    return (
        "usage: scaling COMMAND --flag=value …\n"
        "       scaling COMMAND --help\n\n" + "\n".join(lines) + "\n\n"
        "`python -m scaling.COMMAND` is the same. In Python: import scaling; help(scaling)."
    )


def main() -> None:
    """Runs the command that the first argument names, as `python -m scaling.COMMAND` does."""
    import scaling

    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
    elif name == "--version":
        print(f"scaling {scaling.__version__}")
    elif name in commands():
        scaling.take_over_interrupts()
        sys.argv = [str(Path(__file__).with_name(f"{name}.py")), *arguments]
        runpy.run_module(f"scaling.{name}", run_name="__main__", alter_sys=True)
    else:
        from scaling.core.config import nearest

        said = nearest(name, list(commands()), "the commands are ")
        print(f"error: {name!r} is not a command{said}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
