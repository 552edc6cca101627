# SPDX-License-Identifier: Apache-2.0
"""Locating of model folders: a local path, the Hugging Face cache, or a download."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from mmdisco_jax.porting.folders import (
    CONFIG,
    checked_component,
    missing_files,
    shard_names,
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
    """Finds a local folder that holds all the components of `source`.

    A folder is used as it is. An id is looked up in the local Hugging Face cache, and only missing
    files are downloaded: one set of weights for each model, safetensors if there are any.

    Args:
      source: a folder, or an id such as "stable-diffusion-v1-5/stable-diffusion-v1-5".
      models: components with a config.json and weights; "" is the folder itself.
      others: components without weights, such as tokenizers and schedulers.
      setting: name of the config value that holds `source`, for error messages.
      variant: a variant such as "fp16".
      revision: a branch, tag or commit of the id; by default "main".

    Raises:
      FileNotFoundError: files are missing; the message names them and where to put them.
    """
    for name in (*models, *others):
        checked_component(name)
    text, folder = str(source), Path(source).expanduser()
    needed = _NeededFiles(models, others, variant)
    if text and folder.is_dir():
        lacking = needed.lacking(folder)
        if lacking:
            raise FileNotFoundError(
                f"{setting}={text!r}: the folder lacks {', '.join(lacking)}. Put them there, in "
                "the layout that diffusers writes (one subfolder a component), or set "
                f"{setting} to another folder."
            )
        return folder
    if not _ID.fullmatch(text):
        raise FileNotFoundError(
            f"{setting}={text!r}: no such folder, nor the form of a Hugging Face id (NAME/MODEL). "
            f"Put a folder in diffusers layout there, with {', '.join(needed.lacking(None))}, or "
            f"set {setting} to one."
        )
    cached = _cached(text, revision, needed)
    lacking = needed.lacking(cached)
    if cached is not None and not lacking:
        return cached
    return _downloaded(text, revision, needed, setting, lacking)


class _NeededFiles:
    """The files of a repository that are needed."""

    def __init__(self, models: Sequence[str], others: Sequence[str], variant: str | None):
        self.models, self.others, self.variant = models, others, variant

    def lacking(self, folder: Path | None) -> list[str]:
        return missing_files(folder, self.models, others=self.others, variant=self.variant)

    def choose(self, names: Collection[str]) -> list[str]:
        """Picks the files to download first from all relative paths of a repository."""
        inside = {name: _inside(names, name) for name in (*self.models, *self.others)}
        chosen = [_INDEX] if _INDEX in names else []
        for name in self.models:
            found = [CONFIG, weight_file(inside[name], self.variant)]
            chosen += [_path(name, file) for file in found if file in inside[name]]
        return chosen + [_path(name, file) for name in self.others for file in inside[name]]

    def shards(self, folder: Path) -> list[str]:
        """Lists the weight files that the indices name, once the indices are in `folder`."""
        found = []
        for name in self.models:
            files = [path.name for path in (folder / name).glob("*")]
            weights = weight_file(files, self.variant)
            if weights is not None:
                found += [_path(name, part) for part in shard_names(folder / name, weights)]
        return found


def _cached(source: str, revision: str | None, needed: _NeededFiles) -> Path | None:
    """The snapshot in the local cache, complete or not; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    for name in [*(_path(model, CONFIG) for model in needed.models), _INDEX]:
        try:
            found = try_to_load_from_cache(source, name, revision=revision)
        except ValueError:  # not an id
            return None
        if isinstance(found, str):
            return Path(found).parents[name.count("/")]
    return None


def _downloaded(
    source: str, revision: str | None, needed: _NeededFiles, setting: str, lacking: Sequence[str]
) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        # Not `list_repo_files`, which retries for half a minute without a network.
        found = HfApi().model_info(source, revision=revision).siblings or []
        names = [file.rfilename for file in found]
        folder = Path(
            snapshot_download(source, revision=revision, allow_patterns=needed.choose(names))
        )
        shards = needed.shards(folder)
        if shards:
            snapshot_download(source, revision=revision, allow_patterns=shards)
    except Exception as error:  # the exception types of its HTTP client differ between releases
        raise FileNotFoundError(
            f"{setting}={source!r}: is no folder here, this machine's Hugging Face cache lacks "
            f"{', '.join(lacking)} of it, and they could not be downloaded "
            f"({_first_line(error)}). Where there is a network, run\n"
            f"  hf download {source} --local-dir FOLDER\n"
            f"copy FOLDER to this machine and set {setting}=FOLDER; or set HF_HOME to a cache "
            "that holds them."
        ) from error
    lacking = needed.lacking(folder)
    if lacking:
        raise FileNotFoundError(
            f"{setting}={source!r}: the repository lacks {', '.join(lacking)}. Set {setting} to "
            "one in diffusers layout."
        )
    return folder


def _inside(names: Collection[str], component: str) -> list[str]:
    """File names directly in a component's folder."""
    prefix = f"{component}/" if component else ""
    rests = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return [rest for rest in rests if "/" not in rest]


def _path(component: str, file: str | None) -> str:
    return f"{component}/{file}" if component else str(file)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
