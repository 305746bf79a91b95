import os

import lightning as L
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_torch_csr_tensor

from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.models import NodeClassifier


@pytest.fixture(scope="module")
def graph():
    return GraphDataModule(normalize_features=False)


def make_trainer(folder, epochs):
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


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
