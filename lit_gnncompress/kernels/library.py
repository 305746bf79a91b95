"""Operations as torch knows them: a schema, a fake, an implementation for each device."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

from lit_gnncompress.needed import needed

NAMESPACE = "lit_gnncompress"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_FOLDERS = {"CPU": "cpu", "CUDA": "cuda"}
_PACKAGES = {"cpu": "numba", "cuda": "triton", "reference": "torch"}


def define(
    schema: str,
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
    folders: dict[str, str] | None = None,
) -> Any:
    """Registers an operation with ``torch.library``.

    The implementations are functions of the operation's name, in files of its name: numba's in
    ``kernels/cpu``, Triton's in ``kernels/cuda``, the plain one in ``kernels/reference``. They are
    imported when first called.

    Args:
        schema: ``"name(Tensor x, int bits) -> Tensor"``.
        fake: Gives empty results of the right shape and dtype, for ``torch.compile``.
        backward: Gradient formula, see ``torch.library.register_autograd``.
        setup_context: What it keeps of the forward pass.
        folders: Folder by dispatch key, where not the usual one: ``{"CUDA": "reference"}``.

    Returns:
        The operation.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    for key, folder in (_FOLDERS | (folders or {})).items():
        _LIBRARY.impl(name, _on_first_call(folder, name), key)
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(
            f"{NAMESPACE}::{name}", backward, setup_context=setup_context, lib=_LIBRARY
        )
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def _on_first_call(folder: str, name: str) -> Callable[..., Any]:
    implementation: Callable[..., Any] | None = None

    def run(*args: Any) -> Any:
        nonlocal implementation
        if implementation is None:
            with needed(_PACKAGES[folder], by=f"The kernel {name} for {folder}"):
                module = importlib.import_module(f"lit_gnncompress.kernels.{folder}.{name}")
            implementation = getattr(module, name)
        return implementation(*args)

    return run
