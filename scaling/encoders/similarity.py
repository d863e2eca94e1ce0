"""Similarity of the layers of an encoder on unlabelled images, in memory independent of their number.

Linear CKA (Kornblith et al., 1905.00414) of two states is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), K and L being the
Gram matrices of their rows. `debiased` and `biased` average the three terms over batches before the ratio is taken
(Nguyen et al., 2010.15327): the unbiased HSIC of Song et al. (2012), which does not depend on the size of the batches,
or that with centred matrices. `exact` is the ratio for all rows at once, from the covariances of every pair of states,
which take more than twice the operations of a ViT's forward pass.
"""

import dataclasses
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.encoder import Encoder
from scaling.models.activations import layer_tokens
from scaling.models.config import ViTConfig
from scaling.parallel.batches import mesh_that_splits, split_batch, whole
from scaling.parallel.mesh import replicated
from scaling.slimming.depth import States

log = logging.getLogger(__name__)

TOKENS = ("all", "mean", "cls")
MINIBATCH = ("debiased", "biased")
ESTIMATORS = (*MINIBATCH, "exact")

_ROWS = 1024  # approximate rows of a batch: its Gram matrices are cheap beside the forward pass
_POOLED = 128  # images per batch if tokens are pooled
_LEAST = 4  # fewest rows for an unbiased HSIC
_EXACT = jax.lax.Precision.HIGHEST

Params = tuple[Any, ...]
Configs = tuple[ViTConfig, ...]


