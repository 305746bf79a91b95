import math

import pytest
import torch

from lit_gnncompress.embedding.cores import initial_cores, log_norm, rescaled
from lit_gnncompress.embedding.factors import TTShape
from lit_gnncompress.kernels import tt_table
from tests.embedding.tables import table_of

SHAPES = [
    TTShape((12, 15), (3, 2), (4,)),
    TTShape((6, 8, 12), (2, 3, 2), (5, 4)),
    TTShape((4, 5, 4, 8), (2, 3, 2, 2), (3, 4, 2)),
]
INITS = ["orthogonal", "semi_orthogonal", "gaussian", "uniform"]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def rms(tensor):
    return tensor.double().square().mean().sqrt().item()


@pytest.mark.parametrize("std", [1.0, 0.03])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_orthogonal_columns(shape, std):
    cores = initial_cores(shape, "orthogonal", std, dtype=torch.float64)
    table = table_of(cores)
    gram = table.T @ table / (shape.num_rows * std**2)
    torch.testing.assert_close(
        gram, torch.eye(shape.embedding_dim, dtype=torch.float64), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_semi_orthogonal_is_orthogonal_where_it_can_be(shape):
    torch.manual_seed(1)
    strict = initial_cores(shape, "orthogonal")
    torch.manual_seed(1)
    for core, other in zip(strict, initial_cores(shape), strict=True):
        assert torch.equal(core, other)


def test_semi_orthogonal_cores_beyond_the_limit_have_orthogonal_rows():
    shape = TTShape((100, 6, 9), (4, 4, 4), (8, 8))
    with pytest.raises(ValueError, match="core 3 cannot be orthogonal"):
        initial_cores(shape, "orthogonal")
    core = initial_cores(shape, dtype=torch.float64)[2]
    across = core.permute(1, 2, 0, 3).reshape(8 * 4, 9)
    gram = across.T @ across
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(9, dtype=torch.float64))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_table_has_the_asked_mean_square_and_every_core_the_same(shape, init):
    cores = initial_cores(shape, init, 0.3)
    assert [tuple(core.shape) for core in cores] == list(shape.core_shapes)
    assert rms(tt_table(cores)) == pytest.approx(0.3, rel=1e-5)
    assert all(rms(core) == pytest.approx(rms(cores[0]), rel=1e-5) for core in cores)


def test_high_ranks_leave_gaussian_tables_alone():
    # The variance of a product grows with the number of its terms, unless it is aimed at.
    for rank in (1, 4, 64):
        cores = initial_cores(TTShape((20, 20, 20), (4, 4, 4), (rank, rank)), "gaussian")
        assert rms(tt_table(cores)) == pytest.approx(1, rel=1e-5)


def test_uniform_cores_are_bounded_and_gaussian_ones_are_not():
    shape = TTShape((30, 30, 30), (4, 4, 4), (8, 8))
    for init, highest in (("uniform", math.sqrt(3)), ("gaussian", 6.0)):
        core = initial_cores(shape, init)[1]
        assert core.abs().max() < 1.01 * highest * rms(core)
    assert core.abs().max() > 3 * rms(core)


@pytest.mark.parametrize("init", INITS)
def test_the_same_seed_gives_the_same_cores(init):
    torch.manual_seed(3)
    first = initial_cores(SHAPES[1], init)
    torch.manual_seed(3)
    second = initial_cores(SHAPES[1], init)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], initial_cores(SHAPES[1], init)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    cores = initial_cores(SHAPES[1], dtype=dtype)
    assert all(core.dtype == dtype for core in cores)
    assert rms(table_of([core.double() for core in cores])) == pytest.approx(1, rel=0.02)


def test_the_norm_of_a_table_without_the_table():
    cores = [torch.randn(shape) for shape in SHAPES[2].core_shapes]
    assert log_norm(cores).exp().item() == pytest.approx(table_of(cores).norm().item(), rel=1e-5)


def test_norms_beyond_the_range_of_numbers():
    shape = TTShape((480, 500, 500), (8, 4, 4), (64, 64))
    cores = [torch.full(core, 1e30) for core in shape.core_shapes]
    norm = math.log(1e30) * 3 + math.log(64**2) + math.log(shape.num_rows * 128) / 2
    assert log_norm(cores).item() == pytest.approx(norm)


def test_rescaled_cores_make_the_same_table():
    cores = [torch.randn(shape) * 10**k for k, shape in enumerate(SHAPES[1].core_shapes)]
    level = rescaled(cores)
    torch.testing.assert_close(table_of(level), table_of(cores), rtol=1e-4, atol=1e-3)
    assert rms(level[0]) == pytest.approx(rms(level[2]), rel=1e-5)
    zeros = [torch.zeros_like(core) for core in cores]
    assert all(torch.equal(core, zero) for core, zero in zip(rescaled(zeros), zeros, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "xavier"}, "init='xavier' is none of orthogonal, semi_orthogonal"),
        ({"std": 0.0}, "std=0.0"),
        ({"std": math.nan}, "std=nan"),
    ],
)
def test_what_no_core_begins_with(arguments, message):
    with pytest.raises(ValueError, match=message):
        initial_cores(SHAPES[0], **arguments)
