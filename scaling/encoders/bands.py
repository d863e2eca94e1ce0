"""Matches the bands of a source to those of an encoder, since a wrong match would silently give wrong features.

    encoder trained on        the source                               bands taken, in the order of the encoder
    -                         bands are given                          those
    names known               has all of these names                   by name
    names known               has some of them                         an error
    all bands of its source   as many bands                            all
    some bands, by index      names its bands in its spec, as many     all
    some bands, by index      as many bands as the training source     by index
    some bands, by index      as many bands as the encoder             all
    anything else                                                      an error

Mean and deviation belong to the encoder's bands, one by one. The training source is opened to learn the number and
names of its bands; if it no longer exists, any source that has the indices may be from the same sensor. Its names are
used if both sources hold the same type of numbers: reflectances are not colours between 0 and 255.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.sources.base import Source
from scaling.data.sources.registry import open_source, parsed
from scaling.data.spot_checks import few_images, layout_of, widest_image
from scaling.encoders.encoder import Encoder
from scaling.training.config import RunConfig
from scaling.training.stored_config import ImportConfig

log = logging.getLogger(__name__)

Bands = Sequence[int | str]  # indices from 0, or names


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Bands of an encoder.

    Attributes:
      count: number of bands.
      indices: their indices in the training source; () for all of its bands, or if they do not matter.
      names: their names; () if unknown.
      total: number of bands of the training source; 0 if unknown.
    """

    count: int
    indices: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    total: int = 0


@dataclasses.dataclass(frozen=True)
class There:
    """Bands of a source.

    Attributes:
      count: number of bands.
      names: names of the bands; () if unknown.
      dtype: dtype of its images.
      chosen: whether its spec selects the bands.
    """

    count: int
    names: tuple[str, ...] = ()
    dtype: np.dtype | None = None
    chosen: bool = False


def paired(wanted: Wanted, there: There) -> tuple[int, ...] | None:
    """Index in the source of every band of the encoder, by the table above; None if undecided."""
    all_of_them = tuple(range(there.count)) if there.count == wanted.count else None
    if set(wanted.names) & set(there.names):
        if set(wanted.names) <= set(there.names):
            return tuple(map(there.names.index, wanted.names))
        shared, both = set(wanted.names) & set(there.names), zip(wanted.names, there.names, strict=False)
        astray = any(ours != theirs and {ours, theirs} & shared for ours, theirs in both)
        return all_of_them if there.chosen and not astray else None
    if not wanted.indices or (there.chosen and all_of_them):
        return all_of_them
    same_sensor = there.count == wanted.total if wanted.total else there.count > max(wanted.indices)
    return wanted.indices if same_sensor else all_of_them


def bands_of(
    encoder: Encoder,
    opened: Source,
    source: str,
    given: Bands = (),
    *,
    statistics: bool = False,
    option: str = "bands",
    images: Sequence[np.ndarray] = (),
) -> tuple[int, ...]:
    """The indices for `DataConfig.bands`; () for all bands of the source, in its order.

    Args:
      encoder: the encoder that takes the bands.
      opened, source: the source, and its spec.
      given: bands chosen by the user, in the order of the encoder; () to follow the checkpoint.
      statistics: whether the user also gives mean and deviation, which then belong to bands in the source's order.
      option: name of the option for bands, for messages.
      images: a few images of the source, if they are read already, as by `few_images`.

    Raises:
      UserError: unknown bands, another number than the encoder's, or bands that cannot be matched.
    """
    chosen = "bands" in parsed(source)[2]
    there = There(*_seen(opened, images), chosen)
    if given:
        taken: tuple[int, ...] | None = _indices(given, there, source, option)
        wanted = Wanted(encoder.config.bands, names=_names_beside(encoder, there))
    else:
        wanted = _wanted(encoder, source, there)
        taken = paired(wanted, there)
    if taken is None or len(taken) != wanted.count:
        is_, takes = _listed(there.count, there.names), _listed(wanted.count, wanted.names)
        but = f", {option}={','.join(map(str, given))} takes {len(given)} of them" if given else ""
        raise UserError(
            f"{source} has {is_}{but}, but the model takes {takes}: name the corresponding bands of the source, in "
            f"this order and counted from 0, with {option}=…{widest_image(opened)}"
        )
    if taken == tuple(range(there.count)):
        taken = ()
    elif statistics and not given:
        raise UserError(f"{source}: mean and std are given, but not the bands that they are for: give {option}=… too")
    _say(wanted, there, taken, source, bool(given))
    return taken


