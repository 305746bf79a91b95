import math

import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_recall

from lit_gnncompress.models.ranking_metrics import NDCGAtK, RecallAtK


def test_a_small_example_by_hand():
    # Of the first user's 4 wanted items the 1st and 3rd recommendations are two; of the second's
    # single one it is the 2nd; the third found nothing; the fourth wants nothing.
    hits = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0]]).bool()
    wanted = torch.tensor([4, 1, 2, 0])
    recall, ndcg = RecallAtK(3), NDCGAtK(3)
    recall.update(hits, wanted)
    ndcg.update(hits, wanted)
    assert recall.compute().item() == pytest.approx((2 / 4 + 1 + 0) / 3)
    best = 1 + 1 / math.log2(3) + 1 / 2  # three of the four wanted could be among three
    gains = [(1 + 1 / 2) / best, 1 / math.log2(3), 0]
    assert ndcg.compute().item() == pytest.approx(sum(gains) / 3)


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize(
    ("metric", "reference"),
    [(RecallAtK, retrieval_recall), (NDCGAtK, retrieval_normalized_dcg)],
)
def test_agrees_with_torchmetrics_on_whole_rankings(metric, reference, k):
    generator = torch.Generator().manual_seed(k)
    scores = torch.rand(30, 40, generator=generator)
    wanted = torch.rand(30, 40, generator=generator) < 0.2
    ours = metric(k)
    for rows in torch.arange(30).split(7):  # in chunks of any size
        order = scores[rows].topk(k).indices
        ours.update(wanted[rows].gather(1, order), wanted[rows].sum(1))
    users = [u for u in range(30) if wanted[u].any()]
    expected = sum(float(reference(scores[u], wanted[u], top_k=k)) for u in users) / len(users)
    assert ours.compute().item() == pytest.approx(expected, rel=1e-5)


def test_nothing_to_find_is_zero_and_state_starts_anew():
    metric = RecallAtK(2)
    metric.update(torch.zeros(3, 2, dtype=torch.bool), torch.zeros(3, dtype=torch.long))
    assert metric.compute() == 0
    metric.update(torch.ones(1, 2, dtype=torch.bool), torch.tensor([2]))
    assert metric.compute() == 1
    metric.reset()
    assert metric.num_users == 0


def test_wrong_k_is_refused():
    with pytest.raises(ValueError, match=r"k=0 must be at least 1"):
        RecallAtK(0)
    with pytest.raises(ValueError, match=r"hits must have shape \(B, 3\), got \(1, 2\)"):
        NDCGAtK(3).update(torch.zeros(1, 2, dtype=torch.bool), torch.tensor([1]))
