# SPDX-License-Identifier: Apache-2.0
"""Contract of base model recipes: every registered one, and one from outside the package.

Models that are trained here are tiny and computed; released ones have their full size without
weights, and only shapes are evaluated.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mmdisco_jax.base_models import BASE_MODELS
from mmdisco_jax.base_models.api import Base, schedule_record
from mmdisco_jax.pair import BaseDenoiser
from mmdisco_jax.porting.weights import read_metadata, save_weights
from mmdisco_jax.process.schedules import cosine
from mmdisco_jax.types import ClipFormat

CLIP = ClipFormat(seconds=1.0, fps=4, height=32, width=32, sample_rate_hz=16_000)
OUTSIDE = "tests.support.outside.base:PointwiseBase"
VOLUME = {"name": "tests.support.outside.codec:Volume", "block": 500}
SETTINGS: dict[str, dict[str, Any]] = {
    "patch_transformer": {
        "name": "video",
        "codec": {"name": "pixels"},
        "patch": (1, 16, 16),
        "patch_width": 8,
        "width": 16,
        "depth": 1,
        "num_heads": 2,
        "taps": 3,
    },
    "mm_diffusion": {
        "name": "joint",
        "codec": {
            "audio": {"name": "waveform", "fold": 1000},
            "video": {"name": "pixels", "patch": 8},
        },
        "network": {
            "model_channels": 8,
            "channel_mult": (1,),
            "num_res_blocks": 1,
            "num_groups": 2,
            "video_attention_resolutions": (),
            "cross_attention_resolutions": (),
            "cross_attention_windows": (),
            "num_heads": 1,
            "num_head_channels": 8,
        },
    },
    "audioldm": {"name": "audio"},
    "animatediff": {"name": "video"},
    OUTSIDE: {"name": "audio", "codec": VOLUME},
}
RELEASED = ("animatediff", "audioldm")
TRAINED = tuple(name for name in SETTINGS if name not in RELEASED)


@functools.cache
def recipe(name: str) -> Base:
    fields = dict(SETTINGS[name])
    return BASE_MODELS.get(name)(clip=CLIP, **fields)


@functools.cache
def abstract(name: str) -> BaseDenoiser:
    """The denoiser with shapes in place of parameters."""
    base = recipe(name)
    graphdef, init = base.definition()
    params = jax.eval_shape(init, jax.random.key(0))
    return BaseDenoiser(((base, graphdef),), {base.name: params})


@functools.cache
def denoiser(name: str) -> BaseDenoiser:
    """The denoiser with random parameters, none of which is zero."""
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype)  # noqa: E731
    return jax.tree.map(draw, abstract(name))


def inputs(base: Base, batch: int = 2) -> tuple[Any, jax.Array, Any]:
    """x, t and cond of a batch at one noise level."""
    rng = np.random.default_rng(1)
    x = {m: jnp.asarray(rng.normal(size=(batch, *f.shape)), jnp.float32) for m, f in _of(base)}
    cond = {m: jnp.ones((batch, *f.text_shape)) for m, f in _of(base)} if base.READS_TEXT else None
    return x, jnp.full(batch, 400), cond


def _of(base: Base) -> Any:
    return base.formats.items()


def test_every_registered_base_is_tested_here():
    assert {name for name in SETTINGS if ":" not in name} == set(BASE_MODELS.names())


@pytest.mark.parametrize("name", SETTINGS)
def test_formats_schedules_and_codecs_name_the_modalities(name):
    base = recipe(name)
    assert set(base.formats) == set(base.schedules) == set(base.modalities)
    assert len({s.num_timesteps for s in base.schedules.values()}) == 1
    if name in TRAINED:
        assert set(base.codecs()) == set(base.modalities) and not base.slow_codecs
        assert not base.READS_TEXT and not base.text_encoders()
    for _, form in _of(base):
        assert all(isinstance(size, int) and size > 0 for size in form.shape)
        assert bool(form.text_shape) == base.READS_TEXT


@pytest.mark.parametrize("name", SETTINGS)
def test_frames_are_centred_inside_the_clip(name):
    for _, form in _of(recipe(name)):
        centres = form.clock.centres(form.shape[0])
        assert centres[0] >= 0 and centres[-1] <= CLIP.seconds and form.clock.step > 0
        assert form.clock.step * form.shape[0] == pytest.approx(CLIP.seconds)


@pytest.mark.parametrize("name", SETTINGS)
def test_eps_has_the_shape_of_the_latents(name):
    base = recipe(name)
    x, t, cond = inputs(base)
    eps = jax.eval_shape(lambda model: model(x, t, cond), abstract(name))
    assert {m: e.shape for m, e in eps.items()} == {m: v.shape for m, v in x.items()}
    assert all(jnp.issubdtype(e.dtype, jnp.floating) for e in eps.values())


@pytest.mark.parametrize("name", SETTINGS)
def test_features_have_the_width_that_the_format_states(name):
    base, (_, graphdef) = recipe(name), abstract(name).models[0]
    x, t, _ = inputs(base)

    def features(params: Any, m: str) -> Any:
        return base.features(nnx.merge(graphdef, params), m, x[m], t)

    for m, form in _of(base):
        of = functools.partial(features, m=m)
        if not form.feature_width:
            with pytest.raises(ValueError, match="offers no features"):
                jax.eval_shape(of, abstract(name).params[base.name])
            continue
        shape = jax.eval_shape(of, abstract(name).params[base.name]).shape
        assert shape[0] == 2 and form.shape[0] % shape[1] == 0 and shape[2] == form.feature_width


@pytest.mark.parametrize("name", TRAINED)
def test_compiled_and_eager_agree_and_samples_do_not_mix(name):
    x, t, cond = inputs(recipe(name))
    model, run = denoiser(name), jax.jit(lambda f, *args: f(*args))
    eager, compiled = model(x, t, cond), run(model, x, t, cond)
    other = run(model, {m: v.at[1].set(0) for m, v in x.items()}, t, cond)
    for m in x:
        scale = float(jnp.abs(eager[m]).max())
        np.testing.assert_allclose(compiled[m], eager[m], atol=2e-5 * scale)
        np.testing.assert_array_equal(other[m][0], compiled[m][0])
        assert (other[m][1] != compiled[m][1]).any()


@pytest.mark.parametrize("name", TRAINED)
def test_the_gradient_by_the_input_is_finite(name):
    x, t, cond = inputs(recipe(name))

    @jax.jit
    def gradient(model: Any, x: Any) -> Any:
        return jax.grad(lambda v: sum(jnp.sum(e**2) for e in model(v, t, cond).values()))(x)

    found = gradient(denoiser(name), x)
    assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in found.values())


@pytest.mark.parametrize("name", TRAINED)
def test_weights_load_as_they_were_saved_and_strictly(name, tmp_path):
    base, path = recipe(name), tmp_path / "weights.safetensors"
    params = denoiser(name).params[base.name]
    save_weights(path, params, {"schedules": schedule_record(base.schedules)})
    saved = dataclasses.replace(base, weights=str(path))
    for mine, theirs in zip(jax.tree.leaves(saved.load()), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    tensors, metadata = load_file(path), read_metadata(path)
    first = min(tensors)
    lacking = {k: v for k, v in tensors.items() if k != first}
    for wrong, word in ((lacking, "missing"), (tensors | {"extra": tensors[first]}, "unexpected")):
        save_file(wrong, path, metadata=metadata)
        with pytest.raises(ValueError, match=word):
            saved.load()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"weights\.safetensors"):
        saved.load()


@pytest.mark.parametrize("name", TRAINED)
def test_weights_of_another_schedule_are_refused_unless_forced(name, tmp_path):
    base, path = recipe(name), tmp_path / "weights.safetensors"
    record = schedule_record(dict.fromkeys(base.modalities, cosine()))
    save_weights(path, denoiser(name).params[base.name], {"schedules": record})
    saved = dataclasses.replace(base, weights=str(path))
    with pytest.raises(ValueError, match="is of another noise schedule"):
        saved.load()
    assert saved.load(force_schedule=True)


@pytest.mark.parametrize("name", TRAINED)
def test_a_digest_identifies_the_weights(name, tmp_path):
    base, path = recipe(name), tmp_path / "weights.safetensors"
    saved = dataclasses.replace(base, weights=str(path))
    assert base.digest() is None and saved.digest() is None
    params = denoiser(name).params[base.name]
    save_weights(path, params, {})
    one = saved.digest()
    assert one and one == saved.digest()
    save_weights(path, jax.tree.map(lambda x: 2 * x, params), {})
    assert saved.digest() not in (one, None)


@pytest.mark.parametrize("name", TRAINED)
def test_latents_are_decoded_to_clips(name):
    whole = {
        "video": (CLIP.num_frames, CLIP.height, CLIP.width, 3),
        "audio": (CLIP.num_samples,),
    }
    base = recipe(name)
    assert base.decoded_shapes() == {m: whole[m] for m in base.modalities}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_model_states_its_licence_and_needs_its_files(name):
    base = recipe(name)
    assert base.LICENCE and base.digest() is None
    with pytest.raises(ValueError, match=rf"config\.weights\.{base.name} is empty"):
        base.load()
    with pytest.raises(ValueError, match="is not trained here"):
        base.loss(None, {}, jax.random.key(0), None, None, max_weight=None)  # pyright: ignore
