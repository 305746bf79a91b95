"""Whatever a user hands over, public entries answer, or refuse it with the errors they document.

``GNNCOMPRESS_EXAMPLES`` sets the number of cases of each test.
"""

import json
import os
import shutil
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_gnncompress import (
    BitPlan,
    TTEmbedding,
    hierarchical_order,
    load_compressed,
    open_features,
    pack,
    pack_file,
    save_compressed,
)
from lit_gnncompress.data import CriteoDataModule, InteractionDataModule, LibFMDataModule
from lit_gnncompress.embedding import (
    NodeOrder,
    TTEmbeddingBag,
    TTShape,
    cooccurrence_order,
    structural_vectors,
)
from lit_gnncompress.search import TrialFile
from lit_gnncompress.storage import save_features
from tests.callbacks.tiny import Tiny, make_graph, make_module

cases = settings(
    max_examples=int(os.environ.get("GNNCOMPRESS_EXAMPLES", 150)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NUMBERS = st.one_of(
    st.integers(-2, 40), st.booleans(), st.none(), st.floats(), st.just(2**63), st.text(max_size=3)
)
SMALL = st.integers(-1, 12)
PLAIN = st.recursive(
    NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["convs.0", "*", "convs.*", "", "["]), inner, max_size=3)
    ),
    max_leaves=8,
)


def answers(entry, documented=(ValueError, TypeError)):
    """What ``entry`` returns; ``None`` if it refuses, which it is to explain."""
    try:
        return entry()
    except documented as error:
        refusal = str(error)
    assert len(refusal) > 10
    return None


@cases
@given(
    st.dictionaries(
        st.sampled_from(["features", "attention", "degree_splits", "feature"]), PLAIN, max_size=3
    )
)
def test_plans(fields):
    plan = answers(lambda: BitPlan.from_dict(fields))
    if plan is not None:
        assert BitPlan.from_dict(plan.to_dict()) == plan
        assert BitPlan.from_yaml(plan.to_yaml()) == plan


@cases
@given(st.text(max_size=60))
def test_plans_as_text(text):
    answers(lambda: BitPlan.from_yaml(text))
    answers(lambda: BitPlan.from_json(text))


@cases
@given(
    shape=st.lists(st.integers(0, 20), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.half, torch.long]),
    bits=st.one_of(SMALL, st.just(32), st.lists(st.integers(0, 9), max_size=3)),
    splits=st.lists(SMALL, max_size=2),
    odd=st.sampled_from([None, float("nan"), float("inf"), 1e38]),
    binary=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pack(shape, dtype, bits, splits, odd, binary, seed):
    torch.manual_seed(seed)
    x = torch.randn(shape) * (torch.rand(shape) < 0.3)
    x = (x != 0).to(dtype) if binary else x.to(dtype)
    if odd is not None and x.numel() and dtype != torch.long:
        x.view(-1)[0] = odd
    degrees = torch.randint(9, shape[:1]) if shape else None
    packed = answers(lambda: pack(x, bits, degrees=degrees, degree_splits=splits))
    if packed is None:
        return
    assert packed.shape == x.shape
    dense = packed.dequantize()
    assert dense.isfinite().all()
    if shape[0]:
        rows = torch.randint(shape[0], (5,))
        assert torch.equal(packed[rows].dequantize(), dense[rows])


@cases
@given(
    rows=st.lists(st.integers(-1, 9), max_size=5),
    columns=st.lists(st.integers(-1, 5), max_size=5),
    ranks=st.lists(st.integers(-1, 6), max_size=4),
)
def test_shapes(rows, columns, ranks):
    shape = answers(lambda: TTShape(tuple(rows), tuple(columns), tuple(ranks)))
    if shape is not None:
        sizes = [p * a * q * b for p, a, q, b in shape.core_shapes]
        assert shape.num_parameters == sum(sizes)


