import itertools

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GAT, GCN

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import CompressActivations, QuantizationFinetuning
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from tests.callbacks.tiny import (
    Tiny,
    fit,
    make_graph,
    make_module,
    make_trainer,
    quantize,
    same,
    weights_of,
)


def compress(bits=4, min_elements=0):
    return CompressActivations(bits, min_elements)


def make_net(kind=GCN, **options):
    torch.manual_seed(0)
    heads = {"heads": 4} if kind is GAT else {}
    return kind(8, 16, 2, 3, dropout=0.3, **heads, **options)


def fitted(*callbacks, seed=0, max_epochs=3, net=GCN, graph=None, **arguments):
    L.seed_everything(seed, verbose=False)
    module = Tiny(make_net(net))
    L.seed_everything(seed, verbose=False)
    fit(make_trainer(*callbacks, max_epochs=max_epochs, **arguments), module, graph)
    return module


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("net", [GCN, GAT])
def test_training_reaches_the_accuracy_of_full_precision(net, bits):
    graph = make_graph(200)

    def accuracy(*callbacks):
        module = fitted(*callbacks, max_epochs=40, net=net, graph=graph).eval()
        with torch.no_grad():
            return (module(graph).argmax(1) == graph.y)[~graph.train_mask].float().mean()

    exact = accuracy()
    assert exact > 0.75
    assert accuracy(compress(bits)) >= exact - 0.05


