import math

import pytest
import torch

from lit_gnncompress.kernels import tt_table
from lit_gnncompress.kernels.reference import tt_lookup as reference
from tests.kernels.conftest import random_cores, strided

TRAINS = [
    ((7, 9), (3, 5), (4,)),
    ((3, 4, 5), (2, 3, 2), (2, 3)),
    ((3, 2, 4, 2), (2, 1, 3, 2), (2, 3, 4)),
]


@pytest.fixture(params=TRAINS, ids=str)
def train(request):
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_rows(train, dtype):
    cores = random_cores(*train, dtype)
    table = tt_table(cores)
    assert table.shape == (math.prod(train[0]), math.prod(train[1]))
    expected = reference.tt_lookup(torch.arange(len(table)), cores, False)[0]
    torch.testing.assert_close(table, expected)
    spread = [strided(core.transpose(0, 2)).transpose(0, 2) for core in cores]
    torch.testing.assert_close(tt_table(spread), table)


@pytest.mark.parametrize("rows", [0, 1, 17, 20, 47])
def test_the_first_rows(train, rows):
    cores = random_cores(*train)
    found = tt_table(cores, num_embeddings=rows)
    torch.testing.assert_close(found, tt_table(cores)[:rows])


def test_gradcheck(train):
    cores = [core.requires_grad_() for core in random_cores(*train, torch.float64)]
    assert torch.autograd.gradcheck(lambda *cores: tt_table(cores, 40), cores, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *cores: tt_table(cores, 40), cores, fast_mode=True)


def test_compiles_and_keeps_its_dtype_under_autocast(train):
    cores = random_cores(*train)
    compiled = torch.compile(
        lambda *cores: tt_table(cores, 40) + 1, backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(*cores), tt_table(cores, 40) + 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tt_table(cores), tt_table(cores).float())
        assert tt_table(cores).dtype == torch.float32


def test_what_does_not_fit_is_named():
    cores = random_cores(*TRAINS[1])
    for rows in (61, -1):
        with pytest.raises(ValueError, match=rf"num_embeddings={rows} must lie in \[0, 60\]"):
            tt_table(cores, rows)
    with pytest.raises(ValueError, match=r"cores\[1\] begins with rank"):
        tt_table([cores[0], cores[2], cores[1]])
