# SPDX-License-Identifier: Apache-2.0
"""`sample`: every variant of the experiment from the same noise, as raw clips and media files."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mmdisco_jax import parallel
from mmdisco_jax.checks import listed
from mmdisco_jax.export.clips import num_samples, read_shards, write_shard
from mmdisco_jax.export.gallery import write_media
from mmdisco_jax.export.names import media_stem
from mmdisco_jax.io import write_bytes
from mmdisco_jax.locks import one_owner
from mmdisco_jax.processes import wait
from mmdisco_jax.progress import Progress
from mmdisco_jax.provenance import Record, announce
from mmdisco_jax.system import System
from mmdisco_jax.tasks.compile_clock import CompileClock
from mmdisco_jax.tasks.conditions import Given, read_each_given
from mmdisco_jax.tasks.gallery import titles, write_page
from mmdisco_jax.tasks.prompts import Prompts, check_prompts, encode_prompts, repeated
from mmdisco_jax.tasks.records import (
    NOTE,
    earlier_code,
    is_whole,
    read_note,
    sample_differences,
    sampling_record,
)
from mmdisco_jax.tasks.upscale import Enlarge, enlarger
from mmdisco_jax.types import AV


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of a variant's samples: media files, prompts, or neither."""

    given: Given | None = None
    prompts: Prompts | None = None

    def arguments(self, numbers: np.ndarray) -> dict[str, Any]:
        """Arguments `cond` and `given` of the sampler for these samples."""
        return {
            "cond": self.prompts.rows(numbers) if self.prompts else None,
            "given": self.given.rows(numbers) if self.given else None,
        }


@one_owner
def run(system: System, workdir: Path) -> None:
    """Writes workdir/VARIANT/samples_*.npz (video uint8, audio int16), mp4 and wav files.

    Shards that exist are kept, so an interrupted run resumes, and a larger `num_samples` or another
    variant adds to them. `made_by.json` says what made them, with the SHA-256 of all weights; a
    workdir whose samples something else made is refused. A modality that `sample.condition` gives
    is written as it was given, with the sample of the other. `timing.json` holds what compiling and
    each step cost. A batch is cut over the devices of its process, and processes share the batches
    among them, in a common workdir.
    """
    experiment = system.experiment
    names = experiment.variant_names
    system = System(experiment, local_mesh(system))
    check_prompts(system)
    check_media(system)
    system.require_files(names)
    record = sampling_record(system, names)
    announce(record)
    given, prompts = read_each_given(system, names), encode_prompts(system)
    conditions = {name: Conditions(given=given[name], prompts=prompts) for name in names}
    denoisers = {name: system.denoiser(name, no_text(system, name, prompts)) for name in names}
    _claim(workdir, record, given)
    timing = {}
    for name in names:
        timing[name] = sample_variant(
            system, workdir / name, denoisers[name], conditions[name], enlarger(system)
        )
    wait("all samples are written")
    for name in timing:
        _write_media(system, workdir / name)
    wait("all media files are written")
    if jax.process_index():
        return
    text = json.dumps(experiment.resolved, indent=1, sort_keys=True)
    write_bytes(workdir / "config.json", text.encode())
    _write_timing(workdir / "timing.json", timing)
    if experiment.sample.num_media:
        print(f"look and listen: open {write_page(system, workdir)} in a browser")
    print(f"samples of {', '.join(timing)} are in {workdir}")


def _write_timing(path: Path, timing: dict[str, dict]) -> None:
    """Writes what each variant cost; one that was all there keeps what it cost when it was made."""
    try:
        before = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        before = {}
    made = {name: spent for name, spent in timing.items() if spent}
    write_bytes(path, json.dumps(before | made, indent=1).encode())


def local_mesh(system: System) -> Mesh:
    """Devices of this process; `config.mesh.fsdp` of them share the weights."""
    shape = {"data": -1, "fsdp": system.experiment.mesh.fsdp}
    return parallel.make_mesh(shape, devices=jax.local_devices())


def no_text(system: System, variant: str, prompts: Prompts | None) -> AV | None:
    """Embeddings of the negative prompt for a batch of this variant; None without text."""
    if prompts is None:
        return None
    return repeated(prompts.no_text, system.experiment.variant(variant).batch_size)


def _claim(workdir: Path, record: Record, given: dict[str, Given | None]) -> None:
    """Writes the note on what makes the samples; refuses a folder whose shards others made."""
    for name, one in given.items():
        if one:
            record["variants"][name]["conditions"] = [list(file) for file in one.files]
    note = read_note(workdir)
    if any(workdir.glob("*/samples_*.npz")):
        if note is None or not is_whole(note):
            raise ValueError(
                f"{workdir} holds samples, and no {NOTE} with the digests of the weights that made "
                "them, as an older release wrote them or it was removed: new samples could be of "
                "other weights. Use another workdir."
            )
        if lines := sample_differences(note, record):
            raise ValueError(
                f"{workdir} holds samples of another config or other weights: "
                f"{listed(lines, separator='; ')}. Use another workdir, or set these back."
            )
        record["variants"] = note["variants"] | record["variants"]
        record["earlier"] = earlier_code(note, record)
    if jax.process_index() == 0:
        write_bytes(workdir / NOTE, json.dumps(record, indent=1).encode())


