"""Runs the code blocks of Markdown files, each page in a folder of its own.

- ``python`` is executed, with one namespace for a page; ``>>>`` is compared with what follows it.
- ``yaml`` is a bit plan, or a configuration that is read and whose objects are made.
- ``console`` is run: ``lit-gnncompress`` and ``python`` as they stand, with what a comment before
  the block adds, ``<!-- tested with: --trainer.max_epochs=2 -->``. Of ``make`` and ``pip`` the
  targets and extras must exist.

Other languages are not run; tests/test_docs.py allows ``text`` alone. Packages are imported where
they are used, because conftest.py is read before any test.
"""

import contextlib
import doctest
import glob
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
_ADDED = re.compile(r"<!-- tested with: (.*?) -->\n\s*$")


# --- what each language means -------------------------------------------------------------------


def _yaml(example):
    from lit_gnncompress import BitPlan
    from lit_gnncompress.cli import CompressCLI

    read = yaml.safe_load(example.parsed)
    if "plan" in read:
        BitPlan.from_dict(read["plan"])
    elif {"trainer", "model", "data"} & set(read):
        trainer = {"logger": False, **read.get("trainer", {})}  # nothing is fitted, nor logged
        with _called_with([]):
            CompressCLI({**read, "trainer": trainer}, run=False)
    else:
        BitPlan.from_dict(read)


def _console(example):
    before = example.document.text[: example.region.start]
    added = _ADDED.search(before)
    commands = re.sub(r"\\\n\s*", "", example.parsed).splitlines()
    for command in filter(None, map(_without_comment, commands)):
        program, *arguments = [name for word in shlex.split(command) for name in _names(word)]
        if program not in _PROGRAMS:
            raise ValueError(f"{command}: there is no way to test {program}.")
        _PROGRAMS[program](arguments, shlex.split(added[1]) if added else [])


def _names(word):
    """The files that a word stands for, as in a shell; or the word."""
    return sorted(glob.glob(word)) or [word]


def _without_comment(line):
    return re.sub(r"(^|\s)#.*", "", line).removeprefix("$ ").strip()


def _lit_gnncompress(arguments, added):
    arguments = [*arguments, *added]
    if any("devices=" in argument for argument in arguments):
        # Its processes run the command anew, which is that of the tests in this process.
        command = [sys.executable, "-m", "lit_gnncompress", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    from lit_gnncompress.command import main

    code = None
    try:
        with _called_with(["lit-gnncompress", *arguments]):
            main()
    except SystemExit as end:
        code = end.code
    assert code in (None, 0), code


def _python(arguments, added):
    script, *arguments = arguments
    if script == "-m":  # benchmarks take long
        package, name, *_ = arguments
        assert (ROOT / package / f"{name}.py").exists(), arguments
        return
    with _called_with([script, *arguments, *added]):
        runpy.run_path(script, run_name="__main__")


@contextlib.contextmanager
def _called_with(arguments):
    """As if a process had been started with these."""
    own = sys.argv
    try:
        sys.argv = arguments or own[:1]
        yield
    finally:
        sys.argv = own


def _make(arguments, added):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(arguments) <= set(targets), arguments


def _pip(arguments, added):
    assert arguments[0] == "install", arguments
    settings = (ROOT / "pyproject.toml").read_text()
    for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(arguments)):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", settings, re.MULTILINE), extra


_PROGRAMS = {"lit-gnncompress": _lit_gnncompress, "python": _python, "make": _make, "pip": _pip}

PARSERS = [
    PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE),
    CodeBlockParser("yaml", _yaml),
    CodeBlockParser("console", _console),
]


# --- a folder for a page ------------------------------------------------------------------------


def enter_folder(namespace):
    """Goes to an empty folder that has the examples; every page draws the same numbers."""
    import torch

    namespace["_folders"] = os.getcwd(), tempfile.mkdtemp()
    os.chdir(namespace["_folders"][1])
    shutil.copytree(ROOT / "examples", "examples")
    torch.manual_seed(0)


def leave_folder(namespace):
    """Goes back."""
    own, folder = namespace["_folders"]
    os.chdir(own)
    shutil.rmtree(folder)


def enter_folder_of_readme(namespace):
    """As for a page, with what the README takes for granted."""
    from tests.readme_names import names

    enter_folder(namespace)
    namespace |= names()
