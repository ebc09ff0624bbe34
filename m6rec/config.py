"""Configuration: frozen dataclasses as one tree, whose leaves are set by name from TOML files and the command line.

A dataclass says everything once: a field's annotation is its type and range, the ``Attributes`` section of the
docstring its meaning, a suffix of its name its unit. Where a field of a tree is a dataclass, or a mapping of names to
dataclasses, it is a table; all else is a leaf, ``ranking.training.epochs``. ``m6rec.cli.tree`` has the tree.
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from m6rec.errors import ConfigError

TreeT = TypeVar("TreeT")
CHOICES = "choices"
"""Key of a field's metadata: the dataclasses that may stand there by name; the leaf ``name`` says which one does."""
DEFAULT = "default"
"""The origin of a value that nobody gave."""
_NAME = "name"
_UNITS = {"s": "seconds", "bytes": "bytes", "tokens": "tokens", "chars": "characters", "steps": "steps"}


@dataclass(frozen=True)
class Range:
    """Allowed values of a number.

    Attributes:
        least: The least.
        most: The greatest.
        above: Whether ``least`` itself is excluded.
        below: Whether ``most`` itself is.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and not (
            (self.above and value == self.least) or (self.below and value == self.most)
        )

    def __str__(self) -> str:
        least = f"{'above' if self.above else 'at least'} {self.least:g}"
        most = f"{'below' if self.below else 'at most'} {self.most:g}"
        return least if self.most == math.inf else most if self.least == -math.inf else f"{least} and {most}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
OpenShare = Annotated[float, Range(0, 1, below=True)]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A setting.

    Attributes:
        path: Its name in the tree, ``ranking.training.epochs``.
        value: Its value.
        annotation: What it may be.
        meaning: What it is, in a sentence.
    """

    path: str
    value: Any
    annotation: Any
    meaning: str

    @property
    def table(self) -> str:
        """The path of the table that it is in."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]

    @property
    def unit(self) -> str:
        """By the suffix of its name, such as ``_s``; "" without one."""
        return _UNITS.get(self.name.rpartition("_")[2], "")

    @property
    def comment(self) -> str:
        """What it is and what it may be."""
        unit = f", in {self.unit}" if self.unit else ""
        return f"{self.meaning} ({allowed(self.annotation)}{unit})".strip()


@dataclass(frozen=True, kw_only=True)
class Given:
    """A value that somebody gave to a leaf.

    Attributes:
        value: As TOML or the caller has it; of the command line, the text.
        origin: Who gave it, as shown: a file, "--set", "--epochs".
        text: Whether ``value`` is text of the command line, yet to be read.
    """

    value: Any
    origin: str
    text: bool = False


def leaves(tree: Any, prefix: str = "") -> Iterator[Leaf]:
    """The leaves of a tree, in order."""
    hints, meanings = _hints(tree.__class__), _meanings(tree.__class__)
    for field in fields(tree):
        path, value = f"{prefix}{field.name}", getattr(tree, field.name)
        if (choices := field.metadata.get(CHOICES)) and (name := _choice(choices, value)):
            named = Literal[tuple(choices)]  # type: ignore[valid-type]
            yield Leaf(path=f"{path}.{_NAME}", value=name, annotation=named, meaning=meanings.get(field.name, ""))
        if is_dataclass(value):
            yield from leaves(value, f"{path}.")
        elif isinstance(value, Mapping):
            for key, one in value.items():
                if is_dataclass(one):
                    yield from leaves(one, f"{path}.{key}.")
        elif not choices:  # what a program puts in place of a choice has no name
            yield Leaf(path=path, value=value, annotation=hints[field.name], meaning=meanings.get(field.name, ""))


def to_tables(tree: Any) -> dict[str, Any]:
    """The tree in values of JSON and TOML, one dictionary a table."""
    found: dict[str, Any] = {}
    for leaf in leaves(tree):
        *tables, name = leaf.path.split(".")
        table = found
        for one in tables:
            table = table.setdefault(one, {})
        table[name] = _plain(leaf.value)
    return found


def by_path(tables: Mapping[str, Any], origin: str, prefix: str = "") -> dict[str, Given]:
    """What nested tables give, by path."""
    found: dict[str, Given] = {}
    for name, value in tables.items():
        if isinstance(value, Mapping):
            found |= by_path(value, origin, f"{prefix}{name}.")
        else:
            found[prefix + name] = Given(value=value, origin=origin)
    return found


def read(file: Path) -> dict[str, Given]:
    """What a TOML file gives. Raises ConfigError where it can't be read."""
    try:
        return by_path(tomllib.loads(file.read_text(encoding="utf-8")), str(file))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the configuration {file} can't be read ({error}); `m6rec config show` prints one in TOML"
        ) from error


