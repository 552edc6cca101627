# SPDX-License-Identifier: Apache-2.0
"""Names of configs, weights and caches to paths, from any folder."""

from pathlib import Path

import pytest

from mmdisco_jax import resources
from mmdisco_jax.resources import cache_dir, config_dir, config_names, find_config, find_weights

SHIPPED = config_dir()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in, as after an installation."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "name", "argument"),
    [
        ("bounce", "bounce", None),
        ("bounce.py", "bounce", None),
        ("configs/bounce.py", "bounce", None),
        ("./configs/bounce.py", "bounce", None),
        ("configs/bounce.py:video", "bounce", "video"),
        ("bounce:", "bounce", ""),
        ("bounce_demo:x=1", "bounce_demo", "x=1"),
        ("folder:path=/a b/c:d,seconds=10", "folder", "path=/a b/c:d,seconds=10"),
        ("configs/folder.py:path=/a b/c:d,seconds=10", "folder", "path=/a b/c:d,seconds=10"),
        ("folder.py:path=/a.py:b.py", "folder", "path=/a.py:b.py"),
        ("folder:path=/a/b.py:c", "folder", "path=/a/b.py:c"),
    ],
)
def test_a_shipped_config_is_found_from_any_folder(text, name, argument):
    assert find_config(text) == (str(SHIPPED / f"{name}.py"), argument)


@pytest.mark.parametrize("name", ["mine.py", "été, 50 %=a:b/x.py", "old.py:copy/x.py"])
@pytest.mark.parametrize("argument", [None, "", "video", "path=/a b/c.py:d,seconds=10"])
def test_a_path_may_hold_any_character(tmp_path, name, argument):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    text = str(path) if argument is None else f"{path}:{argument}"
    assert find_config(text) == (str(path), argument)


def test_a_file_that_is_there_comes_before_the_shipped_one():
    own = Path("configs/bounce.py")
    own.parent.mkdir()
    own.write_text("")
    assert find_config("configs/bounce.py:video") == (str(own), "video")
    assert find_config("bounce") == (str(SHIPPED / "bounce.py"), None)


@pytest.mark.parametrize("text", ["bouncy", "/nowhere/configs/bounce.py", "x.py:bounce", "", ":a"])
def test_an_unknown_config_is_told_with_the_shipped_ones(text):
    with pytest.raises(ValueError, match=r"there is no config .*bounce_demo.*toy"):
        find_config(text)


def test_a_folder_of_that_name_is_no_config():
    Path("mine.py").mkdir()
    with pytest.raises(ValueError, match="there is no config"):
        find_config("mine.py")


def test_all_shipped_configs_have_a_name():
    assert {*config_names(), "__init__"} == {path.stem for path in SHIPPED.glob("*.py")}
    assert "bounce" in config_names()


def test_shipped_weights_are_found_and_a_given_file_comes_first():
    name = "mmdisco_jax/weights/bounce_audio.safetensors"
    found = Path(find_weights(name))
    assert found.is_absolute() and found.is_file()
    own = Path(name)
    own.parent.mkdir(parents=True)
    own.write_bytes(b"")
    assert find_weights(name) == name


@pytest.mark.parametrize("text", ["", "w.safetensors", "mmdisco_jax/weights/none.safetensors"])
def test_other_weights_are_left_to_their_reader(text):
    assert find_weights(text) == text


def test_caches_are_in_the_users_folder_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv(resources.CACHE_VARIABLE, raising=False)
    assert cache_dir().is_absolute() and cache_dir().name == "mmdisco_jax"
    monkeypatch.setenv(resources.CACHE_VARIABLE, "here")
    assert cache_dir() == tmp_path / "here"
    assert not cache_dir().exists()
