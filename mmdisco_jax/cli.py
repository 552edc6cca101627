# SPDX-License-Identifier: Apache-2.0
"""Command line: `mmdisco MODE --config=NAME --workdir=DIR`, with errors as sentences."""

import difflib
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mmdisco_jax.resources import cache_dir, config_names
from mmdisco_jax.tasks import TASKS

_HELP = """\
Joint audio-video generation guided by a discriminator, in JAX.

usage: mmdisco MODE --config=CONFIG[:arguments] --workdir=DIR [--config.a.b=value ...]
       (python launch.py MODE ... is the same)

modes:
  prepare    write the dataset of a config, and on request its latents and generated fakes
  train      train what config.train.target names; the same command resumes
  sample     draw samples of every variant, as raw clips, mp4 and wav
  evaluate   measure the samples, beside real clips; writes a table and a page
  bench      time or estimate the cost of steps
  convert    convert weights between PyTorch's files and this project's, both ways
  toy        the paper's study on two-dimensional worlds
  package.module:function   a mode of your own, called as function(system, workdir)

flags:
  --config=CONFIG        a shipped config by name, or a path; arguments follow a colon
  --config.a.b=value     override a setting; --dry_run shows all of them
  --workdir=DIR          folder of this run's files; made if it is missing
  --prompts=TEXT         sample: a prompt, or a .txt file with one a line; may be repeated
  --negative_prompt=TEXT sample: what samples are steered away from
  --dry_run              print the resolved config and stop
  --traceback            show where an error came from
  --compile_cache=DIR    folder of compiled programs, kept between runs; '' for none
                         (default: {cache})

examples:
  mmdisco sample --config=bounce_demo --workdir=runs/demo
  mmdisco train --config=folder:path=/my/videos,train=video --workdir=runs/mine/video
  mmdisco sample --config=vggsound_audioldm_animatediff --workdir=runs/dog --prompts="a dog barks"

shipped configs: {configs}"""
_USAGE = "usage: mmdisco MODE --config=CONFIG[:arguments] --workdir=DIR; mmdisco --help tells more."
# Errors that a user can cause and mend. Any other is a fault of ours, shown with its traceback.
_USER_ERRORS = (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError)


def main(argv: list[str] | None = None) -> None:
    """Runs one mode. Exit status 2 for a wrong command line, 1 for a run that failed."""
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-h", "--helpfull", "help"} & set(argv[1:]):
        print(_HELP.format(cache=cache_dir() / "xla", configs=", ".join(config_names())))
        return
    traceback = "--traceback" in argv
    try:
        values, mode, config = _parse(argv)
    except (flags.Error, *_USER_ERRORS, IndexError) as error:
        _stop(error, 2, traceback)
    if values.dry_run:
        print(json.dumps(json.loads(config.to_json_best_effort()), indent=2))
        return
    logging.set_verbosity(logging.WARNING)
    # TFDS warns of each dataset that is not there yet.
    logging.get_absl_logger().addFilter(lambda record: "tensorflow_datasets" not in record.pathname)
    try:
        _prepare_jax(values.compile_cache)
        from mmdisco_jax.experiment import Experiment
        from mmdisco_jax.system import System

        system = System(Experiment.from_config(config))
        workdir = Path(values.workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        TASKS.get(mode)(system, workdir)
    except _USER_ERRORS as error:
        _stop(error, 1, traceback)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes where it stopped.", file=sys.stderr)
        sys.exit(130)


def _parse(argv: list[str]) -> tuple[flags.FlagValues, str, ConfigDict]:
    """Flags, mode and completed config with its overrides."""
    values = flags.FlagValues()
    config_text, rest = _taken(argv, "--config")
    config = ConfigDict()
    if config_text is not None:
        from mmdisco_jax.experiment import load_config  # slow: it imports JAX

        config = load_config(config_text)
    _define(values)
    positional = _parsed(values, rest, config)[1:]
    if len(positional) != 1:
        raise ValueError(f"expected one MODE, got {positional}.\n{_USAGE}")
    if positional[0] not in TASKS.names():
        TASKS.get(positional[0])  # a "package.module:function" of one's own, or an error
    if config_text is None:
        names = ", ".join(config_names())
        raise ValueError(f"--config is missing: name a file, or one of {names}.")
    if not values.workdir:
        raise ValueError("--workdir is missing: name the folder for this run's files.")
    return values, positional[0], _with_prompts(values, positional[0])


def _define(values: flags.FlagValues) -> None:
    def string(name: str, default: str | None) -> None:
        flags.DEFINE_string(name, default, "", flag_values=values)

    string("workdir", None)
    string("negative_prompt", None)
    string("compile_cache", str(cache_dir() / "xla"))
    flags.DEFINE_multi_string("prompts", [], "", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "", flag_values=values)
    flags.DEFINE_bool("traceback", False, "", flag_values=values)


def _taken(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of the flag `name`, and the other arguments."""
    found, rest = None, []
    arguments = iter(argv)
    for argument in arguments:
        if argument == name:
            found = next(arguments, None)
        elif argument.startswith(f"{name}="):
            found = argument.removeprefix(f"{name}=")
        else:
            rest.append(argument)
    return found, rest


def _parsed(values: flags.FlagValues, argv: list[str], config: ConfigDict) -> list[str]:
    """Positional arguments; flags and overrides of the config go into `values`."""
    try:
        # Defining the flag of a config reads the overrides' paths already.
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        return values(argv)
    except (KeyError, AttributeError) as error:  # ml_collections, of an override's path
        key = str(error).splitlines()[0].strip("\"'")
        raise ValueError(_unknown_key(key, argv, config)) from error


def _unknown_key(key: str, argv: list[str], config: ConfigDict) -> str:
    """Error message for an override of a key that the config lacks."""
    known = _dotted(config.to_dict())
    given = [a.removeprefix("--config.").partition("=")[0] for a in argv if "--config." in a]
    wrong = next((name for name in given if name not in known), key)
    near = difflib.get_close_matches(wrong, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown config key {wrong!r}{hint}: --dry_run prints the keys there are."


def _dotted(tree: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in tree.items():
        names.append(f"{prefix}{key}")
        if isinstance(value, dict):
            names += _dotted(value, f"{prefix}{key}.")
    return names


def _with_prompts(values: flags.FlagValues, mode: str) -> ConfigDict:
    """The config with the prompts of the command line; a name that ends in .txt is a file."""
    from mmdisco_jax.text.prompts import clean_prompts, read_prompts

    config: Any = values.config
    given = [
        p
        for name in values.prompts
        for p in (read_prompts(name) if name.endswith(".txt") else clean_prompts([name]))
    ]
    if mode != "sample" and (given or values.negative_prompt is not None):
        raise ValueError(f"--prompts and --negative_prompt are for sample, not for {mode}.")
    if given:
        config.sample.prompts = tuple(given)
    if values.negative_prompt is not None:
        config.sample.negative_prompt = clean_prompts([values.negative_prompt])[0]
    return config


def _prepare_jax(cache: str) -> None:
    import jax

    from mmdisco_jax.parallel import initialize_distributed

    if cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(cache).expanduser().absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    initialize_distributed()


def _stop(error: BaseException, status: int, traceback: bool) -> NoReturn:
    if traceback:
        raise error
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    print(f"error: {text}", file=sys.stderr)
    sys.exit(status)
