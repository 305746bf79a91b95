import json
import math
import os
import pickle
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.datasets import Planetoid

from lit_gnncompress.kernels import Adjacency, pack_bits
from lit_gnncompress.storage.codecs import (
    Codec,
    DenseCodec,
    FloatCodec,
    GapCodec,
    SparseCodec,
    choose_codec,
    encode,
)
from lit_gnncompress.storage.codecs.sparse import Entries, scale_of_counts

ROWS, WIDTH = 23, 600
ZERO, ONE = torch.zeros(1), torch.ones(1)


class Case(NamedTuple):
    codec: Codec
    codes: Tensor
    dense: Tensor


def random_codes(rows, width, bits, density=1.0, unit=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(1, 2**bits, (rows, width), dtype=torch.uint8, generator=generator)
    codes = codes if unit is None else torch.full_like(codes, unit)
    return codes * (torch.rand(rows, width, generator=generator) < density)


def random_ranges(kind, rows, width, seed=0):
    size = {"tensor": 1, "row": rows, "column": width}[kind]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator), torch.rand(size, generator=generator) + 0.1


def sparse(kind, codes, lo, scale, bits, unit=None, by_column=False):
    row, column = codes.nonzero(as_tuple=True)
    entries = Entries(row, column, codes[row, column], len(codes))
    return kind.of([entries], lo, scale, bits, codes.size(1), unit, by_column)


def make(kind, ranges="row", rows=ROWS, width=WIDTH):
    bits = 3
    by_column = ranges == "column"
    if kind == "float":
        x = torch.randn(rows, width)
        return Case(FloatCodec(x), None, x)
    unit = {"sparse, one code": 5, "gaps, one code": 5}.get(kind)
    codes = random_codes(rows, width, bits, 1.0 if kind == "dense" else 0.03, unit)
    if ranges == "count":
        lo, scale, kept = ZERO, scale_of_counts((codes != 0).sum(1), unit or 1), None
    else:
        lo, scale = random_ranges(ranges, rows, width)
        kept = scale
    columns = [ends if by_column or len(ends) == 1 else ends.unsqueeze(1) for ends in (lo, scale)]
    dense = codes * columns[1] + columns[0]
    if kind == "dense":
        codec = DenseCodec(pack_bits(codes, bits), lo, scale, bits, width, by_column)
    else:
        where = SparseCodec if "sparse" in kind else GapCodec
        codec = sparse(where, codes, lo, kept, bits, unit, by_column)
    return Case(codec, codes, dense)


KINDS = ["dense", "sparse", "sparse, one code", "gaps", "gaps, one code"]
CASES = [(kind, ranges) for kind in KINDS for ranges in ("tensor", "row", "column")]
CASES += [("sparse, one code", "count"), ("gaps, one code", "count"), ("float", "tensor")]


@pytest.fixture(params=CASES, ids=lambda case: " by ".join(case))
def case(request):
    return make(*request.param)


def test_codes_in_are_codes_out(case):
    if case.codes is None:
        with pytest.raises(ValueError, match="bits=32 have no codes"):
            case.codec.codes()
    else:
        assert torch.equal(case.codec.codes(), case.codes)


def test_all_values(case):
    assert torch.equal(case.codec.gather(), case.dense)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_values_of_rows(case, dtype):
    for rows in ([], [0], [22, 3, 3, 7]):
        index = torch.tensor(rows, dtype=dtype)
        assert torch.equal(case.codec.gather(index), case.dense[index])


@pytest.mark.parametrize("index", [[ROWS], [0, -1]])
def test_a_row_that_is_none(case, index):
    for what in (case.codec.gather, case.codec.take):
        with pytest.raises(IndexError, match="is no row: there are 23"):
            what(torch.tensor(index))


def test_rows_taken_stay_packed(case):
    index = torch.tensor([22, 3, 3, 7])
    taken = case.codec.take(index)
    assert type(taken) is type(case.codec)
    assert taken.num_rows == 4
    assert taken.nbytes < case.codec.nbytes
    assert torch.equal(taken.gather(), case.dense[index])
    assert torch.equal(taken.take(torch.tensor([1])).gather(), case.dense[[3]])
    assert taken.take(torch.tensor([], dtype=torch.int64)).gather().shape == (0, WIDTH)


