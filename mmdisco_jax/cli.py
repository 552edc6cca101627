# SPDX-License-Identifier: Apache-2.0
"""Command line: `mmdisco MODE --config=NAME --workdir=DIR`, with errors as sentences."""

import difflib
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from mmdisco_jax.faults import message
from mmdisco_jax.io import is_remote, require_local
from mmdisco_jax.resources import cache_dir, config_names, in_run
from mmdisco_jax.tasks import ALONE, TASKS

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
  release    write a folder with weights, config and model card, to be published
  convert    convert weights between PyTorch's files and this project's, both ways
  toy        the paper's study on two-dimensional worlds
  package.module:function   a mode of your own, called as function(system, workdir)

flags:
  --config=CONFIG        a shipped config by name, a path, or a released folder; arguments
                         follow a colon
  --config.a.b=value     override a setting; --dry_run shows all of them
  --workdir=DIR          folder of this run's files; made if it is missing
  --prompts=TEXT         sample: a prompt, or a .txt file with one a line; may be repeated
  --negative_prompt=TEXT sample: what samples are steered away from
  --given_video=FILE     sample: sound for the pictures of a file, or of each file of a folder
  --given_audio=FILE     sample: pictures for a sound
  --dry_run              print the resolved config and stop
  --traceback            show where an error came from
  --distributed=auto     join the processes of a TPU pod, GKE, SLURM or MPI, where there are
                         several; env: by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
                         JAX_PROCESS_ID only; off: never
  --compile_cache=DIR    folder of compiled programs, kept between runs; '' for none
                         (default: {cache})

examples:
  mmdisco sample --config=bounce_demo --workdir=runs/demo
  mmdisco train --config=folder:path=/my/videos,train=video --workdir=runs/mine/video
  mmdisco sample --config=vggsound_audioldm_animatediff --workdir=runs/dog --prompts="a dog barks"

shipped configs: {configs}"""
_USAGE = "usage: mmdisco MODE --config=CONFIG[:arguments] --workdir=DIR; mmdisco --help tells more."
# What is true after Ctrl-C in each mode.
_AGAIN = {
    "prepare": "goes on with the files that are left; a simulated dataset begins again",
    "train": "goes on from the last checkpoint, or begins where there is none yet",
    "sample": "draws the batches that are missing",
    "evaluate": "measures everything again; nothing was written",
    "bench": "measures everything again; nothing was written",
    "convert": "begins again; nothing was written",
    "release": "begins again; nothing was written",
    "toy": "begins again; nothing was written",
}


def main(argv: list[str] | None = None) -> None:
    """Runs one mode.

    Exit status 2 for a wrong command line, 1 for a run that failed, 130 after Ctrl-C.
    """
    argv = list(sys.argv if argv is None else argv)
    if {"--help", "-h", "--helpfull", "help"} & set(argv[1:]):
        print(_HELP.format(cache=cache_dir() / "xla", configs=", ".join(config_names())))
        return
    try:
        _main(argv)
    except KeyboardInterrupt:
        mode = next((a for a in argv[1:] if not a.startswith("-")), "")
        again = _AGAIN.get(mode, "begins again, or goes on where this mode can")
        print(f"interrupted; the same command {again}.", file=sys.stderr)
        sys.exit(130)


def _main(argv: list[str]) -> None:
    traceback = "--traceback" in argv
    try:
        values, mode, config = _parse(argv)
    except flags.Error as error:
        _stop(ValueError(str(error)), 2, traceback)
    except Exception as error:
        _stop(error, 2, traceback)
    if values.dry_run:
        print(json.dumps(json.loads(config.to_json_best_effort()), indent=2))
        return
    logging.set_verbosity(logging.WARNING)
    # TFDS warns of each dataset that is not there yet.
    logging.get_absl_logger().addFilter(lambda record: "tensorflow_datasets" not in record.pathname)
    try:
        _prepare_jax(values.compile_cache, values.distributed)
        from jax import process_index

        from mmdisco_jax.experiment import Experiment
        from mmdisco_jax.processes import together
        from mmdisco_jax.system import System

        with together():
            system = System(Experiment.from_config(config))
            workdir = Path(values.workdir)
            workdir.mkdir(parents=True, exist_ok=True)
            if mode not in ALONE or not process_index():
                TASKS.get(mode)(system, workdir)
    except Exception as error:
        _stop(error, 1, traceback)


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
    config = _with_prompts(values, positional[0])
    _require_local(values, positional[0], config)
    return values, positional[0], config


def _require_local(values: flags.FlagValues, mode: str, config: ConfigDict) -> None:
    """ValueError for a remote path anywhere, before anything is done."""
    from mmdisco_jax.experiment import local_paths

    require_local({"--workdir": values.workdir} | local_paths(config.to_dict()), mode)


def _define(values: flags.FlagValues) -> None:
    def string(name: str, default: str | None) -> None:
        flags.DEFINE_string(name, default, "", flag_values=values)

    string("workdir", None)
    string("negative_prompt", None)
    string("given_video", None)
    string("given_audio", None)
    string("distributed", "auto")
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
    _set_given(values, mode, config)
    for name, path in config.weights.items():
        config.weights[name] = in_run(path, values.workdir)
    return config


def _set_given(values: flags.FlagValues, mode: str, config: Any) -> None:
    """Makes every variant sample the other modality of the media of --given_MODALITY.

    Two models on their own would not know of what is given, so their variants are left out.
    """
    found = {m: values[f"given_{m}"].value for m in ("audio", "video")}
    found = {m: path for m, path in found.items() if path}
    if not found:
        return
    if mode != "sample" or len(found) > 1:
        reason = "one of them at a time" if mode == "sample" else f"for sample, not for {mode}"
        raise ValueError(f"--given_video and --given_audio are {reason}.")
    ((modality, path),) = found.items()
    config.sample.condition.update(given=modality, media=path)
    joint = any("name" not in base.get("codec", {"name": ""}) for base in config.bases.values())
    variants = config.sample.variants
    with variants.unlocked():
        for name in [n for n in variants if not joint and not _is_guided(config.sample, n)]:
            del variants[name]
        for name in variants:
            if "condition" in variants[name]:
                del variants[name]["condition"]
    if not variants:
        raise ValueError(
            f"no variant of this config can make the rest of a given {modality}: it needs a joint "
            "model, or guidance (sample.scales above 0 in one of sample.variants)."
        )


def _is_guided(sample: Any, variant: str) -> bool:
    scales = sample.scales.to_dict() | dict(sample.variants[variant].get("scales", {}))
    return any(scales.values())


def _prepare_jax(cache: str, distributed: str) -> None:
    import jax

    from mmdisco_jax.cluster import join

    if cache:
        jax.config.update(
            "jax_compilation_cache_dir",
            cache if is_remote(cache) else str(Path(cache).expanduser().absolute()),
        )
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    join(distributed)


def _stop(error: BaseException, status: int, traceback: bool) -> NoReturn:
    if traceback:
        raise error
    print(message(error), file=sys.stderr)
    sys.exit(status)
