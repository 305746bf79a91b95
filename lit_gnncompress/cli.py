"""The command line: LightningCLI's fit, validate, test, predict; `compare`, `export`, `pack`."""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import logging
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch_geometric.data import Data

from lit_gnncompress.callbacks.bit_search import BitSearch
from lit_gnncompress.callbacks.finetune import QuantizationFinetuning
from lit_gnncompress.callbacks.quantize import Quantize
from lit_gnncompress.callbacks.trainers import callbacks_of
from lit_gnncompress.compare import SeedResult, compare_by_seed
from lit_gnncompress.embedding import TTEmbeddingBagCollection
from lit_gnncompress.embedding.restored import restore_tables
from lit_gnncompress.embedding.row_table import RowTable
from lit_gnncompress.plan import BitPlan
from lit_gnncompress.report import print_comparison, write_report
from lit_gnncompress.storage.artifact import save_compressed
from lit_gnncompress.storage.streaming import PackedFile, pack_file


class SaveConfigBesideLogs(SaveConfigCallback):
    """Saves the configuration where there is a logger.

    Without one it would go to the working directory, over a ``config.yaml`` of the user's.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves the configuration."""
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


_KNOWN_BY_DATA = (
    "num_features",
    "num_classes",
    "num_nodes",
    "num_users",
    "num_items",
    "num_embeddings",
    "num_dense",
)


class CompressCLI(LightningCLI):
    """LightningCLI that trains a NodeClassifier on a GraphDataModule unless told otherwise.

    Where the model takes sizes that the data know (``in_channels``, ``num_classes``, ``num_nodes``;
    ``num_users``, ``num_items``; ``num_embeddings``, ``num_dense``), they come from these.
    """

    def __init__(self, args: list[str] | dict[str, Any] | None = None, run: bool = True) -> None:
        self._given = sys.argv[1:] if args is None else args
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfigBesideLogs,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=42,
            # `python -m` would call it __main__.py.
            parser_kwargs={"prog": "lit-gnncompress", "description": __doc__},
            args=args,
            run=run,
        )

    def before_instantiate_classes(self) -> None:
        """Refuses a checkpoint that is not there, before anything is made."""
        path = None if self.subcommand is None else self.config[self.subcommand].get("ckpt_path")
        if path not in (None, *_OWN_CHECKPOINTS) and "://" not in path and not Path(path).exists():
            raise FileNotFoundError(f"--ckpt_path {path}: there is no such file.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what the data know to what the model needs."""
        for key, default in (("model", "models.NodeClassifier"), ("data", "data.GraphDataModule")):
            # Another class would inherit the default one's arguments of the same names.
            if not _names_class(self._given, key):
                parser.set_defaults({key: {"class_path": f"lit_gnncompress.{default}"}})
        for name in _KNOWN_BY_DATA:
            of_model = "in_channels" if name == "num_features" else name
            parser.link_arguments(
                f"data.{name}", f"model.init_args.{of_model}", apply_on="instantiate"
            )


_OWN_CHECKPOINTS = ("best", "last", "hpc", "registry")  # which a Trainer finds by itself


def _names_class(given: list[str] | dict[str, Any], key: str) -> bool:
    """Whether a command line, or a configuration that it names, says which class to take."""
    documents: list[Any] = [given] if isinstance(given, dict) else []
    if not isinstance(given, dict):
        for argument, following in itertools.pairwise([*given, ""]):
            name, _, value = argument.partition("=")
            if name in (f"--{key}", f"--{key}.class_path"):
                return True
            if name in ("--config", "-c"):
                with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):  # the parser says so
                    documents.append(yaml.safe_load(_text_of(value or following)))
    documents = [document for document in documents if isinstance(document, dict)]
    # A configuration for the whole program has those of subcommands in it.
    documents += [inner for each in documents for inner in each.values() if isinstance(inner, dict)]
    values = [document.get(key) for document in documents]
    return any(isinstance(v, str) or (isinstance(v, dict) and "class_path" in v) for v in values)


