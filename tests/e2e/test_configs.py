# SPDX-License-Identifier: Apache-2.0
"""Every shipped config, with every choice of its arguments: its parts, and that it runs."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mmdisco_jax.datasets import DATASETS
from mmdisco_jax.experiment import Experiment, load_config
from mmdisco_jax.export.clips import read_all
from mmdisco_jax.porting.weights import read_metadata
from mmdisco_jax.resources import config_dir, config_names
from mmdisco_jax.system import System
from mmdisco_jax.tasks import TASKS
from mmdisco_jax.training.metrics_log import loss_trace, read_metrics
from tests.support import tiny_pipelines
from tests.support.experiments import run_mode, system_of, write_random_weights
from tests.support.media_seeds import write_seed
from tests.support.shrunken import arguments_of, module_of, shrink, write_captions

PAIR = "vggsound_audioldm_animatediff"
ALL = [(name, argument) for name in config_names() for argument in arguments_of(name)]
# Numbers of parameters that the configs' texts, the papers and the released files state.
PARAMETERS = {
    ("landscape_mm_diffusion", "joint"): 133_675_524,
    ("aist_mm_diffusion", "joint"): 133_675_524,
    ("super_resolution", "joint"): 133_675_524,
    ("landscape_mm_diffusion", "discriminator"): 12_682_241,
    ("aist_mm_diffusion", "discriminator"): 12_682_241,
    ("super_resolution", "super_resolution"): 311_027_910,
    (PAIR, "discriminator"): 33_261_313,
}


def ids(case: tuple[str, str]) -> str:
    return ":".join(filter(None, case))


def loaded(name: str, argument: str) -> Any:
    """The completed config; of the released pair without files, which are presets then."""
    config: Any = load_config(f"configs/{name}.py" + f":{argument}" * bool(argument))
    if name == PAIR:
        config.weights.update(audio="", video="", motion="")
    return config


# What a config states.
def settings_of(tree: Mapping[str, Any]) -> int:
    """Number of settings in nested sections."""
    return sum(settings_of(v) if isinstance(v, Mapping) else 1 for v in tree.values())


@pytest.mark.parametrize(("name", "most"), [("bounce", 90), (PAIR, 60)])
def test_a_config_states_decisions_and_no_more(name, most):
    given = module_of(name).get_config().to_dict()
    given.pop("data") if name == PAIR else None
    assert settings_of(given) <= most


@pytest.mark.parametrize("name", config_names())
def test_no_config_imports_another(name):
    tree = ast.parse((config_dir() / f"{name}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in imports:
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            names = [f"{node.module}.{n}" for n in names]
        assert all(n.split(".")[0] in ("ml_collections", "mmdisco_jax", "typing") for n in names)


def test_arguments_that_a_config_does_not_take_are_refused():
    with pytest.raises(ValueError, match=r"bounce_demo.py takes no arguments: leave out .*'video'"):
        load_config("bounce_demo:video")


@pytest.mark.parametrize("case", ALL, ids=ids)
def test_an_experiment_is_built_from_its_own_record(case):
    """`config.json` of a run, and a config with every default written out, say the same."""
    experiment = Experiment.from_config(loaded(*case))
    again = Experiment.from_config(json.loads(json.dumps(experiment.resolved)))
    assert again.resolved == experiment.resolved
    for name, base in experiment.bases.items():
        assert again.bases[name].formats == base.formats
    assert again.variants == experiment.variants and again.train == experiment.train


@pytest.mark.parametrize("case", ALL, ids=ids)
def test_formats_schedules_and_data_fit_the_clips(case):
    system = system_of(loaded(*case))
    if not system.bases:
        assert case[0] in ("convert", "toy")
        return
    clip = system.experiment.clip
    assert sorted(system.modalities) == ["audio", "video"] == sorted(system.schedules)
    assert {s.num_timesteps for s in system.schedules.values()} == {1000}
    assert system.shapes["video"][0] == clip.num_frames
    for m, spec in system.formats.items():
        times = spec.clock.centres(spec.shape[0])
        assert times[0] >= 0 and times[-1] <= clip.seconds, (m, times)
        # Frames are spread over the whole clip.
        assert spec.clock.step * spec.shape[0] == pytest.approx(clip.seconds, rel=0.05), m
        assert bool(spec.text_shape) == (case[0] == PAIR)
    options = system.experiment.data.options
    if system.experiment.data.name != "bounce":
        assert DATASETS.get(system.experiment.data.name).OPTIONS(**options)
        assert (options["fps"], options["height"]) == (clip.fps, clip.height)
        assert options["clip_seconds"] >= clip.seconds
    large = system.experiment.super_resolution
    decoded = system.shapes["video"] if large else ()
    assert not large or decoded[1:3] == (large.low_size,) * 2
    assert system.experiment.train.target in (
        *("discriminator", "super_resolution"),
        *system.bases,
    )


@pytest.mark.parametrize("case", ALL, ids=ids)
def test_every_variant_has_a_sampler(case):
    system = system_of(loaded(*case))
    experiment = system.experiment
    assert bool(experiment.variants) == bool(system.bases)
    for name in experiment.variant_names:
        settings = experiment.variant(name)
        sampler = system.sampler(name)
        assert len(sampler.levels.times) == settings.num_steps
        assert sampler.num_substeps == settings.num_substeps
        assert not settings.is_guided or experiment.discriminator is not None
    if system.bases:
        unguided = [n for n in experiment.variant_names if not experiment.variant(n).is_guided]
        # Fakes are made by a variant without guidance, where the config trains a discriminator.
        trains = experiment.train.target == "discriminator" and "factor" not in case[1]
        assert not trains or experiment.fakes.variant in unguided


# Networks, as shapes: nothing is allocated.
NETWORKS = [name for name in config_names() if name not in ("convert", "toy")]


def _count(abstract: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract))


def _abstract(name: str) -> tuple[System, dict[str, Any], Any]:
    """The system, and shapes of the parameters of its base models and of its discriminator."""
    system = system_of(loaded(name, ""))
    resolved = system.experiment.resolved
    parts = ("clip", "bases", "discriminator", "guidance")
    return system, *_shapes(json.dumps([resolved[p] for p in parts], sort_keys=True), system)


_KNOWN: dict[str, Any] = {}


def _shapes(networks: str, system: System) -> tuple[dict[str, Any], Any]:
    """Computed once for all configs with the same networks."""
    if networks not in _KNOWN:
        key = jax.random.key(0)
        bases = {n: jax.eval_shape(init, key) for n, (_, init) in system.definitions.items()}
        has_head = system.experiment.discriminator is not None
        head = jax.eval_shape(system.discriminator[1], key) if has_head else None
        _KNOWN[networks] = bases, head
    return _KNOWN[networks]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_defined_and_of_the_stated_size(name):
    system, bases, head = _abstract(name)
    found = {name: _count(params) for name, params in bases.items()}
    if head is not None:
        found["discriminator"] = _count(head)
    if system.experiment.super_resolution:
        init = system.experiment.super_resolution.definition()[1]
        found["super_resolution"] = _count(jax.eval_shape(init, jax.random.key(0)))
    stated = {model: count for (config, model), count in PARAMETERS.items() if config == name}
    assert found == found | stated
    assert all(found.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_denoisers_take_and_give_latents(name):
    """The guided denoiser of the networks: formats, texts and features fit each other."""
    system, bases, head = _abstract(name)
    scales = [n for n in system.experiment.variant_names if system.experiment.variant(n).is_guided]
    variant = (scales or system.experiment.variant_names)[0]
    settings = system.experiment.variant(variant)

    def row(shape: tuple[int, ...]) -> Any:
        return jax.ShapeDtypeStruct((2, *shape), "float32")

    x = {m: row(shape) for m, shape in system.shapes.items()}
    texts = {m: row(f.text_shape) for m, f in system.formats.items() if f.text_shape}

    def eps(bases: Any, head: Any, x: Any, texts: Any) -> Any:
        denoise = system.guided(settings, bases, head, texts or None)
        return denoise(x, jax.numpy.full(2, 500), texts or None)

    out = jax.eval_shape(eps, bases, head, x, texts)
    assert {m: v.shape for m, v in out.items()} == {m: v.shape for m, v in x.items()}


# Runs, shrunk.
# One of each family; the others take too long for every run of the tests.
FAST = (
    ("bounce", "train=video"),
    ("folder", "train=audio"),
    ("bounce_mm_diffusion", "train=joint"),
    ("bounce_super_resolution", "train=super_resolution"),
)
RUNS = [
    pytest.param(case, marks=() if case in FAST else (pytest.mark.slow,), id=ids(case))
    for case in ALL
    if case[0] not in ("convert", "toy", PAIR)
]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Files that serve every dataset: as splits by folder, and with a table."""
    folder = tmp_path_factory.mktemp("media")
    for number, split in enumerate(("train", "train", "test")):
        (folder / split).mkdir(exist_ok=True)
        write_seed(folder / split / f"{number}.avi", seconds=2.6, seed=number)
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Prepared data, which configs with the same options share."""
    return tmp_path_factory.mktemp("data")


def _shrunk(case: tuple[str, str], media: Path, data_dir: Path, workdir: Path) -> Any:
    name, argument = case
    takes_path = "path=" in (config_dir() / f"{name}.py").read_text()
    config: Any = loaded(name, ",".join([*[f"path={media}"] * takes_path, argument]))
    shrink(config)
    config.data.dir = str(data_dir)
    with config.unlocked():
        if config.data.name == "bounce":
            config.data.options.update(num_train=2, num_test=2)
        elif "table" in config.data.options:
            _name_splits(config, media, workdir)
        if config.data.name == "long_videos":
            config.data.options.skip_seconds = 0.0
        (workdir / "weights").mkdir()
        write_random_weights(config, workdir / "weights")
        for variant in config.sample.variants.values():
            if "discriminator_weights" in variant:
                variant.discriminator_weights = config.weights.discriminator
            if "condition" in variant:
                variant.condition.media = str(media / "train")
    return config


def _name_splits(config: Any, media: Path, workdir: Path) -> None:
    """The table that a dataset wants of the files."""
    options = config.data.options
    if config.data.name == "vggsound":
        options.folder, options.table = str(_as_vggsound(media, workdir)), "vggsound.csv"
    else:
        options.test_fraction = 0.4


def _as_vggsound(media: Path, workdir: Path) -> Path:
    folder = workdir / "vggsound"
    folder.mkdir()
    rows = []
    for path in sorted(media.rglob("*.avi")):
        name = f"video{path.stem}______"[:11]
        (folder / f"{name}_000000.avi").symlink_to(path)
        rows.append(f"{name},0,a sound,{path.parent.name}")
    (folder / "vggsound.csv").write_text("\n".join(rows) + "\n")
    return folder


def _train_and_sample(config: Any, workdir: Path) -> None:
    """Trains the target from prepared clips, and samples every variant with what was trained."""
    target = config.train.target
    if target == "discriminator" and config.train.objective.fakes != "mismatched":
        config.fakes.num_samples = 2
        config.weights.fakes = str(workdir / "fakes")
    TASKS.get("prepare")(system_of(config), workdir)
    run_mode("train", config, workdir / "trained")
    trace = loss_trace(read_metrics(workdir / "trained"))
    assert len(trace) == config.train.num_steps and np.isfinite(trace).all()
    trained = workdir / "trained" / "weights.safetensors"
    assert read_metadata(trained)["target"] == target
    if target == "super_resolution":
        config.super_resolution.weights = str(trained)
    else:
        config.weights[target] = str(trained)
        for variant in config.sample.variants.values():
            if target == "discriminator" and "discriminator_weights" in variant:
                variant.discriminator_weights = str(trained)
    run_mode("sample", config, workdir / "samples")
    clip, side = config.clip, config.clip.height
    assert sorted(config.sample.variants) == [
        path.name for path in sorted((workdir / "samples").iterdir()) if path.is_dir()
    ]
    for variant in config.sample.variants:
        clips = read_all(workdir / "samples" / variant)
        count, frames = len(clips["video"]), round(clip.seconds * clip.fps)
        assert clips["video"].shape == (count, frames, side, side, 3)
        assert clips["audio"].shape == (count, round(clip.seconds * clip.sample_rate_hz))
        assert count and clips["video"].dtype == np.uint8 and clips["audio"].dtype == np.int16
        assert len(list((workdir / "samples" / variant).glob("*.mp4"))) == config.sample.num_media


@pytest.mark.parametrize("case", RUNS)
def test_it_trains_and_samples(case, media, data_dir, tmp_path):
    _train_and_sample(_shrunk(case, media, data_dir, tmp_path), tmp_path)


def test_the_toy_study_runs(tmp_path):
    config = loaded("toy", "")
    shrink(config)
    results = run_mode("toy", config, tmp_path)
    assert json.loads((tmp_path / "toy.json").read_text()) == results
    columns = {"data", "independent", "exact log-ratio", *config.toy.losses}
    assert all(set(row) == columns for row in results.values()) and len(results) == 2


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    tiny_pipelines.save(folder)
    return folder


def test_a_pipeline_is_converted_and_back(pipelines, tmp_path):
    for source, target in ((pipelines / "audio", "ours"), (tmp_path / "ours", "back")):
        config = loaded("convert", "diffusers")
        config.convert.update(source=str(source), target=target)
        run_mode("convert", config, tmp_path)
    for path in (pipelines / "audio").rglob("*.safetensors"):
        assert (tmp_path / "back" / path.relative_to(pipelines / "audio")).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("argument", arguments_of(PAIR))
def test_the_released_pair_trains_and_samples(argument, media, pipelines, data_dir, tmp_path):
    if argument.startswith("dataset=") and not argument.endswith(("folder", "vggsound")):
        pytest.skip("has no captions of its own")
    dataset = "" if argument.startswith("dataset") else ",dataset=folder"
    folders = (pipelines / name for name in ("audio", "video"))
    config = tiny_pipelines.config(f"path={media / 'train'},{argument}{dataset}", *folders)
    config.data.update(dir=str(data_dir), latents=str(tmp_path / "latents"))
    config.data.options.clip_seconds = tiny_pipelines.SECONDS
    _shrink_pair(config)
    with config.unlocked():
        if config.data.name == "vggsound":
            config.data.options.folder = str(_as_vggsound(media, tmp_path))
        else:
            write_captions(media / "train", tmp_path / "captions.csv")
            config.data.options.table = str(tmp_path / "captions.csv")
            config.data.options.test_fraction = 0.5
    config.weights.discriminator = ""
    config.sample.prompts = ("rain", "a dog")
    _train_and_sample(config, tmp_path)


def _shrink_pair(config: Any) -> None:
    config.train.update(num_steps=2, warmup_steps=1, batch_size=2, log_every=1, save_every=2)
    config.train.objective.update(groups=1, denoising_samples=1, denoising_from=1)
    config.fakes.update(batch_size=2)
    config.sample.update(batch_size=2, num_media=2)
