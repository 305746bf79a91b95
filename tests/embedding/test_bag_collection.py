import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lit_gnncompress.embedding import TTEmbeddingBag, TTEmbeddingBagCollection, joined_cores
from lit_gnncompress.embedding import bag_collection as module
from tests.embedding.tables import random_order

SIZES = {"user": (100, (4, 5, 6)), "item": (37, (3, 4, 4)), "shop": (9, (2, 3, 2))}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def make_tables(**arguments):
    """Alike but in their rows; ``arguments`` by name of a table."""
    tables = {}
    for name, (count, rows) in SIZES.items():
        given = {"mode": "sum", "rank": 3, "columns": (3, 2, 2)} | arguments.get(name, {})
        given = {"rows": rows, "dtype": torch.float64} | given
        tables[name] = TTEmbeddingBag(count, 12, **given)
    return tables


VARIANTS = {
    "one group": {},
    "means": {"item": {"mode": "mean"}, "user": {"mode": "mean", "padding_idx": 5}},
    "padding": {"user": {"padding_idx": 5}, "shop": {"padding_idx": -1}},
    "an order": {"user": {"order": random_order(100, (4, 5, 6))}},
    "a maximum": {"item": {"mode": "max", "padding_idx": 2}},
    "another rank": {"item": {"rank": 2}},
    "parts": {"user": {"order": random_order(100, (4, 5, 6)), "parts": True}},
    "a scale": {"shop": {"learn_scale": True}},
    "no group": {"user": {"rank": 2}, "item": {"mode": "max"}},
    "last offsets": {"user": {"include_last_offset": True}},
}


@pytest.fixture(params=VARIANTS, ids=VARIANTS)
def tables(request):
    return make_tables(**VARIANTS[request.param])


def check_gradients(collection, tables, found, expected):
    """The same gradients as the tables on their own have."""
    grads = [torch.randn_like(one) for one in found]
    torch.autograd.backward(found, grads)
    torch.autograd.backward(expected, grads)
    for name, table in tables.items():
        joined = dict(collection.tables[name].named_parameters())
        for key, parameter in table.named_parameters():
            if key in joined:
                torch.testing.assert_close(joined[key].grad, parameter.grad)
    for names, joined in zip(collection._names, collection.groups, strict=True):
        for k, core in enumerate(joined.cores):
            expected = torch.cat([tables[name].cores[k].grad for name in names])
            torch.testing.assert_close(core.grad, expected)


def test_categories(tables):
    alone, collection = copy.deepcopy(tables), TTEmbeddingBagCollection(tables)
    for dtype in (torch.int64, torch.int32):
        input = torch.stack([torch.randint(n, (40,)) for n, _ in SIZES.values()], 1).to(dtype)
        input[0] = torch.tensor([5, 2, 8])  # the paddings
        found = collection(input)
        expected = [table(input[:, k : k + 1]) for k, table in enumerate(alone.values())]
        torch.testing.assert_close(found, torch.stack(expected, 1))
    check_gradients(collection, alone, found.unbind(1), expected)
    assert collection(input[:0]).shape == (0, 3, 12)


@pytest.mark.parametrize("weighted", [False, True])
def test_bags(tables, weighted):
    alone, collection = copy.deepcopy(tables), TTEmbeddingBagCollection(tables)
    asked = {}
    for bags, (name, table) in enumerate(tables.items(), 3):
        input = torch.randint(table.num_embeddings, (20,))
        offsets = torch.tensor([0, 4, 4, 11, 20])[:bags]
        if table.include_last_offset:
            offsets = torch.cat([offsets, offsets.new_tensor([20])])
        asked[name] = [input, offsets]
        if weighted and table.mode == "sum" and name != "shop":
            asked[name].append(torch.randn(20, dtype=torch.float64))
    found = collection(asked)
    expected = [table(*asked[name]) for name, table in alone.items()]
    assert [len(one) for one in found] == [3, 4, 5]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(collection(list(asked.values())), expected)
    check_gradients(collection, alone, found, expected)


def test_bags_in_rows_and_without_rows(tables):
    alone, collection = copy.deepcopy(tables), TTEmbeddingBagCollection(tables)
    input = [torch.randint(9, (4, 3)), torch.randint(9, (2, 0)), torch.randint(9, (1, 1))]
    expected = [table(one) for table, one in zip(alone.values(), input, strict=True)]
    torch.testing.assert_close(collection(input), expected)


@pytest.mark.parametrize(
    ("variant", "calls"), [("one group", 1), ("a maximum", 2), ("no group", 3), ("padding", 1)]
)
def test_a_group_is_one_call(variant, calls, monkeypatch):
    collection = TTEmbeddingBagCollection(make_tables(**VARIANTS[variant]))
    made = []
    for name in ("tt_lookup", "tt_embedding_bag"):
        kernel = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, k=kernel: (made.append(a), k(*a))[1])
    collection(torch.zeros(5, 3, dtype=torch.long))
    collection([torch.zeros(5, 2, dtype=torch.long)] * 3)
    assert len(made) == 2 * len(collection.groups)
    alone = len(SIZES) - sum(map(len, collection._names))
    assert len(collection.groups) + alone == calls
    assert f"3 tables in {calls} calls" in repr(collection)


