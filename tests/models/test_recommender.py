import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from torch_geometric.data import Data
from torch_geometric.nn import LightGCN
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_recall

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import Quantize, Tensorize
from lit_gnncompress.data import InteractionDataModule
from lit_gnncompress.embedding import TTEmbedding
from lit_gnncompress.models import Recommender
from tests.models.trainers import make_trainer


@pytest.fixture(scope="module")
def data():
    return InteractionDataModule(eval_batch_size=150)


def make_recommender(data, seed=0, **arguments):
    torch.manual_seed(seed)
    return Recommender(data.num_users, data.num_items, **{"embedding_dim": 16, **arguments})


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_vectors_are_those_of_pygs_light_gcn(data, num_layers):
    ours = make_recommender(data, num_layers=num_layers)
    theirs = LightGCN(data.data.num_nodes, 16, num_layers)
    theirs.embedding = ours.embedding
    expected = theirs.get_embedding(data.data.edge_index)
    torch.testing.assert_close(ours(data.data.edge_index), expected, rtol=1e-4, atol=1e-6)


def test_loss_is_bpr_with_the_norms_of_the_triples(data):
    module = make_recommender(data, lambda_reg=0.3)
    batch = next(iter(data.train_dataloader()))
    loss = module.training_step(batch, 0)
    vectors, table = module(data.data.edge_index), module.embedding.weight
    rows = [batch.user, batch.positive + data.num_users, batch.negative + data.num_users]
    user, positive, negative = (vectors[row] for row in rows)
    ranking = -F.logsigmoid((user * positive).sum(1) - (user * negative).sum(1)).mean()
    norms = sum(table[row].square().sum() for row in rows) / len(batch.user)
    torch.testing.assert_close(loss, ranking + 0.3 / 2 * norms)
    (ours,) = torch.autograd.grad(loss, table)
    (expected,) = torch.autograd.grad(ranking + 0.3 / 2 * norms, table)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


def test_learns_communities_and_logs_it(data, tmp_path):
    module, trainer = make_recommender(data, lr=0.05), make_trainer(tmp_path, 20)
    before = trainer.test(module, data, verbose=False)[0]
    trainer.fit(module, data)
    assert trainer.callback_metrics.keys() == {"train_loss", "val_recall", "val_ndcg"}
    after = trainer.test(module, data, verbose=False)[0]
    assert after["test_recall"] > before["test_recall"] + 0.2
    assert after["test_ndcg"] > before["test_ndcg"] + 0.2


def test_same_seed_same_weights(tmp_path):
    tables = []
    for _ in range(2):
        L.seed_everything(5)
        data = InteractionDataModule(batch_size=1000)
        module = make_recommender(data)
        make_trainer(tmp_path, 2).fit(module, data)
        tables.append(module.embedding.weight)
    assert torch.equal(*tables)


@pytest.mark.parametrize("eval_batch_size", [1, 7, 400])
def test_metrics_are_those_of_whole_rankings_without_seen_items(eval_batch_size, tmp_path):
    # User 0 is left with items 3 … 5, user 1 wants nothing, user 2 wants two items.
    train = torch.tensor([[0, 0, 1, 2, 2], [0, 1, 2, 3, 4]])
    valid = torch.tensor([[0], [2]])
    test = torch.tensor([[0, 2, 2], [3, 0, 5]])
    data = InteractionDataModule.from_edge_index(
        train, valid, test, eval_batch_size=eval_batch_size
    )
    module = make_recommender(data, k=2)
    logged = make_trainer(tmp_path).test(module, data, verbose=False)[0]
    vectors = module(data.data.edge_index).detach()
    scores = (vectors[:3] @ vectors[3:].T).sigmoid()  # torchmetrics passes over those below 0
    recalls, gains = [], []
    for user, seen, wanted in ((0, [0, 1, 2], [3]), (2, [3, 4], [0, 5])):
        left = [item for item in range(6) if item not in seen]
        target = torch.tensor([item in wanted for item in left])
        recalls.append(retrieval_recall(scores[user, left], target, top_k=2))
        gains.append(retrieval_normalized_dcg(scores[user, left], target, top_k=2))
    assert logged["test_recall"] == pytest.approx(float(sum(recalls)) / 2)
    assert logged["test_ndcg"] == pytest.approx(float(sum(gains)) / 2)