def _text_of(config: str) -> str:
    """The text of a configuration, which is given by its path or as it is."""
    try:
        return Path(config).read_text(encoding="utf-8")
    except OSError:
        return config


def main(args: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        args: Arguments without the program's name; those of the process by default.
    """
    # Of Lightning's own making, and nothing that its users could mend.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    given = list(sys.argv[1:] if args is None else args)
    try:
        if given[:1] == ["compare"]:
            _compare(given[1:])
        elif given[:1] == ["export"]:
            _export(given[1:])
        elif given[:1] == ["pack"]:
            _pack(given[1:])
        else:
            CompressCLI(args)
    except Exception as error:
        cause = _own_error(error)
        if cause is None:
            raise
        sys.exit(f"error: {cause}")


_INPUT_ERRORS = (ValueError, TypeError, ImportError, OSError, MisconfigurationException)


def _own_error(error: BaseException | None) -> BaseException | None:
    """The error that this package raised about its input, if that is what went wrong.

    It says what to do, which the traceback through the parser and the Trainer would bury.
    """
    while error is not None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        origin = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
        if origin.startswith("lit_gnncompress.") and isinstance(error, _INPUT_ERRORS):
            return error
        error = error.__cause__ or error.__context__
    return None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _compare(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lit-gnncompress compare",
        description="Fit once per seed, and compare the best full-precision with the best "
        "quantized weights on the test data. The Trainer of the configuration needs the callbacks "
        "Quantize and QuantizationFinetuning. Further arguments are those of `fit`.",
    )
    parser.add_argument("--config", action="append", default=[], help="as for `fit`; repeatable")
    parser.add_argument("--seeds", type=_positive, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--metric", default="test_acc", help="test metric (default: test_acc)")
    parser.add_argument("--out", default="runs/compare", help="folder of report.json and .png")
    options, of_fit = parser.parse_known_args(args)
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise NotADirectoryError(f"--out {options.out} is a file: give the name of a folder.")
    # Before the other arguments, which override them.
    of_fit = [arg for config in options.config for arg in ("--config", config)] + of_fit

    def build() -> tuple[Trainer, LightningModule, Any]:
        # The seed is set already; a seed of the configuration would make all runs alike.
        cli = CompressCLI([*of_fit, "--seed_everything", "false"], run=False)
        return cli.trainer, cli.model, cli.datamodule

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    console = Console()
    with Progress(console=console) as progress:
        task = progress.add_task("seeds", total=options.seeds)

        def show(result: SeedResult) -> None:
            progress.advance(task)
            progress.console.print(
                f"seed {result.seed}: {options.metric} {result.full_precision:.4f} in full "
                f"precision, {result.quantized:.4f} quantized, after {result.epochs} epochs"
            )

        comparison = compare_by_seed(build, range(options.seeds), options.metric, show)
    print_comparison(comparison, console)
    console.print(f"Written: {', '.join(str(p) for p in write_report(comparison, options.out))}")


def _export(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lit-gnncompress export",
        description="Write the weights of a checkpoint, its tensor trains among them, its bit plan "
        "and its packed graph to one file, which load_compressed reads. Labels and masks are left "
        "out.",
    )
    parser.add_argument(
        "--ckpt",
        required=True,
        help="checkpoint of a fit with Quantize or Tensorize, or best.pt of a BitSearch",
    )
    parser.add_argument("--out", default="model.safetensors", help="(default: model.safetensors)")
    parser.add_argument(
        "--config", help="configuration of the fit (default: the config.yaml beside the checkpoint)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    options, further = parser.parse_known_args(args)
    if any(each.startswith("-") for each in further):
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    if further:  # a glob stands for several files
        ckpts = [options.ckpt, *further]
        raise ValueError(
            f"--ckpt: {', '.join(ckpts)} are {len(ckpts)} checkpoints: give one, of a quantized "
            f"epoch. A ModelCheckpoint with filename=best and enable_version_counter=false leaves "
            f"no other."
        )
    if Path(options.out).exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} exists already: choose another name or --overwrite.")
    path = options.ckpt
    checkpoint = _read_checkpoint(path)
    config = Path(options.config) if options.config else _config_beside(path)
    module, data = _rebuild(path, checkpoint, config)
    sizes = save_compressed(options.out, module, data=data)
    Console().print(_sizes_table(options.out, module, data, sizes))
    advice = _advice_on_full_precision(checkpoint)
    if advice is not None:
        print(f"warning: {path} is of a full-precision epoch: {advice}", file=sys.stderr)


def _advice_on_full_precision(checkpoint: dict[str, Any]) -> str | None:
    """What to say of weights that were to be fine-tuned for their plan, and were not yet."""
    states = checkpoint.get("callbacks", {})
    finetuning = states.get(QuantizationFinetuning.__qualname__)
    if finetuning is not None and finetuning.get("turned_at") is None:
        return (
            "its weights were never trained for the plan. Export a checkpoint from after the turn "
            "to quantized training."
        )
    search = states.get(BitSearch.__qualname__)
    if search is not None and not search.get("searched"):
        return (
            "its plan is where the search began, and its weights were never trained for it. Export "
            "the best.pt that fine-tuning leaves in the folder of the search."
        )
    return None


def _read_checkpoint(path: str) -> dict[str, Any]:
    """A checkpoint of Lightning, read without running code that may be in it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is no checkpoint that can be read safely: it is damaged, no checkpoint, or "
            f"holds objects other than tensors and plain values ({error})."
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is no checkpoint of a fit: it has no state_dict.")
    return checkpoint


def _config_beside(checkpoint: str) -> Path:
    """The configuration that LightningCLI left with the logs, whose folder has the checkpoints."""
    folder = Path(checkpoint).resolve().parent
    for each in (folder, *list(folder.parents)[:2]):
        if (each / "config.yaml").is_file():
            return each / "config.yaml"
    raise FileNotFoundError(
        f"there is no config.yaml in the folder of {checkpoint}, nor in the two above (a fit "
        f"without logger leaves none): give that of the fit, --config FILE."
    )


def _rebuild(
    path: str, checkpoint: dict[str, Any], config: Path
) -> tuple[LightningModule, Data | None]:
    """The module of a checkpoint, quantized if its fit was, and the graph of its data."""
    if not config.is_file():
        raise FileNotFoundError(f"there is no configuration {config}.")
    try:
        run = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{config} is no YAML file: {error}") from error
    if not isinstance(run, dict):
        raise ValueError(f"{config} is no configuration of a fit: it holds no mapping.")
    kept = {name: run[name] for name in ("model", "data") if name in run}
    # On this machine, whatever the fit ran on.
    trainer = {"accelerator": "cpu", "devices": 1, "logger": False}
    trainer["callbacks"] = (run.get("trainer") or {}).get("callbacks")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    cli = CompressCLI({**kept, "trainer": trainer, "seed_everything": False}, run=False)
    quantize = next((c for c in callbacks_of(cli.trainer) if isinstance(c, Quantize)), None)
    if quantize is not None:
        state = checkpoint.get("callbacks", {}).get(quantize.state_key, {})
        # A search may have found another than that of the configuration, which best.pt has alone.
        plan = state.get("plan", checkpoint.get("plan"))
        if plan is not None:
            quantize.plan = BitPlan.from_dict(plan)
        quantize.setup(cli.trainer, cli.model, "predict")
        quantize.load_state_dict(state)
    try:
        restore_tables(cli.model, checkpoint["state_dict"])  # what Tensorize made in the fit
        cli.model.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} does not fit the model of {config}: {error}") from error
    if quantize is None and not any(isinstance(each, RowTable) for each in cli.model.modules()):
        raise ValueError(
            f"{config} has no callback Quantize, so there is no plan to export by, and {path} has "
            f"no table that Tensorize made small."
        )
    return cli.model, _graph(cli.datamodule)


