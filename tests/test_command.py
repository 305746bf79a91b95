import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_gnncompress import command
from lit_gnncompress.cli import CompressCLI

ROOT = str(Path(__file__).parents[1])


@pytest.mark.parametrize("given", [["--help"], ["-h"], []])
def test_the_overview_lists_all_commands(given, capsys):
    command.main(given)
    out = capsys.readouterr().out
    names = {line.split()[0] for line in out.splitlines() if line.startswith("    ")}
    assert names == {*CompressCLI.subcommands(), "compare", "export", "pack"}
    for name in ("fit", "compare", "export", "pack"):
        assert f"\n  lit-gnncompress {name} " in out
    assert "BasePredictionWriter" in out  # without which a prediction goes nowhere


def test_other_arguments_go_to_the_command_line(capsys):
    for name in ("compare", "export", "pack"):
        with pytest.raises(SystemExit) as caught:
            command.main([name, "--help"])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: lit-gnncompress {name}")


def test_the_overview_imports_neither_torch_nor_lightning():
    code = (
        "import sys, json; from lit_gnncompress.command import main; main(['--help']); "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "numpy"} & {*json.loads(done.stdout.splitlines()[-1])}


def test_python_m_is_the_same(capsys):
    command.main(["--help"])
    done = subprocess.run(
        [sys.executable, "-m", "lit_gnncompress", "--help"],
        env=os.environ | {"PYTHONPATH": ROOT},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == capsys.readouterr().out
