from itertools import pairwise

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from lit_gnncompress.callbacks import Tensorize
from lit_gnncompress.cli import CompressCLI
from lit_gnncompress.data import CriteoDataModule, LibFMDataModule
from lit_gnncompress.embedding import TTEmbedding, joined_lookup
from lit_gnncompress.models import DLRM
from tests.models.trainers import make_trainer

SMALL = {"embedding_dim": 8, "bottom_mlp": (16,), "top_mlp": (32,)}


@pytest.fixture(scope="module")
def data():
    return CriteoDataModule(batch_size=500)


def make_dlrm(data, seed=0, **arguments):
    torch.manual_seed(seed)
    return DLRM(data.num_embeddings, data.num_dense, **{**SMALL, "lr": 0.05, **arguments})


def test_scores_are_those_of_the_paper(data):
    module, batch = make_dlrm(data), data.rows.batch(slice(0, 7))
    vectors = [module.bottom(batch.dense)]
    vectors += [
        table.weight[row] for table, row in zip(module.embeddings, batch.sparse.T, strict=True)
    ]
    pairs = [(vectors[i] * vectors[j]).sum(1) for i in range(27) for j in range(i)]
    expected = module.top(torch.cat([vectors[0], torch.stack(pairs, 1)], 1)).squeeze(1)
    torch.testing.assert_close(module(batch.dense, batch.sparse), expected)


@pytest.mark.parametrize(
    ("sizes", "bottom", "top"),
    [
        ("kaggle", [13, 512, 256, 64, 16], [16 + 351, 512, 256, 1]),
        ("terabyte", [13, 512, 256, 64], [64 + 351, 512, 512, 256, 1]),
        ("mlperf", [13, 512, 256, 128], [128 + 351, 1024, 1024, 512, 256, 1]),
    ],
)
def test_published_sizes(sizes, bottom, top):
    module = DLRM([3] * 26, 13, sizes=sizes)
    for mlp, widths in ((module.bottom, bottom), (module.top, top)):
        shapes = [(m.in_features, m.out_features) for m in mlp if isinstance(m, nn.Linear)]
        assert shapes == list(pairwise(widths))
    assert {table.embedding_dim for table in module.embeddings} == {bottom[-1]}


