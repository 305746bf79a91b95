import pytest
import torch
from torch_geometric.utils import scatter

from lit_gnncompress.kernels import Adjacency, aggregate
from lit_gnncompress.kernels.edge_dot import edge_dot
from lit_gnncompress.kernels.reference.aggregate import aggregate as reference

from .conftest import SIZES, random_edges, strided

REDUCTIONS = ["sum", "mean", "max"]


def graph(rows, sorted_by_target=False):
    edges = random_edges(rows, rows, sorted_by_target=sorted_by_target)
    return edges, Adjacency(edges.rowptr, edges.col, edges.perm, rows)


def weights(edges, heads):
    if heads == 0:
        return None
    weight = torch.randn(edges.col.size(0), heads, generator=torch.Generator().manual_seed(3))
    return weight[:, 0] if heads == 1 else weight


def by_messages(x, edges, weight, reduce):
    """What PyG does: gather, weigh, scatter."""
    source, target = edges.edge_index
    messages = x[source]
    if weight is not None:
        heads = weight.unsqueeze(1) if weight.dim() == 1 else weight
        messages = messages * heads.repeat_interleave(x.size(1) // heads.size(1), 1)
    rows = len(edges.rowptr) - 1
    if reduce != "max":
        return scatter(messages, target, 0, rows, reduce)
    # PyG begins with zeros, which take part of the gradient where the maximum is zero.
    out = messages.new_full((rows, x.size(1)), float("-inf"))
    out = out.scatter_reduce(0, target.unsqueeze(1).expand_as(messages), messages, "amax")
    return out.masked_fill(edges.rowptr.diff().unsqueeze(1) == 0, 0.0)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("sorted_by_target", [True, False])
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_equals_reference(rows, width, sorted_by_target, reduce):
    edges, adjacency = graph(rows, sorted_by_target)
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    for heads in (0, 1, width):
        weight = weights(edges, heads)
        out = aggregate(x, adjacency, weight, reduce)
        expected = reference(x, *edges[:3], weight, reduce, None, None, None)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(out, by_messages(x, edges, weight, reduce))
        assert torch.equal(out, aggregate(strided(x), adjacency, weight, reduce))


@pytest.mark.parametrize("channels", [1, 3, 8, 16, 24, 32, 64])
@pytest.mark.parametrize("heads", [2, 4, 7])
def test_a_weight_for_each_head(heads, channels):
    edges, adjacency = graph(40)
    x, weight = torch.randn(40, heads * channels), weights(edges, heads)
    expected = reference(x, *edges[:3], weight, "sum", None, None, None)
    torch.testing.assert_close(aggregate(x, adjacency, weight), expected)


@pytest.mark.parametrize("heads", [0, 1, 4])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradients_are_those_of_messages(reduce, heads):
    edges, adjacency = graph(30)
    x = torch.randint(-3, 4, (30, 20)).float()  # so that several edges reach a maximum
    weight = weights(edges, heads)
    grad = torch.randn(30, 20)
    grads = []
    for run in (
        lambda x, weight: aggregate(x, adjacency, weight, reduce),
        lambda x, weight: by_messages(x, edges, weight, reduce),
    ):
        leaves = [x.clone().requires_grad_()]
        if weight is not None:
            leaves.append(weight.clone().requires_grad_())
        out = run(leaves[0], leaves[1] if len(leaves) > 1 else None)
        grads.append(torch.autograd.grad(out, leaves, grad))
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_gradient_of_the_gradient():
    edges, adjacency = graph(12)
    x = torch.randn(12, 6, requires_grad=True)
    weight = weights(edges, 2).requires_grad_()
    grads = []
    for run in (
        lambda: aggregate(x, adjacency, weight, "mean"),
        lambda: by_messages(x, edges, weight, "mean"),
    ):
        first = torch.autograd.grad(run().square().sum(), [x, weight], create_graph=True)
        total = first[0].square().sum() + first[1].square().sum()
        grads.append(torch.autograd.grad(total, [x, weight]))
    for ours, expected in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-2)


