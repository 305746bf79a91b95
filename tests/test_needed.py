import json
import subprocess
import sys
import textwrap

import pytest

from lit_gnncompress.needed import needed


def test_a_package_that_is_missing_is_named_with_how_to_get_it():
    with (
        pytest.raises(
            ImportError, match=r"A search needs .* some-package: `pip install some-package` \(No"
        ),
        needed("some-package", by="A search"),
    ):
        import no_such_module  # noqa: F401


def test_other_errors_pass():
    with pytest.raises(ValueError, match=r"^other$"), needed("numpy", by="A search"):
        raise ValueError("other")


WITHOUT = """
    import importlib, importlib.metadata, json, pkgutil, sys

    # Module, and the name of what it is installed from.
    packages = {"matplotlib": "matplotlib", "pymetis": "pymetis", "skopt": "scikit-optimize",
                "triton": "triton"}

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def distribution(name, found=importlib.metadata.distribution):
        if name in packages.values():
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    sys.meta_path.insert(0, Missing())
    importlib.metadata.distribution = distribution
    import torch
    import lit_gnncompress
    from lit_gnncompress import BitPlan, hierarchical_order, report, search_report
    from lit_gnncompress.kernels import library
    from lit_gnncompress.search import cost_model

    for module in pkgutil.walk_packages(lit_gnncompress.__path__, "lit_gnncompress."):
        if ".cuda" not in module.name and module.name != "lit_gnncompress.__main__":
            importlib.import_module(module.name)
    missing = sorted(name for name in sys.modules if name.partition(".")[0] in packages)
    uses = {
        "pymetis": lambda: hierarchical_order(
            torch.tensor([[0, 1], [1, 2]]), 3, (2, 2), progress=False
        ),
        "scikit-optimize": lambda: cost_model.CostModel(None, 0.1),
        "matplotlib": lambda: report.plot_comparison(None, "x"),
        "triton": lambda: library._on_first_call("cuda", "pack_bits")(),
        "matplotlib ": lambda: search_report.plot_search(None, "x"),
    }
    told = {}
    for package, use in uses.items():
        try:
            use()
        except ImportError as error:
            told[package] = str(error)
    print(json.dumps([missing, told]))
"""


def test_every_module_is_imported_without_the_packages_that_are_imported_where_they_are_used():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    missing, told = json.loads(done.stdout.splitlines()[-1])
    assert not missing
    for package, message in told.items():
        assert f"`pip install {package.strip()}`" in message
    assert len(told) == 5
