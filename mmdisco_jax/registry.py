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
        """The component called `name`, or the one at `"package.module:attribute"`.

        The second form reaches components outside this project without a registered name.

        Raises:
          ValueError: no such name, module or attribute. An error inside the module is its own.
        """
        if name not in self.entries and ":" not in name:
            known = ", ".join(self.names())
            raise ValueError(
                f"unknown {self.kind} {name!r}: choose one of {known}, or name your own as "
                "'package.module:attribute'."
            )
        return self._imported(self.entries.get(name, name))

    def _imported(self, place: str) -> Any:
        module, _, attribute = place.partition(":")
        if not module or not attribute.isidentifier():
            raise ValueError(
                f"{self.kind} {place!r} is not understood: write 'package.module:attribute'."
            )
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A module that exists but imports a missing one keeps its own error.
            if error.name is None or not (module + ".").startswith(error.name + "."):
                raise
            raise ValueError(
                f"{self.kind} {place!r}: there is no module {error.name!r}. Check its spelling, "
                "and that its folder is on the Python path."
            ) from error
        if not hasattr(found, attribute):
            raise ValueError(
                f"{self.kind} {place!r}: module {module!r} has no attribute {attribute!r}. Check "
                "its spelling."
            )
        return getattr(found, attribute)
