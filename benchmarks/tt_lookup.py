"""Rows of a tensor train against gather + bmm in torch, and training steps against EmbeddingBag."""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.progress import Progress
from torch import Tensor, nn

from benchmarks.output import Output, Row
from benchmarks.peak import bytes_of, tensor_peak
from benchmarks.timing import median_seconds, threads
from lit_gnncompress.embedding import TTShape, balanced_columns, balanced_rows
from lit_gnncompress.kernels import tt_lookup

DISTRIBUTIONS = ("uniform", "zipf")
ZIPF = 1.2
ALLOWED = {"forward_ratio": 30.0, "forward_backward_ratio": 15.0, "step_ratio": 0.7}
_FBTT = "200,220,250x4,4,4"  # the shape that its own benchmark takes
_ON_GPUS = [(_FBTT, 32, 10_240), (_FBTT, 32, 65_536)]
_SEED = 0
_MEMORY = (
    "kept_bytes",
    "kept_bytes_bmm",
    "kept_bytes_bag",
    "step_peak_bytes",
    "step_peak_bytes_bag",
)


class Setting(NamedTuple):
    """What is looked up, and where."""

    shape: str
    rank: int
    batch: int
    distribution: str
    device: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument(
        "--shape",
        nargs="+",
        default=["1000000x64"],
        help="rows x columns of the table, balanced; or their factors, as in " + _FBTT,
    )
    parser.add_argument("--rank", nargs="+", type=int, default=[16])
    parser.add_argument("--batch", nargs="+", type=int, default=[65_536], help="indices of a step")
    parser.add_argument(
        "--distribution", nargs="+", choices=DISTRIBUTIONS, default=list(DISTRIBUTIONS)
    )
    parser.add_argument(
        "--device",
        nargs="+",
        choices=("cpu", "cuda"),
        default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"],
        help="cuda measures FBTT's default shape too",
    )
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (default: 1)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each way")


def run(args: argparse.Namespace, output: Output) -> None:
    """Times rows, gradients and training steps of all settings."""
    cases = [(s, r, b) for s in args.shape for r in args.rank for b in args.batch]
    settings = [
        Setting(*case, distribution, device)
        for device in args.device
        for case in dict.fromkeys(cases + (_ON_GPUS if device == "cuda" else []))
        for distribution in args.distribution
    ]
    with Progress(console=output.console) as progress, threads(args.threads):
        task = progress.add_task("settings", total=len(settings))
        for setting in settings:
            row = setting._asdict() | {"threads": args.threads} | _row(setting, args.rounds)
            output.add(row, key=(*Setting._fields, "threads"))
            progress.advance(task)


def shape_of(text: str, rank: int) -> TTShape:
    """Factors and ranks of ``1000000x64`` or ``200,220,250x4,4,4``.

    Raises:
        ValueError: Other text.
    """
    try:
        rows, columns = ([int(n) for n in side.split(",")] for side in text.split("x"))
    except ValueError:
        raise ValueError(
            f"--shape {text} must be rows x columns, as 1000000x64, or factors, as {_FBTT}."
        ) from None
    return TTShape.of_rank(
        rows if len(rows) > 1 else balanced_rows(rows[0]),
        columns if len(columns) > 1 else balanced_columns(columns[0]),
        rank,
    )


