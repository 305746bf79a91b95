import gzip
import math

import numpy as np
import pytest

from lit_gnncompress.data import table_text
from lit_gnncompress.data.criteo_files import CriteoFormat
from lit_gnncompress.data.libfm_files import LibFMFormat
from lit_gnncompress.data.table_text import BadRows, TextFile

GOOD = ["1", *"123", *["a0"] * 2]
FORM = CriteoFormat(num_dense=3, num_fields=2)


def line(*words):
    return "\t".join(words) + "\n"


def read(path, form, on_bad_rows="error", labelled=True):
    bad, seen = BadRows(on_bad_rows), []
    label, dense, sparse = [], [], []
    for block in TextFile(path, form, labelled).blocks(bad, seen.append):
        label += block.label.tolist()
        dense.append(block.dense.copy())
        sparse += block.sparse.tolist()
    assert sum(seen) == path.stat().st_size
    return label, np.concatenate(dense or [np.empty((0, form.num_dense))]), sparse, bad


def test_numbers_become_logarithms_and_categories_numbers(tmp_path):
    path = tmp_path / "day"
    path.write_text(line("0", "0", "-2", "1382", "00ff", "FFFFFFFF") + line("1", *[""] * 5))
    label, dense, sparse, _ = read(path, FORM)
    assert label == [0, 1]
    np.testing.assert_allclose(dense, [[0, 0, math.log(1383)], [0, 0, 0]], rtol=1e-6)
    assert sparse == [[255, 2**32 - 1], [0, 0]]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_ends_of_lines_and_compression_make_no_difference(end, last, packed, tmp_path):
    rows = [["1", str(k), "", "-1", f"{k:x}", ""] for k in range(50)]
    text = end.join("\t".join(row) for row in rows) + (end if last else "")
    path = tmp_path / "day.gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    label, dense, sparse, _ = read(path, FORM)
    assert label == [1] * 50
    np.testing.assert_allclose(dense[:, 0], np.log1p(np.arange(50)), rtol=1e-6)
    assert sparse == [[k, 0] for k in range(50)]


@pytest.mark.parametrize("text_bytes", [41, 64, 1000])
@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_blocks_of_any_size_give_the_same(text_bytes, block_rows, tmp_path, monkeypatch):
    rows = [["0", str(k), "", "5" * (k % 7), f"{k:x}", ""] for k in range(100)]
    rows[40] = ["0"]
    path = tmp_path / "day"
    path.write_text("".join(line(*row) for row in rows))
    monkeypatch.setattr(table_text, "TEXT_BYTES", text_bytes)
    monkeypatch.setattr(table_text, "BLOCK_ROWS", block_rows)
    _, dense, sparse, bad = read(path, FORM, "skip")
    numbers = [k for k in range(100) if k != 40]
    assert sparse == [[k, 0] for k in numbers]
    expected = [math.log1p(int("5" * (k % 7) or 0)) for k in numbers]
    np.testing.assert_allclose(dense[:, 2], expected, rtol=1e-6)
    assert bad.count == 1
    assert f"{path}, line 41: 1 fields" in bad.first