def images_at_once(encoders: Sequence[Encoder], tokens: str) -> int:
    """Images per batch: about a thousand rows."""
    if tokens != "all":
        return _POOLED
    return max(1, _ROWS // max(encoder.config.tokens for encoder in encoders))


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Similarities of all pairs of states on batches of images; states of several encoders are concatenated.

    Attributes:
      hsic: HSIC by minibatch estimator, float64 [batches, S, S].
      cosine, angle: averages over the tokens of one encoder, float64 [batches, L + 1, L + 1]; None for several
        encoders.
      images: images per batch.
    """

    hsic: dict[str, np.ndarray]
    cosine: np.ndarray | None
    angle: np.ndarray | None
    images: int

    @property
    def batches(self) -> int:
        return len(self.hsic["debiased"])

    def some(self, batches: Sequence[int] | np.ndarray) -> "Similarity":
        """The similarities on a selection of the batches."""
        hsic = {name: x[batches] for name, x in self.hsic.items()}
        cosine, angle = (None if x is None else x[batches] for x in (self.cosine, self.angle))
        return Similarity(hsic, cosine, angle, self.images)

    def cka(self, estimator: str = "debiased") -> np.ndarray:
        """CKA of all pairs of states, [S, S]; see `ratio`."""
        return ratio(self.hsic[estimator].mean(0))

    def states(self, estimator: str = "debiased") -> States:
        """Similarities of the states of a single encoder."""
        assert self.cosine is not None
        assert self.angle is not None
        return States(self.cka(estimator), self.cosine.mean(0), self.angle.mean(0))


def ratio(hsic: np.ndarray) -> np.ndarray:
    """CKA [S, S] from HSIC of all pairs; NaN for a state whose rows are equal or, by the unbiased estimate, vary no
    more than by chance, such as the class token before the first block.
    """
    own = np.where(np.diagonal(hsic) > 0, np.diagonal(hsic), np.nan)
    return hsic / np.sqrt(np.outer(own, own))


def measure(encoders: Sequence[Encoder], images: Iterable[Sequence[np.ndarray]], tokens: str = "all") -> Similarity:
    """Compares all states of one encoder, or of several encoders on the same images.

    Args:
      encoders: the encoders; they must have equally many tokens if `all` tokens are compared.
      images: parts of a set as each encoder takes them, normalised [n, h, w, C]; they are processed in batches of
        `images_at_once`, and an incomplete last batch is dropped unless it is the only one.
      tokens: rows are `all` tokens, the `mean` over the patches of an image, or its `cls` token.

    Raises:
      UserError: tokens that an encoder does not have, encoders that do not fit each other, or too few images.
    """
    said, size = _Batches(encoders, tokens), images_at_once(encoders, tokens)
    for batch in _batches(images, size):
        said.add(batch)
    return said.similarity(size)


def measure_each(
    encoders: Sequence[Encoder], images: Iterable[Sequence[np.ndarray]], tokens: str = "all"
) -> list[Similarity]:
    """`measure` for each of several encoders separately, on the same images, which are read once.

    images: parts of a set [n, h, w, C], each in a sequence of one.
    """
    said, size = [_Batches([encoder], tokens) for encoder in encoders], images_at_once(encoders, tokens)
    for batch in _batches(images, size):
        for one in said:
            one.add(batch)
    return [one.similarity(size) for one in said]


class _Batches:
    """Accumulates the similarities of encoders over batches of one size; see `measure`."""

    def __init__(self, encoders: Sequence[Encoder], tokens: str):
        _check(encoders, tokens)
        self._encoders, self._tokens = encoders, tokens
        self._configs = tuple(encoder.config for encoder in encoders)
        self._params: Params = ()
        self._found: list[Any] = []

    def add(self, batch: Sequence[np.ndarray]) -> None:
        """Images [n, h, w, C] as each encoder takes them."""
        count = len(batch[0])
        rows = count * (self._configs[0].tokens if self._tokens == "all" else 1)
        if rows < _LEAST:
            raise UserError(f"{count} images have {rows} rows to compare; at least {_LEAST} are needed")
        for encoder, x in zip(self._encoders, batch, strict=True):
            encoder.check(x)
        mesh = mesh_that_splits(count)
        self._params = self._params or jax.device_put(tuple(e.params for e in self._encoders), replicated(mesh))
        part = _compared(self._params, tuple(split_batch(x, mesh) for x in batch), self._configs, self._tokens)
        self._found.append(jax.tree.map(lambda x: np.asarray(whole(x), np.float64), part))

    def similarity(self, images: int) -> Similarity:
        """The similarities; `images` is the number per batch."""
        if not self._found:
            raise UserError("there are no images to compare layers on; give a few hundred")
        stacked: dict[str, Any] = jax.tree.map(lambda *x: np.stack(x), *self._found)
        if not all(np.isfinite(x).all() for x in stacked.values()):
            raise UserError(
                "some states are not finite on these images, or too large for products in float32, so that no "
                "similarity is defined; give other images, or another checkpoint"
            )
        hsic = {name: stacked[name] for name in MINIBATCH}
        return Similarity(hsic, stacked.get("cosine"), stacked.get("angle"), images)


def _check(encoders: Sequence[Encoder], tokens: str) -> None:
    if tokens not in TOKENS:
        raise UserError(f"tokens={tokens!r}: must be one of {', '.join(TOKENS)}")
    for encoder in encoders:
        if tokens != "all":
            encoder.check_pool(tokens)
    if tokens == "all" and len({encoder.config.tokens for encoder in encoders}) > 1:
        raise UserError("tokens='all': the encoders have different numbers of tokens; set tokens='mean'")


def _batches(parts: Iterable[Sequence[np.ndarray]], size: int) -> Iterator[list[np.ndarray]]:
    """Batches of one size, float32, for each encoder; a single smaller batch if there are fewer images."""
    waiting: list[np.ndarray] = []
    seen = 0
    for part in parts:
        new = [np.asarray(x, np.float32) for x in part]
        waiting = [np.concatenate(pair) for pair in zip(waiting, new, strict=True)] if waiting else new
        while len(waiting[0]) >= size:
            yield [x[:size] for x in waiting]
            waiting, seen = [x[size:] for x in waiting], seen + size
    if waiting and len(waiting[0]) and not seen:
        yield waiting
    elif waiting and len(waiting[0]):
        log.warning("the last %d images do not fill a batch of %d and are left out", len(waiting[0]), size)


def _states(p: Any, images: jax.Array, c: ViTConfig, tokens: str) -> jax.Array:
    """Rows of all states, float32 [L + 1, n, D]."""
    x = layer_tokens(p, images, c, tuple(range(c.depth + 1))).astype(jnp.float32)
    if tokens == "mean":
        return x[:, :, c.prefix :].mean(2)
    return x[:, :, 0] if tokens == "cls" else x.reshape(len(x), -1, x.shape[-1])


@functools.partial(jax.jit, static_argnums=(2, 3))
def _compared(params: Params, images: Params, configs: Configs, tokens: str) -> dict[str, jax.Array]:
    """Similarities on one batch; see `Similarity`."""
    states = [_states(p, x, c, tokens) for p, x, c in zip(params, images, configs, strict=True)]
    centred = [_centred(x) for x in states]
    grams = jnp.concatenate([jnp.einsum("snd,smd->snm", x, x, precision=_EXACT) for x in centred])
    found = {"biased": _pairs(grams) / (grams.shape[1] - 1) ** 2, "debiased": _unbiased(grams)}
    if len(states) == 1:
        found |= _angles(states[0])
    return found


def _centred(x: jax.Array) -> jax.Array:
    """Rows [S, n, D] minus their mean; zero for states whose rows are equal up to rounding."""
    centred = x - x.mean(1, keepdims=True)
    varies = jnp.square(centred).mean((1, 2)) > 1e-12 * jnp.square(x).mean((1, 2))
    return jnp.where(varies[:, None, None], centred, 0)


def _pairs(grams: jax.Array) -> jax.Array:
    """Sums of the products of all pairs of matrices [S, n, n] -> [S, S]."""
    flat = grams.reshape(len(grams), -1)
    return jnp.einsum("sn,tn->st", flat, flat, precision=_EXACT)


def _unbiased(grams: jax.Array) -> jax.Array:
    """HSIC_1 of all pairs (Song et al., 2012): inner products of U-centred matrices over n (n - 3)."""
    n = grams.shape[1]
    hollow = grams * (1 - jnp.eye(n))
    rows = hollow.sum(2)
    total = rows.sum(1)[:, None, None] / ((n - 1) * (n - 2))
    centred = hollow - (rows[:, :, None] + rows[:, None]) / (n - 2) + total
    return _pairs(centred * (1 - jnp.eye(n))) / (n * (n - 3))


def _angles(x: jax.Array) -> dict[str, jax.Array]:
    """The cosine and the angle over pi between the rows of all pairs of states, averaged. [S, n, D] -> [S, S]."""
    unit = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-30)
    cosines = jnp.einsum("snd,tnd->stn", unit, unit, precision=_EXACT).clip(-1, 1)
    return {"cosine": cosines.mean(2), "angle": jnp.arccos(cosines).mean(2) / jnp.pi}


class Covariances:
    """`exact`: CKA and CCA of all rows at once, from the covariances of all pairs of states, float64 on the host.

    They take 8 (S D)^2 bytes for S states of width D.

    Args:
      encoder: the encoder whose states are compared.
      tokens: see `measure`.
    """

    def __init__(self, encoder: Encoder, tokens: str = "all"):
        _check([encoder], tokens)
        self._encoder, self._tokens = encoder, tokens
        self._shift: np.ndarray | None = None
        self._products: Any = 0.0
        self._sums: Any = 0.0
        self._rows = 0

    def add(self, images: np.ndarray) -> None:
        """Adds normalised images [n, h, w, C]."""
        e = self._encoder
        x = np.asarray(_rows_of(e.replicated, jnp.asarray(images, jnp.float32), e.config, self._tokens), np.float64)
        if not np.isfinite(x).all():
            raise UserError("some states are not finite on these images; give other images, or another checkpoint")
        flat = x.transpose(1, 0, 2).reshape(x.shape[1], -1)
        if self._shift is None:
            self._shift = flat.mean(0)  # near the overall mean, which keeps the sums small
        flat = flat - self._shift
        self._products = self._products + flat.T @ flat
        self._sums = self._sums + flat.sum(0)
        self._rows += len(flat)

    @property
    def _blocks(self) -> np.ndarray:
        """Covariances [S, D, S, D], times the number of rows."""
        if self._rows < 2:
            raise UserError("there are no rows to compare layers on; give a few hundred images")
        states = self._encoder.config.depth + 1
        centred = self._products - np.outer(self._sums, self._sums) / self._rows
        return centred.reshape(states, -1, states, len(centred) // states)

    def cka(self) -> np.ndarray:
        """[L + 1, L + 1]."""
        return ratio(np.square(self._blocks).sum((1, 3)))

    def cca(self, ridge: float = 1e-6) -> np.ndarray:
        """Mean squared canonical correlation [L + 1, L + 1].

        ridge: added to the variances, relative to their mean, for states with directions that do not vary.
        """
        blocks = self._blocks
        white = []
        for i in range(len(blocks)):
            own = blocks[i, :, i]
            values, vectors = np.linalg.eigh(own + ridge * np.trace(own) / len(own) * np.eye(len(own)))
            white.append((vectors / np.sqrt(values)) @ vectors.T)
        found = [[np.square(w @ blocks[i, :, j] @ v).sum() for j, v in enumerate(white)] for i, w in enumerate(white)]
        return np.asarray(found) / blocks.shape[1]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _rows_of(p: Any, images: jax.Array, c: ViTConfig, tokens: str) -> jax.Array:
    return _states(p, images, c, tokens)
