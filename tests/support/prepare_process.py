# SPDX-License-Identifier: Apache-2.0
"""`prepare` as a program of its own, so that it can be killed, and its workers' memory measured.

python -m tests.support.prepare_process '{"data_dir": ..., options}' prints one line of JSON: the
summary; the longest time that passed without a file being done, in seconds; the most memory that a
worker ever held, in bytes; and how many changes it has made to folders. With "die_at": N it kills
itself before the change N, counted from 1.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def start(options: dict[str, Any]) -> subprocess.Popen:
    """The program, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.prepare_process", json.dumps(options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, seconds: float = 900.0) -> dict[str, Any]:
    """Its output; AssertionError if it failed."""
    try:
        printed, _ = process.communicate(timeout=seconds)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, f"exit status {process.returncode}"
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    from mmdisco_jax.media import isolation, preflight
    from mmdisco_jax.media.prepare import prepare

    options = json.loads(sys.argv[1])
    changes = _count_changes(options.pop("die_at", 0))
    longest = 0.0

    def timed_map(*args: Any, **kwargs: Any):
        nonlocal longest
        last = time.monotonic()
        for result in isolation.isolated_map(*args, **kwargs):
            longest = max(longest, time.monotonic() - last)
            yield result
            last = time.monotonic()

    preflight.isolated_map = timed_map
    made = prepare("folder", **options)
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = {"summary": made, "longest_seconds": longest, "peak_bytes": peak, "changes": changes}
    print(json.dumps(done))


def _count_changes(die_at: int) -> list[str]:
    """Log of files that this process renames, removes, makes or opens for writing from now on."""
    changes: list[str] = []

    def noted(event: str, arguments: tuple) -> None:
        if event == "open":
            wanted = isinstance(arguments[0], str) and (arguments[2] or 0) & os.O_CREAT
        else:
            wanted = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
        # The first run of all also writes the modules' bytecode.
        passing = ("/proc/", "__pycache__")
        if wanted and not any(part in str(arguments[0]) for part in passing):
            changes.append(f"{event} {arguments[0]}")
            if len(changes) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(noted)
    return changes


if __name__ == "__main__":
    main()