def test_files_to_predict_have_no_label(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text(line(*GOOD[1:]))
    label, dense, sparse, _ = read(path, FORM, labelled=False)
    np.testing.assert_allclose(dense, np.log1p([[1, 2, 3]]), rtol=1e-6)
    assert (label, sparse) == ([0], [[160, 160]])


BAD_ROWS = [
    (GOOD[:4], r"4 fields, where 6 \(a label, 3 integers, 2 categories, apart by tabs\) belong"),
    (GOOD[1:], r"5 fields, where .* belong; one without a label goes to predict_path"),
    ([*GOOD, "1"], r"7 fields, where 6"),
    ([""], r"it is empty, where 6"),
    (["2", *GOOD[1:]], r"label is '2', which is no label: 0 or 1"),
    (["", *GOOD[1:]], r"label is ''"),
    (["1", "1.5", *GOOD[2:]], r"I1 is '1.5', which is no integer"),
    (["1", "1", "-", *GOOD[3:]], r"I2 is '-'"),
    (["1", "1", "2-", *GOOD[3:]], r"I2 is '2-'"),
    (["1", "9" * 19, *GOOD[2:]], r"I1 is '9999999999999999999', which is no .* 17 digits"),
    ([*GOOD[:5], "0g"], r"C2 is '0g', which is no category of up to 8 hexadecimal"),
    ([*GOOD[:5], "123456789"], r"C2 is '123456789'"),
    ([*GOOD[:5], "ä"], r"C2 is 'ä'"),
]


@pytest.mark.parametrize(("words", "message"), BAD_ROWS)
def test_what_is_no_row_is_named_or_counted(words, message, tmp_path):
    path = tmp_path / "day_3"
    path.write_text(line(*GOOD) + (line(*words) + line(*GOOD)) * 2)
    with pytest.raises(ValueError, match=rf"day_3, line 2: {message}.*on_bad_rows='skip'"):
        read(path, FORM)
    label, _, _, bad = read(path, FORM, "skip")
    assert (len(label), bad.count) == (3, 2)


@pytest.mark.parametrize("text_bytes", [41, 64, 1000])
@pytest.mark.parametrize("end", ["", "\n\n", "\r\n\r\n", "\n" * 20])
@pytest.mark.parametrize("packed", [True, False])
def test_marks_and_empty_lines_at_the_ends_are_left_out(
    text_bytes, end, packed, tmp_path, monkeypatch
):
    monkeypatch.setattr(table_text, "TEXT_BYTES", text_bytes)
    text = b"\xef\xbb\xbf" + (line(*GOOD) * 9 + end).encode()
    path = tmp_path / "day"
    path.write_bytes(gzip.compress(text) if packed else text)
    label, dense, sparse, bad = read(path, FORM)
    assert (label, sparse, bad.count) == ([1] * 9, [[160, 160]] * 9, 0)
    np.testing.assert_allclose(dense, np.log1p([[1, 2, 3]] * 9), rtol=1e-6)


@pytest.mark.parametrize("text_bytes", [41, 1000])
def test_empty_lines_between_rows_are_none(text_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(table_text, "TEXT_BYTES", text_bytes)
    path = tmp_path / "day"
    path.write_text(line(*GOOD) + "\n" * 15 + line(*GOOD))
    with pytest.raises(ValueError, match="day, line 2: it is empty"):
        read(path, FORM)
    label, _, _, bad = read(path, FORM, "skip")
    assert (len(label), bad.count) == (2, 15)


def test_files_that_are_cut_off_are_refused(tmp_path):
    path = tmp_path / "day.gz"
    whole = gzip.compress(b"".join(b"%d\n" % (k**5) for k in range(5000)))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"day.gz is damaged or cut off .* get it once more"):
        read(path, FORM, "skip")


def test_lines_without_end_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "day"
    path.write_bytes(b"0" * 2000)
    monkeypatch.setattr(table_text, "TEXT_BYTES", 1000)
    with pytest.raises(ValueError, match=r"day, line 1: no end of the line in 1,000 bytes"):
        read(path, FORM)


def test_libfm_rows_are_read(tmp_path):
    path = tmp_path / "train.libfm"
    path.write_text("1 4:1 70:1\n-1  5:1.0\t71:1 \n0 4294967295:1 70:1\r\n+1.0 6:1 70:1")
    form = LibFMFormat.of(path)
    label, dense, sparse, _ = read(path, form)
    assert (form.num_dense, form.num_fields) == (0, 2)
    assert label == [1, 0, 0, 1]
    assert dense.shape == (4, 0)
    assert sparse == [[4, 70], [5, 71], [2**32 - 1, 70], [6, 70]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 4:1", r"2 words, where a label and 2 indices belong"),
        ("1 4:1 5:1 6:1", r"4 words"),
        ("", r"it is empty, where"),
        ("3 4:1 5:1", r"the label is '3', which is not 1, 0 or -1"),
        ("4:1 4:1 5:1", r"the label is '4:1'"),
        ("1 4:1 5:0.5", r"feature 2 is '5:0.5', which is no index below .* with the value 1"),
        ("1 4:2 5:1", r"feature 1 is '4:2'"),
        ("1 a:1 5:1", r"feature 1 is 'a:1'"),
        ("1 4 5:1", r"feature 1 is '4'"),
        ("1 :1 5:1", r"feature 1 is ':1'"),
        ("1 4294967296:1 5:1", r"feature 1 is '4294967296:1'"),
    ],
)
def test_what_is_no_libfm_row_is_named_or_counted(text, message, tmp_path):
    path = tmp_path / "train.libfm"
    path.write_text(f"1 4:1 5:1\n{text}\n-1 4:1 5:1\n")
    with pytest.raises(ValueError, match=rf"train.libfm, line 2: {message}"):
        read(path, LibFMFormat.of(path))
    label, _, _, bad = read(path, LibFMFormat.of(path), "skip")
    assert (label, bad.count) == ([1, 0], 1)


def test_a_first_line_without_fields_is_refused(tmp_path):
    path = tmp_path / "train.libfm"
    path.write_text("\n1 4:1\n")
    with pytest.raises(ValueError, match=r"train.libfm, line 1: no field is there"):
        LibFMFormat.of(path)
