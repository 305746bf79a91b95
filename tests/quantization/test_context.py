import pytest
import torch
from torch_geometric.nn import SAGEConv

from lit_gnncompress.plan import BitPlan
from lit_gnncompress.quantization import quantize_
from lit_gnncompress.quantization.context import GraphContext

EDGES = torch.tensor([[0, 1, 2, 3], [1, 1, 1, 2]])  # in-degrees 0, 3, 1, 0


def bucket_of(context, layer="conv", num_rows=4, adjacency=EDGES, sources=False):
    buckets = context.buckets(layer, num_rows, adjacency, "source_to_target", sources)
    return None if buckets is None else buckets.index.tolist()


def test_layers_count_for_themselves_where_nothing_was_published():
    context = GraphContext(splits=[1, 3])
    assert bucket_of(context) == [0, 2, 1, 0]
    assert bucket_of(context, sources=True) == [1, 1, 1, 1]
    assert bucket_of(GraphContext()) is None


def test_degrees_of_the_whole_graph_are_for_sampled_batches():
    context = GraphContext(splits=[1, 3])
    context.publish(4, torch.tensor([9, 9, 0, 1]))
    assert bucket_of(context) == [2, 2, 0, 1]
    assert bucket_of(context, num_rows=2) == [2, 2]  # a trimmed layer keeps a prefix
    context.publish(4, torch.tensor([0, 0, 0, 0]))
    assert bucket_of(context) == [0, 0, 0, 0]
    context.publish(4)
    assert bucket_of(context) == [0, 2, 1, 0]
    context.publish(4, torch.tensor([9, 9, 9, 9]))
    context.clear()
    assert bucket_of(context) == [0, 2, 1, 0]


@pytest.mark.parametrize("layer", ["convs.<user___rates___item>", "conv1.user__rates__item"])
def test_each_node_type_has_its_degrees(layer):
    context = GraphContext(splits=[1, 3])
    context.publish({"user": 2, "item": 3}, {"user": torch.tensor([0, 1]),
                                             "item": torch.tensor([3, 1, 0])})  # fmt: skip
    assert bucket_of(context, layer, 2, sources=True) == [0, 1]
    assert bucket_of(context, layer, 3) == [2, 1, 0]
    assert bucket_of(context, "lin.user", 2, None) == [0, 1]


def test_rows_tell_node_types_where_names_do_not():
    context = GraphContext(splits=[1, 3])
    degrees = {"user": torch.tensor([0, 1]), "item": torch.tensor([3, 1, 0])}
    context.publish({"user": 2, "item": 3}, degrees)
    assert bucket_of(context, "head", 2, None) == [0, 1]
    assert bucket_of(context, "head", 3, None) == [2, 1, 0]
    assert bucket_of(context, "user", 3, None) == [2, 1, 0]  # users are too few
    with pytest.raises(RuntimeError, match=r"head: .* degrees of its 4 rows are not known here"):
        bucket_of(context, "head", 4, None)


def test_node_types_with_as_many_rows():
    context = GraphContext(splits=[1, 3])
    degrees = {"user": torch.tensor([0, 1]), "item": torch.tensor([3, 1])}
    context.publish({"user": 2, "item": 2}, degrees)
    message = "head: .*'user' and 'item' have 2 rows each.*Give head one number of bits"
    with pytest.raises(RuntimeError, match=message):
        bucket_of(context, "head", 2, None)
    assert context.buckets("head", 2, None, "", False, needed=False) is None
    assert bucket_of(context, "lin.item", 2, None) == [2, 1]
    assert bucket_of(context, "conv", 2, EDGES[:, :1]) == [0, 1]  # counted


def test_node_types_with_as_many_rows_in_one_batch():
    context = GraphContext(splits=[1, 3])
    degrees = {"user": torch.tensor([0, 1, 9]), "item": torch.tensor([3, 1])}
    for users in (3, 2):
        context.publish({"user": users, "item": 2}, degrees | {"user": degrees["user"][:users]})
        assert bucket_of(context, "head", users, None) == [0, 1, 2][:users]
    with pytest.raises(RuntimeError, match=r"tail: .*'user' and 'item' have 2 rows each"):
        bucket_of(context, "tail", 2, None)


def test_degrees_that_some_node_types_lack():
    context = GraphContext(splits=[1, 3])
    context.publish({"user": 2, "item": 3})
    with pytest.raises(RuntimeError, match=r"store the degrees of all nodes as .* `deg`"):
        bucket_of(context, "lin.item", 3, None)


def test_quantiles_are_settled_once():
    context = GraphContext(quantiles=[0.5])
    context.publish(4, torch.tensor([1, 2, 3, 4]))
    assert context.splits == (3,)
    context.publish(4, torch.tensor([7, 7, 8, 9]))
    assert context.splits == (3,)
    assert bucket_of(context) == [1, 1, 1, 1]


def test_rows_of_another_number_are_no_nodes():
    context = GraphContext()
    assert context.holds_nodes(7)
    context.publish(4)
    assert (context.holds_nodes(4), context.holds_nodes(7)) == (True, False)
    context.publish({"user": 2, "item": 7})
    assert (context.holds_nodes(4), context.holds_nodes(7)) == (False, True)
    context.clear()
    assert context.holds_nodes(4)


def test_published_degrees_reach_the_layers():
    torch.manual_seed(0)
    conv, x = SAGEConv(3, 3), torch.randn(4, 3)
    expected = conv(x, EDGES)
    quantization = quantize_(conv, BitPlan([1, 32], degree_splits=[2]))
    assert not torch.equal(conv(x, EDGES), expected)
    quantization.publish(4, torch.full((4,), 2))
    assert torch.equal(conv(x, EDGES), expected)
