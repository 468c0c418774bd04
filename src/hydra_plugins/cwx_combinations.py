"""The sweeper of all combinations, in the package from which Hydra loads plugins.

Hydra imports this at every start: it must not import torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cwx.cli.config.hydra_files import save_sweep
from cwx.cli.failures import exit_with_message


class Combinations(Sweeper):
    """Runs all combinations of the swept values, as Hydra's own sweeper does.

    Hydra's would write the file with the settings of the sweep at every start, also of a resumed
    sweep, and not atomically.

    Args:
        max_batch_size: combinations given to the launcher at a time; ``None`` gives it all.
        params: swept settings beside those of the command line, as text.
    """

    def __init__(
        self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None
    ) -> None:
        self._batch_size, self._params = max_batch_size, params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[Any]]:
        """Launch the jobs of all combinations.

        Args:
            arguments: the overrides of the command line.

        Returns:
            The results of the jobs, a list for each batch.

        Raises:
            SystemExit: the settings of the sweep cannot be written.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        lines = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        batches = BasicSweeper.split_arguments(parser.parse_overrides(lines), self._batch_size)
        try:
            save_sweep(Path(self.config.hydra.sweep.dir), OmegaConf.to_yaml(self.config))
        except (ValueError, OSError) as error:
            exit_with_message(error)
        returns: list[Sequence[Any]] = []
        first = 0
        for batch in batches:
            # All jobs of a batch compose before any starts.
            self.validate_batch_is_legal(batch)
            results = self.launcher.launch(batch, initial_job_idx=first)
            for result in results:
                # Raises the error of a job that failed.
                _ = result.return_value
            first += len(batch)
            returns.append(results)
        return returns
