# SPDX-License-Identifier: Apache-2.0
"""One step of an exponential integrator: the formulas that all DPM-Solvers share.

With lambda = log(alpha / sigma), the probability flow is exactly (2206.00927, equation 3.4;
2211.01095, equation 9)

    x_t = (alpha_t / alpha_s) x_s - sigma_t int_0^h e^(h - u) eps(s + u) du      noise prediction
    x_t = (sigma_t / sigma_s) x_s + alpha_t int_0^h e^(u - h) x0(s + u) du       data prediction

where h is the step in lambda. A solver replaces the prediction by a polynomial through its values
at some nodes. With z = h (noise) or -h (data) both integrals have the same weights. Functions of
log-SNRs take numpy arrays, for host tables, or JAX arrays; `xp` is the module to compute with.
"""

from typing import Any, Protocol

from mmdisco_jax.samplers.api import limited
from mmdisco_jax.types import Array

PREDICTIONS = ("x0", "eps")
VARIANTS = ("dpm_solver", "taylor")
_TERMS = 10  # of the series below |z| = 1: the rest is below 1e-9 of the value


class Predictor(Protocol):
    """Prediction that a solver interpolates, and limits of the signal; see `DPMSolver`."""

    @property
    def prediction(self) -> str: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def quantile(self) -> float | None: ...


def predicted(x: Array, eps: Array, alpha: Array, sigma: Array, solver: Predictor) -> Array:
    """The prediction that is interpolated, limited; alpha and sigma broadcast against x."""
    if solver.prediction == "eps" and solver.clip is None:
        return eps
    x0 = limited((x - sigma * eps) / alpha, solver.clip, solver.quantile)
    return x0 if solver.prediction == "x0" else (x - alpha * x0) / sigma


def alpha(log_snr: Any, xp: Any) -> Any:
    return xp.exp(-0.5 * xp.logaddexp(0.0, -2.0 * log_snr))


def sigma(log_snr: Any, xp: Any) -> Any:
    return xp.exp(-0.5 * xp.logaddexp(0.0, 2.0 * log_snr))


def phis(z: Any, xp: Any) -> tuple[Any, Any, Any]:
    """e^z - 1, (e^z - 1) / z - 1 and (e^z - 1 - z) / z^2 - 1/2, without their cancellation."""
    series, term = 0.0, z / 6
    for k in range(_TERMS):
        series, term = series + term, term * z / (k + 4)
    small = abs(z) < 1
    far = xp.where(small, 1.0, z)
    third = xp.where(small, series, (xp.expm1(far) - far) / far**2 - 0.5)
    second = z * (third + 0.5)
    return z * (second + 1.0), second, third


def ends(start: Any, stop: Any, prediction: str, xp: Any) -> tuple[Any, Any, Any]:
    """(ratio, scale, z) of a step between two log-SNRs: x_t = ratio x_s + weights of predictions.

    `scale` and `z` are what `weights` needs.
    """
    if prediction == "x0":
        return sigma(stop, xp) / sigma(start, xp), alpha(stop, xp), start - stop
    return alpha(stop, xp) / alpha(start, xp), sigma(stop, xp), stop - start


def weights(scale: Any, z: Any, nodes: tuple[Any, ...], variant: str, xp: Any) -> tuple[Any, ...]:
    """Weights of the predictions at the step's start and at `nodes`, in this order.

    nodes: none, one or two positions in units of the step from its start: 0 < r for the stages of a
      single-step method, r < 0 for the past of a multistep method. Their number + 1 is the order.
    variant: "taylor" integrates the polynomial through all nodes. "dpm_solver" puts simpler terms
      of the same order in the place of its second-order ones (with two nodes it takes the first and
      third prediction alone, which is of third order for a node at 2/3).

    The official third-order multistep formula halves the quadratic term and is of second order
    (2211.01095's own code and its descendants do so too); here the integral is exact.
    """
    first, second, third = phis(z, xp)
    if not nodes:
        return (-scale * first,)
    if len(nodes) == 1:
        slope = (second if variant == "taylor" else 0.5 * first) / nodes[0]
        return -scale * (first - slope), -scale * slope
    near, far = nodes
    if variant == "dpm_solver":
        slope = second / far
        return -scale * (first - slope), 0.0 * slope, -scale * slope
    # Newton's polynomial: slopes d_i to the nodes, then first and second derivatives by them.
    to_near = (far * second - 2 * third) / (far - near) / near
    to_far = (2 * third - near * second) / (far - near) / far
    return -scale * (first - to_near - to_far), -scale * to_near, -scale * to_far
