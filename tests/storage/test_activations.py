import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch_geometric.nn import AGNNConv, GATConv, SAGEConv
from torch_geometric.utils import to_torch_csr_tensor

from lit_gnncompress.storage import pack
from lit_gnncompress.storage.activation_codes import GROUP, GroupCodes
from lit_gnncompress.storage.activations import ActivationCompressor, keep_whole


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradients(function, tensors, bits=None, seed=0):
    """Gradients of ``function(*tensors)`` from what is kept in ``bits``; ``None``: exact."""
    if bits is None:
        return torch.autograd.grad(function(*tensors), tensors)
    with ActivationCompressor(bits, min_elements=0).forward(seed=(seed,)):
        loss = function(*tensors)
    return torch.autograd.grad(loss, tensors)


def times(tensor):
    """A product that saves ``tensor`` only."""
    return tensor * torch.ones((), requires_grad=True)


def saved_by_product(tensor, bits=8, min_elements=0):
    """What the product saves of ``tensor``, as the backward pass gets it, and the compressor."""
    compressor = ActivationCompressor(bits, min_elements)
    with compressor.forward(seed=(1,)):
        out = times(tensor)
    return out.grad_fn._saved_self, compressor


def inputs(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


# --- gradients ------------------------------------------------------------------------------------

FUNCTIONS = {
    "linear": lambda x, w: (F.linear(x, w).cos() * 3).sum(),
    "matmul": lambda x, w: ((x @ w.t()) * torch.arange(float(len(w)))).sum(),
    "relu": lambda x, w: (F.linear(F.relu(x * 1), w) * torch.arange(float(len(w)))).sum(),
    "relu_in_place": lambda x, w: F.linear((x * 1).relu_(), w).sum(),
    "leaky_relu": lambda x, w: F.linear(F.leaky_relu(x * 1, 0.2), w).sum(),
    "mul": lambda x, w: (x.unsqueeze(1) * w).sum(),
    "einsum": lambda x, w: torch.einsum("nf,of->no", x, w).sum(),
    "exp": lambda x, w: F.linear(x.exp(), w).sum(),
    "div": lambda x, w: (x.mean(0) / (w + 9)).sum(),
}


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_right_on_average(name, bits):
    tensors, function = inputs((60, 20), (7, 20)), FUNCTIONS[name]
    # Sums in random directions: a single value may be rounded up so seldom that no draw shows it.
    directions = [torch.randn(8, *t.shape, generator=torch.manual_seed(3)) for t in tensors]

    def along(grads):
        sums = [(d * g).flatten(1).sum(1) for d, g in zip(directions, grads, strict=True)]
        return torch.cat(sums).double()

    exact = along(gradients(function, tensors))
    draws = torch.stack([along(gradients(function, tensors, bits, seed)) for seed in range(200)])
    spread = draws.std(0) / len(draws) ** 0.5
    assert bool(((draws.mean(0) - exact).abs() <= 4.5 * spread + 1e-4 * exact.abs()).all())


@pytest.mark.parametrize(
    "layer", [nn.Linear(20, 20), nn.Sequential(nn.ReLU(), nn.Dropout(0.0), nn.Linear(20, 20))]
)
def test_one_draw_at_one_bit_is_not_exact(layer):
    (x,) = inputs((60, 20))
    function = lambda x: layer(x * 1).square().sum()  # noqa: E731
    exact, noisy = gradients(function, [x]), gradients(function, [x], 1)
    assert not torch.allclose(exact[0], noisy[0], rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("operation", [F.elu, F.gelu, torch.tanh, F.softplus, torch.sigmoid])
def test_smooth_functions_keep_eight_bits_and_come_close(operation, dtype):
    (x,) = inputs((50, 30), dtype=dtype)
    (exact,) = gradients(lambda x: operation(x).sum(), [x])
    (found,) = gradients(lambda x: operation(x).sum(), [x], 1)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), exact.float(), atol=0.03)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.amax(0).sum(),
        lambda x: x.max(),
        lambda x: x.abs().sqrt().sum(),
        lambda x: (1 / x).sum(),
        lambda x: x.abs().log().sum(),
        lambda x: x.norm(dim=1).sum(),
        lambda x: (x / x).sum(),
        lambda x: torch.zeros(9, 40).scatter_reduce(0, (x > 0).long(), x, "amax").sum(),
        lambda x: F.normalize(x).norm(p=1),
    ],
)
def test_what_a_gradient_divides_by_or_compares_is_exact(operation):
    (x,) = inputs((50, 40))
    assert torch.equal(gradients(operation, [x])[0], gradients(operation, [x], 1)[0])


