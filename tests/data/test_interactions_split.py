import pytest
import torch

from lit_gnncompress.data.interactions_files import Interactions, communities
from lit_gnncompress.data.interactions_split import split_by_user, split_interactions


def keys(edges):
    return set(map(tuple, edges.T.tolist()))


def test_each_user_gives_a_share_and_keeps_something():
    sizes = [1, 2, 5, 10, 100]
    users = torch.arange(5).repeat_interleave(torch.tensor(sizes))
    edges = torch.stack([users, torch.arange(len(users))])
    kept, held = split_by_user(edges, 0.2)
    assert torch.bincount(held[0], minlength=5).tolist() == [0, 0, 1, 2, 20]
    assert torch.bincount(split_by_user(edges, 0.99)[0][0]).tolist() == [1, 1, 1, 1, 1]
    assert keys(kept) | keys(held) == keys(edges)
    assert not keys(kept) & keys(held)


def test_a_draw_follows_its_seed_alone():
    edges = communities()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (split_by_user(edges, 0.3, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_that_are_not_published_are_drawn():
    edges = communities()
    parts = split_interactions(Interactions(edges), test_share=0.25, seed=3)
    shares = [part.size(1) / edges.size(1) for part in parts.parts.values()]
    assert shares == pytest.approx([0.75 * 0.9, 0.75 * 0.1, 0.25], abs=0.02)
    assert set.union(*map(keys, parts.parts.values())) == keys(edges)


def published():
    train, test = split_by_user(communities(), 0.3)
    return Interactions(*split_by_user(train, 0.3), test)


def test_published_parts_stay():
    found = published()
    assert split_interactions(found) == found


@pytest.mark.parametrize("val_share", [0.0, 0.05])
def test_another_share_is_drawn_from_train_and_valid(val_share):
    found = published()
    parts = split_interactions(found, val_share)
    assert keys(parts.train) | keys(parts.valid) == keys(found.train) | keys(found.valid)
    assert torch.equal(parts.test, found.test)
    known = found.train.size(1) + found.valid.size(1)
    assert parts.valid.size(1) / known == pytest.approx(val_share, abs=0.03)
    order = parts.train[0] * 1000 + parts.train[1]
    assert torch.equal(order, order.sort().values)


def test_what_cannot_be_measured_is_refused():
    train = torch.tensor([[0, 0, 1], [0, 1, 2]])
    with pytest.raises(ValueError, match=r"1 interactions are in both train and test, the first"):
        split_interactions(Interactions(train, None, torch.tensor([[0], [1]])))
    with pytest.raises(ValueError, match=r"1 users have interactions in test but none in train"):
        split_interactions(Interactions(train, None, torch.tensor([[7], [1]])))
    with pytest.raises(ValueError, match=r"but none to test with: add test.txt"):
        split_interactions(Interactions(train, torch.tensor([[0], [2]])))
    for name in ("val_share", "test_share"):
        with pytest.raises(ValueError, match=rf"{name}=1.0 must be from 0 to below 1"):
            split_interactions(Interactions(train), **{name: 1.0})