def test_gradients_without_a_transposed_graph():
    edges, _ = graph(12)
    x = torch.randn(12, 6, requires_grad=True)
    op = torch.ops.lit_gnncompress.aggregate.default
    op(x, *edges[:3], None, "sum", None, None, None).sum().backward()
    expected = torch.zeros(12).index_add_(0, edges.col, torch.ones(edges.col.size(0)))
    torch.testing.assert_close(x.grad, expected.unsqueeze(1).expand(12, 6))


@pytest.mark.parametrize("heads", [None, 1, 5])
@pytest.mark.parametrize("width", [5, 40, 300])
def test_dot_products_of_edges(width, heads):
    edges, adjacency = graph(30)
    x, y = torch.randn(30, width), torch.randn(30, width)
    source, target = edges.edge_index
    expected = (x[source] * y[target]).view(len(source), heads or 1, -1).sum(2)
    expected = expected[:, 0] if heads is None else expected
    ours = edge_dot(strided(x), y, adjacency, heads)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_infinity_and_nan():
    adjacency = Adjacency.from_edge_index(
        torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 1]), 3, 2
    )
    x = torch.tensor([[float("nan")], [float("inf")], [2.0]])
    for reduce in REDUCTIONS:
        out = aggregate(x, adjacency, None, reduce)
        assert out[0].isnan()
        assert out[1] == float("inf")
    swapped = x[torch.tensor([1, 0, 2])]
    assert aggregate(swapped, adjacency, None, "max").isnan().all()


def test_threads_change_nothing():
    _, adjacency = graph(4000)
    x = torch.randn(4000, 100)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = aggregate(x, adjacency)
        torch.set_num_threads(3)
        assert torch.equal(aggregate(x, adjacency), alone)
    finally:
        torch.set_num_threads(threads)


def test_bipartite():
    adjacency = Adjacency.from_edge_index(torch.tensor([4, 0]), torch.tensor([1, 1]), 5, 3)
    out = aggregate(torch.arange(5.0).unsqueeze(1), adjacency, reduce="mean")
    assert out.tolist() == [[0.0], [2.0], [0.0]]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_is_known_to_torch(reduce):
    edges, adjacency = graph(6)
    back = adjacency.transposed
    args = (
        torch.randn(6, 4, requires_grad=True),
        *edges[:3],
        weights(edges, 2).requires_grad_(),
        reduce,
        back.rowptr,
        back.col,
        back.perm,
    )
    torch.library.opcheck(torch.ops.lit_gnncompress.aggregate.default, args)


def test_compiles():
    _, adjacency = graph(6)
    x = torch.randn(6, 4)
    compiled = torch.compile(
        lambda x: aggregate(x, adjacency) * 2, backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x), aggregate(x, adjacency) * 2)


def test_arguments_that_do_not_fit():
    _, adjacency = graph(6)
    x = torch.randn(6, 4)
    with pytest.raises(ValueError, match="reduce='min'"):
        aggregate(x, adjacency, reduce="min")
    with pytest.raises(ValueError, match=r"x must be float32 of shape \(6, F\)"):
        aggregate(x.double(), adjacency)
    with pytest.raises(ValueError, match=r"got torch.float32 of shape \(5, 4\)"):
        aggregate(x[:5], adjacency)
    with pytest.raises(ValueError, match="weight must be float32 of shape"):
        aggregate(x, adjacency, torch.ones(3))
    with pytest.raises(ValueError, match="3 heads, which must divide the 4 columns"):
        aggregate(x, adjacency, torch.ones(adjacency.num_edges, 3))
    with pytest.raises(ValueError, match="x is on meta, the edges are on cpu"):
        aggregate(x.to("meta"), adjacency)
    with pytest.raises(ValueError, match="heads=3 must divide"):
        edge_dot(x, x, adjacency, 3)
    with pytest.raises(ValueError, match="x has 4 columns, y has 3"):
        edge_dot(x, x[:, :3], adjacency)
