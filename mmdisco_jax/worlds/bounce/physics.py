# SPDX-License-Identifier: Apache-2.0
"""Bouncing ball simulator: video of a falling ball and the sound of its impacts.

What a clip holds is decided by two hidden facts that sound and picture share: *when* the ball hits
the floor, and *what* colour it has (the colour sets the pitch). Everything else (horizontal place,
timbre jitter) is private to one modality. So a model of the pair can be measured against truth.

Units: pixels (y grows downwards), seconds, hertz. A clip is a pure function of (seed, index).
"""

import dataclasses

import numpy as np

from mmdisco_jax.io import to_int16

CLIP_SECONDS = 2.0
FPS = 8
NUM_FRAMES = 16
FRAME_SIZE = 32
SAMPLE_RATE_HZ = 16_000
NUM_SAMPLES = 32_000

RADIUS = 5.0  # pixels
CONTACT_Y = 25.0  # y of the ball's centre while it touches the floor
GRAVITY = 95.0  # pixels / s^2
BACKGROUND = np.array([24, 24, 36], np.float64)
FLOOR = np.array([96, 96, 104], np.float64)
COLOUR_NAMES = ("red", "green", "blue", "yellow")
COLOURS = np.array([[230, 50, 50], [50, 210, 80], [70, 110, 250], [245, 215, 60]], np.float64)
PITCHES_HZ = np.array([350.0, 750.0, 1500.0, 3000.0])  # PITCHES_HZ[i] is the sound of COLOURS[i]
PEAK = 17.5  # pixels above contact: the ball never leaves the frame
# An impact outside these has too few frames on one side to be seen; such clips are drawn again.
FIRST_IMPACT_SECONDS = 0.2
LAST_IMPACT_SECONDS = 1.8
MIN_IMPACT_SPEED = 15.0  # pixels / s: slower ones follow each other faster than frames
FULL_SPEED = 60.0  # pixels / s: the impact speed that sounds at full scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class BounceClip:
    """Simulated clip with its ground truth.

    video uint8 [16, 32, 32, 3]; audio int16 [32000]; impact_seconds and impact_speeds float64 [n];
    colour int in 0..3; height float64 [16], the centre's height above contact at each frame,
    pixels.
    """

    video: np.ndarray
    audio: np.ndarray
    impact_seconds: np.ndarray
    impact_speeds: np.ndarray
    colour: int
    height: np.ndarray


def simulate(seed: int, index: int) -> BounceClip:
    """Simulates clip `index` of the dataset `seed`; the same arguments give the same clip."""
    rng = np.random.default_rng([seed, index])
    colour = int(rng.integers(len(COLOURS)))
    while True:
        start, rise, restitution = rng.uniform([2.0, -45.0, 0.72], [PEAK, 45.0, 0.88])
        impacts, speeds = _impacts(start, rise, restitution)
        if start + max(rise, 0.0) ** 2 / (2 * GRAVITY) <= PEAK and _visible(impacts, speeds):
            break
    seconds = np.arange(NUM_FRAMES) / FPS
    height = _height(seconds, start, rise, restitution, impacts, speeds)
    x = rng.uniform(9.0, 22.0) + rng.uniform(-2.0, 2.0) * seconds
    video = render(x, CONTACT_Y - height, COLOURS[colour])
    audio = ring(rng, impacts, speeds, PITCHES_HZ[colour])
    return BounceClip(
        video=video,
        audio=audio,
        impact_seconds=impacts,
        impact_speeds=speeds,
        colour=colour,
        height=height,
    )


def _visible(impacts: np.ndarray, speeds: np.ndarray) -> bool:
    """True if every impact can be read from 8 frames a second."""
    inside = impacts[0] >= FIRST_IMPACT_SECONDS and impacts[-1] <= LAST_IMPACT_SECONDS
    return 2 <= len(impacts) <= 4 and inside and speeds[-1] >= MIN_IMPACT_SPEED


def _impacts(start: float, rise: float, restitution: float) -> tuple[np.ndarray, np.ndarray]:
    """Impact times and speeds of a ball `start` pixels above contact, moving up at `rise` px/s."""
    speed = np.sqrt(rise**2 + 2 * GRAVITY * start)
    second = (rise + speed) / GRAVITY
    seconds, speeds = [], []
    # The flights of a weak ball sum to less than a clip: five impacts are enough to refuse it.
    while second < CLIP_SECONDS and len(seconds) < 5:
        seconds.append(second)
        speeds.append(speed)
        speed *= restitution
        second += 2 * speed / GRAVITY
    return np.array(seconds), np.array(speeds)


def _height(seconds, start, rise, restitution, impacts, speeds) -> np.ndarray:
    """Height above contact [f]: a first parabola, then one after each impact."""
    height = start + rise * seconds - 0.5 * GRAVITY * seconds**2
    for second, speed in zip(impacts, speeds, strict=True):
        since = seconds - second
        flight = restitution * speed * since - 0.5 * GRAVITY * since**2
        height = np.where(since >= 0, flight, height)
    return np.maximum(height, 0.0)


def render(x: np.ndarray, y: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Frames uint8 [f, 32, 32, 3] of a shaded disc with centres (y, x) [f] over a floor line."""
    grid = np.arange(FRAME_SIZE) + 0.5
    distance = np.hypot(
        grid[None, :, None] - y[:, None, None], grid[None, None, :] - x[:, None, None]
    )
    # One pixel of linear fall-off at the rim is an antialiased edge: the centre is sub-pixel exact.
    cover = np.clip(RADIUS + 0.5 - distance, 0.0, 1.0)[..., None]
    scene = np.broadcast_to(BACKGROUND, (FRAME_SIZE, FRAME_SIZE, 3)).copy()
    scene[int(CONTACT_Y + RADIUS) :] = FLOOR
    frames = scene * (1 - cover) + colour * cover
    return np.rint(frames).astype(np.uint8)


def ring(rng: np.random.Generator, impacts, speeds, pitch_hz: float) -> np.ndarray:
    """Sound int16 [32000]: at each impact a decaying tone and a weak inharmonic partial.

    Pitch jitters by 2.5 % a clip; loudness follows the impact's speed.
    """
    pitch_hz = pitch_hz * (1 + 0.025 * rng.standard_normal())
    second = np.arange(NUM_SAMPLES) / SAMPLE_RATE_HZ
    wave = np.zeros(NUM_SAMPLES)
    for start, speed in zip(impacts, speeds, strict=True):
        since = second[second >= start] - start
        attack = np.minimum(since / 0.004, 1.0)
        tone = np.sin(2 * np.pi * pitch_hz * since) * np.exp(-since / 0.10)
        tone += 0.25 * np.sin(2 * np.pi * 1.9 * pitch_hz * since) * np.exp(-since / 0.05)
        wave[NUM_SAMPLES - len(since) :] += 0.6 * min(speed / FULL_SPEED, 1.0) * attack * tone
    return to_int16(wave, check=False)
