# SPDX-License-Identifier: Apache-2.0
"""End to end, shrunk: prepare, sample, evaluate and look, with random weights."""

import errno
import json
import os
from typing import Any

import jax
import numpy as np
import pytest

from mmdisco_jax import losses, parallel
from mmdisco_jax.base_models.api import schedule_record
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.inputs.cache import StaleCacheError
from mmdisco_jax.porting.weights import save_weights
from mmdisco_jax.system import System
from mmdisco_jax.tasks import evaluate, prepare, sample
from mmdisco_jax.tasks.fakes import write_fakes
from tests.support import training_processes as processes
from tests.support.randoms import random_params


def system_of(config: Any) -> System:
    return System(Experiment.from_config(config))


def init_of(config: Any, name: str) -> Any:
    """The function key -> random parameters of a base model or of the discriminator."""
    system = system_of(config)
    _, init = system.discriminator if name == "discriminator" else system.definitions[name]
    return init


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounce")
    config: Any = load_config("configs/bounce.py")
    config.data.dir = str(folder / "data")
    config.data.options.num_train, config.data.options.num_test = 1, 64
    for section in (*config.bases.values(), config.discriminator):
        section.width, section.num_heads = 32, 2
    config.bases.video.depth = config.bases.audio.depth = 1
    config.discriminator.tower_depth = config.discriminator.fusion_depth = 1
    config.sample.num_samples, config.sample.batch_size, config.sample.num_steps = 3, 2, 3
    config.sample.num_media = 1
    config.evaluate.replicates = 20
    config.evaluate.levels, config.evaluate.level_pairs = (100, 400), 32
    config.evaluate.metrics = ("bounce", "proxy_frechet_video", "proxy_frechet_audio")
    for i, name in enumerate((*config.bases, "discriminator")):
        params = random_params(jax.eval_shape(init_of(config, name), jax.random.key(0)), i)
        config.weights[name] = str(folder / f"{name}.safetensors")
        save_weights(config.weights[name], params, {})
    prepare.run(system_of(config), folder)
    return config


