import os
import subprocess
import sys

import numpy as np
import pytest

from lit_gnncompress import cli
from lit_gnncompress.cli import main
from lit_gnncompress.storage.feature_file import open_features


@pytest.fixture(autouse=True)
def features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).standard_normal((1000, 64)).astype("f4")
    np.save("features.npy", x)
    return x


def test_pack(features, capsys):
    main(["pack", "features.npy", "--bits", "4", "--out", "packed.safetensors"])
    x = open_features("packed.safetensors", verify=True)
    assert x.bits == (4,)
    error = np.abs(x.dequantize().numpy() - features)
    spread = features.max(1, keepdims=True) - features.min(1, keepdims=True)
    assert (error <= spread / 30 * 1.001).all()
    lines = capsys.readouterr().out.splitlines()
    table = {c[0].strip(): c[1].strip() for c in (s.strip("│").split("│") for s in lines) if c[1:]}
    assert table["rows"] == "1,000"
    assert table["width"] == "64"
    assert table["bits"] == "4"
    assert table["bytes before"] == "256,000"
    assert table["bytes after"] == f"{os.path.getsize('packed.safetensors'):,}"
    assert table["time"].endswith(" s")
    assert table["speed"].endswith(" GB/s")


def test_the_name_is_that_of_the_source():
    main(["pack", "features.npy", "--granularity", "column"])
    x = open_features("features.safetensors")
    assert x.bits == (8,)
    assert x.blocks[0].by_column


def test_a_file_that_is_there():
    main(["pack", "features.npy"])
    with pytest.raises(SystemExit, match="exists already"):
        main(["pack", "features.npy", "--bits", "4"])
    main(["pack", "features.npy", "--bits", "2", "--range", "mse", "--overwrite"])
    assert open_features("features.safetensors").bits == (2,)


def test_what_cannot_be_packed(features):  # and no traceback
    np.save("int.npy", np.ones((2, 2), int))
    features[7, 3] = np.nan
    np.save("nan.npy", features)
    with open("text.npy", "w") as file:
        file.write("0 1 2")
    for args, message in (
        (["none.npy"], "none.npy"),
        (["int.npy"], "holds int64"),
        (["nan.npy"], "row 7, column 3 is nan"),
        (["text.npy"], "no .npy file"),
        (["features.npy", "--bits", "9"], "bits=9"),
        (["features.npy", "--out", "none/x"], "no folder none"),
        (["features.npy", "--range", "mse", "--granularity", "tensor"], "for rows alone"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["pack", *args])
    assert not [name for name in os.listdir() if not name.endswith(".npy")]


def test_an_interrupt(monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "pack_file", interrupted)
    with pytest.raises(SystemExit, match=r"features\.safetensors was not written"):
        main(["pack", "features.npy"])


@pytest.mark.parametrize("args", [["--bits", "four"], ["--granularity", "auto"], []])
def test_bad_arguments(args):
    with pytest.raises(SystemExit) as caught:
        main(["pack", *(["features.npy", *args] if args else [])])
    assert caught.value.code == 2


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["pack", "--help"])
    out = capsys.readouterr().out
    assert all(
        word in out for word in ["--bits", "--granularity", "--range", "--out", "--overwrite"]
    )


def test_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "lit_gnncompress", "pack", "features.npy", "--bits", "9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: bits=9: a code has 1 to 8 bits.\n"
