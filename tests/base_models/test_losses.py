# SPDX-License-Identifier: Apache-2.0
"""The variational bound against closed forms and the official formulas; the joint loss's parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmdisco_jax.base_models.joint import JointBase
from mmdisco_jax.base_models.losses import joint_noise_prediction
from mmdisco_jax.base_models.variational import variational_bound
from mmdisco_jax.codecs.pixels import Pixels
from mmdisco_jax.codecs.waveform import Waveform
from mmdisco_jax.process.loss_aware_sampling import History, LossSecondMoment
from mmdisco_jax.process.noising import TimeSampler
from mmdisco_jax.process.predictions import per_sample
from mmdisco_jax.process.schedules import Schedule, cosine, linear
from mmdisco_jax.types import ClipFormat

NOISE = {"audio": cosine(), "video": linear()}


def _official(x0, x_t, eps, v, t: int, schedule: Schedule) -> float:
    """The official terms in float64, of one sample: bits per dimension."""
    abar, before = schedule.abar, np.append(1.0, schedule.abar[:-1])
    betas = 1 - abar / before
    small = betas * (1 - before) / (1 - abar)
    log_small = np.log(np.append(small[1], small[1:]))
    from_x0 = betas * np.sqrt(before) / (1 - abar)
    from_x = (1 - before) * np.sqrt(1 - betas) / (1 - abar)
    guess = np.sqrt(1 / abar[t]) * x_t - np.sqrt(1 / abar[t] - 1) * eps
    mean, true_mean = (from_x0[t] * x + from_x[t] * x_t for x in (guess, x0))
    share = (v + 1) / 2
    log_variance = share * np.log(betas[t]) + (1 - share) * log_small[t]
    if t:
        spread = np.exp(log_small[t] - log_variance)
        square = (true_mean - mean) ** 2 * np.exp(-log_variance)
        return float(np.mean(log_variance - log_small[t] - 1 + spread + square) / 2 / np.log(2))

    def cdf(x):
        z = np.exp(-0.5 * log_variance) * x
        return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

    upper, lower = cdf(x0 - mean + 1 / 255), cdf(x0 - mean - 1 / 255)
    p = np.where(x0 < -0.999, upper, np.where(x0 > 0.999, 1 - lower, upper - lower))
    return float(-np.mean(np.log(np.maximum(p, 1e-12))) / np.log(2))


@pytest.mark.parametrize("schedule", [linear(), linear(100), cosine()])
def test_the_bound_is_the_official_one_at_every_sort_of_level(schedule: Schedule):
    rng, last = np.random.default_rng(0), schedule.num_timesteps - 1
    t = np.array([0, 0, 1, 2, 40, last // 2, last - 1, last])
    x0 = np.rint(127.5 * (1 + np.clip(rng.standard_normal((8, 5, 4)), -1, 1))) / 127.5 - 1
    noise, v = rng.standard_normal((2, 8, 5, 4))
    error = 0.3 * rng.standard_normal((8, 5, 4)) * np.where(t == 0, 0.3, 1)[:, None, None]
    abar = schedule.abar[t][:, None, None]
    x_t = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise
    assert (np.abs(x0[:2]) > 0.999).any()
    wanted = [_official(*row, schedule) for row in zip(x0, x_t, noise + error, v, t, strict=True)]
    f32 = [jnp.asarray(x, jnp.float32) for x in (x0, error, v)]
    got = jax.jit(variational_bound, static_argnums=4)(*f32, jnp.asarray(t), schedule)
    np.testing.assert_allclose(got, wanted, rtol=2e-4)


def test_the_bound_of_the_posterior_itself_is_0_and_the_best_variance_is_the_errors():
    """KL(N(0, s) || N(m, w)) is least where w = s + m^2."""
    schedule, t = linear(), jnp.array([3, 200, 999])
    x0 = jnp.zeros((3, 2))
    true = jax.jit(variational_bound, static_argnums=4)(x0, 0 * x0, x0 - 1, t, schedule)
    np.testing.assert_allclose(true, 0.0, atol=1e-9)
    abar, before = schedule.abar[t], schedule.abar[np.asarray(t) - 1]
    beta = 1 - abar / before
    small = beta * (1 - before) / (1 - abar)
    off = 0.7 * np.sqrt(before) * beta / (1 - abar) * np.sqrt(1 / abar - 1)
    best = 2 * np.log((small + off**2) / small) / np.log(beta / small) - 1
    error, v = jnp.full((3, 2), 0.7), jnp.asarray(np.tile(best[:, None], 2), jnp.float32)

    @jax.jit
    def slopes(error, v):
        def bound(error, v):
            return variational_bound(x0, error, v, t, schedule).sum()

        return jax.grad(bound, argnums=(0, 1))(error, v)

    to_error, at_best = slopes(error, v)
    assert not to_error.any()  # the mean learns nothing from the bound
    slope = np.abs(slopes(error, v + 1)[1])
    assert (np.abs(at_best) < 2e-3 * slope).all() and (slope > 0).all()


def test_the_bins_of_the_last_step_share_out_all_probability():
    values, schedule = np.arange(256, dtype=np.float32) / np.float32(127.5) - 1, linear()
    ratio = np.sqrt(1 / schedule.abar[0] - 1)
    bound = jax.jit(variational_bound, static_argnums=4)
    for mean, v in ((0.3, 0.0), (-0.995, 1.0), (0.99, -1.0)):
        error = (values - np.float32(mean)) / np.float32(ratio)
        t = np.zeros(256, np.int32)
        bits = bound(values[:, None], error[:, None], np.full((256, 1), v, np.float32), t, schedule)
        assert np.sum(2.0 ** -np.asarray(bits)) == pytest.approx(1, abs=1e-5)
        assert abs(values[np.argmin(bits)] - mean) < 1 / 127.5


def test_one_level_has_no_range_of_variances():
    x = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="schedule of at least 2 levels, got 1"):
        variational_bound(x, x, x, jnp.array([0]), linear(1))


def _batch() -> dict:
    rng = np.random.default_rng(3)
    shapes = {"audio": (6, 8, 1), "video": (6, 2, 2, 2, 3)}
    return {m: jnp.asarray(0.5 * rng.standard_normal(s), jnp.float32) for m, s in shapes.items()}


def _off_by(x0, noise, error, v=None):
    """A model whose eps is wrong by error(t) everywhere, and whose variance is v."""

    def fn(x_t, t, key):
        out = {}
        for m, x in x_t.items():
            alpha, sigma, off = (
                per_sample(f(t), x) for f in (noise[m].alpha, noise[m].sigma, error)
            )
            eps = (x - alpha * x0[m]) / sigma + off
            out[m] = eps if v is None else jnp.concatenate([eps, jnp.full_like(x, v)], axis=-1)
        return out

    return fn


def test_a_learned_variance_adds_the_bound_which_teaches_eps_nothing():
    x0, sampler, key = _batch(), TimeSampler(num_timesteps=50), jax.random.key(4)
    noise = {"audio": linear(50), "video": linear(50, 1e-3, 0.1)}

    def loss(scale):
        fn = _off_by(x0, noise, lambda t: jnp.full(t.shape, scale[0]), scale[1])
        total, metrics, history = joint_noise_prediction(
            fn, x0, key, noise, sampler, max_weight=5.0, learned_variance=True
        )
        assert history is None
        return {"loss": total, "bound": metrics["vb_audio"] + metrics["vb_video"]}, (total, metrics)

    def bounds(scale):
        t = sampler(jax.random.split(key, 3)[0], 6)
        like = {m: (jnp.full_like(x, scale[0]), jnp.full_like(x, scale[1])) for m, x in x0.items()}
        return {m: variational_bound(x0[m], *like[m], t, noise[m]).mean() for m in x0}

    @jax.jit
    def everything(scale):
        return *jax.jacfwd(loss, has_aux=True)(scale), bounds(scale)

    slopes, (total, metrics), bound = everything(jnp.array([0.5, 0.3]))
    _assert_sum(total, metrics)
    for m in x0:  # times T / 1000, and a part of the modality's loss
        assert float(metrics[f"vb_{m}"]) == pytest.approx(0.05 * float(bound[m]), rel=1e-4)
        assert 0 < float(metrics[f"vb_{m}"]) < float(metrics[f"loss_{m}"])
    assert float(slopes["bound"][0]) == 0 and abs(float(slopes["loss"][0])) > 1e-3
    assert abs(float(slopes["bound"][1])) > 1e-5
    assert float(slopes["loss"][1]) == pytest.approx(float(slopes["bound"][1]), rel=1e-5)
    with pytest.raises(ValueError, match="predicts twice the channels"):
        fn = _off_by(x0, noise, jnp.zeros_like)
        jax.eval_shape(
            lambda: joint_noise_prediction(fn, x0, key, noise, sampler, learned_variance=True)
        )


def _assert_sum(loss, metrics) -> None:
    parts = [float(metrics[f"loss_{m}"]) for m in ("audio", "video")]
    assert min(parts) > 0
    assert float(loss) == pytest.approx(sum(parts), rel=1e-6)


def test_losses_are_weighted_by_the_draw_and_remembered_without_the_weight():
    x0, key, sampler = _batch(), jax.random.key(5), LossSecondMoment(num_timesteps=4, num_losses=2)
    noise = {m: linear(4, 0.1, 0.5) for m in x0}
    losses = np.array([[1.0, 2], [5, 5], [0.1, 0.2], [9, 1]], np.float32)
    history = History(jnp.asarray(losses), jnp.full(4, 2))
    fn = _off_by(x0, noise, lambda t: 0.5 * (1.0 + t))

    @jax.jit
    def everything(history):
        found = joint_noise_prediction(fn, x0, key, noise, sampler, history)
        return found, sampler.draw(history, jax.random.split(key, 3)[0], 6)

    (loss, metrics, after), (t, weights) = everything(history)
    square = np.square(0.5 * (1 + np.asarray(t)))
    assert float(weights.max() - weights.min()) > 0.1
    _assert_sum(loss, metrics)
    for m in x0:
        wanted = float(np.mean(weights * square))
        assert float(metrics[f"loss_{m}"]) == pytest.approx(wanted, rel=1e-4)
    for level, loss in zip(t.tolist(), 2 * square, strict=True):
        losses[level] = [losses[level][1], loss]
    np.testing.assert_allclose(after.losses, losses, rtol=1e-4)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Echo(JointBase):
    """A model whose output is its input, and 7 above it for the variance."""

    learn_sigma: bool

    @property
    def learns_variance(self) -> bool:
        return self.learn_sigma

    def definition(self):
        raise NotImplementedError("it has no network")

    def run(self, network, x, t, cond, key, *, training):
        last = [[v, 7 + v] if self.learn_sigma else [v] for v in x.values()]
        return {m: jnp.concatenate(v, axis=-1) for m, v in zip(x, last, strict=True)}


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_joint_model_gives_eps_and_its_variance(learn_sigma: bool):
    base = _Echo(
        name="joint",
        clip=ClipFormat(),
        codec={"audio": Waveform(), "video": Pixels()},
        schedule=NOISE,
        prediction="x0",
        learn_sigma=learn_sigma,
    )
    assert base.modalities == ("audio", "video") and base.schedules == NOISE
    x_t, t = _batch(), jnp.arange(6) * 100
    got = jax.jit(lambda x, t: base.training_eps(None, x, t, jax.random.key(0)))(x_t, t)
    sampled = base.denoise(None, x_t, t, None)
    if learn_sigma:
        again = base.denoise_with_variance(None, x_t, t, None)
        assert all(np.allclose(again[m], got[m], rtol=1e-6) for m in x_t)
    else:
        with pytest.raises(ValueError, match=r"'joint' \(learned_range\), .* use fixed_small"):
            base.denoise_with_variance(None, x_t, t, None)
    for m, x in x_t.items():
        np.testing.assert_allclose(sampled[m], got[m][..., : x.shape[-1]], rtol=1e-6)
        shape = (6,) + (1,) * (x.ndim - 1)
        alpha, sigma = (f(t).reshape(shape) for f in (NOISE[m].alpha, NOISE[m].sigma))
        eps = got[m][..., : x.shape[-1]]
        np.testing.assert_allclose(eps, (x - alpha * x) / sigma, rtol=1e-5, atol=1e-6)
        if learn_sigma:
            np.testing.assert_allclose(got[m][..., x.shape[-1] :], 7 + x)
        else:
            assert got[m].shape == x.shape