@cases
@given(
    num_embeddings=st.integers(-1, 300),
    embedding_dim=st.integers(-1, 40),
    rank=st.one_of(st.none(), SMALL, st.lists(SMALL, max_size=3)),
    rows=st.none() | st.lists(SMALL, max_size=4),
    columns=st.none() | st.lists(SMALL, max_size=4),
    compression=st.none() | st.floats(-1, 1e6),
    max_bytes=st.none() | st.integers(-1, 10**5),
    padding_idx=st.none() | st.integers(-300, 300),
    bag=st.booleans(),
    indices=st.lists(st.integers(-1, 300), max_size=6),
)
def test_tensor_trains(bag, indices, **arguments):
    kind = TTEmbeddingBag if bag else TTEmbedding
    table = answers(lambda: kind(**arguments))
    if table is None:
        return
    size = (table.num_embeddings, table.embedding_dim)
    assert table.full_weight().shape == size
    ids = torch.tensor(indices, dtype=torch.long)
    args = (ids, torch.tensor([0])) if bag else (ids,)
    out = answers(lambda: table(*args), (IndexError,))
    inside = all(0 <= i < size[0] for i in indices)
    assert (out is not None) == inside
    if inside:
        assert out.shape == (1 if bag else len(indices), size[1])
        assert out.isfinite().all()


@cases
@given(
    ids=st.lists(st.integers(-1, 12), max_size=8),
    offsets=st.lists(st.integers(-1, 9), max_size=5),
    last=st.booleans(),
    mode=st.sampled_from(["sum", "mean", "max", "median"]),
    weighted=st.booleans(),
)
def test_bags(ids, offsets, last, mode, weighted):
    table = answers(lambda: TTEmbeddingBag(12, 8, rank=2, mode=mode, include_last_offset=last))
    if table is None:
        return
    weights = torch.rand(len(ids)) if weighted else None
    input, begin = torch.tensor(ids, dtype=torch.long), torch.tensor(offsets, dtype=torch.long)
    out = answers(lambda: table(input, begin, weights), (ValueError, IndexError))
    if out is not None:
        full = torch.nn.functional.embedding_bag(
            input, table.full_weight(), begin, mode=mode, per_sample_weights=weights,
            include_last_offset=last,
        )  # fmt: skip
        torch.testing.assert_close(out, full, atol=1e-5, rtol=1e-4)


@cases
@given(
    edges=st.lists(st.tuples(st.integers(-1, 30), st.integers(0, 30)), max_size=60),
    num_nodes=st.integers(0, 31),
    rows=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    method=st.sampled_from(
        ["metis", "flat_metis", "community", "degree", "random", "none", "metiss"]
    ),
    weighted=st.booleans(),
)
def test_orders(edges, num_nodes, rows, method, weighted):
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    weight = torch.rand(len(edges)) if weighted else None
    order = answers(
        lambda: hierarchical_order(
            edge_index, num_nodes, rows, edge_weight=weight, method=method, progress=False
        ),
        (ValueError, IndexError, TypeError),
    )
    if order is not None:
        place = order.place
        assert len(place.unique()) == num_nodes == len(place)
        assert 0 <= int(place.min()) <= int(place.max()) < order.capacity
    vectors = answers(
        lambda: structural_vectors(edge_index, num_nodes, 4), (ValueError, IndexError)
    )
    assert vectors is None or vectors.isfinite().all()


