# SPDX-License-Identifier: Apache-2.0
"""Onset and pitch detectors for the sound of generated bounce clips.

An onset is a rise of the level: the amplitude of the 40 ms after an instant less that of the 40 ms
before. Windows that long see through the ripple that Griffin-Lim leaves in a decaying tone, and
being symmetric they do not shift an attack that its 64 ms frames smear.
"""

import numpy as np

from mmdisco_jax.io import from_int16
from mmdisco_jax.worlds.bounce import physics

HOP_SECONDS = 0.004
WINDOW_SECONDS = 0.040
# The quietest ring of a clip of this world has .37 of the loudest's amplitude; a ghost in its
# tail, .15.
MIN_RELATIVE_RISE = 0.22
MIN_RISE = 0.01  # of full scale; the quietest ring of the world rises by .07
MIN_RATIO = 2.0  # amplitude after over before
APART_SECONDS = 0.18  # the world's impacts are at least .27 apart
PITCH_SECONDS = 0.12  # the part after an onset that its pitch is read from
BAND_HZ = (200.0, 6000.0)


def audio_onsets(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detects onset times in seconds, ascending float64 [n], and their pitch classes int [n].

    audio: one clip, int16 or float in [-1, 1], [32000] at 16 kHz. A class indexes
    `physics.PITCHES_HZ`: of the four bands around them (borders half-way in log-frequency) the one
    with the most energy in the 120 ms after the onset.
    """
    if audio.shape != (physics.NUM_SAMPLES,):
        raise ValueError(f"audio has shape {audio.shape}; a bounce clip is [{physics.NUM_SAMPLES}]")
    wave = from_int16(audio, np.float64)
    if not np.isfinite(wave).all():
        raise ValueError("audio holds numbers that are not finite: check the sampler that made it")
    hop = round(HOP_SECONDS * physics.SAMPLE_RATE_HZ)
    onsets = _pick(*_rise(wave, hop)) * hop
    pitches = np.array([_pitch_class(wave[start:]) for start in onsets], int)
    return onsets / physics.SAMPLE_RATE_HZ, pitches


def clip_pitch(pitches: np.ndarray) -> int:
    """Pitch class of more than half of a clip's onsets; -1 without one, or without any onset."""
    if len(pitches) == 0:
        return -1
    votes = np.bincount(pitches)
    return int(votes.argmax()) if 2 * votes.max() > len(pitches) else -1


def _rise(wave: np.ndarray, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude after less before, and over before, at every `hop` samples: two [n].

    The clip's first level is taken to have lasted before it (a hum has no onset); silence follows
    it.
    """
    blocks = (wave.reshape(-1, hop) ** 2).mean(1)
    width = round(WINDOW_SECONDS / HOP_SECONDS)
    energy = np.concatenate([np.full(width, blocks[0]), blocks, np.zeros(width)])
    level = np.sqrt(np.convolve(energy, np.full(width, 1 / width), "valid"))
    before, after = level[: len(blocks)], level[width : width + len(blocks)]
    return after - before, after / np.maximum(before, 1e-6)


def _pick(rise: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Indices of the rises that count, strongest first among neighbours, returned in order."""
    enough = (rise >= max(MIN_RISE, MIN_RELATIVE_RISE * rise.max())) & (ratio >= MIN_RATIO)
    apart = APART_SECONDS / HOP_SECONDS
    taken: list[int] = []
    for index in np.argsort(-rise, kind="stable"):
        if enough[index] and all(abs(index - other) >= apart for other in taken):
            taken.append(int(index))
    return np.array(sorted(taken), int)


def _pitch_class(after: np.ndarray) -> int:
    part = after[: round(PITCH_SECONDS * physics.SAMPLE_RATE_HZ)]
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)), n=4096)) ** 2
    hertz = np.fft.rfftfreq(4096, 1 / physics.SAMPLE_RATE_HZ)
    heard = (hertz >= BAND_HZ[0]) & (hertz <= BAND_HZ[1])
    borders = np.sqrt(physics.PITCHES_HZ[1:] * physics.PITCHES_HZ[:-1])
    bands = np.searchsorted(borders, hertz[heard])
    return int(np.bincount(bands, weights=power[heard]).argmax())
