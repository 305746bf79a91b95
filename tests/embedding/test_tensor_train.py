import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from lit_gnncompress.embedding import TTEmbedding
from lit_gnncompress.embedding.node_order import NodeOrder
from tests.embedding.tables import random_order, table_of

FACTORS = [((9, 12), (4, 3)), ((4, 5, 6), (3, 2, 2)), ((3, 3, 4, 3), (2, 3, 2, 1))]
N = 100


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def make(rows=(4, 5, 6), columns=(3, 2, 2), num_embeddings=N, **arguments):
    arguments = {"rank": 3} | arguments
    return TTEmbedding(num_embeddings, 12, rows=rows, columns=columns, **arguments)


def gradients(table):
    return {name: p.grad.clone() for name, p in table.named_parameters() if p.grad is not None}


# --- as nn.Embedding ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("shape", [(), (7,), (0,), (2, 3), (2, 1, 4)])
@pytest.mark.parametrize(("rows", "columns"), FACTORS)
def test_rows_are_those_of_the_table(rows, columns, shape, dtype):
    table = make(rows, columns)
    indices = torch.randint(N, shape, dtype=dtype)
    expected = table_of(list(table.cores))[indices.long()]
    assert table(indices).shape == (*shape, 12)
    torch.testing.assert_close(table(indices), expected)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("rows", "columns"), FACTORS)
def test_gradients_are_those_of_the_table(rows, columns, ordered):
    order = random_order(N, rows) if ordered else None
    table = make(rows, columns, order=order, dtype=torch.float64)
    indices = torch.randint(N, (40,))
    target = torch.randn(40, 12, dtype=torch.float64)
    (table(indices) - target).square().sum().backward()
    found = gradients(table)
    table.zero_grad()
    (table.full_weight()[indices] - target).square().sum().backward()
    for name, grad in gradients(table).items():
        torch.testing.assert_close(found[name], grad)
    table.zero_grad()
    places = order.place[indices] if ordered else indices
    (table_of(list(table.cores))[places] - target).square().sum().backward()
    for name, grad in gradients(table).items():
        torch.testing.assert_close(found[name], grad)


@pytest.mark.parametrize("padding_idx", [5, -1, 0])
@pytest.mark.parametrize("parts", [False, True])
def test_the_padding_row_is_zero_and_has_no_gradient(padding_idx, parts):
    order = random_order(N, (4, 5, 6))
    table = make(order=order, padding_idx=padding_idx, parts=parts)
    row = padding_idx % N
    assert nn.Embedding(N, 12, padding_idx=padding_idx).padding_idx == table.padding_idx == row
    out = table(torch.tensor([[row, 1, row]]))
    assert not out[0, [0, 2]].any()
    assert out[0, 1].any()
    assert table.full_weight().abs().sum(1).eq(0).nonzero().flatten().tolist() == [row]
    out[0, [0, 2]].sum().backward()
    assert not any(grad.any() for grad in gradients(table).values())


