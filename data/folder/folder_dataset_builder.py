# SPDX-License-Identifier: Apache-2.0
"""TFDS builder of `folder`: fixed windows cut from the media files of a folder.

Files are read in the order of their names and split whole, so no two splits share a file. What was
left out, and why, is written to `skipped.json` beside the shards.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from mmdisco_jax.inputs.media import ClipSpec, MediaError, MissingAudioError, iter_windows

MEDIA_SUFFIXES = (
    ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
POLICIES = ("error", "skip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to read and how to cut it.

    `folder` is searched recursively for media files. `clip_seconds`, `fps` (Hz), `height`, `width`
    (pixels), `sample_rate_hz` and `spatial` ("pad" or "centre_crop") are those of `ClipSpec`.
    `on_missing_audio` (no sound stream) and `on_bad_file` (unreadable, damaged or shorter than one
    clip) are "error" or "skip". `test_fraction` of the files, in [0, 1], go to `test`; which ones
    depends on `seed` and the files' names. Raises ValueError, or FileNotFoundError without media.
    """

    folder: str
    clip_seconds: float
    fps: float
    height: int
    width: int
    sample_rate_hz: int
    spatial: str = "pad"
    on_missing_audio: str = "error"
    on_bad_file: str = "error"
    test_fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("on_missing_audio", "on_bad_file"):
            if getattr(self, name) not in POLICIES:
                raise ValueError(
                    f"folder: {name} is {getattr(self, name)!r}, but must be one of {POLICIES}."
                )
        if not 0.0 <= self.test_fraction <= 1.0:
            raise ValueError(
                f"folder: test_fraction is {self.test_fraction}, but must be in [0, 1]; 0.1 keeps "
                "a tenth of the files for testing."
            )
        self.spec()

    def spec(self) -> ClipSpec:
        """The clips to cut."""
        return ClipSpec(
            clip_seconds=self.clip_seconds,
            fps=self.fps,
            height=self.height,
            width=self.width,
            sample_rate_hz=self.sample_rate_hz,
            spatial=self.spatial,
        )


def media_files(folder: str | Path) -> list[Path]:
    """The media files under `folder`, sorted by relative name.

    Raises FileNotFoundError for a missing folder or one without media files.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; pass the folder that holds the media files.")
    files = [path for path in root.rglob("*") if path.suffix.lower() in MEDIA_SUFFIXES]
    if not files:
        raise FileNotFoundError(
            f"no media files under {root} (looked for {', '.join(MEDIA_SUFFIXES)}); pass another "
            "folder or convert the files."
        )
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def split_files(files: list[str], *, test_fraction: float, seed: int) -> dict[str, list[str]]:
    """{"train": [...], "test": [...]}: round(test_fraction * n) files go to `test`, whole.

    The files with the smallest hash of (seed, name) go there, so a file added later moves few of
    the others. At least one file goes to each split where both are wanted and there are two.
    """

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"{seed}:{name}".encode()).digest()

    num_test = round(test_fraction * len(files))
    if len(files) > 1 and 0 < test_fraction < 1:
        num_test = min(max(num_test, 1), len(files) - 1)
    chosen = set(sorted(files, key=rank)[:num_test])
    splits = {
        "train": [name for name in files if name not in chosen],
        "test": [name for name in files if name in chosen],
    }
    return {split: names for split, names in splits.items() if names}


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """TFDS's view of `Options`; its name is the folder the records lie in."""

    options: Options


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builder of `folder`; see README.md for the contents of a record."""

    OPTIONS = Options
    VERSION = tfds.core.Version("1.0.0")
    # TFDS would find this by importlib_resources, which it needs but does not declare.
    code_path = epath.Path(__file__)

    @staticmethod
    def config(**options: Any) -> Config:
        """The config for `Options(**options)`; its name changes when a file or an option does."""
        chosen = Options(**options)
        root = Path(chosen.folder).expanduser().resolve()
        state = [
            (path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
            for path in media_files(root)
        ]
        text = json.dumps([{**dataclasses.asdict(chosen), "folder": root.name}, state])
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        stem = re.sub(r"[^A-Za-z0-9_]+", "_", root.name)[:40]
        name = f"{stem}_{chosen.height}x{chosen.width}_{chosen.fps:g}fps_{digest}"
        return Config(name=name, description="Windows of media files.", options=chosen)

    @property
    def options(self) -> Options:
        """The options that this builder was made with."""
        if not isinstance(self.builder_config, Config):
            raise ValueError("folder has no default config; pass config=Builder.config(...).")
        return self.builder_config.options

    def _info(self) -> tfds.core.DatasetInfo:
        options = self.options
        spec, tensor = options.spec(), tfds.features.Tensor
        video_shape = (spec.num_frames, spec.height, spec.width, 3)
        features = {
            "video": tensor(shape=video_shape, dtype=np.uint8, encoding="bytes"),
            "audio": tensor(shape=(spec.num_samples,), dtype=np.int16, encoding="bytes"),
            "file": tfds.features.Text(),
            # As bytes: TFDS's plain floats have 32 bits, a tenth of a millisecond after an hour.
            "start_seconds": tensor(shape=(1,), dtype=np.float64, encoding="bytes"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Clips cut from media files by presentation time.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                **{**dataclasses.asdict(options), "folder": Path(options.folder).name}
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        options = self.options
        root = Path(options.folder).expanduser()
        names = [path.relative_to(root).as_posix() for path in media_files(root)]
        splits = split_files(names, test_fraction=options.test_fraction, seed=options.seed)
        skipped: list[dict[str, Any]] = []  # of all splits: each rewrites the report
        return {
            split: self._generate_examples(split, files, skipped) for split, files in splits.items()
        }

    def _generate_examples(
        self, split: str, files: list[str], skipped: list[dict[str, Any]]
    ) -> Iterator[tuple[int, dict]]:
        key = 0
        for name in files:
            for example in self._windows(split, name, skipped):
                yield key, example
                key += 1
        report = {"count": len(skipped), "files": skipped}
        (self.data_path / "skipped.json").write_text(json.dumps(report, indent=1))
        if not key:
            reasons = [skip["reason"] for skip in skipped if skip["split"] == split]
            raise ValueError(
                f"the split {split!r} would be empty: all of its {len(files)} files were skipped, "
                f"first because of: {reasons[0]}"
            )

    def _windows(
        self, split: str, name: str, skipped: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """The clips of one file; a failure is raised or noted, as the options say."""
        options = self.options
        path = Path(options.folder).expanduser() / name
        kept = 0
        try:
            for window in iter_windows(path, options.spec()):
                yield {
                    "video": window.video,
                    "audio": window.audio,
                    "file": name,
                    "start_seconds": np.array([window.start_seconds]),
                }
                kept += 1
            if not kept:
                raise MediaError(
                    f"{path}: sound and picture together are shorter than one clip of "
                    f"{options.clip_seconds} s; leave it out or set on_bad_file='skip'."
                )
        except MediaError as error:
            missing = isinstance(error, MissingAudioError)
            policy = options.on_missing_audio if missing else options.on_bad_file
            if policy == "error":
                raise
            skipped.append({"file": name, "split": split, "reason": str(error), "clips_kept": kept})
