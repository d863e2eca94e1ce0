"""The images that an encoder takes: their shape, their type, and the units of their pixels."""

import logging
import os
from typing import Any

import numpy as np

from scaling.core.errors import UserError
from scaling.data.arrays import check_finite, normalise, not_normalised, other_units
from scaling.data.config import DataConfig
from scaling.models.config import ViTConfig

log = logging.getLogger(__name__)


def as_array(images: Any) -> np.ndarray:
    """Images as an array; raises UserError for a path instead of images, or for masked pixels."""
    if isinstance(images, str | os.PathLike):
        raise UserError(f"images={images}: must be an array; scaling.features(encoder, source) reads images in files")
    if np.ma.is_masked(images):
        raise UserError(
            f"images: {np.ma.count_masked(images):,} values are masked; replace them with images.filled(value)"
        )
    try:
        return np.asarray(images)
    except ValueError as e:
        raise UserError(
            "images: they have different shapes; resize them to the same shape, as scaling.features does"
        ) from e


def check_floats(images: np.ndarray, c: ViTConfig) -> None:
    """Raises UserError for images that are not finite floats of the encoder's shape."""
    _check_shape(images, c)
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"images of {images.dtype}: give normalised floats; encoder.normalise(pixels) makes them")
    check_finite(images)


def check_normalised(images: np.ndarray, c: ViTConfig, data: DataConfig, where: str) -> None:
    """Raises UserError for images [N, h, w, C] that are certainly not normalised as those of the training; logs a
    warning if they perhaps are not.
    """
    check_floats(images, c)
    found, is_certain = not_normalised(images, data.mean, data.std)
    if is_certain:
        raise UserError(f"{where}: {found}")
    if found:
        log.warning(f"{where}: {found}")


def _check_shape(images: np.ndarray, c: ViTConfig) -> None:
    expected = (*c.image_shape, c.bands)
    if images.ndim != 4 or images.shape[1:] != expected:
        takes = ", ".join(map(str, expected))
        if images.shape == expected:
            advice = "; one image is image[None]"
        elif images.ndim == 4 and images.shape[1:] == (c.bands, *c.image_shape):
            advice = "; bands are the last axis: give np.moveaxis(images, 1, -1)"
        elif images.ndim == 4 and images.shape[-1] == c.bands:
            advice = "; resize them, as scaling.features does with images in files"
        else:
            advice = ""
        raise UserError(f"images of shape {list(images.shape)}, but the encoder takes [N, {takes}]{advice}")


def check_pixels(pixels: np.ndarray, c: ViTConfig, data: DataConfig) -> None:
    """Raises UserError for pixels [N, h, w, C] that are certainly not in the units of the training data; logs a warning
    if they may not be.
    """
    _check_shape(pixels, c)
    if not (np.issubdtype(pixels.dtype, np.number) or pixels.dtype == bool) or np.iscomplexobj(pixels):
        raise UserError(f"images of {pixels.dtype}: pixels must be real numbers")
    if not data.mean:
        raise UserError(
            "the checkpoint does not say how its images are normalised: normalise them as its authors did and call "
            "features(images, normalised=True)"
        )
    check_finite(pixels)
    found, is_certain = other_units(pixels, data.mean, data.std)
    fractions = ", fractions times 255" if max(data.mean) <= 255 else ""
    said = (
        f"{found}; give pixels in the units of the training data{fractions}; normalised=True is for images that "
        "are already normalised, as by encoder.normalise"
    )
    if is_certain:
        raise UserError(said)
    if found:
        log.warning(said)


def normalised_pixels(images: np.ndarray, data: DataConfig) -> np.ndarray:
    """Pixels [..., C] of any dtype in the units of the training data -> normalised float32."""
    images = as_array(images)
    if not data.mean:
        raise UserError("the checkpoint does not say how its images are normalised; give mean and std, or .npy")
    if np.shape(images)[-1:] != (len(data.mean),):
        raise UserError(f"images of shape {list(np.shape(images))}: the last axis must be the {len(data.mean)} bands")
    check_finite(images)
    return normalise(images, data.mean, data.std)
