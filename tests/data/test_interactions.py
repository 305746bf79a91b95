import re
import subprocess
import sys

import pytest
import torch

from lit_gnncompress.data import InteractionDataModule


def test_sizes_are_known_before_any_trainer():
    module = InteractionDataModule()
    assert (module.num_users, module.num_items) == (400, 300)


def test_the_graph_has_what_trains_both_ways_and_nothing_else():
    module = InteractionDataModule(split_seed=1)
    data, (users, items) = module.data, module.interactions.train
    half = len(users)
    assert data.num_nodes == 700
    assert torch.equal(data.edge_index[:, :half], torch.stack([users, items + 400]))
    assert torch.equal(data.edge_index[:, half:], data.edge_index[:, :half].flip(0))
    assert torch.equal(data.deg, torch.bincount(data.edge_index[1], minlength=700))


def test_what_is_known_depends_on_the_stage():
    train = torch.tensor([[0, 0, 1], [0, 1, 2]])
    valid, test = torch.tensor([[0], [2]]), torch.tensor([[0, 1], [3, 0]])
    module = InteractionDataModule.from_edge_index(train, valid, test)
    (batch,) = module.val_dataloader()
    assert (batch.user.tolist(), batch.seen.tolist()) == ([0], [[0, 0], [0, 1]])
    (batch,) = module.test_dataloader()
    assert batch.user.tolist() == [0, 1]
    assert batch.seen.tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
    assert batch.wanted.tolist() == [[0, 1], [3, 0]]
    (batch,) = module.predict_dataloader()
    assert torch.bincount(batch.seen[0]).tolist() == [4, 2]


def test_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.csv").write_text(
        "".join(f"{u},{i},4.5\n" for u in range(5) for i in range(9))
    )
    module = InteractionDataModule(
        path=tmp_path / "mine.csv", pairs=True, num_items=12, val_share=0, test_share=1 / 3
    )
    assert (module.num_users, module.num_items) == (5, 12)
    assert module.interactions.test.size(1) == 15
    assert module.val_dataloader() == []


def test_graph_moves_to_a_device_once_and_stays_on_the_cpu_too():
    module = InteractionDataModule()
    batches = [next(iter(module.train_dataloader())), next(iter(module.val_dataloader()))]
    device = torch.device("meta")
    moved = [module.transfer_batch_to_device(batch, device, 0) for batch in batches]
    assert moved[0].edge_index is moved[1].edge_index
    assert moved[0].deg is moved[1].deg
    assert {moved[0].positive.device, moved[1].seen.device} == {device}
    assert batches[0].user.device.type == module.data.edge_index.device.type == "cpu"
    cpu = torch.device("cpu")
    assert module.transfer_batch_to_device(batches[0], cpu, 0) is batches[0]


def test_checkpoint_keeps_the_experiment_and_not_the_machine(tmp_path):
    module = InteractionDataModule(root=tmp_path, split_seed=4)
    assert module.hparams["split_seed"] == 4
    assert not {"root", "path"} & set(module.hparams)


def test_module_prints_what_it_serves_without_loading_it():
    module = InteractionDataModule("COMMUNITIES")
    assert str(module) == "InteractionDataModule('communities', not loaded)"
    module.setup("fit")
    assert "num_nodes=700" in str(module)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.zeros(3, 4), r"edge_index must be int64 of shape \(2, E\).*float32 of shape \(3, 4"),
        (torch.tensor([[0, 1], [2, -1]]), r"edge_index\[1, 1\]=-1 is no item: ids count from 0"),
        (torch.tensor([[-2], [0]]), r"edge_index\[0, 0\]=-2 is no user"),
        (torch.zeros(2, 0, dtype=torch.long), r"edge_index holds no interaction"),
    ],
)
def test_edges_that_are_none_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        InteractionDataModule.from_edge_index(edges)


def test_sizes_that_do_not_fit_are_refused():
    edges = torch.tensor([[0, 1], [2, 3]])
    with pytest.raises(ValueError, match=r"there is item 3, but num_items=3: .*at least 4"):
        _ = InteractionDataModule.from_edge_index(edges, num_items=3).data
    with pytest.raises(ValueError, match=r"batch_size=0 must be at least 1"):
        InteractionDataModule(batch_size=0)


TWO_PROCESSES = """
import lightning as L
from lit_gnncompress.data import InteractionDataModule
from lit_gnncompress.models import Recommender

class Watched(Recommender):
    def training_step(self, batch, batch_idx):
        self.trained = getattr(self, "trained", 0) + len(batch.user)
        return super().training_step(batch, batch_idx)

data = InteractionDataModule(batch_size=500)
model = Watched(data.num_users, data.num_items, embedding_dim=8)
trainer = L.Trainer(
    max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(model, data)
assert abs(model.trained - data.interactions.train.size(1) / 2) < 1, model.trained
print(f"rank {trainer.global_rank} has {model.embedding.weight.double().norm().item()!r}")
"""


def test_two_processes_share_an_epoch(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    norms = dict(re.findall(r"rank (\d) has ([-+.e\d]+)", run.stdout))
    assert norms["0"] == norms["1"]
