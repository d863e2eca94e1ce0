"""Position embeddings of a file: the grid that they belong to, the class token's, fixed ones, and other sizes."""

import math

import numpy as np

from scaling.core.errors import UserError
from scaling.interop.mapping import Arrays, Place
from scaling.models.mae import MAEConfig
from scaling.models.positions import resample_positions, sincos_2d, sincos_2d_rows

# Destinations that are not parameters in our tree: positions go into the class token and the position embedding, or are
# fixed.
POSITIONS, DECODER_POSITIONS = Place("encoder/positions"), Place("decoder/positions")
LEARNED = "position embeddings without the class token's"  # of all groups, concatenated


def square_grid(key: str, positions: np.ndarray, c: MAEConfig, bare: bool) -> int:
    """Side of the grid, with a position of the class token or, if `bare` ones are possible, without."""
    count = positions.size // c.width // c.groups
    own = c.class_token and key != LEARNED
    counts = [own] if own and not bare else [0, own]  # of the class token
    grid = next((g for extra in counts if (g := math.isqrt(count - extra)) ** 2 == count - extra), 0)
    if not grid:
        beside = " beside that of the class token" if counts == [1] else ""
        raise UserError(
            f"{key}: has {count} positions, which is not a square number{beside}; give those of square images"
        )
    return grid


def grid_of_frames(key: str, positions: np.ndarray, c: MAEConfig, size: int) -> int:
    """Side of the grid of positions of several frames of `size` pixels: three eighths of the width encode the column,
    as many the row, and the rest the frame.
    """
    grid, left = divmod(size, c.patch_size)
    table = np.asarray(positions, np.float32).reshape(-1, c.width)[c.class_token :]
    whole = grid > 0 and left == 0 and len(table) > 0 and len(table) % grid**2 == 0
    if whole:
        places = table.reshape(-1, grid, grid, c.width)
        column, row = (places[..., i * c.width // 8 : (i + 3) * c.width // 8] for i in (0, 3))
        whole = np.allclose(column, column[:1, :1], atol=1e-4) and np.allclose(row, row[:1, :, :1], atol=1e-4)
    if not whole:
        raise UserError(
            f"{key}: has {len(table)} positions, which are not those of whole frames of {size} pixels ({grid**2} "
            f'each); write the size of the images into a config.json beside the file: {{"img_size": …}}'
        )
    return grid


def separate_positions(arrays: Arrays, key: str, token: str | None, grid: int, width: int) -> Arrays:
    """The arrays with the class token's position added to that token, and the others under LEARNED unless they are the
    fixed ones.
    """
    table = np.asarray(arrays[key], np.float32).reshape(-1, width)
    arrays = {name: x for name, x in arrays.items() if name != key}
    if token and len(table) > grid**2:
        arrays[token] = np.asarray(arrays[token], np.float32).reshape(width) + table[0]
        table = table[1:]
    table = table[: grid**2]
    return arrays if _is_fixed(table, grid) else arrays | {LEARNED: table}


def _is_fixed(table: np.ndarray, grid: int) -> bool:
    return np.allclose(table, sincos_2d(grid, grid, table.shape[1]), atol=1e-6)


def is_computed(table: np.ndarray) -> bool:
    """Whether position embeddings are sin-cos ones with rows before columns, as in facebookresearch/moco-v3; files of
    that code do not always state it.
    """
    grid, width = math.isqrt(len(table)), table.shape[1]
    if grid**2 != len(table) or width % 4:
        return False
    return np.allclose(table, sincos_2d_rows(grid, grid, width), atol=1e-6)


def resized_positions(arrays: Arrays, grid: int, antialias: bool) -> Arrays:
    """The arrays for another grid; fixed positions are computed and need nothing."""
    if LEARNED not in arrays:
        return arrays
    old = math.isqrt(len(arrays[LEARNED]))
    return arrays | {LEARNED: resample_positions(arrays[LEARNED], (old, old), (grid, grid), antialias)}


def without_fixed_positions(arrays: Arrays, key: str, grid: int, width: int) -> Arrays:
    """The arrays without the positions of a decoder.

    Raises:
      UserError: positions that are not the fixed ones.
    """
    if not _is_fixed(np.asarray(arrays[key], np.float32).reshape(-1, width)[-(grid**2) :], grid):
        raise UserError(f"{key}: must be the fixed sin-cos embedding that the decoder has here; take the encoder alone")
    return {name: x for name, x in arrays.items() if name != key}
