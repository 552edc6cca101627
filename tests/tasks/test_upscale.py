# SPDX-License-Identifier: Apache-2.0
"""Super-resolution, shrunk: its loss, its sampling, and its place in `train` and `sample`."""

from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from mmdisco_jax.base_models.super_resolution import SuperResolutionBase, bilinear
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.losses import super_resolution_loss
from mmdisco_jax.media.prepare import prepare
from mmdisco_jax.nn.conv import Conv
from mmdisco_jax.nn.init import param_keys
from mmdisco_jax.porting.weights import save_weights
from mmdisco_jax.process.schedules import linear
from mmdisco_jax.samplers.noise import initial, sample_keys
from mmdisco_jax.samplers.sampler import Sampler
from mmdisco_jax.system import System
from mmdisco_jax.tasks import sample, train
from mmdisco_jax.tasks.upscale import enlarger, picture_denoiser, upscale_clips, upscaler_of
from mmdisco_jax.training.checkpoints import CheckpointError
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support.randoms import random_params

FRAMES, LOW, HIGH = 3, 4, 8
CLIPS = np.random.default_rng(0).integers(0, 256, (2, FRAMES, LOW, LOW, 3), np.uint8)
CLIPS[0, 2] = CLIPS[0, 0]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Any:
    """One level, four steps of DDIM, and random weights."""
    folder = tmp_path_factory.mktemp("sr")
    config: Any = load_config("configs/bounce_super_resolution.py")
    section = config.super_resolution
    section.base.update(model_channels=4, channel_mult=(1,), num_groups=2)
    section.update(low_size=LOW, high_size=HIGH, respacing="ddim4", frames_per_batch=4)
    section.prediction, config.train.max_weight = "eps", None  # as officially
    config.bases.video.codec.shrink = 32 // LOW
    config.bases.video.patch = (1, 2, 2)
    section.weights = str(folder / "super_resolution.safetensors")
    save_weights(section.weights, random_params(_abstract(config)), {})
    config.data.dir = str(folder / "data")
    config.data.options.update(num_train=4, num_test=1)
    return config


def system_of(config: Any) -> System:
    return System(Experiment.from_config(config))


def model_of(config: Any) -> SuperResolutionBase:
    model = system_of(config).experiment.super_resolution
    assert model is not None
    return model


def _abstract(config: Any) -> Any:
    return jax.eval_shape(model_of(config).definition()[1], jax.random.key(0))


def _changed(config: Any, **section: Any) -> Any:
    other = config.copy_and_resolve_references()
    other.super_resolution.update(section)
    return other


@pytest.fixture(scope="module")
def params(config) -> Any:
    return model_of(config).load()


@pytest.fixture(scope="module")
def upscaler(config) -> Any:
    upscale, model = upscaler_of(system_of(config)), model_of(config)
    return lambda params, *args: upscale(picture_denoiser(model, params), *args)


@pytest.fixture(scope="module")
def high(upscaler, params) -> np.ndarray:
    """Of samples 7 and 8: six pictures, in batches of four and two."""
    return upscaler(params, CLIPS / 127.5 - 1, [7, 8])


def test_frames_of_a_clip_share_their_noise_and_nothing_else_matters(upscaler, params, high):
    assert (high.shape, high.dtype) == ((2, FRAMES, HIGH, HIGH, 3), np.float32)
    # Equal frames stay equal, though they are in different batches.
    np.testing.assert_allclose(high[0, 2], high[0, 0], atol=1e-5)
    assert np.abs(high[0, 1] - high[0, 0]).mean() > 0.01  # another frame, same noise
    # Sample 7 beside another one and in another place; and the same frames as another sample.
    both = upscaler(params, CLIPS[[1, 0, 0]] / 127.5 - 1, [3, 7, 9])
    np.testing.assert_allclose(both[1], high[0], atol=1e-5)
    assert np.abs(both[2] - high[0]).mean() > 0.01


