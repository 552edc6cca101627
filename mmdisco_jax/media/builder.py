# SPDX-License-Identifier: Apache-2.0
"""Base classes of TFDS dataset builders that cut clips from media files.

A dataset subclasses `MediaOptions` to list its input files and `MediaBuilder` to name those
options; data/folder is an example.
"""

import dataclasses
import hashlib
import inspect
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from mmdisco_jax.media.cutting import ClipSpec
from mmdisco_jax.media.entries import Entry
from mmdisco_jax.media.pieces import Piece, read_piece
from mmdisco_jax.media.policies import Policies

# Size of the clips of one shard before compression; TFDS keeps one shard in memory.
_SHARD_BYTES = 128 << 20

CutEntries = Sequence[tuple[Entry, Piece]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MediaOptions:
    """Options of a media dataset: its folder, the clips to cut, and the policies for bad files.

    Attributes:
      folder: the folder that holds the files.
      clip_seconds, fps, height, width, sample_rate_hz, spatial, channels: as in `ClipSpec`.
      on_missing_file, ..., on_odd_rate: as in `Policies`.
      seed: decides which files go to which split.

    Raises:
      ValueError: `ClipSpec` or `Policies` refuses a value.
    """

    folder: str
    clip_seconds: float
    fps: float
    height: int
    width: int
    sample_rate_hz: int
    spatial: str = "pad"
    channels: str = "mono"
    on_missing_file: str = Policies.on_missing_file
    on_corrupt: str = Policies.on_corrupt
    on_missing_video: str = Policies.on_missing_video
    on_missing_audio: str = Policies.on_missing_audio
    on_short: str = Policies.on_short
    on_duplicate: str = Policies.on_duplicate
    on_silent: str = Policies.on_silent
    on_odd_rate: str = Policies.on_odd_rate
    seed: int = 0

    def __post_init__(self) -> None:
        self.spec()
        self.policies()

    def entries(self) -> list[Entry]:
        """Lists the inputs to cut, in order; raises FileNotFoundError if there are none."""
        raise NotImplementedError(f"{type(self).__name__} lists no entries.")

    def shares(self) -> dict[str, float]:
        """Shares of the splits, for entries without a split of their own; see `assign_splits`."""
        return {"train": 1.0}

    def spec(self) -> ClipSpec:
        """Returns the specification of the clips to cut."""
        return ClipSpec(**_fields_of(self, ClipSpec))

    def policies(self) -> Policies:
        """Returns the policies for files that have a problem."""
        return Policies(**_fields_of(self, Policies))


def _fields_of(options: Any, wanted: type) -> dict[str, Any]:
    """Those options that are fields of the dataclass `wanted`."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(wanted)}


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """TFDS config that carries `MediaOptions`; its name names the folder of the records."""

    options: MediaOptions


class MediaBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """TFDS builder of clips cut from media files; `prepare` hands it the pieces to write.

    A record holds `video` uint8 [f h w 3], `audio` int16 [samples] or [samples 2], `file`,
    `caption`, and `start_seconds` float64 [1] on the file's own clock.
    """

    OPTIONS: ClassVar[type[MediaOptions]]
    VERSION = tfds.core.Version("2.0.0")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # TFDS would find this by importlib_resources, which it needs but does not declare.
        cls.code_path = epath.Path(inspect.getfile(cls))
        super().__init_subclass__(**kwargs)

    @classmethod
    def config(cls, **options: Any) -> Config:
        """Config for `OPTIONS(**options)`, whose name changes when a file or an option changes."""
        chosen = cls.OPTIONS(**options)
        root = Path(chosen.folder).expanduser().resolve()
        named = {**dataclasses.asdict(chosen), "folder": root.name}
        digest = _digest([named, [entry_state(entry) for entry in chosen.entries()]])
        stem = re.sub(r"[^A-Za-z0-9_]+", "_", root.name)[:40]
        name = f"{stem}_{chosen.height}x{chosen.width}_{chosen.fps:g}fps_{digest}"
        return Config(name=name, description="Clips of media files.", options=chosen)

    @property
    def options(self) -> MediaOptions:
        """Options that this builder was made with."""
        if not isinstance(self.builder_config, Config):
            raise ValueError(f"{self.name} has no default config; pass config=config(...).")
        return self.builder_config.options

    def set_pieces(self, cut_entries: CutEntries, reports: dict[str, Any]) -> None:
        """Sets the pieces that become records, and the reports to write beside them as JSON.

        Args:
          cut_entries: (entry, its piece) for each input.
          reports: file name -> content.
        """
        self._cut_entries, self._reports = cut_entries, reports

    def _info(self) -> tfds.core.DatasetInfo:
        options, tensor = self.options, tfds.features.Tensor
        spec = options.spec()
        features = {
            "video": tensor(shape=spec.video_shape, dtype=np.uint8, encoding="bytes"),
            "audio": tensor(shape=spec.audio_shape, dtype=np.int16, encoding="bytes"),
            "file": tfds.features.Text(),
            "caption": tfds.features.Text(),
            # As bytes, because TFDS's plain floats have 32 bits: 0.1 ms of error after an hour.
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

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        del dl_manager  # nothing is downloaded
        for name, content in self._reports.items():
            text = json.dumps(content, indent=1, ensure_ascii=False)
            (self.data_path / name).write_text(text)
        spec = self.options.spec()
        per_shard = max(1, _SHARD_BYTES // spec.num_bytes)
        splits = sorted({entry.split for entry, _ in self._cut_entries}, reverse=True)
        return {split: self._shards(split, per_shard, spec) for split in splits}

    def _shards(self, split: str, per_shard: int, spec: ClipSpec) -> list[Callable]:
        """One generator of (key, example) a shard; shard sizes differ by at most one clip."""
        of_split = [(entry, piece) for entry, piece in self._cut_entries if entry.split == split]
        total = sum(piece.num_clips for _, piece in of_split)
        number = -(-total // per_shard)
        bounds = [total * i // number for i in range(number + 1)]

        def clips_of_shard(first: int, last: int) -> Iterator[tuple[int, dict[str, Any]]]:
            """Clips first..last-1 of the split, counted over all of its pieces."""
            start = 0
            for entry, piece in of_split:
                end = start + piece.num_clips
                if first < end and start < last:
                    low, high = max(first - start, 0), min(last, end) - start
                    for offset, window in enumerate(read_piece(piece, spec, low, high)):
                        yield start + low + offset, _example(entry, window)
                start = end

        pairs = itertools.pairwise(bounds)
        return [lambda first=a, last=b: clips_of_shard(first, last) for a, b in pairs]


def entry_state(entry: Entry) -> list[Any]:
    """Everything that decides an entry's clips: its fields, and its files' sizes and times.

    Used as part of a hash that names a dataset or its intermediate files.
    """
    state: list[Any] = [entry.name, entry.start_seconds, entry.max_clips, entry.caption]
    state += [entry.split, entry.group]
    for path in (entry.path, entry.sound_path):
        if path is not None and os.path.exists(path):  # Path.exists raises for a name too long
            state += [path.stat().st_size, path.stat().st_mtime_ns]
    return state


def cut_key(options: MediaOptions, entries: Sequence[Entry]) -> str:
    """Short hash of everything that decides the pieces.

    Policies that only leave files out are not part of it, so changing them reuses the pieces.
    """
    cut = [dataclasses.asdict(options.spec()), options.policies().substitutes()]
    return _digest([cut, [entry_state(entry) for entry in entries]])


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:10]


def _example(entry: Entry, window: Any) -> dict[str, Any]:
    return {
        "video": window.video,
        "audio": window.audio,
        "file": entry.name,
        "caption": entry.caption,
        "start_seconds": np.array([window.start_seconds]),
    }
