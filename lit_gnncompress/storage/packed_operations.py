"""What torch's operations do with a packed tensor; those not listed get it dequantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo import config as dynamo
from torch.utils.data import get_worker_info

from lit_gnncompress.storage.messages import EdgeRows, sparse_product
from lit_gnncompress.storage.node_rows import NodeRows, node_rows
from lit_gnncompress.storage.packed_tensor import PackedTensor
from lit_gnncompress.storage.scaled import Scaled, is_factor
from lit_gnncompress.storage.tensor_types import VirtualTensor, getter, handles

# A trace would take what becomes of node features for ordinary tensors. With a break of the graph
# where they are, they are what they are without a compiler.
dynamo.nontraceable_tensor_subclasses.add(NodeRows)


@handles(PackedTensor, F.linear)
def _linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not isinstance(x, PackedTensor):
        return NotImplemented
    out = x.linear(weight)
    again = partial(_product, x, weight, bias) if x.again is not None else None
    out = node_rows(out if bias is None else out + bias, again)
    return out if weight.dtype == torch.float32 else out.to(weight.dtype)


def _product(x: PackedTensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = x.linear(weight)
    return out if bias is None else out.add_(bias)


@handles(PackedTensor, torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)
def _matmul(a: Any, b: Any) -> Any:
    if isinstance(a, PackedTensor):
        plain = isinstance(b, Tensor) and b.layout == torch.strided and b.dim() == 2
        return _linear(a, b.t()) if plain and not isinstance(b, VirtualTensor) else NotImplemented
    return sparse_product(a, b)


PackedTensor.handlers[torch.sparse.mm] = sparse_product


@handles(PackedTensor, Tensor.mul, torch.mul, Tensor.__mul__, Tensor.__rmul__)
def _multiply(*operands: Any, **options: Any) -> Any:
    if len(operands) != 2 or options:
        return NotImplemented
    x, factor = operands if isinstance(operands[0], PackedTensor) else operands[::-1]
    return Scaled(x, factor) if is_factor(factor) else NotImplemented


@handles(PackedTensor, Tensor.index_select)
def _rows_of_edges(x: Any, dim: int, index: Tensor) -> Any:
    # PyG's layers call the method, to make messages; its loaders call the function below.
    if not isinstance(x, PackedTensor) or dim not in (0, -2):
        return NotImplemented
    return EdgeRows(x, index, again=x.again)


# PyG puts a function of its own in the place of torch.index_select, which calls torch's.
@handles(PackedTensor, torch.index_select, torch._C._VariableFunctions.index_select)
def _index_select(x: Any, dim: int, index: Tensor, *, out: Tensor | None = None) -> Any:
    if not isinstance(x, PackedTensor) or dim not in (0, -2):
        return NotImplemented
    return x.take(index) if out is None else out.copy_(x.gather_rows(index))


@handles(PackedTensor, Tensor.__getitem__)
def _getitem(x: Any, key: Any) -> Any:
    if isinstance(key, tuple):  # x[rows] and x[rows, :] keep whole rows
        if not 1 <= len(key) <= 2 or (len(key) == 2 and not _is_all(key[1])):
            return NotImplemented
        key = key[0]
    if isinstance(key, Tensor) and key.dim() == 0:
        key = key.item()
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return _row(x, int(key))
    if isinstance(key, (slice, range)):
        places = range(x.size(0))[key] if isinstance(key, slice) else key
        end = places.start + len(places) * places.step
        key = torch.arange(places.start, end, places.step, device=x.device)
    elif isinstance(key, (list, np.ndarray)):
        key = torch.as_tensor(key, device=x.device) if len(key) else torch.empty(0).long()
    if not isinstance(key, Tensor) or key.dim() != 1:
        return NotImplemented
    if key.dtype in (torch.bool, torch.uint8):
        if key.size(0) != x.size(0):
            raise IndexError(f"a mask of {key.size(0)} entries cannot choose of {x.size(0)} rows.")
        key = key.nonzero().squeeze(1)
    elif key.numel() and int(key.min()) < 0:
        key = torch.where(key < 0, key + x.size(0), key)
    return x.take(key)


@handles(PackedTensor, torch.cat, torch.concat, torch.concatenate)
def _cat(tensors: Sequence[Any], dim: int = 0, *, out: Tensor | None = None, **_: Any) -> Any:
    # PyG's DataLoader makes batches so, of a single graph, too: in a worker with an ``out``, but it
    # takes what is returned.
    same = len(tensors) == 1 and (out is None or get_worker_info() is not None)
    return tensors[0] if same else NotImplemented


def _is_all(key: Any) -> bool:
    return isinstance(key, slice) and key == slice(None)


def _row(x: Any, row: int) -> Tensor:
    if not -x.size(0) <= row < x.size(0):
        raise IndexError(f"row {row} is out of range for {x.size(0)} rows.")
    found: Tensor = x.gather_rows(torch.tensor([row % x.size(0)], device=x.device))[0]
    return found


@handles(PackedTensor, Tensor.to)
def _to(x: Any, *args: Any, **kwargs: Any) -> Any:
    # What the conversion would do to a float tensor tells where it goes.
    shell = torch.empty(0, device=x.device, dtype=torch.float32).to(*args, **kwargs)
    if shell.dtype != torch.float32:
        return NotImplemented
    if shell.device == x.device:
        return x
    bucket = None if x.bucket is None else x.bucket.to(shell.device)
    return PackedTensor([block.to(shell.device) for block in x.blocks], bucket)


@handles(PackedTensor, Tensor.cuda)
def _cuda(x: Any, device: Any = None, **_: Any) -> Any:
    return _to(x, torch.device("cuda") if device is None else device)


@handles(PackedTensor, Tensor.cpu)
def _cpu(x: Any, **_: Any) -> Any:
    return _to(x, "cpu")


@handles(
    PackedTensor, Tensor.contiguous, Tensor.detach, torch.detach, Tensor.clone, torch.clone,
    Tensor.float, Tensor.pin_memory, Tensor.share_memory_, getter("data"),
)  # fmt: skip
def _same(x: Any, *_: Any, **__: Any) -> Any:
    return x


@handles(PackedTensor, getter("requires_grad"))
def _requires_no_grad(x: Any) -> bool:
    return False


@handles(PackedTensor, Tensor.requires_grad_)
def _requires_grad_(x: Any, requires_grad: bool = True) -> Any:
    if requires_grad:
        raise RuntimeError(
            "Packed features have no gradient. Train on x.dequantize(), or on a parameter."
        )
    return x


@handles(PackedTensor, Tensor.is_contiguous, Tensor.is_pinned)
def _is_contiguous(x: Any, *_: Any, **__: Any) -> bool:
    return True


@handles(PackedTensor, F.normalize)
def _normalize(x: Any, *args: Any, **kwargs: Any) -> Any:
    # AGNN's cosines need unit rows in fp32 whatever the features lie in.
    return node_rows(F.normalize(x.dequantize(), *args, **kwargs))


@handles(PackedTensor, F.dropout, torch.dropout)
def _dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return NotImplemented if training and p > 0 else x


@handles(PackedTensor, Tensor.untyped_storage)
def _untyped_storage(x: Any) -> Any:
    return torch.empty(
        0, device=x.device, dtype=torch.float32
    ).untyped_storage()  # what a loader's worker shares


def _new(name: str) -> Callable[..., Any]:
    def new(x: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(torch.empty(0, device=x.device, dtype=torch.float32), name)(*args, **kwargs)

    return new


for _name in ("new", "new_zeros", "new_ones", "new_empty", "new_full", "new_tensor"):
    PackedTensor.handlers[getattr(Tensor, _name)] = _new(_name)


_WRITES = [
    getattr(Tensor, name)
    for name in dir(Tensor)
    if name.endswith("_")
    and not name.startswith("_")
    and name not in ("requires_grad_", "share_memory_", "rename_")
] + [Tensor.__setitem__, Tensor.__iadd__, Tensor.__imul__, Tensor.__isub__, Tensor.__itruediv__]


def _refuse_write(function: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        if not args or not isinstance(args[0], PackedTensor):
            return NotImplemented
        raise RuntimeError(
            f"{function.__name__} writes into packed features, which cannot be written. Write to "
            f"a copy: x = x.dequantize(), and pack that again."
        )

    return refuse


for _function in _WRITES:
    PackedTensor.handlers[_function] = _refuse_write(_function)
