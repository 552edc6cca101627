# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, opened from disk: each clip plays, with sound, one at a time."""

import base64
import json

import numpy as np
import pytest

from mmdisco_jax.export import media, plots
from mmdisco_jax.export.gallery import GalleryClip, GalleryPage, GallerySeed, write_page
from mmdisco_jax.worlds.bounce import physics
from tests.support import chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.find() is None, reason="needs Chromium on the PATH"),
]

PLAY = """(async () => {
  const clip = document.querySelectorAll('.clip')[%d], video = clip.querySelector('video');
  clip.querySelector('.play').click();
  await new Promise((ok, no) => { video.onended = ok; video.onerror = no; setTimeout(no, 9000); });
  return {
    audio_bytes: video.webkitAudioDecodedByteCount,
    frames: video.getVideoPlaybackQuality().totalVideoFrames,
    duration: video.duration,
    head: clip.querySelector('.head').style.left,
    playing: [...document.querySelectorAll('video')].filter(v => !v.paused).length,
    word: clip.querySelector('.word').textContent,
    error: !clip.querySelector('.error').hidden,
  };
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    seeds = []
    for seed in range(2):
        clips = []
        for label, other in (("independent", seed + 40), ("guided", seed)):
            clip, sound = physics.simulate(0, seed), physics.simulate(0, other)
            name = f"{seed} {label}"
            waveform = sound.audio / 32768
            media.write_mp4(
                folder / f"{name}.mp4", clip.video, waveform, fps=8, sample_rate_hz=16000, scale=8
            )
            plots.write_spectrogram(folder / f"{name}.png", waveform, sample_rate_hz=16000)
            plots.write_film_strip(folder / f"{name}.strip.png", clip.video)
            clips.append(
                GalleryClip(
                    label=label,
                    video=f"{name}.mp4",
                    spectrogram=f"{name}.png",
                    film_strip=f"{name}.strip.png",
                    clip_seconds=2.0,
                    impact_seconds=tuple(clip.impact_seconds.tolist()),
                    onset_seconds=tuple(sound.impact_seconds.tolist()),
                )
            )
        seeds.append(GallerySeed(seed=seed, clips=tuple(clips)))
    write_page(
        folder / "index.html",
        GalleryPage(
            title="Bounce", description="Test", seeds=tuple(seeds), tolerance_seconds=1 / 16
        ),
    )
    profile = tmp_path_factory.mktemp("profile")
    with chromium.browser(str(chromium.find()), profile) as tab:
        tab.open((folder / "index.html").as_uri())
        yield tab


def test_every_clip_plays_with_sound(page):
    for index in range(page.evaluate("document.querySelectorAll('.clip').length")):
        seen = page.evaluate(PLAY % index)
        assert seen["audio_bytes"] > 1000 and seen["frames"] >= 14, seen
        assert abs(seen["duration"] - 2) < 1e-3 and seen["head"] == "100%", seen
        assert seen["playing"] == 0 and seen["word"] == "Play" and not seen["error"], seen
    assert page.complaints() == []


def test_playing_one_pauses_the_others(page):
    playing = page.evaluate("""(async () => {
      const buttons = document.querySelectorAll('.play'), wait = () =>
        new Promise(ok => setTimeout(ok, 500));
      buttons[0].click(); await wait(); buttons[1].click(); await wait();
      const playing = [...document.querySelectorAll('video')].map(v => !v.paused);
      buttons[1].click();
      return playing;
    })()""")
    assert playing == [False, True, False, False]


def test_the_playhead_follows_a_seek_by_keyboard(page):
    left = page.evaluate("""(async () => {
      const seek = document.querySelector('.seek'); seek.focus();
      seek.value = 1.5; seek.dispatchEvent(new Event('input'));
      await new Promise(ok => setTimeout(ok, 300));
      return document.querySelector('.head').style.left;
    })()""")
    assert left == "75%"


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1,
              mobile=width < 500)  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    columns = page.evaluate(
        "new Set([...document.querySelectorAll('.seed:first-child .clip')]"
        ".map(c => c.getBoundingClientRect().left)).size"
    )
    assert columns == (1 if width == 375 else 2)


def test_sound_decodes_in_step_in_the_browser(page, tmp_path):
    clicks = [0, 1234, 20000, 31990]
    waveform = np.zeros(32000, np.float32)
    waveform[clicks] = 0.9
    video = np.zeros((16, 32, 32, 3), np.uint8)
    media.write_mp4(tmp_path / "a.mp4", video, waveform, fps=8, sample_rate_hz=16000)
    data = base64.b64encode((tmp_path / "a.mp4").read_bytes()).decode()
    heard = page.evaluate(f"""(async () => {{
      const bytes = Uint8Array.from(atob({json.dumps(data)}), c => c.charCodeAt(0));
      const context = new OfflineAudioContext(1, 1, 16000);
      const sound = (await context.decodeAudioData(bytes.buffer)).getChannelData(0);
      return [sound.length, [...sound.keys()].filter(i => Math.abs(sound[i]) > 0.4)];
    }})()""")
    assert heard == [32000, clicks]
