import pytest
import torch
from torch_geometric.data import Data

from lit_gnncompress.data import apply_split, random_split, share_split

CLASSES = torch.arange(4).repeat(100)


def many_splits():
    masks = torch.arange(400)[:, None] % 10 == torch.arange(3)
    return Data(y=CLASSES, train_mask=masks, val_mask=masks.roll(1, 0), test_mask=masks.roll(2, 0))


def test_random_split_gives_each_class_its_share():
    train, val, test = random_split(CLASSES, seed=1)
    assert CLASSES[train].bincount().tolist() == [20] * 4
    assert CLASSES[val].bincount().tolist() == [30] * 4
    assert torch.equal(train.int() + val.int() + test.int(), torch.ones(400, dtype=torch.int))


def test_random_split_is_fixed_by_its_seed_alone():
    torch.manual_seed(0)
    first = random_split(CLASSES, seed=1)[0]
    state = torch.get_rng_state()
    assert torch.equal(random_split(CLASSES, seed=1)[0], first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(random_split(CLASSES, seed=2)[0], first)


def test_nodes_without_a_class_are_in_no_part():
    y = CLASSES.clone()
    y[:40] = -1
    assert not torch.stack(random_split(y))[:, :40].any()


def test_small_class_is_named():
    with pytest.raises(ValueError, match=r"class 4 has 10 nodes.*sum to less than 10"):
        random_split(torch.cat([CLASSES, torch.full((10,), 4)]))


@pytest.mark.parametrize("name", ["num_train_per_class", "num_val_per_class"])
def test_empty_parts_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        random_split(CLASSES, **{name: 0})


@pytest.mark.parametrize(("split", "column"), [(None, 0), (0, 0), (2, 2)])
def test_published_split_is_a_column(split, column):
    data = apply_split(many_splits(), split)
    assert torch.equal(data.train_mask, many_splits().train_mask[:, column])
    assert data.train_mask.shape == data.val_mask.shape == data.test_mask.shape == (400,)


def test_published_split_can_be_replaced_by_a_random_one():
    data = apply_split(many_splits(), "random", seed=3)
    assert torch.equal(data.train_mask, random_split(CLASSES, seed=3)[0])


@pytest.mark.parametrize(("data", "known"), [(many_splits(), "0 to 2"), (Data(y=CLASSES), "none")])
def test_unpublished_split_is_refused(data, known):
    with pytest.raises(ValueError, match=rf"split=3 is not among .*\({known}\).*'random'"):
        apply_split(data, 3)


def test_shares_are_of_labelled_nodes_whatever_their_classes():
    y = torch.cat([torch.full((50,), -1), torch.zeros(199, dtype=torch.long), torch.ones(1)]).long()
    train, val, test = share_split(y, seed=1, train_share=0.2, val_share=0.3)
    assert [int(mask.sum()) for mask in (train, val, test)] == [40, 60, 100]
    assert torch.equal(train.int() + val.int() + test.int(), (y >= 0).int())
    assert torch.equal(share_split(y, seed=1, train_share=0.2, val_share=0.3)[0], train)
    assert not torch.equal(share_split(y, seed=2, train_share=0.2, val_share=0.3)[0], train)


def test_shares_replace_a_published_split():
    data = apply_split(many_splits(), "shares", seed=3, train_share=0.05, val_share=0.5)
    assert torch.equal(data.train_mask, share_split(CLASSES, 3, 0.05, 0.5)[0])
    assert [int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test")] == [20, 200, 180]


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.5, 0.5), (0.1, 0.0)])
def test_shares_that_leave_a_part_empty_are_refused(shares):
    with pytest.raises(ValueError, match="of 400 labelled nodes leave a part empty"):
        share_split(CLASSES, 0, *shares)
