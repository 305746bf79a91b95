"""Activations in training: what the backward pass keeps, in 1 to 8 bits."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from lit_gnncompress.storage.activation_codes import GroupCodes, Layout, PackedMask, flatten
from lit_gnncompress.storage.node_rows import NodeRows
from lit_gnncompress.storage.tensor_types import VirtualTensor

SMOOTH_BITS = 8
"""The least bits for operations whose gradient is not linear in what they keep."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_SIGN = 0  # in the place of bits: one bit, whether a value is positive

# What a backward pass does with the values that it kept decides how few bits they may have.
# An operation that is named nowhere keeps its values: it may divide by them (sqrt, log, norm), or
# look for the one that was the maximum.
_LINEAR = {
    "linear", "bilinear", "matmul", "rmatmul", "imatmul", "mm", "bmm", "mv", "dot", "inner",
    "outer", "ger", "vdot", "tensordot", "einsum", "addmm", "addmv", "addr", "addbmm",
    "baddbmm", "kron", "sparse_mm", "sparse_addmm", "spmm", "mul", "multiply", "rmul", "imul",
    "addcmul", "lerp", "square", "exp", "var", "mse_loss", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "native_dropout",
    "aggregate", "edge_dot",
}  # fmt: skip
_SMOOTH = {
    "sigmoid", "tanh", "softmax", "log_softmax", "cross_entropy", "nll_loss",
    "binary_cross_entropy_with_logits", "elu", "selu", "celu", "gelu", "silu", "mish",
    "softplus", "logsigmoid", "sin", "cos", "erf", "batch_norm", "layer_norm", "group_norm",
    "instance_norm", "rms_norm",
}  # fmt: skip
_BY_SIGN = {"relu", "leaky_relu"}
_LINEAR_IN_FIRST = {"div", "divide", "true_divide", "attention_aggregate"}


def keep_whole(tensor: Tensor) -> Tensor:
    """Marks a tensor that outlives the training step: compressing it would free nothing.

    Args:
        tensor: For instance static features. The mark is on this object and its views.

    Returns:
        The same tensor.
    """
    tensor._outlives_step = True  # type: ignore[attr-defined]
    return tensor


class ActivationCompressor:
    """Keeps what autograd saves in 1 to 8 bits, unpacked when the backward pass asks for it.

    The idea is EXACT's (Liu et al., ICLR 2022, https://openreview.net/forum?id=vkaMaq95_rX):
    values are rounded stochastically, so that gradients are right on average (where they multiply a
    kept value with itself, up to the variance of its rounding). What is kept depends on the
    operation that keeps it:

    - products, sums of products, dropout, ``exp``, whose gradients are linear in what they keep:
      ``bits``;
    - ``relu`` and ``leaky_relu``: one bit, the sign, which is all they need;
    - ``elu``, ``softmax``, norms and other smooth functions: 8 bits, as an average over codes
      is not the gradient at the average;
    - masks, bool or floating point with the values 0 and one other (dropout): one bit, exact;
    - all other operations, autograd functions of other packages and compiled graphs: unchanged.

    Parameters, buffers, inputs, integers, sparse tensors, subclasses, tensors that are small or
    not finite, and those marked by :func:`keep_whole` stay as they are. What several operations
    save of the same tensor is packed once. 256 adjacent values share a range, whatever the shape:
    a range for each row would cost 2 bits a value where rows have 32. A range that starts or ends
    at zero has an exact code for it.

    Args:
        bits: Bits of a value, 1 to 8.
        min_elements: Tensors with fewer elements stay as they are.

    Attributes:
        kept_bytes: Bytes kept since :meth:`reset`: codes, ranges, and what stayed as it is. Neither
            this nor the next counts parameters, inputs and integers.
        full_bytes: Bytes that would have been kept without.

    Raises:
        ValueError: Bits outside 1 to 8, or a negative size.

    Example:
        >>> compressor = ActivationCompressor(bits=4)
        >>> layer, x = torch.nn.Linear(64, 64), torch.rand(1000, 64)
        >>> with compressor.forward(layer.parameters(), seed=(0,)):
        ...     loss = layer(x.sigmoid()).sum()
        >>> loss.backward()
        >>> compressor.full_bytes, compressor.kept_bytes
        (256000, 34000)
    """

    def __init__(self, bits: int = 4, min_elements: int = 4096) -> None:
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
            raise ValueError(f"bits={bits!r}: activations are kept in 1 to 8 bits.")
        if min_elements < 0:
            raise ValueError(f"min_elements={min_elements} must be 0 or more.")
        self.bits = bits
        self.min_elements = min_elements
        self.reset()

    def reset(self) -> None:
        """Begins to count anew."""
        self.kept_bytes = self.full_bytes = 0

    @contextmanager
    def forward(
        self,
        parameters: Iterable[Tensor] = (),
        inputs: Iterable[Tensor] = (),
        seed: Sequence[int] = (0,),
    ) -> Iterator[None]:
        """Compresses what is saved inside; the backward pass may run inside or later.

        Args:
            parameters: Parameters and buffers, which stay as they are, and so do their views.
            inputs: Other tensors that stay as they are, by storage.
            seed: Numbers that tell this forward pass from others: the same rounding for the same.
        """
        forward = _Forward(self, _storages(parameters), _storages(inputs), tuple(seed))
        with saved_tensors_hooks(forward.pack, _unpack), forward.calls:
            yield


