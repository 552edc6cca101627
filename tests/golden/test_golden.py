# SPDX-License-Identifier: Apache-2.0
"""Every golden file of this folder, and the checker's own behaviour on bad files."""

import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.golden.__main__ import main
from tests.golden.checker import Golden, GoldenError, Row, check_file, relative_error

FOLDER = Path(__file__).parent


# Samplings: many calls of a network, which are worth compiling well. The others are one call.
SAMPLINGS = ("guided_sampling", "guided_mm_diffusion", "mm_diffusion_sampling", "dpm_solver")


@pytest.fixture
def compiled_fast_unless_sampling(path: Path):
    jax.config.update("jax_disable_most_optimizations", path.stem not in SAMPLINGS)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("compiled_fast_unless_sampling")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_golden_file(path: Path):
    misses = [row for row in check_file(path) if not row.passed]
    assert not misses


def _write(path: Path, meta: object, **arrays: np.ndarray) -> str:
    text = meta if isinstance(meta, str) else json.dumps(meta)
    np.savez(path, allow_pickle=False, meta=np.array(text), **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"kind": "nonsense"}, "unknown kind 'nonsense'; known kinds: .*discriminator"),
        ({"seed": 0}, "not a readable golden file"),
        ("{", "not a readable golden file"),
        ("[]", "not a readable golden file"),
    ],
)
def test_bad_meta_is_an_error(tmp_path: Path, meta: object, message: str):
    with pytest.raises(GoldenError, match=message):
        check_file(_write(tmp_path / "bad.npz", meta))


def test_corrupt_and_missing_files_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole = (FOLDER / "disc_mmdiffusion.npz").read_bytes()
    cut, noise = tmp_path / "cut.npz", tmp_path / "noise.npz"
    cut.write_bytes(whole[: len(whole) // 2])
    noise.write_bytes(whole[:5000] + bytes(3000) + whole[8000:])
    assert main([str(cut), str(noise), str(tmp_path / "absent.npz")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in errors] == ["ERROR"] * 3
    assert "no such file" in errors[2]


def test_weights_and_inputs_are_reproducible_by_name(tmp_path: Path):
    meta = {"kind": "x", "seed": 3, "shapes": {"a.weight": [4, 5], "n.weight": [4], "n.bias": [4]}}
    golden = Golden(_write(tmp_path / "g.npz", meta))
    weights = golden.weights()
    # Recipe of the README, computed the long way for one entry of each rule.
    draws = {key: np.random.default_rng([3, zlib.crc32(key.encode())]) for key in weights}
    np.testing.assert_allclose(
        weights["a.weight"],
        draws["a.weight"].standard_normal((4, 5), dtype=np.float32) / 5**0.5,
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        weights["n.weight"],
        1 + 0.1 * draws["n.weight"].standard_normal(4, dtype=np.float32),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        weights["n.bias"], 0.1 * draws["n.bias"].standard_normal(4, dtype=np.float32), rtol=1e-6
    )
    assert not np.array_equal(golden.input("p", (3,)), golden.input("q", (3,)))


def test_relative_error_and_nan_are_judged():
    assert relative_error(np.array([3.0, 4.4]), np.array([3.0, 4.0])) == pytest.approx(0.08)
    assert not Row("x", float("nan"), 1.0).passed
    assert Row("exact", 0.0, 0.0).passed
