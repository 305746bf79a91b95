import io
import json
import warnings

import pytest
from matplotlib import image
from rich.console import Console

from lit_gnncompress import BitPlan, Comparison, Ledger
from lit_gnncompress.report import plot_comparison, print_comparison, print_ledger, write_report
from lit_gnncompress.results import SeedResult
from lit_gnncompress.storage.ledger import LedgerRow


def row(site, component="features", degrees="", bits=4, rows=100, width=50):
    codes = rows * width * bits // 8
    return LedgerRow(site, component, degrees, rows, width, bits, codes, 8, 4 * rows * width)


LEDGER = Ledger(
    [
        row("model.convs.0", degrees="0–3", bits=2),
        row("model.convs.0", degrees="4+", bits=8),
        row("model.convs.0", "attention", width=8),
        row("model.convs.1", bits=32),
    ],
    bytes_buckets=200,
)


def comparison_of(num_seeds=3, ledger=LEDGER):
    results = [SeedResult(seed, 0.8 + seed / 100, 0.79 + seed / 90, 5) for seed in range(num_seeds)]
    return Comparison("test_acc", results, BitPlan(features=4), ledger)


@pytest.fixture
def console():
    return Console(width=100, record=True, file=io.StringIO())


def test_the_ledger_is_a_table_with_totals(console):
    print_ledger(LEDGER, console)
    lines = console.export_text().splitlines()
    convs = [line for line in lines if "convs.0" in line]
    assert [("0–3" in line, "4+" in line) for line in convs] == [
        (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert not [line for line in lines if "model." in line]
    (total,) = [line for line in lines if line.startswith("│all")]
    assert f"{LEDGER.average_bits:.2f}" in total
    assert f"{LEDGER.saving_real:.1f}×" in total
    assert f"{LEDGER.saving_paper_count:.1f}×" in lines[-1]


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_shows_all_of_its_numbers(width):
    console = Console(width=width, record=True, file=io.StringIO())
    big = Ledger([row("encoder.layers.11.convolution", degrees="1024+", rows=2_449_029, width=100)])
    print_ledger(big, console)
    text = console.export_text()
    assert "2,449,029" in text
    assert "980 MB" in text
    assert "8.0×" in text
    assert "…" not in text


def test_a_ledger_of_nothing_can_be_printed(console):
    print_ledger(Ledger(), console)
    assert "1.0×" in console.export_text()


def test_the_comparison_shows_means_intervals_and_the_sign_of_the_difference(console):
    comparison = comparison_of()
    print_comparison(comparison, console)
    text = console.export_text()
    assert "test_acc of 3 seeds" in text
    assert f"{comparison.delta.mean:+.4f}" in text
    for name in ("full_precision", "quantized", "delta"):
        interval = getattr(comparison, name)
        assert f"± {interval.ci95:.4f}" in text
        assert f"{interval.mean:.4f}" in text


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_report_is_written_complete(num_seeds, tmp_path):
    comparison = comparison_of(num_seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text, picture = write_report(comparison, tmp_path / "new" / "folder")
    assert json.loads(text.read_text(encoding="utf-8")) == comparison.to_dict()
    assert image.imread(picture).shape[0] > 300
    assert {p.name for p in text.parent.iterdir()} == {"report.json", "report.png"}


def test_a_report_replaces_the_last_one(tmp_path):
    write_report(comparison_of(2), tmp_path)
    text, _ = write_report(comparison_of(3), str(tmp_path))
    assert len(json.loads(text.read_text(encoding="utf-8"))["seeds"]) == 3


def test_a_failed_report_leaves_the_last_one_whole(tmp_path, monkeypatch):
    text, picture = write_report(comparison_of(2), tmp_path)
    before = picture.read_bytes()

    def fail(comparison, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("lit_gnncompress.report.plot_comparison", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(comparison_of(3), tmp_path)
    assert picture.read_bytes() == before
    assert json.loads(text.read_text(encoding="utf-8"))


def test_the_picture_does_not_change_pyplot(tmp_path):
    from matplotlib import pyplot

    plot_comparison(comparison_of(), tmp_path / "a.png")
    assert pyplot.get_fignums() == []