def test_predictions_are_the_best_unseen_items(data, tmp_path):
    module = make_recommender(data, k=5)
    chunks = make_trainer(tmp_path).predict(module, data)
    assert [len(chunk) for chunk in chunks] == [150, 150, 100]
    vectors = module(data.data.edge_index).detach()
    scores = vectors[:400] @ vectors[400:].T
    for part in data.interactions.parts.values():
        scores[part[0], part[1]] = -torch.inf
    assert torch.equal(torch.cat(chunks), scores.topk(5).indices)


def test_who_has_few_items_left_is_told_so(tmp_path):
    data = InteractionDataModule.from_edge_index(
        torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]]), val_share=0, test_share=0
    )
    (found,) = make_trainer(tmp_path).predict(make_recommender(data, k=3), data)
    assert found[0].tolist() == [3, -1, -1]
    assert sorted(found[1].tolist()) == [0, 1, 2]


def test_seen_items_are_no_hits_even_if_wanted():
    graph = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
    module = Recommender(1, 2, embedding_dim=4, k=2)
    pair = torch.tensor([[0], [0]])
    batch = Data(**graph.to_dict(), user=torch.tensor([0]), seen=pair, wanted=pair)
    module.log = lambda *args, **kwargs: None
    module.test_step(batch, 0)
    assert module.test_recall.compute() == 0


def test_validation_sees_weights_as_they_are(data, tmp_path):
    module, trainer = make_recommender(data), make_trainer(tmp_path)
    first = trainer.validate(module, data, verbose=False)[0]
    with torch.no_grad():
        module.embedding.weight.copy_(torch.randn_like(module.embedding.weight))
    assert trainer.validate(module, data, verbose=False)[0] != first


def test_nothing_to_validate_trains_all_the_same(tmp_path):
    data = InteractionDataModule(val_share=0)
    trainer = make_trainer(tmp_path)
    trainer.fit(make_recommender(data), data)
    assert trainer.callback_metrics.keys() == {"train_loss"}


def test_checkpoint_loads_by_itself(data, tmp_path):
    module, trainer = make_recommender(data, k=3, lr=0.02), make_trainer(tmp_path)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = Recommender.load_from_checkpoint(tmp_path / "model.ckpt")
    assert (loaded.k, loaded.lr) == (3, 0.02)
    assert torch.equal(loaded(data.data.edge_index), module(data.data.edge_index))


def test_a_logger_takes_the_hyperparameters_of_model_and_data(data, tmp_path):
    trainer = make_trainer(tmp_path, 1)
    trainer.logger = CSVLogger(tmp_path)
    trainer.fit(make_recommender(data, lr=0.02), data)
    logged = trainer.logger.experiment.hparams
    assert (logged["num_users"], logged["lr"]) == (data.num_users, 0.02)
    assert logged["batch_size"] == data.batch_size


def test_checkpoint_of_a_tensor_train_loads_by_itself(data, tmp_path):
    tensorize = Tensorize(["embedding"], rank=2, verbose=False)
    module, trainer = make_recommender(data), make_trainer(tmp_path, 1, callbacks=[tensorize])
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = Recommender.load_from_checkpoint(tmp_path / "model.ckpt")
    assert isinstance(loaded.embedding, TTEmbedding)
    assert torch.equal(loaded(data.data.edge_index), module(data.data.edge_index))


def test_tensorize_orders_users_and_items_together(data, tmp_path):
    recall = {}
    for order in ("metis", "random"):
        tensorize = Tensorize(["embedding"], rank=8, order=order, verbose=False)
        module = make_recommender(data, embedding_dim=64, lr=0.01)
        trainer = make_trainer(tmp_path, 30, callbacks=[tensorize])
        trainer.fit(module, data)
        assert isinstance(module.embedding, TTEmbedding)
        assert sum(p.numel() for p in module.parameters()) < 700 * 64 / 15
        recall[order] = trainer.test(module, data, verbose=False)[0]["test_recall"]
    assert recall["metis"] > recall["random"] + 0.1