def training_source(encoder: Encoder, option: str) -> str:
    """Spec of the source that an encoder was trained on.

    Raises:
      UserError: an imported checkpoint, which does not state its source.
    """
    if isinstance(encoder.train, ImportConfig):
        raise UserError(f"the checkpoint was imported and does not name its training data: give {option}=SPEC")
    return encoder.train.data.source


def _listed(count: int, names: tuple[str, ...]) -> str:
    return f"{count} bands" + (f" ({', '.join(names)})" if names else "")


def _names_beside(encoder: Encoder, there: There) -> tuple[str, ...]:
    """Names of the encoder's bands, if the source has names too."""
    return band_names(encoder) if there.names else ()


def _indices(given: Bands, there: There, source: str, option: str) -> tuple[int, ...]:
    """Bands chosen by a user, by index or by name, as indices."""
    asked = f"{option}={','.join(map(str, given))}"
    numbers = [str(band).isdecimal() for band in given]
    if any(numbers) and not all(numbers):
        raise UserError(f"{asked}: must be whole numbers from 0, or names of bands, separated by commas")
    if all(numbers):
        indices = tuple(int(band) for band in given)
        if max(indices) >= there.count:
            raise UserError(f"{asked}: {source} has bands 0 to {there.count - 1}")
        return indices
    if not there.names:
        raise UserError(f"{asked}: {source} does not name its {there.count} bands; give their indices, from 0")
    unknown = [band for band in given if band not in there.names]
    if unknown:
        raise UserError(f"{asked}: {source} has no band {unknown[0]}; it has {', '.join(there.names)}")
    return tuple(there.names.index(str(band)) for band in given)


def band_names(encoder: Encoder) -> tuple[str, ...]:
    """Names of the bands of an encoder, in order; () if unknown."""
    train, count = encoder.train, encoder.config.bands
    if isinstance(train, ImportConfig):
        return train.band_names if len(train.band_names) == count else ()
    training = _training(train, count)
    return _called(training, train.data.bands) if training else ()


def training_dtype(encoder: Encoder) -> np.dtype | None:
    """dtype of the images that an encoder was trained on; None if they no longer exist."""
    training = None if isinstance(encoder.train, ImportConfig) else _training(encoder.train, encoder.config.bands)
    return training.dtype if training else None


def _called(training: There, indices: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(training.names[i] for i in indices or range(training.count)) if training.names else ()


def _wanted(encoder: Encoder, source: str, there: There) -> Wanted:
    """The bands of an encoder, as far as known; the training source is opened if that can tell more."""
    count, train = encoder.config.bands, encoder.train
    if isinstance(train, ImportConfig):
        return Wanted(count, names=band_names(encoder))
    indices = train.data.bands
    if not (indices or there.names):
        return Wanted(count)
    training = there if source == train.data.source else _training(train, count)
    if training is None or not _holds(training, indices, count):
        return Wanted(count, indices)
    names = _called(training, indices) if training.dtype == there.dtype else ()
    return Wanted(count, indices, names, training.count)


def _training(train: RunConfig, count: int) -> There | None:
    """The bands of the training source; None if it no longer exists, or is another one of the same name."""
    try:
        training = There(*_seen(open_source(train.data.source, train.data.split)))
    except Exception:  # the libraries behind sources raise anything
        return None
    return training if _holds(training, train.data.bands, count) else None


def _holds(training: There, indices: tuple[int, ...], count: int) -> bool:
    """Whether a source could be the one that an encoder with `count` bands was trained on."""
    taken = indices or tuple(range(training.count))
    return len(taken) == count and max(taken) < training.count


def _seen(source: Source, images: Sequence[np.ndarray] = ()) -> tuple[int, tuple[str, ...], np.dtype]:
    """Number, names and dtype of the bands of a source; `images` as for `bands_of`."""
    count, dtype = layout_of(images or few_images(source), ())
    names = source.info.bands
    return count, names if len(names) == count else (), dtype


def _say(wanted: Wanted, there: There, taken: tuple[int, ...], source: str, given: bool) -> None:
    """Logs the bands that are taken, unless they are simply all; warns if their names differ from the encoder's."""
    indices = taken or tuple(range(there.count))
    if wanted.names and there.names:
        pairs = [(there.names[i], name) for i, name in zip(indices, wanted.names, strict=True)]
        if other := [f"{theirs} for {ours}" for theirs, ours in pairs if theirs != ours]:
            log.warning("%s: some bands have other names than in the encoder: %s", source, ", ".join(other))
    if taken and not given:
        shown = [there.names[i] if there.names else str(i) for i in taken]
        log.info("%s: bands %s, as the encoder was trained", source, ", ".join(shown))
