# SPDX-License-Identifier: Apache-2.0
"""What every dataset of media files shares: options, record, and shards from pieces.

A dataset is a subclass of `MediaOptions` that lists its entries, and a subclass of `MediaBuilder`
that names those options: see data/folder.
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

# Of clips before compression: TFDS keeps one shard in memory.
_SHARD_BYTES = 128 << 20

Cut = Sequence[tuple[Entry, Piece]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MediaOptions:
    """What to read, how to cut it, and what to do with files that have a problem.

    `folder` holds the files. `clip_seconds`, `fps` (Hz), `height`, `width` (pixels),
    `sample_rate_hz`, `spatial` and `channels` are those of `ClipSpec`; the `on_...` are those of
    `Policies`. `seed` chooses the splits. Raises ValueError for what these refuse.
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
        """What to cut, in order; FileNotFoundError if there is nothing."""
        raise NotImplementedError(f"{type(self).__name__} lists no entries.")

    def shares(self) -> dict[str, float]:
        """The share of each split, for entries that do not name theirs; as `assign_splits`."""
        return {"train": 1.0}

    def spec(self) -> ClipSpec:
        """The clips to cut."""
        return ClipSpec(**_chosen(self, ClipSpec))

    def policies(self) -> Policies:
        """What to do with files that have a problem."""
        return Policies(**_chosen(self, Policies))


def _chosen(options: Any, wanted: type) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(wanted)}


@dataclasses.dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """TFDS's view of `MediaOptions`; its name is the folder the records lie in."""

    options: MediaOptions


class MediaBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Builder of clips cut from media files; `prepare` gives it the pieces.

    A record has video uint8 [f h w 3], audio int16 [samples] or [samples 2], file, caption and
    start_seconds (float64 [1], on the file's clock).
    """

    OPTIONS: ClassVar[type[MediaOptions]]
    VERSION = tfds.core.Version("2.0.0")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # TFDS would find this by importlib_resources, which it needs but does not declare.
        cls.code_path = epath.Path(inspect.getfile(cls))
        super().__init_subclass__(**kwargs)

    @classmethod
    def config(cls, **options: Any) -> Config:
        """The config for `OPTIONS(**options)`; its name changes when a file or an option does."""
        chosen = cls.OPTIONS(**options)
        root = Path(chosen.folder).expanduser().resolve()
        named = {**dataclasses.asdict(chosen), "folder": root.name}
        digest = _digest([named, [entry_state(entry) for entry in chosen.entries()]])
        stem = re.sub(r"[^A-Za-z0-9_]+", "_", root.name)[:40]
        name = f"{stem}_{chosen.height}x{chosen.width}_{chosen.fps:g}fps_{digest}"
        return Config(name=name, description="Clips of media files.", options=chosen)

    @property
    def options(self) -> MediaOptions:
        """The options that this builder was made with."""
        if not isinstance(self.builder_config, Config):
            raise ValueError(f"{self.name} has no default config; pass config=config(...).")
        return self.builder_config.options

    def give(self, cut: Cut, reports: dict[str, Any]) -> None:
        """The pieces that become records, and texts that are written beside them as JSON."""
        self._cut, self._reports = cut, reports

    def _info(self) -> tfds.core.DatasetInfo:
        options, tensor = self.options, tfds.features.Tensor
        spec = options.spec()
        features = {
            "video": tensor(shape=spec.video_shape, dtype=np.uint8, encoding="bytes"),
            "audio": tensor(shape=spec.audio_shape, dtype=np.int16, encoding="bytes"),
            "file": tfds.features.Text(),
            "caption": tfds.features.Text(),
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

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        del dl_manager  # nothing is downloaded
        for name, content in self._reports.items():
            text = json.dumps(content, indent=1, ensure_ascii=False)
            (self.data_path / name).write_text(text)
        spec = self.options.spec()
        per_shard = max(1, _SHARD_BYTES // spec.num_bytes)
        splits = sorted({entry.split for entry, _ in self._cut}, reverse=True)
        return {split: self._shards(split, per_shard, spec) for split in splits}

    def _shards(self, split: str, per_shard: int, spec: ClipSpec) -> list[Callable]:
        """One generator of (key, example) a shard; shards of one split differ by one clip."""
        mine = [(entry, piece) for entry, piece in self._cut if entry.split == split]
        total = sum(piece.num_clips for _, piece in mine)
        number = -(-total // per_shard)
        bounds = [total * i // number for i in range(number + 1)]

        def shard(first: int, last: int) -> Iterator[tuple[int, dict[str, Any]]]:
            start = 0
            for entry, piece in mine:
                end = start + piece.num_clips
                if first < end and start < last:
                    low, high = max(first - start, 0), min(last, end) - start
                    for offset, window in enumerate(read_piece(piece, spec, low, high)):
                        yield start + low + offset, _example(entry, window)
                start = end

        pairs = itertools.pairwise(bounds)
        return [lambda first=a, last=b: shard(first, last) for a, b in pairs]


def entry_state(entry: Entry) -> list[Any]:
    """What decides an entry's clips: its files by name, size and time, and its fields."""
    state: list[Any] = [entry.name, entry.start_seconds, entry.max_clips, entry.caption]
    state += [entry.split, entry.group]
    for path in (entry.path, entry.sound_path):
        if path is not None and os.path.exists(path):  # Path.exists raises for a name too long
            state += [path.stat().st_size, path.stat().st_mtime_ns]
    return state


def cut_key(options: MediaOptions, entries: Sequence[Entry]) -> str:
    """A short hash of what decides the pieces; policies that only leave files out are no part."""
    cut = [dataclasses.asdict(options.spec()), options.policies().stand_ins()]
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
