"""Trainers of the tests of models, which keep checkpoints."""

from tests.callbacks import tiny


def make_trainer(folder, epochs=1, callbacks=(), **arguments):
    kept = {"default_root_dir": folder, "enable_checkpointing": True}
    return tiny.make_trainer(*callbacks, max_epochs=epochs, **kept | arguments)