def test_it_is_the_official_ddim_from_one_noise_a_clip(config, params, upscaler, high):
    """The update of the official code, written out: levels 750, 500, 250, 0, |x0| at most 1."""
    model = nnx.merge(model_of(config).definition()[0], params)
    abar = linear(1000, 1e-4, 0.02).abar
    low = CLIPS[0] / 127.5 - 1
    keys = sample_keys(config.sample.seed, jnp.full(FRAMES, 7))
    start = initial(keys, {"super_resolution": (1, HIGH, HIGH, 3)})["super_resolution"]
    x = np.asarray(start[:, 0], np.float64)
    assert (x == x[:1]).all() and abs(x[0].std() - 1) < 0.2
    run = jax.jit(lambda x, t: model(x, t, jnp.asarray(low, jnp.float32))[..., :3])
    for t, after in ((750, 500), (500, 250), (250, 0), (0, None)):
        eps = np.asarray(run(jnp.asarray(x, jnp.float32), jnp.full(FRAMES, t)), np.float64)
        x0 = np.clip((x - np.sqrt(1 - abar[t]) * eps) / np.sqrt(abar[t]), -1, 1)
        eps = (x - np.sqrt(abar[t]) * x0) / np.sqrt(1 - abar[t])
        level = 1.0 if after is None else abar[after]
        x = np.sqrt(level) * x0 + np.sqrt(1 - level) * eps
    np.testing.assert_allclose(high[0], x, atol=2e-4)


def test_pixels_in_pixels_out(config, upscaler, params, high):
    told = upscaler(params, CLIPS[:1], [7])
    assert (told.dtype, told.shape) == (np.uint8, (1, FRAMES, HIGH, HIGH, 3))
    want = (np.clip(high[:1], -1, 1) + 1) * 127.5
    assert np.abs(told - want).max() < 0.51
    off = _changed(config)
    with off.unlocked():
        off.super_resolution = {}
    assert enlarger(system_of(off))(CLIPS, np.array([0, 1])) is CLIPS


def test_clips_that_do_not_fit(config, upscaler, params):
    with pytest.raises(ValueError, match=r"frames of 2 x 4 pixels.* takes 4 x 4"):
        upscaler(params, CLIPS[:, :, :2], [0, 1])
    with pytest.raises(ValueError, match="2 clips need an index each"):
        upscaler(params, CLIPS, [0])
    with pytest.raises(ValueError, match=r"must be uint8 or float \[b f h w 3\]"):
        upscaler(params, CLIPS[0], [0])
    other = config.copy_and_resolve_references()
    other.bases.video.codec.shrink = 16  # told before any sample is drawn
    with pytest.raises(ValueError, match=r"frames of 2 x 2 pixels.*super_resolution\.low_size"):
        enlarger(system_of(other))
    with pytest.raises(ValueError, match="frames_per_batch is 0"):
        system_of(_changed(config, frames_per_batch=0))


def test_weights_of_another_network(config, tmp_path):
    wider = config.copy_and_resolve_references()
    wider.super_resolution.base.model_channels = 8
    with pytest.raises(ValueError) as error:
        enlarger(system_of(wider))
    name = r"input_blocks.0.0.kernel is (3, 3, 6, 4), the model has (3, 3, 6, 8)"
    assert name in str(error.value) and "Use the weights of this config" in str(error.value)
    path = str(tmp_path / "other.safetensors")
    trained = _changed(config, low_size=2).to_json()
    save_weights(path, random_params(_abstract(config)), {"config": trained})
    with pytest.raises(ValueError, match=r"trained with super_resolution.low_size = 2, but .* 4"):
        model_of(_changed(config, weights=path)).load()
    three = config.copy_and_resolve_references()
    three.super_resolution.base.in_channels = 3
    with pytest.raises(ValueError, match="3 channels in and 6 out"):
        model_of(three).definition()


def test_what_cannot_be_trained(config):
    off = _changed(config)
    with off.unlocked():
        off.super_resolution = {}
    with pytest.raises(ValueError, match=r"super_resolution is empty: .*configs/super_resolution"):
        system_of(off).loss("super_resolution")
    latents = config.copy_and_resolve_references()
    latents.data.latents = "somewhere"
    with pytest.raises(ValueError, match="on frames, not on latents"):
        train.super_resolution_pairs(system_of(latents))
    video = config.copy_and_resolve_references()
    video.train.target = "video"
    assert train.super_resolution_pairs(system_of(video)) is None


