# SPDX-License-Identifier: Apache-2.0
"""Inspection and cutting agree: what is inspected as usable is cut, under every policy."""

from pathlib import Path
from typing import Any

import av
import pytest
from av.video.reformatter import ColorTrc

from mmdisco_jax.media.cutting import ClipSpec, Part
from mmdisco_jax.media.inspection import inspect, problems_of
from mmdisco_jax.media.pieces import Piece, cut
from mmdisco_jax.media.policies import ACTIONS, Policies
from mmdisco_jax.media.preflight import after_cutting
from tests.media.test_tracks import CONTAINERS, clicks, flashes, with_cover, with_tracks
from tests.support import odd_media
from tests.support.clock_media import write_clock
from tests.support.media_seeds import FORMS, write_seed, write_sound

SPEC = ClipSpec(clip_seconds=0.5, fps=10, height=16, width=16, sample_rate_hz=16_000)


def write_all(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Files of every kind: name -> (file, its sound beside it)."""
    files: dict[str, tuple[Path, Path | None]] = {}

    def keep(path: Path, sound: Path | None = None) -> None:
        files[path.name] = (path, sound)

    for form in FORMS:
        path = write_seed(folder / f"seed.{form}")
        keep(path, path.with_suffix(".wav") if form == "gif" else None)
        one = write_seed(folder / f"one.{form}", seconds=0.1)
        keep(one, one.with_suffix(".wav") if form == "gif" else None)
    for name, (form, codec, options, sound) in CONTAINERS.items():
        wave = clicks(44_100 if "wma" in sound else odd_media.RATE_HZ)
        film = {"form": form, "codec": codec, "options": options, "sounds": [(sound, wave)]}
        keep(odd_media.write_film(folder / name, flashes(), **film))
    for transfer in (ColorTrc.ARIB_STD_B67, ColorTrc.SMPTE2084):
        keep(odd_media.write_bars(folder / f"hdr {transfer.name}.mkv", transfer))
    keep(odd_media.write_oriented(folder / "transposed.mp4", "transposed"))
    keep(odd_media.write_interlaced(folder / "interlaced.mp4", odd_media.fields(30), 1.2))
    keep(write_mixed(folder / "mixed.mkv"))
    tracks = [("pcm_s16le", 0.2 * odd_media.tone(1.6)), ("aac", odd_media.tone(1.6))]
    keep(with_tracks(folder / "tracks.mkv", tracks, {2: 1}))
    for film in (False, True):
        keep(with_cover(folder / f"cover {film}.mkv", film=film, flag=True))
        keep(with_cover(folder / f"still {film}.mkv", film=film, flag=False))

    def clock(name: str, seconds: list[float], runs: list[tuple[float, float]], **more) -> None:
        keep(write_clock(folder / name, frame_seconds=seconds, sound_runs=runs, **more))

    steady = [i / 30 for i in range(40)]
    clock("silent.mkv", steady, [(0.0, 1.3)], channel_gains=(0.0,))
    clock("opposite.mkv", steady, [(0.0, 1.3)], channel_gains=(1.0, -1.0))
    clock("no sound.mkv", steady, [], channel_gains=())
    clock("slow.mkv", [0.0, 0.4, 0.8, 1.2, 1.6], [(0.3, 1.9)])
    # Long enough from the sound's beginning, but too short from the next picture on.
    clock("late.mkv", [0.0, 1.0, 1.2], [(0.6, 1.25)])
    clock("just.mkv", steady[:15], [(0.0, 0.5)])
    clock("just not.mkv", steady[:12], [(0.0, 0.5)])
    write_sound(folder / "only sound.wav")
    keep((folder / "only sound.wav").rename(folder / "only sound.mkv"))
    whole = (folder / "seed.mkv").read_bytes()
    (folder / "half.mkv").write_bytes(whole[: len(whole) // 2])
    keep(folder / "half.mkv")
    return files


def write_mixed(path: Path) -> Path:
    """Fifteen progressive pictures of MPEG-2, then fifteen that are flagged interlaced."""
    second: Any = av.CodecContext.create("mpeg2video", "w")
    second.width, second.height, second.pix_fmt = 96, 64, "yuv420p"
    second.time_base, second.options = odd_media.TICK, {"flags": "+ildct+ilme"}

    def switch(container: Any) -> None:
        stream = container.streams.video[0]
        for index, picture in enumerate([*odd_media.fields(15), None]):
            if picture is not None:
                picture = picture.reformat(format="yuv420p")
                picture.pts, picture.time_base = 15 + index, odd_media.TICK
            for packet in second.encode(picture):
                packet.stream = stream
                more.append(packet)

    more: list = []
    return odd_media.write_film(
        path,
        odd_media.scene(15),
        codec="mpeg2video",
        sounds=[("pcm_s16le", odd_media.tone(1.2))],
        streams=switch,
        more=more,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, Path | None]]:
    return write_all(tmp_path_factory.mktemp("agreement"))


def every_policy() -> list[Policies]:
    """Each action of each policy by itself, and all the remedies."""
    single = [Policies(**{name: action}) for name, all_ in ACTIONS.items() for action in all_]
    return [*single, Policies(**{name: actions[-1] for name, actions in ACTIONS.items()})]


def test_what_is_inspected_as_usable_is_cut_under_every_policy(files, tmp_path):
    pieces: dict[tuple[str, Part], Piece] = {}
    kinds: dict[str, set[str]] = {}
    for name, (path, sound) in files.items():
        sound_path = None if sound is None else str(sound)
        inspection = inspect(str(path), sound_path, SPEC, lambda: None)
        kinds[name] = set(problems_of(inspection))
        for policies in every_policy():
            found = policies.foremost(inspection)
            if policies.action(found.problem) in ("error", "skip") or found.problem == "corrupt":
                continue
            part = Part(**policies.substitutes())
            if (name, part) not in pieces:
                to = str(tmp_path / f"{len(pieces)}.array_record")
                pieces[name, part] = cut(str(path), sound_path, SPEC, part, to, lambda: None)
            piece = pieces[name, part]
            assert piece.num_clips and not piece.problem, (name, policies, piece)
            assert set(problems_of(after_cutting(found, piece))) - kinds[name] <= {"interlaced"}
    seen = set().union(*kinds.values())
    assert seen == {name[3:] for name in ACTIONS} - {"missing_file", "duplicate"}
    assert "short" in kinds["late.mkv"] and "short" in kinds["just not.mkv"]
    assert not kinds["just.mkv"]
    assert [name for name in kinds if "corrupt" in kinds[name]] == ["half.mkv"]
    assert len(pieces) > len(files)


def test_interlaced_frames_deep_in_a_file_are_told_after_cutting(files, tmp_path):
    path = str(files["mixed.mkv"][0])
    found = inspect(path, None, SPEC, lambda: None)
    assert not found.problem
    piece = cut(path, None, SPEC, Part(), str(tmp_path / "a.array_record"), lambda: None)
    assert piece.notices == ("interlaced",)
    told = Policies(on_interlaced="skip").foremost(after_cutting(found, piece))
    assert told.problem == "interlaced" and "not from the beginning" in told.reason
