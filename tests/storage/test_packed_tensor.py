import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torch_geometric.data import Data
from torch_geometric.loader import RandomNodeLoader
from torch_geometric.loader.utils import index_select
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE
from torch_geometric.utils import spmm

from lit_gnncompress.models.agnn import AGNN
from lit_gnncompress.quantization import DegreeBuckets, Quantizer
from lit_gnncompress.storage import PackedTensor, pack

pytestmark = pytest.mark.usefixtures("no_unpacking")

NODES, EDGES, WIDTH = 50, 300, 20
torch.manual_seed(0)
EDGE_INDEX = torch.randint(NODES, (2, EDGES))
DEGREES = torch.bincount(EDGE_INDEX[1], minlength=NODES)
DENSE = torch.randn(NODES, WIDTH)
SPARSE = torch.nn.functional.normalize((torch.rand(NODES, WIDTH) < 0.1).float(), p=1)
BUCKETS = {"degrees": DEGREES, "degree_splits": [4, 8]}
KINDS = {
    "4 bits": (DENSE, 4, {}),
    "sparse": (SPARSE, 1, {}),
    "by column": (DENSE, 8, {"granularity": "column"}),
    "by row": (DENSE, 3, {"granularity": "row"}),
    "by degree": (DENSE, [8, 4, 2], BUCKETS),
    "partly untouched": (DENSE, [32, 4, 1], BUCKETS),
}


@pytest.fixture(params=KINDS)
def packed(request):
    x, bits, options = KINDS[request.param]
    return pack(x, bits, **options)


def test_it_stands_for_what_the_quantizer_gives():
    for x, bits, options in KINDS.values():
        buckets = None
        if isinstance(bits, list):
            buckets = DegreeBuckets.from_degrees(DEGREES, [4, 8])
            bits = tuple(bits)
        quantizer = Quantizer(granularity=options.get("granularity", "auto"))
        expected = quantizer(x, bits, buckets)
        bits = list(bits) if isinstance(bits, tuple) else bits
        assert torch.equal(pack(x, bits, **options).dequantize(), expected)


def test_row_normalised_binary_features_are_lossless_and_small():
    x = F.normalize((torch.rand(300, 800) < 0.02).float(), p=1)
    packed = pack(x, 1)
    assert torch.equal(packed.dequantize(), x)
    assert packed.packed_bytes < x.numel() / 8 / 3


def test_it_looks_like_a_float_matrix(packed):
    assert packed.shape == (NODES, WIDTH)
    assert (packed.dtype, packed.device.type, packed.dim()) == (torch.float32, "cpu", 2)
    assert packed.is_floating_point()
    assert not packed.requires_grad
    assert len(packed) == NODES
    assert "bits" in repr(packed)
    assert packed.packed_bytes == sum(s.bytes_codes + s.bytes_ranges for s in packed.stored) + (
        0 if packed.bucket is None else NODES
    )


def test_linear_layers_and_products(packed):
    weight, bias = torch.randn(7, WIDTH), torch.randn(7)
    x = packed.dequantize()
    expected = F.linear(x, weight, bias)
    torch.testing.assert_close(F.linear(packed, weight, bias) + 0, expected, rtol=1e-4, atol=1e-5)
    for product in (packed @ weight.t(), torch.mm(packed, weight.t()), packed.matmul(weight.t())):
        torch.testing.assert_close(product + 0, x @ weight.t(), rtol=1e-4, atol=1e-5)


def test_the_gradient_reaches_the_weight(packed):
    weight = torch.randn(7, WIDTH, requires_grad=True)
    factor = torch.randn(NODES, 7)
    (F.linear(packed, weight) * factor).sum().backward()
    torch.testing.assert_close(weight.grad, factor.t() @ packed.dequantize(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_sparse_products(packed, reduce):
    if reduce == "max" and packed.bucket is not None:
        pytest.skip("a maximum over several blocks is taken of dequantized rows")
    matrix = torch.sparse_coo_tensor(
        EDGE_INDEX.flip(0), torch.rand(EDGES), (NODES, NODES)
    ).to_sparse_csr()
    expected = spmm(matrix, packed.dequantize(), reduce)
    torch.testing.assert_close(spmm(matrix, packed, reduce) + 0, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", [GCN, GraphSAGE, GAT, GIN, AGNN])
def test_unchanged_models_run(packed, model):
    options = {"heads": 2} if model is GAT else {}
    module = model(WIDTH, 8, 2, out_channels=3, **options).eval()
    expected = module(packed.dequantize(), EDGE_INDEX)
    torch.testing.assert_close(module(packed, EDGE_INDEX) + 0, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "grad"), [(GCN, True), (GraphSAGE, False), (GAT, False), (GIN, True)]
)
def test_compiled_models_run(model, grad):
    module = model(WIDTH, 3, 1)
    compiled = torch.compile(module, backend="eager")
    with torch.set_grad_enabled(grad):
        for packed, edges in ((pack(DENSE, 4), EDGE_INDEX), (pack(-DENSE, 8), EDGE_INDEX.flip(0))):
            expected = module(packed, edges)
            found = compiled(packed, edges)
            torch.testing.assert_close(found + 0, expected + 0, rtol=1e-5, atol=1e-6)
            assert found.requires_grad == grad


@pytest.mark.parametrize("model", [GraphSAGE, GIN])
def test_training_gives_the_same_gradients(packed, model):
    module = model(WIDTH, 8, 2, out_channels=3)
    grads = []
    for x in (packed.dequantize(), packed):
        module.zero_grad()
        module(x, EDGE_INDEX).square().sum().backward()
        grads.append([p.grad.clone() for p in module.parameters()])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([3, 3, 49, 0]),
        torch.tensor([-1, 4]),
        torch.arange(NODES) % 3 == 0,
        [7, 8],
        slice(5, None, 4),
        torch.empty(0, dtype=torch.long),
    ],
)
def test_rows_are_chosen_without_unpacking(packed, rows):
    chosen = packed[rows]
    assert isinstance(chosen, PackedTensor)
    assert torch.equal(chosen.dequantize(), packed.dequantize()[rows])


