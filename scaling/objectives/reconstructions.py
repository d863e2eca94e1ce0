"""The picture of masked autoencoding: input, masked input and reconstruction."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from scaling.core.canvas import display_range, named_bands, new_figure, save, three_bands
from scaling.models.mae import MAEConfig
from scaling.models.vit import patchify, unpatchify


def reconstruction_panel(
    path: epath.Path,
    c: MAEConfig,
    mean: np.ndarray,
    std: np.ndarray,
    *,
    images: np.ndarray,
    prediction: np.ndarray,
    masked: np.ndarray,
    rgb: Sequence[int] = (),
) -> None:
    """Draws input, masked input and reconstruction, one image a row.

    Predictions of normalised targets are denormalised with the true mean and variance of their patch; visible patches
    are copied from the input.

    Args:
      path: PNG file to write.
      c: the model.
      mean, std: [C], used to normalise the images.
      images: [B, h, w, C], normalised.
      prediction: [B, M, P], predictions for the masked patches.
      masked: [B, M], indices of these patches.
      rgb: bands shown as red, green and blue; () for the first three.
    """
    patches = np.array(patchify(images, c.patch_size))  # [B, T, P]
    rows = np.arange(len(images))[:, None]
    if c.normalize_targets:
        truth = patches[rows, masked]
        prediction = prediction * np.sqrt(truth.var(-1, keepdims=True, ddof=1) + 1e-6) + truth.mean(-1, keepdims=True)
    hidden, filled = patches.copy(), patches.copy()
    hidden[rows, masked] = np.nan
    filled[rows, masked] = prediction
    columns = {
        "input": images,
        "masked": np.asarray(unpatchify(hidden, c.patch_size, c.bands, c.grid)),
        "reconstruction": np.asarray(unpatchify(filled, c.patch_size, c.bands, c.grid)),
    }
    low, high = display_range(images * std + mean)
    bands = named_bands(images.shape[-1], rgb)
    figure = new_figure(6, 2 * len(images) + 0.3 * bool(bands))
    if bands:
        figure.suptitle(bands, fontsize=9)
    axes = figure.subplots(len(images), 3, squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        for row, picture in enumerate(pictures):
            shown = (picture * std + mean - low) / (high - low)
            shown = np.nan_to_num(three_bands(shown, rgb), nan=0.5)
            axes[row, column].imshow(shown.clip(0, 1), interpolation="nearest")
            axes[row, column].set_axis_off()
    save(figure, path.with_suffix(""))
