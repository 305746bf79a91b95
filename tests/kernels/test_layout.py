import pytest
import torch

import lit_gnncompress.kernels as kernels
from lit_gnncompress.kernels.layout import row_bytes, stream_bytes
from lit_gnncompress.kernels.sparse_layout import check_sparse, validate_sparse
from tests.kernels.conftest import random_sparse


@pytest.mark.parametrize(
    ("width", "bits", "expected"),
    [(0, 8, 0), (1, 1, 2), (16, 1, 2), (17, 1, 4), (16, 3, 6), (1433, 1, 180), (5, 8, 16)],
)
def test_rows_are_filled_up_to_groups_of_16_codes(width, bits, expected):
    assert row_bytes(width, bits) == expected


@pytest.mark.parametrize(
    ("count", "bits", "expected"), [(0, 3, 0), (1, 3, 1), (3, 3, 2), (8, 1, 1)]
)
def test_streams_are_filled_up_to_bytes(count, bits, expected):
    assert stream_bytes(count, bits) == expected


@pytest.mark.parametrize("name", kernels.__all__)
def test_an_operation_is_found_by_its_name_though_its_file_has_the_same(name):
    value = getattr(kernels, name)
    assert callable(value)
    assert value is getattr(kernels, name)
    assert name in dir(kernels)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no_such"):
        _ = kernels.no_such


GAPS = random_sparse(6, 900, 3, 0.01, torch.uint8)
CSR = random_sparse(6, 900, 3, 0.01, torch.uint16)


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        (CSR, {"rowptr": CSR.rowptr[:-1]}, "rowptr runs from 0 to"),
        (CSR, {"rowptr": CSR.rowptr + 1}, "rowptr runs from 1"),
        (CSR, {"rowptr": CSR.rowptr.float()}, "rowptr must be int64 or int32"),
        (CSR, {"rowptr": CSR.rowptr[:0]}, "rowptr must be int64 or int32"),
        (CSR, {"columns": CSR.columns.long()}, "columns must be uint16 or int32"),
        (CSR, {"values": CSR.values[:-1]}, "values has"),
        (CSR, {"values": CSR.values.int()}, "values must be uint8"),
        (CSR, {"lo": torch.zeros(2)}, "lo must be float32"),
        (CSR, {"scale": torch.ones(1).double()}, "scale must be float32"),
        (CSR, {"bits": 0}, "bits=0"),
        (CSR, {"width": -1}, "width=-1"),
        (CSR, {"first": CSR.rowptr}, "first is for gaps only"),
        (GAPS, {"first": None}, "first=None"),
        (GAPS, {"first": GAPS.first[:-1]}, "first must be"),
        (GAPS, {"first": GAPS.first + 1}, "first runs from 1"),
        (CSR, {"lo": torch.zeros(1, device="meta")}, "lo is on meta"),
    ],
)
def test_sparse_rows_that_do_not_fit(rows, change, message):
    rows = rows._replace(**change)
    with pytest.raises(ValueError, match=message):
        check_sparse(*rows.args, rows.first)


@pytest.mark.parametrize("columns", [torch.uint8, torch.uint16, torch.int32])
def test_sparse_rows_that_are_right(columns):
    rows = random_sparse(20, 300, 3, 0.1, columns)
    check_sparse(*rows.args, rows.first)
    validate_sparse(rows.rowptr, rows.columns, rows.width, rows.values, rows.first)


@pytest.mark.parametrize(
    ("rowptr", "columns", "first", "message"),
    [
        ([0, 2, 1, 3], [1, 2, 3], None, "rowptr: it must not fall, but does after row 1"),
        ([0, 3], [1, 1, 3], None, "columns: they must rise, but not at place 0"),
        ([0, 2, 3], [1, 10, 3], None, "columns: no column below width=10 at place 1"),
        ([0, 2, 3], [3, 7, 3], [0, 2, 3], "columns: gaps lead beyond width=10 in row 0"),
        ([0, 2, 3], [3, 2, 3], [0, 1, 3], "first: it is not the number of codes before row 1"),
    ],
)
def test_what_only_a_thorough_check_finds(rowptr, columns, first, message):
    columns = torch.tensor(columns).to(torch.int32 if first is None else torch.uint8)
    first = None if first is None else torch.tensor(first)
    values = torch.zeros(1, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        validate_sparse(torch.tensor(rowptr), columns, 10, values, first)