@pytest.fixture(scope="module")
def sampled(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("samples")
    sample.run(system_of(config), workdir)
    return workdir


def test_samples_are_clips_of_the_right_kind(sampled):
    clips = read_all(sampled / "guided")
    assert clips["video"].shape == (3, 16, 32, 32, 3)
    assert clips["video"].dtype == np.uint8
    assert clips["audio"].shape == (3, 32_000)
    assert clips["audio"].dtype == np.int16
    assert (sampled / "guided" / "00000.mp4").stat().st_size > 0
    assert not (sampled / "guided" / "00001.mp4").exists()
    independent = read_all(sampled / "independent")
    assert np.any(independent["video"] != clips["video"])


def test_a_sample_depends_on_its_index_alone(config, sampled, tmp_path):
    other = _only("guided", config)
    other.sample.batch_size = 3
    sample.run(system_of(other), tmp_path)
    a, b = read_all(sampled / "guided"), read_all(tmp_path / "guided")
    # Matrix products of another batch size may round differently by one level.
    assert np.abs(a["video"].astype(int) - b["video"].astype(int)).max() <= 1


def _only(variant, config):
    chosen: Any = config.copy_and_resolve_references()
    with chosen.unlocked():
        chosen.sample.variants = {variant: config.sample.variants[variant].to_dict()}
    return chosen


def _sample_elsewhere(config, workdir, address=None, count=1, number=0):
    """In a process of its own: one of `count`, or alone with several devices."""
    if address:
        parallel.initialize_distributed(address, count, number)
    sample.run(system_of(config), workdir)


@pytest.mark.slow
def test_two_processes_and_two_devices_make_the_same_samples(config, sampled, tmp_path):
    config = _only("guided", config)
    shared, cut = tmp_path / "processes", tmp_path / "devices"
    address = processes.free_address()
    started = [
        processes.start(_sample_elsewhere, config, shared, address, 2, number)
        for number in range(2)
    ]
    started.append(processes.start(_sample_elsewhere, config, cut, devices=2))
    assert [processes.finish(process, timeout=300) for process in started] == [0, 0, 0]
    assert (shared / "guided" / "00000.mp4").exists()
    for variant in config.sample.variants:
        wanted = read_all(sampled / variant)
        for folder in (shared, cut):
            found = read_all(folder / variant)
            for key, room in (("video", 1), ("audio", 64)):  # a rounding of a product's last bit
                error = np.abs(found[key].astype(int) - wanted[key].astype(int)).max()
                assert error <= room, (folder, variant, key, error)


def test_an_interrupted_run_goes_on_and_another_config_is_refused(config, sampled):
    shard = sampled / "guided" / "samples_00000002.npz"
    before = read_all(sampled / "guided")
    shard.unlink()
    sample.run(system_of(config), sampled)
    np.testing.assert_array_equal(read_all(sampled / "guided")["video"], before["video"])
    timing = json.loads((sampled / "timing.json").read_text())
    assert timing["guided"]["compile_seconds_saved"] > 0  # its programs were in the cache
    other = config.copy_and_resolve_references()
    other.sample.num_steps = 4
    with pytest.raises(ValueError, match="samples of another config"):
        sample.run(system_of(other), sampled)


def test_evaluate_measures_every_set_and_writes_the_page(config, sampled):
    evaluate.run(system_of(config), sampled)
    rows = json.loads((sampled / "metrics.json").read_text())["rows"]
    assert set(rows) == {"real", "independent", "guided"}
    real = {r["name"]: r for r in rows["real"]}
    assert real["f1_half_frame"]["value"] > 0.95
    assert real["colour_pitch"]["n"] == 32
    assert real["f1_half_frame_mismatched"]["value"] < 0.6
    page = (sampled / "index.html").read_text()
    assert "guided/00000.mp4" in page
    table = (sampled / "metrics.md").read_text()
    assert "f1_half_frame" in table
    assert "the compilation cache saved" in table
    levels = json.loads((sampled / "levels.json").read_text())
    assert [row["t"] for row in levels] == [100, 400]
    assert all(np.isfinite(list(row.values())).all() for row in levels)


def test_other_sampling_seeds_are_pooled(config, sampled):
    other = config.copy_and_resolve_references()
    folders = [sampled, sampled]
    pooled = evaluate.pooled(folders, "guided")
    assert len(pooled["video"]) == len(pooled["audio"]) == 2 * other.sample.num_samples


def test_a_discriminator_on_other_bases_is_refused(config, tmp_path):
    other = config.copy_and_resolve_references()
    params = random_params(jax.eval_shape(init_of(config, "discriminator"), jax.random.key(0)))
    path = tmp_path / "discriminator.safetensors"
    save_weights(path, params, {"bases": json.dumps({"video": "0" * 64})})
    other.sample.discriminator_weights = str(path)
    with pytest.raises(ValueError, match="features of a video model with SHA-256 000000000000"):
        system_of(other).denoiser("guided")


def test_weights_of_another_schedule_are_refused_wherever_they_are_read(config, tmp_path):
    short = config.copy_and_resolve_references()
    short.bases.audio.schedule.num_timesteps = 100
    schedules = system_of(short).schedules
    for name in ("audio", "discriminator"):
        params = random_params(jax.eval_shape(init_of(config, name), jax.random.key(0)))
        other = config.copy_and_resolve_references()
        other.weights[name] = str(tmp_path / f"{name}.safetensors")
        trained = {"audio": schedules["audio"]} if name == "audio" else schedules
        save_weights(other.weights[name], params, {"schedules": schedule_record(trained)})
        readers = [lambda system: system.denoiser("guided"), lambda system: system.log_ratio]
        if name == "audio":
            readers = [
                lambda system: system.base_params,
                lambda system: system.denoiser("guided"),
                lambda system: system.loss("discriminator"),
                lambda system: write_fakes(system, tmp_path),
            ]
        said = r'audio: trained with .*"num_timesteps": 100[,}].* has .*"num_timesteps": 1000[,}]'
        for read in readers:
            with pytest.raises(ValueError, match=said):
                read(system_of(other))
        other.sample.force_schedule = True
        for read in readers[:2]:
            assert read(system_of(other)) is not None


def test_a_full_disk_or_a_nan_leaves_no_shard(config, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = _only("independent", config)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="No space left on device"):
            sample.run(system_of(config), tmp_path / "full")
    assert not list((tmp_path / "full").glob("*/*"))
    broken = config.copy_and_resolve_references()
    broken.weights.audio = str(tmp_path / "nan.safetensors")
    params = random_params(jax.eval_shape(init_of(config, "audio"), jax.random.key(0)))
    save_weights(broken.weights.audio, jax.tree.map(lambda p: p * np.nan, params), {})
    with pytest.raises(ValueError, match="audio of sample 0 of variant 'independent' is not fin"):
        sample.run(system_of(broken), tmp_path / "nan")
    assert not list((tmp_path / "nan").glob("*/*"))


def test_a_damaged_shard_is_named(config, sampled, tmp_path):
    folder = tmp_path / "guided"
    folder.mkdir()
    whole = (sampled / "guided" / "samples_00000000.npz").read_bytes()
    (folder / "samples_00000000.npz").write_bytes(whole[:1000])
    with pytest.raises(ValueError, match=r"samples_00000000.npz is damaged"):
        read_all(folder)
    with pytest.raises(FileNotFoundError, match="run the sample command"):
        read_all(tmp_path / "nothing")


def test_fakes_are_cached_and_stale_ones_refused(config, tmp_path):
    some = config.copy_and_resolve_references()
    some.fakes.num_samples, some.fakes.batch_size = 3, 2
    made = write_fakes(system_of(some), tmp_path)
    some.weights.fakes = made["directory"]
    fakes = losses.fakes(system_of(some))
    assert {m: x.shape for m, x in fakes.items()} == {
        "audio": (3, 64, 32, 1),
        "video": (3, 16, 32, 32, 3),
    }
    assert np.any(np.asarray(fakes["video"][0] != fakes["video"][1]))
    before = (tmp_path / "fakes" / "examples_00000000.array_record").stat().st_mtime_ns
    write_fakes(system_of(some), tmp_path)
    assert (tmp_path / "fakes" / "examples_00000000.array_record").stat().st_mtime_ns == before
    some.weights.audio = some.weights.video
    with pytest.raises(StaleCacheError, match=r"fakes is stale: it was made with weights"):
        losses.fakes(system_of(some))
    some.weights.fakes = ""
    with pytest.raises(ValueError, match=r"needs config\.weights\.fakes: run prepare"):
        losses.fakes(system_of(some))
