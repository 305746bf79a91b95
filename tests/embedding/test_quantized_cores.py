import copy
import pickle

import pytest
import torch

from lit_gnncompress.embedding import QuantizedTTEmbedding, TTEmbedding, TTEmbeddingBag
from lit_gnncompress.embedding.quantized_cores import PackedSlices
from lit_gnncompress.kernels.layout import row_bytes
from tests.embedding.tables import random_order, table_of

N, ROWS = 1000, (10, 12, 10)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def make(**arguments):
    arguments = {"rank": 6, "order": random_order(N, ROWS)} | arguments
    return TTEmbedding(N, 27, **arguments)


@pytest.mark.parametrize("bits", range(1, 9))
def test_values_are_within_half_a_code_and_each_slice_has_its_scale(bits):
    tensor = torch.randn(7, 3, 2, 5) * torch.tensor([10.0**k for k in range(-3, 4)]).view(
        7, 1, 1, 1
    )
    packed = PackedSlices(tensor, bits)
    assert packed().shape == tensor.shape
    largest = tensor.flatten(1).abs().amax(1)
    torch.testing.assert_close(packed.scale, 2 * largest / (2**bits - 1))
    off = (packed() - tensor).flatten(1).abs().amax(1)
    assert bool((off <= packed.scale * 0.5001).all())
    torch.testing.assert_close(packed().flatten(1).abs().amax(1), largest)
    index = torch.tensor([[6, 0], [2, 2]])
    assert torch.equal(packed(index), packed()[index])


def test_slices_of_zeros_and_values_that_are_none():
    tensor = torch.randn(3, 4)
    tensor[1] = 0
    assert not PackedSlices(tensor, 4)()[1].any()
    tensor[2, 1] = torch.inf
    with pytest.raises(ValueError, match=r"shape \(3, 4\) has values that are not finite"):
        PackedSlices(tensor, 4)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.01), (4, 0.25)])
@pytest.mark.parametrize("parts", [False, True])
def test_a_trained_table_in_few_bits(bits, error, parts):
    table = make(learn_scale=True, parts=parts, padding_idx=4)
    small = table.quantized(bits)
    expected = table.full_weight().detach()
    assert (small.full_weight() - expected).norm() < error * expected.norm()
    indices = torch.randint(N, (4, 5))
    torch.testing.assert_close(small(indices), small.full_weight()[indices])
    assert not small.full_weight()[4].any()
    assert not small(indices).requires_grad


def test_rows_are_those_of_the_unpacked_cores():
    table = make()
    small = table.quantized(4)
    expected = table_of([core() for core in small.cores])[table.row_order.place]
    torch.testing.assert_close(small(torch.arange(N)), expected)


@pytest.mark.parametrize("bits", [8, 4])
def test_bytes_really_shrink(bits):
    table = make(order=None, rows=ROWS)
    small = table.quantized(bits)
    codes = sum(
        p * row_bytes(before * q * after, bits) for p, before, q, after in table.shape.core_shapes
    )
    assert small.num_bytes == codes + 4 * sum(ROWS)
    state = {name: t for name, t in small.state_dict().items() if not name.endswith("form")}
    assert sum(t.numel() * t.element_size() for t in state.values()) == small.num_bytes
    assert small.compression_ratio == 4 * N * 27 / small.num_bytes
    assert small.num_bytes < table.num_bytes * (bits / 32 + 0.15)


def test_states_and_copies():
    small = make(parts=True).quantized(4)
    arguments = {"parts": True, "order": random_order(N, ROWS, seed=1)}
    fresh = make(**arguments).quantized(4)
    assert not torch.equal(fresh.full_weight(), small.full_weight())
    empty = make(device="meta", **arguments).quantized(4).to_empty(device="cpu")
    without = QuantizedTTEmbedding(TTEmbedding(N, 27, rank=6, rows=ROWS), 4)
    for other in (fresh, empty):
        other.load_state_dict(small.state_dict())
    without.load_state_dict(make().quantized(4).state_dict())
    same = [fresh, empty, copy.deepcopy(small), pickle.loads(pickle.dumps(small))]
    for other in same:
        assert torch.equal(other.full_weight(), small.full_weight())
    with pytest.raises(RuntimeError, match=r"cores\.0\.form: the state has 4 bits .* here 8 bits"):
        make(parts=True).quantized(8).load_state_dict(small.state_dict())


def test_a_state_can_stand_in_for_the_table():
    small, other = (make(parts=True).quantized(4) for _ in range(2))
    found = torch.func.functional_call(small, other.state_dict(), torch.arange(N))
    assert torch.equal(found, other(torch.arange(N)))


def test_the_table_stays_as_it_is():
    table = make()
    before = table.full_weight()
    small = table.quantized(2)
    small.row_order.place.zero_()
    assert torch.equal(table.full_weight(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    small = make(parts=True).quantized(8).to(dtype)
    assert small(torch.arange(5)).dtype == dtype
    trained = make(dtype=dtype)
    torch.testing.assert_close(
        trained.quantized(8).full_weight(), trained.full_weight().float(), atol=0.1, rtol=0.1
    )


def test_compiled_whole():
    small = make(parts=True).quantized(4)
    compiled = torch.compile(small, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(torch.arange(9)), small(torch.arange(9)))


def test_bad_bits_and_indices():
    with pytest.raises(ValueError, match="bits=9"):
        make().quantized(9)
    with pytest.raises(IndexError, match=r"indices\[0\]=1000"):
        make().quantized(8)(torch.tensor([N]))


def test_a_state_of_other_shape_with_codes_of_the_same():
    small = TTEmbedding(64, 8, rows=(8, 8), columns=(2, 4), rank=2).quantized(8)
    other = TTEmbedding(64, 8, rows=(8, 8), columns=(4, 2), rank=2).quantized(8)
    with pytest.raises(RuntimeError, match=r"the state has 8 bits and shape \(8, 1, 2, 2\)"):
        other.load_state_dict(small.state_dict())
    state = small.state_dict()
    del state["cores.1.form"]
    with pytest.raises(RuntimeError, match=r"Missing key.*cores\.1\.form"):
        small.load_state_dict(state)


def test_other_tables_are_refused():
    with pytest.raises(TypeError, match="table is a TTEmbeddingBag, which would no longer reduce"):
        QuantizedTTEmbedding(TTEmbeddingBag(N, 27, mode="sum"))
    with pytest.raises(TypeError, match="table is a Embedding, which has no cores"):
        QuantizedTTEmbedding(torch.nn.Embedding(3, 4))


def test_weight_cannot_be_set():
    with pytest.raises(AttributeError, match="To have others, quantize another table"):
        make().quantized().weight = torch.zeros(N, 27)
