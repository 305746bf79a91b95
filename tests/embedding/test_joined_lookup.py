"""Tables that are alike are asked in one call, and nothing else about them changes."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lit_gnncompress.embedding import TTEmbedding, TTEmbeddingBag, joined_lookup
from lit_gnncompress.embedding.joined_lookup import JoinedLookup
from tests.embedding.tables import random_order

SIZES = ((100, (4, 5, 6)), (37, (3, 4, 4)), (9, (2, 3, 2)))
ORDER = random_order(100, (4, 5, 6))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def train(number, kind=TTEmbedding, **arguments):
    """A tensor train like the others but in its rows."""
    count, rows = SIZES[number]
    arguments = {"rank": 3, "columns": (3, 2, 2), "rows": rows, "dtype": torch.float64} | arguments
    return kind(count, 12, **arguments)


def make_tables(*others, **of_first):
    """Three trains, the first with other arguments, and what else is wanted."""
    return nn.ModuleList([train(0, **of_first), train(1), train(2), *others])


def dense(kind=nn.Embedding, **arguments):
    return kind(20, 12, dtype=torch.float64, **arguments)


def with_hook(seen):
    table = train(1)
    table.register_forward_hook(lambda module, args, rows: seen.append(rows))
    return table


VARIANTS = {
    "alike": lambda: (make_tables(), 1),
    "padding": lambda: (make_tables(padding_idx=5), 1),
    "an order": lambda: (make_tables(order=ORDER), 1),
    "parts": lambda: (make_tables(order=ORDER, parts=True, padding_idx=2), 1),
    "a scale": lambda: (make_tables(learn_scale=True), 1),
    "bags": lambda: (make_tables(kind=TTEmbeddingBag, padding_idx=5, mode="max"), 1),
    "another rank": lambda: (make_tables(rank=2), 1),
    "two groups": lambda: (make_tables(train(0, rank=2), train(1, rank=2)), 2),
    "dense tables": lambda: (make_tables(dense(), dense(nn.EmbeddingBag, sparse=True)), 1),
    "frozen": lambda: (make_tables(*[train(k).requires_grad_(False) for k in (0, 1)]), 2),
    "quantized": lambda: (make_tables(train(0).quantized(), train(1).quantized()), 1),
    "hooks": lambda: (make_tables(with_hook([])), 1),
    "none alike": lambda: (nn.ModuleList([train(0), train(1, rank=2), dense()]), 0),
}


@pytest.fixture(params=VARIANTS, ids=VARIANTS)
def variant(request):
    return VARIANTS[request.param]()


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls for groups."""
    made = []
    kernel = joined_lookup.tt_lookup
    monkeypatch.setattr(
        joined_lookup, "tt_lookup", lambda *args: (made.append(args), kernel(*args))[1]
    )
    return made


def categories_of(tables, size=40):
    rows = torch.stack([torch.randint(table.num_embeddings, (size,)) for table in tables], 1)
    rows[0] = torch.tensor([5 if table.num_embeddings > 5 else 0 for table in tables])  # padding
    return rows


def one_by_one(tables, categories):
    columns = zip(tables, categories.unbind(1), strict=True)
    return [t(c.unsqueeze(1) if hasattr(t, "mode") else c) for t, c in columns]


def test_rows_and_gradients_are_those_of_each_table(variant, calls):
    tables, groups = variant
    alone, categories = copy.deepcopy(tables), categories_of(tables)
    names = [name for name, _ in tables.named_parameters()]
    found = JoinedLookup()(list(tables), categories)
    assert len(calls) == groups
    expected = one_by_one(alone, categories)
    torch.testing.assert_close(found, expected)
    trained = [k for k, rows in enumerate(found) if rows.requires_grad]
    assert trained == [k for k, rows in enumerate(expected) if rows.requires_grad]
    weights = [torch.randn_like(found[k]) for k in trained]
    torch.autograd.backward([found[k] for k in trained], weights)
    torch.autograd.backward([expected[k] for k in trained], weights)
    assert [name for name, _ in tables.named_parameters()] == names
    for name, parameter in tables.named_parameters():
        grad = alone.get_parameter(name).grad
        if grad is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, grad)


