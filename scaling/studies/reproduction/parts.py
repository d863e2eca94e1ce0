"""The parts of a reproduction: the encoder of each model, read from its weights, and each data set, fitted to the
encoder.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from etils import epath

from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.hub import in_hub
from scaling.data.sources.geobench_names import SETS
from scaling.data.sources.registry import open_source
from scaling.encoders.bands import band_names
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import describe_encoder
from scaling.interop.acquisition import Acquisition
from scaling.interop.families import FAMILIES
from scaling.interop.importing import Imported, import_weights, write_checkpoint
from scaling.interop.published import PUBLISHED, Weights, published
from scaling.models.variants import PUBLIC, Architecture, architecture
from scaling.studies.reproduction.papers import SENTINEL2, Paper
from scaling.studies.slimming.datasets import DatasetConfig
from scaling.training.stored_config import ImportConfig

FILLS = ("none", "nearest")
_SIZES = ("width", "depth", "mlp")  # that a file of weights shows


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model whose cuts are measured.

    Attributes:
      name: name in rows: that of the paper, else of its weights.
      weights: the public weights.
      family: family for the import.
      bands: names of the bands that it is known to take.
      size: size of the images in pixels, if the family takes no other.
      given: properties of the images that it needs.
      folder: folder of its encoder, in the output.
    """

    name: str
    weights: Weights
    family: str
    bands: tuple[str, ...]
    size: int
    given: Acquisition
    folder: epath.Path

    @property
    def is_here(self) -> bool:
        """Whether the encoder is in the output."""
        return (self.folder / "checkpoints").is_dir()

    def found(self, place: Path | None) -> Path | None:
        """Its weights in a folder; None if they are missing. Raises a UserError for another checksum, and for a file
        that may be of several models.
        """
        file = self.weights.find(place) if place else None
        return self.weights.checked(file) if file else None

    def imported(self, file: Path) -> Imported:
        """Its encoder. Raises UserError as `scaling.interop.importing.import_weights`, and for other sizes than the
        model is known to have.
        """
        imported = import_weights(file, self.family, given=self.given)
        if known := PUBLIC.get(self.name):
            for axis in _SIZES:
                found, right = getattr(imported.config.model, axis), getattr(known.config, axis)
                if found != right:
                    raise UserError(
                        f"{file}: has {axis} {found}, but {self.name} has {right}; these are different weights; "
                        "replace them"
                    )
        return imported

    def architecture(self, place: Path | None) -> Architecture | None:
        """The architecture, for counting; None before its weights are here. Raises a UserError as `make`."""
        if self.is_here:
            return describe_encoder(self.folder).architecture
        if self.name in PUBLIC:
            return architecture(self.name, bands=len(self.bands), image_size=self.given.image_size or self.size)
        file = self.found(place)
        return Architecture(self.imported(file).config.model) if file else None

    def make(self, place: Path | None) -> None:
        """Imports its weights, from a folder or from the hub, unless that was done.

        Raises:
          UserError: no such file, another checksum, what the family needs is not given, or the encoder that is there is
            of other images.
        """
        mine, file = json.loads(json.dumps(dataclasses.asdict(self.given))), self.folder / "acquisition.json"
        if self.is_here:
            begun = json.loads(file.read_text()) if file.exists() else mine
            for name in mine:
                if begun[name] != mine[name]:
                    raise UserError(
                        f"--{name}={mine[name]}: {self.folder} was made with {begun[name]}; choose another --output"
                    )
            return
        imported = self.imported(self.found(place) or self.weights.fetch())
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(mine, indent=2) + "\n")
        write_checkpoint(imported, self.folder)

    def said(self) -> str:
        """One line on its encoder, which must be in the output."""
        return said_of(self.name, self.folder)


def said_of(name: str, folder: epath.Path) -> str:
    """One line on the encoder of a model, which is in this folder: file, licence, bands and pixels."""
    encoder = describe_encoder(folder)
    assert isinstance(encoder.train, ImportConfig)
    c, size = encoder.train, encoder.config.image_size
    bands = ", ".join(c.band_names) or f"{encoder.config.bands} bands"
    return f"{name}: {c.file}, sha256 {c.sha256[:12]}…, licence {c.licence}; {bands}; {size} pixels"


def subjects(paper: Paper, names: Sequence[str], given: Acquisition, output: epath.Path) -> list[Subject]:
    """The chosen models; a name that the paper does not have stands for public weights.

    Args:
      paper: has the bands of its models, and the size of the images.
      names: names of the paper or of weights; none for all models of the paper.
      given: other properties of the images; each family uses those that it needs.
      output: folder of the reproduction.

    Raises:
      UserError: an unknown name, or a property that none of the models uses.
    """
    chosen = [_subject(paper, name, given, output) for name in names or [model.name for model in paper.models]]
    for field in dataclasses.fields(given):
        if getattr(given, field.name) and not any(getattr(s.given, field.name) for s in chosen):
            raise UserError(f"--{field.name}: none of {', '.join(s.name for s in chosen)} uses it; leave it out")
    if twice := next((s.name for s in chosen if [x.name for x in chosen].count(s.name) > 1), ""):
        raise UserError(f"--models: {twice} is named twice; name it once")
    return chosen


