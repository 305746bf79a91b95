import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_gnncompress import BitPlan, compare_by_seed
from lit_gnncompress.callbacks import QuantizationFinetuning
from lit_gnncompress.data.full_graph_loader import FullGraphLoader
from lit_gnncompress.storage import PackedTensor
from tests.callbacks.tiny import Tiny, make_graph, make_trainer, quantize, weights_of


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TinyData(LightningDataModule):
    def train_dataloader(self):
        return FullGraphLoader(make_graph(60))

    val_dataloader = test_dataloader = train_dataloader


class GraphData(LightningDataModule):
    """A graph that stays, and can be packed."""

    def __init__(self):
        super().__init__()
        self.data = make_graph(60)

    def train_dataloader(self):
        return FullGraphLoader(self.data)

    val_dataloader = test_dataloader = train_dataloader


class Problem:
    """Builds for compare_by_seed, and keeps what it built."""

    def __init__(self, *leave_out, plan=None, **finetuning):
        self.leave_out, self.plan = leave_out, plan or BitPlan(features=1)
        self.finetuning = finetuning or {"start_epoch": 2, "monitor": "val_loss", "mode": "min"}
        self.built, self.tested = [], []

    def __call__(self):
        callbacks = [quantize(self.plan), QuantizationFinetuning(**self.finetuning)]
        callbacks = [c for c in callbacks if not isinstance(c, self.leave_out)]
        module = Tiny()
        module.on_test_start = lambda: self.tested.append(weights_of(module))
        self.built.append((make_trainer(*callbacks, max_epochs=5), module, weights_of(module)))
        return *self.built[-1][:2], TinyData()


def test_seeds_are_paired_and_both_metrics_are_of_their_weights():
    problem, shown = Problem(), []
    comparison = compare_by_seed(problem, [3, 7], on_result=shown.append)
    assert [result.seed for result in comparison.results] == [3, 7]
    assert shown == comparison.results
    for result, (trainer, module, _) in zip(comparison.results, problem.built, strict=True):
        callback, finetuning = trainer.callbacks[:2]
        graph = make_graph(60)
        module.eval()
        module.load_state_dict(finetuning.full_precision_weights)
        callback.enabled = False
        with torch.no_grad():
            full_precision = (module(graph).argmax(1) == graph.y).float().mean()
            module.load_state_dict(finetuning._best_weights)
            callback.enabled = True
            quantized = (module(graph).argmax(1) == graph.y).float().mean()
        assert result.full_precision == pytest.approx(full_precision.item())
        assert result.quantized == pytest.approx(quantized.item())
        assert result.epochs == 5
    assert comparison.plan == problem.plan
    assert comparison.ledger.average_bits == 1


def test_seeds_differ_and_repeat():
    first, second = Problem(), Problem()
    results = compare_by_seed(first, [0, 1]).results
    assert compare_by_seed(second, [1, 0]).results == results[::-1]
    start = [weights["net.convs.0.lin.weight"] for _, _, weights in first.built + second.built]
    assert torch.equal(start[0], start[3])
    assert not torch.equal(start[0], start[1])


def test_a_plan_at_full_precision_gives_no_difference_without_fine_tuning():
    # One epoch, which only measures: the same weights twice.
    plan = BitPlan(features={"convs.0": 32, "convs.1": 32})
    problem = Problem(plan=plan, start_epoch=4, monitor="val_loss", mode="min")
    delta = compare_by_seed(problem, range(3)).delta
    assert (delta.mean, delta.ci95) == (0, 0)


@pytest.mark.parametrize("missing", ["Quantize", "QuantizationFinetuning"])
def test_a_trainer_without_the_callbacks_is_refused(missing):
    from lit_gnncompress import callbacks

    with pytest.raises(MisconfigurationException, match=f"needs a {missing} callback"):
        compare_by_seed(Problem(getattr(callbacks, missing)), [0])


def test_an_unknown_metric_is_refused_with_those_that_are_logged():
    with pytest.raises(MisconfigurationException, match=r"'test_f1'.*Logged are: .*test_acc"):
        compare_by_seed(Problem(), [0], metric="test_f1")


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="seeds is empty"):
        compare_by_seed(Problem(), [])


@pytest.mark.filterwarnings("ignore:The fit ended before")
def test_a_fit_that_never_turns_is_refused():
    problem = Problem(start="best", patience=100, monitor="val_loss", mode="min")
    with pytest.raises(MisconfigurationException, match="ended before the quantized phase"):
        compare_by_seed(problem, [0])


@pytest.mark.parametrize("shared", [False, True])
def test_full_precision_means_the_inputs_as_they_were_also_where_they_are_packed(shared, recwarn):
    """At a learning rate of 0 both are of the weights that the module began with."""
    together, expected, phases = GraphData(), [], []
    graph = make_graph(60)

    def build():
        module = Tiny(optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        with torch.no_grad():
            expected.append((module(graph).argmax(1) == graph.y).float().mean().item())
        finetuning = QuantizationFinetuning(start_epoch=2, monitor="val_loss", mode="min")
        data = together if shared else GraphData()
        module.on_train_epoch_start = lambda: phases.append(type(data.data.x))
        trainer = make_trainer(quantize(1, packed=True), finetuning, max_epochs=4)
        return trainer, module, data

    results = compare_by_seed(build, range(3)).results
    assert [result.full_precision for result in results] == pytest.approx(expected)
    assert any(result.quantized != result.full_precision for result in results)
    assert phases == [torch.Tensor, torch.Tensor, torch.Tensor, PackedTensor] * 3
    assert torch.equal(together.data.x, graph.x)
    assert not [each for each in recwarn if "come packed" in str(each.message)]


def test_inputs_are_put_back_where_a_comparison_fails():
    together = GraphData()

    def build():
        finetuning = QuantizationFinetuning(start_epoch=1, monitor="val_loss", mode="min")
        return make_trainer(quantize(1, packed=True), finetuning, max_epochs=3), Tiny(), together

    with pytest.raises(MisconfigurationException, match="test_f1"):
        compare_by_seed(build, [0], metric="test_f1")
    assert type(together.data.x) is torch.Tensor