def sample_variant(
    system: System, folder: Path, denoise: Any, conditions: Conditions, enlarge: Enlarge
) -> dict:
    """Fills `folder`, named as its variant, with shards; seconds spent compiling and running."""
    variant, given = folder.name, conditions.given
    settings = system.experiment.variant(variant)
    size, prompts = settings.batch_size, conditions.prompts
    total = prompts.num_samples if prompts else settings.num_samples
    mine = range(jax.process_index() * size, total, jax.process_count() * size)
    # A run for fewer samples may have left a part of a batch.
    missing = [first for first in mine if num_samples(folder, first) < min(size, total - first)]
    if not missing:
        return {}
    mesh = system.mesh or local_mesh(system)
    denoise, cut = _placed(denoise, mesh, size)

    def arguments(numbers: np.ndarray) -> dict[str, Any]:
        rows = {"indices": numbers.astype(np.int32), **conditions.arguments(numbers)}
        return jax.device_put(rows, cut)

    start = time.perf_counter()
    with CompileClock() as clock:
        run_sampler = system.sampler(variant).compile(
            denoise,
            system.shapes,
            seed=settings.seed,
            given_weight=settings.condition.weight,
            **arguments(np.arange(size)),
        )
    spent = {"compile_seconds": time.perf_counter() - start, "compile_seconds_saved": clock.saved}
    start = time.perf_counter()
    with Progress(total=len(missing) * run_sampler.num_steps, what=variant) as bar:
        for first in missing:
            numbers = first + np.arange(size)
            latents = jax.device_get(
                run_sampler(denoise, **arguments(numbers), on_steps=bar.update)
            )
            _require_finite(latents, variant, first)
            kept = numbers[numbers < total]
            decoded = system.decode(latents).items()
            clips = {system.signals.get(m, m): x[: len(kept)] for m, x in decoded}
            if given:
                clips = given.put(clips, kept)
            if "video" in clips and (not given or given.signal != "video"):
                clips["video"] = enlarge(clips["video"], kept)
            _remove_media(folder, kept)
            write_shard(folder, first, clips)
    return spent | {"seconds": time.perf_counter() - start, "samples": len(missing) * size}


def _placed(denoise: Any, mesh: Mesh, size: int) -> tuple[Any, NamedSharding]:
    """The denoiser on the devices of this process, and how a batch is cut over them."""
    whole = parallel.replicated(mesh)
    cut = NamedSharding(mesh, parallel.BATCH) if size % mesh.size == 0 else whole
    return jax.device_put(denoise, parallel.tree_shardings(denoise, mesh)), cut


def _require_finite(latents: AV, variant: str, first: int) -> None:
    """ValueError that names the first sample with a number that is not finite."""
    for m, x in latents.items():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=tuple(range(1, x.ndim))))
        if len(bad):
            raise ValueError(
                f"the {m} of sample {first + bad[0]} of variant {variant!r} is not finite, and no "
                "file was written for its batch: lower its scales, set samplers.*.clip, or check "
                "the weights."
            )


def check_media(system: System) -> None:
    """ValueError if media are to be written of modalities that are no video with a sound."""
    count, signals = system.experiment.sample.num_media, system.signals
    if count and sorted(signals.values()) != ["audio", "video"]:
        raise ValueError(
            f"sample.num_media={count} writes films of one video [f h w 3] and one mono sound, but "
            f"of {list(system.modalities)} these are {signals}: set sample.num_media=0, and read "
            "the samples from the .npz files."
        )


def _remove_media(folder: Path, numbers: np.ndarray) -> None:
    """Removes media files of earlier samples of these numbers, whose shards are gone."""
    for number in numbers:
        stem = media_stem(int(number))
        for path in [*folder.glob(f"{stem}.*"), *folder.glob(f"{stem}-*.*")]:
            path.unlink()


def _write_media(system: System, folder: Path) -> None:
    """This process's share of the first clips, as mp4 with sound and as wav."""
    clip, sample = system.experiment.clip, system.experiment.sample
    names = titles(system, folder.parent, sample.num_media)
    number = 0
    for shard in read_shards(folder, sample.num_media) if sample.num_media else ():
        for video, audio in zip(shard["video"], shard["audio"], strict=True):
            stem = folder / media_stem(number, names[number] if names else None)
            mine = number % jax.process_count() == jax.process_index()
            if mine and not stem.with_suffix(".mp4").exists():
                write_media(stem, video, audio, fps=clip.fps, sample_rate_hz=clip.sample_rate_hz)
            number += 1
