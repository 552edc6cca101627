# SPDX-License-Identifier: Apache-2.0
"""Config sections to what the registries make, and to noise schedules."""

from typing import Any, TypeAlias

from mmdisco_jax.process import SCHEDULES
from mmdisco_jax.process.schedules import Schedule

# An ml_collections.ConfigDict: its attributes have no static types.
Config: TypeAlias = Any


def named(section: Config, registry: Any, *args: Any, **extra: Any) -> Any:
    """The registry's entry `section.name`, called with the rest of the section."""
    fields = section.to_dict()
    maker = registry.get(fields.pop("name"))
    try:
        return maker(*args, **fields, **extra)
    except TypeError as error:
        raise ValueError(f"config of {registry.kind} {section.name!r}: {error}.") from error


def schedules(config: Config) -> dict[str, Schedule]:
    return {m: named(section, SCHEDULES) for m, section in config.schedules.items()}
