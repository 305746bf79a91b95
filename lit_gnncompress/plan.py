"""BitPlan: which bits each site spends."""

from __future__ import annotations

import difflib
import itertools
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import yaml

FULL_PRECISION = 32
"""Bits of a site that the plan leaves untouched."""

MAX_BUCKETS = 256
"""Degree buckets of a plan at most: the bucket of a row is kept in a byte."""

T = TypeVar("T")
Component = Literal["features", "attention"]
COMPONENTS: tuple[Component, ...] = ("features", "attention")


class Site(NamedTuple):
    """A place of a model where features or attention are quantized.

    Attributes:
        name: Dotted name of the module in the model.
        component: ``"features"`` that enter the module, or the ``"attention"`` that it computes.
    """

    name: str
    component: Component


@dataclass(frozen=True)
class BitPlan:
    """Bits by layer, component and node degree (SGQuant, arXiv 2007.05100, section IV).

    Uniform, component-wise (CWQ), topology-aware (TAQ) and layer-wise (LWQ) quantization and all
    of their combinations are plans. ``features`` and ``attention`` each take

    * an int: the same bits everywhere,
    * a list: bits per degree bucket, lowest degree first,
    * a mapping from module names to one of the above. A name may be shortened to its tail
      (``convs.0`` for ``model.convs.0``) or be a glob (``*.convs.*``). Names win over globs, and
      an earlier glob over a later one. Layers that nothing matches stay at 32 bits.

    Bits are 1 to 8, or 32 for "untouched". A plan equals its JSON and its YAML, and is hashable.

    Args:
        features: Bits of the node features that enter each layer.
        attention: Bits of the attention coefficients after each softmax.
        degree_splits: Ascending degrees that separate the buckets: ``[4, 16]`` makes the buckets
            0–3, 4–15 and 16 upwards.
        degree_quantiles: The same, as fractions of the nodes (``[0.5, 0.9]``); the degrees are
            read off the graph. Give one of the two.

    Raises:
        ValueError: Bits outside 1–8 and 32, splits that do not ascend, or a list whose length is
            not the number of buckets.
        TypeError: Bits that are not integers.

    Example:
        >>> plan = BitPlan(features={"convs.0": 1, "convs.1": [8, 4]}, degree_splits=[8])
        >>> plan.num_buckets
        2
        >>> BitPlan.from_dict(plan.to_dict()) == plan
        True
    """

    features: int | list[int] | dict[str, int | list[int]] = FULL_PRECISION
    attention: int | list[int] | dict[str, int | list[int]] = FULL_PRECISION
    degree_splits: Sequence[int] = field(default=())
    degree_quantiles: Sequence[float] = field(default=())

    def __post_init__(self) -> None:
        _freeze(self, "degree_splits", checked_splits(self.degree_splits))
        _freeze(self, "degree_quantiles", _checked_quantiles(self.degree_quantiles))
        if self.degree_splits and self.degree_quantiles:
            raise ValueError(
                f"degree_splits={list(self.degree_splits)} and "
                f"degree_quantiles={list(self.degree_quantiles)} exclude each other: give one."
            )
        for component in COMPONENTS:
            _freeze(self, component, self._checked(component, getattr(self, component)))

    def _checked(self, component: str, spec: Any) -> Any:
        if isinstance(spec, Mapping):
            for key in spec:
                if not isinstance(key, str) or not key:
                    raise TypeError(f"{component}: keys are module names or globs, got {key!r}.")
            return _FrozenBits(
                {k: checked_bits(f"{component}[{k!r}]", v, self.num_buckets)
                 for k, v in spec.items()}
            )  # fmt: skip
        return checked_bits(component, spec, self.num_buckets)

    @property
    def num_buckets(self) -> int:
        """Number of degree buckets; 1 where the plan does not look at degrees."""
        return len(self.degree_splits or self.degree_quantiles) + 1

    @classmethod
    def uniform(cls, bits: int, attention: int | None = None) -> BitPlan:
        """The same ``bits`` for all features, and for attention where ``attention`` is given."""
        return cls(features=bits, attention=FULL_PRECISION if attention is None else attention)

    # --- text forms -------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain ints, lists and dicts; fields at their defaults are left out."""
        plain = {
            "features": _thaw(self.features),
            "attention": _thaw(self.attention),
            "degree_splits": list(self.degree_splits),
            "degree_quantiles": list(self.degree_quantiles),
        }
        return {k: v for k, v in plain.items() if v != [] and v != FULL_PRECISION}

    @classmethod
    def from_dict(cls, plan: Mapping[str, Any]) -> BitPlan:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: An unknown key.
        """
        known = list(cls.__dataclass_fields__)
        for key in plan:
            if key not in known:
                raise ValueError(f"BitPlan has no field {key!r}.{near_matches(key, known)}")
        return cls(**plan)

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(self.to_dict())

    def to_yaml(self) -> str:
        """The plan as YAML text."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)

    @classmethod
    def from_json(cls, text: str) -> BitPlan:
        """Reads :meth:`to_json`'s text.

        Raises:
            ValueError: Text that is no JSON, or not a mapping.
        """
        try:
            return cls._from_parsed(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"A bit plan cannot be read, it is no JSON: {error}.") from error

    @classmethod
    def from_yaml(cls, text: str) -> BitPlan:
        """Reads :meth:`to_yaml`'s text.

        Raises:
            ValueError: Text that is no YAML, or not a mapping.
        """
        try:
            return cls._from_parsed(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(f"A bit plan cannot be read, it is no YAML: {error}.") from error

    @classmethod
    def _from_parsed(cls, plan: object) -> BitPlan:
        if not isinstance(plan, Mapping):
            raise ValueError(f"A bit plan is a mapping of fields, got {type(plan).__name__}.")
        return cls.from_dict(plan)

    @classmethod
    def load(cls, path: str | Path) -> BitPlan:
        """Reads a ``.json`` or ``.yaml`` file.

        Raises:
            ValueError: A file that holds no plan, named.
        """
        read = cls.from_json if Path(path).suffix == ".json" else cls.from_yaml
        try:
            return read(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    # --- against a model --------------------------------------------------------------------

    def resolve(self, sites: Iterable[Site]) -> dict[Site, tuple[int, ...]]:
        """The table site × bucket: bits of every site of a model, lowest degree first.

        Args:
            sites: The model's sites, as found by :func:`~lit_gnncompress.quantization.find_sites`.

        Raises:
            ValueError: A name or glob that matches no site, a short name that matches several,
                or attention bits for a model without attention.
        """
        sites = list(sites)
        untouched = (FULL_PRECISION,) * self.num_buckets
        table = dict.fromkeys(sites, untouched)
        for component in COMPONENTS:
            spec = getattr(self, component)
            names = [site.name for site in sites if site.component == component]
            spends = spec not in (FULL_PRECISION, untouched, {})
            if component == "attention" and not names and spends:
                raise ValueError(
                    f"attention={_thaw(spec)!r}: the model has no attention layer. "
                    f"Leave attention at {FULL_PRECISION}."
                )
            if not isinstance(spec, Mapping):
                spec = dict.fromkeys(names, spec)
            for name, bits in match_layers(component, spec, names).items():
                table[Site(name, component)] = self._by_bucket(bits)
        return table

    def _by_bucket(self, bits: int | tuple[int, ...]) -> tuple[int, ...]:
        return (bits,) * self.num_buckets if isinstance(bits, int) else bits


class _FrozenBits(dict):
    """A mapping of bits that can be hashed; it compares equal to the dict it was made from."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))

    def __eq__(self, other: object) -> bool:
        # Order counts: an earlier glob wins over a later one.
        return isinstance(other, Mapping) and list(self.items()) == [
            (k, tuple(v) if isinstance(v, list) else v) for k, v in other.items()
        ]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise TypeError("A BitPlan is frozen: make a new one.")

    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]
    update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple:
        return type(self), (dict(self),)


def _freeze(plan: BitPlan, name: str, value: object) -> None:
    object.__setattr__(plan, name, value)


def _thaw(bits: Any) -> Any:
    if isinstance(bits, Mapping):
        return {key: _thaw(value) for key, value in bits.items()}
    return list(bits) if isinstance(bits, tuple) else bits


def checked_bits(where: str, bits: Any, num_buckets: int) -> int | tuple[int, ...]:
    """Bits of all degree buckets or of each, or an error that names ``where``.

    Raises:
        ValueError: Bits outside 1–8 and 32, or a list that is not one for each bucket.
        TypeError: Bits that are not integers.
    """
    if isinstance(bits, (list, tuple)):
        if len(bits) != num_buckets:
            raise ValueError(
                f"{where}={list(bits)!r} has {len(bits)} entries for {num_buckets} degree "
                f"bucket(s): give one number per bucket, or set degree_splits to "
                f"{len(bits) - 1} ascending degrees."
            )
        return tuple(_checked_bit(where, b) for b in bits)
    return _checked_bit(where, bits)


def _checked_bit(where: str, bits: Any) -> int:
    try:
        if isinstance(bits, bool):
            raise TypeError
        bits = operator.index(bits)
    except TypeError:
        raise TypeError(
            f"{where}={bits!r}: bits are integers from 1 to 8, or {FULL_PRECISION} for untouched."
        ) from None
    if not 1 <= bits <= 8 and bits != FULL_PRECISION:
        raise ValueError(
            f"{where}={bits}: bits are 1 to 8, or {FULL_PRECISION} for a site left untouched."
        )
    return bits


def _checked_list(where: str, values: Any) -> list:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise TypeError(f"{where}={values!r} must be a list of ascending numbers.")
    values = list(values)
    if len(values) >= MAX_BUCKETS:
        raise ValueError(
            f"{where} separates {len(values) + 1} degree buckets: {MAX_BUCKETS} are the most."
        )
    return values


def checked_splits(splits: Any) -> tuple[int, ...]:
    """Degrees between buckets.

    Raises:
        ValueError: Degrees below 1, that do not ascend, or too many of them.
        TypeError: What is no list.
    """
    splits = _checked_list("degree_splits", splits)
    for split in splits:
        if isinstance(split, bool) or not hasattr(split, "__index__") or split < 1:
            raise ValueError(f"degree_splits={list(splits)!r}: {split!r} is no degree ≥ 1.")
    splits = tuple(operator.index(s) for s in splits)
    if any(a >= b for a, b in itertools.pairwise(splits)):
        raise ValueError(
            f"degree_splits={list(splits)} must ascend; did you mean {sorted(set(splits))}?"
        )
    return splits


def _checked_quantiles(quantiles: Any) -> tuple[float, ...]:
    quantiles = tuple(float(q) for q in _checked_list("degree_quantiles", quantiles))
    ascending = all(a < b for a, b in itertools.pairwise(quantiles))
    if not ascending or any(not 0 < q < 1 for q in quantiles):
        raise ValueError(
            f"degree_quantiles={list(quantiles)} must ascend strictly between 0 and 1."
        )
    return quantiles


def match_layers(argument: str, spec: Mapping[str, T], names: Sequence[str]) -> dict[str, T]:
    """Values that ``spec``, a mapping from names or globs, gives to the layers called ``names``.

    A name wins over a glob, an earlier glob over a later one; a name may be shortened to its tail.

    Raises:
        ValueError: A key that matches no layer, a short name that matches several, or a layer
            that is named twice.
    """
    chosen: dict[str, T] = {}
    for key in itertools.filterfalse(_is_glob, spec):
        name = _full_name(argument, key, names)
        if name in chosen:
            raise ValueError(f"{argument}[{key!r}] names {name} a second time. Name it once.")
        chosen[name] = spec[key]
    for key in filter(_is_glob, spec):
        matched = [n for n in names if fnmatchcase(n, key) or fnmatchcase(n, f"*.{key}")]
        if not matched:
            raise ValueError(
                f"{argument}[{key!r}] matches no layer. There are: {', '.join(names) or 'none'}."
            )
        for name in matched:
            chosen.setdefault(name, spec[key])
    return chosen


def _full_name(argument: str, key: str, names: Sequence[str]) -> str:
    tails = [name for name in names if name == key or name.endswith(f".{key}")]
    if key in tails or len(tails) == 1:
        return key if key in tails else tails[0]
    if tails:
        raise ValueError(
            f"{argument}[{key!r}] is ambiguous: {', '.join(tails)}. Use the full name, or the "
            f"glob '*{key}' for all of them."
        )
    raise ValueError(
        f"{argument}[{key!r}]: no such layer.{near_matches(key, names)} "
        f"There are: {', '.join(names) or 'none'}."
    )


def _is_glob(key: str) -> bool:
    return any(c in key for c in "*?[")


def near_matches(key: str, known: Sequence[str]) -> str:
    """A sentence that proposes what ``key`` may have meant; empty where nothing is near."""
    matches = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(m) for m in matches)}?" if matches else ""