def parse(settings: Iterable[str]) -> dict[str, Given]:
    """What ``--set`` gives. Raises ConfigError where one is not of the form a.b=c."""
    found: dict[str, Given] = {}
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {setting!r} has no name and value; give --set ranking.training.epochs=3")
        found[path.strip()] = Given(value=value.strip(), origin="--set", text=True)
    return found


def with_values(tree: TreeT, given: Mapping[str, Given]) -> TreeT:
    """The tree with the values given.

    Raises:
        ConfigError: There is no such leaf, or its value has another type or is out of range.
    """
    made: TreeT = _changed(tree, {tuple(path.split(".")): one for path, one in given.items()}, (), tree)
    return made


def validate(config: Any) -> None:
    """What a dataclass calls in ``__post_init__``. Raises ConfigError where an annotation doesn't allow a value."""
    for name, annotation in _hints(config.__class__).items():
        value = getattr(config, name)
        try:
            _accepted(annotation, value)
        except ValueError:
            raise ConfigError(f"{name} is {value!r}; it must be {allowed(annotation)}") from None


def to_toml(leaves: Sequence[Leaf], origins: Mapping[str, str]) -> str:
    """Leaves as TOML that ``read`` takes; a comment says what each is, and where its value is from.

    Args:
        leaves: Of a tree.
        origins: By path, of the leaves that somebody gave.
    """
    tables: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        tables.setdefault(leaf.table, []).append(leaf)
    lines = []
    for table, inside in tables.items():
        lines += ["", f"[{'.'.join(map(_key, table.split('.')))}]"]
        for leaf in inside:
            value = f"# {_key(leaf.name)} =" if leaf.value is None else f"{_key(leaf.name)} = {_toml(leaf.value)}"
            lines.append(f"{value}  # {leaf.comment} · {origins.get(leaf.path, DEFAULT)}")
    return "\n".join(lines[1:])


def to_entries(leaves: Sequence[Leaf], origins: Mapping[str, str]) -> dict[str, Any]:
    """By path: value, origin, what is allowed, unit and meaning of every leaf; see ``to_toml``."""
    return {
        leaf.path: {
            "value": _plain(leaf.value),
            "origin": origins.get(leaf.path, DEFAULT),
            "allowed": allowed(leaf.annotation),
            "unit": leaf.unit,
            "meaning": leaf.meaning,
        }
        for leaf in leaves
    }


def select(tree: Any, within: str) -> list[Leaf]:
    """The leaves of a table, or one by its path; all for "". Raises ConfigError where there is none."""
    found = [leaf for leaf in leaves(tree) if not within or f"{leaf.path}.".startswith(f"{within}.")]
    if not found:
        raise _unknown(within, tree, "")
    return found


def allowed(annotation: Any) -> str:
    """What an annotation allows, in words.

    >>> allowed(Count), allowed(Share | None), allowed(Literal["a", "b"])
    ('an integer, at least 1', 'a number, at least 0 and at most 1, or none', '"a" or "b"')
    """
    kind, given = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        ranges = [str(one) for one in given[1:] if isinstance(one, Range)]
        return ", ".join([allowed(given[0]), *ranges])
    if kind in (Union, UnionType):
        return ", or ".join(["none" if one is NoneType else allowed(one) for one in given])
    if kind is Literal:
        return " or ".join(json.dumps(one) for one in given)
    if kind is tuple:
        return f"a list, each {allowed(given[0])}"
    return {bool: "true or false", int: "an integer", float: "a number", Path: "a path"}.get(annotation, "a text")


