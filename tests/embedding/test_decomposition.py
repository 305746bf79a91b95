import pytest
import torch

from lit_gnncompress.embedding.cores import initial_cores
from lit_gnncompress.embedding.decomposition import tt_svd
from lit_gnncompress.embedding.factors import TTShape, highest_ranks
from tests.embedding.tables import table_of

FACTORS = [((12, 15), (3, 2)), ((6, 8, 12), (2, 3, 2)), ((4, 5, 4, 8), (2, 2, 3, 2))]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def ranks_of(cores):
    return tuple(core.size(3) for core in cores[:-1])


def relative(table, cores):
    made = table_of(cores)[: len(table)].double()
    return ((made - table.double()).norm() / table.double().norm()).item()


def decaying(rows, columns):
    """A table whose unfoldings have singular values that fall off."""
    table = torch.zeros(TTShape(rows, columns, highest_ranks(rows, columns)).num_rows, 1)
    for k in range(6):
        shape = TTShape.of_rank(rows, columns, 2)
        table = table + 10**-k * table_of(initial_cores(shape, "gaussian", dtype=torch.float64))
    return table


@pytest.mark.parametrize(("rows", "columns"), FACTORS)
def test_a_table_of_low_rank_is_found(rows, columns):
    made_of = initial_cores(TTShape.of_rank(rows, columns, 3), "gaussian", dtype=torch.float64)
    table = table_of(made_of)
    for found in (tt_svd(table, rows, columns, rank=3), tt_svd(table, rows, columns, error=1e-6)):
        assert ranks_of(found) == (3,) * (len(rows) - 1)
        assert relative(table, found) < 1e-9


@pytest.mark.parametrize(("rows", "columns"), FACTORS)
def test_the_error_is_kept_and_ranks_are_no_higher_than_it_needs(rows, columns):
    table, before = decaying(rows, columns), 0
    for error in (0.3, 0.03, 0.003):
        cores = tt_svd(table, rows, columns, error=error)
        assert relative(table, cores) <= error
        assert sum(ranks_of(cores)) > before
        before = sum(ranks_of(cores))
        # With each rank one lower, more than the share of a cut is left out.
        lower = tt_svd(table, rows, columns, rank=[max(1, rank - 1) for rank in ranks_of(cores)])
        assert relative(table, lower) > error / len(rows)


@pytest.mark.parametrize(("rows", "columns"), FACTORS)
def test_full_rank_is_exact(rows, columns):
    width = TTShape.of_rank(rows, columns, 1).embedding_dim
    table = torch.randn(TTShape.of_rank(rows, columns, 1).num_rows, width)
    cores = tt_svd(table, rows, columns, rank=10**6)
    assert ranks_of(cores) == highest_ranks(rows, columns)
    assert relative(table, cores) < 1e-5


def test_two_cores_are_as_good_as_any():
    rows, columns = (6, 8), (2, 3)
    table = torch.randn(48, 6, dtype=torch.float64)
    unfolded = table.view(6, 8, 2, 3).permute(0, 2, 1, 3).reshape(12, 24)
    best = torch.linalg.svdvals(unfolded)[5:].norm() / table.norm()
    assert relative(table, tt_svd(table, rows, columns, rank=5)) == pytest.approx(best.item())


def test_fewer_rows_than_places():
    table = torch.randn(500, 12)
    cores = tt_svd(table, (6, 8, 12), (2, 3, 2), rank=10**6)
    assert relative(table, cores) < 1e-5
    assert table_of(cores)[500:].abs().max() < 1e-4


def test_a_rank_beyond_the_table_leaves_no_core_without_gradient():
    table = table_of(initial_cores(TTShape.of_rank((6, 8, 12), (2, 3, 2), 1), "gaussian"))
    cores = [core.requires_grad_() for core in tt_svd(table, (6, 8, 12), (2, 3, 2), rank=4)]
    assert ranks_of(cores) == (4, 4)
    (table_of(cores) - torch.randn_like(table)).square().sum().backward()
    for core in cores[1:]:
        assert bool((core.grad.abs().amax((0, 2, 3)) > 1e-6).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes_and_zeros(dtype):
    cores = tt_svd(torch.randn(570, 12).to(dtype), (6, 8, 12), (2, 3, 2), rank=4)
    assert all(core.dtype == dtype for core in cores)
    for size in ({"rank": 4}, {"error": 0.1}):
        zeros = tt_svd(torch.zeros(570, 12, dtype=dtype), (6, 8, 12), (2, 3, 2), **size)
        assert table_of(zeros).abs().max() == 0


@pytest.mark.parametrize(
    ("weight", "arguments", "message"),
    [
        (torch.zeros(576, 12), {}, "give one"),
        (torch.zeros(576, 12), {"rank": 2, "error": 0.1}, "give one"),
        (torch.zeros(576, 12), {"error": 1.5}, r"error=1.5 must lie in \(0, 1\)"),
        (torch.zeros(576, 12), {"rank": 0}, "rank=0 must be 1 or more"),
        (torch.zeros(576, 12), {"rank": (4,)}, "2 such numbers for 3 cores"),
        (torch.zeros(576, 12), {"rank": (4, 30)}, "R_2 = 30 is above 24"),
        (torch.zeros(577, 12), {"rank": 2}, "1 too few"),
        (torch.zeros(576, 13), {"rank": 2}, "embedding_dim=13"),
        (torch.full((576, 12), torch.nan), {"rank": 2}, "not finite"),
        (torch.zeros(576, 12, dtype=torch.long), {"rank": 2}, "floating-point matrix"),
        (torch.zeros(0, 12), {"rank": 2}, "not empty"),
    ],
)
def test_what_has_no_cores(weight, arguments, message):
    with pytest.raises(ValueError, match=message):
        tt_svd(weight, (6, 8, 12), (2, 3, 2), **arguments)
