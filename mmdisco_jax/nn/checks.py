# SPDX-License-Identifier: Apache-2.0
"""Checks of the sizes in a network's spec."""

from typing import Any


def check_positive(spec: Any, *names: str) -> None:
    """Raise ValueError unless the named fields of `spec` are at least 1.

    A field may be a number, a tuple of numbers, or None, which passes.
    """
    for name in names:
        value = getattr(spec, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
