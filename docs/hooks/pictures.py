"""Pictures of the benchmarks, from where they are, as pages of the site can show them."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = "benchmarks/results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds them, as ``pictures/NAME.png``."""
    for picture in sorted((Path(config.config_file_path).parent / FOLDER).glob("*.png")):
        file = File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture))
        files.append(file)
    return files
