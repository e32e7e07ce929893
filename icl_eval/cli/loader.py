"""Compose configurations from files that are read and merged once in a process.

Hydra reads all files again for each cell of a sweep, for each group that `--help` lists and for each check, although
they are the same. Here each file is read once, and files are listed and merged once for the same choices; the values
that a cell sets are applied to a copy, by Hydra itself.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal import hydra as hydra_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


class KeepingLoader(ConfigLoaderImpl):
    """Hydra's loader, which keeps what it has read, listed and merged.

    Files that change while a sweep runs are not read again, so that all cells have the same.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        """Keep nothing yet."""
        super().__init__(config_search_path)
        self._repositories: dict[tuple[str | None, tuple[str, ...]], CachingConfigRepository] = {}
        self._merged: dict[str, DictConfig] = {}
        self._lists: dict[tuple[Any, ...], DefaultsList] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the loader without what it keeps, for the processes of a launcher."""
        return {**vars(self), "_repositories": {}, "_merged": {}, "_lists": {}}

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose a configuration as Hydra does."""
        with self._remembering_lists():
            return super().load_configuration(*args, **kwargs)

    def compute_defaults_list(self, *args: Any, **kwargs: Any) -> DefaultsList:
        """List the files of a configuration as Hydra does."""
        with self._remembering_lists():
            return super().compute_defaults_list(*args, **kwargs)

    @contextmanager
    def _remembering_lists(self) -> Iterator[None]:
        """Let Hydra list the files of a configuration only once for the same choices."""
        module: Any = config_loader_impl  # Hydra has no other way in: its loader calls a function of its module
        create = module.create_defaults_list

        def remember(
            repo: CachingConfigRepository, config_name: str | None, overrides_list: list[Override], **options: bool
        ) -> DefaultsList:
            overrides = Overrides(repo=repo, overrides_list=overrides_list)
            values = set(map(id, overrides.config_overrides))  # these change values, and not which files are merged
            choices = tuple(each.input_line for each in overrides_list if id(each) not in values)
            key = (id(repo), config_name, choices, *sorted(options.items()))
            if key not in self._lists:
                self._lists[key] = create(repo=repo, config_name=config_name, overrides_list=overrides_list, **options)
            return replace(self._lists[key], config_overrides=overrides.config_overrides)

        module.create_defaults_list = remember
        try:
            yield
        finally:
            module.create_defaults_list = create

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        searched = tuple(override for override in overrides if override.lstrip("+").startswith("hydra.searchpath"))
        key = (config_name, searched)
        if key not in self._repositories:
            parsed, self._repositories[key] = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
            return parsed, self._repositories[key]
        return OverridesParser.create().parse_overrides(overrides=overrides), self._repositories[key]

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        key = f"{[source.path for source in repo.get_sources()]} {defaults}"
        if key not in self._merged:
            assert isinstance(repo, CachingConfigRepository)
            own = copy.copy(repo)
            own.cache = copy.deepcopy(repo.cache)  # merging may move nodes of what was read into the result
            self._merged[key] = super()._compose_config_from_defaults_list(defaults, own)
        return copy.deepcopy(self._merged[key])


def install_loader() -> None:
    """Let Hydra's command line use this loader, which has no setting for it."""
    module: Any = hydra_module
    module.ConfigLoaderImpl = KeepingLoader
