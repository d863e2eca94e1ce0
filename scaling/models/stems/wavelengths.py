"""Patch embeddings whose kernels a small network generates from band metadata: DOFA (Xiong et al., 2403.15356) and
Copernicus-FM (Wang et al., 2503.11849).

An encoding of each band (its wavelength, its bandwidth, or the embedding of its name) passes a residual MLP and then,
between learned tokens, one transformer layer. A linear map turns the output of each band into that band's kernel
[patch, embed], another one that of the last token into the bias. The constant parts of the two maps are the group
`patch`: what every band's kernel and the bias begin with. Shapes as in torchgeo's implementation.
"""

from scaling.models import parameters
from scaling.models.config import StackConfig, ViTConfig
from scaling.models.parameters import Table
from scaling.models.stems.stem import Stem, Use
from scaling.models.transformer import block_table

WIDTH = 128  # width of the encoding of a band
LAYER = StackConfig(width=WIDTH, heads=4, head_dim=WIDTH // 4, mlp=2048)
WEIGHT_TOKENS = 128
NAME_WIDTH = 2048  # width of the embedding of a variable's name
BIAS = parameters.constant(0.01)


def dofa(c: ViTConfig) -> Stem:
    """Kernels from wavelengths."""
    return _generator(c, "spectral", c.bands)


def copernicus_fm(c: ViTConfig) -> Stem:
    """Kernels from wavelengths and bandwidths, or, for variables without these, from their names; the latter have a
    second group of parameters, which the images counted here do not use. Place, area and time of the image, each
    encoded in `metadata/embed` numbers or replaced by a learned token, are added to every token.
    """
    spectral, variable = _generator(c, "spectral", c.bands), _generator(c, "variable", 0)
    names = {"variable_name": _linear({"name/embed": NAME_WIDTH}, {"variable/embed": WIDTH})}
    metadata = {
        what: {
            "token": ({"metadata/embed": c.width}, parameters.zeros),
            **_linear({"metadata/embed": c.width}, {"embed": c.width}),
        }
        for what in ("coordinates", "area", "time")
    }
    uses = {**variable.uses, "variable_name": Use(0), **dict.fromkeys(metadata, Use(1))}
    return Stem({**spectral.table, **variable.table, **names, **metadata}, {**spectral.uses, **uses})


def _generator(c: ViTConfig, network: str, bands: int) -> Stem:
    """The network that generates the kernels of `bands` bands; its groups and axes begin with its name."""
    width, patch, embed = {f"{network}/embed": WIDTH}, {"patch": c.patch_size**2}, {"embed": c.width}
    tokens = {f"{network}/tokens": WEIGHT_TOKENS}
    hidden = {f"{network}/encoding/mlp": WIDTH}
    layer = {
        group: {
            name: ({f"{network}/{axis}": n for axis, n in sizes.items()}, init) for name, (sizes, init) in row.items()
        }
        for group, row in block_table(LAYER).items()
    }
    table: Table = {
        "encoding_in": _linear(width, hidden),
        "encoding_out": _linear(hidden, width),
        "tokens": {
            "weight": ({**tokens, **width}, parameters.normal(0.02)),
            "bias": (width, parameters.normal(0.02)),
        },
        **layer,
        "make_kernel": {"kernel": ({**width, **patch, **embed}, parameters.xavier_uniform)},
        "make_bias": {"kernel": ({**width, **embed}, parameters.xavier_uniform)},
        "patch": {"kernel": ({**patch, **embed}, BIAS), "bias": (embed, BIAS)},
    }
    sequence = WEIGHT_TOKENS + bands + 1 if bands else 0
    uses = {
        **dict.fromkeys(layer, Use(sequence)),
        "qkv": Use(sequence, queries=sequence),
        "encoding_in": Use(bands),
        "encoding_out": Use(bands),
        "make_kernel": Use(bands),
        "make_bias": Use(min(bands, 1)),
        "patch": Use(bands * c.patches),
    }
    prefixed: Table = {f"{network}_{group}": row for group, row in table.items()}
    return Stem(prefixed, {f"{network}_{group}": use for group, use in uses.items()})


def _linear(inputs: dict[str, int], outputs: dict[str, int]) -> dict[str, parameters.Declaration]:
    return {"kernel": ({**inputs, **outputs}, parameters.xavier_uniform), "bias": (outputs, BIAS)}
