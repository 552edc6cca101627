# SPDX-License-Identifier: Apache-2.0
"""From a Hugging Face id or a local path to a folder that holds what is needed, or one error."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from mmdisco_jax.porting.folders import (
    CONFIG,
    checked_component,
    missing,
    parts_of,
    weight_file,
)

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_INDEX = "model_index.json"


def locate(
    source: str | Path,
    *,
    models: Sequence[str],
    others: Sequence[str] = (),
    setting: str,
    variant: str | None = None,
    revision: str | None = None,
) -> Path:
    """The local folder of `source`, in which all the components are complete.

    A folder is taken as it is. An id is looked up in Hugging Face's cache on this machine, and
    only what that lacks is downloaded: of each model one set of weights, safetensors if there are.

    Args:
      source: a folder, or an id such as "stable-diffusion-v1-5/stable-diffusion-v1-5".
      models: components with a config.json and weights; "" is the folder itself.
      others: components without weights: tokenizers, schedulers.
      setting: the config value that `source` came from, for errors.
      variant: such as "fp16".
      revision: a branch, tag or commit of the id; by default "main".

    Raises:
      FileNotFoundError: files are missing; it names them and where to put them.
    """
    for name in (*models, *others):
        checked_component(name)
    text, folder = str(source), Path(source).expanduser()
    wanted = _Wanted(models, others, variant)
    if text and folder.is_dir():
        lacking = wanted.lacking(folder)
        if lacking:
            raise FileNotFoundError(
                f"{setting}={text!r}: the folder lacks {_listed(lacking)}. Put them there, in the "
                f"layout that diffusers writes (one subfolder a component), or set {setting} to "
                "another folder."
            )
        return folder
    if not _ID.fullmatch(text):
        raise FileNotFoundError(
            f"{setting}={text!r}: no such folder, nor the form of a Hugging Face id (NAME/MODEL). "
            f"Put a folder in diffusers layout there, with {_listed(wanted.lacking(None))}, or set "
            f"{setting} to one."
        )
    cached = _cached(text, revision, wanted)
    lacking = wanted.lacking(cached)
    if cached is not None and not lacking:
        return cached
    return _downloaded(text, revision, wanted, setting, lacking)


class _Wanted:
    """Which files of a repository are needed."""

    def __init__(self, models: Sequence[str], others: Sequence[str], variant: str | None):
        self.models, self.others, self.variant = models, others, variant

    def lacking(self, folder: Path | None) -> list[str]:
        return missing(folder, self.models, others=self.others, variant=self.variant)

    def choose(self, names: Collection[str]) -> list[str]:
        """Of all files of a repository, by relative path, those to get first."""
        inside = {name: _inside(names, name) for name in (*self.models, *self.others)}
        chosen = [_INDEX] if _INDEX in names else []
        for name in self.models:
            found = [CONFIG, weight_file(inside[name], self.variant)]
            chosen += [_path(name, file) for file in found if file in inside[name]]
        return chosen + [_path(name, file) for name in self.others for file in inside[name]]

    def shards(self, folder: Path) -> list[str]:
        """The weight files that the indices name, once these are in `folder`."""
        found = []
        for name in self.models:
            files = [path.name for path in (folder / name).glob("*")]
            weights = weight_file(files, self.variant)
            if weights is not None:
                found += [_path(name, part) for part in parts_of(folder / name, weights)]
        return found


def _cached(source: str, revision: str | None, wanted: _Wanted) -> Path | None:
    """The snapshot in this machine's cache, complete or not; asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    for name in [*(_path(model, CONFIG) for model in wanted.models), _INDEX]:
        try:
            found = try_to_load_from_cache(source, name, revision=revision)
        except ValueError:  # no id after all
            return None
        if isinstance(found, str):
            return Path(found).parents[name.count("/")]
    return None


def _downloaded(
    source: str, revision: str | None, wanted: _Wanted, setting: str, lacking: Sequence[str]
) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        # `list_repo_files` tries for half a minute where there is no network, and says so.
        found = HfApi().model_info(source, revision=revision).siblings or []
        names = [file.rfilename for file in found]
        folder = Path(
            snapshot_download(source, revision=revision, allow_patterns=wanted.choose(names))
        )
        shards = wanted.shards(folder)
        if shards:
            snapshot_download(source, revision=revision, allow_patterns=shards)
    except Exception as error:  # its HTTP client's own kinds differ between releases
        raise FileNotFoundError(
            f"{setting}={source!r}: is no folder here, this machine's Hugging Face cache lacks "
            f"{_listed(lacking)} of it, and they could not be downloaded "
            f"({_first_line(error)}). Where there is a network, run\n"
            f"  hf download {source} --local-dir FOLDER\n"
            f"copy FOLDER to this machine and set {setting}=FOLDER; or set HF_HOME to a cache "
            "that holds them."
        ) from error
    lacking = wanted.lacking(folder)
    if lacking:
        raise FileNotFoundError(
            f"{setting}={source!r}: the repository lacks {_listed(lacking)}. Set {setting} to one "
            "in diffusers layout."
        )
    return folder


def _inside(names: Collection[str], component: str) -> list[str]:
    """File names directly in a component's folder."""
    prefix = f"{component}/" if component else ""
    rests = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [rest for rest in rests if "/" not in rest]


def _path(component: str, file: str | None) -> str:
    return f"{component}/{file}" if component else str(file)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
