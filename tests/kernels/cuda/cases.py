"""What Triton's kernels are compared over, with the reference: in the interpreter and on a GPU.

``python -m tests.kernels.cuda.cases interpret|compile OPERATION`` needs no GPU. It is a process of
its own, because Triton wants to know how to run before it is imported, and does not change then.
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import traceback
from typing import NamedTuple

import torch

from lit_gnncompress.kernels.layout import row_bytes
from tests.kernels.conftest import random_cores, random_edges, random_packed, strided

BITS = range(1, 9)
_ROUNDING = {torch.bfloat16: 2**-7, torch.float16: 2**-10}


class Case(NamedTuple):
    """One call of an operation.

    ``split`` is how many edges a program reduces at most; ``exact`` asks for the same bits, else
    sums may be taken in another order. ``deterministic`` is what torch is told to be.
    """

    label: str
    args: tuple
    split: int = 1024
    exact: bool = False
    deterministic: bool = False


def matrices(sizes):
    for bits in BITS:
        for place, (rows, width) in enumerate(sizes):
            by_row = (place + bits) % 2 == 0
            yield f"{bits} bits, {rows} x {width}", random_packed(rows, width, bits, by_row)


SIZES = [(5, 33), (130, 16), (0, 5), (3, 0), (1, 1), (2, 300)]


def pack_bits(sizes):
    for label, rows in matrices(sizes):
        yield Case(label, (rows.codes, rows.bits), exact=True)
    codes = random_packed(5, 33, 3).codes
    yield Case("not contiguous", (strided(codes), 3), exact=True)


def unpack_bits(sizes):
    for label, rows in matrices(sizes):
        yield Case(label, (rows.packed, rows.bits, rows.width), exact=True)
    for bits in (1, 2, 4):
        rows = random_packed(6, 33, bits)
        yield Case(f"{bits} bits, strided", (strided(rows.packed), bits, 33), exact=True)
        # Rows begin where no word of 32 bits does.
        rows = random_packed(6, 16, bits)
        buffer = torch.cat([torch.zeros(2, dtype=torch.uint8), rows.packed.flatten()])
        shifted = buffer[2:].view(6, row_bytes(16, bits))
        yield Case(f"{bits} bits, shifted", (shifted, bits, 16), exact=True)


def gather_dequantize(sizes):
    for place, (label, rows) in enumerate(matrices(sizes)):
        count = rows.packed.size(0)
        index = torch.randint(0, max(1, count), (7 if count else 0,))
        index = (None, index, index.int())[place % 3]
        yield Case(label, (*rows.args, index), exact=True)


def quantize_pack(sizes):
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    for place, (label, rows) in enumerate(matrices(sizes)):
        x = torch.randn(len(rows.packed), rows.width, dtype=dtypes[place % 4]) * 2
        scale = rows.scale * 4 / 2**rows.bits
        if x.numel() > 1:
            x.view(-1)[:2] = torch.tensor([float("inf"), float("nan")])
            scale[0] = 0.0 if scale.size(0) > 1 else scale[0]
        seed = (-1, 0, 2**40 + 3)[place % 3]
        yield Case(f"{label}, {x.dtype}", (x, rows.lo, scale, rows.bits, seed), exact=True)
    for bits in BITS:  # every code in the middle between two others
        x = torch.arange(-3, 2 * 2**bits).view(1, -1) / 2
        ends = torch.zeros(1), torch.ones(1)
        yield Case(f"{bits} bits, halves", (x, *ends, bits, -1), exact=True)


def linear(sizes):
    outputs = (3, 17, 2, 1, 70, 5)
    for place, (label, rows) in enumerate(matrices(sizes)):
        yield label, rows, outputs[place % len(outputs)]


def packed_linear(sizes):
    for label, rows, outputs in linear(sizes):
        yield Case(label, (*rows.args, torch.randn(outputs, rows.width)))
    rows = random_packed(5, 33, 4)
    yield Case("not contiguous", (*rows.args, torch.randn(33, 7).T))
    yield Case("no outputs", (*rows.args, torch.randn(0, 33)))


def packed_linear_backward(sizes):
    for label, rows, outputs in linear(sizes):
        yield Case(label, (*rows.args, torch.randn(rows.packed.size(0), outputs)))
    rows = random_packed(150, 20, 2, by_row=True)
    yield Case("shared rows", (*rows.args, strided(torch.randn(150, 5))))


def packed_linear_int8(sizes):
    for label, rows, outputs in linear(sizes):
        weight = torch.randint(-128, 128, (outputs, rows.width), dtype=torch.int8)
        yield Case(label, (*rows.args, weight, torch.rand(outputs)), exact=True)


class Setting(NamedTuple):
    """A graph and the rows of its sources: ``heads`` of ``columns`` each; 0 heads: one, unsaid."""

    targets: int
    sources: int
    heads: int
    columns: int
    split: int = 1024

    @property
    def width(self):
        return max(1, self.heads) * self.columns

    def rows(self, bits, by_row):
        return random_packed(self.sources, self.width, bits, by_row)

    def edges(self, shuffled):
        return random_edges(self.targets, self.sources, 2, sorted_by_target=not shuffled)

    def weight(self, edges):
        return (
            torch.randn(len(edges.col), self.heads) if self.heads else torch.randn(edges.col.shape)
        )


SETTINGS = [
    Setting(6, 5, 0, 33),
    Setting(4, 3, 3, 8),
    Setting(5, 4, 2, 5, split=4),
    Setting(7, 3, 0, 16, split=4),
    Setting(1, 1, 0, 1),
    Setting(0, 4, 0, 3),
    Setting(3, 0, 0, 4),
    Setting(3, 5, 0, 0),
]


def packed_aggregate(settings):
    for bits in BITS:
        for place, setting in enumerate(settings):
            turn = place + bits
            edges = setting.edges(shuffled=turn % 2 == 0)
            weight = None if turn % 4 == 3 and not setting.heads else setting.weight(edges)
            reduce = ("sum", "mean", "max")[turn % 3]
            rows = setting.rows(bits, by_row=turn // 2 % 2 == 0)
            args = (*rows.args, *edges[:3], weight, reduce)
            label = f"{bits} bits, {setting}, {reduce}"
            yield Case(label, args, setting.split, exact=reduce == "max")


def aggregate(settings):
    for reduce in ("sum", "mean", "max"):
        for setting in settings:
            for shuffled in (False, True):
                edges = setting.edges(shuffled)
                weight = None if shuffled and not setting.heads else setting.weight(edges)
                x = strided(torch.randn(setting.sources, setting.width))
                args = (x, *edges[:3], weight, reduce, None, None, None)
                label = f"{setting}, {reduce}"
                yield Case(label, args, setting.split, exact=reduce == "max")
    edges = random_edges(6, 5, 2)
    x = torch.randn(5, 3)
    x[2, 1] = float("nan")
    for reduce in ("sum", "max"):
        yield Case(f"nan, {reduce}", (x, *edges[:3], None, reduce, None, None, None))


def edge_dot(settings):
    for setting in settings:
        for shuffled in (False, True):
            edges = setting.edges(shuffled)
            x = torch.randn(setting.sources, setting.width)
            y = torch.randn(setting.targets, setting.width)
            label = f"{setting}, {shuffled=}"
            yield Case(label, (x, y, *edges[:3], max(1, setting.heads)), setting.split)


def ranges_of_alpha(targets):
    """None, one with few codes, one of each target (some untouched), and one of zeros only."""
    by_target = torch.stack([torch.rand(targets) / 10, torch.rand(targets) / 10], 1)
    levels = torch.where(torch.arange(targets) % 3 == 1, -1.0, 7.0)
    yield None
    yield torch.tensor([[0.0, 0.07, 15]])
    yield torch.cat([by_target, levels.unsqueeze(1)], 1)
    yield torch.tensor([[0.0, 10.0, 3]])


def scores(setting):
    heads = max(1, setting.heads)
    return torch.randn(setting.sources, heads), torch.randn(setting.targets, heads)


def packed_attention_aggregate(settings):
    for bits in BITS:
        for place, setting in enumerate(settings):
            turn = place + bits
            edges = setting.edges(shuffled=False)
            alpha_range = [*ranges_of_alpha(setting.targets)][turn % 4]
            rows = setting.rows(bits, by_row=turn % 2 == 0)
            graph = edges.rowptr, edges.col
            args = (*rows.args, *scores(setting), *graph, 0.2, alpha_range, turn // 4 % 2 == 0)
            yield Case(f"{bits} bits, {setting}", args, setting.split)


def attention_aggregate(settings):
    for setting in settings:
        for place, alpha_range in enumerate(ranges_of_alpha(setting.targets)):
            for renormalize in (True, False)[: 1 if alpha_range is None else 2]:
                edges = setting.edges(shuffled=place % 2 == 1)
                dropout = 0.5 if renormalize else 0.0
                x = torch.randn(setting.sources, setting.width)
                graph = edges.rowptr, edges.col
                tail = 0.1, alpha_range, renormalize, edges.perm, dropout, 77, None, None, None
                args = (x, *scores(setting), *graph, *tail)
                yield Case(f"{setting}, {alpha_range}, {renormalize=}", args, setting.split)


class Train(NamedTuple):
    """The cores of a tensor train and how many rows are looked up; half of them are the same."""

    rows: tuple
    columns: tuple
    ranks: tuple
    count: int
    dtype: torch.dtype = torch.float32
    split: int = 1024

    @property
    def cores(self):
        return random_cores(self.rows, self.columns, self.ranks, self.dtype)

    @property
    def indices(self):
        indices = torch.randint(0, math.prod(self.rows), (self.count,))
        indices[: self.count // 2] = indices[:1]
        return indices


TRAINS = [
    Train((7, 9), (3, 5), (4,), 20),
    Train((3, 4, 5), (2, 3, 2), (2, 3), 50, split=8),
    Train((3, 30, 40), (4, 4, 4), (8, 8), 40, split=1),  # pairs by row, in two parts
    Train((3, 2, 4, 2), (2, 1, 3, 2), (2, 3, 4), 30, torch.bfloat16),
    Train((40, 30, 20, 30), (1, 2, 2, 1), (1, 3, 2), 9, torch.float16),
    Train((3, 4, 5), (2, 3, 2), (2, 3), 9, torch.float64),
    Train((3, 4, 5), (2, 3, 2), (2, 3), 0),
]
LARGE_TRAINS = [
    Train((1000, 1000), (8, 8), (16,), 5000),
    Train((100, 100, 100), (4, 4, 4), (16, 16), 65_536),
    Train((200, 220, 250), (4, 4, 4), (32, 32), 10_240),
    Train((30, 40, 30, 40), (2, 4, 4, 2), (8, 16, 8), 20_000),
]


def tt_lookup(trains):
    for place, train in enumerate(trains):
        indices = train.indices.int() if place % 2 else train.indices.view(1, -1)
        yield Case(f"{train}", (indices, train.cores, True), train.split)
        yield Case(f"{train}, nothing kept", (indices, train.cores, False), train.split)


def tt_lookup_backward(trains):
    from lit_gnncompress.kernels.reference.tt_lookup import tt_lookup

    for train in trains:
        out, *order = tt_lookup(train.indices, train.cores, True)
        args = torch.randn_like(out), train.cores, *order
        yield Case(f"{train}", args, train.split)
        yield Case(f"{train}, deterministic", args, train.split, deterministic=True)


def bags(train):
    """Indices, offsets with empty bags and a large one, and weights of every second train."""
    cuts = torch.randint(0, train.count // 2 + 1, (train.count // 4,)).sort()[0]
    offsets = torch.cat([cuts.new_zeros(2), cuts, cuts.new_full((2,), train.count)])
    weights = torch.randn(train.count).to(train.dtype) if train.count % 4 else None
    return train.indices, offsets, weights, train.cores


def tt_embedding_bag(trains):
    for train in trains:
        for keep in (True, False):
            yield Case(f"{train}, {keep=}", (*bags(train), keep), train.split)


def tt_embedding_bag_backward(trains):
    from lit_gnncompress.kernels.reference.tt_embedding_bag import tt_embedding_bag

    for train in trains:
        indices, offsets, weights, cores = bags(train)
        out, *order = tt_embedding_bag(indices, offsets, weights, cores, True)
        to_weights = weights is not None
        args = torch.randn_like(out), offsets, weights, cores, *order, to_weights
        yield Case(f"{train}", args, train.split)
        yield Case(f"{train}, deterministic", args, train.split, deterministic=True)


OF_ROWS = [
    pack_bits,
    unpack_bits,
    gather_dequantize,
    quantize_pack,
    packed_linear,
    packed_linear_backward,
    packed_linear_int8,
]
OF_EDGES = [aggregate, edge_dot, packed_aggregate, attention_aggregate, packed_attention_aggregate]
OF_TENSOR_TRAINS = [
    tt_embedding_bag,
    tt_embedding_bag_backward,
    tt_lookup,
    tt_lookup_backward,
]
OPERATIONS = {make.__name__: make for make in OF_ROWS + OF_EDGES + OF_TENSOR_TRAINS}


def cases(operation, large=False):
    """All cases of an operation; ``large`` ones are for a GPU."""
    torch.manual_seed(0)
    make = OPERATIONS[operation]
    if make in OF_TENSOR_TRAINS:
        return make(LARGE_TRAINS if large else TRAINS)
    if make in OF_ROWS:
        return make([(3000, 257), (20_001, 64)] if large else SIZES)
    large_settings = [Setting(900, 800, 0, 257), Setting(500, 2000, 8, 8), Setting(5000, 90, 2, 64)]
    return make(large_settings if large else SETTINGS)


def implementation(folder, operation):
    module = importlib.import_module(f"lit_gnncompress.kernels.{folder}.{operation}")
    return getattr(module, operation)


def launch(operation, case, device="cpu"):
    """Calls Triton's implementation."""
    from lit_gnncompress.kernels.cuda import spans, tt_lookup

    usual = spans.SPLIT, tt_lookup.STEP
    spans.SPLIT, tt_lookup.STEP = case.split, 32 * case.split
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(case.deterministic)
    try:
        return implementation("cuda", operation)(*moved(case.args, device))
    finally:
        spans.SPLIT, tt_lookup.STEP = usual
        torch.use_deterministic_algorithms(False)


