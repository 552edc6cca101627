# SPDX-License-Identifier: Apache-2.0
"""Seconds of compiling, and those that the compilation cache saved, as JAX counts them."""

import json
from pathlib import Path
from types import TracebackType

import jax

_SAVED = "/jax/compilation_cache/compile_time_saved_sec"


class CompileClock:
    """Counts, while it is entered, the seconds that the compilation cache saved: `saved`.

    A program found in the cache saves the time that it once took to compile, less the time to read
    it. One clock at a time.
    """

    def __enter__(self) -> "CompileClock":
        self.saved = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs
        if event == _SAVED:
            self.saved += duration_secs


def timing_note(workdir: Path) -> str:
    """One sentence from the workdir's timing.json, or "" if nothing was sampled there."""
    path = workdir / "timing.json"
    spent = list(json.loads(path.read_text()).values()) if path.is_file() else []
    spent = [one for one in spent if one]
    if not spent:
        return ""
    compiled = sum(one["compile_seconds"] for one in spent)
    saved = sum(one["compile_seconds_saved"] for one in spent)
    seconds, count = sum(one["seconds"] for one in spent), sum(one["samples"] for one in spent)
    return (
        f"Sampling: {compiled:.0f} s to trace and compile (the compilation cache saved "
        f"{max(saved, 0):.0f} s), then {seconds:.0f} s for {count} clips, decoding included."
    )
