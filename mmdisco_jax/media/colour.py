# SPDX-License-Identifier: Apache-2.0
"""Tone mapping of HDR pictures (HLG, PQ) and of wide colour gamuts to SDR, as a player shows them.

The steps are those of ITU-R BT.2390: from the signal to the light of a display, to the primaries of
BT.709, down to the peak of an SDR display by a curve with a soft knee, and to the signal of BT.1886
for that display. PyAV's FFmpeg lacks zscale and libplacebo, and swscale's own tone mapping leaves
white grey (35 levels of mean error on bars of known colours, where this has 6).
"""

import dataclasses
import functools

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from mmdisco_jax.media.streams import StreamError

# Nits. HDR is graded for a peak of about 1,000 (BT.2100); what it calls white has 203 (BT.2408),
# which is therefore the peak of the SDR display.
HDR_PEAK_NITS = 1000.0
SDR_PEAK_NITS = 203.0
SDR_GAMMA = 2.4  # BT.1886
# Pictures of this size that name no matrix are BT.709 for players (ffplay, mpv), others BT.601.
_HD_WIDTH, _HD_HEIGHT = 1280, 577

# By their numbers in ITU-T H.273; PyAV has no names for them.
_UNKNOWN_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    14: "ICtCp",
    15: "IPT",
    16: "YCgCo-R",
    17: "YCgCo-R",
}

_TRANSFERS = {ColorTrc.ARIB_STD_B67: "HLG", ColorTrc.SMPTE2084: "PQ", ColorTrc.LINEAR: "linear"}
# Chromaticities x, y of red, green, blue and white; ITU-R BT.709 and BT.2020, SMPTE RP 431-2 and
# EG 432-1. SD primaries (BT.601) are so near to BT.709 that players do not convert them.
_PRIMARIES = {
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
    ColorPrimaries.SMPTE431: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    ColorPrimaries.SMPTE432: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
}
_GAMUTS = {
    ColorPrimaries.BT2020: "BT.2020",
    ColorPrimaries.SMPTE431: "DCI-P3",
    ColorPrimaries.SMPTE432: "Display P3",
}


@dataclasses.dataclass(frozen=True)
class Colours:
    """Transfer function and primaries of pictures that SDR displays show wrongly as they are.

    Attributes:
      transfer: "HLG", "PQ", "linear", or "" for the usual ones of SDR.
      primaries: "BT.2020", "DCI-P3", "Display P3", or "" for the usual ones.
    """

    transfer: str = ""
    primaries: str = ""

    def __str__(self) -> str:
        return " ".join(name for name in (self.transfer, self.primaries) if name)


def colours_of(frame: VideoFrame) -> Colours | None:
    """Returns the colours of a frame that has high dynamic range or a wide gamut, else None."""
    transfer = _TRANSFERS.get(getattr(frame, "color_trc", 0), "")
    primaries = _GAMUTS.get(getattr(frame, "color_primaries", 0), "")
    return Colours(transfer, primaries) if transfer or primaries else None


def matrix_of(frame: VideoFrame) -> Colorspace | None:
    """Returns the matrix from YCbCr to RGB of a frame that names none, or None to follow its name.

    As for players, it is that of the primaries for BT.2020, BT.709 for HD, else FFmpeg's default.

    Raises:
      StreamError: it names one that FFmpeg's scaler cannot convert.
    """
    named = getattr(frame, "colorspace", 0)
    if named in _UNKNOWN_MATRICES:
        raise StreamError(
            f"its colours are coded as {_UNKNOWN_MATRICES[named]}, which FFmpeg's scaler cannot "
            "convert"
        )
    if named != 2:  # unspecified
        return None
    if frame.color_primaries == ColorPrimaries.BT2020:
        return Colorspace.BT2020
    hd = frame.width >= _HD_WIDTH or frame.height >= _HD_HEIGHT
    return Colorspace.ITU709 if hd else None