def test_it_learns_what_an_embedding_learns():
    target = table_of(list(make(rank=2).cores)).detach()[:N]
    table = make(rank=3)
    optimizer = torch.optim.Adam(table.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = F.mse_loss(table(torch.arange(N)), target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * target.square().mean().item()


def test_weight_is_what_models_read_of_an_embedding():
    table = make(order=random_order(N, (4, 5, 6)))
    assert table.weight.shape == (N, 12)
    torch.testing.assert_close(table.weight, table(torch.arange(N)))
    assert table.weight.requires_grad


# --- factors, ranks, sizes ------------------------------------------------------------------------


def test_counts_of_the_paper():
    table = TTEmbedding(2_449_029, 100, rank=16, rows=(125, 140, 140), columns=(4, 5, 5))
    assert sum(p.numel() for p in table.parameters()) == 198_400
    assert table.compression_ratio == 2_449_029 * 100 / 198_400


@pytest.mark.parametrize("compression", [20, 100])
@pytest.mark.parametrize("parts", [False, True])
def test_compression_counts_everything_that_is_trained(compression, parts):
    order = random_order(9_000, (20, 20, 25))
    table = TTEmbedding(
        9_000, 64, order=order, compression=compression, parts=parts, learn_scale=True
    )
    kept = sum(p.numel() for p in table.parameters())
    assert table.compression_ratio == 9_000 * 64 / kept >= compression
    above = TTEmbedding(
        9_000, 64, order=order, rank=max(table.shape.ranks) + 1, columns=table.shape.columns,
        parts=parts, learn_scale=True,
    )  # fmt: skip
    assert above.compression_ratio < compression


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_max_bytes_counts_bytes(dtype):
    table = TTEmbedding(9_000, 64, max_bytes=40_000, dtype=dtype)
    assert table.num_bytes <= 40_000
    above = TTEmbedding(9_000, 64, rank=max(table.shape.ranks) + 1, dtype=dtype)
    assert above.num_bytes > 40_000


def test_the_order_counts_among_the_bytes():
    table = make(order=random_order(N, (4, 5, 6)))
    assert table.num_bytes == 4 * table.shape.num_parameters + 4 * N


def test_factors_come_from_the_order():
    order = random_order(N, (5, 3, 8))
    table = TTEmbedding(N, 12, order=order)
    assert table.shape.rows == (5, 3, 8)
    indices = torch.tensor([3, 99])
    torch.testing.assert_close(table(indices), table_of(list(table.cores))[order.place[indices]])


@pytest.mark.parametrize("init", ["semi_orthogonal", "gaussian", "uniform"])
@pytest.mark.parametrize("parts", [False, True])
def test_entries_begin_with_the_asked_deviation(init, parts):
    order = random_order(10_000, (100, 10, 12))
    table = TTEmbedding(10_000, 64, rank=16, order=order, init=init, std=0.1, parts=parts)
    assert table.full_weight().std().item() == pytest.approx(0.1, rel=0.1)


# --- scale and parts ------------------------------------------------------------------------------


def test_a_shared_scale_is_one_factor_of_all_cores():
    table = make(learn_scale=True, std=0.2)
    assert table.full_weight().square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)
    expected = table_of([core * table.core_scale for core in table.cores])[:N]
    torch.testing.assert_close(table.full_weight(), expected)
    table(torch.arange(N)).square().sum().backward()
    # The table is of degree 3 in the scale.
    squares = table.full_weight().square().sum()
    torch.testing.assert_close(table.core_scale.grad, 6 * squares / table.core_scale)
    assert "core_scale" in table.state_dict()


def test_vectors_of_parts_are_added():
    order = random_order(N, (4, 5, 6))
    table = make(order=order, parts=[2, 1])
    assert [tuple(vectors.shape) for vectors in table.parts.tables] == [(20, 12), (4, 12)]
    fine, coarse = table.parts.tables
    cores = table_of(list(table.cores))[order.place]
    expected = cores + fine[order.place // 6] + coarse[order.place // 30]
    torch.testing.assert_close(table(torch.arange(N)), expected)
    torch.testing.assert_close(table.full_weight(), expected)
    assert make(order=order, parts=True).parts.levels == (1,)


# --- from a trained table -------------------------------------------------------------------------


@pytest.mark.parametrize(("ordered", "parts"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("learn_scale", [False, True])
def test_from_pretrained_to_an_error(ordered, parts, learn_scale):
    order = random_order(N, (4, 5, 6)) if ordered else None
    weight = torch.randn(N, 12)
    table = TTEmbedding.from_pretrained(
        weight, error=0.2, order=order, parts=parts, learn_scale=learn_scale
    )
    assert (table.full_weight() - weight).norm() <= 0.2 * weight.norm()
    assert not any(p.requires_grad for p in table.parameters())
    assert table.shape.num_parameters == sum(core.numel() for core in table.cores)


def test_from_pretrained_to_a_rank_and_to_a_size():
    # Free places are zeros, which take ranks of their own: here there are none.
    arguments = {"order": random_order(120, (4, 5, 6)), "columns": (3, 2, 2)}
    made_of = make(rank=2, num_embeddings=120, order=arguments["order"])
    weight = made_of.full_weight().detach()
    table = TTEmbedding.from_pretrained(weight, False, rank=2, learn_scale=True, **arguments)
    assert table.shape == made_of.shape
    torch.testing.assert_close(table.full_weight(), weight, atol=1e-4, rtol=1e-3)
    assert all(p.requires_grad for p in table.parameters())
    table = TTEmbedding.from_pretrained(weight, compression=4, **arguments)
    assert table.compression_ratio >= 4
    torch.testing.assert_close(table.full_weight(), weight, atol=1e-4, rtol=1e-3)


def test_from_pretrained_takes_dtype_and_padding_from_the_table():
    weight = torch.randn(N, 12, dtype=torch.float64)
    table = TTEmbedding.from_pretrained(weight, padding_idx=3, rank=1000)
    weight[3] = 0
    torch.testing.assert_close(table.full_weight(), weight)


def test_parts_first_then_what_they_leave():
    order = random_order(N, (4, 5, 6))
    weight = torch.randn(4, 12)[order.place // 30]
    table = TTEmbedding.from_pretrained(weight, order=order, rank=1, parts=True)
    torch.testing.assert_close(table.full_weight(), weight, atol=1e-5, rtol=1e-5)
    assert table_of(list(table.cores)).abs().max() < 1e-5


# --- saved, moved, copied -------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [False, True])
def test_copies_are_equal_and_their_own(ordered):
    order = random_order(N, (4, 5, 6), graph_hash="a1") if ordered else None
    table = make(order=order, parts=ordered, learn_scale=True, padding_idx=4)
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert torch.equal(other(torch.arange(N)), table(torch.arange(N)))
        with torch.no_grad():
            other.cores[0].zero_()
        assert table.cores[0].any()


def test_a_state_is_everything_and_tensors_alone(tmp_path):
    table = make(order=random_order(N, (4, 5, 6), graph_hash="a1"), parts=True, learn_scale=True)
    save_file(table.state_dict(), tmp_path / "table.safetensors")
    state = load_file(tmp_path / "table.safetensors")
    other = make(
        order=random_order(N, (4, 5, 6), seed=1, graph_hash="a1"), parts=True, learn_scale=True
    )
    assert not torch.equal(other.full_weight(), table.full_weight())
    other.load_state_dict(state)
    assert torch.equal(other.full_weight(), table.full_weight())


@pytest.mark.parametrize("graph_hash", [None, "a1"])
def test_a_state_can_stand_in_for_the_table(graph_hash):
    orders = [random_order(N, (4, 5, 6), seed, graph_hash) for seed in range(2)]
    table, other = (make(order=order, parts=True, learn_scale=True) for order in orders)
    before = table.full_weight()
    found = torch.func.functional_call(table, other.state_dict(), torch.arange(N))
    assert torch.equal(found, other(torch.arange(N)))
    assert torch.equal(table.full_weight(), before)


@pytest.mark.parametrize("graph_hash", [None, "a1"])
def test_an_order_comes_with_its_cores(graph_hash):
    table = make(order=random_order(N, (4, 5, 6), graph_hash=graph_hash))
    other = make()
    other.load_state_dict(table.state_dict())
    assert torch.equal(other(torch.arange(N)), table(torch.arange(N)))
    assert other.row_order.graph_hash == graph_hash
    # Nested, too, and a hash that is known stays known where the state has none.
    model = nn.Sequential(make(order=random_order(N, (4, 5, 6), seed=3, graph_hash="a1")))
    model.load_state_dict(nn.Sequential(table).state_dict())
    assert torch.equal(model(torch.arange(N)), table(torch.arange(N)))
    assert model[0].row_order.graph_hash == "a1"


def test_a_state_without_the_table_loads_where_that_is_meant():
    module = nn.Sequential(make(order=random_order(N, (4, 5, 6))), nn.Linear(2, 2))
    missing, _ = module.load_state_dict({"1.bias": torch.zeros(2)}, strict=False)
    assert "0.cores.0" in missing
    state = module.state_dict()
    del state["0.cores.1"]
    assert module.load_state_dict(state, strict=False).missing_keys == ["0.cores.1"]
    del state["0.row_order.place"]
    with pytest.raises(RuntimeError, match="the state has no order"):
        module.load_state_dict(state, strict=False)


def test_states_of_another_graph_or_factorisation_are_refused():
    rows = (4, 5, 6)
    table = make(order=random_order(N, rows, graph_hash="a1"))
    before = {name: value.clone() for name, value in table.state_dict().items()}
    other_graph = make(order=random_order(N, rows, seed=1, graph_hash="b2"))
    with pytest.raises(RuntimeError, match="an order of the graph b2, the order here is of a1"):
        table.load_state_dict(other_graph.state_dict())
    other_size = make(order=random_order(90, rows), num_embeddings=90)
    for here in (table, make()):
        with pytest.raises(RuntimeError, match=r"state orders 90 nodes.*made for another graph"):
            here.load_state_dict(other_size.state_dict())
    with pytest.raises(RuntimeError, match=r"the state has no order.*Build it without"):
        table.load_state_dict(make().state_dict())
    other_factors = make(rows=(6, 5, 4), order=random_order(N, (6, 5, 4)))
    with pytest.raises(RuntimeError, match=r"was made with rows=\(6, 5, 4\), columns=\(3, 2, 2\)"):
        table.load_state_dict(other_factors.state_dict())
    broken = table.state_dict()
    broken["row_order.place"] = torch.zeros(N, dtype=torch.int32)
    with pytest.raises(RuntimeError, match="no bijection: nodes 0 and 1 share the place 0"):
        table.load_state_dict(broken)
    assert torch.equal(table.row_order.place, before["row_order.place"])


def test_the_meta_device():
    order = random_order(N, (4, 5, 6), graph_hash="a1")
    trained = make(order=order, parts=True)
    empty = make(order=order, parts=True, device="meta")
    assert all(tensor.is_meta for tensor in [*empty.parameters(), *empty.buffers()])
    assert empty(torch.zeros(3, dtype=torch.long, device="meta")).shape == (3, 12)
    for assign in (True, False):
        empty = make(order=order, parts=True, device="meta")
        if not assign:
            empty.to_empty(device="cpu")
        empty.load_state_dict(trained.state_dict(), assign=assign)
        assert torch.equal(empty.full_weight(), trained.full_weight())
    fresh = make(device="meta").to_empty(device="cpu")
    fresh.reset_parameters()
    assert fresh.full_weight().std().item() == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("by_context", [False, True])
def test_an_order_waits_for_to_empty(by_context):
    order = random_order(N, (4, 5, 6))
    if by_context:
        with torch.device("meta"):
            table = make(order=order)
    else:
        table = make(order=order, device="meta")
    assert table.row_order.place.is_meta
    table = copy.deepcopy(table).to_empty(device="cpu")
    table.reset_parameters()
    assert torch.equal(table.row_order.place.long(), order.place)


def test_an_order_that_was_lost_is_told():
    for table in (make(order=random_order(N, (4, 5, 6)), parts=True), make()):
        table.to_empty(device="cpu")  # whose memory may hold anything
        if table.row_order is None:
            table.reset_parameters()
            continue
        table.row_order.place.zero_()
        with pytest.raises(ValueError, match=r"row_order.place holds no order: .* device='meta'"):
            table.reset_parameters()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype):
    table = make(order=random_order(N, (4, 5, 6)), parts=True, learn_scale=True)
    expected = table.full_weight()
    table.to(dtype)
    assert table.row_order.place.dtype == torch.int32
    out = table(torch.arange(N))
    assert out.dtype == table.full_weight().dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)
    out.sum().backward()
    assert all(p.grad.dtype == dtype for p in table.parameters())


def test_autocast_leaves_a_table_alone():
    table = make(learn_scale=True, order=random_order(N, (4, 5, 6)), parts=True)
    expected = table(torch.arange(N))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for out in (table(torch.arange(N)), table.full_weight()):
            assert out.dtype == torch.float32
            torch.testing.assert_close(out, expected)
        F.linear(out, torch.randn(3, 12)).sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in table.parameters())


@pytest.mark.parametrize("ordered", [False, True])
def test_compiled_whole(ordered):
    order = random_order(N, (4, 5, 6)) if ordered else None
    table = make(order=order, parts=ordered, padding_idx=2, learn_scale=True)

    def loss(indices):
        return table(indices).square().sum() + table.full_weight().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    indices = torch.randint(N, (5, 7))
    for run in (loss, compiled):
        table.zero_grad()
        run(indices).backward()
        found = gradients(table)
        if run is loss:
            expected = found
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad)
    with pytest.raises(RuntimeError, match="indices outside of 100 embeddings"):
        compiled(torch.full((5, 7), N))


def test_the_same_seed_gives_the_same_table():
    tables = []
    for _ in range(2):
        torch.manual_seed(7)
        tables.append(make(order=random_order(N, (4, 5, 6)), parts=True).full_weight())
    assert torch.equal(*tables)


def test_what_is_printed():
    text = repr(make(order=random_order(N, (4, 5, 6), graph_hash="a1"), padding_idx=3))
    for part in ("100, 12, padding_idx=3", "rank=(3, 3)", "rows=(4, 5, 6)", "graph_hash='a1'"):
        assert part in text
    assert "compression_ratio=" in text


# --- new nodes ------------------------------------------------------------------------------------


def test_new_nodes_take_free_places():
    order = random_order(110, (4, 5, 6))
    first = NodeOrder(rows=order.rows, place=order.place[:N], method="random", graph_hash=None)
    table = make(order=first)
    before = table.full_weight()
    table.extend(order)
    assert (table.num_embeddings, table(torch.tensor([109])).shape) == (110, (1, 12))
    assert torch.equal(table.full_weight()[:N], before)
    moved = NodeOrder(rows=order.rows, place=order.place.flip(0), method="random", graph_hash=None)
    with pytest.raises(ValueError, match="order moves node 0 from place"):
        table.extend(moved)
    with pytest.raises(ValueError, match="has 100 nodes, fewer than num_embeddings=110"):
        table.extend(first)
    with pytest.raises(ValueError, match=r"made for rows=\(5, 4, 6\), not for rows=\(4, 5, 6\)"):
        table.extend(random_order(N, (5, 4, 6)))


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.tensor([[0, 1], [N, 2]]), r"indices\[1, 0\]=100 is no row: num_embeddings=100"),
        (torch.tensor([3, -1], dtype=torch.int32), r"indices\[1\]=-1 is no row"),
        (torch.tensor(2**40), "indices=1099511627776 is no row"),
    ],
)
@pytest.mark.parametrize("ordered", [False, True])
def test_an_index_out_of_range_says_which_and_where(indices, message, ordered):
    table = make(order=random_order(N, (4, 5, 6)) if ordered else None)
    with pytest.raises(IndexError, match=message):
        table(indices)


