# SPDX-License-Identifier: Apache-2.0
"""The page: complete, escaped, self-contained, and written only when its files are there."""

import dataclasses
import html.parser
import itertools
import re
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile

from mmdisco_jax.export.gallery import write_gallery
from mmdisco_jax.export.gallery_page import (
    GalleryClip,
    GalleryPage,
    GallerySeed,
    GalleryTable,
    page_html,
    write_page,
)
from mmdisco_jax.matching import match_times
from mmdisco_jax.worlds.bounce import physics
from mmdisco_jax.worlds.bounce.marks import bounce_marks
from tests.support.bounce_clips import batch_of

ODD = "<b>\"&'</b>{{seeds}} \u00bd"


def clip(**changes):
    fields = {
        "label": "guided",
        "video": "a b/#1%?.mp4",
        "spectrogram": "a b/1.png",
        "clip_seconds": 2.0,
        "impact_seconds": (0.5, 1.5),
        "onset_seconds": (0.52, 1.0),
        "scores": {"F1": 0.5, "colour": True, "other": False},
    }
    return GalleryClip(**(fields | changes))


def page(*clips, **changes):
    fields = {
        "title": "Title",
        "description": "About",
        "seeds": (GallerySeed(seed=7, clips=clips),),
        "tolerance_seconds": 1 / 16,
    }
    return GalleryPage(**(fields | changes))


