import os
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import lit_gnncompress

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lit_gnncompress"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def own(wheel, name):
    (folder,) = wheel.glob("*.dist-info")
    return (folder / name).read_text()


def test_the_wheel_holds_the_package_alone(wheel):
    modules = {path.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    held = {path.relative_to(wheel) for path in wheel.rglob("*") if path.is_file()}
    held = {path for path in held if not path.parts[0].endswith((".whl", ".dist-info"))}
    assert held == modules | {Path("lit_gnncompress/py.typed")}


def test_the_wheel_says_what_it_is_and_needs(wheel):
    told = message_from_string(own(wheel, "METADATA"))
    assert told["Version"] == lit_gnncompress.__version__
    assert told.get_payload().startswith((ROOT / "README.md").read_text().partition("\n")[0])
    needs = {each.partition(">")[0] for each in told.get_all("Requires-Dist") if ";" not in each}
    assert {"torch", "lightning", "torch-geometric", "numba", "pymetis"} <= needs
    assert "lit-gnncompress = lit_gnncompress.command:main" in own(wheel, "entry_points.txt")
    assert own(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text()


def test_the_command_runs_from_the_wheel(wheel, tmp_path):
    code = "from lit_gnncompress import command as c; print(c.__file__); c.main(['pack', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert str(wheel) in done.stdout.splitlines()[0]
    assert "usage: lit-gnncompress pack" in done.stdout
