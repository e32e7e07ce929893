"""The sweeper of `icl-eval`; Hydra accepts plugins only from the namespace package `hydra_plugins`."""

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RecoveringSweeper(BasicSweeper):
    """Hydra's sweeper, which goes on if a worker process dies."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the launcher. The basic one has no worker processes."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self.launcher is not None
        if not isinstance(self.launcher, BasicLauncher):
            from icl_eval.cli.launching import RecoveringLauncher  # imported by every application that uses Hydra

            self.launcher = RecoveringLauncher(self.launcher, hydra_context.config_loader, config)
