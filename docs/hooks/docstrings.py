"""Docstrings as Markdown: their roles and formulas are reST, which mkdocstrings does not read."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import Any

from griffe import Extension, GriffeLoader, Module, NameResolutionError, Object

_ROLE = re.compile(r":(class|func|meth|attr|mod|data|exc):`(~?)([^`]+)`")
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_BLOCK_MATH = re.compile(r"^( *)\.\. math:: *(.+(?:\n\1 +\S.*)*)", re.MULTILINE)
_LINK = re.compile(r"`([^`<>]+?)\s*<(https?://[^>\s]+)>`_")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_LITERAL = re.compile(r"::$", re.MULTILINE)


class ReadableDocstrings(Extension):
    """Rewrites the docstrings of a package when it is loaded."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **kwargs: Any) -> None:
        """Rewrites them all."""
        for each in list(_objects(pkg)):
            if each.is_class and "__new__" in each.members and "__init__" not in each.members:
                each.members["__init__"] = each.members["__new__"]  # has what a call takes
            if each.docstring is not None:
                each.docstring.value = to_markdown(each.docstring.value, _Paths(each))


def _objects(owner: Object) -> Iterator[Object]:
    """An object and all that is defined in it."""
    yield owner
    for member in owner.members.values():
        if not member.is_alias:
            yield from _objects(member)  # type: ignore[arg-type]


class _Paths:
    """Where the names in a docstring lead."""

    def __init__(self, owner: Object) -> None:
        self._owner = owner

    def __call__(self, name: str) -> str | None:
        package = self._owner.package
        path = name
        if not name.startswith(f"{package.path}."):
            first, *rest = name.split(".")
            try:
                path = ".".join([self._owner.resolve(first), *rest])
            except NameResolutionError:
                return None
        if not path.startswith(f"{package.path}."):
            return None
        try:
            return package[path.removeprefix(f"{package.path}.")].canonical_path
        except KeyError:
            return None


def to_markdown(text: str, path_of: Callable[[str], str | None]) -> str:
    """A docstring of Google style and reST roles, as mkdocstrings can read it.

    Args:
        text: The docstring.
        path_of: The canonical path of a name in it; ``None`` where it leads nowhere.
    """

    def role(match: re.Match[str]) -> str:
        _, short, target = match.groups()
        shown = target.rpartition(".")[2] if short else target
        path = path_of(target)
        code = f"<code>{html.escape(shown)}</code>"
        # What the reference does not show stays a word.
        return code if path is None else f'<autoref identifier="{path}" optional>{code}</autoref>'

    text = _BLOCK_MATH.sub(lambda m: f'{m[1]}<p class="formula">{formula(m[2])}</p>', text)
    text = _INLINE_MATH.sub(lambda m: f'<span class="formula">{formula(m[1])}</span>', text)
    text = _ROLE.sub(role, text)
    text = _LINK.sub(lambda m: f"[{' '.join(m[1].split())}]({m[2]})", text)
    text = _EXAMPLE.sub(r"\1Examples:", text)
    return _LITERAL.sub(":", text)


# --- formulas -----------------------------------------------------------------------------------

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|[a-zA-Z]+|\d+(?:\.\d+)?|.", re.DOTALL)
_SIGNS = {
    "alpha": "α", "sigma": "σ", "sum": "∑", "prod": "∏", "lfloor": "⌊", "rfloor": "⌋",
    "langle": "⟨", "rangle": "⟩", "dots": "…", "ldots": "…", "cdots": "⋯", "left": "", "right": "",
    "min": "min", "max": "max", "log": "log ", "quad": "\u2003", ",": "\u2009", ";": "\u2009",
    " ": " ", "{": "{", "}": "}",
}  # fmt: skip
_THIN = "\u2009"
_BETWEEN = {"cdot": "·", "times": "×", "in": "∈", "le": "≤", "ge": "≥", "to": "→"}
_OPERATORS = {"=": "=", "<": "&lt;", ">": "&gt;", "+": "+", "-": "−", "/": "/"}


def formula(tex: str) -> str:
    """A formula as HTML: no script is needed to read it.

    Raises:
        ValueError: A command that is not known.
    """
    tokens = [token for token in _TOKEN.findall(tex) if not token.isspace()]
    return _row(tokens, tex)


def _row(tokens: list[str], tex: str) -> str:
    """All of ``tokens``, which are used up."""
    out = ""
    while tokens:
        token = tokens.pop(0)
        name = token[1:]
        if token in ("_", "^"):
            tag = "sub" if token == "_" else "sup"
            out += f"<{tag}>{_row(_argument(tokens), tex)}</{tag}>"
        elif token == "{":
            tokens.insert(0, token)
            out += _row(_argument(tokens), tex)
        elif token in ("\\mathrm", "\\text"):
            out += " ".join(_argument(tokens))
        elif token == "\\frac":
            over, under = _argument(tokens), _argument(tokens)
            out += f"{_closed(over, tex)} / {_closed(under, tex)}"
        elif token == "\\sqrt":
            out += f"√{_closed(_argument(tokens), tex)}"
        elif token[0] == "\\" and name in _BETWEEN:
            out += f" {_BETWEEN[name]} "
        elif token[0] == "\\":
            if name not in _SIGNS:
                raise ValueError(f"{token} in the formula {tex!r} is not known: add it.")
            out += _SIGNS[name]
        elif token in _OPERATORS:
            sign = _OPERATORS[token]
            # After nothing, or what opens, it is the sign of what follows.
            out += f" {sign} " if out and out[-1] not in "(⟨⌊[,\u2003" else sign
        elif token == ",":
            out += ", "
        elif token.isalpha():
            follows = out.endswith((">", ")", "]")) or out[-1:].isalnum()
            out += f"{_THIN if follows else ''}<i>{token}</i>"
        else:
            out += html.escape(token)
    return out


def _argument(tokens: list[str]) -> list[str]:
    """What the next command is about: a group, or a single sign."""
    first = tokens.pop(0)
    if first != "{":
        if first.isalnum() and len(first) > 1:  # of a word, one letter
            tokens.insert(0, first[1:])
        return [first[0] if first.isalnum() else first]
    group, depth = [], 1
    while depth:
        token = tokens.pop(0)
        depth += (token == "{") - (token == "}")
        group.append(token)
    return group[:-1]


def _closed(tokens: list[str], tex: str) -> str:
    """In parentheses where it is more than one sign."""
    return _row(tokens, tex) if len(tokens) == 1 else f"({_row(tokens, tex)})"