@pytest.mark.parametrize("net", [GCN, GAT])
def test_one_step_at_eight_bits_is_close_and_at_one_bit_is_not(net):
    def gradients(*callbacks):
        module = Tiny(make_net(net), optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
        start = weights_of(module)
        torch.manual_seed(5)  # dropout
        fit(make_trainer(*callbacks, max_epochs=1), module)
        end = weights_of(module)
        return torch.cat([(end[name] - start[name]).flatten() for name in start])

    exact = gradients()
    far = [(gradients(compress(bits)) - exact).norm() / exact.norm() for bits in (8, 4, 1)]
    assert 0 < far[0] < 0.02 < far[2]
    assert far[0] < far[1] < far[2]


def test_evaluation_and_the_forward_pass_are_untouched():
    class Watch(L.Callback):
        def __init__(self):
            self.losses = []

        def on_validation_batch_start(self, trainer, pl_module, batch, *_):
            with torch.enable_grad():
                hidden = pl_module.net.convs[0](batch.x, batch.edge_index)
                out = hidden.exp()
            assert out.grad_fn._saved_result.equal(out)

        def on_train_batch_end(self, trainer, pl_module, outputs, *_):
            self.losses.append(outputs["loss"].item())

    plain, compressed = Watch(), Watch()
    fitted(plain, max_epochs=1)
    module = fitted(compressed, compress(1), max_epochs=1)
    assert plain.losses == compressed.losses
    assert "training_step" not in vars(module)


def test_bytes_are_counted_and_logged():
    graph = make_graph(400)
    full, kept = {}, {}
    for bits in (8, 4, 2):
        callback = CompressActivations(bits)
        module = Tiny(make_net())
        trainer = make_trainer(callback, max_epochs=2)
        fit(trainer, module, graph)
        full[bits], kept[bits] = callback.full_bytes, callback.kept_bytes
        assert trainer.callback_metrics["activations/saved_bytes"] == kept[bits]
        assert trainer.callback_metrics["activations/fp32_bytes"] == full[bits]
    assert full[8] == full[4] == full[2]
    assert kept[2] < kept[4] < kept[8] < full[8] / 2


def test_features_of_the_batch_and_weights_stay():
    callback = compress(1)
    module = Tiny(torch.nn.Linear(8, 3))
    module.forward = lambda batch: module.net(batch.x)
    graph = make_graph()
    fit(make_trainer(callback, max_epochs=1), module, graph)
    nodes = int(graph.train_mask.sum())
    # Of the loss: log-probabilities of the training nodes, the number of them, and the mask.
    assert callback.full_bytes <= nodes * 3 * 4 + 4 + 40


# --- the same twice -------------------------------------------------------------------------------


def test_the_same_fit_twice_gives_the_same_weights_and_another_seed_does_not():
    first, again, other = (weights_of(fitted(compress(2), seed=seed)) for seed in (7, 7, 8))
    assert same(first, again)
    assert not same(first, other)
    assert not same(first, weights_of(fitted(seed=7)))


def test_rounding_differs_from_step_to_step():
    callback = compress(1)
    seeds = []
    original = type(callback._compressor).forward

    def forward(self, parameters, inputs, seed):
        seeds.append(seed)
        return original(self, parameters, inputs, seed)

    callback._compressor.forward = forward.__get__(callback._compressor)
    loader = DataLoader([make_graph(seed=s) for s in range(3)])
    module = make_module()
    L.seed_everything(3, verbose=False)
    make_trainer(callback, max_epochs=2).fit(module, loader, loader)
    assert seeds == [(3, 0, epoch, batch, 1) for epoch in range(2) for batch in range(3)]


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_resumed_fit_ends_where_the_uninterrupted_one_does(epoch, tmp_path):
    def run(folder, **arguments):
        callbacks = [compress(2), ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)]
        trainer = make_trainer(*callbacks, max_epochs=5, enable_checkpointing=True)
        module = make_module(optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
        return weights_of(fit(trainer, module, **arguments)), callbacks[0]

    torch.manual_seed(11)
    whole, _ = run(tmp_path / "whole")
    torch.manual_seed(12)  # the checkpoint's seed counts
    resumed, callback = run(tmp_path / "new", ckpt_path=tmp_path / f"whole/epoch={epoch}.ckpt")
    assert same(whole, resumed)
    fit(make_trainer(callback, max_epochs=1), make_module())
    assert callback.state_dict() == {"seed": 1}  # a new fit has a seed of its own


# --- other ways to train --------------------------------------------------------------------------


class Manual(Tiny):
    """Two optimizers, each with its forward and backward pass; one ``save_on_cpu`` inside."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        with torch.autograd.graph.save_on_cpu():
            aside = self(batch).logsumexp(1).mean()
        self.manual_backward(0 * aside)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            nodes = batch.train_mask
            loss = F.cross_entropy(self(batch)[nodes], batch.y[nodes])
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        halves = [list(conv.parameters()) for conv in self.net.convs]
        return [torch.optim.SGD(half, lr=0.1) for half in halves]


def test_manual_optimization_works():
    graph, callback = make_graph(), compress(8)

    def run(*callbacks):
        return weights_of(fit(make_trainer(*callbacks, max_epochs=3), Manual(make_net()), graph))

    torch.manual_seed(0)
    exact = run()
    torch.manual_seed(0)
    found = run(callback)
    assert not same(exact, found)
    assert all(torch.allclose(exact[name], found[name], atol=0.02) for name in exact)
    assert 0 < callback.kept_bytes < callback.full_bytes


def test_a_closure_that_runs_often_is_compressed_each_time():
    counts = []

    class Counting(Tiny):
        def training_step(self, batch, batch_idx):
            counts.append(callback.kept_bytes)
            return super().training_step(batch, batch_idx)

    callback = compress(8)
    module = Counting(GCN(8, 16, 2, 3), optimizer=lambda p: torch.optim.LBFGS(p, max_iter=3))
    fit(make_trainer(callback, max_epochs=1), module)
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert len(steps) >= 2
    assert len(set(steps)) == 1
    assert steps[0] > 0


def test_gradients_accumulate():
    loader = DataLoader([make_graph(seed=s) for s in range(4)])
    callback = compress(4)
    trainer = make_trainer(callback, max_epochs=1, accumulate_grad_batches=2)
    trainer.fit(make_module(), loader, loader)
    assert trainer.global_step == 2
    assert callback.kept_bytes > 0


def test_mixed_precision():
    callback = compress(8)
    module = fitted(callback, max_epochs=2, precision="bf16-mixed")
    assert all(value.isfinite().all() for value in weights_of(module).values())
    assert callback.kept_bytes < callback.full_bytes


def test_a_compiled_network_keeps_what_it_saves():
    callback = compress(1)
    module = Tiny(make_net())
    module.net.compile(backend="aot_eager")
    torch.manual_seed(0)
    fit(make_trainer(callback, max_epochs=2), module)
    plain = Tiny(make_net())
    plain.net.compile(backend="aot_eager")
    torch.manual_seed(0)
    fit(make_trainer(max_epochs=2), plain)
    for name, value in weights_of(plain).items():
        assert torch.allclose(weights_of(module)[name], value, atol=0.02)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("net", [GCN, GAT])
def test_it_goes_with_quantization_and_its_fine_tuning(net, packed):
    plan = BitPlan(features=8, attention=8 if net is GAT else 32)
    graph = make_graph(200)

    def run(*more):
        quantization = quantize(plan, packed=packed)
        finetuning = QuantizationFinetuning(start_epoch=20, monitor="val_loss", mode="min")
        module = fitted(
            quantization, finetuning, *more, max_epochs=40, net=net, graph=graph.clone()
        )
        trainer = make_trainer(quantization)
        loader = FullGraphLoader(graph.clone())
        return trainer.test(module, loader, verbose=False)[0]["test_acc"], quantization.ledger

    callback = compress(8)
    (exact, ledger), (found, same_ledger) = run(), run(callback)
    assert exact > 0.75
    assert abs(found - exact) <= 0.05
    assert [row.bits for row in ledger.rows] == [row.bits for row in same_ledger.rows]
    assert 0 < callback.kept_bytes < callback.full_bytes


# --- around the fit -------------------------------------------------------------------------------


def test_the_training_step_comes_back_after_an_error():
    class Broken(Tiny):
        def training_step(self, batch, batch_idx):
            raise ZeroDivisionError

    module = Broken()
    with pytest.raises(ZeroDivisionError):
        fit(make_trainer(compress(4), max_epochs=1), module)
    assert "training_step" not in vars(module)
    x = torch.rand(60, 60, requires_grad=True)
    assert x.exp().grad_fn._saved_result.equal(x.exp())  # no hooks are left


def test_a_step_of_the_object_comes_back():
    module = make_module()
    own = module.training_step
    module.training_step = own
    fit(make_trainer(compress(4), max_epochs=1), module)
    assert vars(module)["training_step"] is own


@pytest.mark.parametrize("bits", [0, 9, 2.5])
def test_bits_outside_one_to_eight_are_refused(bits):
    with pytest.raises(MisconfigurationException, match="1 to 8 bits"):
        CompressActivations(bits)


def test_a_negative_size_is_refused():
    with pytest.raises(MisconfigurationException, match="min_elements=-1"):
        CompressActivations(4, -1)


def test_two_of_them_are_refused():
    class Another(CompressActivations):
        pass

    with pytest.raises(MisconfigurationException, match="two CompressActivations"):
        fit(make_trainer(compress(4), Another(2)), make_module())
    with pytest.raises(RuntimeError, match=r"more than one.*CompressActivations"):
        make_trainer(compress(4), compress(2))


def test_strategies_that_shard_are_refused():
    trainer = make_trainer()
    trainer.strategy.__class__ = type(
        "Sharding", (L.pytorch.strategies.FSDPStrategy,), {"__init__": None}
    )
    with pytest.raises(MisconfigurationException, match="Sharding"):
        compress(4).setup(trainer, make_module(), "fit")