def test_a_criterion_sees_all_channels(config):
    batch = {"high": jnp.zeros((2, 2, HIGH, HIGH, 3)), "low": jnp.zeros((2, 2, LOW, LOW, 3))}
    seen = {}

    def criterion(predict, high, key):
        t = jnp.arange(4)
        seen.update(out=predict(high, t).shape, high=high.shape)
        return jnp.zeros(()), {}

    loss_fn = super_resolution_loss(system_of(config), criterion).loss_fn
    arguments = (_abstract(config), None, batch, jax.random.key(0), 0, None)
    jax.eval_shape(loss_fn, *arguments)
    assert seen == {"out": (4, HIGH, HIGH, 6), "high": (4, HIGH, HIGH, 3)}


STEPS = 16


class Clips:
    """Four clips of bounce's size, each of one colour left and another right."""

    metadata: ClassVar[dict[str, Any]] = {}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        colours = np.random.default_rng(index).integers(0, 256, (16, 1, 2, 3), np.uint8)
        video = np.broadcast_to(np.repeat(colours, 16, axis=2), (16, 32, 32, 3))
        return {"video": video, "audio": np.zeros(8, np.int16)}


def _train_config(config: Any, folder: Path) -> Any:
    """Few steps, from weights that say nothing of the noise (an initialiser takes XLA seconds)."""
    chosen = config.copy_and_resolve_references()
    chosen.train.update(
        num_steps=STEPS,
        warmup_steps=1,
        learning_rate=3e-2,
        batch_size=4,
        log_every=4,
        save_every=8,
        weights_dtype="float32",
        init_from=str(folder / "start.safetensors"),
    )
    chosen.data.in_memory = False
    start: Any = random_params(_abstract(config))
    start["out"][2] = jax.tree.map(jnp.zeros_like, start["out"][2])
    save_weights(chosen.train.init_from, start, {})
    return chosen


class Mixer(nnx.Module):
    """One convolution instead of a U-Net, whose gradient takes XLA eight seconds to compile."""

    def __init__(self):
        self.conv = Conv(6, 6, (1, 1), zero_init=True, rngs=param_keys(0))

    def __call__(self, x: jax.Array, t: jax.Array, low: jax.Array, *, key: Any) -> jax.Array:
        return self.conv(jnp.concatenate([x, bilinear(low, HIGH, HIGH)], axis=-1))


def test_the_loss_falls_and_batches_go_on_where_they_stopped(config, monkeypatch):
    chosen = config.copy_and_resolve_references()
    chosen.train.batch_size = 4
    graphdef, params = nnx.split(Mixer())
    monkeypatch.setattr(SuperResolutionBase, "definition", lambda _: (graphdef, None))
    system = system_of(chosen)
    loss_fn = super_resolution_loss(system).loss_fn

    def loss_and_metrics(params, batch, key):
        return loss_fn(params, None, batch, key, jnp.asarray(0), None)[:2]

    gradient = jax.value_and_grad(loss_and_metrics, has_aux=True)

    @jax.jit
    def step(params, batch, key):
        (loss, _), grads = gradient(params, batch, key)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), loss

    batches = train.batches(system, Clips())
    trace, position, batch = [], None, {}
    for number in range(STEPS):
        position = batches.get_state()
        batch = next(batches)
        assert {k: x.shape for k, x in batch.items()} == {
            "high": (4, 2, HIGH, HIGH, 3),
            "low": (4, 2, LOW, LOW, 3),
        }
        params, loss = step(params, batch, jax.random.key(number))
        trace.append(float(loss))
    assert abs(trace[0] - 1) < 0.15  # noise of unit variance, of which nothing is known yet
    assert np.mean(trace[-3:]) < 0.7
    kernel = np.asarray(params["conv"]["kernel"][...])[0, 0]
    assert np.abs(kernel[:, :3]).max() > 0.1 and not kernel[:, 3:].any()  # eps, not the variance
    again = train.batches(system, Clips())
    again.set_state(position)
    for name, value in next(again).items():
        np.testing.assert_array_equal(value, batch[name])


def test_what_may_change_between_two_halves_of_a_training(config):
    free = train.free_keys(config.to_dict())
    assert "super_resolution.frames_per_batch" in free
    assert not {"super_resolution", "super_resolution.pairs", "data", "train"} & set(free)
    video = config.copy_and_resolve_references()
    video.train.target = "video"
    assert "super_resolution" in train.free_keys(video.to_dict())


