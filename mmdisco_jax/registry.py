# SPDX-License-Identifier: Apache-2.0
"""Names to objects: one line adds a component, and nothing is imported before it is asked for."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Registry:
    """A family of components, `{"name": "package.module:attribute"}`."""

    kind: str
    entries: Mapping[str, str]

    def names(self) -> list[str]:
        return sorted(self.entries)

    def get(self, name: str) -> Any:
        """The component called `name`; ValueError with the known names if there is none."""
        if name not in self.entries:
            known = ", ".join(self.names())
            raise ValueError(f"unknown {self.kind} {name!r}: choose one of {known}.")
        module, attribute = self.entries[name].split(":")
        return getattr(importlib.import_module(module), attribute)
