"""Runs one benchmark: prints its table, or writes it with ``--json`` and ``--markdown``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.output import Output

NAMES = (
    "activations",
    "aggregate",
    "combined",
    "criteo_stream",
    "dlrm",
    "dlrm_quality",
    "gather",
    "granularity",
    "inference",
    "linear",
    "memory",
    "ordering",
    "overhead",
    "scale",
    "search",
    "table3",
    "training",
    "tt_gnn",
    "tt_lookup",
    "tt_recommender",
)


def main() -> None:
    """Parses the command line and runs the benchmark it names."""
    args = make_parser().parse_args()
    output = Output(args.name, args.table, args.json, args.markdown)
    args.run(args, output)
    output.print()


def make_parser() -> argparse.ArgumentParser:
    """The arguments of all benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    subparsers = parser.add_subparsers(dest="name", required=True)
    for name in NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        own = subparsers.add_parser(name, help=module.__doc__, description=module.__doc__)
        own.add_argument("--json", type=Path, help="file of the rows; rows of other settings stay")
        own.add_argument("--markdown", type=Path, help="file of the same as a table")
        module.add_arguments(own)
        own.set_defaults(run=module.run, table=module.table)
    return parser


if __name__ == "__main__":
    main()
