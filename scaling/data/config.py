"""The data section of an experiment, and the checks that precede compute."""

import dataclasses
from collections.abc import Sequence

from scaling.core.errors import UserError
from scaling.data.box_classes import unknown_class
from scaling.data.photometric import PHOTOMETRIC
from scaling.data.sources.base import Source
from scaling.data.sources.fraction import Fraction, classes_at
from scaling.data.sources.registry import open_source, store_specs
from scaling.data.spot_checks import few_images, layout_of, warn_of_masks, widest_image
from scaling.data.staging import staged
from scaling.data.targets import Boxes, Target
from scaling.data.transforms import CROPS, FLIPS
from scaling.data.view_changes import VIEW_CHANGES

OF_ANY_BANDS = {"rgb": "bands", "byol": "byol_bands"}  # replacements for photometric changes of three 8-bit colours


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images, and how they are read and augmented.

    Attributes:
      source, split: images to train on; see `scaling.data.sources.registry`. `train+test` is the union of both splits.
      fraction, fraction_seed: fraction of the labelled training images to train on (more if needed to have every
        class), and the seed of the draw; fractions of one seed are nested. See `scaling.data.sources.fraction`.
      eval_source, eval_split: images to evaluate on; if both are empty, a part of the training split, which is then not
        trained on.
      eval_share, eval_examples: fraction of the training split that is held out, and the maximum number of these
        images. With an eval_source or eval_split, eval_examples is the number of its images that are used (0: all).
      bands: indices of the bands to use; () for all.
      rgb: bands that pictures show as red, green and blue: three indices, from 0, into the bands that are used; () for
        the first three.
      crop: how a training crop is drawn: `area`, sized by crop_scale, or `ratio`, usual in segmentation: the image is
        resized by a ratio, and as many pixels as the model takes are cut out; see `scaling.data.transforms`.
      crop_scale: smallest and largest fraction of the image's area in a training crop.
      resize_ratio: smallest and largest ratio of a `ratio` crop.
      resize_base: pixels of the shorter side of an image at ratio 1; 0 for its stored size.
      max_class_share: maximum fraction of one class among the labelled pixels of a `ratio` crop, if there are masks.
        Crops that reach it, or have a single class, are drawn again, ten times at most; 1 accepts every crop.
      photometric: change of brightness and colour of training images: none, rgb or bands (see
        `scaling.data.photometric`); for contrastive views, which are changed differently: byol, for three 8-bit
        colours, or byol_bands, for any bands (`scaling.data.view_changes`).
      rotate: fraction of the training images that are rotated by a random angle before they are flipped.
      rotate_upright: classes whose boxes stay upright, such as storage-tank and roundabout: an image with one of them
        is rotated by quarter turns only.
      flips: none, horizontal or dihedral.
      stage: folder on each machine, on a disk or in memory (/dev/shm/data), to which prepared data in a bucket is
        copied before it is read; empty for no copy. See `scaling.data.staging`.
      threads: reading and decoding threads per process; 0 for one per core, at most 64.
      workers: worker processes; 0 to use threads of this process.
      prefetch: batches prepared ahead.
      max_bad_share: fraction of unreadable examples above which training stops.
      mean, std: mean and standard deviation of each band that is used, in stored pixel values; () to measure them.
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
    rgb: tuple[int, ...] = ()
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
        store_specs(self, "source", "eval_source")
        if self.flips not in FLIPS:
            raise UserError(f"data.flips={self.flips}: must be one of {', '.join(FLIPS)}")
        if len(self.rgb) not in (0, 3) or any(band < 0 for band in self.rgb):
            raise UserError(
                f"data.rgb={self.rgb}: must be three indices of bands, from 0; set such as (3, 2, 1), or ()"
            )
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(
                f"data.crop_scale={self.crop_scale}: must be two shares of the area, 0 < smallest <= largest <= 1"
            )
        for name, known in (("crop", CROPS), ("photometric", {**PHOTOMETRIC, **VIEW_CHANGES})):
            if getattr(self, name) not in known:
                raise UserError(f"data.{name}={getattr(self, name)}: must be one of {', '.join(known)}")
        if len(self.resize_ratio) != 2 or not 0 < self.resize_ratio[0] <= self.resize_ratio[1]:
            raise UserError(f"data.resize_ratio={self.resize_ratio}: must be two ratios, 0 < smallest <= largest")
        if not 0 < self.max_class_share <= 1:
            raise UserError(
                f"data.max_class_share={self.max_class_share}: must be above 0 and at most 1, which accepts every crop"
            )
        if not 0 <= self.rotate <= 1:
            raise UserError(f"data.rotate={self.rotate}: must be a share of the training images, between 0 and 1")
        if self.rotate_upright and not self.rotate:
            raise UserError(
                "data.rotate_upright: has no effect because nothing is rotated; set data.rotate, or leave it out"
            )
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise UserError(
                "data.mean and data.std: must each have one value per band, std above 0, or both be empty to measure "
                "them"
            )
        if not 0 < self.fraction <= 1:
            raise UserError(
                f"data.fraction={self.fraction}: must be a share of the training images, above 0 and at most 1"
            )
        if self.fraction < 1 and self.holds_out:
            raise UserError(
                f"data.fraction={self.fraction}: the held-out images must not change with it; set data.eval_split"
            )
        if not 0 < self.eval_share < 1:
            raise UserError(
                f"data.eval_share={self.eval_share}: must be a share of the training split, between 0 and 1"
            )
        for name, least in (("eval_examples", 0), ("resize_base", 0), ("threads", 0), ("workers", 0), ("prefetch", 1)):
            if getattr(self, name) < least:
                raise UserError(f"data.{name}={getattr(self, name)}: must be at least {least}")

    @property
    def holds_out(self) -> bool:
        """True if evaluation uses a part of the training split."""
        return not (self.eval_source or self.eval_split)

    @property
    def evaluated(self) -> tuple[str, str]:
        """Source and split of the images to evaluate on, of which these may be a part."""
        return self.eval_source or self.source, self.eval_split or self.split


