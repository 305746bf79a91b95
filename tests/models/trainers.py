"""Trainers of the tests of models."""

import lightning as L


def make_trainer(folder, epochs=1, **arguments):
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
