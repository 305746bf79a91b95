import json
import subprocess
import sys

import lit_gnncompress

HEAVY = [
    "torch_geometric",
    "pymetis",
    "numba",
    "matplotlib",
    "sklearn",
    "scipy.stats",
    "jsonargparse",
    "rich",
]


def test_import_is_light():
    code = (
        "import sys, json, lightning; before = set(sys.modules); import lit_gnncompress; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    added = json.loads(done.stdout.splitlines()[-1])
    assert "lit_gnncompress" in added
    assert not [name for name in added if name.startswith(tuple(HEAVY))]


def test_every_public_name_is_there():
    for name in lit_gnncompress.__all__:
        assert getattr(lit_gnncompress, name).__name__ == name
    assert set(lit_gnncompress.__all__) <= set(dir(lit_gnncompress))
    assert not hasattr(lit_gnncompress, "Bitplan")


def test_the_callbacks_are_there():
    from lit_gnncompress import callbacks

    names = ["BitSearch", "CompressActivations", "QuantizationFinetuning", "Quantize", "Tensorize"]
    assert sorted(callbacks.__all__) == names
    assert all(hasattr(callbacks, name) for name in callbacks.__all__)
