"""Fields that may be meant by an unknown name."""

import difflib
from collections.abc import Collection

# Names that other libraries use for a field, to the fields that may be meant.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "lr": ("base_lr",),
    "learning_rate": ("base_lr",),
    "wd": ("weight_decay",),
    "betas": ("beta1", "beta2"),
    "warmup_steps": ("warmup",),
    "grad_clip": ("clip_norm",),
    "clip_grad": ("clip_norm",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "global_batch_size": ("batch_size",),
    "train_batch_size": ("batch_size",),
    "epochs": ("epochs", "steps"),
    "num_steps": ("steps",),
    "max_steps": ("steps",),
    "grad_accum": ("accumulate",),
    "gradient_accumulation": ("accumulate",),
    "embed_dim": ("width",),
    "hidden_size": ("width",),
    "dim": ("width",),
    "layers": ("depth",),
    "num_layers": ("depth",),
    "num_heads": ("heads",),
    "mlp_dim": ("mlp",),
    "img_size": ("image_size",),
    "resolution": ("image_size",),
    "input_size": ("image_size",),
    "channels": ("bands",),
    "in_chans": ("bands",),
    "dataset": ("source",),
    "num_workers": ("workers", "threads"),
    "precision": ("dtype",),
    "ema": ("ema_decay",),
}
_NEAR = 4  # fields named at most


def near_fields(asked: str, paths: Collection[str]) -> list[str]:
    """Paths that may be meant by `asked`, the likeliest first: the same name elsewhere, fields known by that name in
    other libraries, names with a similar spelling or that contain it.
    """
    leaf = asked.rpartition(".")[2]
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_name.setdefault(path.rpartition(".")[2], []).append(path)
    names = [leaf] if leaf in by_name else [name for name in SYNONYMS.get(leaf, ()) if name in by_name]
    if not names:
        close = difflib.get_close_matches(leaf, by_name, n=_NEAR, cutoff=0.7)
        within = [name for name in by_name if len(leaf) > 2 and leaf in name.split("_")]
        names = list(dict.fromkeys([*close, *within]))
    place = asked.rpartition(".")[0]
    found = [path for name in names for path in by_name[name]]
    return sorted(found, key=lambda path: path.rpartition(".")[0] != place)[:_NEAR]
