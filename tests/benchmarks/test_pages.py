"""Pages show what was measured, and nothing else."""

import pytest

from benchmarks import pages


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert pages.filled(text) == text, "run `python -m benchmarks.pages`"


def test_only_marked_sections_change():
    text = "before\n<!-- table3 -->\nold\n<!-- /table3 -->\nafter\n"
    filled = pages.filled(text)
    assert filled.startswith("before\n<!-- table3 -->\n| |")
    assert filled.endswith("|\n<!-- /table3 -->\nafter\n")
    assert "old" not in filled


def test_what_was_not_measured_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    text = pages.filled("<!-- all of granularity -->\n<!-- /all of granularity -->\n")
    assert "Not measured: `python -m benchmarks granularity`." in text


def test_unknown_tables_are_refused():
    with pytest.raises(ValueError, match=r"table4 -->: known are .*table3"):
        pages.filled("<!-- table4 -->\n<!-- /table4 -->\n")
    with pytest.raises(ValueError, match=r"all of table4 -->: known are .*all of table3"):
        pages.filled("<!-- all of table4 -->\n<!-- /all of table4 -->\n")
