import gc
import logging
import os
import resource
import sys
from contextlib import contextmanager
from dataclasses import dataclass

# Before anything imports a library that reads them: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_EVALUATE_OFFLINE"] = "1"
# Tiny networks gain nothing from a second thread, and lose much when another process wants the core.
os.environ["OMP_NUM_THREADS"] = "1"

import absl.logging
import pytest
import tiny_models
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from icl_eval.cli import main as cli
from icl_eval.config import setup as hydra_setup
from icl_eval.config.schema import RunConfig, register_schema

# As the command line does: looking for unreachable cycles among half a million objects of libraries takes long.
gc.set_threshold(50_000)
# When Hydra sets up logging, absl (of rouge-score) closes what was stderr when it was imported, unless it is this one.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture
def compose():
    """Compose the packaged configuration with overrides."""
    register_schema(RunConfig)
    hydra_setup.register_resolvers()

    def with_overrides(*overrides, config_name="evaluate"):
        with initialize_config_dir(str(hydra_setup.conf_dir()), version_base="1.3"):
            return hydra_compose(config_name, overrides=list(overrides))

    return with_overrides


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a command."""

    exit_code: int
    out: str
    err: str


@pytest.fixture
def icl_eval_command(monkeypatch, capsys, tmp_path):
    """Run commands in this process, from a temporary folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("HYDRA_FULL_ERROR", "ICL_EVAL_COMMAND_NAME", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # the command line sets them; so they are set back
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["icl-eval", *arguments])
        capsys.readouterr()  # what a fixture has written
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Outcome(end.value.code, *capsys.readouterr())

    yield call
    root.handlers[:] = handlers  # Hydra's write into this test's output
    root.setLevel(level)


@pytest.fixture
def decoded(monkeypatch):
    """Return a list that collects the ids of the questions as they are decoded."""
    from icl_eval.decoding import StreamDecoder  # imports torch, which most tests do without

    ids = []
    stream = StreamDecoder.stream

    def listen(decoder, prompts, **options):
        ids.extend(prompt.prompt.example_id for prompt in prompts)
        return stream(decoder, prompts, **options)

    monkeypatch.setattr(StreamDecoder, "stream", listen)
    return ids


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    """Return the folder of a tiny decoder-only model of 256 positions."""
    return tiny_models.save_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    """Return the folder of a tiny encoder-decoder model."""
    return tiny_models.save_t5(tmp_path_factory.mktemp("models") / "tiny-t5")


@pytest.fixture
def evaluate_tiny(icl_eval_command, gpt2, tmp_path):
    """Evaluate the tiny decoder-only model into a folder of this name without a word on stderr, and return it."""

    def evaluate(name, *overrides):
        outcome = icl_eval_command(f"model.source={gpt2}", *overrides, f"hydra.run.dir='{name}'")
        assert (outcome.exit_code, outcome.err) == (0, "")
        return tmp_path / name

    return evaluate


@pytest.fixture
def files_of_at_most():
    """Limit the size of files, so that writing fails as it does on a full disk."""

    @contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


SCRIPT = """
import datasets
import evaluate

class Script(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({{"predictions": text, "references": {references}}})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {result}
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Write a metric script, and keep the copy that `evaluate` makes in the test's folder."""
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr(evaluate.config, "DOWNLOADED_EVALUATE_PATH", tmp_path / "downloads")
    monkeypatch.setattr(sys, "path", list(sys.path))
    _forget_scripts()

    def write(name, references="datasets.List(text)", result='{"share": 0.5, "words": [1]}'):
        path = tmp_path / f"{name}.py"
        path.write_text(SCRIPT.format(references=references, result=result))
        return str(path)

    yield write
    _forget_scripts()


def _forget_scripts():
    """Remove the modules that `evaluate` makes from scripts, because their files belong to one test."""
    for module in [module for module in sys.modules if module.startswith("evaluate_modules")]:
        del sys.modules[module]
