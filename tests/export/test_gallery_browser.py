# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, opened from disk: each clip plays, with sound, one at a time."""

import base64
import json

import numpy as np
import pytest

from mmdisco_jax.export import media
from mmdisco_jax.export.gallery import write_gallery
from mmdisco_jax.worlds.bounce import physics
from mmdisco_jax.worlds.bounce.marks import bounce_marks
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
def tab(tmp_path_factory):
    """The page of two seeds by two variants in a browser, and what went wrong in it."""
    folder = tmp_path_factory.mktemp("gallery")
    clips = {}
    for variant, other in (("independent", 40), ("guided", 0)):
        pairs = [(physics.simulate(0, i), physics.simulate(0, i + other)) for i in range(2)]
        clips[variant] = {
            "video": np.stack([seen.video for seen, _ in pairs]),
            "audio": np.stack([heard.audio for _, heard in pairs]),
        }
    path = write_gallery(folder, clips, fps=8, sample_rate_hz=16000, marks=bounce_marks)
    with chromium.opened(str(chromium.find()), path.as_uri()) as opened:
        yield opened


@pytest.fixture
def page(tab):
    return tab[0]


def test_every_clip_plays_with_sound(tab):
    page, complaints = tab
    for index in range(page.evaluate("document.querySelectorAll('.clip').length")):
        seen = page.evaluate(PLAY % index)
        assert seen["audio_bytes"] > 1000 and seen["frames"] >= 14, seen
        assert abs(seen["duration"] - 2) < 1e-3 and seen["head"] == "100%", seen
        assert seen["playing"] == 0 and seen["word"] == "Play" and not seen["error"], seen
    assert complaints == []


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
    page.set_viewport_size({"width": width, "height": 800})
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
