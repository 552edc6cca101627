# SPDX-License-Identifier: Apache-2.0
"""Jobs for the tests of isolation, which end in all the ways in which decoders end."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mmdisco_jax.media.isolation import Limits, WorkError, alarm_paused, heartbeat, isolated_map


def do(what: str, value: object = None) -> object:
    """Does what it is named after; those that end return `value`."""
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(3)
    elif what == "hang":
        time.sleep(60)
    elif what == "eat":
        return np.ones(1 << 30, np.uint8).sum()
    elif what == "raise":
        raise IndexError("no such frame")
    elif what == "return what cannot be sent":
        return lambda: value
    elif what == "give up":
        raise WorkError("the disk is full")
    elif what == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "be killed once":
        marker = Path(str(value))
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif what == "work for long":
        for _ in range(8):
            time.sleep(0.2)
            heartbeat()
    elif what == "write for long":
        with alarm_paused():
            time.sleep(1.6)
    elif what == "work for ever":
        Path(str(value)).write_text(str(os.getpid()))
        while True:
            time.sleep(0.05)
            heartbeat()
    return value


if __name__ == "__main__":  # a parent to be killed
    list(isolated_map(do, [("work for ever", sys.argv[1])], num_workers=1, limits=Limits()))
