# SPDX-License-Identifier: Apache-2.0
"""Turned, mirrored, HDR and interlaced pictures, against FFmpeg's own display and known colours."""

import gc
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from av.filter import Graph
from av.video.reformatter import Colorspace, ColorTrc

from mmdisco_jax.media.colour import Colours, hlg_to_scene, nits_to_pq, pq_to_nits, to_sdr
from mmdisco_jax.media.cutting import ClipSpec, Part, Window, iter_windows
from mmdisco_jax.media.frames import deinterlaced
from mmdisco_jax.media.inspection import inspect
from mmdisco_jax.media.picture import fit
from mmdisco_jax.media.streams import StreamError
from tests.support import odd_media
from tests.support.odd_media import BARS, FPS, ORIENTATIONS

ROWS, COLUMNS = odd_media.SIZE


def spec(height: int, width: int, fps: float = FPS) -> ClipSpec:
    return ClipSpec(clip_seconds=0.4, fps=fps, height=height, width=width, sample_rate_hz=16_000)


def first_window(path: Path, clips: ClipSpec, part: Part | None = None, **calls) -> Window:
    return next(iter_windows(path, clips, part, **calls))


def difference(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left.astype(int) - right.astype(int)).mean())


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations_are_those_of_ffmpegs_display(tmp_path, name):
    path = odd_media.write_oriented(tmp_path / "a.mp4", name)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0))
        shown = odd_media.filtered(stored, ORIENTATIONS[name][1])
    clips = spec(*shown.shape[:2])
    assert difference(first_window(path, clips).video[0], shown) < 3
    others = [odd_media.filtered(stored, filters) for _, filters in ORIENTATIONS.values()]
    wrong = [other for other in others if other.shape == shown.shape and (other != shown).any()]
    assert len(wrong) == 3
    assert all(difference(first_window(path, clips).video[0], other) > 20 for other in wrong)
    found = inspect(str(path), None, clips, lambda: None)
    assert (found.problem, bool(found.changes)) == ("", name != "upright")
    assert ("mirrored" in found.changes) == (np.linalg.det(_matrix(name)) < 0)


def _matrix(name: str) -> np.ndarray:
    return np.array(ORIENTATIONS[name][0]).reshape(2, 2)


@pytest.mark.parametrize(
    ("transfer", "most", "kept"),
    [
        (ColorTrc.ARIB_STD_B67, 7, 25),
        (ColorTrc.SMPTE2084, 7, 45),
        (ColorTrc.BT2020_10, 1, 10),  # a wide gamut, with the range of SDR
    ],
)
def test_hdr_and_wide_gamuts_are_shown_in_sdr(tmp_path, transfer, most, kept):
    path, clips = odd_media.write_bars(tmp_path / "a.mkv", transfer), spec(64, 256)
    seen: list[str] = []
    shown = odd_media.bar_colours(first_window(path, clips, notice=seen.append).video[5])
    assert set(seen) == {"hdr"}
    assert np.abs(shown - BARS).mean() < most
    # Hue and saturation stay: the order of a bar's channels, and grey.
    assert (np.ptp(shown[:4], axis=1) <= 1).all()
    as_it_is = first_window(path, clips, Part(tone_map=False)).video[5]
    assert np.abs(odd_media.bar_colours(as_it_is) - BARS).mean() > kept
    found = inspect(str(path), None, clips, lambda: None)
    assert (found.problem, "BT.2020" in found.reason) == ("hdr", True)


def test_display_p3_is_shown_in_bt709():
    # Full green of Display P3 is beyond BT.709; white and black are the same.
    picture = np.array([[[0, 65535, 0], [65535] * 3, [0, 0, 0], [32768] * 3]], np.uint16)
    shown = to_sdr(picture, Colours(primaries="Display P3"))
    np.testing.assert_array_equal(shown[0, 1:], [[255] * 3, [0] * 3, [128] * 3])
    assert tuple(shown[0, 0]) == (0, 255, 0)


def test_transfer_functions_hold_the_standards_points():
    # SMPTE ST 2084: 100 nits at .5081; BT.2100: HLG's signal .5 is 1/12, BT.2408: white at .75.
    assert nits_to_pq(np.array([0.0, 100.0, 1e4])) == pytest.approx([0, 0.5081, 1], abs=1e-4)
    assert pq_to_nits(nits_to_pq(np.array([203.0]))) == pytest.approx([203.0])
    assert hlg_to_scene(np.array([0.0, 0.5, 0.75, 1.0])) == pytest.approx(
        [0, 1 / 12, 0.265, 1], abs=1e-3
    )


def test_brighter_stays_brighter_up_to_the_peak():
    for transfer in ("HLG", "PQ"):
        signal = np.linspace(0, 65535, 400).astype(np.uint16)[None, :, None].repeat(3, axis=2)
        shown = to_sdr(signal, Colours(transfer, "BT.2020"))[0, :, 0].astype(int)
        assert (np.diff(shown) >= 0).all() and shown[0] == 0 and shown[-1] == 255