@pytest.mark.slow
def test_train_command_resumes_and_leaves_weights_that_fit(config, tmp_path):
    prepare("bounce", config.data.dir, **config.data.options)
    chosen = _train_config(config, tmp_path)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train.run(system_of(chosen), whole)
    assert len(loss_trace(read_metrics(whole))) == STEPS
    model_of(_changed(config, weights=str(whole / "weights.safetensors"))).load()
    train.run(system_of(chosen), halves)
    chosen.train.restore = "8"
    chosen.super_resolution.frames_per_batch = 2  # of no matter to training
    train.run(system_of(chosen), halves)
    ours, theirs = (load_file(path / "weights.safetensors") for path in (halves, whole))
    assert {name: x.tobytes() for name, x in ours.items()} == {
        name: x.tobytes() for name, x in theirs.items()
    }
    chosen.super_resolution.pairs.max_noise = 5.0
    with pytest.raises(CheckpointError, match=r"super_resolution\.pairs\.max_noise was 20\.0"):
        train.run(system_of(chosen), halves)


class Drawn:
    """Instead of compiled programs: clips as grey as the number of the sample."""

    num_steps = 1

    def __call__(self, denoise: Any, indices: jax.Array, *, on_steps: Any, **_: Any) -> Any:
        grey = np.asarray(indices).reshape(-1, 1, 1, 1, 1) / 127.5 - 1
        on_steps(1)
        return {
            "video": jnp.asarray(np.broadcast_to(grey, (len(indices), 2, LOW, LOW, 3))),
            "audio": jnp.zeros((len(indices), 8, 1)),
        }


def test_sample_enlarges_each_clip_by_its_index(config, tmp_path, monkeypatch):
    chosen = config.copy_and_resolve_references()
    chosen.sample.update(num_samples=3, batch_size=2)
    with chosen.unlocked():  # there is nothing to hear, and a log-mel takes seconds
        chosen.bases.audio.codec = {"name": "waveform", "scale": 1.0}
    asked = []

    def enlarge(video: np.ndarray, indices: np.ndarray) -> np.ndarray:
        asked.append(indices.tolist())
        np.testing.assert_array_equal(video[:, 0, 0, 0, 0], indices)
        return np.repeat(np.repeat(video, 2, axis=2), 2, axis=3)

    monkeypatch.setattr(Sampler, "compile", lambda *_, **__: Drawn())
    folder = tmp_path / "independent"
    sample.sample_variant(system_of(chosen), folder, (), sample.Conditions(), enlarge)
    assert asked == [[0, 1], [2]]  # the third batch place is no sample, and costs nothing
    video = read_all(folder)["video"]
    assert video.shape == (3, 2, HIGH, HIGH, 3)
    np.testing.assert_array_equal(video[:, 1, 7, 7, 2], [0, 1, 2])


@pytest.mark.slow
def test_sample_enlarges_what_the_base_drew(config, tmp_path):
    chosen = config.copy_and_resolve_references()
    for section in chosen.bases.values():
        section.update(width=32, num_heads=2, depth=1)
    for i, m in enumerate(chosen.bases):
        _, init = system_of(chosen).definitions[m]
        chosen.weights[m] = str(tmp_path / f"{m}.safetensors")
        params = random_params(jax.eval_shape(init, jax.random.key(0)), i)
        save_weights(chosen.weights[m], params, {})
    chosen.sample.update(num_samples=3, batch_size=2, num_steps=2, num_media=0)
    sample.run(system_of(chosen), tmp_path / "large")
    large = read_all(tmp_path / "large" / "independent")["video"]
    small_config = chosen.copy_and_resolve_references()
    with small_config.unlocked():
        small_config.super_resolution = {}
    sample.run(system_of(small_config), tmp_path / "small")
    small = read_all(tmp_path / "small" / "independent")["video"]
    assert (large.shape, small.shape) == ((3, 16, HIGH, HIGH, 3), (3, 16, LOW, LOW, 3))
    want = upscale_clips(system_of(config), small[2:], np.array([2]))
    assert np.abs(large[2].astype(int) - want[0]).max() <= 1
    with pytest.raises(ValueError, match="samples of another config"):
        sample.run(system_of(small_config), tmp_path / "large")
