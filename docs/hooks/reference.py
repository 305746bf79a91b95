"""``::: lit_gnncompress.storage.*`` in a page: all that a package exports, in its order."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_ALL_OF = re.compile(r"^::: ([\w.]+)\.\*\n((?: +.*\n)*)", re.MULTILINE)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Writes an entry for each name, with the options that follow the line."""
    root = Path(config.config_file_path).parent

    def entries(match: re.Match[str]) -> str:
        package, options = match.groups()
        names = exported(root / package.replace(".", "/"))
        return "\n".join(f"::: {package}.{name}\n{options}" for name in names)

    return _ALL_OF.sub(entries, markdown)


def exported(package: Path) -> list[str]:
    """Where the names in a package's ``__all__`` are, from it.

    Its modules are public names, too: where one is called like what it holds, the latter is meant.
    """
    for statement in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            names = ast.literal_eval(statement.value)
            files = {path.stem for path in package.glob("*.py")}
            return [f"{name}.{name}" if name in files else name for name in names]
    raise ValueError(f"{package} has no __all__.")