class Parser(html.parser.HTMLParser):
    """All tags with their attributes, and the visible text."""

    VOID = frozenset({"meta", "link", "img", "input"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text += data

    def attributes(self, tag, name):
        return [attrs[name] for t, attrs in self.tags if t == tag and name in attrs]


def test_every_clip_with_its_files_marks_and_scores():
    table = GalleryTable(caption="Cap", header=("Samples", "F1"), rows=(("real", 0.956), ("n", 3)))
    found = Parser(page_html(page(clip(label="alone"), clip(film_strip="s.png"), table=table)))
    assert not found.open
    assert [unquote(u) for u in found.attributes("video", "src")] == ["a b/#1%?.mp4"] * 2
    assert set(found.attributes("video", "preload")) == {"metadata"}
    assert [unquote(u) for u in found.attributes("img", "src")] == [
        "a b/1.png", "s.png", "a b/1.png",
    ]  # fmt: skip
    for text in ("Title", "About", "Seed 7", "alone", "guided", "1 of 2", "Cap", "0.96", "real",
                 "0.50", "✓ yes", "✗ no", "1 sound without an impact", "±62.5 ms"):  # fmt: skip
        assert text in found.text, text
    styles = [s for s in found.attributes("svg", "style") if s]
    expected = ["25.000", "75.000", "26.000", "50.000"] * 2
    assert [re.findall(r"left:([\d.]+)%", s)[0] for s in styles] == expected
    # One joined pair, one impact alone and one sound alone in each clip.
    assert found.attributes("line", "class") == ["", "alone", "alone"] * 2
    assert all(found.attributes("img", "alt"))


def test_text_is_escaped_and_never_taken_for_a_field():
    table = GalleryTable(caption=ODD, header=(ODD,), rows=((ODD,),))
    odd = clip(label=ODD, scores={ODD: ODD}, video=f"{ODD}.mp4".replace("/", "-"))
    text = page_html(
        page(
            odd,
            title=ODD,
            description=ODD,
            table=table,
            seeds=(GallerySeed(seed=ODD, clips=(odd, odd)),),
        )
    )
    found = Parser(text)
    assert not found.open and "b" not in {tag for tag, _ in found.tags}
    assert found.text.count(ODD) >= 10
    assert len(found.attributes("video", "src")) == 2


def test_nothing_is_fetched_from_elsewhere():
    found = Parser(page_html(page(clip())))
    links = [v for _, attrs in found.tags for k, v in attrs.items() if k in {"src", "href"}]
    assert links and not [v for v in links if re.match(r"(https?:|//|/)", v)]
    assert "@import" not in page_html(page(clip())) and "url(" not in page_html(page(clip()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": "/etc/a.mp4"}, "relative"),
        ({"video": "../a.mp4"}, "relative"),
        ({"spectrogram": "a\\b.png"}, "relative"),
        ({"film_strip": ""}, "relative"),
        ({"clip_seconds": 0.0}, "clip_seconds"),
        ({"impact_seconds": (2.5,)}, "2.5 s"),
        ({"onset_seconds": (float("nan"),)}, "nan s"),
        ({"impact_colour": "red;background:url(x)"}, "#rrggbb"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        clip(**changes)


def test_uneven_table_is_refused():
    with pytest.raises(ValueError, match="2 cells"):
        GalleryTable(caption="", header=("a",), rows=(("x", 1.0),))


def test_writes_only_when_the_files_are_there(tmp_path):
    short = dataclasses.replace(clip(), video="a.mp4", spectrogram="a.png")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(FileNotFoundError, match=r"a\.png.*media first"):
        write_page(tmp_path / "index.html", page(short))
    assert not (tmp_path / "index.html").exists()
    (tmp_path / "a.png").touch()
    write_page(tmp_path / "index.html", page(short))
    assert "Seed 7" in (tmp_path / "index.html").read_text("utf-8")


def world(count):
    return batch_of([physics.simulate(3, i) for i in range(count)])


def test_a_gallery_of_clips_has_their_files_and_their_marks(tmp_path):
    clips = world(2)
    floats = clips | {"audio": clips["audio"] / 32767}
    page = write_gallery(
        tmp_path, {"a": clips, "b": floats}, fps=8, sample_rate_hz=16000, prompts=["a ball", "two"],
        title="T", description="D", marks=bounce_marks,
    )  # fmt: skip
    assert page == tmp_path / "index.html"
    found = Parser(page.read_text("utf-8"))
    for text in ("T", "D", "a ball (seed 0)", "two (seed 1)", "timing F1", "impacts heard on time"):
        assert text in found.text, text
    stems = ["00000-a_ball", "00001-two"]
    suffixes = (".mp4", ".wav", ".spectrogram.png", ".strip.png")
    for variant in ("a", "b"):
        names = {path.name for path in (tmp_path / variant).iterdir()}
        assert names == {stem + suffix for stem in stems for suffix in suffixes}
        for stem, sound in zip(stems, clips["audio"], strict=True):
            read, _ = soundfile.read(tmp_path / variant / f"{stem}.wav", dtype="int16")
            np.testing.assert_array_equal(read, sound)  # what was measured is what is heard


def test_media_are_kept_on_request_and_replaced_else(tmp_path):
    settings = {"fps": 8, "sample_rate_hz": 16000, "stems": ["x"]}
    page = write_gallery(tmp_path, {"a": world(1)}, **settings)
    for name in ("x.mp4", "x.wav"):
        (tmp_path / "a" / name).write_bytes(b"mine")
    write_gallery(tmp_path, {"a": world(1)}, **settings, reuse_media=True)
    assert (tmp_path / "a" / "x.mp4").read_bytes() == b"mine"
    assert (tmp_path / "a" / "x.wav").read_bytes() == b"mine"
    write_gallery(tmp_path, {"a": world(1)}, **settings)
    assert (tmp_path / "a" / "x.mp4").stat().st_size > 1000
    assert "impacts heard" not in page.read_text()  # no marks were asked for


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ({}, "at least one clip"),
        ({"a": world(1), "b": world(2)}, "'a': 1, 'b': 2"),
        ({"a/b": world(1)}, "without '/'"),
        ({"a": {"video": world(1)["video"]}}, r"lack \['audio'\]"),
        ({"a": world(1) | {"video": world(1)["video"] / 255}}, "uint8"),
        ({"a": world(1) | {"audio": world(1)["audio"][:, :, None]}}, "one mono sound"),
        ({"a": world(1) | {"audio": np.full((1, 9), np.nan)}}, "9 NaN"),
    ],
)
def test_clips_of_another_form_write_nothing(tmp_path, clips, message):
    with pytest.raises(ValueError, match=message):
        write_gallery(tmp_path, clips, fps=8, sample_rate_hz=16000)
    assert not list(tmp_path.iterdir())


def best_by_search(first, second, tolerance):
    """The size of the largest matching, by trying every assignment."""
    longer, shorter = sorted([first, second], key=len, reverse=True)
    return max(
        sum(abs(a - b) <= tolerance for a, b in zip(order, shorter, strict=True))
        for order in itertools.permutations(longer, len(shorter))
    )


@pytest.mark.parametrize("seed", range(200))
def test_matching_is_as_large_as_can_be(seed):
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 12, rng.integers(0, 5)).tolist() for _ in range(2))
    pairs = match_times(first, second, 2)
    assert all(abs(first[i] - second[j]) <= 2 for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert len(pairs) == best_by_search(first, second, 2)