def _subject(paper: Paper, name: str, given: Acquisition, output: epath.Path) -> Subject:
    known = paper.model(name)
    if not known and name not in PUBLISHED:
        close = nearest(name, [*(model.name for model in paper.models), *PUBLISHED], "")
        raise UserError(
            f"--models={name}: neither in the paper nor in the table of public weights{close}; the paper has "
            f"{', '.join(model.name for model in paper.models)}; `convert --model=?` lists the others"
        )
    weights = published(known.weights if known else name)
    family = known.family if known and known.family else weights.family
    takes = FAMILIES[family].takes
    bands = known.bands if known else FAMILIES[family].default_bands or FAMILIES[family].bands
    bands = given.bands if given.bands and "bands" in takes else bands
    spectrum = [SENTINEL2.get(band, (0, 0)) for band in bands]
    full = dataclasses.replace(
        given,
        bands=given.bands or (known.bands if known else ()),
        wavelengths=given.wavelengths or tuple(float(centre) for centre, _ in spectrum),
        bandwidths=given.bandwidths or tuple(float(width) for _, width in spectrum),
        image_size=given.image_size or paper.image_size,
    )
    used = {field.name: getattr(full, field.name) for field in dataclasses.fields(full) if field.name in takes}
    label = known.name if known else name
    return Subject(label, weights, family, bands, paper.image_size, Acquisition(**used), output / "models" / label)


def check_datasets(paper: Paper, names: Sequence[str]) -> list[str]:
    """Names of data sets of the paper, none for all; raises a UserError for others."""
    for name in names:
        if name not in paper.datasets:
            more = "; the paper has it as a task of another kind" if name in SETS else ""
            close = nearest(name, list(paper.datasets), "")
            raise UserError(
                f"--datasets={name}: not one that can be computed here{close}; choose from "
                f"{', '.join(paper.datasets)}{more}"
            )
    return list(names) or list(paper.datasets)


def source_of(paper: Paper, data: str, name: str, stored: bool) -> str:
    """The spec of a data set.

    Args:
      paper: has the units of the data set.
      data: folder of GEO-Bench or of its `classification_v1.0`, here or in the hub.
      name: name of the data set.
      stored: whether to use the names of bands as stored in its files.

    Raises:
      UserError: the data set is missing.
    """
    options = "&".join(filter(None, (paper.datasets[name], "names=stored" * stored)))
    places = [f"{data.rstrip('/')}/{name}", f"{data.rstrip('/')}/classification_v1.0/{name}"]
    place = places[0] if in_hub(data) else next((p for p in places if epath.Path(p).is_dir()), "")
    if not place:
        raise UserError(
            f"--data={data}: there is no {name} in it, nor in its classification_v1.0; download and unpack "
            f"classification_v1.0/{name}.zip of recursix/geo-bench-1.0 in the hub, or run geobench-download"
        )
    return f"geobench:{place}{'?' * bool(options)}{options}"


def dataset_of(encoder: Encoder, spec: str, fill: str, limit: int = 0) -> tuple[DatasetConfig, str]:
    """A data set fitted to an encoder: bands by name, normalised as in its pretraining or, if that is unknown, by the
    statistics of the data set. With it the bands that stand for others, and the statistics, in words.

    Args:
      encoder: the encoder, with or without parameters.
      spec: the source.
      fill: replacement of a band that the data set lacks: `nearest` in wavelength, normalised by its own statistics;
        or `none`.
      limit: images of each split; 0 for all.

    Raises:
      UserError: the data set lacks a band and `fill` is none, or the normalisation is unknown.
    """
    info, wanted, own = open_source(spec, "train").info, band_names(encoder), encoder.train.data
    taken, plain = stand_ins(wanted, info.bands, spec, fill), DatasetConfig(source=spec, limit=limit)
    lacking = list(dict.fromkeys(band for band in taken if band not in wanted))
    if own.mean and not lacking:
        said = "normalised by the statistics of the pretraining"
        if taken == wanted:
            return plain, said
        statistics, at = (own.mean, own.std), wanted
    elif info.statistics is not None:
        why = f"has none of {', '.join(lacking)}" if own.mean else "has none"
        said = f"all bands normalised by the statistics of the data set, as the pretraining {why}"
        statistics, at = info.statistics, info.bands
    else:
        raise UserError(
            f"{spec}: neither the encoder nor a band_stats.json states how images are normalised; add a band_stats.json"
        )
    mean, std = (tuple(values[at.index(band)] for band in taken) for values in statistics)
    stand = ", ".join(f"{other} stands for {band}" for band, other in zip(wanted, taken, strict=True) if band != other)
    bands = tuple(info.bands.index(band) for band in taken)
    return dataclasses.replace(plain, bands=bands, mean=mean, std=std), f"{stand}; {said}" if stand else said


def stand_ins(wanted: Sequence[str], there: Sequence[str], where: str, fill: str) -> tuple[str, ...]:
    """The band of the data set to use for each band of the encoder: the same band, or its replacement. Raises as
    `dataset_of`.
    """
    known = [band for band in there if band in SENTINEL2]
    missing = [band for band in wanted if band not in there]
    can_fill = bool(known) and set(missing) <= set(SENTINEL2)
    if not wanted:
        raise UserError(f"{where} has bands that the encoder has no names for; give --bands")
    if missing and (fill == "none" or not can_fill):
        how = "; --fill=nearest uses the band of the nearest wavelength instead" if can_fill else ""
        raise UserError(f"{where} has no {', '.join(missing)}{how}")

    def nearest_of(band: str) -> str:
        return min(known, key=lambda other: abs(SENTINEL2[other][0] - SENTINEL2[band][0]))

    return tuple(nearest_of(band) if band in missing else band for band in wanted)
