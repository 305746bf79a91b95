"""What the package's tensor subclasses share: a table of operations, and a way out for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Handler = Callable[..., Any]


def getter(name: str) -> Callable[..., Any]:
    """What a property of tensors is to ``__torch_function__``."""
    return getattr(Tensor, name).__get__


_PROPERTIES = (
    "shape",
    "dtype",
    "device",
    "layout",
    "ndim",
    "is_cuda",
    "is_cpu",
    "is_sparse",
    "is_sparse_csr",
    "is_quantized",
    "is_meta",
    "is_nested",
    "itemsize",
    "_version",
    "is_leaf",
    "grad_fn",
)
_METADATA = {
    *map(getter, _PROPERTIES),
    Tensor.size,
    Tensor.dim,
    Tensor.ndimension,
    Tensor.numel,
    Tensor.nelement,
    Tensor.__len__,
    Tensor.is_floating_point,
    torch.is_floating_point,
    Tensor.is_complex,
    torch.is_complex,
    Tensor.is_inference,
    Tensor.is_shared,
    Tensor.element_size,
    Tensor.get_device,
    torch.numel,
}


class VirtualTensor(torch.Tensor):
    """A matrix whose entries exist only when somebody asks for them.

    Subclasses handle the operations that they can do better, with :func:`handles`, and inherit
    what their parents handle; any other operation gets the matrix as :meth:`materialize` makes it.
    """

    handlers: ClassVar[dict[Callable[..., Any], Handler]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.handlers = {}

    @staticmethod
    def __new__(cls, shape: Iterable[int], device: torch.device, *_: Any, **__: Any) -> Any:
        """An empty shell of ``shape``."""
        return torch.Tensor._make_wrapper_subclass(
            cls, torch.Size(shape), dtype=torch.float32, device=device
        )

    def materialize(self) -> Tensor:
        """All entries, as an ordinary fp32 tensor."""
        raise NotImplementedError

    def before_materializing(self, name: str) -> None:
        """Called with the name of an operation that has no handler."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        handler = _handler_of(cls, func)
        if handler is not None:
            result = handler(*args, **kwargs)
            if result is not NotImplemented:
                return result

        def materialized(value: Any) -> Any:
            if not isinstance(value, cls):
                return value
            value.before_materializing(_name_of(func))
            return value.materialize()

        return func(*tree_map(materialized, args), **tree_map(materialized, dict(kwargs)))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        # What comes past __torch_function__, from C++.
        def materialized(value: Any) -> Any:
            return value.materialize() if isinstance(value, VirtualTensor) else value

        return func(*tree_map(materialized, args), **tree_map(materialized, dict(kwargs or {})))


def _name_of(func: Callable[..., Any]) -> str:
    """What users call a function, or the property that it gets."""
    name = getattr(func, "__name__", str(func))
    return func.__self__.__name__ if name == "__get__" else name  # type: ignore[attr-defined]


def _handler_of(cls: type[VirtualTensor], func: Callable[..., Any]) -> Handler | None:
    for each in cls.__mro__:
        if issubclass(each, VirtualTensor) and func in each.handlers:
            return each.handlers[func]
    return None


def handles(cls: type[Any], *functions: Callable[..., Any]) -> Callable[[Handler], Handler]:
    """Makes a function the handler of torch ``functions`` for a subclass of tensors.

    It may return ``NotImplemented`` for arguments that it cannot serve.
    """

    def add(handler: Handler) -> Handler:
        for function in functions:
            cls.handlers[function] = handler
        return handler

    return add