def to_sdr(signal: np.ndarray, colours: Colours) -> np.ndarray:
    """Converts a picture to the signal of an SDR display with BT.709 primaries.

    Parts that BT.709 cannot show are clipped to its gamut.

    Args:
      signal: uint16 [h w 3], R'G'B' over the full range.
      colours: as `colours_of` gives them.

    Returns:
      uint8 [h w 3].

    Source: ITU-R BT.2100-2 tables 4 and 5, BT.2390-10 section 5.4.1, BT.1886.
    """
    nits = _light_table(colours.transfer)[signal]
    if colours.transfer == "HLG":
        # The opto-optical transfer function, for a display of 1,000 nits.
        luminance = nits @ np.array([0.2627, 0.6780, 0.0593], np.float32) / HDR_PEAK_NITS
        nits = nits * np.maximum(luminance, 1e-9)[..., None] ** 0.2
    if colours.primaries:
        nits = nits @ _to_bt709(colours.primaries).T
    light = np.maximum(nits / SDR_PEAK_NITS, 0.0)
    if colours.transfer in ("HLG", "PQ"):
        # Of the brightest channel, so that hue and saturation stay.
        peak = light.max(axis=-1, keepdims=True)
        light = light * (_compressed(peak) / np.maximum(peak, 1e-9))
    shown = np.minimum(light, 1.0) ** (1 / SDR_GAMMA)
    return np.rint(255 * shown).astype(np.uint8)


@functools.cache
def _light_table(transfer: str) -> np.ndarray:
    """Nits of each signal of 16 bits, float32 [65536]; for HLG before the opto-optical function."""
    signal = np.arange(65536) / 65535
    if transfer == "PQ":
        nits = pq_to_nits(signal)
    elif transfer == "HLG":
        nits = HDR_PEAK_NITS * hlg_to_scene(signal)
    else:
        nits = SDR_PEAK_NITS * (signal if transfer == "linear" else signal**SDR_GAMMA)
    return nits.astype(np.float32)


# Constants of SMPTE ST 2084.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_to_nits(signal: np.ndarray) -> np.ndarray:
    """PQ electro-optical transfer function: signal in [0, 1] to nits (SMPTE ST 2084)."""
    power = np.asarray(signal) ** (1 / _M2)
    return 1e4 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """Inverse of `pq_to_nits`."""
    power = (np.asarray(nits) / 1e4) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_to_scene(signal: np.ndarray) -> np.ndarray:
    """HLG inverse opto-electronic transfer function: signal in [0, 1] to light of the scene in
    [0, 1] (ITU-R BT.2100)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.asarray(signal)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _compressed(light: np.ndarray) -> np.ndarray:
    """BT.2390's curve with a soft knee; light in multiples of the SDR peak, as is the result."""
    steps, curve = _curve()
    return np.interp(np.sqrt(np.minimum(light, steps[-1] ** 2)), steps, curve).astype(np.float32)


@functools.cache
def _curve() -> tuple[np.ndarray, np.ndarray]:
    """(square root of the light, compressed light), in multiples of the SDR peak."""
    peak = HDR_PEAK_NITS / SDR_PEAK_NITS
    steps = np.linspace(0, np.sqrt(peak), 4096)
    white = nits_to_pq(np.array(HDR_PEAK_NITS))
    signal = nits_to_pq(SDR_PEAK_NITS * steps**2) / white
    most = nits_to_pq(np.array(SDR_PEAK_NITS)) / white
    knee = 1.5 * most - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee)
    spline += (-2 * t**3 + 3 * t**2) * most
    bent = np.where(signal < knee, signal, spline)
    return steps, pq_to_nits(bent * white) / SDR_PEAK_NITS


@functools.cache
def _to_bt709(primaries: str) -> np.ndarray:
    """Matrix of linear light from these primaries to BT.709's, float32 [3 3]; white stays white."""
    source = next(key for key, name in _GAMUTS.items() if name == primaries)
    target = np.linalg.inv(_to_xyz(_PRIMARIES[ColorPrimaries.BT709]))
    return (target @ _adapted(_to_xyz(_PRIMARIES[source]))).astype(np.float32)


def _to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> np.ndarray:
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in chromaticities]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def _adapted(to_xyz: np.ndarray) -> np.ndarray:
    """The matrix with its white moved to that of BT.709 (Bradford)."""
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    has = cone @ to_xyz.sum(axis=1)
    wanted = cone @ _to_xyz(_PRIMARIES[ColorPrimaries.BT709]).sum(axis=1)
    return np.linalg.inv(cone) @ np.diag(wanted / has) @ cone @ to_xyz
