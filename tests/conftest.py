import os

# Before anything imports a library that reads them: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_EVALUATE_OFFLINE"] = "1"

import pytest  # noqa: E402
from hydra import compose as hydra_compose  # noqa: E402
from hydra import initialize_config_dir  # noqa: E402

from icl_eval import hydra_setup  # noqa: E402
from icl_eval.config import register_schemas  # noqa: E402


@pytest.fixture
def compose():
    """Compose the shipped configuration with some overrides."""
    register_schemas()
    hydra_setup.register_resolvers()

    def with_overrides(*overrides, config_name="config"):
        with initialize_config_dir(str(hydra_setup.conf_dir()), version_base="1.3"):
            return hydra_compose(config_name, overrides=list(overrides))

    return with_overrides
