"""Where the rows of a benchmark go: the terminal, a JSON file, a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markdown import Markdown

from lit_gnncompress.files import replacing

Row = dict[str, Any]


class Output:
    """Rows as they are measured; files are complete after each, so that nothing is lost.

    Args:
        name: The benchmark.
        table: Turns rows into Markdown.
        json_path: File of the rows. Rows that it has already stay, except those measured anew.
        markdown_path: File of the table.
    """

    def __init__(
        self,
        name: str,
        table: Callable[[list[Row]], str],
        json_path: Path | None = None,
        markdown_path: Path | None = None,
    ) -> None:
        self.name = name
        self.console = Console()
        self._table = table
        self._json, self._markdown = json_path, markdown_path
        self._machine = machine()
        self.rows: list[Row] = []
        if json_path is not None and json_path.exists():
            self.rows = json.loads(json_path.read_text(encoding="utf-8"))["rows"]

    def add(self, row: Row, key: tuple[str, ...]) -> None:
        """Keeps a row, in place of one that agrees with it in the fields ``key``."""
        row = {**row, "machine": self._machine}
        same = [i for i, old in enumerate(self.rows) if all(old.get(k) == row[k] for k in key)]
        if same:
            self.rows[same[0]] = row
        else:
            self.rows.append(row)
        if self._json is not None:
            document = {"benchmark": self.name, "machine": self._machine, "rows": self.rows}
            _write(self._json, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        if self._markdown is not None:
            _write(self._markdown, self.markdown())

    def markdown(self) -> str:
        """The table, with the machines that its rows were measured on."""
        machines = sorted({_describe(row["machine"]) for row in self.rows})
        measured = "\n".join(f"- {text}" for text in machines)
        return f"{self._table(self.rows)}\n\nMeasured on\n\n{measured}\n"

    def print(self) -> None:
        """Prints the table."""
        self.console.print(Markdown(self.markdown()))


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    packages = ("torch", "lightning", "torch-geometric")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _commit() -> str | None:
    """The revision of the code, with a plus where files differ from it."""
    folder = Path(__file__).parent
    shown = ["git", "describe", "--always", "--abbrev=10", "--match=", "--dirty=+"]
    try:
        found = subprocess.run(shown, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # not a clone
    return found.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _describe(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{n} {machine[n]}" for n in ("torch", "lightning", "torch-geometric"))
    commit = f", commit {machine['commit']}" if machine.get("commit") else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread(s), "
        f"device {machine['device']}; Python {machine['python']}, {versions}{commit}"
    )


def _write(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
