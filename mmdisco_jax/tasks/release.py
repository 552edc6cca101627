# SPDX-License-Identifier: Apache-2.0
"""`release`: one folder with weights, config and model card, from which `sample` works anywhere."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from mmdisco_jax.export.card import Card, WeightFile, write_card
from mmdisco_jax.io import digest, replacing_folder, write_bytes
from mmdisco_jax.metrics.api import Result
from mmdisco_jax.metrics.evaluation import Report
from mmdisco_jax.porting.weights import read_metadata
from mmdisco_jax.resources import RELEASED_CONFIG, RELEASED_WEIGHTS
from mmdisco_jax.system import System

_SUFFIX = ".safetensors"
# What samples need not, and what says where things lie on this computer.
_PRIVATE = {
    "data": ("dir", "latents", "options.folder", "options.table", "options.files"),
    "train": ("init_from",),
    "evaluate": ("pool", "weights"),
    "convert": ("architecture", "source", "target"),
    "release": ("metrics",),
    "weights": ("fakes",),
}
# Sections on which measures rest; of `sample`, all but how much is drawn.
_MEASURED = ("clip", "bases", "discriminator", "guidance", "sample")
_AMOUNTS = ("num_samples", "num_media", "batch_size")


def run(system: System, workdir: Path) -> None:
    """Writes workdir/config.json, README.md and weights/, as a whole or not at all.

    `--config=WORKDIR` then names this experiment on any computer. Weight files are copied as they
    are; models that the config takes from Hugging Face by name stay names. The card has the form of
    the Hugging Face Hub, and quotes the measures of `release.metrics`.

    Raises:
      ValueError: no licence, weights in a folder of this computer, or measures of another config.
      FileNotFoundError: weights or measures that are not there.
      FileExistsError: `workdir` is not empty.
    """
    if jax.process_index():
        return
    experiment = system.experiment
    if not experiment.release.license:
        raise ValueError(
            "config.release.license is empty: name the licence of these weights as the Hugging "
            "Face Hub does, such as --config.release.license=apache-2.0 (or cc-by-nc-4.0, other)."
        )
    report = _measures(system)
    config, files = _relative(system)
    with replacing_folder(workdir) as folder:
        (folder / RELEASED_WEIGHTS).mkdir()
        for name, source in files.items():
            shutil.copyfile(source, folder / name)
        text = json.dumps(config, indent=1, sort_keys=True)
        write_bytes(folder / RELEASED_CONFIG, text.encode())
        write_card(folder / "README.md", _card(system, files, report))
    size = sum(path.stat().st_size for path in Path(workdir).rglob("*") if path.is_file())
    print(f"{workdir}: config.json, README.md and {len(files)} weight files, {size / 1e6:.1f} MB")
    print(f"try it: mmdisco sample --config={workdir} --workdir=runs/released")
    print(f"to publish it: read {workdir}/README.md, then: hf upload YOUR_NAME/MODEL {workdir}")
    if any("config" in read_metadata(source) for source in files.values()):
        print(
            "note: the weight files carry the config of their training, with its paths.",
            file=sys.stderr,
        )


def _relative(system: System) -> tuple[dict[str, Any], dict[str, str]]:
    """The config with weights by their names in the folder; {name in the folder: file}."""
    config = json.loads(json.dumps(system.experiment.resolved))
    for section, keys in _PRIVATE.items():
        for key in keys:
            *path, last = key.split(".")
            here = config[section]
            for part in path:
                here = here.get(part, {})
            if last in here:
                here[last] = type(here[last])()
    # Shipped files are known by their place in the package, from any folder.
    config["weights"] |= {
        name: path for name, path in system.experiment.weights.items() if name != "fakes"
    }
    files: dict[str, str] = {}

    def named(place: tuple[str, ...], path: str) -> str:
        if not path.endswith(_SUFFIX):
            return path
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"config.{'.'.join(place)}={path!r}: no such file. Train it, or name another."
            )
        name = next((n for n, known in files.items() if Path(known).samefile(path)), "")
        name = name or f"{RELEASED_WEIGHTS}/{_stem(place)}{_SUFFIX}"
        files[name] = path
        return name

    config = _mapped(config, named)
    for name, path in config["weights"].items():
        if path and Path(path).is_dir():
            raise ValueError(
                f"config.weights.{name}={path!r} is a folder of this computer: name the model's "
                "repository on Hugging Face, from which others can load it."
            )
    return config, files


def _stem(place: tuple[str, ...]) -> str:
    """File name of the weights at this place of the config."""
    return place[1] if place[0] == "weights" else "_".join(place)


def _mapped(tree: Any, change: Callable[[tuple[str, ...], str], str], *place: str) -> Any:
    """The tree with every string in it changed."""
    if isinstance(tree, Mapping):
        return {key: _mapped(value, change, *place, key) for key, value in tree.items()}
    return change(place, tree) if isinstance(tree, str) else tree


def _measures(system: System) -> Report | None:
    """The measures that `release.metrics` names; None for none."""
    path = system.experiment.release.metrics
    if not path:
        return None
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"config.release.metrics={path!r}: no such file. Give the metrics.json that `evaluate` "
            "wrote."
        )
    recorded = json.loads(Path(path).read_text())
    mine, theirs = system.experiment.resolved, recorded["config"]
    wrong = [name for name in _MEASURED if _what(mine, name) != _what(theirs, name)]
    if wrong:
        raise ValueError(
            f"{path} has measures of another experiment: its {', '.join(wrong)} differ from this "
            "config's. Sample and evaluate with the config that is released."
        )
    _require_same_weights(system, path, recorded)
    rows = {name: tuple(Result(**row) for row in some) for name, some in recorded["rows"].items()}
    return Report(rows=rows)


def _what(config: Mapping[str, Any], section: str) -> Any:
    found = json.loads(json.dumps(config[section]))
    if section == "sample":
        for name in _AMOUNTS:
            found.pop(name, None)
    return found


def _require_same_weights(system: System, path: str, recorded: Mapping[str, Any]) -> None:
    """Compares weights by what was recorded: contents where they are, else their paths."""
    known = _digests(recorded.get("made_by", {}))
    for name, mine in system.experiment.weights.items():
        before = recorded["config"]["weights"].get(name, "")
        if name in known:
            other = Path(mine).is_file() and digest(mine) not in known[name]
        else:
            other = Path(before).name != Path(mine).name
        if name != "fakes" and mine and other:
            raise ValueError(
                f"{path} has measures of other weights of {name} ({before}) than {mine}: sample "
                "and evaluate with the weights that are released."
            )


def _digests(tree: Any) -> dict[str, set[str]]:
    """SHA-256 of all files in a record, by the last part of their dotted names."""
    found: dict[str, set[str]] = {}
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(value, Mapping) and set(value) == {"path", "sha256"}:
            found.setdefault(name, set()).add(value["sha256"])
        else:
            for inner, digests in _digests(value).items():
                found.setdefault(inner, set()).update(digests)
    return found


def _card(system: System, files: Mapping[str, str], report: Report | None) -> Card:
    experiment = system.experiment
    weights = tuple(
        WeightFile(name=name, sha256=digest(path), metadata=read_metadata(path))
        for name, path in files.items()
    )
    licences = {}
    repositories = []
    for name, base in experiment.bases.items():
        source = experiment.weights.get(name, "")
        if source and not source.endswith(_SUFFIX):
            repositories.append(source)
            licences[f"{name}, {source}"] = base.LICENCE
        elif base.LICENCE:
            licences[name] = base.LICENCE
    shown = experiment.variant_names[-1] if report else ""
    return Card(
        settings=dataclasses.asdict(experiment.release),
        dataset=experiment.data.name,
        clip=experiment.clip,
        reads_text=system.reads_text,
        weights=weights,
        repositories=tuple(repositories),
        licences=licences,
        table=report.markdown() if report else "",
        measures={result.name: result.value for result in report[shown]} if report else {},
        measured=shown,
    )
