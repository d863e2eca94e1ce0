"""A file of weights of a known family, onto our axes and into a checkpoint like any other."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from scaling.config import config_dict
from scaling.errors import UserError
from scaling.evaluation.keeping import write_parameters
from scaling.interop.acquisition import NOTHING_GIVEN, Acquisition
from scaling.interop.families import FAMILIES
from scaling.interop.family import Family
from scaling.interop.mapping import Arrays, fill
from scaling.interop.weights import read_weights
from scaling.models.mae import MAEConfig, abstract_mae
from scaling.models.vit import abstract_vit, encoder_config
from scaling.training.config import ImportConfig


@dataclasses.dataclass(frozen=True)
class Imported:
    """Parameters by network, `encoder` and where the file has one `decoder`, and where they come from."""

    params: dict[str, Any]
    config: ImportConfig


def import_weights(path: Path, family: str = "", heads: int = 0, given: Acquisition = NOTHING_GIVEN) -> Imported:
    """Reads a file of weights.

    Args:
      path: torch file or safetensors; the `config.json` of transformers beside it is read where there is one.
      family: its name; empty to tell it by the keys.
      heads: attention heads of the encoder, where neither the family nor `config.json` knows.
      given: what a family must know of the images.

    Raises:
      UserError: a file that cannot be read, is not of the family, or does not fill the model exactly.
    """
    known, mine = _family(read_weights(path), family, path)
    settings = _settings(path) | ({"heads": heads} if heads else {})
    model, mine = known.architecture(mine, settings, given)
    networks = ("encoder", "decoder") if known.key(mine, "decoder/embed/kernel") else ("encoder",)
    shapes, names = abstract_networks(model, networks)
    params = fill(mine, known.table, known.unused, known.absent, shapes, names)
    bands = given.bands or known.default_bands or known.bands
    if model.bands != len(bands):  # the file is of other channels than the family's, and so are the units
        bands = ()
    config = ImportConfig(
        family=known.name,
        file=path.name,
        sha256=_sha256(path),
        licence=known.licence,
        objective=known.objective or ("mae" if "decoder" in networks else ""),
        networks=networks,
        band_names=bands,
        model=model,
        data=known.normalisation(bands),
    )
    return Imported(params, config)


def abstract_networks(model: MAEConfig, networks: tuple[str, ...]) -> tuple[Any, Any]:
    """Shapes and axis names of the parameters of some networks; see `abstract_params`."""
    if "decoder" in networks:
        model.check()
        return abstract_mae(model)
    encoder_config(model).check()
    shapes, names = abstract_vit(encoder_config(model))
    return {"encoder": shapes}, {"encoder": names}


def write_checkpoint(imported: Imported, output: epath.Path) -> None:
    """Writes a checkpoint that `scaling.features`, `scaling.slim` and `scaling.finetune` read.

    Raises:
      UserError: there is one already.
    """
    write_parameters(imported.params, 0, config_dict(imported.config).to_dict(), output)


def _family(arrays: Arrays, name: str, path: Path) -> tuple[Family, Arrays]:
    """The family of that name, or the only one whose keys these are, and the arrays without its prefix."""
    if name and name not in FAMILIES:
        raise UserError(f"--from={name} is not one of {', '.join(FAMILIES)}")
    candidates = [FAMILIES[name]] if name else [f for f in FAMILIES.values() if not f.by_name]
    fitting = [(family, mine) for family in candidates if (mine := family.stripped(arrays)) is not None]
    if len(fitting) > 1:  # plain ViTs: the channels tell
        fitting = [(f, mine) for f, mine in fitting if f.channels(mine) == len(f.bands)] or fitting
    if len(fitting) != 1:
        first = f"its first key is {next(iter(arrays))}"
        found = f"fits {', '.join(f.name for f, _ in fitting)}" if fitting else f"fits none of them; {first}"
        which = f"is not {name}: {first}" if name else f"{found}; give --from, one of {', '.join(FAMILIES)}"
        raise UserError(f"{path} {which}")
    return fitting[0]


def _settings(path: Path) -> dict[str, Any]:
    file = path.with_name("config.json")
    try:
        settings: Mapping[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    except json.JSONDecodeError as e:
        raise UserError(f"{file} is not JSON: {e}") from e
    return dict(settings)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