def test_a_batch_of_one_is_the_same(packed):
    assert torch.cat([packed]) is packed
    assert torch.cat((packed,), dim=-2) is packed


@pytest.mark.unpacks
def test_what_is_joined_is_dequantized(packed):
    out = torch.empty(NODES, WIDTH)
    assert torch.cat([packed], out=out) is out
    assert torch.equal(out, rows(packed))
    for parts, dim in (([packed, packed], 1), ([packed, DENSE], 0)):
        assert torch.equal(torch.cat(parts, dim), torch.cat([rows(part) for part in parts], dim))


def test_one_row_and_one_entry(packed):
    assert torch.equal(packed[4], packed.dequantize()[4])
    assert torch.equal(packed[-1], packed.dequantize()[-1])
    with pytest.raises(IndexError, match="row 50 is out of range for 50 rows"):
        packed[50]


def test_an_index_out_of_range_is_named(packed):
    with pytest.raises(IndexError, match="50"):
        packed[torch.tensor([1, 50])]


def test_loaders_choose_rows(packed):
    data = Data(x=packed, edge_index=EDGE_INDEX, num_nodes=NODES, node=torch.arange(NODES))
    for batch in RandomNodeLoader(data, num_parts=3):
        assert torch.equal(rows(batch.x), rows(packed)[batch.node])


def rows(x):
    return x.dequantize() if isinstance(x, PackedTensor) else x + 0


def test_a_loaders_worker_writes_into_shared_memory(packed):
    index = torch.tensor([4, 9, 9])
    out = torch.empty(3, WIDTH)
    assert torch.index_select(packed, 0, index, out=out) is out
    assert torch.equal(out, packed.dequantize()[index])
    assert torch.equal(rows(index_select(packed, index)), packed.dequantize()[index])


def test_worker_processes_get_it(packed):
    loader = DataLoader(range(NODES), batch_size=10, num_workers=1, collate_fn=Choose(packed))
    out = torch.cat(list(loader))
    assert torch.equal(out, packed.dequantize())


class Choose:
    def __init__(self, x):
        self.x = x

    def __call__(self, index):
        return self.x[index].dequantize()


def test_pickle_and_copies(packed):
    for other in (
        pickle.loads(pickle.dumps(packed)), copy.copy(packed), copy.deepcopy(packed),
        packed.clone(), packed.detach(), packed.contiguous(), packed.to("cpu"), packed.float(),
        packed.cpu(),
    ):  # fmt: skip
        assert isinstance(other, PackedTensor)
        assert torch.equal(other.dequantize(), packed.dequantize())


def test_dropout_in_evaluation_changes_nothing(packed):
    assert F.dropout(packed, 0.5, training=False) is packed


@pytest.mark.unpacks
def test_a_property_is_called_by_its_name():
    with pytest.warns(UserWarning, match="^mT has no packed form"):
        assert pack(DENSE, 5).mT.shape == (20, 50)


@pytest.mark.unpacks
def test_another_operation_dequantizes_and_says_so_once():
    packed = pack(DENSE, 5)
    with pytest.warns(UserWarning, match=r"cosh has no packed form: all 50 × 20 features") as found:
        out = packed.cosh()
    assert found[0].filename == __file__
    assert torch.equal(out, packed.dequantize().cosh())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        packed.cosh()


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.add_(1),
        lambda x: x.zero_(),
        lambda x: x.__setitem__(0, 1.0),
        lambda x: x.copy_(torch.zeros(NODES, WIDTH)),
        lambda x: x.__imul__(2),
    ],
)
def test_writes_are_refused(packed, write):
    before = packed.dequantize()
    with pytest.raises(RuntimeError, match=r"x = x\.dequantize\(\)"):
        write(packed)
    assert torch.equal(packed.dequantize(), before)