def test_a_linear_layer_and_its_gradient(case):
    weight = torch.randn(7, WIDTH, requires_grad=True)
    truth = weight.detach().clone().requires_grad_()
    out, expected = case.codec.linear(weight), case.dense @ truth.t()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-3)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(weight.grad, truth.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("heads", [None, 1, 2])
def test_rows_sent_along_edges(case, reduce, heads):
    source, target = torch.randint(0, ROWS, (60,)), torch.randint(0, 9, (60,))
    target[target == 4] = 5  # no edges
    weight = None if heads is None else torch.randn(60, heads).squeeze(1)
    adjacency = Adjacency.from_edge_index(source, target, ROWS, 10)
    messages = case.dense[source]
    if weight is not None:
        messages = messages * weight.view(60, heads).repeat_interleave(WIDTH // heads, 1)
    index = target.unsqueeze(1).expand_as(messages)
    expected = torch.zeros(10, WIDTH).scatter_reduce(
        0, index, messages, {"max": "amax"}.get(reduce, reduce), include_self=False
    )
    out = case.codec.aggregate(adjacency, weight, reduce)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_another_device(case):
    assert case.codec.device == torch.device("cpu")
    moved = case.codec.to("meta")
    assert moved.device.type == "meta"
    assert (moved.num_rows, moved.width, moved.nbytes) == (ROWS, WIDTH, case.codec.nbytes)


def test_to_another_process(case):
    assert torch.equal(pickle.loads(pickle.dumps(case.codec)).gather(), case.dense)


@pytest.mark.parametrize("thorough", [False, True])
def test_through_a_file(case, thorough, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    tensors = {name: each.contiguous() for name, each in case.codec.tensors().items()}
    safetensors.save_file(tensors, tmp_path / "rows.safetensors")
    meta = json.loads(json.dumps(case.codec.meta()))
    loaded = safetensors.load_file(tmp_path / "rows.safetensors")
    codec = Codec.from_tensors(meta, loaded, thorough)
    assert type(codec) is type(case.codec)
    assert torch.equal(codec.gather(), case.dense)
    assert codec.nbytes == case.codec.nbytes == sum(each.nbytes for each in loaded.values())
    assert codec.meta() == case.codec.meta()


# --- bytes --------------------------------------------------------------------------------------


def test_bytes_of_dense_rows():
    codes = random_codes(10, 20, 3)
    packed = pack_bits(codes, 3)  # 32 codes of 3 bits
    assert DenseCodec(packed, ZERO, ONE, 3, 20).nbytes == 10 * 12 + 4
    assert DenseCodec(packed, ONE, ONE, 3, 20).nbytes == 10 * 12 + 8
    assert DenseCodec(packed, torch.zeros(10), torch.rand(10), 3, 20).nbytes == 10 * 12 + 40
    assert DenseCodec(packed, torch.ones(10), torch.rand(10), 3, 20).nbytes == 10 * 12 + 44
    assert DenseCodec(packed, ONE, torch.rand(20), 3, 20, True).nbytes == 10 * 12 + 84


def test_bytes_of_sparse_rows():
    codes = torch.zeros(4, 1000, dtype=torch.uint8)
    codes[0, [1, 300]], codes[2, 900] = 3, 3
    pointers = 4 * 5
    kept = sparse(SparseCodec, codes, ZERO, ONE, 3, None)
    assert kept.nbytes == pointers + 6 + 2 + 4
    derived = sparse(SparseCodec, codes, ZERO, None, 3, 3)
    assert derived.nbytes == pointers + 6
    gaps = sparse(GapCodec, codes, ZERO, ONE, 3, None)  # 1; 255 and 43; 255 three times and 135
    assert gaps.nbytes == 2 * pointers + 7 + 2 + 4
    derived = sparse(GapCodec, codes, ZERO, None, 3, 3)
    assert derived.nbytes == pointers + 4 + 7


def test_all_that_is_held_is_counted(case):
    held = sum(each.untyped_storage().nbytes() for each in case.codec._parts.values())
    assert case.codec.nbytes == held


# --- the choice ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("density", "bits", "unit", "expected"),
    [
        (0.9, 4, None, "dense"),
        (0.2, 1, 1, "dense"),
        (0.01, 1, 1, "gaps"),
        (0.01, 8, 200, "gaps"),
        (0.01, 8, None, "gaps"),
        (0.0005, 2, None, "sparse"),
        (0.0, 2, None, "sparse"),
    ],
)
def test_the_smallest_is_chosen(density, bits, unit, expected):
    codes = random_codes(300, 2000, bits, density, unit)
    codec = choose_codec(codes, bits, ZERO, ONE)
    others = [
        DenseCodec(pack_bits(codes, bits), ZERO, ONE, bits, 2000),
        sparse(SparseCodec, codes, ZERO, ONE, bits, unit),
        sparse(GapCodec, codes, ZERO, ONE, bits, unit),
    ]
    assert codec.name == expected
    assert codec.nbytes <= min(other.nbytes for other in others)
    assert torch.equal(codec.codes(), codes)
    assert choose_codec(codes, bits, ZERO, ONE, allow_gaps=False).name != "gaps"


@pytest.mark.parametrize("unit", [1, 255])
def test_a_scale_that_is_one_over_a_count_is_derived(unit):
    codes = random_codes(50, 3000, 8, 0.01, unit)
    codes[3] = 0
    scale = scale_of_counts((codes != 0).sum(1), unit)
    scale[3] = 7.0  # of no code
    for gaps in (False, True):
        codec = choose_codec(codes, 8, torch.zeros(50), scale, allow_gaps=gaps)
        assert "scale" not in codec.tensors()
        assert torch.equal(codec.gather(), codes * scale.unsqueeze(1))
    scale[5] *= 1 + 2**-22
    codec = choose_codec(codes, 8, torch.zeros(50), scale)
    assert torch.equal(codec.tensors()["scale"], scale)


@given(
    bits=st.integers(1, 8),
    rows=st.integers(0, 6),
    width=st.sampled_from([0, 1, 15, 16, 17, 100, 700]),
    density=st.sampled_from([0.0, 0.003, 0.05, 0.5, 1.0]),
    same=st.booleans(),
    ranges=st.sampled_from(["tensor", "row", "column"]),
    kind=st.sampled_from(["chosen", "dense", "sparse", "gaps"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=2000, deadline=None)
def test_any_codes_in_any_codec(bits, rows, width, density, same, ranges, kind, seed):
    unit = seed % (2**bits - 1) + 1 if same else None
    codes = random_codes(rows, width, bits, density, unit, seed)
    lo, scale = random_ranges(ranges, rows, width, seed)
    by_column = ranges == "column"
    if kind == "chosen":
        codec = choose_codec(codes, bits, lo, scale, by_column=by_column)
    elif kind == "dense":
        codec = DenseCodec(pack_bits(codes, bits), lo, scale, bits, width, by_column)
    else:
        where = SparseCodec if kind == "sparse" else GapCodec
        codec = sparse(where, codes, lo, scale, bits, unit, by_column)
    again = Codec.from_tensors(codec.meta(), codec.tensors())
    assert torch.equal(again.codes(), codes)
    assert codec.nbytes == again.nbytes
    if rows:
        index = torch.tensor([seed % rows, 0])
        assert torch.equal(again.take(index).codes(), codes[index])


# --- from features ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("ranges", ["tensor", "row", "column"])
def test_features_to_codes(ranges, dtype, monkeypatch):
    monkeypatch.setattr("lit_gnncompress.storage.codecs.choose._BLOCK", 1000)
    x = torch.randn(50, 70).to(dtype)
    lo, scale = random_ranges(ranges, 50, 70)
    by_row = ranges == "row"
    ends = [end.unsqueeze(1) if by_row else end for end in (lo, scale)]
    wide = x if dtype == torch.float64 else x.float()
    expected = wide.sub(ends[0]).div(ends[1]).round().clamp(0, 15).to(torch.uint8)
    codec = encode(x, 4, lo, scale, by_column=ranges == "column")
    assert torch.equal(codec.codes(), expected)


def test_blocks_make_no_difference(monkeypatch):
    x = torch.rand(90, 400) * (torch.rand(90, 400) < 0.02)
    whole = encode(x, 4, ZERO, ONE / 15)
    monkeypatch.setattr("lit_gnncompress.storage.codecs.choose._BLOCK", 1000)
    parts = encode(x, 4, ZERO, ONE / 15)
    assert whole.name == parts.name == "gaps"
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, parts.tensors()[name])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite(value):
    x = torch.zeros(5, 4)
    x[3, 1] = value
    with pytest.raises(ValueError, match=r"must be finite.*row 3, column 1"):
        encode(x, 4, ZERO, ONE)


def test_a_sum_that_overflows_is_no_reason_to_refuse():
    x = torch.full((4, 4), 3e38)
    assert encode(x, 1, ZERO, torch.tensor([3e38])).codes().unique().tolist() == [1]


@pytest.mark.parametrize(
    ("lo", "scale", "message"),
    [
        (torch.tensor([math.nan]), ONE, r"lo\[0\]=nan must be finite"),
        (ZERO, -ONE, "a range needs max >= min"),
        (ZERO, torch.ones(3), r"scale must be float32 of shape \(1,\) or \(5,\)"),
        (ZERO.double(), ONE, "lo must be float32"),
    ],
)
def test_ranges_that_do_not_fit(lo, scale, message):
    with pytest.raises(ValueError, match=message):
        choose_codec(torch.zeros(5, 4, dtype=torch.uint8), 4, lo, scale)


# --- bad files ----------------------------------------------------------------------------------


def change(name, value):
    def apply(meta, tensors):
        where = meta if name in meta and not isinstance(value, Tensor) else tensors
        where[name] = value

    return apply


FALLS = torch.tensor([9, 8])

BAD = [
    ("dense", change("codec", "zip"), "codec='zip' is none of dense, float, gaps, sparse"),
    ("dense", change("rows", 22), "codes has 23 rows, but rows=22"),
    ("dense", change("rows", -1), "rows=-1"),
    ("dense", change("width", 601.0), "width=601.0"),
    ("dense", change("bits", 4), "bits=4 take"),
    ("dense", change("bits", 9), "bits=9"),
    ("dense", change("other", ZERO), "other unknown"),
    ("dense", lambda meta, tensors: tensors.pop("codes"), "codes missing"),
    ("dense", lambda meta, tensors: tensors["codes"][:, -1].fill_(255), "must be zero"),
    ("dense", change("scale", -ONE), "max >= min"),
    ("float", change("bits", 8), "bits must be 32"),
    ("float", change("values", torch.zeros(3, 3)), r"values has shape \(3, 3\)"),
    ("sparse", change("rowptr", torch.zeros(23).int()), "rowptr has shape .*, but rows=23"),
    ("sparse", change("rowptr", torch.zeros(24)), "rowptr must be int64 or int32"),
    ("sparse", change("rowptr", torch.ones(24).int()), "rowptr runs from 1"),
    ("sparse", lambda meta, tensors: tensors["rowptr"][3:5].copy_(FALLS), "it must not fall"),
    ("sparse", lambda meta, tensors: tensors.pop("rowptr"), "rowptr missing"),
    ("sparse", change("width", 99), "columns: no column below width=99"),
    ("sparse", change("unit", 8), "unit=8 is no code of bits=3"),
    ("sparse", change("unit", "1"), "unit='1'"),
    ("sparse", change("scale", "count"), "scale='count' of a codec: a tensor does not fit"),
    ("sparse", change("values", torch.zeros(3, dtype=torch.uint8)), "values has 3 bytes"),
    ("sparse", lambda meta, tensors: tensors["columns"].view(torch.int16).fill_(3), "columns"),
    ("sparse", change("codec", "gaps"), "first missing"),
    ("gaps", change("width", 99), "gaps lead beyond width=99"),
    ("gaps", lambda meta, tensors: tensors["columns"].fill_(255), "values has|gaps lead beyond"),
    ("gaps", lambda meta, tensors: tensors.pop("first"), "first missing"),
    ("gaps", lambda meta, tensors: tensors["first"][1].add_(1), "not the number of codes before"),
    ("gaps, one code", lambda meta, tensors: tensors["counts"][2].add_(1), "codes of each row"),
    ("gaps, one code", change("counts", torch.zeros(9)), "counts must be 23 integers"),
]


@pytest.mark.parametrize(("kind", "spoil", "message"), BAD)
def test_files_that_are_refused(kind, spoil, message):
    codec = make(kind, "count" if "one code" in kind else "row", width=601).codec
    meta, tensors = codec.meta(), {name: each.clone() for name, each in codec.tensors().items()}
    spoil(meta, tensors)
    with pytest.raises(ValueError, match=message):
        Codec.from_tensors(meta, tensors)


# --- real data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sparse_bytes", "gap_bytes"),
    [("Cora", 112_000, 71_000), ("CiteSeer", 227_000, 161_000)],
)
@pytest.mark.parametrize("allow_gaps", [False, True])
def test_normalised_bags_of_words(name, sparse_bytes, gap_bytes, allow_gaps, tmp_path):
    root = os.environ.get("GNNCOMPRESS_DATA")
    if not root or not os.path.isdir(os.path.join(root, "Planetoid", name, "raw")):
        pytest.skip("needs raw data sets: set GNNCOMPRESS_DATA to their folder")

    class Elsewhere(Planetoid):
        processed_dir = str(tmp_path)  # the folder of raw files stays as it is

    x = Elsewhere(os.path.join(root, "Planetoid"), name)[0].x
    x = x / x.sum(1, keepdim=True).clamp(min=1)
    codec = encode(x, 1, x.amin(1), x.amax(1) - x.amin(1), allow_gaps=allow_gaps)
    assert codec.name == ("gaps" if allow_gaps else "sparse")
    assert codec.nbytes <= (gap_bytes if allow_gaps else sparse_bytes)
    assert torch.equal(codec.gather(), x)
    index = torch.randint(0, len(x), (100,))
    assert torch.equal(codec.gather(index), x[index])
    assert torch.equal(Codec.from_tensors(codec.meta(), codec.tensors()).gather(), x)
