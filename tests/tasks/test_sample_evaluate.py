# SPDX-License-Identifier: Apache-2.0
"""End to end, shrunk: prepare, sample, evaluate and look, with random weights."""

import errno
import json
import os
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from mmdisco_jax import losses, parallel
from mmdisco_jax.base_models.api import schedule_record
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.inputs.cache import StaleCacheError
from mmdisco_jax.inputs.clips import Clips
from mmdisco_jax.io import digest
from mmdisco_jax.porting.weights import read_metadata, save_weights
from mmdisco_jax.system import System
from mmdisco_jax.tasks import evaluate, gallery, prepare, sample, train
from mmdisco_jax.tasks.fakes import write_fakes
from mmdisco_jax.training.checkpoints import CheckpointError
from mmdisco_jax.worlds.bounce.marks import bounce_marks
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


def copied(config, folder):
    """The config with weight files of its own, which may be changed."""
    other = config.copy_and_resolve_references()
    for name in (*config.bases, "discriminator"):
        other.weights[name] = str(shutil.copy(config.weights[name], folder))
    return other


def overwrite(config, name):
    params = random_params(jax.eval_shape(init_of(config, name), jax.random.key(0)), 99)
    save_weights(config.weights[name], params, {})


@pytest.mark.parametrize("name", ["audio", "discriminator"])
def test_samples_of_weights_that_were_overwritten_are_refused(config, sampled, tmp_path, name):
    """Row 3 of the trials: the old samples were reported as those of the new weights."""
    moved = copied(config, tmp_path)
    sample.run(system_of(moved), sampled)  # other paths, the same contents
    overwrite(moved, name)
    said = rf"other weights: .*{name} was .*{name}.safetensors \[sha256 \w+\], now .*another work"
    for mode in (sample, evaluate):
        with pytest.raises(ValueError, match=said):
            mode.run(system_of(moved), sampled)
    if name == "discriminator":  # and the other variant is not touched by it
        sample.run(system_of(_only("independent", moved)), sampled)


def test_media_of_samples_that_were_removed_are_made_anew(config, sampled, tmp_path):
    """The page showed the old files: only a missing one was written."""
    other, folder = _only("independent", copied(config, tmp_path)), tmp_path / "run"
    shutil.copytree(sampled, folder)
    for path in (*folder.rglob("samples_*.npz"), folder / "made_by.json"):
        path.unlink()
    overwrite(other, "audio")
    sample.run(system_of(other), folder)
    for name in ("00000.mp4", "00000.wav"):
        old, new = (path / "independent" / name for path in (sampled, folder))
        assert new.read_bytes() != old.read_bytes()


def test_more_samples_and_variants_are_added_to_a_folder(config, sampled, tmp_path):
    """Sample 3 begins no batch of its own: it was never made, and 3 samples were taken for 4."""
    folder = tmp_path / "run"
    some = _only("independent", config)
    sample.run(system_of(some), folder)
    some.sample.num_samples = 4
    sample.run(system_of(some), folder)
    sample.run(system_of(config), folder)
    note = json.loads((folder / "made_by.json").read_text())
    assert set(note["variants"]) == {"independent", "guided"}
    for variant, count in (("independent", 4), ("guided", 3)):
        found, wanted = read_all(folder / variant), read_all(sampled / variant)
        assert len(found["video"]) == count
        np.testing.assert_array_equal(found["audio"][:3], wanted["audio"])


@pytest.mark.parametrize("left", ["nothing", "the config", "half a file"])
def test_samples_that_nothing_accounts_for_are_refused(config, sampled, tmp_path, left, capsys):
    folder = tmp_path / "run"
    shutil.copytree(sampled, folder)
    note = folder / "made_by.json"
    text = note.read_text()
    note.unlink()
    if left == "the config":  # as an older release wrote it
        note.write_text(json.dumps(json.loads(text)["settings"]))
    elif left == "half a file":
        note.write_text(text[:100])
    with pytest.raises(ValueError, match=r"made_by.json.*another workdir"):
        sample.run(system_of(config), folder)
    if left != "half a file":
        other = config.copy_and_resolve_references()
        other.evaluate.levels, other.evaluate.metrics = (), ("bounce",)
        evaluate.run(system_of(other), folder)
        assert "no note says which weights" in capsys.readouterr().err
        made_by = json.loads((folder / "metrics.json").read_text())["made_by"]
        assert set(made_by["data"]) == {"train", "test"}
        other.evaluate.pool = (str(sampled),)
        with pytest.raises(ValueError, match=r"run has no made_by.json .* cannot be pooled"):
            evaluate.run(system_of(other), folder)


