import torch
from torch_geometric.data import Data

from lit_gnncompress.data.interactions_files import communities
from lit_gnncompress.data.interactions_loaders import RankedUsers, Triples, make_loader

GRAPH = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=700)


def test_negatives_are_uniform_among_what_was_not_chosen():
    train = torch.tensor([[0, 0, 0, 1, 2, 2], [1, 2, 5, 0, 0, 6]])
    triples = Triples(GRAPH, train, num_users=3, num_items=7)
    torch.manual_seed(0)
    for user, chosen in enumerate(([1, 2, 5], [0], [0, 6])):
        drawn = triples.draw_negatives(torch.full((7000,), user))
        count = torch.bincount(drawn, minlength=7)
        assert count[chosen].sum() == 0
        left = [item for item in range(7) if item not in chosen]
        assert (count[left] - 7000 / len(left)).abs().max() < 200


def test_negatives_of_many_users_are_never_chosen_items():
    train = communities()
    triples = Triples(GRAPH, train, 400, 300)
    chosen = torch.zeros(400, 300, dtype=torch.bool)
    chosen[train[0], train[1]] = True
    users = torch.arange(400).repeat(50)
    negatives = triples.draw_negatives(users)
    assert not chosen[users, negatives].any()
    assert len(negatives.unique()) == 300


def test_each_interaction_is_one_triple_of_an_epoch():
    train = communities()
    triples = Triples(GRAPH, train, 400, 300)
    batches = list(make_loader(triples, 1000, shuffle=True))
    assert [len(batch.user) for batch in batches[:-1]] == [1000] * (len(batches) - 1)
    found = torch.cat([torch.stack([b.user, b.positive]) for b in batches], dim=1)
    assert torch.equal(found.unique(dim=1), train)
    assert not torch.equal(found, train)
    assert all(batch.edge_index is GRAPH.edge_index for batch in batches)
    assert all(batch.negative.shape == batch.user.shape for batch in batches)


def test_who_chose_everything_has_no_triple():
    train = torch.tensor([[0, 0, 1], [0, 1, 1]])
    triples = Triples(GRAPH, train, 2, 2)
    batch = triples[0]
    assert len(triples) == 1
    assert (batch.user.item(), batch.positive.item(), batch.negative.item()) == (1, 1, 0)


def test_users_come_with_what_is_seen_and_wanted():
    seen = torch.tensor([[0, 0, 2, 3], [4, 5, 1, 0]])
    wanted = torch.tensor([[0, 3, 3], [1, 2, 3]])
    users = RankedUsers(GRAPH, seen, wanted, num_users=4)
    assert users.users.tolist() == [0, 3]  # users 1 and 2 want nothing
    whole = users.__getitems__([0, 1])
    assert whole.seen.tolist() == [[0, 0, 1], [4, 5, 0]]
    assert whole.wanted.tolist() == [[0, 1, 1], [1, 2, 3]]
    first, second = make_loader(users, 1)
    assert (first.user.item(), second.user.item()) == (0, 3)
    assert second.wanted.tolist() == [[0, 0], [2, 3]]
    everyone = RankedUsers(GRAPH, seen, wanted[:, :0], 4, torch.arange(4))
    batch = everyone.__getitems__([1, 2])
    assert batch.seen.tolist() == [[1], [1]]
    assert batch.wanted.shape == (2, 0)