def _graph(datamodule: Any) -> Data | None:
    """What predictions need of a datamodule's graph; ``None`` where it has no ``data``."""
    if datamodule is None:
        return None
    datamodule.prepare_data()
    datamodule.setup("predict")
    data = getattr(datamodule, "data", None)
    if not isinstance(data, Data):
        return None
    data = copy.copy(data)
    for name in list(data.keys()):
        if name == "y" or name.endswith("_mask"):
            del data[name]
    return data


def _sizes_table(
    target: str, module: LightningModule, data: Data | None, sizes: dict[str, int]
) -> Table:
    plain = {"weights": _bytes_of_weights(module), "features": 0, "graph": 0}
    for value in [] if data is None else data.to_dict().values():
        if isinstance(value, Tensor):
            is_features = value.dim() == 2 and value.is_floating_point()
            plain["features" if is_features else "graph"] += value.numel() * value.element_size()
    table = Table(title=f"Written: {target}")
    table.add_column("")
    for name in ("bytes", "fp32", "saving"):
        table.add_column(name, justify="right")
    for part, size in (*sizes.items(), ("file", sum(sizes.values()))):
        full = sum(plain.values()) if part == "file" else plain.get(part, 0)
        saving = f"{full / size:.1f}×" if full and size else ""
        table.add_row(part, f"{size:,}", f"{full:,}" if full else "", saving)
    return table