@pytest.mark.parametrize("indices", [torch.tensor([1.0]), torch.tensor([True])])
def test_indices_that_are_no_integers(indices):
    with pytest.raises(ValueError, match="indices must be int64 or int32"):
        make()(indices)


@pytest.mark.parametrize("indices", [[1, 2], 1, np.array([1, 2])])
def test_indices_that_are_no_tensor(indices):
    kind = type(indices).__name__
    with pytest.raises(TypeError, match=f"indices is a {kind} and must be a tensor"):
        make()(indices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank: 0"),
        ({"rank": -3}, "rank: -3"),
        ({"rows": (4, 5, 4)}, "80 embeddings, 20 too few for num_embeddings=100"),
        ({"columns": (3, 2, 3)}, "make 18 columns, embedding_dim=12"),
        ({"init": "orthogonal", "rank": 8}, "core 3 cannot be orthogonal"),
        ({"init": "zeros"}, "init='zeros'"),
        ({"std": -1.0}, "std=-1.0"),
        ({"rank": 3, "compression": 10}, "rank=3 and compression=10 each decide"),
        ({"rank": None, "compression": 10, "max_bytes": 99}, "compression=10 and max_bytes=99"),
        ({"rank": None, "compression": 0}, "compression=0 must be above 0"),
        ({"rank": None, "compression": math.nan}, "compression=nan must be above 0"),
        (
            {"rank": None, "compression": 100},
            r"compression=100 cannot be met .* 12 parameters\): the smallest",
        ),
        (
            {"rank": None, "max_bytes": 100},
            r"max_bytes=100 cannot be met .* 25 parameters\): the smallest",
        ),
        ({"parts": True}, "parts=True needs an order"),
        ({"order": random_order(N, (4, 5, 6)), "parts": [3]}, r"levels=\(3,\) must be some of"),
        ({"order": random_order(99, (4, 5, 6))}, "order has 99 nodes, num_embeddings=100"),
        ({"order": random_order(N, (5, 4, 6))}, r"made for rows=\(5, 4, 6\), not for rows="),
        ({"padding_idx": 100}, "padding_idx=100 is no row"),
        ({"padding_idx": -101}, "padding_idx=-101 is no row"),
        ({"num_embeddings": 0}, "num_embeddings=0"),
        ({"max_norm": 1.0}, "max_norm=1.0 .* weight decay"),
        ({"scale_grad_by_freq": True}, "scale_grad_by_freq=True: gradients are those of cores"),
        ({"sparse": True}, "sparse=True: cores are small and their gradients dense"),
    ],
)
def test_what_is_no_table(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 8.0}, "rank=8.0 must be a whole number, or a sequence"),
        ({"rank": "8"}, "rank='8' must be"),
        ({"rank": True}, "rank=True must be"),
        ({"rank": [2, 2.5]}, r"rank=\[2, 2.5\] must be"),
        ({"order": torch.arange(N)}, "order is a Tensor and must be a NodeOrder"),
        ({"order": "metis"}, "order is a str and must be a NodeOrder"),
        ({"order": random_order(N, (4, 5, 6)), "parts": 1}, "levels=1 must be a sequence"),
    ],
)
def test_arguments_of_other_types(arguments, message):
    with pytest.raises(TypeError, match=message):
        make(**arguments)


