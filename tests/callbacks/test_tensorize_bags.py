"""Tables of bags, as in deep learning recommendation models of other people."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_gnncompress.callbacks import Tensorize
from lit_gnncompress.embedding import TTEmbeddingBag
from tests.callbacks.tiny import make_trainer, same, weights_of

SIZES, WIDTH = (400, 30, 900), 8


class Clicks(L.LightningModule):
    """Sums bags of categories of several fields, as ``facebookresearch/dlrm`` does."""

    def __init__(self, sparse=True, **arguments):
        super().__init__()
        self.emb_l = nn.ModuleList(
            nn.EmbeddingBag(size, WIDTH, mode="sum", sparse=sparse, **arguments) for size in SIZES
        )
        self.top = nn.Linear(len(SIZES) * WIDTH, 1)

    def forward(self, indices, offsets):
        bags = zip(self.emb_l, indices, offsets, strict=True)
        vectors = [table(*bag, per_sample_weights=None) for table, *bag in bags]
        return self.top(torch.cat(vectors, dim=1)).squeeze(1)

    def training_step(self, batch, batch_idx):
        return F.binary_cross_entropy_with_logits(self(*batch[:2]), batch[2])

    def predict_step(self, batch, batch_idx):
        return self(*batch[:2])

    def configure_optimizers(self):
        return torch.optim.Adagrad(self.parameters(), lr=0.05)


def batches(count=2, size=16):
    """Bags of none to four categories."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        lengths = [torch.randint(5, (size,), generator=draw) for _ in SIZES]
        indices = [
            torch.randint(rows, (int(length.sum()),), generator=draw)
            for rows, length in zip(SIZES, lengths, strict=True)
        ]
        offsets = [length.cumsum(0) - length for length in lengths]
        made.append((indices, offsets, torch.randint(2, (size,), generator=draw).float()))
    return made


def make_module(seed=0, **arguments):
    torch.manual_seed(seed)
    return Clicks(**arguments)


def loader():
    return torch.utils.data.DataLoader(batches(), batch_size=None)


def test_the_largest_bags_of_another_model_become_tensor_trains():
    module, callback = make_module(), Tensorize(tables="largest:3", rank=4, verbose=False)
    before = weights_of(module)
    trainer = make_trainer(callback, max_epochs=2)
    trainer.fit(module, loader())
    assert [table.name for table in callback.tables] == ["emb_l.2", "emb_l.0"]
    assert [table.name for table in callback.left_dense] == ["emb_l.1"]
    kinds = [type(table) for table in module.emb_l]
    assert kinds == [TTEmbeddingBag, nn.EmbeddingBag, TTEmbeddingBag]
    assert not torch.equal(module.emb_l[1].weight, before["emb_l.1.weight"])
    fresh = make_module()
    Tensorize(tables="largest:3", rank=4, verbose=False).replace(fresh)
    assert not same(weights_of(module), weights_of(fresh))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("arguments", [{}, {"padding_idx": 3}, {"include_last_offset": True}])
def test_bags_stay_what_they_were(mode, arguments):
    torch.manual_seed(0)
    table = nn.EmbeddingBag(60, WIDTH, mode=mode, **arguments)
    module = nn.ModuleList([table]).eval()
    Tensorize(["0"], rank=64, start="table", verbose=False).replace(module)
    indices, offsets = torch.tensor([3, 59, 4, 3, 3, 7]), torch.tensor([0, 2, 2, 4, 6])
    offsets = offsets if table.include_last_offset else offsets[:-1]
    expected = table(indices, offsets)
    torch.testing.assert_close(module[0](indices, offsets), expected, atol=1e-5, rtol=1e-5)
    assert not module[0].training


def test_a_checkpoint_of_full_tables_is_read_as_cores(tmp_path):
    full = make_module()
    trainer = make_trainer(max_epochs=1)
    trainer.fit(full, loader())
    trainer.save_checkpoint(tmp_path / "full.ckpt")
    callback = Tensorize(["emb_l.*"], rank=64, verbose=False)
    module = make_module(seed=1)
    out = make_trainer(callback).predict(module, loader(), ckpt_path=tmp_path / "full.ckpt")
    expected = full.eval()(*batches()[0][:2]).detach()
    torch.testing.assert_close(out[0], expected, atol=1e-4, rtol=1e-4)


def test_a_table_of_bags_and_of_rows_cannot_be_one_train():
    module = nn.ModuleList([nn.EmbeddingBag(60, WIDTH), nn.Embedding(60, WIDTH)])
    module[1].weight = module[0].weight
    with pytest.raises(ValueError, match=r"the table of '0' is also '1.weight'.*untie"):
        Tensorize(["0"], verbose=False).replace(module)
    alike = nn.ModuleList([nn.EmbeddingBag(60, WIDTH), nn.EmbeddingBag(60, WIDTH)])
    alike[1].weight = alike[0].weight
    Tensorize(["0"], verbose=False).replace(alike)
    assert alike[0] is alike[1]
