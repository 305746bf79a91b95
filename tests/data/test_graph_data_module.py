import subprocess
import sys

import lightning as L
import pytest
import torch
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE
from torch_geometric.utils import degree

from lit_gnncompress.data import GraphDataModule

can_sample = WITH_PYG_LIB or WITH_TORCH_SPARSE


class Watcher(L.LightningModule):
    """Remembers every batch that reaches a step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch):
        self.seen.append(batch)
        return self.weight * 1

    def validation_step(self, batch):
        self.seen.append(batch)

    test_step = predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def trainer(tmp_path):
    return L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )


def test_sizes_are_known_before_any_trainer():
    module = GraphDataModule()
    assert (module.num_features, module.num_classes) == (64, 10)


def test_every_step_gets_the_very_same_graph(trainer, recwarn):
    module, watcher = GraphDataModule(), Watcher()
    trainer.fit(watcher, module)
    trainer.test(watcher, module)
    trainer.predict(watcher, module)
    assert len(watcher.seen) >= 6
    assert all(batch.x is module.data.x for batch in watcher.seen)
    assert not [w for w in recwarn if "workers" in str(w.message) or "pin" in str(w.message)]


def test_graph_moves_to_a_device_once_and_stays_on_the_cpu_too():
    module = GraphDataModule()
    device = torch.device("meta")
    moved = [module.transfer_batch_to_device(module.data, device, 0) for _ in range(2)]
    assert moved[0].x is moved[1].x
    assert moved[0].edge_index.device == device
    assert module.data.x.device.type == "cpu"


def test_degrees_count_incoming_edges():
    data = GraphDataModule().data
    assert data.deg.dtype == torch.int64
    assert torch.equal(data.deg, degree(data.edge_index[1], data.num_nodes).long())


def test_random_split_follows_its_arguments():
    masks = [
        GraphDataModule(split_seed=seed, num_train_per_class=5).data.train_mask
        for seed in (0, 0, 1)
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert masks[0].sum() == 50


def test_shares_follow_their_arguments():
    data = GraphDataModule(split="shares", split_seed=2, train_share=0.2, val_share=0.3).data
    sizes = [int(data[f"{part}_mask"].sum()) for part in ("train", "val", "test")]
    assert sizes == [359, 539, 899]


def test_a_graph_without_features_moves_to_a_device_once_too():
    module = GraphDataModule(features=False)
    device = torch.device("meta")
    moved = [module.transfer_batch_to_device(module.data, device, 0) for _ in range(2)]
    assert moved[0] is moved[1]
    assert module.transfer_batch_to_device(module.data, torch.device("cpu"), 0) is module.data


def test_rows_are_normalised_unless_told_otherwise():
    ones = torch.ones(1797)
    assert torch.allclose(GraphDataModule().data.x.sum(1), ones)
    assert GraphDataModule(normalize_features=False).data.x.max() == 1


def test_binary_rows_hold_one_value(real_root, tmp_path):
    x = GraphDataModule("Cora", real_root, tmp_path).data.x
    assert all(len(row[row > 0].unique()) == 1 for row in x)


def test_one_of_many_splits_is_chosen(real_root, tmp_path):
    first, second = (
        GraphDataModule("Tolokers", real_root, tmp_path, split=split).data for split in (0, 9)
    )
    assert first.test_mask.shape == (11758,)
    assert not torch.equal(first.test_mask, second.test_mask)


def test_checkpoint_keeps_the_experiment_and_not_the_machine(tmp_path):
    module = GraphDataModule(root=tmp_path, split_seed=4)
    assert module.hparams["split_seed"] == 4
    assert not {"root", "processed_dir", "num_workers"} & set(module.hparams)


def test_module_prints_what_it_serves_without_loading_it():
    module = GraphDataModule("DIGITS")
    assert str(module) == "GraphDataModule('digits', loader='full', not loaded)"
    module.setup("fit")
    assert "x=[1797, 64]" in str(module)


def test_unknown_loader_is_refused():
    with pytest.raises(ValueError, match=r"loader='cluster' is unknown: choose 'full'"):
        GraphDataModule(loader="cluster")


@pytest.mark.skipif(can_sample, reason="a package that samples is installed")
def test_sampling_without_a_sampler_says_what_to_install():
    with pytest.raises(ImportError, match=r"pip install pyg-lib.*loader='full'"):
        GraphDataModule(loader="neighbor")


@pytest.mark.skipif(not can_sample, reason="needs pyg-lib or torch-sparse")
def test_sampled_batches_know_true_degrees_and_cover_each_node_once(trainer):
    module = GraphDataModule(loader="neighbor", num_neighbors=[3], batch_size=500)
    watcher = Watcher()
    trainer.predict(watcher, module)
    seeds = torch.cat([batch.n_id[: batch.batch_size] for batch in watcher.seen])
    assert torch.equal(seeds, torch.arange(1797))
    assert all(torch.equal(batch.deg, module.data.deg[batch.n_id]) for batch in watcher.seen)


TWO_PROCESSES = """
import lightning as L
from lit_gnncompress.data import GraphDataModule
from lit_gnncompress.models import NodeClassifier

module = GraphDataModule()
model = NodeClassifier(in_channels=module.num_features, num_classes=module.num_classes)
trainer = L.Trainer(
    max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(model, module)
predicted = trainer.predict(model, module)
assert trainer.global_step == 2 and len(predicted) == 1 and len(predicted[0]) == 1797
print(f"rank {trainer.global_rank} saw it all")
"""


def test_each_of_two_processes_gets_the_whole_graph(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert "rank 0 saw it all" in run.stdout
    assert "rank 1 saw it all" in run.stdout
