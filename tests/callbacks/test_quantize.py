import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch_geometric.nn import GAT, GCN, Sequential

from lit_gnncompress import BitPlan
from lit_gnncompress.callbacks import Quantize
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from tests.callbacks.tiny import (
    CONVS,
    Tiny,
    fit,
    make_graph,
    make_module,
    make_trainer,
    quantize,
    same,
    weights_of,
)


def fp32_output(module, graph, callback):
    callback.enabled = False
    with torch.no_grad():
        output = module(graph)
    callback.enabled = True
    return output


def test_fit_quantizes_and_the_ledger_has_every_layer():
    callback, graph = quantize(2), make_graph()
    module = fit(make_trainer(callback), make_module(), graph)
    assert [row.site for row in callback.ledger.rows] == CONVS
    assert {row.bits for row in callback.ledger.rows} == {2}
    assert callback.ledger.average_bits == 2
    with torch.no_grad():
        assert not torch.equal(module(graph), fp32_output(module, graph, callback))


def test_the_plan_changes_what_is_learned():
    learned = [weights_of(fit(make_trainer(quantize(b)), make_module())) for b in (1, 32)]
    assert not same(*learned)
    assert same(learned[1], weights_of(fit(make_trainer(), make_module())))


@pytest.mark.parametrize("new_trainer", [False, True])
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_every_stage_after_a_fit_is_quantized(stage, new_trainer):
    callback, graph, module = quantize(1), make_graph(), make_module()
    trainer = make_trainer(callback)
    fit(trainer, module, graph)
    trainer = make_trainer(callback) if new_trainer else trainer
    seen = []
    hook = module.net.register_forward_hook(lambda net, args, output: seen.append(output))
    getattr(trainer, stage)(module, FullGraphLoader(graph))
    hook.remove()
    module.eval()
    assert not torch.equal(seen[0], fp32_output(module, graph, callback))
    with torch.no_grad():
        assert torch.equal(seen[0], module(graph))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_module_that_was_never_fitted_is_quantized_too(stage):
    callback, graph, module = quantize(1), make_graph(), make_module()
    getattr(make_trainer(callback), stage)(module, FullGraphLoader(graph))
    assert callback.ledger.average_bits == 1


def test_bits_and_saving_are_logged_in_fit_and_test():
    callback, graph, module = quantize(4), make_graph(), make_module()
    trainer = make_trainer(callback)
    fit(trainer, module, graph)
    assert trainer.callback_metrics["quant/avg_bits"] == 4
    assert trainer.callback_metrics["quant/saving"] == pytest.approx(callback.ledger.saving_real)
    logged = trainer.test(module, FullGraphLoader(graph), verbose=False)[0]
    assert logged["quant/avg_bits"] == 4
    assert logged["quant/saving"] == pytest.approx(callback.ledger.saving_real)


def test_the_table_is_printed_once_after_fit_and_once_after_test(capsys):
    callback, graph, module = quantize(4, verbose=True), make_graph(), make_module()
    trainer = make_trainer(callback, max_epochs=3)
    fit(trainer, module, graph)
    assert capsys.readouterr().out.count("Bytes of features") == 1
    trainer.test(module, FullGraphLoader(graph), verbose=False)
    assert capsys.readouterr().out.count("Bytes of features") == 1
    callback.verbose = False
    trainer.test(module, FullGraphLoader(graph), verbose=False)
    assert "Bytes" not in capsys.readouterr().out


def test_a_module_built_in_configure_model_is_quantized_and_trained():
    class Late(Tiny):
        def __init__(self):
            super().__init__(net=torch.nn.Identity())
            self.net = None

        def configure_model(self):
            if self.net is None:
                self.net = GCN(8, 16, 2, 3)

    callback, module = quantize(1), Late()
    trainer = make_trainer(callback)
    fit(trainer, module)
    assert callback.ledger.average_bits == 1
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.parameters()}
    assert trained


class MadeInSetup(Tiny):
    """Makes its network, or a head, in ``setup``."""

    def __init__(self, net=None):
        super().__init__(net=torch.nn.Identity() if net is None else net)

    def setup(self, stage):
        if isinstance(self.net, torch.nn.Identity):
            self.net = GCN(8, 16, 2, 3)
        self.head = torch.nn.Linear(3, 3)


