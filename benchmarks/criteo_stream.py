"""Files in Criteo's format, streamed to arrays: time, memory, and the time of a second call."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.progress import Progress

from benchmarks.criteo_rows import write_criteo
from benchmarks.output import Output, Row
from benchmarks.process_peak import ProcessPeak, own_process
from lit_gnncompress.data.category_rows import CategoryRule
from lit_gnncompress.data.criteo_files import NUM_CATEGORIES, CriteoFormat
from lit_gnncompress.data.table_files import TableFiles
from lit_gnncompress.data.table_rows import TableRows
from lit_gnncompress.data.table_sources import Sources

_WARM_UP = 2000  # rows, with which the code of loops is made: no part of a reading
_MOST_CATEGORIES = 10_000_000  # of a field, as CriteoDataModule has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's arguments."""
    parser.add_argument(
        "--rows",
        nargs="+",
        type=int,
        default=[10_000_000],
        help="of a generated file: about 260 bytes each, and 157 of arrays made of them "
        "(default: 10 million)",
    )
    parser.add_argument(
        "--folder", help="where the files are written (default: that of the system)"
    )


def run(args: argparse.Namespace, output: Output) -> None:
    """Reads each file in a process of its own, whose memory is watched; then once more."""
    if min(args.rows) < 1:
        raise ValueError(f"--rows {min(args.rows)} must be 1 or more.")
    with Progress(console=output.console) as progress:
        task = progress.add_task("files", total=len(args.rows))
        for num_rows in args.rows:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                progress.update(task, description=f"writing {num_rows:,} rows")
                path, warm_up = Path(folder, "day_0"), Path(folder, "warm_up")
                write_criteo(path, num_rows)
                write_criteo(warm_up, _WARM_UP)
                progress.update(task, description=f"reading {num_rows:,} rows")
                with own_process() as (pool, pid):
                    pool.submit(read, warm_up).result()
                    with ProcessPeak(pid) as peak:
                        row = pool.submit(read, path).result()
                    again = pool.submit(read, path).result()
            if again["arrays_bytes"] != row["arrays_bytes"]:
                raise RuntimeError(f"{num_rows:,} rows: the second call found other arrays.")
            row |= {"peak_memory_mb": peak.bytes / 1e6, "second_call_seconds": again["seconds"]}
            output.add(row, key=("rows",))
            progress.advance(task)


def read(path: Path) -> Row:
    """Has the arrays of a file, which are made beside it unless they are there."""
    rule = CategoryRule.of(NUM_CATEGORIES, 1, _MOST_CATEGORIES, 1)
    files = TableFiles(Sources((path,)), CriteoFormat(), rule)
    start = time.perf_counter()
    rows = files.rows(path.parent, progress=False)
    seconds = time.perf_counter() - start
    return {
        "rows": len(rows),
        "file_bytes": path.stat().st_size,
        "seconds": seconds,
        "rows_per_second": len(rows) / seconds,
        "arrays_bytes": _bytes_of(rows),
    }


def _bytes_of(rows: TableRows) -> int:
    return rows.dense.nbytes + rows.sparse.nbytes + rows.label.nbytes


def table(rows: list[Row]) -> str:
    """A line for each file."""
    lines = [
        "Generated files in Criteo's format, with the categories of Kaggle's, read once: to arrays "
        "of 13 numbers and 26 rows of tables. Memory: most of the process and all that it starts, "
        "with Python and torch; the code of loops was there. Second call: the arrays are there "
        "and compared with their checksums. Decimal units.",
        "",
        "| rows | file, GB | seconds | rows a second | memory, MB | second call, s | arrays, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['rows']:,} | {row['file_bytes'] / 1e9:.2f} | {row['seconds']:.1f} "
        f"| {row['rows_per_second']:,.0f} | {row['peak_memory_mb']:,.0f} "
        f"| {row['second_call_seconds']:.2f} | {row['arrays_bytes'] / 1e9:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)
