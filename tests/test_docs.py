"""The site builds without a warning and has every public name.

Its code blocks are tests of their own: see code_blocks.py.
"""

import html
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lit_gnncompress
from lit_gnncompress import storage
from tests.code_blocks import ROOT

ROOMS = [
    "callbacks", "data", "embedding", "kernels", "models", "quantization", "search", "storage",
]  # fmt: skip


def _load(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docstrings = _load("docs/hooks/docstrings.py")
reference_hook = _load("docs/hooks/reference.py")


# --- the site -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def reference(site, room):
    return (site / "api" / f"{room}.html").read_text(encoding="utf-8")


def plain(page):
    """The words of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())


def headings(page):
    """Anchors of all that a page of the reference describes."""
    return set(re.findall(r'<h\d id="([\w.]+)"', page))


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_in_the_reference(site, room):
    module, there = (
        importlib.import_module(f"lit_gnncompress.{room}"),
        headings(reference(site, room)),
    )
    for name in module.__all__:
        is_module = importlib.util.find_spec(f"{module.__name__}.{name}")
        place = f"{name}.{name}" if is_module else name
        assert f"{module.__name__}.{place}" in there


def test_every_name_of_the_package_is_in_the_reference(site):
    there = set()
    for page in site.glob("api/*.html"):
        there |= headings(page.read_text(encoding="utf-8"))
    for name in lit_gnncompress.__all__:
        room = f"lit_gnncompress.{lit_gnncompress._HOMES[name]}"
        assert there & {f"{room}.{name}", f"{room}.{name}.{name}"}, name


def test_what_a_package_exports_is_read_from_it():
    names = reference_hook.exported(ROOT / "lit_gnncompress" / "storage")
    assert [name.rpartition(".")[2] for name in names] == storage.__all__
    assert "pack.pack" in names  # not the module of that name


def test_every_page_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob("**/*.md")}
    assert set(re.findall(r": (\S+\.md)$", nav, re.MULTILINE)) == pages


def test_every_code_block_is_of_a_language_that_is_run():
    for page in (ROOT / "docs").glob("**/*.md"):
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^ *(?:```|~~~)(.*)$", text, re.MULTILINE)
        assert set(fences[::2]) <= {"python", "yaml", "console", "text"}, page
        assert set(fences[1::2]) <= {""}, page


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', text)


def test_docstrings_are_readable(site):
    for page in site.glob("api/*.html"):
        text = plain(page.read_text(encoding="utf-8"))
        assert not re.findall(r":(?:class|func|meth|attr|math):|\.\. math::|``|`_\b", text), page
    page = reference(site, "embedding")
    for section in ("Parameters", "Returns", "Raises", "Attributes", "Examples"):
        assert f"{section}:" in plain(page), section


def test_roles_become_links(site):
    page = reference(site, "callbacks")
    (link,) = set(re.findall(r'<a [^>]*href="([^"]+)"><code>PackedTensor</code></a>', page))
    assert link == "storage.html#lit_gnncompress.storage.PackedTensor"


def test_the_picture_of_the_benchmarks_is_shown(site):
    assert (site / "pictures/demo.png").read_bytes().startswith(b"\x89PNG")
    assert 'src="pictures/demo.png"' in (site / "index.html").read_text(encoding="utf-8")


def test_the_theme_fetches_no_font():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    theme = yaml.safe_load(settings.partition("\ntheme:")[2].partition("\n  icon:")[0])
    assert theme["font"] is False


# --- docstrings to Markdown ---------------------------------------------------------------------

PATHS = {"pack": "package.storage.pack", "package.plan.BitPlan": "package.plan.BitPlan"}


@pytest.mark.parametrize(
    ("rest", "markdown"),
    [
        (
            "see :class:`~package.plan.BitPlan`.",
            'see <autoref identifier="package.plan.BitPlan" optional><code>BitPlan</code>'
            "</autoref>.",
        ),
        (
            ":func:`pack` it",
            '<autoref identifier="package.storage.pack" optional><code>pack</code></autoref> it',
        ),
        (":meth:`unknown`", "<code>unknown</code>"),
        ("`A\n  paper <https://a.org/b_c>`_ of", "[A paper](https://a.org/b_c) of"),
        ("Example:\n    >>> 1", "Examples:\n    >>> 1"),
        ("as follows::\n\n    code", "as follows:\n\n    code"),
        ("``a`` and ``b``", "``a`` and ``b``"),
        (":math:`p_1`", '<span class="formula"><i>p</i><sub>1</sub></span>'),
        (
            "    .. math:: a = b,\n        c\n\n    after",
            '    <p class="formula"><i>a</i> = <i>b</i>, <i>c</i></p>\n\n    after',
        ),
    ],
)
def test_rest_becomes_markdown(rest, markdown):
    assert docstrings.to_markdown(rest, PATHS.get) == markdown


@pytest.mark.parametrize(
    ("tex", "words"),
    [
        (r"i = (i_1 p_2 + i_2) p_3 + i_3", "i = (i1 p2 + i2) p3 + i3"),
        (r"R_{k-1} q_k > p_k R_k", "Rk − 1 qk > pk Rk"),
        (r"D^{-1/2} A D^{-1/2}", "D−1 / 2 A D−1 / 2"),
        (r"\frac{1}{L+1} \sum_{l=0}^{L} x", "1 / (L + 1)∑l = 0L x"),
        (r"-\log\sigma(s)", "−log σ(s)"),
        (r"\lfloor v \rfloor \in \{0, 1\}", "⌊v⌋ ∈ {0, 1}"),
        (r"\mathrm{round}((x - lo) / s)", "round((x − lo) / s)"),
        (r"\sqrt{n_a n_b} \times 2", "√(na nb) × 2"),
    ],
)
def test_a_formula_can_be_read_as_text(tex, words):
    assert plain(docstrings.formula(tex)) == words


def test_an_unknown_command_in_a_formula_is_refused():
    with pytest.raises(ValueError, match=r"\\aleph in the formula"):
        docstrings.formula(r"\aleph_0")