@pytest.mark.parametrize("call", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("net", [None, GCN(8, 16, 2, 3)], ids=["all", "some"])
def test_layers_that_are_made_in_setup_come_too_late(net, call):
    module, loader = MadeInSetup(net), FullGraphLoader(make_graph())
    where = "no message-passing layer" if net is None else "^head: not quantized"
    message = f"{where}.*MadeInSetup.setup makes come too late.*in __init__ or configure_model"
    with pytest.raises((ValueError, MisconfigurationException), match=message):
        getattr(make_trainer(quantize(4)), call)(module, loader)


def test_a_setup_may_wrap_what_is_there():
    class Wrapping(Tiny):
        def setup(self, stage):
            self.net = Sequential("x, e", [(self.net, "x, e -> x")])

    callback = quantize(4)
    fit(make_trainer(callback), Wrapping())
    assert callback.ledger.average_bits == 4


def test_a_second_plan_replaces_the_first():
    first, second, module = quantize(1), quantize(8), make_module()
    fit(make_trainer(first), module)
    fit(make_trainer(second), module)
    assert len(second.quantization.sites) == 2
    assert second.ledger.average_bits == 8
    fit(make_trainer(first), module)  # and back
    assert first.ledger.average_bits == 1


def test_one_callback_may_serve_two_modules():
    callback, graph = quantize(1), make_graph()
    for module in (make_module(), make_module()):
        fit(make_trainer(callback), module, graph)
        with torch.no_grad():
            assert not torch.equal(module(graph), fp32_output(module, graph, callback))


def test_remove_gives_the_module_back():
    callback, graph, module = quantize(1), make_graph(), make_module()
    hooks = [len(m._forward_pre_hooks) for m in module.modules()]
    names = list(module.state_dict())
    fit(make_trainer(callback), module, graph)
    expected = fp32_output(module, graph, callback)
    callback.remove()
    assert [len(m._forward_pre_hooks) for m in module.modules()] == hooks
    assert list(module.state_dict()) == names
    with torch.no_grad():
        assert torch.equal(module(graph), expected)
    assert callback.ledger.rows == []
    with pytest.raises(RuntimeError, match="no module yet"):
        callback.quantization.remove()


def test_after_a_fit_the_module_can_be_called_on_another_graph():
    plan = BitPlan(features=[8, 2], degree_splits=[4])
    callback, other = quantize(plan), make_graph(30, seed=5)
    module = make_module()
    make_trainer(callback).fit(module, FullGraphLoader(make_graph(60)))
    module(other)
    assert sum(row.rows for row in callback.ledger.rows if row.site == CONVS[0]) == 30


def test_bf16_mixed_precision_trains():
    callback = quantize(4)
    trainer = make_trainer(callback, precision="bf16-mixed")
    before = weights_of(module := make_module())
    fit(trainer, module)
    assert not same(before, weights_of(module))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert callback.ledger.average_bits == 4


def test_a_compiled_network_learns_the_same():
    torch._dynamo.reset()
    eager, compiled = make_module(), make_module()
    compiled.net = torch.compile(compiled.net, backend="aot_eager")
    for module in (eager, compiled):
        fit(make_trainer(quantize(2)), module)
    for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    torch._dynamo.reset()


@pytest.mark.parametrize("bits", [2, [4, 1]])
def test_attention_is_quantized_in_fit(bits):
    net = GAT(8, 16, 2, 3, heads=2)
    callback = quantize(BitPlan(features=4, attention=bits, degree_splits=[5] * (bits != 2)))
    fit(make_trainer(callback), make_module(net=net))
    of_attention = [row.bits for row in callback.ledger.rows if row.component == "attention"]
    assert of_attention == ([2, 2] if bits == 2 else [4, 1, 4, 1])


# --- errors -------------------------------------------------------------------------------------


class TwoOfThem(Quantize):
    state_key = "another"


def test_two_plans_in_one_trainer_are_refused():
    trainer = make_trainer(quantize(), TwoOfThem(BitPlan(features=4)))
    with pytest.raises(MisconfigurationException, match="two Quantize callbacks"):
        fit(trainer, make_module())


@pytest.mark.parametrize("strategy", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_shard_modules_are_refused(strategy):
    trainer = make_trainer(callback := quantize())
    trainer.strategy.__class__ = type(strategy.__name__, (strategy,), {})
    with pytest.raises(MisconfigurationException, match=rf"{strategy.__name__}.*strategy='ddp'"):
        callback.setup(trainer, make_module(), "fit")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (BitPlan(features={"convs.7": 4}), r"'convs.7'.*no such layer.*net\.convs\.1"),
        (BitPlan(features=4, attention=8), "no attention layer"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_training(plan, message):
    with pytest.raises(ValueError, match=message):
        fit(make_trainer(quantize(plan)), make_module())


def test_a_plan_as_a_dict_is_refused():
    with pytest.raises(TypeError, match=r"is a dict: give a BitPlan"):
        Quantize({"features": 4})


def test_a_module_without_graph_layers_is_refused():
    with pytest.raises(ValueError, match="no message-passing layer"):
        fit(make_trainer(quantize()), make_module(net=torch.nn.Linear(8, 3)))


def test_features_that_are_not_finite_are_named():
    graph = make_graph()
    graph.x[3, 5] = float("nan")
    with pytest.raises(ValueError, match=r"net\.convs\.0: .*row 3, column 5 is nan"):
        fit(make_trainer(quantize()), make_module(), graph)


def test_an_empty_graph_is_refused():
    graph = make_graph().subgraph(torch.zeros(40, dtype=torch.bool))
    with pytest.raises(ValueError, match="no nodes"):
        make_trainer(quantize()).predict(make_module(), FullGraphLoader(graph))


def test_before_a_fit_there_is_no_quantization():
    assert quantize().ledger.rows == []
    with pytest.raises(RuntimeError, match=r"Trainer\.fit or test"):
        _ = quantize().quantization
