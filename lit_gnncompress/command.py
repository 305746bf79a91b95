"""The program ``lit-gnncompress``: an overview at once, and the command line where it is needed."""

from __future__ import annotations

import argparse
import sys

_COMMANDS = {
    "fit": "train, with the callbacks of the configuration",
    "validate": "measure on the validation data",
    "test": "measure on the test data",
    "predict": "run the model, for a BasePredictionWriter to write",
    "compare": "fit once per seed, and compare full precision with quantized",
    "export": "write weights, plan and packed graph of a checkpoint to one file",
    "pack": "pack a feature file of any size",
}

_EXAMPLES = """\
examples:
  lit-gnncompress fit --config FILE --trainer.max_epochs 100
  lit-gnncompress compare --config FILE --seeds 5 --out FOLDER
  lit-gnncompress export --ckpt FILE --out model.safetensors
  lit-gnncompress pack features.npy --bits 4 --out features.safetensors

`lit-gnncompress COMMAND --help` lists the arguments of a command.
"""


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: Arguments without the program's name; those of the process by default.
    """
    given = sys.argv[1:] if args is None else args
    if given in ([], ["--help"], ["-h"]):
        print(_overview(), end="")
        return
    # Torch and Lightning take seconds to import.
    from lit_gnncompress import cli

    cli.main(args)


def _overview() -> str:
    parser = argparse.ArgumentParser(
        prog="lit-gnncompress",
        description="Graph neural networks and recommenders made small. The first four commands\n"
        "are those of LightningCLI.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, does in _COMMANDS.items():
        commands.add_parser(name, help=does)
    return parser.format_help()
