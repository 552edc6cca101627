# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments, and the lists that their error messages quote."""

from collections.abc import Mapping, Sequence


def require_at_least(least: int, /, *, prefix: str = "", **values: float) -> None:
    """Raises ValueError for the first of `values` that is below `least`.

    Args:
      prefix: text before the name in the message, such as "train.".
    """
    for name, value in values.items():
        if not value >= least:  # so that nan fails as well
            raise ValueError(f"{prefix}{name} is {value}; it must be at least {least}.")


def require_positive(*, prefix: str = "", **values: float) -> None:
    """Raises ValueError for the first of `values` that is not above 0; see `require_at_least`."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{prefix}{name} is {value}; it must be > 0.")


def listed(texts: Sequence[str], *, separator: str = ", ", most: int = 12) -> str:
    """Joins the first `most` texts, and says how many more there are."""
    more = f"{separator}and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def shape_mismatches(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """Describes how named shapes differ from the wanted ones; "" if they agree exactly.

    Strict loading of weights uses it: a missing name, an unexpected name and a wrong shape are all
    errors, and one message lists them all.
    """
    complaints = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "wrong shape": [
            f"{name} is {tuple(found[name])}, the model has {tuple(shape)}"
            for name, shape in wanted.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ],
    }
    return "; ".join(
        f"{kind}: {listed(sorted(texts))}" for kind, texts in complaints.items() if texts
    )