@pytest.mark.parametrize(
    "conv", [GATConv(16, 8, heads=4), AGNNConv(), SAGEConv(16, 16, aggr="max"), SAGEConv(16, 16)]
)
@pytest.mark.parametrize("sparse", [False, True])
def test_convolutions_get_finite_gradients_close_at_eight_bits(conv, sparse):
    (x,) = inputs((80, 16))
    edges = torch.randint(0, 80, (2, 900), generator=torch.Generator().manual_seed(1)).unique(dim=1)
    if sparse:
        if isinstance(conv, SAGEConv) and conv.aggr == "max":
            pytest.skip("torch has no maximum over a sparse matrix")
        edges = to_torch_csr_tensor(edges, size=(80, 80)).detach()
    torch.manual_seed(0)
    conv.reset_parameters()
    parameters = [x, *conv.parameters()]
    function = lambda *_: conv(x, edges).square().mean()  # noqa: E731
    exact, found = gradients(function, parameters), gradients(function, parameters, 8)
    for right, close in zip(exact, found, strict=True):
        assert (close - right).norm() <= 0.03 * right.norm() + 1e-6
    assert all(torch.isfinite(g).all() for g in gradients(function, parameters, 1))


def test_a_compiled_graph_and_a_function_of_somebody_else_stay_exact():
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad * ctx.saved_tensors[0]

    (x,) = inputs((50, 40))
    compiled = torch.compile(lambda x: (x @ x.t()).relu().exp().mean(), backend="aot_eager")
    for function in (compiled, lambda x: Doubled.apply(x).sum()):
        assert torch.equal(gradients(function, [x])[0], gradients(function, [x], 1)[0])


def test_double_backward():
    x, w = inputs((40, 30), (8, 30))

    def penalty(x, w):
        (grad,) = torch.autograd.grad(F.relu(F.linear(x, w)).square().sum(), x, create_graph=True)
        return grad.square().sum()

    exact, found = gradients(penalty, [x, w]), gradients(penalty, [x, w], 8)
    for right, close in zip(exact, found, strict=True):
        assert (close - right).norm() < 0.05 * right.norm()


def test_a_graph_that_is_retained_gives_the_same_gradient_again():
    x, w = inputs((40, 30), (8, 30))
    with ActivationCompressor(2, 0).forward():
        loss = F.linear(x, w).square().sum()
    first = torch.autograd.grad(loss, [x, w], retain_graph=True)
    second = torch.autograd.grad(loss, [x, w])
    assert all(map(torch.equal, first, second))


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("numel", [1, 255, 256, 257, 1024, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_values_come_back_within_a_step(numel, dtype, bits):
    x = torch.randn(numel, generator=torch.Generator().manual_seed(0)).to(dtype)
    back, _ = saved_by_product(x, bits)
    step = (x.max() - x.min()).item() / (2**bits - 1)
    assert (back.dtype, back.shape) == (dtype, x.shape)
    assert (back.double() - x.double()).abs().max() <= step * 1.001 + 0.02 * (dtype.itemsize == 2)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.t(),
        lambda x: x.view(20, 5, 60).permute(2, 0, 1),
        lambda x: x[::3, 1::2],
        lambda x: x[:, :1].expand(-1, 50),
        lambda x: x[0].expand(7, 3, 60),
        lambda x: x.unsqueeze(1),
        lambda x: x.unfold(0, 10, 3),
        lambda x: x[5:70],
        lambda x: x.view(-1)[:3000:2],
    ],
)
def test_views_come_back_in_the_same_order(view):
    x = view(torch.arange(6000.0).view(100, 60))
    back, compressor = saved_by_product(x)
    step = 6000 / 255
    assert back.shape == x.shape
    assert (back - x).abs().max() <= step
    assert compressor.kept_bytes < 4 * x.numel()


def test_zero_stays_zero_and_values_stay_in_their_range():
    x = torch.rand(100, 60) * (torch.rand(100, 60) > 0.5)
    for bits in (1, 2, 8):
        back, _ = saved_by_product(x, bits)
        assert (back[x == 0] == 0).all()
        assert 0 <= back.min() <= back.max() <= x.max() * (1 + 1e-6)


def test_a_relu_keeps_signs_in_a_bit():
    (x,) = inputs((100, 60))
    compressor = ActivationCompressor(8)
    with compressor.forward():
        out = (x * 1).relu()
    assert compressor.kept_bytes == 24 * 32  # groups of 256 values
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], (x > 0).float())


