"""Imports a file of weights of a known family into a checkpoint like any other."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from etils import epath

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.encoders.writing import write_parameters
from scaling.interop.acquisition import NOTHING_GIVEN, Acquisition
from scaling.interop.families import FAMILIES
from scaling.interop.family import Family
from scaling.interop.mapping import Arrays, fill
from scaling.interop.settings import Settings, read_settings
from scaling.interop.weights import files_of, read_weights
from scaling.models.config import ViTConfig, encoder_config
from scaling.models.vit import abstract_vit
from scaling.objectives import ObjectiveConfig
from scaling.objectives.mae import MaskedAutoencoding
from scaling.training.stored_config import ImportConfig


@dataclasses.dataclass(frozen=True)
class Imported:
    """Parameters by network, `encoder` and, if the file has one, `decoder`, and their origin."""

    params: dict[str, Any]
    config: ImportConfig


def import_weights(path: Path, family: str = "", heads: int = 0, given: Acquisition = NOTHING_GIVEN) -> Imported:
    """Reads a file of weights.

    Args:
      path: torch file or safetensors, or the index of several; a `config.json` of transformers or timm beside it is
        read too.
      family: name of the family; empty to recognise it by the keys.
      heads: attention heads of the encoder, if neither the family nor `config.json` gives them.
      given: metadata of the images for families that need it.

    Raises:
      UserError: a file that cannot be read, does not belong to the family, or does not fill the model exactly.
    """
    known, mine = _family(read_weights(path), family, path)
    settings = read_settings(path, heads)
    model, mine = known.architecture(mine, settings, given)
    networks = ("encoder", "decoder") if known.key(mine, "decoder/embed/kernel") else ("encoder",)
    encoder = encoder_config(model)
    decoder = MaskedAutoencoding.of(model) if "decoder" in networks else MaskedAutoencoding()
    shapes, names = abstract_networks(encoder, decoder, networks)
    absent = dict(known.absent)
    if not settings.flag("qkv_bias", True):
        absent |= {f"{network}/blocks/qkv/bias": 0.0 for network in networks}
    params = fill(mine, known.table, known.unused, absent, shapes, names)
    bands = given.bands or known.default_bands or known.bands
    if model.bands != len(bands):  # the file has other channels than the family, so other units too
        bands = ()
    config = ImportConfig(
        family=known.name,
        file=path.name,
        sha256=_sha256(path),
        licence=known.licence,
        objective=known.objective or ("mae" if "decoder" in networks else ""),
        networks=networks,
        band_names=bands,
        model=encoder,
        decoder=decoder,
        data=_normalisation(known, settings, bands),
    )
    return Imported(params, config)


def abstract_networks(model: ViTConfig, decoder: ObjectiveConfig, networks: tuple[str, ...]) -> tuple[Any, Any]:
    """Shapes and axis names of the parameters of an encoder, and of the decoder if it is one of the networks; see
    `abstract_params`.
    """
    if "decoder" in networks:
        decoder.check(model)
        return decoder.abstract(model)
    model.check()
    shapes, names = abstract_vit(model)
    return {"encoder": shapes}, {"encoder": names}


def write_checkpoint(imported: Imported, output: epath.Path) -> None:
    """Writes a checkpoint that `scaling.features`, `scaling.slim` and `scaling.finetune` read.

    Raises:
      UserError: the folder already has a checkpoint.
    """
    write_parameters(imported.params, 0, config_dict(imported.config).to_dict(), output)


def _family(arrays: Arrays, name: str, path: Path) -> tuple[Family, Arrays]:
    """The family of that name, or the only one with these keys, and the arrays without its prefix."""
    if name and name not in FAMILIES:
        raise UserError(f"--from={name}: must be one of {', '.join(FAMILIES)}; give one")
    candidates = [FAMILIES[name]] if name else [f for f in FAMILIES.values() if not f.by_name]
    fitting = [(family, mine) for family in candidates if (mine := family.stripped(arrays)) is not None]
    if len(fitting) > 1:  # plain ViTs: the number of channels decides
        fitting = [(f, mine) for f, mine in fitting if f.channels(mine) == len(f.bands)] or fitting
    if len(fitting) != 1:
        first = f"its first key is {next(iter(arrays))}"
        found = f"fits {', '.join(f.name for f, _ in fitting)}" if fitting else f"fits none of them; {first}"
        which = (
            f"is not {name}: {first}; give another --from"
            if name
            else f"{found}; give --from, one of {', '.join(FAMILIES)}"
        )
        raise UserError(f"{path}: {which}")
    return fitting[0]


def _normalisation(known: Family, settings: Settings, bands: tuple[str, ...]) -> DataConfig:
    """Mean and deviation of the channels: from the settings beside the file, else the family's."""
    said = settings.normalisation()
    if said and len(said[0]) == len(known.bands):
        known = dataclasses.replace(known, mean=said[0], std=said[1])
    return known.normalisation(bands)


def _sha256(path: Path) -> str:
    """Checksum of the file; for an index, of it and the files that it names, concatenated."""
    digest = hashlib.sha256()
    for part in files_of(path):
        with part.open("rb") as file:
            while block := file.read(2**24):
                digest.update(block)
    return digest.hexdigest()
