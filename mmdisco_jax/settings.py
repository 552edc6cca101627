# SPDX-License-Identifier: Apache-2.0
"""Nested frozen dataclasses from plain mappings, with every key and type checked."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def read_settings(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `kind` from `values`; absent keys keep their defaults.

    Args:
      where: dotted path of `values`, for errors.

    Raises:
      ValueError: an unknown key, a value of another type than the field's annotation, or whatever
        the dataclass itself refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore
    hints = typing.get_type_hints(kind)
    found = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(fields)}."
            raise ValueError(f"unknown setting {where}.{key}: {hint}")
        found[key] = _value(hints[key], value, f"{where}.{key}")
    return kind(**found)


def defaults_of(kind: Any) -> dict[str, Any]:
    """Fields of a dataclass that have plain defaults, as nested dicts.

    Left out are fields without a default, and those whose default is no plain value.
    """
    out = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = _fields_of(value)
        if _is_plain(value):
            out[field.name] = value
    return out


def _fields_of(value: Any) -> dict[str, Any]:
    """Fields of an instance of a dataclass, nested ones too."""
    made = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {k: _fields_of(v) if dataclasses.is_dataclass(v) else v for k, v in made.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, tuple):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(value, where, "a section")
        return read_settings(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise _wrong(value, where, "a tuple")
        return tuple(_value(arguments[0], v, where) for v in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, where, "a section")
        return {k: _value(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint in (bool, int, float, str):
        return _scalar(hint, value, where)
    return value


def _one_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    for hint in hints:
        if hint is types.NoneType and value is None:
            return None
        if hint is not types.NoneType and value is not None:
            try:
                return _value(hint, value, where)
            except ValueError:
                continue
    names = " or ".join(getattr(h, "__name__", str(h)).replace("NoneType", "None") for h in hints)
    raise _wrong(value, where, names)


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return value  # 8 frames a second stay 8, in records too
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise _wrong(value, where, hint.__name__)


def _wrong(value: Any, where: str, wanted: str) -> ValueError:
    return ValueError(f"{where} is {value!r}, but must be of type {wanted}.")