def _bytes_of_weights(module: LightningModule) -> int:
    """Of a module's state, with whole tables in place of those that were made small."""
    small = {
        f"{name}.": each
        for name, each in module.named_modules()
        if isinstance(each, (RowTable, TTEmbeddingBagCollection))
    }
    others = (v for k, v in module.state_dict().items() if not k.startswith(tuple(small)))
    whole = sum(value.numel() * value.element_size() for value in others)
    tables = {name: each for name, each in small.items() if isinstance(each, RowTable)}
    for name, table in tables.items():
        if not name.startswith(tuple(other for other in tables if other != name)):
            whole += 4 * table.num_embeddings * table.embedding_dim
    return whole


def _pack(args: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lit-gnncompress pack",
        description="Pack a feature file of any size, block by block. Open the result with "
        "open_features or PackedFeatureStore, which read the rows that are used.",
    )
    parser.add_argument("source", help=".npy file of float16, float32 or float64, one row a node")
    parser.add_argument("--bits", type=int, default=8, help="bits of a value, 1 to 8 (default: 8)")
    parser.add_argument("--out", help="file to write (default: the source's name, .safetensors)")
    parser.add_argument(
        "--granularity",
        choices=["row", "tensor", "column"],
        default="row",
        help="values that share a range (default: row, the best quality, for 8 bytes a row)",
    )
    parser.add_argument(
        "--range",
        choices=["minmax", "mse"],
        default="minmax",
        help="how a range is found; mse is for rows alone, better at few bits, and slow "
        "(default: minmax)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    options = parser.parse_args(args)
    target = options.out or Path(options.source).with_suffix(".safetensors")
    try:
        done = pack_file(
            options.source,
            target,
            options.bits,
            granularity=options.granularity,
            range=options.range,
            overwrite=options.overwrite,
        )
    except KeyboardInterrupt:
        sys.exit(f"interrupted: {target} was not written")
    Console().print(_packed_table(done))


def _packed_table(done: PackedFile) -> Table:
    table = Table(title=f"Written: {done.target}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    ratio = done.bytes_before / done.bytes_after
    speed = done.bytes_before / 1e9 / max(done.seconds, 1e-9)
    for name, value in (
        ("rows", f"{done.rows:,}"),
        ("width", f"{done.width:,}"),
        ("bits", str(done.bits)),
        ("bytes before", f"{done.bytes_before:,}"),
        ("bytes after", f"{done.bytes_after:,}"),
        ("saving", f"{ratio:.1f}×"),
        ("time", f"{done.seconds:.1f} s"),
        ("speed", f"{speed:.2f} GB/s"),
    ):
        table.add_row(name, value)
    return table
