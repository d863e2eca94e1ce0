"""What to read and how: the data section of an experiment, and the checks that precede compute."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.box_classes import unknown_class
from scaling.data.images import ARRAY, CorruptImage
from scaling.data.photometric import PHOTOMETRIC
from scaling.data.sources.base import Source
from scaling.data.sources.fraction import Fraction, classes_at
from scaling.data.sources.registry import open_source
from scaling.data.staging import staged
from scaling.data.targets import Boxes, Target
from scaling.data.transforms import CROPS, FLIPS
from scaling.data.view_changes import VIEW_CHANGES


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are read and augmented.

    Attributes:
      source, split: images to train on, see `scaling.data.sources.registry`; `train+test` is both splits as one.
      fraction, fraction_seed: share of the labelled training images that is trained on, at least as many as have every
        class, and the seed of the draw; fractions of one seed are nested. See `scaling.data.sources.fraction`.
      eval_source, eval_split: images to evaluate on; both empty: a part of the training split, never trained on.
      eval_share, eval_examples: how much is held out: this share, at most this many. With an eval_source or eval_split
        of its own, how many of its examples are used (0: all).
      bands: indices of the bands to take, () for all.
      crop: how a training crop is drawn: `area`, of which crop_scale says the size, or `ratio`, as of segmentation:
        the image is resized by a ratio, and as many pixels as the model takes are cut out; see
        `scaling.data.transforms`.
      crop_scale: smallest and largest share of the area of a training crop.
      resize_ratio: smallest and largest ratio of `ratio`.
      resize_base: pixels of the shorter side of an image at ratio 1; 0 for as many as it has.
      max_class_share: of the pixels of a crop of `ratio` that count, where there are masks: tries with more, or with
        one class alone, are drawn again, ten times at most; 1 for whatever comes.
      photometric: how training images change in brightness and colour: none, rgb or bands (see
        `scaling.data.photometric`); or as views that are contrasted, which differ in how: byol, of three colours of 8
        bits, or byol_bands, of any bands (`scaling.data.view_changes`).
      rotate: share of the training images that are rotated by any angle before they are flipped.
      rotate_upright: names of classes of boxes that stay upright, as storage-tank and roundabout: an image with one of
        them is rotated by quarter turns.
      flips: none, horizontal or dihedral.
      stage: folder of each machine, on a disk or in memory (/dev/shm/data), that prepared data in a bucket is copied to
        before anything is read; empty for none. See `scaling.data.staging`.
      threads: reading and decoding threads per process; 0 for one for each core, at most 64.
      workers: processes; 0 to work in threads of this one.
      prefetch: batches made ahead.
      max_bad_share: share of unreadable examples above which training stops.
      mean, std: per band taken, in pixel values as stored; () to measure them.
    """

    source: str = "scenes"
    split: str = "train"
    fraction: float = 1.0
    fraction_seed: int = 0
    eval_source: str = ""
    eval_split: str = ""
    eval_share: float = 0.02
    eval_examples: int = 1024
    bands: tuple[int, ...] = ()
    crop: str = "area"
    crop_scale: tuple[float, float] = (0.2, 1.0)
    resize_ratio: tuple[float, float] = (0.5, 2.0)
    resize_base: int = 0
    max_class_share: float = 0.75
    photometric: str = "none"
    rotate: float = 0.0
    rotate_upright: tuple[str, ...] = ()
    flips: str = "horizontal"
    stage: str = ""
    threads: int = 8
    workers: int = 0
    prefetch: int = 2
    max_bad_share: float = 0.01
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self):
        if self.flips not in FLIPS:
            raise UserError(f"data.flips={self.flips}: choose one of {', '.join(FLIPS)}")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"data.crop_scale={self.crop_scale}: two shares of the area, 0 < smallest <= largest <= 1")
        for name, known in (("crop", CROPS), ("photometric", {**PHOTOMETRIC, **VIEW_CHANGES})):
            if getattr(self, name) not in known:
                raise UserError(f"data.{name}={getattr(self, name)}: choose one of {', '.join(known)}")
        if len(self.resize_ratio) != 2 or not 0 < self.resize_ratio[0] <= self.resize_ratio[1]:
            raise UserError(f"data.resize_ratio={self.resize_ratio}: two ratios, 0 < smallest <= largest")
        if not 0 < self.max_class_share <= 1:
            raise UserError(f"data.max_class_share={self.max_class_share}: a share above 0, 1 for whatever comes")
        if not 0 <= self.rotate <= 1:
            raise UserError(f"data.rotate={self.rotate}: a share of the training images, between 0 and 1")
        if self.rotate_upright and not self.rotate:
            raise UserError("data.rotate_upright: nothing is rotated; set data.rotate, or leave it out")
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise UserError("data.mean and data.std: one value per band each, std above 0 (or both empty: measured)")
        if not 0 < self.fraction <= 1:
            raise UserError(f"data.fraction={self.fraction}: a share of the training images, above 0 and at most 1")
        if self.fraction < 1 and self.holds_out:
            raise UserError(
                f"data.fraction={self.fraction}: what is watched must not change with it; set data.eval_split"
            )
        if not 0 < self.eval_share < 1:
            raise UserError(f"data.eval_share={self.eval_share}: a share of the training split, between 0 and 1")
        for name, least in (("eval_examples", 0), ("resize_base", 0), ("threads", 0), ("workers", 0), ("prefetch", 1)):
            if getattr(self, name) < least:
                raise UserError(f"data.{name}={getattr(self, name)}: at least {least}")

    @property
    def holds_out(self) -> bool:
        """True if evaluation uses a part of the training split."""
        return not (self.eval_source or self.eval_split)


