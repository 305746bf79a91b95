"""The command line: LightningCLI's fit, validate, test and predict, and `compare`."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.progress import Progress

from lit_gnncompress.compare import SeedResult, compare_by_seed
from lit_gnncompress.report import print_comparison, write_report

_COMPARE_HELP = """
besides these, `lit-gnncompress compare --config FILE --seeds N --out FOLDER` fits once per seed and
compares full precision with quantized; see `lit-gnncompress compare --help`
"""


class SaveConfigBesideLogs(SaveConfigCallback):
    """Saves the configuration where there is a logger.

    Without one it would go to the working directory, over a ``config.yaml`` of the user's.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves the configuration."""
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class CompressCLI(LightningCLI):
    """LightningCLI that trains a NodeClassifier on a GraphDataModule unless told otherwise.

    Where the model takes ``in_channels`` and ``num_classes``, they come from the data.
    """

    def __init__(self, args: list[str] | None = None, run: bool = True) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfigBesideLogs,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=42,
            parser_kwargs={"description": __doc__, "epilog": _COMPARE_HELP},
            args=args,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what the data know to what the model needs."""
        parser.set_defaults(
            {
                "model": {"class_path": "lit_gnncompress.models.NodeClassifier"},
                "data": {"class_path": "lit_gnncompress.data.GraphDataModule"},
            }
        )
        for of_data, of_model in (("num_features", "in_channels"), ("num_classes", "num_classes")):
            parser.link_arguments(
                f"data.{of_data}", f"model.init_args.{of_model}", apply_on="instantiate"
            )


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
