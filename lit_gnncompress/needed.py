"""Packages that are imported where they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(package: str, by: str) -> Iterator[None]:
    """Says how to get a package that the block imports.

    Args:
        package: Its name where it is installed from.
        by: What needs it.

    Raises:
        ImportError: It cannot be imported.

    Example:
        >>> with needed("scikit-optimize", by="The bit search"):
        ...     from skopt.learning import ExtraTreesRegressor
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{by} needs the package {package}: `pip install {package}` ({error}).",
            name=error.name,
        ) from error
