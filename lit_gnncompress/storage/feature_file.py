"""Packed features as a file: written, read in, or used where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from lit_gnncompress.storage.codecs import Codec, DenseCodec, FloatCodec
from lit_gnncompress.storage.container import Container, ContainerError, PathLike
from lit_gnncompress.storage.container_writer import write_container
from lit_gnncompress.storage.packed_tensor import PackedTensor

KIND = "features"
_BUCKET = "bucket"


def save_features(path: PathLike, x: PackedTensor) -> int:
    """Writes packed features as one safetensors file with checksums.

    Args:
        path: The file; one that is there is replaced, as soon as the new one is complete.
        x: The features, on any device.

    Returns:
        Bytes of the file.

    Raises:
        TypeError: Features that are not packed.
    """
    if not isinstance(x, PackedTensor):
        raise TypeError(f"x is a {type(x).__name__}: pack it first, save_features(path, pack(x)).")
    tensors, meta = describe(x)
    return write_container(path, tensors, meta, KIND)


def load_features(path: PathLike, verify: bool = True) -> PackedTensor:
    """Reads packed features into memory.

    Args:
        path: A file of :func:`save_features` or ``pack_file``.
        verify: Whether to compare the data with their checksums; the header always is.

    Raises:
        FileNotFoundError: No such file.
        ContainerError: Not such a file, damaged, cut off, or of a newer format.
    """
    container = Container(path, KIND)
    return assemble(path, container.read(verify), container.meta)


def open_features(path: PathLike, verify: bool = False) -> MappedFeatures:
    """Packed features that stay in their file, which may be larger than memory.

    The system reads in the rows that are used. In a worker process of a loader the file is opened
    anew, so that nothing is copied to it.

    Args:
        path: A file of :func:`save_features` or ``pack_file``. It must not be changed while
            it is open; to replace it by another one is safe.
        verify: Whether to read it through once and compare it with its checksums. Header and size
            always are. Damage that is not looked for may give wrong features, or a
            ``ContainerError`` when rows are used.

    Raises:
        FileNotFoundError: No such file.
        ContainerError: Not such a file, damaged, cut off, or of a newer format.
    """
    container = Container(path, KIND)
    if verify:
        container.verify()
    return MappedFeatures(container)


class MappedFeatures(PackedTensor):
    """Packed features in a file; :func:`open_features` makes it. Pickles as the path.

    Attributes:
        path: The file, absolute.
    """

    path: Path
    _digest: str

    @staticmethod
    def __new__(cls, container: Container) -> MappedFeatures:
        """The features of an opened file."""
        parts = assemble(container.path, container.map(), container.meta, thorough=False)
        container.sample_rows()
        self = cast(MappedFeatures, PackedTensor.__new__(cls, parts.blocks, parts.bucket))
        self.path, self._digest = container.path.absolute(), container.digest
        return self

    def _rows_of(self, b: int) -> Tensor:
        rows, expected = super()._rows_of(b), self.blocks[b].num_rows
        if len(rows) != expected:  # not known when the file was opened, as that read no rows
            raise ContainerError(
                f"{self.path} is damaged: it has {expected:,} rows of bucket {b}, but says so of "
                f"{len(rows):,} rows. Copy it anew or write it again."
            )
        return rows

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _reopen, (str(self.path), self._digest)


def _reopen(path: str, digest: str) -> MappedFeatures:
    container = Container(path, KIND)
    if container.digest != digest:
        raise ContainerError(
            f"{path} is not the file that was opened, but has been replaced since: open it anew."
        )
    return MappedFeatures(container)


# --- tensors and description: what the artifact of a model shares -------------------------------


def describe(x: PackedTensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors that packed features consist of, and what they mean, as JSON can hold it."""
    tensors = {
        f"blocks.{b}.{name}": tensor
        for b, block in enumerate(x.blocks)
        for name, tensor in block.tensors().items()
    }
    if x.bucket is not None:
        tensors[_BUCKET] = x.bucket
    return tensors, {"blocks": [block.meta() for block in x.blocks]}


def assemble(
    path: PathLike, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], thorough: bool = True
) -> PackedTensor:
    """The inverse of :func:`describe`.

    Args:
        path: The file, for messages.
        tensors: As from :func:`describe`.
        meta: As from :func:`describe`.
        thorough: Whether to read all codes for what cannot be, see ``Codec.from_tensors``. Those of
            sparse rows always are, because a wrong column would be a wrong place in memory.

    Raises:
        ContainerError: Tensors that do not make up packed features.
    """
    try:
        blocks = []
        for b, of_block in enumerate(meta["blocks"]):
            start = f"blocks.{b}."
            own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            harmless = of_block["codec"] in (DenseCodec.name, FloatCodec.name)
            blocks.append(Codec.from_tensors(of_block, own, thorough or not harmless))
        return PackedTensor(blocks, tensors.get(_BUCKET))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ContainerError(
            f"{path} holds no packed features ({error}): pack them again."
        ) from error
