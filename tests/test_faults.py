# SPDX-License-Identifier: Apache-2.0
"""A user's mistake is a sentence; a fault of ours shows its place, and so does the user's own."""

import importlib.util
import linecache
import re
from pathlib import Path

import numpy as np
import pytest

from mmdisco_jax.export.names import media_stem
from mmdisco_jax.faults import message
from mmdisco_jax.io import to_int16
from mmdisco_jax.metrics.evaluation import Report
from mmdisco_jax.settings import read_settings
from mmdisco_jax.training.checkpoints import CheckpointError, Checkpoints
from mmdisco_jax.types import ClipFormat

REPORT = "please report it, with the lines above and the command"


def told(function, *args, **kwargs) -> str:
    """What the command line prints of the error of this call."""
    with pytest.raises(Exception) as caught:
        function(*args, **kwargs)
    return message(caught.value)


def test_what_is_raised_on_purpose_is_a_sentence(tmp_path):
    assert told(read_settings, ClipFormat, {"fpz": 8}, "config.clip") == (
        "error: unknown setting config.clip.fpz: did you mean 'fps'?"
    )
    assert told(Report(rows={}).value, "f1", "real").startswith("error: no set")
    (tmp_path / "file").write_text("")
    stopped = told(Checkpoints, tmp_path / "file" / "x", {}, keep=1)
    assert stopped.startswith("error: cannot use") and "\n" not in stopped
    assert message(CheckpointError("of which nothing is known")).startswith("error: of which")
    assert told(open, tmp_path / "none").endswith(f"No such file or directory: '{tmp_path}/none'")


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: media_stem(None), "TypeError"),  # pyright: ignore
        (lambda: to_int16("loud"), "UFuncTypeError|TypeError|ValueError"),  # pyright: ignore
        (lambda: read_settings(ClipFormat, None, "x"), "AttributeError"),  # pyright: ignore
    ],
)
def test_what_nobody_meant_shows_its_place(call, kind):
    text = told(call)
    assert re.search(r"mmdisco_jax/\w+(/\w+)?\.py", text)
    if "Traceback" in text:
        assert re.search(rf"error: ({kind}) is a fault of mmdisco_jax .* at mmdisco_jax/", text)
        assert REPORT in text


def made(tmp_path: Path, text: str):
    """A function `run` of a file of the user's own."""
    path = tmp_path / "mine.py"
    path.write_text(text)
    linecache.clearcache()
    spec = importlib.util.spec_from_file_location("mine", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run


def test_a_users_own_code_is_named_and_not_ours(tmp_path):
    run = made(tmp_path, "def run():\n    return {}['a']\n")
    assert told(run).endswith(f"error: KeyError in your own code, {tmp_path}/mine.py:2.")
    assert told(made, tmp_path, "def run(:").endswith(f"{tmp_path}/mine.py:1.")
    run = made(tmp_path, "def run():\n    raise ValueError('the tea is cold')\n")
    assert told(run) == "error: the tea is cold"


def test_a_foreign_value_error_is_a_sentence_with_its_place(tmp_path):
    text = told(to_int16, np.array(["loud"]))
    assert "mmdisco_jax/io.py" in text


def test_out_of_memory_names_what_to_make_smaller():
    said = message(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore"))
    assert said.startswith("error: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 99")
    assert "train.num_microbatches" in said and "\n" not in said
    assert "out of memory" in message(MemoryError())


def test_an_error_inside_jax_is_a_fault_with_our_line():
    from mmdisco_jax.nn.time_embedding import sinusoidal_embedding

    text = told(sinusoidal_embedding, np.ones((2, 2, 2)), "width")
    assert "Traceback" in text and REPORT in text and "mmdisco_jax/nn/time_embedding.py" in text