def compare(operation, case, device="cpu"):
    """Triton's implementation gives what the reference gives."""
    expected = implementation("reference", operation)(*moved(case.args, device))
    found = launch(operation, case, device)
    for one, other in zip(_flat(expected), _flat(found), strict=True):
        largest = one.nan_to_num().abs().max().item() if one.numel() else 0.0
        tolerance = 0.0 if case.exact else _ROUNDING.get(one.dtype, 1e-5)
        torch.testing.assert_close(
            other, one, rtol=tolerance, atol=tolerance * largest, equal_nan=True
        )


def _flat(results):
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for result in results for tensor in _flat(result)]


def moved(args, device):
    def move(a):
        return [b.to(device) for b in a] if isinstance(a, list) else a.to(device)

    return tuple(move(a) if isinstance(a, torch.Tensor | list) else a for a in args)


def compile_offline(operation):
    """Compiles every kernel that small cases launch for an H100 or H200; returns the binaries."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Offline:
        """A device that is not there."""

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

    run, compiled = JITFunction.run, {}

    def only_compile(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        compiled[kernel.hash] = kernel
        return kernel

    driver.set_active(Offline())
    JITFunction.run = only_compile
    done = set()
    for case in (*cases(operation), *cases(operation, large=True)):
        # All cases of 4 bits, and the first of others.
        bits = case.label.partition(" bits")[0]
        if bits == "4" or bits not in done:
            launch(operation, case)
        done.add(bits)
    return [kernel.asm for kernel in compiled.values()]


def failures(operation, device="cpu", large=False):
    """Compares all cases; what went wrong, and how many there were."""
    found, count = [], 0
    for case in cases(operation, large):
        count += 1
        try:
            compare(operation, case, device)
        except Exception:
            found.append(f"{operation}, {case.label}:\n{traceback.format_exc()}")
    return found, count


def main(how, operation):
    if how == "compile":
        binaries = compile_offline(operation)
        for asm in binaries:
            assert asm["cubin"][:4] == b"\x7fELF"
            assert ".target sm_90" in asm["ptx"]
        print(f"{len(binaries)} kernels compiled for sm_90")
        return len(binaries) < (1 if OPERATIONS[operation] in OF_TENSOR_TRAINS else len(BITS))
    assert how == "interpret"
    assert os.environ["TRITON_INTERPRET"] == "1"
    found, count = failures(operation)
    print(*found, f"{count} cases, {len(found)} failed", sep="\n")
    return bool(found) or count == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