@pytest.mark.parametrize(
    ("size", "tag", "wanted"),
    [
        ((64, 96), None, Colorspace.ITU601),
        ((720, 1280), None, Colorspace.ITU709),
        ((64, 96), Colorspace.ITU709, Colorspace.ITU709),
        ((720, 1280), Colorspace.ITU601, Colorspace.ITU601),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_matrix_and_range_are_those_that_the_file_names_or_players_take(size, tag, wanted, full):
    colour = np.full((*size, 3), (200, 60, 30), np.uint8)
    frame = av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=wanted, dst_color_range=2 if full else 1
    )
    frame.colorspace = Colorspace.itu709 if tag == Colorspace.ITU709 else (6 if tag else 2)
    frame.color_range = 2 if full else 1
    shown = fit(frame, height=8, width=8, policy="resize")
    assert np.abs(shown.astype(int) - colour[0, 0]).max() <= 2


@pytest.mark.parametrize(("number", "name"), [(8, "YCgCo"), (10, "constant"), (14, "ICtCp")])
def test_a_matrix_that_cannot_be_converted_is_named(number, name):
    frame = odd_media.scene(1)[0]
    frame.colorspace = number
    with pytest.raises(StreamError, match=f"coded as .*{name}"):
        fit(frame, height=8, width=8, policy="resize")


def test_frames_are_freed_as_soon_as_the_next_ones_are_read(tmp_path):
    # Side data that were read from a frame keep it alive: 8K would not fit into memory.
    path = odd_media.write_oriented(tmp_path / "a.mp4", "mirrored")
    gc.collect()
    gc.disable()
    try:
        before = frames_alive()
        for window in iter_windows(path, spec(ROWS, COLUMNS)):
            assert window.video.any()
            assert frames_alive() - before <= 4
    finally:
        gc.enable()


def frames_alive() -> int:
    return sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())


def test_tiny_interlaced_pictures_and_changes_of_size_are_cut():
    small = [odd_media.flagged(f.reformat(width=4, height=2)) for f in odd_media.fields(3)]
    big = odd_media.fields(3, (96, 128))
    for frames, count in ((small, 3), ([*odd_media.fields(3), *big], 12), ([*big, *small], 9)):
        for index, frame in enumerate(frames):
            frame.pts, frame.time_base = index, odd_media.TICK
        made = list(deinterlaced(iter(frames), lambda problem: None))
        assert len(made) == count
        times = [frame.time for frame in made]
        assert times == sorted(times)


def players_fields(path: Path) -> dict[float, np.ndarray]:
    """Time -> picture of FFmpeg's bwdif."""
    with av.open(str(path)) as container:
        stream, graph = container.streams.video[0], Graph()
        nodes = (graph.add_buffer(template=stream), graph.add("bwdif", "deint=interlaced"))
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        shown = {}
        for frame in itertools.chain(container.decode(stream), [None]):
            graph.push(frame)
            try:
                while True:
                    made = graph.pull()
                    shown[made.time] = made.to_ndarray(format="rgb24")
            except (av.BlockingIOError, av.EOFError):
                pass
    return shown


@pytest.mark.parametrize("fps", [10, 25, 50])
def test_interlaced_pictures_are_those_of_ffmpegs_bwdif(tmp_path, fps):
    path = odd_media.write_interlaced(tmp_path / "a.mp4", odd_media.fields(30), 1.2)
    shown, seen = players_fields(path), []
    assert len(shown) == 60
    times = np.array(sorted(shown))
    for window in iter_windows(path, spec(ROWS, COLUMNS, fps), notice=seen.append):
        for index, picture in enumerate(window.video):
            # The nearest one; the earlier of two that are equally near.
            now = window.start_seconds + index / fps
            near = times[np.argmin(np.round(np.abs(times - now), 6))]
            assert difference(picture, shown[near]) < 3
    assert set(seen) == {"interlaced"}
    combed = first_window(path, spec(ROWS, COLUMNS, fps), Part(deinterlace=False))
    assert difference(combed.video[1], shown[times[np.argmin(np.abs(times - 1 / fps))]]) > 5
    found = inspect(str(path), None, spec(ROWS, COLUMNS, fps), lambda: None)
    assert found.problem == "interlaced"


def test_frames_flagged_among_others_are_deinterlaced_and_others_are_as_they_were():
    whole = odd_media.scene(12)
    combed = odd_media.fields(6)
    mixed = [*whole[:4], *combed, *whole[4:]]
    for index, frame in enumerate(mixed):
        frame.pts, frame.time_base = index, odd_media.TICK
    seen: list[str] = []
    given = [frame.to_ndarray(format="rgb24") for frame in mixed]
    made = list(deinterlaced(iter(mixed), seen.append))
    assert seen == ["interlaced"]
    times = [round(frame.time * FPS, 3) for frame in made]
    assert times == pytest.approx([0, 1, 2, 3, *np.arange(4, 10, 0.5), *range(10, 18)])
    by_time = dict(zip(times, made, strict=True))
    for index in [*range(4), *range(10, 18)]:
        picture = by_time[float(index)].to_ndarray(format="rgb24")
        np.testing.assert_array_equal(picture, given[index])
    for index in range(5, 9):
        assert difference(by_time[float(index)].to_ndarray(format="rgb24"), given[index]) > 5
