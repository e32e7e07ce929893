"""Say which files a run reads, and look for those on this machine before the imports that using them takes."""

from collections.abc import Sequence
from pathlib import Path

from icl_eval.config.ranges import require_at_least, require_at_most
from icl_eval.config.schema import DataConfig, ModelConfig, RunConfig
from icl_eval.errors import ConfigError, DataError
from icl_eval.models.specs import ModelSpec
from icl_eval.tasks.files import require_file
from icl_eval.tasks.rows import DataSource

_MAX_ROWS = 1_000_000_000


def build_model_spec(config: ModelConfig) -> ModelSpec:
    """Build the model's specification from its options."""
    return ModelSpec(
        config.source,
        config.revision,
        config.trust_remote_code,
        config.allow_pickle,
        config.tokenizer,
        config.adapter,
        config.quantization or None,
        config.device_map,
        config.attn_implementation,
    )


def build_data_source(key: str, config: DataConfig, search_path: Sequence[Path]) -> DataSource:
    """Build the source of a split's rows, with a relative path resolved in the first folder that contains it.

    Args:
        key: The key of the split, such as `task.qa.pool`.
        config: Its options.
        search_path: The folders in which a relative path is looked for.

    Raises:
        ConfigError: If an option is missing or out of range.
        DataError: If there is no such file.
    """
    require_at_least(f"{key}.max_rows", config.max_rows, 1)
    require_at_most(f"{key}.max_rows", config.max_rows, _MAX_ROWS)
    if not config.path:
        raise ConfigError(f"{key}.path=: must be a .jsonl, .csv or .parquet file, or a data set")
    path = next((str(folder / config.path) for folder in search_path if (folder / config.path).exists()), None)
    source = DataSource(path or config.path, config.name, config.split, config.revision, config.max_rows)
    if source.is_file:
        if path is None and not Path(config.path).is_absolute():
            raise DataError(f"{config.path}: no such file in {' or '.join(map(str, search_path))}")
        require_file(source.path)
    return source


def require_files(config: RunConfig, search_path: Sequence[Path]) -> None:
    """Look for the files of the model and of the tasks.

    Args:
        config: The options of the run.
        search_path: The folders in which relative paths of data are looked for.

    Raises:
        ConfigError: If an option of a source is invalid.
        ModelUnavailableError: If a part of the model is a folder or file that does not exist.
        DataError: If a file of rows does not exist or cannot be read as one.
    """
    build_model_spec(config.model).find_paths()
    for name, task in config.task.items():
        if task.name is None:  # not a task of another harness
            for part, data in (("pool", task.pool), ("test", task.test)):
                build_data_source(f"task.{name}.{part}", data, search_path)
