from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import RunningStage
from torch.utils.data import DataLoader
from torch_geometric.loader import RandomNodeLoader

from lit_gnncompress.callbacks.whole_graph import whole_graph
from tests.callbacks.tiny import make_graph

GRAPH, OTHER = make_graph(seed=0), make_graph(seed=1)


def trainer(stage=RunningStage.TRAINING, data=None, **loaders):
    names = ("train_dataloader", "val_dataloaders", "test_dataloaders", "predict_dataloaders")
    return SimpleNamespace(
        state=SimpleNamespace(stage=stage),
        datamodule=SimpleNamespace(data=data) if data is not None else None,
        **dict.fromkeys(names) | loaders,
    )


def loader(*graphs):
    return DataLoader(list(graphs), collate_fn=lambda graphs: graphs[0])


def test_a_datamodule_has_it_where_loaders_do_not_tell():
    assert whole_graph(trainer(data=GRAPH, train_dataloader=DataLoader(range(3)))) is GRAPH
    assert whole_graph(trainer(data=GRAPH, train_dataloader=loader(OTHER))) is OTHER
    part = make_graph()
    part.n_id = torch.arange(part.num_nodes)
    assert whole_graph(trainer(data=GRAPH, train_dataloader=loader(part))) is GRAPH
    assert whole_graph(trainer(data=[GRAPH], train_dataloader=None)) is None
    assert whole_graph(L.Trainer(logger=False)) is None  # nothing runs


def test_a_validation_batch_is_of_its_own_loader():
    run = trainer(RunningStage.VALIDATING, val_dataloaders=[loader(GRAPH), loader(OTHER)])
    assert whole_graph(run) is None
    assert whole_graph(run, 0) is GRAPH
    assert whole_graph(run, 1) is OTHER


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        (RunningStage.TRAINING, "train_dataloader"),
        (RunningStage.SANITY_CHECKING, "val_dataloaders"),
        (RunningStage.VALIDATING, "val_dataloaders"),
        (RunningStage.TESTING, "test_dataloaders"),
        (RunningStage.PREDICTING, "predict_dataloaders"),
    ],
)
def test_each_phase_has_its_loaders(stage, name):
    others = {"train_dataloader": loader(OTHER), "val_dataloaders": loader(OTHER)}
    assert whole_graph(trainer(stage, **others | {name: loader(GRAPH)})) is GRAPH


@pytest.mark.parametrize(
    ("loaders", "known"),
    [
        (loader(GRAPH), True),
        (RandomNodeLoader(GRAPH, num_parts=2), True),
        ([loader(GRAPH), RandomNodeLoader(GRAPH, num_parts=2)], True),
        ({"a": loader(GRAPH), "b": loader(GRAPH)}, True),
        (loader(GRAPH, OTHER), False),
        ([loader(GRAPH), loader(OTHER)], False),
        ([loader(GRAPH), DataLoader(range(3))], False),
        (None, False),
    ],
)
def test_several_loaders_must_agree(loaders, known):
    found = whole_graph(trainer(train_dataloader=loaders))
    assert found is (GRAPH if known else None)