def open_sources(config: DataConfig) -> tuple[Source, Source]:
    """The source to train on and the one to evaluate on (the same object if a part is held out)."""
    train: Source = open_source(_near(config, config.source, config.split), config.split)
    if config.fraction < 1:
        classes = classes_at(config.source, config.split, len(train))
        train = Fraction(train, classes, config.fraction, config.fraction_seed)
    if config.holds_out:
        return train, train
    other, split = config.eval_source or config.source, config.eval_split or config.split
    return train, open_source(_near(config, other, split), split)


def _near(config: DataConfig, spec: str, split: str) -> str:
    """The data where it is, or its copy on this machine."""
    return staged(spec, split, config.stage) if config.stage else spec


def checked_sources(config: DataConfig, bands: int) -> tuple[Source, Source]:
    """`open_sources`, each of them looked at once by `check_source` for a model of so many bands.

    Raises:
      UserError: one cannot be read, or does not fit.
    """
    opened = open_sources(config)
    for source in {id(source): source for source in opened}.values():
        check_source(source, bands, config)
    return opened


def held_out(total: int, config: DataConfig) -> int:
    """How many of `total` training records are kept for evaluation, at least one and never all.

    Raises:
      UserError: fewer than two records.
    """
    if not config.holds_out:
        return 0
    if total < 2:
        raise UserError(f"{config.source}: {total} image, nothing to hold out; set data.eval_source or data.eval_split")
    limit = config.eval_examples or total
    return max(1, min(round(total * config.eval_share), limit, total - 1))


def upright_classes(config: DataConfig, targets: Sequence[Target]) -> tuple[int, ...]:
    """The numbers of the classes of boxes that stay upright. Raises UserError for a class that there is not."""
    names = next((target.classes for target in targets if isinstance(target, Boxes)), None)
    if names is None and config.rotate_upright:
        raise UserError(f"data.rotate_upright={config.rotate_upright}: no boxes are trained on; leave it out")
    if names is None:
        return ()
    for name in config.rotate_upright:
        if name not in names:
            raise UserError(unknown_class("data.rotate_upright", name, names))
    return tuple(map(names.index, config.rotate_upright))


def check_source(source: Source, bands: int, config: DataConfig) -> None:
    """Reads a few examples, before any compute is spent, and compares their bands with those of the model.

    Raises:
      UserError: another number of bands, or data.bands, data.mean do not fit the images.
    """
    there, _ = layout(source, ())
    if config.bands and not all(0 <= band < there for band in config.bands):
        raise UserError(f"data.bands={config.bands}: {config.source} has bands 0 to {there - 1}")
    taken = len(config.bands) or there
    if taken != bands:
        what = f"{config.source} has {there} bands" + (f", data.bands takes {taken}" if config.bands else "")
        remedy = f"choose with data.bands=… or set model.bands={taken}"
        raise UserError(f"{what}, the model takes {bands}: {remedy}{_shape(source)}")
    if config.mean and len(config.mean) != taken:
        raise UserError(f"data.mean has {len(config.mean)} values for {taken} bands")


def _shape(source: Source) -> str:
    """For messages, the size of the first readable image, and why its sides may be mistaken for bands."""
    for index in range(min(len(source), 16)):
        try:
            height, width, there = source[index]["image"].shape
        except CorruptImage:
            continue
        pages = "; were the bands the last axis of an array? Write it with planarconfig=contig" if there > width else ""
        if source.name(index).endswith(ARRAY):
            pages = "; were the bands the first axis? Store them as the last" if height < there else ""
        return f" (the images are {height} x {width} pixels of {there} bands{pages})"
    return ""


def layout(source: Source, bands: tuple[int, ...]) -> tuple[int, np.dtype]:
    """Number of bands and dtype of the images, from up to 16 readable ones over the whole source.

    Grey images among coloured ones are common; the largest number of bands counts, and the dtype that most images of so
    many bands have; of those that have all `bands`, where some are chosen.
    """
    total = len(source)
    images, first = [], None
    for index in dict.fromkeys(i * total // 16 for i in range(16)):
        try:
            images.append(source[index]["image"])
        except CorruptImage as error:
            first = first or error
    if not images:
        raise UserError(f"no readable image; the first is {first}")
    widest = max(images, key=lambda image: image.shape[2])
    if bands and max(bands) >= widest.shape[2]:
        raise UserError(f"data.bands={bands}: the images have bands 0 to {widest.shape[2] - 1}")
    least = max(bands) + 1 if bands else widest.shape[2]
    dtypes = [image.dtype for image in images if image.shape[2] >= least]
    return widest.shape[2], max(dtypes, key=dtypes.count)
