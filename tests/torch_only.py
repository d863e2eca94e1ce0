"""torch and the published models, for tests that compare with them and skip where they are absent."""

import contextlib
import importlib
from typing import Any

import pytest

_OPERATORS: list[Any] = []  # a library lives as long as someone holds it


def needs(*packages: str) -> Any:
    """torch, provided that these are installed too; skips the module otherwise."""
    reason = "needs torch and the published models: make test-parity"
    torch = pytest.importorskip("torch", reason=reason)
    declare_operators()
    for package in packages:
        pytest.importorskip(package, reason=reason)
        if package == "terratorch":
            with contextlib.suppress(ImportError):
                importlib.import_module("terratorch.models.backbones.clay_v15.model")
    # That module of terratorch lets torch compute products of float32 in bfloat16, which some processors then do.
    torch.set_float32_matmul_precision("highest")
    return torch


def declare_operators() -> None:
    """torchvision beside a torch without CUDA has no operators, and fails at import for lack of their schemas."""
    import torch

    if _OPERATORS:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)