@cases
@given(
    rows=st.lists(st.tuples(*[st.integers(-1, 9)] * 3), max_size=30),
    field=st.integers(-1, 3),
    num_embeddings=st.integers(0, 10),
    factors=st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_orders_by_cooccurrence(rows, field, num_embeddings, factors):
    categories = torch.tensor(rows, dtype=torch.long).reshape(-1, 3)
    order = answers(
        lambda: cooccurrence_order(categories, field, num_embeddings, factors, progress=False),
        (ValueError, IndexError, TypeError),
    )
    if order is not None:
        assert len(order.place.unique()) == num_embeddings


@pytest.mark.parametrize("load", [NodeOrder.load, open_features, load_compressed])
@cases
@given(start=st.sampled_from([b"", b"\x02\0\0\0\0\0\0\0{}", b"PK\x03\x04"]), noise=st.binary())
def test_files_that_are_none(load, start, noise, tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(start + noise)
    assert answers(lambda: load(path), (ValueError,)) is None


def _write_order(path):
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    hierarchical_order(edges, 5, (2, 3), method="degree").save(path)


def _write_features(path):
    torch.manual_seed(0)
    save_features(
        path, pack(torch.randn(20, 5), [4, 2], degrees=torch.arange(20), degree_splits=[9])
    )


def _write_model(path):
    save_compressed(path, make_module(), BitPlan(features=4), make_graph(10))


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """A file of each kind, and what reads it."""
    folder, found = tmp_path_factory.mktemp("whole"), {}
    for name, write, load in (
        ("order", _write_order, NodeOrder.load),
        ("features", _write_features, lambda path: open_features(path, verify=True).dequantize()),
        ("model", _write_model, lambda path: load_compressed(path, module=Tiny).predict()),
    ):
        write(folder / name)
        load(folder / name)
        found[name] = (folder / name).read_bytes(), load
    return found


@pytest.mark.parametrize("name", ["order", "features", "model"])
@cases
@given(
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
    length=st.floats(0, 1),
)
def test_files_that_are_damaged(name, places, length, whole_files, tmp_path):
    content, load = bytearray(whole_files[name][0]), whole_files[name][1]
    for place, change in places:
        content[int(place * len(content))] ^= change
    path = tmp_path / "file"
    path.write_bytes(content[: round(length * len(content))])
    answers(lambda: load(path), (ValueError,))


WORDS = st.sampled_from(
    [
        *(
            b"\t",
            b"\n",
            b" ",
            b":",
            b"0",
            b"1",
            b"7",
            b"ff",
            b"-",
            b".",
            b"e",
            b"\r",
            b"\0",
            b"\xff",
        ),
        *(b"nan", b"9" * 20, b"3 4 5\n", b"1 3:1 5:0.5\n"),
        b"\t".join([b"1"] * 14 + [b"ab"] * 26) + b"\n",
    ]
)


@pytest.mark.parametrize("kind", [CriteoDataModule, LibFMDataModule])
@cases
@given(text=st.lists(WORDS, max_size=20).map(b"".join), bad=st.sampled_from(["error", "skip"]))
def test_rows_that_are_text(kind, text, bad, tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(text)
    data = kind(path=path, processed_dir=tmp_path, on_bad_rows=bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lines that are left out
        answers(data.prepare_data)
    shutil.rmtree(tmp_path / "tables", ignore_errors=True)


@cases
@given(text=st.lists(WORDS, max_size=20).map(b"".join), pairs=st.booleans())
def test_interactions_that_are_text(text, pairs, tmp_path):
    path = tmp_path / "interactions"
    path.write_bytes(text)
    answers(lambda: InteractionDataModule(path=path, pairs=pairs).setup("fit"))


@cases
@given(
    descr=st.sampled_from(
        ["'<f4'", "'>f8'", "'<f2'", "'|O'", "[('a', '<f4')]", "'zz'", "3", "'<f4"]
    ),
    fortran=st.sampled_from(["True", "False", "3"]),
    shape=st.lists(st.integers(-1, 9) | st.just(2**40), max_size=3).map(tuple),
    data=st.binary(max_size=100),
    bits=SMALL,
)
def test_arrays_that_are_none(descr, fortran, shape, data, bits, tmp_path):
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    source = tmp_path / "x.npy"
    source.write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data)
    answers(
        lambda: pack_file(source, tmp_path / "x", bits, overwrite=True, progress=False),
        (ValueError, TypeError, OSError),  # of rows for which there is no room
    )


LINES = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(1),
        "about": PLAIN,
        "stage": st.sampled_from(["measured", "finetuned", "baseline", "guessed"]),
        "trial": NUMBERS,
        "bits": st.lists(SMALL, max_size=3) | NUMBERS,
        "score": NUMBERS,
        "seconds": NUMBERS,
    },
)


@cases
@given(lines=st.lists(LINES | PLAIN, max_size=4), end=st.binary(max_size=5))
def test_trials_that_are_none(lines, end, tmp_path):
    path = tmp_path / "trials.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in [{"version": 1, "about": {}}, *lines])
    path.write_bytes(text.encode() + end)
    answers(lambda: TrialFile(path, {"about": {}}))
