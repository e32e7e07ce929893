"""Read the arguments of a command, after checking the config files that they bring along."""

from collections.abc import Sequence

from icl_eval.config.collisions import reject_packaged_names
from icl_eval.config.files import require_readable_files
from icl_eval.config.overrides import find_added_folders, normalize_overrides
from icl_eval.config.setup import conf_dir


def read_arguments(words: Sequence[str], schema: type) -> list[str]:
    """Return arguments as overrides that Hydra reads exactly as typed.

    Args:
        words: The arguments, as typed on the command line.
        schema: The schema of the command's configuration.

    Raises:
        ConfigError: If an argument or a config file of the user is invalid.
    """
    folders = find_added_folders(words)
    reject_packaged_names(folders)
    require_readable_files(folders)
    return normalize_overrides(words, schema, [conf_dir(), *folders])
