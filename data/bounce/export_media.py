# SPDX-License-Identifier: Apache-2.0
"""Export of bounce clips as mp4 files with sound, which the dataset `folder` can read.

python -m data.bounce.export_media DIRECTORY --num_clips=100 --split=test
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from mmdisco_jax.checks import require_at_least
from mmdisco_jax.worlds.bounce import physics

from .bounce_dataset_builder import FIRST_INDEX, clip_index


def export_media(
    directory: str | os.PathLike[str],
    num_clips: int,
    *,
    write_mp4: Callable[..., None],
    split: str = "test",
    seed: int = 0,
) -> list[Path]:
    """Writes the first `num_clips` clips of a split as mp4 files (8 fps, 16 kHz mono).

    Args:
      directory: output folder; made if missing. Existing files are replaced.
      num_clips: >= 1.
      write_mp4: writer of one file: (path, video uint8 [f h w 3], waveform float [samples] in
        [-1, 1], fps=, sample_rate_hz=).
      split: "train" or "test".
      seed: seed of the simulation.

    Returns:
      Paths of the files, `bounce_SPLIT_00000.mp4`, ..., in the order of the records.

    Raises:
      ValueError: `num_clips` is below 1, or the split is unknown.
    """
    require_at_least(1, num_clips=num_clips)
    if split not in FIRST_INDEX:
        raise ValueError(f"split is {split!r}, but must be one of {sorted(FIRST_INDEX)}.")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"bounce_{split}_{record:05d}.mp4" for record in range(num_clips)]
    for record, path in enumerate(tqdm(paths, unit="clip", desc="export")):
        clip = physics.simulate(seed, clip_index(split, record))
        write_mp4(
            path,
            clip.video,
            clip.audio,
            fps=physics.FPS,
            sample_rate_hz=physics.SAMPLE_RATE_HZ,
        )
    return paths


def main() -> None:
    """Runs the export from the command line."""
    # Imported here, because datasets do not otherwise depend on the package's writers.
    from mmdisco_jax.export.media import write_mp4

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--num_clips", type=int, default=100)
    parser.add_argument("--split", choices=sorted(FIRST_INDEX), default="test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    export_media(
        options.directory,
        options.num_clips,
        write_mp4=write_mp4,
        split=options.split,
        seed=options.seed,
    )


if __name__ == "__main__":
    main()