def test_only_other_seeds_of_the_same_thing_are_pooled(config, sampled, tmp_path):
    other = _only("independent", config)
    other.evaluate.levels, other.evaluate.metrics = (), ("bounce",)
    other.evaluate.pool = (str(tmp_path / "other"),)
    other.sample.num_steps = 2
    sample.run(system_of(other), tmp_path / "other")
    other.sample.num_steps = config.sample.num_steps
    with pytest.raises(ValueError, match=r"other holds samples of another config.*num_steps was 2"):
        evaluate.run(system_of(other), sampled)
    shutil.rmtree(tmp_path / "other")
    shutil.copytree(sampled, tmp_path / "other")
    with pytest.raises(ValueError, match="the same samples of independent, of seed 0"):
        evaluate.run(system_of(other), sampled)
    shutil.rmtree(tmp_path / "other")
    other.sample.seed = 1
    sample.run(system_of(other), tmp_path / "other")
    other.sample.seed = 0
    evaluate.run(system_of(other), sampled)
    result = json.loads((sampled / "metrics.json").read_text())
    seeds = [s["note"]["variants"]["independent"]["seed"] for s in result["made_by"]["samples"]]
    assert seeds == [0, 1]
    assert {row["n"] for row in result["rows"]["independent"]} >= {6}


def test_a_mode_names_the_weights_that_it_uses(config, sampled, capsys):
    """Row 12 of the trials: a command took the weights of another run, and did not say so."""
    sample.run(system_of(config), sampled)
    said = capsys.readouterr().err
    for name in (*config.bases, "discriminator"):
        path = config.weights[name]
        assert said.count(f"using {name}: {path} [sha256 {digest(path)[:12]}]") == 1


def test_a_discriminator_names_the_bases_with_which_its_training_began(
    config, tmp_path, monkeypatch
):
    """Row 4 of the trials: the finished file named a base model that was put there later."""
    given = copied(config, tmp_path)
    given.train.objective.groups = 4
    given.train.update(num_steps=1, warmup_steps=0, batch_size=16, save_every=1)
    before = digest(given.weights.video)

    def replacing_a_base(*args, **kwargs):
        overwrite(given, "video")
        return make(*args, **kwargs)

    make = train.make_train_iterator
    monkeypatch.setattr(train, "make_train_iterator", replacing_a_base)
    train.run(system_of(given), tmp_path / "run")
    bases = json.loads(read_metadata(tmp_path / "run" / "weights.safetensors")["bases"])
    assert bases["video"] == before != digest(given.weights.video)
    monkeypatch.undo()
    given.train.num_steps = 2
    with pytest.raises(CheckpointError, match=r"others: weights.video was .*\[sha256 .*, now "):
        train.run(system_of(given), tmp_path / "run")


def test_fakes_of_another_noise_schedule_are_refused(config, tmp_path):
    """Their note named weights and sampling, and not the schedule that the config gives them."""
    some = config.copy_and_resolve_references()
    some.fakes.num_samples, some.fakes.batch_size = 2, 2
    some.weights.fakes = write_fakes(system_of(some), tmp_path)["directory"]
    some.bases.audio.schedule.beta_end = 0.01
    for read in (losses.fakes, lambda system: write_fakes(system, tmp_path)):
        with pytest.raises(StaleCacheError, match="made with schedules"):
            read(system_of(some))


def test_evaluate_measures_every_set_and_writes_the_page(config, sampled):
    evaluate.run(system_of(config), sampled)
    result = json.loads((sampled / "metrics.json").read_text())
    (measured,) = result["made_by"]["samples"]
    assert measured["note"] == json.loads((sampled / "made_by.json").read_text())
    assert result["made_by"]["data"]["test"]["sha256"] == system_of(config).data_digests["test"]
    rows = result["rows"]
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


def _with_test_clips(config, num_test):
    other = config.copy_and_resolve_references()
    other.data.options.num_test = num_test
    return other


def test_ten_test_clips_are_measured_as_far_as_they_go(config, sampled):
    """Too few for distances and levels, which are named with the reason; all else is written."""
    other = _with_test_clips(config, 10)
    other.evaluate.metrics = (*config.evaluate.metrics, "memorisation_video", "av_align")
    evaluate.run(system_of(other), sampled)
    record = json.loads((sampled / "metrics.json").read_text())
    names = {row["name"] for row in record["rows"]["guided"]}
    assert {"f1_half_frame", "av_align", "copies_video"} <= names
    assert len(record["rows"]["real"]) == len(record["rows"]["guided"])
    reasons = {one["name"]: one["reason"] for one in record["unmeasured"]}
    assert set(reasons) == {"proxy_frechet_video", "proxy_frechet_audio", "levels"}
    assert "5 reference clips are too few" in reasons["proxy_frechet_video"]
    assert "10 test clips" in reasons["levels"]
    for name in ("metrics.md", "index.html"):
        text = (sampled / name).read_text()
        assert "not measured: levels: 10 test clips" in text
        assert "1 training clips searched" in text
        assert "guided - independent" in text  # what guidance changes, clip by clip
    changes = {(d["name"], d["kind"]): d for d in record["differences"]}
    assert changes["f1_half_frame", "-"]["n"] == 3