def open_sources(config: DataConfig) -> tuple[Source, Source]:
    """The source to train on and the one to evaluate on (the same object if a part is held out)."""
    train: Source = open_source(_near(config, config.source, config.split), config.split)
    if config.fraction < 1:
        classes = classes_at(config.source, config.split, len(train))
        train = Fraction(train, classes, config.fraction, config.fraction_seed)
    if config.holds_out:
        return train, train
    return train, open_source(_near(config, *config.evaluated), config.eval_split or config.split)


def _near(config: DataConfig, spec: str, split: str) -> str:
    """The spec of the data itself, or of its copy on this machine."""
    return staged(spec, split, config.stage) if config.stage else spec


def checked_sources(config: DataConfig, bands: int) -> tuple[Source, Source]:
    """`open_sources`, with both sources checked by `check_source` for a model with this number of bands.

    Raises:
      UserError: a source cannot be read, or does not fit the model.
    """
    train, other = open_sources(config)
    check_source(train, bands, config)
    if other is not train:
        check_source(other, bands, config, *config.evaluated)
    return train, other


def held_out(total: int, config: DataConfig) -> int:
    """Number of the `total` training records that are held out for evaluation: at least one and never all.

    Raises:
      UserError: fewer than two records.
    """
    if not config.holds_out:
        return 0
    if total < 2:
        raise UserError(
            f"{config.source}: {total} image, so none can be held out; set data.eval_source or data.eval_split"
        )
    limit = config.eval_examples or total
    return max(1, min(round(total * config.eval_share), limit, total - 1))


def upright_classes(config: DataConfig, targets: Sequence[Target]) -> tuple[int, ...]:
    """Indices of the classes whose boxes stay upright. Raises UserError for an unknown class."""
    names = next((target.classes for target in targets if isinstance(target, Boxes)), None)
    if names is None and config.rotate_upright:
        raise UserError(
            f"data.rotate_upright={config.rotate_upright}: has no effect because the training has no boxes; leave it "
            "out"
        )
    if names is None:
        return ()
    for name in config.rotate_upright:
        if name not in names:
            raise UserError(unknown_class("data.rotate_upright", name, names))
    return tuple(map(names.index, config.rotate_upright))


def check_source(source: Source, bands: int, config: DataConfig, spec: str = "", split: str = "") -> None:
    """Reads a few examples, before any compute is spent, and compares their bands with those of the model. `spec` and
    `split` name a source other than the config's own, for messages.

    Raises:
      UserError: the number of bands differs, or data.bands or data.mean do not fit the images.
    """
    spec, images = spec or config.source, few_images(source)
    there, _ = layout_of(images, ())
    warn_of_masks(f"{spec}, split {split or config.split}", images)
    if config.bands and not all(0 <= band < there for band in config.bands):
        raise UserError(f"data.bands={config.bands}: {spec} has bands 0 to {there - 1}")
    taken = len(config.bands) or there
    if taken != bands:
        what = f"{spec} has {there} bands" + (f", data.bands takes {taken}" if config.bands else "")
        remedy = f"choose with data.bands=… or set model.bands={taken}"
        raise UserError(f"{what}, but the model takes {bands}: {remedy}{widest_image(source)}")
    if config.rgb and max(config.rgb) >= taken:
        raise UserError(
            f"data.rgb={config.rgb}: must be of the {taken} bands taken; give indices from 0 to {taken - 1}"
        )
    if config.mean and len(config.mean) != taken:
        raise UserError(f"data.mean has {len(config.mean)} values for {taken} bands")
