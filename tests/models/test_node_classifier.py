import os

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_torch_csr_tensor

from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.embedding import PartitionEmbedding, TTEmbedding, hierarchical_order
from lit_gnncompress.models import NodeClassifier
from tests.models.trainers import make_trainer


@pytest.fixture(scope="module")
def graph():
    return GraphDataModule(normalize_features=False)


def make_classifier(graph, **arguments):
    torch.manual_seed(0)
    return NodeClassifier(in_channels=graph.num_features, num_classes=10, **arguments)


@pytest.mark.parametrize("model", ["gcn", "agnn"])
def test_classifier_learns_digits_and_logs_it(graph, model, tmp_path):
    classifier, trainer = make_classifier(graph, model=model), make_trainer(tmp_path, 60)
    trainer.fit(classifier, graph)
    logged = trainer.callback_metrics
    assert logged.keys() == {"train_loss", "train_acc", "val_loss", "val_acc"}
    assert logged["val_acc"] > 0.9
    assert trainer.test(classifier, graph, verbose=False)[0]["test_acc"] > 0.9


def test_accuracy_and_predictions_are_those_of_the_masked_nodes(graph, tmp_path):
    classifier, trainer = make_classifier(graph), make_trainer(tmp_path, 3)
    trainer.fit(classifier, graph)
    classes = trainer.predict(classifier, graph)[0]
    right = (classes == graph.data.y)[graph.data.test_mask].float().mean()
    logged = trainer.test(classifier, graph, verbose=False)[0]
    assert logged == {"test_acc": pytest.approx(right.item())}


def test_checkpoint_loads_by_itself(graph, tmp_path):
    classifier = make_classifier(graph, model="gat", hidden_channels=16, heads=2, lr=0.02)
    trainer = make_trainer(tmp_path, 1)
    trainer.fit(classifier, graph)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)
    loaded = NodeClassifier.load_from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.lr == 0.02
    x, edge_index = graph.data.x, graph.data.edge_index
    assert torch.equal(loaded.eval()(x, edge_index), classifier.eval()(x, edge_index))


def test_sampled_batch_uses_its_seeds_and_no_mask(graph):
    classifier, whole = make_classifier(graph, dropout=0.0, input_dropout=0.0), graph.data
    batch = Data(x=whole.x, edge_index=whole.edge_index, y=whole.y, batch_size=7)
    logits = classifier(whole.x, whole.edge_index)
    expected = torch.nn.functional.cross_entropy(logits[:7], whole.y[:7])
    torch.testing.assert_close(classifier.training_step(batch, 0), expected)
    assert torch.equal(classifier.predict_step(batch, 0), logits[:7].argmax(1))


def test_sparse_adjacency_wins_and_agrees(graph):
    classifier, whole = make_classifier(graph).eval(), graph.data
    adjacency = to_torch_csr_tensor(whole.edge_index, size=(1797, 1797)).t().to_sparse_csr()
    batch = Data(x=whole.x, adj_t=adjacency, num_nodes=1797)
    assert torch.equal(classifier.predict_step(batch, 0), classifier.predict_step(whole, 0))


def test_part_without_labelled_nodes_costs_nothing(graph):
    part = graph.data.clone()
    part.train_mask.zero_()
    loss = make_classifier(graph).training_step(part, 0)
    loss.backward()
    assert loss == 0


# --- nodes without features -----------------------------------------------------------------------


ROWS = (36, 6, 9)


@pytest.fixture(scope="module")
def bare_graph():
    return GraphDataModule(features=False)


def make_table(kind, graph):
    torch.manual_seed(0)
    if kind == "table":
        return None
    order = hierarchical_order(graph.data.edge_index, graph.num_nodes, ROWS, progress=False)
    if kind == "parts":
        return PartitionEmbedding(graph.num_nodes, 64, order)
    return TTEmbedding(graph.num_nodes, 64, rank=8, order=order, parts=kind == "tt and parts")


def make_bare_classifier(graph, kind="table", **arguments):
    table = make_table(kind, graph)
    sizes = {"in_channels": graph.num_features, "num_nodes": graph.num_nodes, "num_classes": 10}
    arguments = {"model": "sage", "input_dropout": 0.0, "hidden_channels": 64} | arguments
    return NodeClassifier(**sizes, embedding=table, **arguments)