def draw(distribution: str, num_rows: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices, each row as likely; or by Zipf's law, the frequent rows anywhere in the table."""
    if distribution == "uniform":
        return torch.randint(0, num_rows, (count,), generator=generator)
    weight = torch.arange(1, num_rows + 1, dtype=torch.float64).pow_(-ZIPF).cumsum_(0)
    drawn = torch.rand(count, dtype=torch.float64, generator=generator) * weight[-1]
    places = torch.randperm(num_rows, generator=generator)
    return places[torch.searchsorted(weight, drawn).clamp_(max=num_rows - 1)]


def gather_bmm(indices: Tensor, cores: list[Tensor]) -> Tensor:
    """The rows as torch gives them: slices of all cores gathered, and multiplied in batches."""
    digits = []
    for core in reversed(cores):
        digits.append(indices % core.size(0))
        indices = indices // core.size(0)
    rows = cores[0].index_select(0, digits.pop()).squeeze(1)
    for core in cores[1:]:
        slices = core.index_select(0, digits.pop()).flatten(2)
        rows = torch.bmm(rows, slices).view(len(rows), -1, core.size(3))
    return rows.flatten(1)


def _row(setting: Setting, rounds: int) -> Row:
    shape = shape_of(setting.shape, setting.rank)
    generator = torch.Generator().manual_seed(_SEED)
    device = setting.device
    cores = [
        torch.randn(size, generator=generator).div_(math.sqrt(size[1])).to(device).requires_grad_()
        for size in shape.core_shapes
    ]
    indices = draw(setting.distribution, shape.num_rows, setting.batch, generator).to(device)
    grad = torch.randn(setting.batch, shape.embedding_dim, generator=generator).to(device)
    lookups: dict[str, Callable[[], Tensor]] = {
        "tt": partial(tt_lookup, indices, cores),
        "bmm": partial(gather_bmm, indices, cores),
    }
    leaves = dict.fromkeys(lookups, cores)
    tltorch = _tltorch(shape, setting)
    if tltorch is not None:
        lookups["tltorch"], leaves["tltorch"] = (
            partial(tltorch, indices),
            list(tltorch.parameters()),
        )
    ways: dict[str, Callable[[], Any]] = {}
    for name, look_up in lookups.items():
        ways[f"{name} forward"] = partial(_forward, look_up)
        ways[f"{name} both"] = partial(_both, look_up, leaves[name], grad)
    bag = nn.EmbeddingBag(
        shape.num_rows, shape.embedding_dim, mode="sum", sparse=True, device=device
    )
    bags = partial(bag, indices, torch.arange(setting.batch, device=device))
    adagrad = torch.optim.Adagrad(cores)
    bag_adagrad = torch.optim.Adagrad(bag.parameters())
    ways |= {
        "tt step": partial(_step, lookups["tt"], adagrad, grad),
        "bag adagrad": partial(_step, bags, bag_adagrad, grad),
        "bag sgd": partial(_step, bags, torch.optim.SGD(bag.parameters(), lr=0.01), grad),
    }
    seconds = (_cuda_seconds if device == "cuda" else median_seconds)(ways, rounds)
    row = {
        "forward_ratio": seconds["bmm forward"] / seconds["tt forward"],
        "forward_backward_ratio": seconds["bmm both"] / seconds["tt both"],
        "step_ratio": seconds["tt step"] / seconds["bag adagrad"],
        "step_ratio_sgd": seconds["tt step"] / seconds["bag sgd"],
        "forward_ms": 1e3 * seconds["tt forward"],
        "forward_backward_ms": 1e3 * seconds["tt both"],
        "step_ms": 1e3 * seconds["tt step"],
        "forward_ratio_tltorch": None,
        "forward_backward_ratio_tltorch": None,
        "kept_bytes": _kept(lookups["tt"], cores),
        "kept_bytes_bmm": _kept(lookups["bmm"], cores),
        "kept_bytes_bag": _kept(bags, list(bag.parameters())),
        "parameters": shape.num_parameters,
    }
    if tltorch is not None:
        row["forward_ratio_tltorch"] = seconds["tltorch forward"] / seconds["tt forward"]
        row["forward_backward_ratio_tltorch"] = seconds["tltorch both"] / seconds["tt both"]
    steps: dict[str, tuple[Callable[[], None], list[Tensor], torch.optim.Optimizer]] = {
        "step_peak_bytes": (ways["tt step"], cores, adagrad),
        "step_peak_bytes_bag": (ways["bag adagrad"], list(bag.parameters()), bag_adagrad),
    }
    for name, (step, parameters, optimizer) in steps.items():
        row[name] = _peak(step, parameters, optimizer, device)
    return row


def _forward(look_up: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        look_up()


def _both(look_up: Callable[[], Tensor], leaves: list[Tensor], grad: Tensor) -> None:
    for leaf in leaves:
        leaf.grad = None
    look_up().backward(grad)


def _step(look_up: Callable[[], Tensor], optimizer: torch.optim.Optimizer, grad: Tensor) -> None:
    optimizer.zero_grad()
    look_up().backward(grad)
    optimizer.step()


def _tltorch(shape: TTShape, setting: Setting) -> Any:
    """The embedding of TensorLy-Torch with the same factors; ``None`` if it is not installed."""
    if importlib.util.find_spec("tltorch") is None:
        return None
    import tltorch

    return tltorch.FactorizedEmbedding(
        shape.num_rows,
        shape.embedding_dim,
        auto_reshape=False,
        tensorized_num_embeddings=shape.rows,
        tensorized_embedding_dim=shape.columns,
        factorization="blocktt",
        rank=[1, *shape.ranks, 1],
        device=setting.device,
    )


def _kept(look_up: Callable[[], Tensor], parameters: list[Tensor]) -> int:
    """Bytes that are kept for the backward pass, beside the parameters."""
    with _keeping() as kept:
        look_up()
    for parameter in parameters:
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(kept.values())


@contextmanager
def _keeping() -> Any:
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        alive.append(storage)  # no other may take its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _peak(
    step: Callable[[], None],
    parameters: list[Tensor],
    optimizer: torch.optim.Optimizer,
    device: str,
) -> int:
    """Bytes of a training step: parameters, optimizer, and all tensors in between."""
    for parameter in parameters:
        parameter.grad = None
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    if device == "cpu":
        return tensor_peak(step, [*parameters, *state])
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    held = torch.cuda.max_memory_allocated() - before
    return held + sum(bytes_of([*parameters, *state]))


def _cuda_seconds(
    ways: Mapping[str, Callable[[], Any]], rounds: int, calls: int = 20
) -> dict[str, float]:
    """As ``median_seconds``, on a GPU's own clock."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):  # the first compiles
        for name, way in ways.items():
            way()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(calls):
                way()
            end.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(end) / 1e3 / calls)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def table(rows: list[Row]) -> str:
    """A line for each setting."""
    goals = ", ".join(
        f"{name} {'≤' if name == 'step_ratio' else '≥'} {goal:g}" for name, goal in ALLOWED.items()
    )
    lines = [
        "Time of gather + bmm in torch / ours; a step with Adagrad, ours / `nn.EmbeddingBag` "
        f"(sparse) with Adagrad and with SGD. Goals on a CPU, 1M × 64: {goals}.",
        "",
        "| shape | rank | indices | | device | forward | + backward | step / Adagrad's | / SGD's "
        "| ms | tltorch + backward |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    memory = [
        "",
        "Kept for the backward pass beside the parameters, and the peak of a training step with "
        "Adagrad: parameters, state, and all tensors in between. Decimal MB.",
        "",
        "| shape | rank | indices | | device | kept | bmm | bag | peak | bag |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        setting = " | ".join(str(row[name]) for name in Setting._fields)
        both = row["forward_backward_ratio_tltorch"]
        lines.append(
            f"| {setting} | **{row['forward_ratio']:.1f}×** "
            f"| **{row['forward_backward_ratio']:.1f}×** | **{row['step_ratio']:.2f}** "
            f"| {row['step_ratio_sgd']:.2f} "
            f"| {row['forward_ms']:.2f} / {row['forward_backward_ms']:.2f} "
            f"| {'not installed' if both is None else f'{both:.0f}×'} |"
        )
        sizes = " | ".join(f"{row[name] / 1e6:.1f}" for name in _MEMORY)
        memory.append(f"| {setting} | {sizes} |")
    return "\n".join(lines + memory)