def test_quantizes_what_layers_read(data, tmp_path):
    errors = []
    for bits in (8, 2):
        quantize = Quantize(BitPlan(features=bits), verbose=False)
        trainer = make_trainer(tmp_path, 2, callbacks=[quantize])
        module = make_recommender(data)
        trainer.fit(module, data)
        assert quantize.ledger.average_bits < bits + 1
        assert trainer.test(module, data, verbose=False)[0]["test_recall"] > 0.1
        quantized = module.eval()(data.data.edge_index)
        quantize.remove()
        errors.append((quantized - module(data.data.edge_index)).norm())
    assert 0 < errors[0] < errors[1] / 4


def test_packed_features_are_recommended_from(data, tmp_path):
    module = make_recommender(data)
    plain = copy.deepcopy(module)
    quantize = Quantize(BitPlan(features=8), packed=True, verbose=False)
    trainer = make_trainer(tmp_path, 5, callbacks=[quantize])
    trainer.fit(module, data)
    make_trainer(tmp_path, 5).fit(plain, data)
    packed = trainer.test(module, data, verbose=False)[0]["test_recall"]
    full = make_trainer(tmp_path).test(plain, data, verbose=False)[0]["test_recall"]
    assert packed == pytest.approx(full, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_users": 0}, r"num_users=0 must be at least 1"),
        ({"embedding_dim": 0}, r"embedding_dim=0 must be at least 1"),
        ({"num_layers": -1}, r"num_layers=-1 must be at least 0"),
        ({"k": 4}, r"k=4 must be from 1 to num_items=3: lower it"),
        ({"k": 0}, r"k=0 must be from 1 to num_items=3"),
        ({"embedding": torch.nn.Embedding(4, 8)}, r"embedding has 4 rows.* it needs 5, users"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recommender(**{"num_users": 2, "num_items": 3, "k": 2, **arguments})


def test_edges_to_nobody_are_refused():
    module = Recommender(2, 3, k=2)
    with pytest.raises(IndexError, match="5"):
        module(torch.tensor([[0, 5], [5, 0]]))


def test_a_table_without_weight_is_looked_up(data):
    class Constant(torch.nn.Module):
        def forward(self, ids):
            return ids.unsqueeze(1).float().expand(-1, 3)

    vectors = make_recommender(data, num_layers=0, embedding=Constant())(data.data.edge_index)
    assert torch.equal(vectors[:, 0], torch.arange(700.0))


def test_a_graph_alone_is_about_all_users(data, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_gnncompress.models.recommender._USERS", 150)
    module = make_recommender(data).eval()
    with torch.no_grad():
        found = module.predict_step(data.data, 0)
        seen = data._known("train")
        batches = data._ranked(seen, seen[:, :0], torch.arange(data.num_users))
        expected = torch.cat([module.predict_step(batch, 0) for batch in batches])
        assert torch.equal(found, expected)
        module.embedding.weight.add_(torch.randn_like(module.embedding.weight))
        assert not torch.equal(module.predict_step(data.data, 0), found)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("step", ["training_step", "validation_step", "predict_step"])
@pytest.mark.parametrize(("users", "items"), [(-1, 1), (1, -1), (0, -1), (-1, 0)])
def test_sizes_of_other_data_are_told(users, items, step, kept):
    train = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]])
    valid = torch.tensor([[3], [3]])
    data = InteractionDataModule.from_edge_index(train, valid, valid[:, :0])
    module = Recommender(data.num_users + users, data.num_items + items, 4, k=1)
    loaders = [data.train_dataloader(), data.val_dataloader(), data.predict_dataloader()]
    steps = ["training_step", "validation_step", "predict_step"]
    batch = next(iter(loaders[steps.index(step)]))
    if not kept:
        del batch.num_nodes
    with pytest.raises(ValueError, match=r"the batch has .* made for num_users=.*data.num_items"):
        getattr(module, step)(batch, 0)