def test_groups_are_no_larger_than_kernels_allow(monkeypatch):
    tables = make_tables()
    alone = copy.deepcopy(tables)
    monkeypatch.setattr(joined_cores, "_DIGITS", 1 + (5 + 4) * (6 + 4))
    collection = TTEmbeddingBagCollection(tables)
    assert collection._names == [["user", "item"]]
    input = torch.randint(9, (6, 3))
    expected = [table(input[:, k : k + 1]) for k, table in enumerate(alone.values())]
    torch.testing.assert_close(collection(input), torch.stack(expected, 1))


def test_widths_may_differ():
    tables = make_tables()
    tables["wide"] = TTEmbeddingBag(50, 24, mode="sum", rank=2, dtype=torch.float64)
    alone, collection = copy.deepcopy(tables), TTEmbeddingBagCollection(list(tables.values()))
    input = torch.randint(9, (6, 4))
    expected = [table(input[:, k : k + 1]) for k, table in enumerate(alone.values())]
    assert list(collection.tables) == ["0", "1", "2", "3"]
    torch.testing.assert_close(collection(input), expected)


def test_a_table_is_whole(tables):
    alone, collection = copy.deepcopy(tables), TTEmbeddingBagCollection(tables)
    for name, table in alone.items():
        torch.testing.assert_close(collection.full_weight(name), table.full_weight())
        own = collection.tables[name]
        assert own.compression_ratio == table.compression_ratio
        assert own.num_bytes == table.num_bytes
        bags = torch.randint(9, (4, 3))
        torch.testing.assert_close(own(bags), table(bags))
    dense = sum(table.num_embeddings * 12 for table in alone.values())
    kept = sum(p.numel() for table in alone.values() for p in table.parameters())
    assert collection.compression_ratio == dense / kept


# --- states ---------------------------------------------------------------------------------------


def test_states_are_those_of_the_tables(tables, tmp_path):
    alone = nn.ModuleDict({"tables": nn.ModuleDict(copy.deepcopy(tables))})
    collection = TTEmbeddingBagCollection(tables)
    state = collection.state_dict()
    assert list(state) == list(alone.state_dict())
    save_file(state, tmp_path / "tables.safetensors")
    alone.load_state_dict(load_file(tmp_path / "tables.safetensors"))
    for name, table in alone["tables"].items():
        assert torch.equal(table.full_weight(), collection.full_weight(name))
        table.reset_parameters()
    collection.load_state_dict(alone.state_dict())
    for name, table in alone["tables"].items():
        assert torch.equal(table.full_weight(), collection.full_weight(name))


def test_states_that_do_not_fit():
    collection = TTEmbeddingBagCollection(make_tables())
    state = collection.state_dict()
    missing = {key: value for key, value in state.items() if key != "tables.item.cores.1"}
    with pytest.raises(RuntimeError, match=r'Missing key.*"tables\.item\.cores\.1"'):
        collection.load_state_dict(missing)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"tables\.item\.cores\.3"'):
        collection.load_state_dict(state | {"tables.item.cores.3": torch.ones(1)})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"groups\.0\.core_0"'):
        collection.load_state_dict(state | {"groups.0.core_0": torch.ones(1)})
    other = TTEmbeddingBagCollection(make_tables(item={"rows": (4, 4, 3)}))
    with pytest.raises(RuntimeError, match=r"tables\.item\.cores: .* made with rows=\(4, 4, 3\)"):
        collection.load_state_dict(other.state_dict())


def test_copies_and_dtypes():
    collection = TTEmbeddingBagCollection(make_tables())
    input = torch.randint(9, (6, 3))
    other = copy.deepcopy(collection)
    assert torch.equal(other(input), collection(input))
    with torch.no_grad():
        other.groups[0].cores[0].zero_()
    assert not other.full_weight("item").any()
    assert collection.full_weight("item").any()
    expected = collection(input)
    torch.testing.assert_close(collection.float()(input), expected.float())
    assert collection.tables["item"].cores[1].dtype == torch.float32


def test_compiled_whole():
    collection = TTEmbeddingBagCollection(make_tables(**VARIANTS["padding"]))
    input = torch.randint(9, (6, 3))
    compiled = torch.compile(collection, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input), collection(input))


def test_frozen_tables_have_a_group_of_their_own():
    tables = make_tables()
    tables["item"].requires_grad_(False)
    tables["shop"].requires_grad_(False)
    collection = TTEmbeddingBagCollection(tables)
    assert collection._names == [["item", "shop"]]
    assert not any(p.requires_grad for p in collection.groups.parameters())


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("input", "message"),
    [
        (torch.zeros(4, 2).long(), r"shape \(4, 2\): categories are of shape \(B, 3\)"),
        (torch.zeros(4).long(), r"shape \(4,\): categories"),
        (torch.zeros(4, 3), "table 'user': indices must be int64 or int32"),
        ([torch.zeros(4, 2).long()], "input has 1 entries, there are 3 tables"),
        ({"user": torch.zeros(4, 2).long()}, "input is for user; the tables are user, item, shop"),
        ([[torch.zeros(4, 2).long()] * 4] * 3, "table 'user': 4 tensors; it takes input, offsets"),
        (
            [[torch.zeros(4).long(), torch.tensor([k])] for k in (0, 1, 0)],
            r"table 'item': offsets\[0\]=1 must be 0",
        ),
        ([torch.zeros(4).long()] * 3, "table 'user': A one-dimensional input needs offsets"),
    ],
)
def test_what_is_no_input(input, message):
    with pytest.raises(ValueError, match=message):
        TTEmbeddingBagCollection(make_tables())(input)


