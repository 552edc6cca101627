# SPDX-License-Identifier: Apache-2.0
"""`sample`: every variant of the experiment from the same noise, as raw clips and media files."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from tqdm import tqdm

from mmdisco_jax import parallel
from mmdisco_jax.export.clips import read_shards, shard_path, write_shard
from mmdisco_jax.export.gallery import write_media
from mmdisco_jax.export.names import media_stem
from mmdisco_jax.io import write_bytes
from mmdisco_jax.system import System
from mmdisco_jax.tasks.compile_clock import CompileClock
from mmdisco_jax.tasks.conditions import Given, read_each_given
from mmdisco_jax.tasks.gallery import write_page
from mmdisco_jax.tasks.prompts import Prompts, check_prompts, encode_prompts, prompt_of, repeated
from mmdisco_jax.tasks.upscale import Enlarge, enlarger
from mmdisco_jax.types import AV

_SECTIONS = ("clip", "bases", "discriminator", "guidance", "weights", "sample")


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


def run(system: System, workdir: Path) -> None:
    """Writes workdir/VARIANT/samples_*.npz (video uint8, audio int16), mp4 and wav files.

    Shards that exist are kept, so an interrupted run resumes; a workdir sampled with another config
    is refused. A modality that `sample.condition` gives is written as it was given, with the sample
    of the other. `timing.json` holds what compiling and each step cost. A batch is cut over the
    devices of its process, and processes share the batches among them, in a common workdir.
    """
    experiment = system.experiment
    names = experiment.variant_names
    system = System(experiment, local_mesh(system))
    check_prompts(system)
    system.require_files(names)
    given, prompts = read_each_given(system, names), encode_prompts(system)
    conditions = {name: Conditions(given=given[name], prompts=prompts) for name in names}
    denoisers = {name: system.denoiser(name, no_text(system, name, prompts)) for name in names}
    _claim(workdir, system, given)
    timing = {}
    for name in names:
        timing[name] = sample_variant(
            system, workdir / name, denoisers[name], conditions[name], enlarger(system)
        )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("all samples are written")
    if jax.process_index():
        return
    for name in timing:
        _write_media(system, workdir / name)
    text = json.dumps(experiment.resolved, indent=1, sort_keys=True)
    write_bytes(workdir / "config.json", text.encode())
    write_bytes(workdir / "timing.json", json.dumps(timing, indent=1).encode())
    if experiment.sample.num_media:
        print(f"look and listen: open {write_page(system, workdir)} in a browser")
    print(f"samples of {', '.join(timing)} are in {workdir}")


def local_mesh(system: System) -> Mesh:
    """Devices of this process; `config.mesh.fsdp` of them share the weights."""
    shape = {"data": -1, "fsdp": system.experiment.mesh.fsdp}
    return parallel.make_mesh(shape, devices=jax.local_devices())


def no_text(system: System, variant: str, prompts: Prompts | None) -> AV | None:
    """Embeddings of the negative prompt for a batch of this variant; None without text."""
    if prompts is None:
        return None
    return repeated(prompts.no_text, system.experiment.variant(variant).batch_size)


def _claim(workdir: Path, system: System, given: dict[str, Given | None]) -> None:
    """Refuses a folder whose shards another config made."""
    resolved = json.loads(json.dumps(system.experiment.resolved))
    mine = {k: resolved[k] for k in _SECTIONS}
    if system.experiment.super_resolution:
        mine["super_resolution"] = resolved["super_resolution"]
    for name in ("num_samples", "num_media", "force_schedule"):  # none decides what a sample is
        mine["sample"].pop(name)
    files = {v: [list(file) for file in one.files] for v, one in given.items() if one}
    mine |= {"conditions": files} if files else {}
    note = workdir / "made_by.json"
    made = note.exists() and any(workdir.glob("*/samples_*.npz"))
    if made and json.loads(note.read_text()) != mine:
        raise ValueError(f"{workdir} holds samples of another config: use another workdir.")
    write_bytes(note, json.dumps(mine, indent=1).encode())


def sample_variant(
    system: System, folder: Path, denoise: Any, conditions: Conditions, enlarge: Enlarge
) -> dict:
    """Fills `folder`, named as its variant, with shards; seconds spent compiling and running."""
    variant, given = folder.name, conditions.given
    settings = system.experiment.variant(variant)
    size, prompts = settings.batch_size, conditions.prompts
    total = prompts.num_samples if prompts else settings.num_samples
    mine = range(jax.process_index() * size, total, jax.process_count() * size)
    missing = [first for first in mine if not shard_path(folder, first).exists()]
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
    with tqdm(total=len(missing) * run_sampler.num_steps, desc=variant, unit="step") as bar:
        for first in missing:
            numbers = first + np.arange(size)
            latents = jax.device_get(
                run_sampler(denoise, **arguments(numbers), on_steps=bar.update)
            )
            _require_finite(latents, variant, first)
            kept = numbers[numbers < total]
            clips = {m: x[: len(kept)] for m, x in system.decode(latents).items()}
            if given:
                clips = given.put(clips, kept)
            if "video" in clips and (not given or given.modality != "video"):
                clips["video"] = enlarge(clips["video"], kept)
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


def _write_media(system: System, folder: Path) -> None:
    """The first clips as mp4 with sound and as wav."""
    clip, sample = system.experiment.clip, system.experiment.sample
    number = 0
    for shard in read_shards(folder, sample.num_media):
        for video, audio in zip(shard["video"], shard["audio"], strict=True):
            stem = folder / media_stem(number, prompt_of(sample, number))
            if not stem.with_suffix(".mp4").exists():
                write_media(stem, video, audio, fps=clip.fps, sample_rate_hz=clip.sample_rate_hz)
            number += 1
