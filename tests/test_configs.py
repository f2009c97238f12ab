"""Every config composes, builds its specs, and a misspelt key fails; the default values of YAML and specs agree."""

from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import instantiate

from facerecon_torch.commands.hydra_app import config_folder
from facerecon_torch.config.train import TrainSpecs

GROUPS = ("model", "data", "landmarks", "fitting", "features", "cascade", "cv", "runtime")
OPTIONS = [(g, p.stem) for g in (*GROUPS, "regression") for p in sorted((config_folder() / g).glob("[!_]*.yaml"))]
EXPERIMENTS = sorted(p.stem for p in (config_folder() / "experiment").glob("*.yaml"))


def specs_of(*overrides: str) -> TrainSpecs:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides=list(overrides))
    return TrainSpecs(**{name: instantiate(config[name], _convert_="all") for name in GROUPS})


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_builds(group, option):
    assert isinstance(specs_of(f"{group}={option}"), TrainSpecs)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds(name):
    assert isinstance(specs_of(f"experiment={name}"), TrainSpecs)


@pytest.mark.parametrize("group", GROUPS)
def test_yaml_repeats_the_defaults_of_its_spec(group):
    specs = specs_of("landmarks=auto")
    spec = getattr(specs, group)
    if group == "cascade":  # the grid of block weights is a choice of the experiment, not of the spec
        spec = replace(spec, ridge=replace(spec.ridge, block_weights_grid=None))
    assert spec == type(spec)()


@pytest.mark.parametrize("key", ["cascade.stagse=3", "data.trian_subjects=4", "runtime.devcie=cpu", "cv.nest=2"])
def test_a_misspelt_key_fails(key):
    with pytest.raises(ConfigCompositionException, match=key.split("=")[0].split(".")[1]):
        specs_of(key)


def test_the_papers_algorithm_is_a_matter_of_keys():
    specs = specs_of("cascade.cross_fit=false", "regression.relative_penalty=10", "cascade.stages=4")
    assert (specs.cascade.cross_fit, specs.cascade.ridge.relative_penalty, specs.cascade.stages) == (False, 10, 4)


def test_a_wrong_number_of_stages_is_refused():
    with pytest.raises(InstantiationException, match=r"cascade\.stages must be an integer of at least 1; got 0"):
        specs_of("cascade.stages=0")
