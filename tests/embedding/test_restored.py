"""Tensor trains made anew from their states alone."""

import pytest
import torch
from torch import nn

from lit_gnncompress.embedding import (
    PartitionEmbedding,
    QuantizedTTEmbedding,
    TTEmbedding,
    TTEmbeddingBag,
    hierarchical_order,
)
from lit_gnncompress.embedding.restored import restore_tables
from tests.embedding.graphs import random_edges

N, D = 50, 8
ORDER = hierarchical_order(random_edges(N, 300), N, (5, 3, 4))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"rank": (2, 3, 2), "rows": (2, 3, 3, 3), "columns": (2, 2, 2, 1)},
        {"rows": (10, 5)},
        {"order": ORDER, "dtype": torch.float64},
        {"order": ORDER, "parts": [2, 1], "learn_scale": True, "padding_idx": 3},
    ],
)
@pytest.mark.parametrize("bags", [False, True])
def test_a_state_is_all_that_it_takes(arguments, bags):
    torch.manual_seed(0)
    arguments = {"rank": 2} | arguments
    padding = {"padding_idx": arguments.get("padding_idx")}
    if bags:
        train = TTEmbeddingBag(N, D, mode="sum", include_last_offset=True, **arguments)
        table = nn.EmbeddingBag(N, D, mode="sum", include_last_offset=True, **padding)
    else:
        train, table = TTEmbedding(N, D, **arguments), nn.Embedding(N, D, **padding)
    trained = nn.ModuleDict({"net": nn.ModuleList([train, nn.Embedding(4, 2)])})
    module = nn.ModuleDict({"net": nn.ModuleList([table, nn.Embedding(4, 2)])}).eval()
    assert restore_tables(module, trained.state_dict()) == ["net.0"]
    module.load_state_dict(trained.state_dict())
    restored = module["net"][0]
    given = (torch.tensor([0, 3, 49]), torch.tensor([0, 2, 3])) if bags else (torch.arange(N),)
    assert torch.equal(restored(*given), train(*given))
    assert (type(restored), restored.shape) == (type(train), train.shape)
    assert restored.padding_idx == train.padding_idx
    assert not restored.training
    assert restore_tables(module, trained.state_dict()) == []


def test_a_shared_table_stays_shared_and_others_stay():
    module = nn.ModuleList([nn.Embedding(N, D), nn.Embedding(N, D), nn.Linear(D, 1)])
    module[1].weight = module[0].weight
    train = TTEmbedding(N, D, rank=2)
    state = nn.ModuleList([train, train, nn.Linear(D, 1)]).state_dict()
    module[0].weight.requires_grad_(False)
    assert restore_tables(module, state) == ["0", "1"]
    assert module[0] is module[1]
    assert not module[0].cores[0].requires_grad
    plain = nn.ModuleList([nn.Embedding(N, D)])
    assert restore_tables(plain, plain.state_dict()) == []


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (nn.Embedding(100, D), {}, "'0': the state's tensor train does not fit: rows=.* too few"),
        (nn.Embedding(N, 9), {}, "make 8 columns, embedding_dim=9"),
        (nn.Embedding(N - 1, D), {}, "has 50 rows, .* num_embeddings=49.* build the module for 50"),
        (nn.Embedding(N, D), {"0.cores.1": torch.ones(3, 2)}, r"its cores have the shapes .*\(3,"),
        (nn.Embedding(N, D), {"0.parts.tables.0": torch.ones(7, D)}, "has 7 parts"),
    ],
)
def test_a_state_of_another_table_is_refused(table, change, message):
    state = nn.ModuleList([TTEmbedding(N, D, rank=2, order=ORDER)]).state_dict() | change
    if table.num_embeddings == 100:
        del state["0.row_order.place"]
    module = nn.ModuleList([table])
    with pytest.raises(ValueError, match=message):
        restore_tables(module, state)
    assert module[0] is table


@pytest.mark.parametrize("bits", [8, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {"rank": (2, 3, 2), "rows": (2, 3, 3, 3), "columns": (2, 2, 2, 1)},
        {"rank": 2, "order": ORDER, "parts": [2, 1], "learn_scale": True, "padding_idx": 3},
    ],
)
def test_tensor_trains_in_few_bits(arguments, bits):
    torch.manual_seed(0)
    small = nn.ModuleList([TTEmbedding(N, D, **arguments).quantized(bits)])
    module = nn.ModuleList([nn.Embedding(N, D, padding_idx=arguments.get("padding_idx"))]).eval()
    assert restore_tables(module, small.state_dict()) == ["0"]
    module.load_state_dict(small.state_dict())
    assert type(module[0]) is QuantizedTTEmbedding
    assert (module[0].bits, module[0].shape) == (bits, small[0].shape)
    assert torch.equal(module[0].full_weight(), small[0].full_weight())
    assert not module[0].training
    with pytest.raises(ValueError, match=r"in few bits it takes the place of an nn.Embedding"):
        restore_tables(nn.ModuleList([nn.EmbeddingBag(N, D)]), small.state_dict())


@pytest.mark.parametrize("levels", [None, [2], [1]])
def test_vectors_of_parts(levels):
    torch.manual_seed(0)
    small = nn.ModuleList([PartitionEmbedding(N, D, ORDER, levels, dtype=torch.float64)])
    module = nn.ModuleList([nn.Embedding(N, D)])
    assert restore_tables(module, small.state_dict()) == ["0"]
    module.load_state_dict(small.state_dict())
    assert module[0].levels == small[0].levels
    assert torch.equal(module[0].full_weight(), small[0].full_weight())
    for other in (nn.Embedding(N, D + 1), nn.EmbeddingBag(N, D), nn.Embedding(N + 1, D)):
        with pytest.raises(ValueError, match="'0': the state's vectors of parts do not fit"):
            restore_tables(nn.ModuleList([other]), small.state_dict())


@pytest.mark.parametrize("quantized", [False, True])
def test_a_whole_checkpoint_will_do(quantized):
    train = TTEmbedding(N, D, rank=2, order=ORDER)
    state = nn.ModuleList([train.quantized(8) if quantized else train]).state_dict()
    module = nn.ModuleList([nn.Embedding(N, D)])
    assert restore_tables(module, {"epoch": 3, "state_dict": state}) == ["0"]
    module.load_state_dict(state)


@pytest.mark.parametrize("quantized", [False, True])
def test_cores_without_a_place_are_refused(quantized):
    train = TTEmbedding(N, D, rank=2)
    net = nn.ModuleDict({"user": train.quantized(8) if quantized else train})
    state = net.state_dict()
    for prefix in ("module.", "model._orig_mod."):
        module = nn.ModuleDict({"user": nn.Embedding(N, D)})
        message = f"tensor train '{prefix}user', .* Take '{prefix}' off the names"
        with pytest.raises(ValueError, match=message):
            restore_tables(module, {prefix + key: value for key, value in state.items()})
        assert type(module["user"]) is nn.Embedding
    for other, message in (
        (nn.ModuleDict({"net": module}), "Pass the module's 'net'"),
        (nn.ModuleDict({"item": nn.Embedding(N, D)}), "Its tables: item"),
        (nn.ModuleDict({"user": nn.Linear(D, 1)}), "Its tables: none"),
    ):
        with pytest.raises(ValueError, match=message):
            restore_tables(other, state)
    assert restore_tables(net, state) == []