@pytest.mark.parametrize(
    ("optimizer", "sparse", "lr"),
    [("adagrad", False, 0.05), ("adagrad", True, 0.05), ("sgd", True, 0.3), ("adam", False, 0.01)],
)
def test_learns_and_logs_it(optimizer, sparse, lr, data, tmp_path):
    module = make_dlrm(data, optimizer=optimizer, sparse=sparse, lr=lr)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    logged = {"train_loss", "val_loss", "val_auroc", "val_acc"}
    assert trainer.callback_metrics.keys() == logged
    tested = trainer.test(module, data, verbose=False)[0]
    assert tested["test_auroc"] > 0.7
    batch = data.rows.batch(data.split.test)
    labels, scores = batch.label, module.predict_step(batch, 0).detach()
    assert tested["test_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert tested["test_acc"] == pytest.approx(float(((scores > 0.5) == labels).float().mean()))
    loss = F.binary_cross_entropy(scores, labels)
    assert tested["test_loss"] == pytest.approx(float(loss), rel=1e-4)


def test_sparse_gradients_train_as_dense_ones(data, tmp_path):
    modules = [make_dlrm(data, sparse=sparse, lr=0.01) for sparse in (False, True)]
    batch = data.rows.batch(slice(0, 50))
    for module in modules:
        module.log = lambda *args, **kwargs: None
        optimizer = module.configure_optimizers()
        for _ in range(3):
            optimizer.zero_grad()
            module.training_step(batch, 0).backward()
            optimizer.step()
    dense, sparse = (module.embeddings[0].weight for module in modules)
    assert sparse.grad.is_sparse
    assert not dense.grad.is_sparse
    torch.testing.assert_close(dense, sparse, rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights(data, tmp_path):
    modules = []
    for _ in range(2):
        L.seed_everything(5)
        modules.append(make_dlrm(data, seed=5))
        make_trainer(tmp_path, 2).fit(modules[-1], data)
    pairs = zip(modules[0].parameters(), modules[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_epochs_are_shuffled_anew(data, tmp_path):
    class Seen(L.Callback):
        first: list

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 0:
                self.first.append(batch.dense[0, 0].item())

    seen = Seen()
    seen.first = []
    make_trainer(tmp_path, 3, callbacks=[seen]).fit(make_dlrm(data), data)
    assert len(set(seen.first)) == 3


def test_tensor_trains_and_bags_stand_where_tables_stood(data, tmp_path):
    module = make_dlrm(data)
    plain = make_dlrm(data)
    batch = data.rows.batch(slice(0, 20))
    module.embeddings[1] = nn.EmbeddingBag.from_pretrained(module.embeddings[1].weight.detach())
    same = module(batch.dense, batch.sparse), plain(batch.dense, batch.sparse)
    torch.testing.assert_close(*same)
    module.embeddings[0] = TTEmbedding(data.num_embeddings[0], 8, rank=4)
    trainer = make_trainer(tmp_path)
    before = [core.clone() for core in module.embeddings[0].cores]
    trainer.fit(module, data)
    assert not any(
        torch.equal(*pair) for pair in zip(before, module.embeddings[0].cores, strict=True)
    )
    assert trainer.test(module, data, verbose=False)[0]["test_auroc"] > 0.7


def test_tensor_trains_that_are_alike_are_asked_together(data, monkeypatch):
    module, batch = make_dlrm(data), data.rows.batch(slice(0, 20))
    Tensorize(tables="largest:4", rank=4, verbose=False).replace(module)
    full = make_dlrm(data)
    full.load_state_dict(
        {key: value for key, value in module.state_dict().items() if "cores" not in key},
        strict=False,
    )
    asked = []
    for k, table in enumerate(module.embeddings):
        if isinstance(table, TTEmbedding):
            full.embeddings[k].weight.data = table.full_weight().detach()
    kernel = joined_lookup.tt_lookup
    monkeypatch.setattr(
        joined_lookup, "tt_lookup", lambda *args: (asked.append(args), kernel(*args))[1]
    )
    torch.testing.assert_close(module(*batch[:2]), full(*batch[:2]))
    assert [args[0].shape for args in asked] == [(20, 4)]


@pytest.mark.parametrize("trains", [False, True])
def test_exports_and_compiles_whole(trains, data):
    module, batch = make_dlrm(data).eval(), data.rows.batch(slice(0, 7))
    if trains:
        Tensorize(tables="largest:2", rank=2, verbose=False).replace(module)
    given = (batch.dense, batch.sparse)
    exported = torch.export.export(module, given).module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for same in (exported, compiled):
        torch.testing.assert_close(same(*given), module(*given))


def test_rows_without_numbers(tmp_path):
    data = LibFMDataModule(batch_size=500)
    module, batch = make_dlrm(data), data.rows.batch(slice(0, 5))
    assert module.bottom is None
    vectors = [
        table.weight[row] for table, row in zip(module.embeddings, batch.sparse.T, strict=True)
    ]
    pairs = [(vectors[i] * vectors[j]).sum(1) for i in range(26) for j in range(i)]
    expected = module.top(torch.cat([sum(vectors), torch.stack(pairs, 1)], 1)).squeeze(1)
    torch.testing.assert_close(module(batch.dense, batch.sparse), expected)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    assert trainer.test(module, data, verbose=False)[0]["test_auroc"] > 0.6


@pytest.mark.parametrize("deferred", [False, True])
def test_checkpoint_loads_by_itself(deferred, data, tmp_path):
    module, trainer = make_dlrm(data, defer_tables=deferred), make_trainer(tmp_path)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = DLRM.load_from_checkpoint(tmp_path / "model.ckpt")
    batch = data.rows.batch(slice(0, 5))
    assert torch.equal(loaded(*batch[:2]), module(*batch[:2]))


@pytest.mark.parametrize("deferred", [False, True])
def test_checkpoint_with_tensor_trains_loads_by_itself(deferred, data, tmp_path):
    module = make_dlrm(data, defer_tables=deferred)
    trainer = make_trainer(tmp_path, callbacks=[Tensorize(tables="largest:3", rank=4)])
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = DLRM.load_from_checkpoint(tmp_path / "model.ckpt")
    batch = data.rows.batch(slice(0, 5))
    assert torch.equal(loaded(*batch[:2]), module(*batch[:2]))
    again = make_dlrm(data, seed=1, defer_tables=deferred)
    scores = make_trainer(tmp_path).predict(again, data, ckpt_path=tmp_path / "model.ckpt")
    torch.testing.assert_close(scores[0][:5], module.predict_step(batch, 0).detach())


def test_an_error_before_deferred_tables_are_made_is_the_one_reported(data, tmp_path):
    trainer = make_trainer(tmp_path, callbacks=[Tensorize(["nope"], rank=2)])
    with pytest.raises(ValueError, match="nope"):
        trainer.fit(make_dlrm(data, defer_tables=True), data)


def test_deferred_tables_are_made_as_others(data, tmp_path):
    now, later = make_dlrm(data), make_dlrm(data, defer_tables=True)
    batch = data.rows.batch(slice(0, 5))
    with pytest.raises(ValueError, match=r"defer_tables=True: .* load a state, or call setup\('"):
        later(*batch[:2])
    later.setup("fit")
    for one, other in zip(now.embeddings, later.embeddings, strict=True):
        assert one.weight.shape == other.weight.shape
        bound = one.num_embeddings**-0.5
        assert 0.5 * bound < other.weight.abs().max() <= bound
    made = later.embeddings[0].weight
    later.setup("test")
    assert later.embeddings[0].weight is made
    later(*batch[:2])


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("largest", [0, 3])
def test_deferred_tables_are_made_of_a_state(largest, assign, data):
    trained, batch = make_dlrm(data), data.rows.batch(slice(0, 5))
    if largest:
        callback = Tensorize(tables=f"largest:{largest}", rank=4, order="frequency", verbose=False)
        callback.replace(trained, datamodule=data)
    for wrap in (lambda module: module, nn.Sequential):
        later = make_dlrm(data, seed=1, defer_tables=True)
        wrap(later).load_state_dict(wrap(trained).state_dict(), assign=assign)
        assert torch.equal(later(*batch[:2]), trained(*batch[:2]))
        later.setup("fit")
        assert torch.equal(later(*batch[:2]), trained(*batch[:2]))
        names = [name for name, _ in trained.named_parameters()]
        assert [name for name, _ in later.named_parameters()] == names


def test_deferred_tables_that_a_state_lacks_are_made_later(data):
    trained, later = make_dlrm(data), make_dlrm(data, seed=1, defer_tables=True)
    state = trained.state_dict()
    del state["embeddings.2.weight"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"embeddings\.2\.weight"'):
        later.load_state_dict(state)
    later.load_state_dict(state, strict=False)
    assert [table.weight.is_meta for table in later.embeddings].index(True) == 2
    later.setup("fit")
    assert torch.equal(later.embeddings[1].weight, trained.embeddings[1].weight)
    assert 0 < later.embeddings[2].weight.abs().max() <= data.num_embeddings[2] ** -0.5
    other = make_dlrm(data, embedding_dim=4, defer_tables=True)
    with pytest.raises(RuntimeError, match=r"size mismatch for embeddings\.0\.weight"):
        other.load_state_dict(trained.state_dict())
    assert all(table.weight.is_meta for table in other.embeddings)


def test_deferred_tables_that_become_tensor_trains_never_take_memory(data, tmp_path):
    sizes = [2**31 + 7, *data.num_embeddings[1:]]  # 64 GB
    module = DLRM(sizes, data.num_dense, **SMALL, sparse=True, defer_tables=True)
    tensorize = Tensorize(["embeddings.0", "embeddings.1"], rank=2)
    make_trainer(tmp_path, callbacks=[tensorize]).fit(module, data)
    batch = data.rows.batch(slice(0, 5))
    batch.sparse[0, 0] = 2**31 + 6
    assert module(*batch[:2]).isfinite().all()
    fresh = make_dlrm(data, defer_tables=True)
    Tensorize(["embeddings.1"], rank=4).replace(fresh)
    spread = fresh.embeddings[1].full_weight().square().mean().sqrt()
    assert 0.5 < spread * (3 * data.num_embeddings[1]) ** 0.5 < 2
    with pytest.raises(ValueError, match="start='table': the table is on the device 'meta'"):
        Tensorize(["embeddings.2"], start="table").replace(fresh)


def test_command_line(tmp_path):
    rows = CriteoDataModule().num_embeddings
    CompressCLI(
        {
            "subcommand": "fit",
            "fit": {
                "model": {
                    "class_path": "lit_gnncompress.models.DLRM",
                    "init_args": {"num_embeddings": rows, **SMALL},
                },
                "data": {
                    "class_path": "lit_gnncompress.data.CriteoDataModule",
                    "init_args": {"name": "clicks", "hash_buckets": [3] * 26},
                },
                "trainer": {"fast_dev_run": True, "accelerator": "cpu"},
            },
        }
    )


@pytest.mark.parametrize("field", [0, 25])
@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_categories_without_a_row_are_named(field, wrong, data):
    batch = data.rows.batch(slice(0, 3))
    batch.sparse[1, field] = wrong
    rows = data.num_embeddings[field]
    message = (
        rf"field {field} has category {wrong}, but embeddings.{field} has rows 0 to {rows - 1}"
    )
    with pytest.raises(IndexError, match=message):
        make_dlrm(data)(batch.dense, batch.sparse)


def test_rows_of_another_width_are_refused(data):
    batch, module = data.rows.batch(slice(0, 3)), make_dlrm(data)
    with pytest.raises(ValueError, match=r"dense has shape \(3, 12\), .* made for \(B, 13\)"):
        module(batch.dense[:, 1:], batch.sparse)
    with pytest.raises(ValueError, match=r"sparse has shape \(3, 25\), .* made for \(B, 26\)"):
        module(batch.dense, batch.sparse[:, 1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_embeddings": []}, r"num_embeddings is empty"),
        ({"num_embeddings": [3, 0]}, r"num_embeddings=\[3, 0\]: each must be at least 1"),
        ({"embedding_dim": 0}, r"embedding_dim=\[0\]: each must"),
        ({"bottom_mlp": [0]}, r"bottom_mlp=\[0\]"),
        ({"top_mlp": [-1]}, r"top_mlp=\[-1\]"),
        ({"num_dense": -1}, r"num_dense=-1 must be at least 0"),
        ({"sizes": "huge"}, r"sizes='huge' is unknown: choose one of kaggle, terabyte, mlperf"),
        ({"optimizer": "lamb"}, r"optimizer='lamb' is unknown: choose one of sgd, adagrad, adam"),
        ({"sparse": True, "optimizer": "adam"}, r"Adam moves every row in every step. Choose"),
        ({"num_embeddings": 100}, r"num_embeddings=100 must be a sequence, .* data.num_embeddings"),
        ({"num_embeddings": [3.5]}, r"num_embeddings=\[3.5\]: each must be a whole number"),
        ({"embedding_dim": "8"}, r"embedding_dim=\['8'\]: each must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DLRM(**{"num_embeddings": [3, 4], **arguments})