def test_what_embeddings_take_by_default_changes_nothing():
    table = TTEmbedding(N, 12, 3, None, 2.0, False, False, rank=np.int64(4))
    assert table.shape == TTEmbedding(N, 12, rank=4).shape
    assert table.padding_idx == 3


@pytest.mark.parametrize("rank", [[400, 400], [1, 400], np.array([3, 400])])
def test_ranks_no_table_can_have_are_lowered(rank):
    highest = make(rank=400).shape.ranks
    table = make(rank=rank)
    assert table.shape.ranks == tuple(map(min, map(int, rank), highest))
    assert table.compression_ratio > 0.2


def test_weight_cannot_be_set():
    table = make()
    before = table.full_weight()
    for value in (torch.zeros(N, 12), nn.Parameter(torch.zeros(N, 12)), None):
        with pytest.raises(AttributeError, match=r"by TTEmbedding.from_pretrained.*reset_param"):
            table.weight = value
    assert torch.equal(table.weight, before)
    assert "weight" not in dict(table.named_parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "error": 0.1}, "rank=2 and error=0.1"),
        ({"error": 0.1, "max_bytes": 99}, "error=0.1 decides"),
        ({"error": 2}, "error=2 must lie"),
        ({"rank": 2, "init": "gaussian"}, "init: the table itself decides"),
    ],
)
def test_what_cannot_be_made_of_a_table(arguments, message):
    with pytest.raises(ValueError, match=message):
        TTEmbedding.from_pretrained(torch.randn(N, 12), **arguments)


def test_tables_that_are_no_tensors():
    with pytest.raises(TypeError, match=r"weight is a ndarray .* torch.as_tensor"):
        TTEmbedding.from_pretrained(np.zeros((3, 4)))
    with pytest.raises(TypeError, match=r"weight is a Embedding .* give its weight"):
        TTEmbedding.from_pretrained(nn.Embedding(3, 4))


def test_states_of_more_rows_name_the_number():
    longer = make(order=random_order(N + 1, (4, 5, 6)), num_embeddings=N + 1)
    for order in (None, random_order(N, (4, 5, 6))):
        with pytest.raises(RuntimeError, match=r"orders 101 nodes, .* num_embeddings=101"):
            make(order=order).load_state_dict(longer.state_dict())
    with pytest.raises(ValueError, match=r"num_embeddings=100: .* give num_embeddings=101"):
        make(order=random_order(N + 1, (4, 5, 6)))
