"""Tensor trains made anew from their states alone."""

import pytest
import torch
from torch import nn

from lit_gnncompress.embedding import TTEmbedding, TTEmbeddingBag, hierarchical_order
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
        (nn.Embedding(N - 1, D), {}, "order has 50 nodes, num_embeddings=49"),
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