def test_what_is_no_tensor():
    zeros = torch.zeros(4, 2, dtype=torch.long)
    with pytest.raises(TypeError, match="table 'item': indices is a list and must be a tensor"):
        TTEmbeddingBagCollection(make_tables())([zeros, ([1, 2], torch.tensor([0])), zeros])


def test_an_index_out_of_range_says_which_and_where(tables):
    collection = TTEmbeddingBagCollection(tables)
    message = r"table 'item': indices\[3.*\]=37 is no row: num_embeddings=37"
    input = torch.zeros(5, 3, dtype=torch.long)
    input[3, 1] = 37
    with pytest.raises(IndexError, match=message):
        collection(input)
    with pytest.raises(IndexError, match="=37 is no row: num_embeddings=37"):
        collection(list(input.unsqueeze(2).unbind(1)))


def test_one_table_cannot_be_frozen_where_its_cores_lie_with_others():
    tables = make_tables(item={"mode": "max"})
    collection = TTEmbeddingBagCollection(tables)
    with pytest.raises(ValueError, match=r"requires_grad_\(False\): the cores lie with those of"):
        tables["user"].requires_grad_(False)
    tables["item"].requires_grad_(False)  # which has its own
    assert [p.requires_grad for p in collection.tables.parameters()] == [False] * 3
    assert not any(p.requires_grad for p in collection.requires_grad_(False).parameters())


@pytest.mark.parametrize("assign", [False, True])
def test_a_collection_made_on_the_meta_device_takes_a_state(assign):
    collection = TTEmbeddingBagCollection(make_tables(user={"padding_idx": 5}))
    other = copy.deepcopy(collection).to("meta")
    with pytest.raises(RuntimeError, match=r"is on the meta device, .* Call to_empty\(device=…\)"):
        other.load_state_dict(collection.state_dict(), assign=assign)
    other.to_empty(device="cpu").load_state_dict(collection.state_dict(), assign=assign)
    input = torch.stack([torch.randint(0, count, (20,)) for count, _ in SIZES.values()], 1)
    assert torch.equal(other(input), collection(input))


def test_what_is_no_collection():
    table = make_tables()["user"]
    with pytest.raises(ValueError, match="tables is empty"):
        TTEmbeddingBagCollection([])
    with pytest.raises(ValueError, match=r"tables\['1'\] is tables\['0'\]"):
        TTEmbeddingBagCollection([table, table])
    with pytest.raises(ValueError, match=r"tables\['0'\] is Embedding: a collection is made of"):
        TTEmbeddingBagCollection([nn.Embedding(3, 4)])
    with pytest.raises(ValueError, match=r"tables\['0'\] is on the meta device"):
        TTEmbeddingBagCollection([TTEmbeddingBag(100, 12, device="meta")])
    tables = make_tables()
    TTEmbeddingBagCollection(tables)
    with pytest.raises(ValueError, match=r"tables\['user'\] is in another collection already"):
        TTEmbeddingBagCollection(tables)


def test_a_table_that_was_replaced_is_told():
    categories = torch.zeros(2, 3, dtype=torch.long)
    for change in (
        lambda tables: tables.update({"item": make_tables()["item"]}),
        lambda tables: tables.update(
            {"item": TTEmbeddingBagCollection(make_tables()).tables["item"]}
        ),
        lambda tables: tables.pop("item"),
    ):
        collection = TTEmbeddingBagCollection(make_tables())
        change(collection.tables)
        asked = categories[:, : len(collection.tables)]
        for input in (asked, list(asked.unsqueeze(2).unbind(1))):
            with pytest.raises(ValueError, match=r"tables\['item'\] was taken out or replaced"):
                collection(input)
    collection = TTEmbeddingBagCollection(make_tables(item={"mode": "max"}))
    collection.tables["item"] = make_tables()["item"]  # which is in no group
    rows = collection(categories)[:, 1]
    torch.testing.assert_close(rows, collection.tables["item"].full_weight()[[0, 0]])


def test_functional_call(tables):
    collection = TTEmbeddingBagCollection(tables)
    other = copy.deepcopy(collection)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    asked = {name: (torch.arange(8), torch.tensor([0, 2, 2, 8])) for name in tables}
    found = torch.func.functional_call(collection, dict(other.named_parameters()), (asked,))
    for ours, theirs in zip(found, other(asked), strict=True):
        assert torch.equal(ours, theirs)
