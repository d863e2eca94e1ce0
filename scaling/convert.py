"""Converts published weights into a checkpoint like those of `scaling.train`, and exports encoders for other libraries.

    python -m scaling.convert --input=weights.pth --output=DIR [--from=FAMILY] [--heads=N] [--image_size=N]
    python -m scaling.convert --input=hf://ORG/REPO[@REVISION]/FILE --output=DIR     # needs the extra [hub]
    python -m scaling.convert --model=dofa_base --output=DIR --bands=… --wavelengths=…   # by its published name
    python -m scaling.convert --input=dofa.pth --output=DIR --bands=B04,B03,B02 --wavelengths=665,560,490
    python -m scaling.convert --checkpoint=DIR --to=timm_vit|hf_vit_mae|stablehlo --output=FILE
    python -m scaling.convert --checkpoint=DIR --width_ratio=0.25 --ordering=svd --recovery=ridge --output=DIR2 [--to=…]

For the published weights in its list, --model supplies the URL, family, licence and checksum; --model=? prints the
list. A model card with sizes, licence and cuts is written beside an exported file (FILE.md) and into the folder of a
cut checkpoint (README.md). With --rows, the rows of `scaling.slim`, it also has the retention of smaller widths.

Importing does not need torch. Every key of the file must be recognised and every parameter filled; otherwise nothing is
written. The number of heads is not in the weights: it comes from the `config.json` of transformers or timm beside the
file, from the family, or from --heads; the other fields of a `config.json` must agree with the weights. Properties of
the images that a family needs (wavelengths, resolution, time, place) are flags, and become part of the encoder.
Exporting writes safetensors in the layout of timm or transformers, if their classes can hold the encoder, or a program
of `jax.export` that takes any number of normalised images and runs without this package:

    program = jax.export.deserialize(open(FILE, "rb").read())
    about = json.load(open(FILE + ".json"))              # written beside the file
    features = program.call(((pixels - about["mean"]) / about["std"]).astype("float32"))     # [N, h, w, bands]

An encoder that is cut and repaired (see `scaling.features`) is exported in the same way. Without --to it is saved: DIR2
is a checkpoint that every command reads, and `scaling.describe --checkpoint=DIR2` shows its origin.
"""

from pathlib import Path

from etils import epath

from scaling import cli
from scaling.compute import counting
from scaling.core.errors import UserError
from scaling.core.paths import check_file, check_folder
from scaling.core.rows import Row, given_rows
from scaling.encoders.flags import EncoderFlags, define_encoder_flags
from scaling.encoders.writing import check_new
from scaling.interop.acquisition import acquisition, define_acquisition_flags
from scaling.interop.card import check_card, write_card
from scaling.interop.exporting import LAYOUTS, beside, check_beside, check_layout, export_program, export_weights
from scaling.interop.families import FAMILIES
from scaling.interop.importing import abstract_networks, import_weights, write_checkpoint
from scaling.interop.published import published, table_of_published
from scaling.models.vit import abstract_vit


def define_flags(define: cli.Define) -> None:
    define.path("input", None, "File of weights: .pth, .pt, .bin, .safetensors, or the .index.json of several.")
    define.string("model", "", "Name of published weights, instead of --input; ? lists them.")
    define.path("rows", None, "Rows of scaling.slim, for the retention in the model card.")
    define_encoder_flags(define)
    define.path("output", None, "Checkpoint folder, or file of --to, to write.")
    define.string("from", "", f"Family, if the keys do not determine it: {', '.join(FAMILIES)}.")
    define.integer("heads", 0, "Number of attention heads, if neither family nor config.json gives it.")
    define_acquisition_flags(define)
    define.enum(
        "to", None, [*LAYOUTS, "stablehlo"], "Format of the file; by default the encoder is saved as a checkpoint."
    )
    define.enum("pool", "mean", ["cls", "mean", "tokens"], "Output of the program of --to=stablehlo.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    file, checkpoint = flags.input, flags.checkpoint
    if flags.model == "?":
        print(table_of_published())
        return
    if flags.model and (file or checkpoint):
        raise UserError(f"--model={flags.model}: replaces --input and --checkpoint; leave them out")
    if flags.model:
        check_folder("output", flags.output or "", checkpoints=True)
        weights = published(flags.model)
        file, flags["from"].value = weights.fetch(), flags["from"].value or weights.family
    if not flags.output or (file is None) == (checkpoint is None):
        raise UserError(
            "--output and one of --input, --model and --checkpoint: must be given; "
            "give --output and either --input=FILE or --model=NAME, to read weights, or --checkpoint=DIR, to write them"
        )
    if checkpoint and flags.to:
        _export(flags, epath.Path(flags.output))
    elif checkpoint:
        _keep(EncoderFlags(flags), epath.Path(flags.output), given_rows(flags.rows) if flags.rows else [])
    if file:
        _import(flags, Path(file), epath.Path(flags.output))


def _import(flags: cli.Flags, file: Path, output: epath.Path) -> None:
    if flags.heads < 0:
        raise UserError(f"--heads={flags.heads}: must be a positive number of heads")
    check_folder("output", output, checkpoints=True)
    imported = import_weights(file, flags["from"].value or "", flags.heads, acquisition(flags))
    write_checkpoint(imported, output)
    c, model = imported.config, imported.config.model
    shapes, names = abstract_networks(model, c.decoder, c.networks)
    counts = counting.parameter_counts(names, shapes)
    bands = ", ".join(c.band_names) or "unknown: give mean and deviation where the encoder is used"
    print(f"{c.family}: {' and '.join(c.networks)}, {counts['total']:,} parameters ({counts['encoder']:,} encoder)")
    print(f"width {model.width}, depth {model.depth}, {model.heads} heads, patch {model.patch_size}, {model.position}")
    print(f"bands    {bands}\nlicence  {c.licence}\nwritten  {output}")


def _export(flags: cli.Flags, output: epath.Path) -> None:
    check_file("output", output, {"the --rows": [flags.rows], "the --checkpoint": [flags.checkpoint]})
    if output.exists():
        raise UserError(f"--output={output} already exists; choose another file")
    check_beside(output)
    card = check_card(output.parent, output.name)
    rows = given_rows(flags.rows) if flags.rows else []
    asked, what = EncoderFlags(flags), flags.to
    whole = asked.describe()
    if what == "stablehlo":
        whole.check_pool(flags.pool)
    else:
        check_layout(what, whole.config)
    encoder = asked.load()
    if what == "stablehlo":
        export_program(encoder, flags.pool, output)
    else:
        export_weights(encoder, what, output)
    write_card(card, encoder, output.name, what, rows)
    print(f"card     {card}")
    print(f"written  {output}, {output.stat().length / 1e6:,.1f} MB; its normalisation: {beside(output)}")


def _keep(asked: EncoderFlags, output: epath.Path, rows: list[Row]) -> None:
    if not asked.cuts:
        ways = ", ".join([*LAYOUTS, "stablehlo"])
        raise UserError(
            f"--to: is missing; give one of {ways}, or the --width_ratio, --ordering and --recovery of a cut to save"
        )
    check_new(check_folder("output", output, checkpoints=True))
    card = check_card(output)
    encoder = asked.load()
    encoder.save(output)
    write_card(card, encoder, output.name, "a checkpoint of this package", rows)
    shapes, names = abstract_vit(encoder.config)
    print(f"{counting.parameter_counts(names, shapes)['encoder']:,} parameters\nwritten  {output}")


if __name__ == "__main__":
    cli.run(main)
