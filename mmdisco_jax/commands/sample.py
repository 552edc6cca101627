# SPDX-License-Identifier: Apache-2.0
"""`sample`: every variant of the config from the same noise, as raw clips and as media files."""

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

from mmdisco_jax import build, parallel
from mmdisco_jax.build import Config
from mmdisco_jax.commands.compile_clock import CompileClock
from mmdisco_jax.commands.conditions import Given, read_each_given
from mmdisco_jax.commands.gallery import write_page
from mmdisco_jax.commands.prompts import Prompts, check_prompts, encode_prompts, prompt_of
from mmdisco_jax.commands.upscale import enlarger
from mmdisco_jax.export.clips import read_shards, shard_path, write_shard
from mmdisco_jax.export.gallery import write_media
from mmdisco_jax.export.names import media_stem
from mmdisco_jax.io import to_int16, write_bytes
from mmdisco_jax.types import AV


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Told:
    """What a variant's samples are conditioned on: media files, prompts, or neither."""

    given: Given | None
    prompts: Prompts | None

    def rows(self, numbers: np.ndarray) -> dict[str, Any]:
        """The conditions of these samples, as `build.sampler`'s programs take them."""
        given = {"given": self.given.rows(numbers)} if self.given else {}
        return given | (self.prompts.rows(numbers) if self.prompts else {})


def run(config: Config, workdir: Path) -> None:
    """Writes workdir/VARIANT/samples_*.npz (video uint8, audio int16), mp4 and wav files.

    Shards that exist are kept, so an interrupted run goes on; a workdir sampled with another
    config is refused. A modality that `config.sample.condition` gives is written as it was given,
    with the sample of the other. `timing.json` tells what compiling and each step cost. A batch is
    cut over the devices of its process, and processes share the batches among them, in a common
    workdir.
    """
    text = json.dumps(json.loads(config.to_json_best_effort()), indent=1, sort_keys=True)
    mesh, names = _mesh(config), build.variant_names(config)
    check_prompts(config)
    build.require_files(config, names)
    given, prompts = read_each_given(config, names), encode_prompts(config)
    told = {name: _Told(given=given[name], prompts=prompts) for name in names}
    _, base_params = build.bases(config, mesh)
    discriminators = {name: build.discriminator_params(config, name) for name in names}
    _claim(workdir, config, given)
    timing = {}
    for variant in names:
        timing[variant] = _sample_variant(
            config, workdir / variant, (base_params, discriminators[variant]), mesh, told[variant]
        )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("all samples are written")
    if jax.process_index():
        return
    for variant in timing:
        _write_media(config, workdir / variant)
    write_bytes(workdir / "config.json", text.encode())
    write_bytes(workdir / "timing.json", json.dumps(timing, indent=1).encode())
    if prompts:
        print(f"look and listen: open {write_page(config, workdir)} in a browser")
    print(f"samples of {', '.join(timing)} are in {workdir}")


def _claim(workdir: Path, config: Config, given: dict[str, Given | None]) -> None:
    """Refuses a folder whose shards another config made."""
    mine = json.loads(config.to_json_best_effort())
    made_by = ["schedules", "texts", "codecs", "bases", "discriminator", "guidance", "weights"]
    made_by.append("sample")
    if config.super_resolution:
        made_by.append("super_resolution")
    mine = {k: mine[k] for k in made_by}
    for name in ("num_samples", "num_media", "force_schedule"):  # none decides what a sample is
        mine["sample"].pop(name)
    files = {v: [list(file) for file in one.files] for v, one in given.items() if one}
    mine |= {"conditions": files} if files else {}
    note = workdir / "made_by.json"
    made = note.exists() and any(workdir.glob("*/samples_*.npz"))
    if made and json.loads(note.read_text()) != mine:
        raise ValueError(f"{workdir} holds samples of another config: use another workdir.")
    write_bytes(note, json.dumps(mine, indent=1).encode())


def _sample_variant(
    config: Config,
    folder: Path,
    weights: tuple,
    mesh: Mesh,
    told: _Told,
) -> dict:
    """Fills `folder`, named as its variant, with shards; seconds spent compiling and running.

    weights: of the base models, and of the discriminator.
    """
    variant, given = folder.name, told.given
    settings = build.variant_settings(config, variant)
    size = settings.batch_size
    total = told.prompts.num_samples if told.prompts else settings.num_samples
    mine = range(jax.process_index() * size, total, jax.process_count() * size)
    missing = [first for first in mine if not shard_path(folder, first).exists()]
    if not missing:
        return {}
    codecs = build.codecs(config)
    programs = build.sampler(config, variant)
    enlarge = enlarger(config)
    weights, cut = _placed(weights, mesh, size)

    def arguments(numbers: np.ndarray) -> tuple:
        conditions = told.rows(numbers)
        rest = (conditions,) if conditions else ()
        return *weights, *jax.device_put((numbers.astype(np.int32), *rest), cut)

    start = time.perf_counter()
    with CompileClock() as clock:
        run_sampler = programs.compile(*arguments(np.arange(size)))
    spent = {"compile_seconds": time.perf_counter() - start, "compile_seconds_saved": clock.saved}
    start = time.perf_counter()
    with tqdm(total=len(missing) * programs.num_steps, desc=variant, unit="step") as bar:
        for first in missing:
            numbers = first + np.arange(size)
            latents = jax.device_get(run_sampler(*arguments(numbers), on_steps=bar.update))
            _require_finite(latents, variant, first)
            clips = {
                "video": codecs["video"].decode(latents["video"]),
                "audio": to_int16(codecs["audio"].decode(latents["audio"])),
            }
            kept = numbers[numbers < total]
            clips = {m: x[: len(kept)] for m, x in clips.items()}
            if given:
                clips = given.put(clips, kept)
            if not given or given.modality != "video":
                clips["video"] = enlarge(clips["video"], kept)
            write_shard(folder, first, clips)
    return spent | {"seconds": time.perf_counter() - start, "samples": len(missing) * size}


def _mesh(config: Config) -> Mesh:
    """This process's devices; `config.mesh.fsdp` of them share the weights."""
    fsdp = config.mesh.fsdp
    return parallel.make_mesh({"data": -1, "fsdp": fsdp}, devices=jax.local_devices())


def _placed(weights: Any, mesh: Mesh, size: int) -> tuple[Any, NamedSharding]:
    """Weights on the devices of this process, and how a batch is cut over them."""
    whole = parallel.replicated(mesh)
    cut = NamedSharding(mesh, parallel.BATCH) if size % mesh.size == 0 else whole
    return jax.device_put(weights, parallel.tree_shardings(weights, mesh)), cut


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


def _write_media(config: Config, folder: Path) -> None:
    """The first clips as mp4 with sound and as wav."""
    fps, rate = config.clip.fps, config.clip.sample_rate_hz
    number = 0
    for shard in read_shards(folder, config.sample.num_media):
        for video, audio in zip(shard["video"], shard["audio"], strict=True):
            stem = folder / media_stem(number, prompt_of(config, number))
            if not stem.with_suffix(".mp4").exists():
                write_media(stem, video, audio, fps=fps, sample_rate_hz=rate)
            number += 1
