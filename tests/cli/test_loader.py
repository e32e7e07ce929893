import pickle

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from icl_eval.cli.loader import KeepingLoader
from icl_eval.config import setup as hydra_setup
from icl_eval.config.schema import RunConfig, register_schema

OVERRIDES = (
    ["task=qa", "seed=0"],
    ["task=qa", "seed=1", "hydra.job.chdir=false"],
    ["task=qa", "seed=2", "decoding=sample", "decoding.temperature=0.5"],
    ["task=[qa,math]", "seed=0", "task.qa.max_new_tokens=3"],
    ["task=qa", "seed=0"],
    ["task=qa", "metrics=[chrf]", "++model.source=x", "placement=encoder"],
)


@pytest.fixture(scope="module")
def search_path():
    register_schema(RunConfig)
    hydra_setup.register_resolvers()
    return create_config_search_path(str(hydra_setup.conf_dir()))


def compose(loader, overrides):
    return loader.load_configuration("evaluate", list(overrides), RunMode.RUN)


def content(config):
    return OmegaConf.to_container(config, resolve=False)


@pytest.mark.slow
def test_configurations_are_those_of_hydra_whatever_was_composed_before(search_path):
    keeping, plain = KeepingLoader(search_path), ConfigLoaderImpl(search_path)
    for overrides in OVERRIDES:
        own, expected = compose(keeping, overrides), compose(plain, overrides)
        assert content(own) == content(expected)
        assert list(own) == list(expected)
        assert OmegaConf.get_type(own, "decoding") is OmegaConf.get_type(expected, "decoding")
        assert OmegaConf.is_struct(own)
        with pytest.raises(Exception, match="nosuch"):
            own.nosuch = 1
        own.seed = 99  # belongs to the caller alone
        own.hydra.runtime.choices["hydra/launcher"] = "changed"


@pytest.mark.slow
def test_what_hydra_refuses_is_refused_as_often_as_it_is_composed(search_path):
    keeping = KeepingLoader(search_path)
    for _ in range(2):
        for wrong in ("seed=x", "nosuch=1", "nosuch/group=1", "model=nosuch"):
            with pytest.raises(ConfigCompositionException):
                compose(keeping, ["task=qa", wrong])
        assert compose(keeping, ["task=qa"]).seed == 0


@pytest.mark.slow
def test_the_files_of_a_configuration_are_listed_as_hydra_lists_them(search_path):
    keeping, plain = KeepingLoader(search_path), ConfigLoaderImpl(search_path)
    for overrides in OVERRIDES:
        listed = [loader.compute_defaults_list("evaluate", overrides, RunMode.RUN) for loader in (keeping, plain)]
        own, expected = ([(str(each), each.primary) for each in found.defaults] for found in listed)
        assert own == expected
        own, expected = ([each.input_line for each in found.config_overrides] for found in listed)
        assert own == expected


def test_a_file_is_read_once(search_path, monkeypatch):
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    read = []
    load = FileConfigSource.load_config
    monkeypatch.setattr(
        FileConfigSource, "load_config", lambda self, config_path: read.append(config_path) or load(self, config_path)
    )
    keeping = KeepingLoader(search_path)
    compose(keeping, ["task=qa", "seed=0"])
    first = len(read)
    compose(keeping, ["task=qa", "seed=1"])
    assert first == len(set(read)) > 10  # neither for the list of files nor for what they hold is one read again
    assert len(read) == first


def test_another_process_gets_the_loader_without_what_it_keeps(search_path):
    keeping = KeepingLoader(search_path)
    compose(keeping, OVERRIDES[0])
    assert all((keeping._repositories, keeping._merged, keeping._lists))
    other = pickle.loads(pickle.dumps(keeping))
    assert other._repositories == other._merged == other._lists == {}
    assert [each.path for each in other.get_sources()] == [each.path for each in keeping.get_sources()]


def test_an_ended_cell_leaves_no_configuration():
    from hydra.core.utils import JobReturn

    from icl_eval.cli.sweeps import SweepReport

    ended = JobReturn(cfg=OmegaConf.create(), hydra_cfg=OmegaConf.create(), overrides=["seed=1"])
    SweepReport().on_job_end(OmegaConf.create(), ended)
    assert (ended.cfg, ended.hydra_cfg, ended.overrides) == (None, None, ["seed=1"])
