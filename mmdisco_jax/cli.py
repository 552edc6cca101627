# SPDX-License-Identifier: Apache-2.0
"""The command line: flags, the compilation cache, and errors as sentences instead of tracebacks."""

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mmdisco_jax.commands import COMMANDS
from mmdisco_jax.parallel import initialize_distributed
from mmdisco_jax.text.prompts import clean_prompts, read_prompts

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/x.py, or configs/x.py:argument")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of this run's files; made if missing")
_PROMPTS = flags.DEFINE_multi_string(
    "prompts", [], "sample: a prompt, or a .txt file with one a line; may be given again"
)
_NEGATIVE = flags.DEFINE_string(
    "negative_prompt", None, "sample: what samples are steered away from"
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the resolved config and stop")
_TRACEBACK = flags.DEFINE_bool("traceback", False, "show where an error came from")
_CACHE = flags.DEFINE_string(
    "compile_cache", ".cache/xla", "folder of compiled programs, kept between runs; '' for none"
)
_USAGE = (
    "usage: python launch.py MODE --config=configs/x.py[:argument] --workdir=DIR "
    "[--config.a.b=value ...] [--dry_run]\nMODE is one of "
)
# What a user can cause and mend. Anything else is a fault of ours, shown with its traceback.
_USER_ERRORS = (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError)


def main(argv: list[str] | None = None) -> None:
    """Runs one mode. Exit status 2 for a wrong command line, 1 for a run that failed."""
    argv = list(sys.argv if argv is None else argv)
    try:
        mode, config, workdir = _parse(argv)
    except (KeyError, AttributeError) as error:  # ml_collections, of an override's path
        key = str(error).strip("\"'")
        _stop(f"unknown config key {key!r}: --dry_run prints the keys there are.", 2)
    except (flags.Error, *_USER_ERRORS, IndexError) as error:
        _stop(error, 2)
    if _DRY_RUN.value:
        print(json.dumps(json.loads(config.to_json()), indent=2))
        return
    logging.set_verbosity(logging.WARNING)
    # TFDS warns of each dataset that is not there yet.
    logging.get_absl_logger().addFilter(lambda record: "tensorflow_datasets" not in record.pathname)
    try:
        _prepare_jax()
        workdir.mkdir(parents=True, exist_ok=True)
        COMMANDS.get(mode)(config, workdir)
    except _USER_ERRORS as error:
        _stop(error, 1)


def _parse(argv: list[str]) -> tuple[str, ConfigDict, Path]:
    rest = flags.FLAGS(argv)[1:]
    if len(rest) != 1:
        raise ValueError(f"expected one MODE, got {rest}.\n{_USAGE}{', '.join(COMMANDS.names())}.")
    if rest[0] not in COMMANDS.names():
        COMMANDS.get(rest[0])
    if _CONFIG.value is None:
        raise ValueError(
            "--config is missing: name a file, for example --config=configs/bounce.py."
        )
    if not _WORKDIR.value:
        raise ValueError("--workdir is missing: name the folder for this run's files.")
    return rest[0], _with_prompts(_CONFIG.value, rest[0]), Path(_WORKDIR.value)


def _with_prompts(config: Any, mode: str) -> ConfigDict:
    """The config with the prompts of the command line; a name that ends in .txt is a file."""
    given = [p for name in _PROMPTS.value for p in _prompts(name)]
    if mode != "sample" and (given or _NEGATIVE.value is not None):
        raise ValueError(f"--prompts and --negative_prompt are for sample, not for {mode}.")
    if given:
        config.sample.prompts = tuple(given)
    if _NEGATIVE.value is not None:
        config.sample.negative_prompt = clean_prompts([_NEGATIVE.value])[0]
    return config


def _prompts(name: str) -> list[str]:
    return read_prompts(name) if name.endswith(".txt") else clean_prompts([name])


def _prepare_jax() -> None:
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", str(Path(_CACHE.value).absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    initialize_distributed()


def _stop(error: BaseException | str, status: int) -> NoReturn:
    if isinstance(error, BaseException) and flags.FLAGS.is_parsed() and _TRACEBACK.value:
        raise error
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    if "Traceback (most recent call last)" in text:  # absl quotes what a config file raised
        text = text.strip().splitlines()[-1].partition(": ")[2]
    print(f"error: {text}", file=sys.stderr)
    sys.exit(status)