@pytest.mark.parametrize("numel", [300, 4096])
def test_masks_take_one_bit_and_are_exact(numel):
    mask = torch.rand(numel) > 0.3
    scaled = mask / 0.7
    back, compressor = saved_by_product(scaled, 8)
    assert torch.equal(back, scaled)
    assert compressor.kept_bytes == -(-numel // GROUP) * GROUP // 8 + 8

    compressor = ActivationCompressor(8, 0)
    (x,) = inputs((numel,))
    with compressor.forward():
        out = torch.where(mask, x, 0.0)
    assert torch.equal(out.grad_fn._saved_condition, mask)
    assert compressor.kept_bytes == -(-numel // GROUP) * GROUP // 8
    assert compressor.full_bytes == numel


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_values_that_are_not_finite_stay(wrong):
    x = torch.randn(3000)
    x[1700], x[1701] = wrong, -3e38
    back, compressor = saved_by_product(x)
    assert torch.equal(back.nan_to_num(7), x.nan_to_num(7))
    assert compressor.kept_bytes == compressor.full_bytes == 12000


def test_nan_passes_a_relu():
    (x,) = inputs((50, 50))
    with torch.no_grad():
        x[3, 3] = torch.nan
    function = lambda x: F.relu(x * 1).sum()  # noqa: E731
    assert torch.equal(gradients(function, [x])[0], gradients(function, [x], 2)[0])


def test_autocast_gets_its_dtype_back_and_weights_stay():
    layer = nn.Linear(64, 64)
    x = torch.randn(100, 64)
    compressor = ActivationCompressor(4, 0)
    with torch.autocast("cpu", torch.bfloat16), compressor.forward(layer.parameters()):
        loss = layer(F.relu(layer(x))).float().sum()
    saved = loss.grad_fn.next_functions[0][0].next_functions[0][0]
    assert saved._saved_mat1.dtype == torch.bfloat16
    assert torch.equal(saved._saved_mat2, layer.weight.t().bfloat16())
    loss.backward()
    assert layer.weight.grad.dtype == torch.float32


# --- what stays -----------------------------------------------------------------------------------


def test_parameters_and_their_views_stay():
    layer, x = nn.Linear(50, 50), torch.randn(60, 50, requires_grad=True)
    compressor = ActivationCompressor(1, 0)
    with compressor.forward([*layer.parameters(), x]):
        out = layer(x)
        product = x * layer.weight.t()[:1].expand(60, 50)
    assert torch.equal(out.grad_fn._saved_mat2, layer.weight.t())
    assert torch.equal(product.grad_fn._saved_other, layer.weight[:, :1].t().expand(60, 50))
    assert compressor.kept_bytes == compressor.full_bytes == 0


def test_inputs_marked_tensors_small_ones_integers_and_sparse_ones_stay():
    class Named(torch.Tensor):
        pass

    given, marked = torch.randn(3000), keep_whole(torch.randn(60, 50))
    small, named = torch.randn(999), torch.randn(3000).as_subclass(Named)
    compressor = ActivationCompressor(1, 1000)
    with compressor.forward((), [given.view(60, 50)]):
        kept = [times(x).grad_fn._saved_self for x in (given, given[5:], marked.t(), small)]
        kept.append(times(named).grad_fn.next_functions[0][0]._saved_self)
        index = torch.randint(0, 9, (5000,))
        taken = torch.randn(9, 2, requires_grad=True)[index]
        sparse = torch.eye(50).to_sparse_csr()
        product = sparse @ torch.randn(50, 50, requires_grad=True)
    for back, x in zip(kept, (given, given[5:], marked.t(), small, named), strict=True):
        assert torch.equal(back, x)
    assert type(kept[-1]) is Named
    assert compressor.kept_bytes == compressor.full_bytes == small.nbytes
    taken.sum().backward()
    product.sum().backward()


def test_features_in_codes_stay_and_what_follows_them_is_compressed():
    x = torch.rand(300, 64)
    packed, (w,) = pack(x, 8), inputs((64, 64))
    compressor = ActivationCompressor(4)
    with compressor.forward([w]):
        hidden = F.relu(F.linear(packed, w))
        loss = (hidden * 2).exp().sum()
    loss.backward()
    assert compressor.kept_bytes < 300 * 64 * 0.8
    exact = torch.autograd.grad((F.relu(packed.dequantize() @ w.t()) * 2).exp().sum(), w)[0]
    assert (w.grad - exact).norm() < 0.1 * exact.norm()


def test_what_is_modified_in_place_is_refused_or_kept_as_it_was():
    (x,) = inputs((50, 40))
    with ActivationCompressor(8, 0).forward():
        y = x * 1
        exact = y.sqrt()
        y.mul_(2)
        loss = exact.sum()
        z = x.sigmoid()
        packed = z * z
        z.zero_()
    with ActivationCompressor(8, 0).forward():
        root = x.abs().sqrt()
        root.mul_(2)
    assert torch.isfinite(torch.autograd.grad(packed.sum(), x)[0]).all()
    loss.backward()
    with pytest.raises(RuntimeError, match=r"in-place operation.*version 1.*version 0"):
        root.sum().backward()


def test_results_of_operations_in_place_are_not_taken_for_what_was_there_before():
    (x,) = inputs((50, 40))
    (exact,) = gradients(lambda x: x.sigmoid().tanh().sum(), [x])
    (found,) = gradients(lambda x: x.sigmoid().tanh_().sum(), [x], 8)
    assert torch.allclose(exact, found, atol=0.02)


# --- memory ---------------------------------------------------------------------------------------


def test_originals_are_freed():
    layers = nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)])
    x, storages = torch.randn(500, 64), []
    for layer in layers:
        layer.register_forward_hook(
            lambda layer, args, out: storages.append(StorageWeakRef(out.untyped_storage()))
        )
    compressor = ActivationCompressor(4)
    with compressor.forward(layers.parameters(), [x]):
        loss = layers(x).exp().sum()
    assert [storage.expired() for storage in storages] == [True] * 4
    assert compressor.full_bytes == 4 * 500 * 64 * 4
    assert compressor.kept_bytes == 4 * (500 * 64 // 2 + 500 * 64 // GROUP * 8)
    loss.backward()


def test_codes_are_freed_by_the_backward_pass(monkeypatch):
    packed = []
    compressor = ActivationCompressor(4)
    x, w = inputs((500, 64), (64, 64))
    original = GroupCodes.of

    def of(*args):
        form = original(*args)
        packed.append(weakref.ref(form))
        return form

    monkeypatch.setattr(GroupCodes, "of", of)
    with compressor.forward([w]):
        loss = F.linear(x.exp(), w).square().mean()
    assert [form() is None for form in packed] == [False] * 2
    loss.backward()
    assert all(form() is None for form in packed)


def test_nothing_that_stays_holds_its_graph():
    (x,) = inputs((50, 40))
    with ActivationCompressor(8, 0).forward():
        out = x.abs().sqrt()  # saves its result, as it is
    result = StorageWeakRef(out.untyped_storage())
    del out
    assert result.expired()


def test_a_tensor_that_several_operations_save_is_packed_once():
    x, a, b = inputs((500, 64), (64, 64), (64, 64))
    compressor = ActivationCompressor(8)
    with compressor.forward([a, b]):
        hidden = x.exp()
        loss = (F.linear(hidden, a) + F.linear(hidden, b)).sum()
    assert compressor.full_bytes == 500 * 64 * 4
    assert compressor.kept_bytes == 500 * 64 + 500 * 64 // GROUP * 8
    loss.backward()


@pytest.mark.parametrize("bits", range(1, 9))
def test_bytes_are_bits(bits):
    x = torch.randn(1024, 100)
    _, compressor = saved_by_product(x, bits)
    assert compressor.kept_bytes == x.numel() * bits // 8 + x.numel() // GROUP * 8
    compressor.reset()
    assert compressor.kept_bytes == compressor.full_bytes == 0


# --- rounding -------------------------------------------------------------------------------------


def test_the_same_seed_rounds_alike_and_another_does_not():
    tensors, function = inputs((60, 20), (7, 20)), FUNCTIONS["matmul"]
    first, again, other = (gradients(function, tensors, 2, seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0]) or not torch.equal(first[1], other[1])


def test_two_tensors_of_a_pass_round_differently():
    x = torch.rand(3000)
    with ActivationCompressor(1, 0).forward():
        a, b = (times(value).grad_fn._saved_self for value in (x, x.clone()))
    assert not torch.equal(a, b)


def test_no_random_numbers_are_drawn():
    state = torch.get_rng_state()
    gradients(FUNCTIONS["relu"], inputs((60, 20), (7, 20)), 2)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("bits", [0, 9, 2.0, True, "4"])
def test_bits_that_are_none_are_refused(bits):
    with pytest.raises(ValueError, match="1 to 8 bits"):
        ActivationCompressor(bits)


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="min_elements=-1"):
        ActivationCompressor(4, -1)