def _changed(tree: Any, given: Mapping[tuple[str, ...], Given], path: tuple[str, ...], root: Any) -> Any:
    """``with_values`` of the part of ``root`` at a path."""
    groups: dict[str, dict[tuple[str, ...], Given]] = {}
    for (name, *rest), one in given.items():
        groups.setdefault(name, {})[tuple(rest)] = one
    if isinstance(tree, Mapping):
        for name, inside in groups.items():
            if not is_dataclass(tree.get(name)) or () in inside:
                raise _unknown(".".join((*path, name, *min(inside))), root, _origins(inside))
        return {**tree, **{name: _changed(tree[name], inside, (*path, name), root) for name, inside in groups.items()}}
    known, changes = {field.name: field for field in fields(tree)}, {}
    for name, inside in groups.items():
        here = (*path, name)
        if name not in known:
            raise _unknown(".".join((*here, *min(inside))), root, _origins(inside))
        value = getattr(tree, name)
        if (choices := known[name].metadata.get(CHOICES)) and (chosen := inside.pop((_NAME,), None)):
            named = Literal[tuple(choices)]  # type: ignore[valid-type]
            choice = choices[_value(named, chosen, ".".join((*here, _NAME)))]
            value = value if isinstance(value, choice) else choice()
        is_table = is_dataclass(value) or isinstance(value, Mapping)
        if is_table == (() in inside) or (len(inside) > 1 and not is_table):
            raise _unknown(".".join((*here, *max(inside))), root, _origins(inside))
        changes[name] = (
            _changed(value, inside, here, root)
            if is_table
            else _value(_hints(tree.__class__)[name], inside[()], ".".join(here))
        )
    try:
        return replace(tree, **changes)
    except ConfigError as error:
        where = f"{'.'.join(path)}: " if path else ""
        raise ConfigError(f"{where}{error} (from {_origins(given)})") from error


def _value(annotation: Any, given: Given, path: str) -> Any:
    """What a leaf becomes. Raises ConfigError where the value is not allowed."""
    value = _of_text(annotation, given.value) if given.text else given.value
    try:
        return _accepted(annotation, value)
    except ValueError:
        raise ConfigError(f"{path} is {value!r} (from {given.origin}); it must be {allowed(annotation)}") from None


def _of_text(annotation: Any, text: str) -> Any:
    """A value of the command line: as in TOML; a text may go without quotes, and "none" is none."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return None if text == "none" and NoneType in _kinds(annotation) else text
    return text if not isinstance(value, str) and _kinds(annotation) & {str, Path} else value


def _kinds(annotation: Any) -> set[Any]:
    """What an annotation allows, ranges left out."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation} if isinstance(annotation, type) else set()


def _accepted(annotation: Any, value: Any) -> Any:
    """The value as a field has it. Raises ValueError where the annotation does not allow it."""
    kind, given = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        value = _accepted(given[0], value)
        if all(value in one for one in given[1:] if isinstance(one, Range)):
            return value
    elif kind in (Union, UnionType):
        for one in given:
            try:
                return _accepted(one, value)
            except ValueError:
                continue
    elif kind is Literal:
        if any(value == one and type(value) is type(one) for one in given):
            return value
    elif kind is tuple:
        if isinstance(value, list | tuple) and len(value):
            return tuple(_accepted(given[0], one) for one in value)
    elif annotation is NoneType:
        if value is None:
            return value
    elif annotation is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    elif annotation is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif annotation in (bool, int, str):
        if isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool)):
            return value
    else:
        return value  # of a table, whose own leaves are checked
    raise ValueError


def _choice(choices: Mapping[str, type], value: Any) -> str:
    """The name of the choice that a value is of; "" where it is of none."""
    return next((name for name, kind in choices.items() if type(value) is kind), "")


def _unknown(path: str, root: Any, origins: str) -> ConfigError:
    known = [leaf.path for leaf in leaves(root)]
    inside = [one for one in known if one.startswith(f"{path}.")]
    came = f" (from {origins})" if origins else ""
    if inside:
        return ConfigError(f"{path} is a table{came}; set one of {', '.join(inside[:6])}{', …' * (len(inside) > 6)}")
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
    same = [one for one in known if one.rpartition(".")[2] == path.rpartition(".")[2]]
    hint = f" Did you mean {' or '.join(same[:3] or close)}?" if same or close else ""
    return ConfigError(f"there is no setting {path}{came}.{hint} `m6rec config show` lists all.")


def _origins(given: Mapping[Any, Given]) -> str:
    return ", ".join(dict.fromkeys(one.origin for one in given.values()))


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Annotations of a dataclass's fields, ranges included."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


@cache
def _meanings(kind: type) -> dict[str, str]:
    """The first sentence on each field, of the docstrings of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        section = re.search(r"\nAttributes:\n(.*?)(?=\n\S|\Z)", inspect.cleandoc(one.__doc__ or ""), re.DOTALL)
        for name, text in re.findall(r"^    (\w+): (.*(?:\n      .*)*)", section[1] if section else "", re.MULTILINE):
            words = " ".join(text.split()).replace("``", "")
            found[name] = re.split(r"(?<=\.)\s(?=[A-Z0-9])", words)[0].rstrip(".")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(_plain(value), ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name)