@pytest.mark.parametrize("size", [0, 1])
def test_few_rows(variant, size):
    tables, _ = variant
    categories = categories_of(tables)[:size]
    found = JoinedLookup()(list(tables), categories)
    torch.testing.assert_close(found, one_by_one(tables, categories))


def test_a_table_of_two_fields_gets_the_gradients_of_both():
    table = train(0)
    alone, categories = copy.deepcopy(table), categories_of([table, table])
    (first, second) = JoinedLookup()([table, table], categories)
    (first + 2 * second).sum().backward()
    (alone(categories[:, 0]) + 2 * alone(categories[:, 1])).sum().backward()
    for one, other in zip(table.cores, alone.cores, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_tables_may_change_between_calls():
    look_up, tables = JoinedLookup(), make_tables()
    categories = categories_of(tables)
    with torch.inference_mode():
        look_up(list(tables), categories)
    for change in (
        lambda: tables.__setitem__(1, train(1)),
        lambda: tables.__setitem__(1, TTEmbedding(40, 12, rank=3, columns=(3, 2, 2))),
        lambda: tables[0].cores.requires_grad_(False),
        lambda: tables.float(),
        lambda: tables.__setitem__(2, nn.Embedding(9, 12)),
        lambda: tables.load_state_dict(tables.state_dict(), assign=True),
    ):
        change()
        found = look_up(list(tables), categories)
        torch.testing.assert_close(found, one_by_one(tables, categories))
        found[1].sum().backward()


def test_a_hook_of_a_table_is_called():
    seen = []
    tables = [train(0), with_hook(seen), train(2)]
    found = JoinedLookup()(tables, categories_of(tables))
    assert seen[0] is found[1]


def test_groups_are_no_larger_than_kernels_allow(monkeypatch, calls):
    monkeypatch.setattr("lit_gnncompress.embedding.joined_cores._DIGITS", 1 + (5 + 4) * (6 + 4))
    tables = make_tables(train(0))
    categories = categories_of(tables)
    found = JoinedLookup()(list(tables), categories)
    assert [len(args[1][0]) for args in calls] == [4 + 3, 2 + 4]
    torch.testing.assert_close(found, one_by_one(tables, categories))


def test_large_cores_are_not_copied(monkeypatch, calls):
    tables = make_tables(train(1))
    monkeypatch.setattr(joined_lookup, "_MOST_NUMBERS", tables[1].shape.num_parameters)
    categories = categories_of(tables)
    found = JoinedLookup()(list(tables), categories)
    assert [len(args[1][0]) for args in calls] == [3 + 2 + 3]  # all but the first
    torch.testing.assert_close(found, one_by_one(tables, categories))


@pytest.mark.parametrize(("column", "wrong"), [(1, 37), (2, -1)])
def test_a_category_without_a_row_is_named(column, wrong):
    tables = make_tables()
    categories = categories_of(tables)
    categories[3, column] = wrong
    count = SIZES[column][0]
    message = f"table {column}: category {wrong} of row 3 is no row: num_embeddings={count}"
    with pytest.raises(IndexError, match=message):
        JoinedLookup()(list(tables), categories)


def test_compiled_and_copied():
    look_up, tables = JoinedLookup(), make_tables(padding_idx=5)
    categories = categories_of(tables)
    expected = look_up(list(tables), categories)
    compiled = torch.compile(lambda rows: look_up(list(tables), rows), backend="aot_eager")
    torch.testing.assert_close(compiled(categories), expected)
    for other in (copy.deepcopy(look_up), pickle.loads(pickle.dumps(look_up))):
        torch.testing.assert_close(other(list(tables), categories), expected)
