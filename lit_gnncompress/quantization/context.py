"""What the sites of one model share: the switch, the splits, and the graph in hand."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization.degrees import (
    DegreeBuckets,
    in_degrees,
    out_degrees,
    quantile_splits,
)
from lit_gnncompress.quantization.ranges import CalibratedRange, Range


class Stored(NamedTuple):
    """The rows of one degree bucket as they are kept.

    Attributes:
        bits: Bits of a code; 32 for untouched values.
        rows: Number of rows.
        bytes_codes: Bytes of codes and of what finds them.
        bytes_ranges: Bytes of ranges.
        bytes_lossless: Smallest size of the same rows without loss, where it is known.
    """

    bits: int
    rows: int
    bytes_codes: int
    bytes_ranges: int
    bytes_lossless: int | None = None


class Seen(NamedTuple):
    """What passed a site last: the ledger's material.

    Attributes:
        shape: Rows and columns of the matrix.
        buckets: Buckets of its rows, if the plan has any.
        range: The range that it was quantized with; None where it was left untouched.
        source: The input itself, where it may recur from step to step.
        stored: What each bucket takes, where features are packed.
        ranges: Number of ranges in each bucket, where neither rows nor columns have them.
    """

    shape: torch.Size
    buckets: DegreeBuckets | None
    range: Range | None
    source: weakref.ref[Tensor] | None = None
    stored: tuple[Stored, ...] | None = None
    ranges: tuple[int, ...] | None = None


class Form(Protocol):
    """What features become at a site, other than rematched floats."""

    def pack(
        self,
        x: Tensor,
        bits: tuple[int, ...],
        buckets: DegreeBuckets | None,
        range: Range | CalibratedRange,
    ) -> Tensor:
        """Features whose codes are kept, of the rows of ``x``."""

    def rows(self, x: Tensor) -> Tensor:
        """Features that stay floats."""

    def stored(self, x: Tensor, waits: bool) -> Tensor:
        """Features that are codes; whether what layers make of them may wait for a site."""

    def settle(self, output: Any) -> Any:
        """What leaves a module around the layers, with all tensors worked out."""


class GraphContext:
    """The graph that a model is about to see, published before its forward pass.

    Without publication, message-passing layers count degrees in the ``edge_index`` that they are
    called with. That is wrong for sampled batches, and not possible for linear layers.

    It also knows where a forward pass begins, within which the calls of a layer are numbered: where
    the outermost module around the layers is called. A step, which is announced with
    :meth:`begin_step`, may have several passes; without one, a layer that is called outside of all
    modules is a pass.

    Attributes:
        enabled: Whether sites quantize; they pass everything through where not.
        form: What quantized features become; rematched floats where there is none.
        calibrating: Whether evaluation finds ranges anew, rather than using those found before.
        in_step: Whether a step lasts, which may call the model several times. Ranges that are found
            in steps add up; else the latest replace those before.
        plan: The plan at work.
        options: How it is put to work: the further arguments of ``quantize_``.
        splits: Degrees between the buckets; empty for a plan without buckets.
    """

    def __init__(self, splits: Sequence[int] = (), quantiles: Sequence[float] = ()) -> None:
        self.enabled = True
        self.plan: BitPlan | None = None
        self.options: dict[str, Any] = {}
        self.form: Form | None = None
        self.calibrating = True
        self.splits = tuple(splits)
        self.quantiles = tuple(quantiles)
        self.receivers: DegreeBuckets | None = None  # of the layer that is running
        self.in_step = False
        self._step = self._pass = 0
        self._outermost: int | None = None
        self._num_nodes: tuple[int, ...] = ()
        self._degrees: Tensor | Mapping[str, Tensor] | None = None
        self._buckets: dict[str, DegreeBuckets] = {}
        self._entered: dict[str, set[str]] = {}  # node types that a layer had, told by their rows

    @property
    def by_degree(self) -> bool:
        """Whether the plan looks at degrees."""
        return bool(self.splits or self.quantiles)

    def publish(
        self,
        num_nodes: int | Mapping[str, int],
        degrees: Tensor | Mapping[str, Tensor] | None = None,
    ) -> None:
        """Tells the sites about the graph of the next forward passes.

        Args:
            num_nodes: Number of nodes, by type for heterogeneous graphs. Linear layers whose
                input has another number of rows do not see node features.
            degrees: Degree of each node in the whole graph, int64 of shape ``(N,)``, by type for
                heterogeneous graphs. ``None`` where layers shall count for themselves.
        """
        self.end_step()
        if isinstance(num_nodes, Mapping):
            self._num_nodes = tuple(num_nodes.values())
        else:
            self._num_nodes = (num_nodes,)
        if degrees is not None and degrees is self._degrees and self._buckets:
            return  # the full graph again
        self._degrees, self._buckets = degrees, {}
        if degrees is None or not self.by_degree:
            return
        by_type = degrees if isinstance(degrees, Mapping) else {"": degrees}
        for node_type, of_type in by_type.items():
            self.settle_splits(of_type)
            self._buckets[node_type] = DegreeBuckets.from_degrees(of_type, self.splits)

    def clear(self) -> None:
        """Forgets what was published."""
        self.end_step()
        self._num_nodes, self._degrees, self._buckets = (), None, {}

    # --- passes -----------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Begins a step that lasts until :meth:`end_step`, however often the model is called.

        A publication ends it, too; what was published stays.
        """
        self.end_step()
        self.in_step = True

    def end_step(self) -> None:
        """Ends a step, where there is one."""
        self._next_pass(True)
        self._outermost, self.in_step = None, False

    def enter(self, module: object) -> None:
        """Is told that a module around the layers is called."""
        # One that was left by an interrupt, and is called again, is outermost still.
        if self._outermost in (None, id(module)):
            self._outermost = id(module)
            self._next_pass(not self.in_step)

    def leave(self, module: object) -> None:
        """Is told that a module around the layers returns."""
        if self._outermost == id(module):
            self._outermost = None

    def step_and_pass(self) -> tuple[int, int]:
        """The numbers of the step and the pass that the next call of a layer belongs to."""
        if not self.in_step and self._outermost is None:
            self._next_pass(True)
        return self._step, self._pass

    def _next_pass(self, is_step: bool) -> None:
        self._step, self._pass = self._step + is_step, self._pass + 1

    def __getstate__(self) -> dict[str, Any]:
        forgotten: dict[str, Any] = {
            "receivers": None,
            "in_step": False,
            "_outermost": None,
            "_num_nodes": (),
            "_degrees": None,
            "_buckets": {},
        }
        return self.__dict__ | forgotten  # graphs are not part of a model

    def settle_splits(self, degrees: Tensor) -> None:
        """Turns the plan's quantiles into splits, once, by the degrees of the whole graph."""
        if self.quantiles and not self.splits:
            self.splits = quantile_splits(degrees, self.quantiles)

    def holds_nodes(self, num_rows: int) -> bool:
        """Whether a matrix of ``num_rows`` rows can be node features, as far as is known."""
        return not self._num_nodes or num_rows in self._num_nodes

    def buckets(
        self,
        layer: str,
        num_rows: int,
        adjacency: Any,
        flow: str,
        sources: bool,
        needed: bool = True,
    ) -> DegreeBuckets | None:
        """Buckets of the rows that enter ``layer``; ``None`` for a plan without buckets.

        Of heterogeneous graphs they are those of the node type in the layer's name; without one
        there, of the only type that has as many rows, or of these the only one that has entered
        the layer before.

        Raises:
            RuntimeError: Buckets are ``needed``, ``adjacency`` is None, and nothing was published
                or several node types have as many rows.
        """
        if not self.by_degree:
            return None
        published = self._buckets.get("") or self._buckets.get(_node_type(layer, sources))
        if published is not None and len(published) >= num_rows:
            return published.first(num_rows)
        alike = [name for name, buckets in self._buckets.items() if len(buckets) == num_rows]
        if len(alike) > 1:  # in a sampled batch by chance: it is the type that entered before
            alike = [name for name in alike if name in self._entered.get(layer, ())] or alike
        if len(alike) == 1:
            self._entered.setdefault(layer, set()).add(alike[0])
            return self._buckets[alike[0]]
        if adjacency is None:
            if not needed:
                return None
            if alike:
                types = " and ".join(repr(name) for name in alike)
                raise RuntimeError(
                    f"{layer}: the plan gives bits by degree, but the node types {types} have "
                    f"{num_rows} rows each, and nothing tells whose enter here. Give {layer} one "
                    f"number of bits."
                )
            raise RuntimeError(
                f"{layer}: the plan gives bits by degree, but the degrees of its {num_rows} rows "
                f"are not known here. Call `publish(num_nodes, degrees)` on the quantization "
                f"before the forward pass, store the degrees of all nodes as a node attribute "
                f"`deg` of the batch, or give {layer} one number of bits."
            )
        degrees = (out_degrees if sources else in_degrees)(adjacency, num_rows, flow)
        self.settle_splits(degrees)
        return DegreeBuckets.from_degrees(degrees, self.splits)


def _node_type(layer: str, sources: bool) -> str:
    """The node type in PyG's names of heterogeneous layers: ``<user___rates___item>``, ``user``."""
    parts = re.split("_{2,}", layer.rsplit(".", 1)[-1].strip("<>"))
    return parts[0] if sources else parts[-1]