def test_samples_without_media_are_measured_to_the_end(config, sampled, capsys):
    """There is no page to write, and the table and the levels are there all the same."""
    other = config.copy_and_resolve_references()
    other.sample.num_media = 0
    other.evaluate.metrics = ("bounce",)
    (sampled / "levels.md").unlink(missing_ok=True)
    evaluate.run(system_of(other), sampled)
    said = capsys.readouterr().out
    assert "f1_half_frame" in said and "look and listen" not in said
    assert (sampled / "levels.md").exists()


@pytest.mark.parametrize(("clips", "num_real", "reference", "held_out"), [
    (64, 1024, [0, 31], [32, 63]), (64, 16, [0, 28], [32, 60]), (1, 1024, None, [0, 0]),
    (3, 2, [0, 0], [1, 1]),
])  # fmt: skip
def test_real_clips_are_spread_over_the_whole_split(
    config, monkeypatch, clips, num_real, reference, held_out
):
    """The first of many would be those of a few films."""
    other = config.copy_and_resolve_references()
    other.evaluate.num_real = num_real
    source = [{"video": np.array(i), "audio": np.array(i)} for i in range(clips)]
    monkeypatch.setattr(System, "clips", lambda *_: Clips(source))
    found = evaluate._real(system_of(other))
    for batch, wanted in zip(found, (reference, held_out), strict=True):
        assert wanted == (None if batch is None else [batch["video"][0], batch["video"][-1]])


def test_training_clips_that_are_searched_are_spread_over_the_split(config, monkeypatch):
    other = config.copy_and_resolve_references()
    other.evaluate.num_training = 100
    source = [{"video": np.array(i), "audio": np.array(i)} for i in range(400)]
    monkeypatch.setattr(System, "clips", lambda *_: Clips(source))
    for _ in range(2):  # as often as there are metrics that ask
        batches = list(evaluate.TrainingClips(system_of(other)))
        numbers = np.concatenate([batch["video"] for batch in batches])
        np.testing.assert_array_equal(numbers, np.arange(0, 400, 4))
        assert max(len(batch["video"]) for batch in batches) <= 64


def test_impacts_are_marked_in_the_bounce_world_only(config):
    assert gallery._marks(system_of(config)) is bounce_marks
    other = config.copy_and_resolve_references()
    other.data.name = "folder"  # one's own videos, measured by detectors that do not know them
    assert gallery._marks(system_of(other)) is None


def test_every_variant_is_compared_with_the_unguided_one(config):
    assert evaluate._compared(system_of(config)) == [("guided", "independent")]
    other = config.copy_and_resolve_references()
    other.evaluate.baseline = "guided"
    assert evaluate._compared(system_of(other)) == [("independent", "guided")]
    other.evaluate.baseline = "nothing"
    with pytest.raises(ValueError, match=r"baseline='nothing' is no variant"):
        evaluate._compared(system_of(other))
    assert evaluate._compared(system_of(_only("guided", config))) == []


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
    numbers = {"audio": np.array([0, 1, 2, 1]), "video": np.array([2, 0])}
    rows = losses.fakes(system_of(some)).rows(numbers)
    assert {name: (x.shape, x.dtype) for name, x in rows.items()} == {
        "fake_audio": ((4, 64, 32, 1), np.float16),
        "fake_video": ((2, 16, 32, 32, 3), np.float16),
    }
    assert np.any(rows["fake_video"][0] != rows["fake_video"][1])
    np.testing.assert_array_equal(rows["fake_audio"][1], rows["fake_audio"][3])
    before = (tmp_path / "fakes" / "examples_00000000.array_record").stat().st_mtime_ns
    write_fakes(system_of(some), tmp_path)
    assert (tmp_path / "fakes" / "examples_00000000.array_record").stat().st_mtime_ns == before
    some.weights.audio = some.weights.video
    with pytest.raises(StaleCacheError, match=r"fakes is stale: it was made with weights"):
        losses.fakes(system_of(some))
    some.weights.fakes = ""
    with pytest.raises(ValueError, match=r"needs config\.weights\.fakes: run prepare"):
        losses.fakes(system_of(some))
