"""Reads other people's weights into a checkpoint like those of `scaling.train`, without torch.

    python -m scaling.convert --input=weights.pth --output=DIR [--from=FAMILY] [--heads=N]

Every key of the file must be known and every parameter filled, or nothing is written. The number of heads is not in the
weights: it comes from the `config.json` of transformers beside the file, from the family, or from --heads.
"""

from pathlib import Path

from absl import flags
from etils import epath

from scaling import cli
from scaling.analysis import compute
from scaling.errors import UserError
from scaling.interop.families import FAMILIES
from scaling.interop.importing import import_weights, write_checkpoint
from scaling.models.mae import abstract_mae

_INPUT = flags.DEFINE_string("input", None, "File of weights: .pth, .pt, .bin or .safetensors.")
_OUTPUT = flags.DEFINE_string("output", None, "Where the checkpoint goes.")
_FROM = flags.DEFINE_string("from", "", f"Family, where the keys leave it open: {', '.join(FAMILIES)}.")
_HEADS = flags.DEFINE_integer("heads", 0, "Attention heads of the encoder, where nothing else says.")


def main(argv: list[str]) -> None:
    del argv
    if not _INPUT.value or not _OUTPUT.value:
        raise UserError("give --input=FILE and --output=DIR")
    if _HEADS.value < 0:
        raise UserError(f"--heads={_HEADS.value} is a number of heads")
    imported = import_weights(Path(_INPUT.value), _FROM.value, _HEADS.value)
    write_checkpoint(imported, epath.Path(_OUTPUT.value))
    c, model = imported.config, imported.config.model
    shapes, names = ({n: tree[n] for n in c.networks} for tree in abstract_mae(model))
    counts = compute.parameter_counts(names, shapes)
    bands = ", ".join(c.band_names) or "unknown: give mean and deviation where the encoder is used"
    print(f"{c.family}: {' and '.join(c.networks)}, {counts['total']:,} parameters ({counts['encoder']:,} encoder)")
    print(f"width {model.width}, depth {model.depth}, {model.heads} heads, patch {model.patch_size}, {model.position}")
    print(f"bands    {bands}\nlicence  {c.licence}\nwritten  {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