def test_it_has_no_gradient(packed):
    with pytest.raises(RuntimeError, match="no gradient"):
        packed.requires_grad_()


def test_empty_features():
    for shape in ((0, 5), (5, 0)):
        packed = pack(torch.empty(shape), 4)
        assert packed.dequantize().shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_packed(dtype):
    packed = pack(DENSE.to(dtype), 8)
    assert packed.dtype == torch.float32
    torch.testing.assert_close(packed.dequantize(), DENSE, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("x", "arguments", "error", "words"),
    [
        (DENSE, {"bits": 9}, ValueError, "bits=9"),
        (DENSE, {"bits": 0}, ValueError, "bits=0"),
        (DENSE.long(), {"bits": 4}, TypeError, "int64"),
        (DENSE[0], {"bits": 4}, TypeError, r"\(20,\)"),
        (DENSE, {"bits": "4"}, TypeError, "bits='4'"),
        (DENSE, {"bits": 4.0}, TypeError, r"bits=4\.0"),
        (DENSE, {"bits": True}, TypeError, "bits=True"),
        (DENSE, {"bits": []}, ValueError, "0 entries"),
        (DENSE, {"bits": [8, 4], "degree_splits": [4]}, ValueError, "give degrees"),
        (DENSE, {"bits": [8, 4], "degrees": DEGREES}, ValueError, "set degree_splits to 1"),
        (DENSE, {"bits": [8, 4, 2], "degree_splits": [9, 4]}, ValueError, r"mean \[4, 9\]"),
        (DENSE, {"degree_splits": range(1, 300)}, ValueError, "300 degree buckets: 256"),
        (DENSE.numpy(), {"bits": 4}, TypeError, "ndarray: give a tensor"),
        (DENSE.long().to_sparse(), {"bits": 4}, TypeError, "int64"),
        (pack(DENSE, 4), {"bits": 4}, TypeError, "packed already"),
        (DENSE.clamp(-1, 1) * 3e38, {"bits": 4}, ValueError, "more than float32 can hold"),
        (DENSE, {"bits": [8, 4], "degrees": DEGREES[1:], "degree_splits": [4]}, ValueError, "49"),
        (DENSE, {"bits": 4, "range": "widest"}, ValueError, "widest"),
    ],
)
def test_bad_input_is_refused(x, arguments, error, words):
    with pytest.raises(error, match=words):
        pack(x, **arguments)


def test_nan_is_named_by_row_and_column():
    x = DENSE.clone()
    x[7, 3] = torch.nan
    with pytest.raises(ValueError, match="row 7, column 3 is nan"):
        pack(x, 4)


def test_blocks_must_fit():
    block = pack(DENSE, 4).blocks[0]
    with pytest.raises(ValueError, match="bucket has 3 entries, but the blocks have 100 rows"):
        PackedTensor([block, block], torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="20, 10 columns"):
        PackedTensor([block, pack(DENSE[:, :10], 4).blocks[0]], torch.zeros(100))


KEYS = {
    "a number": 3,
    "the last": -1,
    "a NumPy number": np.int64(3),
    "a number in a tensor": torch.tensor(3),
    "a tuple of one": (3,),
    "an element": (3, 5),
    "a column": (slice(None), 2),
    "columns": (slice(None), slice(None, 4)),
    "whole rows": (torch.tensor([4, 1]), slice(None)),
    "elements": (torch.tensor([1, 2]), 0),
    "an ellipsis": (..., 0),
    "all in all": True,
    "a new dimension": None,
    "a slice": slice(1, 9, 3),
    "no slice": slice(5, 2),
    "numbers": [2, -3, 2],
    "none": [],
    "a mask in a list": [True, False] * 10,
    "a mask": torch.arange(20) % 3 == 0,
    "an array": np.array([1, -1]),
    "int32": torch.tensor([1, 2], dtype=torch.int32),
}


@pytest.mark.parametrize("key", KEYS)
def test_keys_choose_what_they_choose_of_a_dense_tensor(key):
    torch.manual_seed(0)
    x = pack(torch.randn(20, 8), (8, 4), degrees=torch.arange(20), degree_splits=[7])
    expected = x.dequantize()[KEYS[key]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some take the dequantized matrix, and say so
        found = x[KEYS[key]]
    found = found.dequantize() if isinstance(found, PackedTensor) else found
    assert found.shape == expected.shape
    assert torch.equal(found, expected)


@pytest.mark.parametrize("key", [20, -21, np.int64(20), torch.tensor(20), [20]])
def test_rows_that_are_not_there(key):
    with pytest.raises(IndexError, match=r"20|21"):
        pack(torch.randn(20, 8), 4)[key]