class _Forward:
    """One forward pass: what has been saved in it so far."""

    def __init__(
        self,
        compressor: ActivationCompressor,
        parameters: set[int],
        inputs: set[int],
        seed: tuple[int, ...],
    ) -> None:
        self.calls = _Calls()
        self._compressor = compressor
        self._parameters = parameters
        self._outliving = parameters | inputs
        self._seed = seed
        self._count = 0
        self._forms: weakref.WeakValueDictionary[tuple, PackedMask | GroupCodes] = (
            weakref.WeakValueDictionary()
        )
        # Weak references keep the identity of a storage from being used again, not its memory.
        self._seen: dict[int, StorageWeakRef] = {}
        self._whole: dict[int, StorageWeakRef] = {}

    def pack(self, tensor: Tensor) -> _Saved:
        """What autograd keeps in the place of ``tensor``."""
        if type(tensor) is NodeRows:
            tensor = tensor.detach()  # plain
        if not _is_value(tensor) or self._outlives(tensor):
            return _Whole.of(tensor)
        with torch.no_grad():
            storage = tensor.untyped_storage()
            self._count_full(storage)
            saved = self._compress(tensor, storage._cdata)
        if saved is not None:
            return saved
        if storage._cdata not in self._whole:
            self._whole[storage._cdata] = StorageWeakRef(storage)
            self._compressor.kept_bytes += storage.nbytes()
        return _Whole.of(tensor)

    def _outlives(self, tensor: Tensor) -> bool:
        base = tensor if tensor._base is None else tensor._base
        return (
            tensor.untyped_storage()._cdata in self._outliving
            or getattr(base, "_outlives_step", False)
            or self._is_cast_parameter(tensor)
        )

    def _is_cast_parameter(self, tensor: Tensor) -> bool:
        """Whether this is a parameter in half precision, which autocast keeps, too."""
        if tensor.dtype not in (torch.float16, torch.bfloat16) or self.calls.latest is None:
            return False
        return any(
            isinstance(argument, Tensor)
            and argument.dtype != tensor.dtype
            and sorted(argument.shape) == sorted(tensor.shape)
            and argument.layout == torch.strided
            and argument.untyped_storage()._cdata in self._parameters
            for argument in self.calls.latest.args
        )

    def _count_full(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = StorageWeakRef(storage)
            self._compressor.full_bytes += storage.nbytes()

    def _compress(self, tensor: Tensor, identity: int) -> _Compressed | None:
        """The tensor in few bits; ``None`` where it must stay as it is."""
        is_mask = tensor.dtype == torch.bool
        bits = 1 if is_mask else self.calls.bits_for(tensor, self._compressor.bits)
        if bits is None:
            return None
        flat, layout = flatten(tensor.detach())
        if flat.numel() < max(self._compressor.min_elements, 1):
            return None
        geometry = (tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        key = (identity, tensor._version, *geometry, bits)
        form = self._forms.get(key)
        if form is None:
            if is_mask:
                form = PackedMask.of(flat)
            elif bits == _SIGN:
                form = PackedMask.of_sign(flat)
            else:
                form = GroupCodes.of(flat, bits, self._next_seed)
            if form is None:
                return None
            self._forms[key] = form
            self._compressor.kept_bytes += form.nbytes
        return _Compressed(form, layout)

    def _next_seed(self) -> int:
        """A seed of its own for each tensor, by its place in the forward pass."""
        self._count += 1
        text = repr((*self._seed, self._count)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


# --- which operation saves ------------------------------------------------------------------------


_ORDINARY = {Tensor, torch.nn.Parameter}
_OWN = (VirtualTensor, NodeRows)


class _Call(NamedTuple):
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class _Calls(TorchFunctionMode):
    """Knows the operation that runs, which autograd does not tell its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.latest: _Call | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        before, self.latest = self.latest, None
        try:
            enabled = torch._C._is_torch_function_enabled()  # False where a subclass is at work
            own = [kind for kind in types if issubclass(kind, _OWN)]
            if own and enabled:  # what it does instead is known in turn
                own.sort(key=lambda kind: issubclass(kind, NodeRows))  # these leave it to others
                with self:
                    return own[0].__torch_function__(func, types, args, kwargs)
            if own or _ORDINARY.issuperset(types):  # others may do anything under a name
                name = getattr(func, "__name__", "").partition(".")[0].strip("_")
                self.latest = _Call(name, args, kwargs)
            return func(*args, **kwargs)
        finally:
            self.latest = before

    def bits_for(self, tensor: Tensor, bits: int) -> int | None:
        """Bits for a tensor that the latest operation saves; ``None`` where it needs all."""
        if self.latest is None:
            return None
        name, args, kwargs = self.latest
        if name in _BY_SIGN:
            return _SIGN
        if name in _SMOOTH:
            return max(bits, SMOOTH_BITS)
        if name in _LINEAR:
            return None if name == "aggregate" and _is_maximum(args) else bits
        if name in _LINEAR_IN_FIRST:
            first, *others = (_identity(arg) for arg in (*args, *kwargs.values()))
            identity = _identity(tensor)
            return bits if identity == first and identity not in others else None
        return None


def _is_maximum(args: tuple[Any, ...]) -> bool:
    return any(isinstance(argument, str) and argument == "max" for argument in args)


def _identity(value: Any) -> int | None:
    """What two tensors on the same memory have in common."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return None
    return None if isinstance(value, VirtualTensor) else value.untyped_storage()._cdata


def _storages(tensors: Iterable[Tensor]) -> set[int]:
    return {identity for identity in map(_identity, tensors) if identity is not None}


def _is_value(tensor: Tensor) -> bool:
    """Whether there is something to compress: ordinary floats or bools."""
    return (
        type(tensor) is Tensor
        and tensor.layout == torch.strided
        and (tensor.dtype in _FLOATS or tensor.dtype == torch.bool)
        and tensor.device.type in ("cpu", "cuda")
        and not tensor.is_inference()  # made before the step
        and not torch.compiler.is_compiling()
    )


# --- what is kept ---------------------------------------------------------------------------------


class _Whole(NamedTuple):
    """A tensor as it is."""

    tensor: Tensor
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Whole:
        version = _version(tensor)
        # With its history a result would hold the node that saves it, for ever.
        return cls(tensor if tensor.grad_fn is None else tensor.detach(), version)

    def restore(self) -> Tensor:
        version = _version(self.tensor)
        if version != self.version:  # autograd does not look where there are hooks
            raise RuntimeError(
                f"A tensor of shape {tuple(self.tensor.shape)} that the backward pass needs was "
                f"modified by an in-place operation: it is at version {version}, and was saved at "
                f"version {self.version}. Replace that operation by one that is not in place."
            )
        return self.tensor


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; those of inference mode, which stay, do not count."""
    return 0 if tensor.is_inference() else tensor._version


class _Compressed(NamedTuple):
    """A tensor in few bits."""

    form: PackedMask | GroupCodes
    layout: Layout

    def restore(self) -> Tensor:
        with torch.no_grad():
            return self.layout.restore(self.form.restore())


_Saved = _Whole | _Compressed


def _unpack(saved: _Saved) -> Tensor:
    return saved.restore()
