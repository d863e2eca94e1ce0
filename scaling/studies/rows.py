"""Makes the rows of measurements: of encoders, of pretraining runs, and of the scores of a probe."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling.compute import counting
from scaling.compute.counting import encoder_cost
from scaling.core.config import config_dict
from scaling.core.rows import Row, config_hash
from scaling.encoders.encoder import Encoder
from scaling.encoders.splits import Split
from scaling.evaluation.outcomes import labels_row, outcomes_of
from scaling.evaluation.scores import Predictions
from scaling.objectives import title
from scaling.tasks.base import Scores
from scaling.training.config import FinetuneConfig, TrainConfig

Cost = tuple[int, int, dict[str, float]]  # parameters, operations, and these relative to the whole by convention


def encoder_row(cost: Cost, **fields: Any) -> Row:
    """The row of an encoder before anything is measured on it.

    Args:
      cost: cost from `scaling.compute.counting.encoder_cost`.
      fields: the other fields, except those of the measurement.
    """
    params, flops, relative = cost
    compute, published = relative["full"], relative["published"]
    unmeasured: dict[str, Any] = {"probe": "", "metric": "", "value": None}
    return Row(params=params, flops=flops, compute=compute, compute_published=published, **(unmeasured | fields))


def score_rows(row: Row, predictions: Scores, **fields: Any) -> list[Row]:
    """The rows of all scores of a probe, each with its interval and outcomes, and one row with the classes of the
    test images; `fields` are added to those of `row`.
    """
    row, intervals = dataclasses.replace(row, **fields), predictions.intervals()
    outcomes = outcomes_of(predictions)
    scores = [
        dataclasses.replace(
            row, metric=name, value=score, low=intervals[name][0], high=intervals[name][1], outcomes=outcomes
        )
        for name, score in predictions.scores().items()
    ]
    return (labels_row(row, predictions.truth) if isinstance(predictions, Predictions) else []) + scores


def states_row(encoder: Encoder, name: str, source: Split, settings: Mapping[str, Any], **fields: Any) -> Row:
    """The row of an encoder before its states are compared.

    Args:
      encoder: the encoder, possibly cut.
      name: name of the model.
      source: the images on which states are compared.
      settings: other settings of the measurement.
      fields: `study` and `probe`.
    """
    about: dict[str, Any] = {"width_ratio": 1.0, "depth_ratio": 1.0, "mode": "", "ordering": "", "recovery": ""}
    about |= encoder.cut_fields(1.0, "", "first", "none") if encoder.cuts else {}
    about |= {"dataset": source.source, "split": source.split, **fields}
    whole = dataclasses.replace(encoder.architecture, config=encoder.train.model)
    return encoder_row(encoder_cost(whole, encoder.config), **(about | encoder.row_fields(name, settings)))


def pair_rows(row: Row, metric: str, matrix: np.ndarray, two: bool = False) -> list[Row]:
    """The rows of a measure of all pairs of states, `METRIC/i/j`: [S, S] for one encoder, each pair once, or [S, T]
    for `two`.
    """
    pairs = [(i, j) for i, j in np.ndindex(*matrix.shape) if j > i or two]
    values = {pair: None if np.isnan(matrix[pair]) else float(matrix[pair]) for pair in pairs}
    return [dataclasses.replace(row, metric=f"{metric}/{i}/{j}", value=values[i, j]) for i, j in pairs]


# Fields in which the fine-tuned model may differ from the checkpoint's, in whole and cut encoders alike.
_TAKEN = (
    *("image_size", "image_width", "window", "global_blocks", "window_padding", "relative"),
    *("class_token", "registers"),
)


def finetuned_rows(
    name: str, c: FinetuneConfig, encoder: Encoder, predictions: Scores, cost: Cost | None = None, **fields: Any
) -> list[Row]:
    """The rows of a fine-tuned encoder.

    Args:
      name: name of the model.
      c: the recipe as it was run.
      encoder: the initial encoder, cut by the recipe.
      predictions: predictions for the test split.
      cost: see `encoder_row`; by default that of the encoder at the size of the recipe's images.
      fields: fields whose values differ from those of a stand-alone fine-tuning.
    """
    taken = {field: getattr(c.model, field) for field in _TAKEN}
    whole = dataclasses.replace(encoder.architecture, config=dataclasses.replace(encoder.train.model, **taken))
    settings = {field: value for field, value in dataclasses.asdict(c).items() if field != "encoder"}
    of_all: dict[str, Any] = {"study": "finetune", "dataset": c.data.source, "split": c.test_split}
    cut = encoder.cut_fields(c.width_ratio, c.mode, c.ordering, c.recovery)
    of_all |= {"probe": "finetune", "seed": c.seed, **cut, **encoder.row_fields(name, settings)}
    cost = cost or encoder_cost(whole, dataclasses.replace(encoder.config, **taken))
    return score_rows(encoder_row(cost, **(of_all | fields)), predictions)


def pretraining_row(study: str, name: str, c: TrainConfig) -> Row:
    """The row of a run before anything is measured."""
    shapes, names = c.objective.abstract(c.model)
    counts = counting.parameter_counts(names, shapes)
    image = counting.flops(names, shapes, c.objective.tokens(c.model, whole=True))["full"]["encoder"]
    seen, held_out = c.steps * c.batch_size, c.data.eval_split or c.data.eval_source or f"held out of {c.data.split}"
    more = _training_flops(names, shapes, c)
    return Row(
        study=study, model=name, objective=title(c.objective), params=counts["encoder"], flops=image, compute=1.0,
        compute_published=1.0, width_ratio=1.0, depth_ratio=1.0, mode="", ordering="", recovery="",
        dataset=c.data.source, split=held_out, probe="", metric="", value=None, seed=c.seed, step=c.steps,
        samples_seen=seen, embed=c.model.width, mlp=c.model.mlp, layers=c.model.depth, params_total=counts["total"],
        parametrization=c.parametrization.name, base_lr=c.optimizer.base_lr,
        config_hash=config_hash(config_dict(c).to_dict()), **more,
    )  # fmt: skip


def _training_flops(names: Any, shapes: Any, c: TrainConfig) -> dict[str, Any]:
    """Operations of the whole run, in total and for the encoder alone, in both conventions: fields of a row."""
    by, images = counting.step_flops(names, shapes, c.objective.tokens(c.model)), c.steps * c.batch_size
    fields = {}
    for convention, suffix in (("full", ""), ("published", "_published")):
        parts = by[convention]
        fields[f"train_flops{suffix}"] = images * sum(counting.components(parts).values())
        fields[f"train_flops_encoder{suffix}"] = images * parts["encoder"]
    return fields