@pytest.mark.parametrize("kind", ["table", "tt", "tt and parts", "parts"])
@pytest.mark.parametrize("model", ["gcn", "sage", "gat"])
def test_vectors_of_nodes_learn_digits_from_the_graph_alone(model, kind, bare_graph, tmp_path):
    classifier = make_bare_classifier(bare_graph, kind, model=model, weight_decay=0.0)
    trainer = make_trainer(tmp_path, 15)
    trainer.fit(classifier, bare_graph)
    # A tenth of the nodes has each class.
    assert trainer.test(classifier, bare_graph, verbose=False)[0]["test_acc"] > 0.5


def test_whole_and_sampled_batches_look_the_same_rows_up(bare_graph):
    classifier = make_bare_classifier(bare_graph, "tt").eval()
    whole = bare_graph.data
    logits = classifier(None, whole.edge_index)
    sampled = Data(edge_index=whole.edge_index, y=whole.y, n_id=torch.arange(1797), batch_size=5)
    assert torch.equal(classifier.predict_step(whole, 0), logits.argmax(1))
    assert torch.equal(classifier.predict_step(sampled, 0), logits[:5].argmax(1))
    shuffle = torch.randperm(1797)
    number = shuffle.argsort()
    renumbered = Data(edge_index=number[whole.edge_index], n_id=shuffle, num_nodes=1797)
    expected = logits.argmax(1)[shuffle]
    agreed = classifier.predict_step(renumbered, 0) == expected
    assert agreed.float().mean() > 0.999  # sums over neighbours in another order


def test_rows_that_are_looked_up_are_trained(bare_graph):
    classifier = make_bare_classifier(bare_graph)
    whole = bare_graph.data
    batch = Data(
        edge_index=torch.tensor([[1], [0]]), y=whole.y[[7, 9]], n_id=torch.tensor([7, 9]),
        num_nodes=2, batch_size=1,
    )  # fmt: skip
    classifier.training_step(batch, 0).backward()
    touched = classifier.embedding.weight.grad.abs().sum(1).nonzero().flatten()
    assert touched.tolist() == [7, 9]


def test_checkpoint_with_a_table_loads_by_itself(bare_graph, tmp_path):
    classifier, trainer = make_bare_classifier(bare_graph), make_trainer(tmp_path, 1)
    trainer.fit(classifier, bare_graph)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = NodeClassifier.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    edge_index = bare_graph.data.edge_index
    assert torch.equal(loaded(None, edge_index), classifier.eval()(None, edge_index))


@pytest.mark.parametrize("given", [True, False], ids=["table given", "by itself"])
def test_checkpoint_of_a_tensor_train_loads(given, bare_graph, tmp_path):
    classifier, trainer = make_bare_classifier(bare_graph, "tt"), make_trainer(tmp_path, 1)
    trainer.fit(classifier, bare_graph)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    table = {"embedding": TTEmbedding(1797, 64, rank=8, rows=ROWS)} if given else {}
    loaded = NodeClassifier.load_from_checkpoint(tmp_path / "model.ckpt", **table).eval()
    assert isinstance(loaded.embedding, TTEmbedding)
    edge_index = bare_graph.data.edge_index
    assert torch.equal(loaded(None, edge_index), classifier.eval()(None, edge_index))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "num_nodes=None and embedding_dim=64"),
        ({"num_nodes": 5, "embedding_dim": 0}, "num_nodes=5 and embedding_dim=0"),
        ({"in_channels": 3, "embedding": torch.nn.Embedding(5, 4)}, "but in_channels=3"),
        ({"embedding": torch.nn.Identity()}, "has no embedding_dim"),
    ],
)
def test_tables_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NodeClassifier(**({"in_channels": 0, "num_classes": 3} | arguments))


def test_gcn_reaches_its_published_accuracy_on_cora(tmp_path):
    root = os.environ.get("GNNCOMPRESS_DATA")
    if not root or not os.path.isdir(f"{root}/Planetoid/Cora"):
        pytest.skip("needs Cora: set GNNCOMPRESS_DATA to a folder of raw data sets")
    cora = GraphDataModule("Cora", root, tmp_path)
    torch.manual_seed(0)
    classifier = NodeClassifier(in_channels=cora.num_features, num_classes=cora.num_classes)
    trainer = make_trainer(tmp_path, 100)
    trainer.fit(classifier, cora)
    assert trainer.test(classifier, cora, verbose=False)[0]["test_acc"] > 0.8
