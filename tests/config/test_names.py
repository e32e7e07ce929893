"""Files of a run have the names that users write and no place in the code; earlier files, which had, can be read."""

import json
import re
from dataclasses import asdict, replace
from importlib import import_module

import pytest
from omegaconf import OmegaConf
from sample_runs import FIRST, REPORT

import icl_eval
from icl_eval.analysis.measurements import measure
from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.config.identities import FAMILIES
from icl_eval.config.setup import conf_dir
from icl_eval.demonstrations import SELECTORS
from icl_eval.errors import ConfigError, DataError
from icl_eval.metrics import METRICS
from icl_eval.runs.folders import read_run
from icl_eval.runs.migration import upgrade_config
from icl_eval.runs.reports import write_report
from icl_eval.targets import build, build_named, name_target

QUICK = ("task=math", "limit=3", "num_fewshot=1", "max_new_tokens=4")

# A run's fingerprint.json as it was written before: `{model}` is the identity of the weights.
EARLIER_IDENTITY = {
    "model.source_language": None,
    "model.target_language": None,
    "task_prefix": None,
    "decoding.search": "greedy",
    "decoding.stop": None,
    "max_new_tokens": 4,
    "dtype": "float32",
    "task.math.instruction": "Solve the problem and answer with a number.",
    "task.math.labels.question": "Problem",
    "task.math.labels.answer": "Answer",
    "task.math.fields.question": "question",
    "task.math.fields.references": "references",
    "task.math.match_field": None,
    "task.math.stop": ["\n"],
    "task.math.max_new_tokens": 16,
    "template.instruction": "{{ instruction }}",
    "template.question": (
        "{% if labels.question %}{{ labels.question }}: {% endif %}{{ question }}\n{{ labels.answer }}:"
    ),
    "template.answer": " {{ answer }}",
    "template.demonstration": None,
    "template.separator": "\n\n",
    "template.question_first": False,
    "template.variant": None,
    "template.chat": False,
    "placement": None,
    "demonstrations._target_": "icl_eval.demonstrations.RandomDemonstrations",
    "demonstrations.seed": 0,
    "demonstrations.per_question": False,
    "order._target_": "icl_eval.demonstrations.RandomOrder",
    "order.seed": 0,
    "control._target_": "icl_eval.demonstrations.NoControl",
    "leave_out": None,
    "likelihood._target_": "icl_eval.likelihood.ReferenceLikelihood",
    "num_fewshot": 1,
    "limit": 3,
    "seed": 0,
    "overflow": "stop",
}
# What is another in the identity of today, and the choices of its configuration.
RENAMED = {
    "template": "labelled",
    "decoding": "greedy",
    "demonstrations": "random",
    "order": "random",
    "control": "none",
    "likelihood": "references",
}
NEW = {
    "model.chat_template": None,
    "template.date": None,
    "task.math.likelihood": None,
    "task.math.num_fewshot": None,
    "task.math.template": None,
    "template.rationale": None,
}
"""Keys that an earlier identity does not have; None is as good as not having them."""
EARLIER_CHOICES = {
    "decoding": {"_target_": "icl_eval.searches.Greedy", "stop": None},
    "demonstrations": {
        "_target_": "icl_eval.demonstrations.RandomDemonstrations",
        "seed": 0,
        "per_question": False,
    },
    "order": {"_target_": "icl_eval.demonstrations.RandomOrder", "seed": 0},
    "control": {"_target_": "icl_eval.demonstrations.NoControl"},
    "likelihood": {"_target_": "icl_eval.likelihood.ReferenceLikelihood"},
}
EARLIER_METRICS = {
    "numeric_strict": {"_target_": "icl_eval.metrics.numeric_match.NumericMatch", "extraction": "strict"},
    "numeric_flexible": {"_target_": "icl_eval.metrics.numeric_match.NumericMatch", "extraction": "flexible"},
}
OPTIONS = (*QUICK, "order=random", "likelihood=references")


@pytest.fixture
def evaluate(evaluate_tiny):
    return lambda name, *overrides: evaluate_tiny(name, *OPTIONS, *overrides)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def age(folder, content_keys=("task.math.data", "weights")):
    """Put a run's files into the form that they had before."""
    identity = read(folder / "fingerprint.json")
    write(folder / "fingerprint.json", EARLIER_IDENTITY | {key: identity[key] for key in content_keys})
    report = read(folder / "report.json")
    config = report["provenance"]["config"]
    config |= EARLIER_CHOICES
    config["task"]["math"]["metrics"] = EARLIER_METRICS
    del config["template"]["name"]
    write(folder / "report.json", report | {"schema_version": 1})


def test_each_choice_is_stored_by_the_name_of_its_file_in_conf():
    shipped = {
        group: {path.stem: OmegaConf.load(path) for path in (conf_dir() / group).glob("*.yaml") if path.stem != "null"}
        for group in FAMILIES
    }
    shipped["metrics"] = {name: config[name] for name, config in shipped["metrics"].items()}
    for group, family in FAMILIES.items():
        found = {name: config["_target_"].rpartition(".")[2] for name, config in shipped[group].items()}
        assert found == family.classes
        for name, class_name in family.classes.items():
            built = getattr(import_module(family.module), class_name)
            assert group == "metrics" or built.name == name


def test_the_identity_of_a_run_is_what_its_user_wrote(compose, gpt2):
    config = compose(f"model.source={gpt2}", *OPTIONS)
    evaluation = build_evaluation(ComposedConfig(config, {"template": "labelled"}))
    same = {key: value for key, value in EARLIER_IDENTITY.items() if "_target_" not in key and key != "decoding.search"}
    assert evaluation.identity == same | RENAMED | NEW | {"task.math.data": evaluation.plans[0].task.content_hash}


def test_no_file_of_a_run_says_where_a_class_is(evaluate):
    folder = evaluate("run", "postprocessing=first_line", "placement=decoder")
    files = [path for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts]  # Hydra's own copy
    assert {"fingerprint.json", "report.json", "report.html", "samples_math.jsonl"} <= {path.name for path in files}
    for path in files:
        assert re.findall(r"icl_eval\.[\w.]*[A-Z]\w+|_target_", path.read_text(encoding="utf-8")) == [], path
    config = read(folder / "report.json")["provenance"]["config"]
    assert config["order"] == {"name": "random", "seed": 0}
    assert config["placement"] == {"name": "decoder"}
    assert config["postprocessing"] == {"name": "first_line"}
    assert config["template"]["name"] == "labelled"
    assert config["task"]["math"]["metrics"] == {
        "numeric_strict": {"name": "numeric_strict", "extraction": "strict"},
        "numeric_flexible": {"name": "numeric_flexible", "extraction": "flexible"},
    }


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_listed_compared_and_gone_on_with(evaluate, icl_eval_command, decoded, tmp_path):
    now, earlier = evaluate("now"), evaluate("earlier")
    age(earlier)
    assert "_target_" in (earlier / "report.json").read_text(encoding="utf-8")

    assert [measurement.metric for measurement in measure(read_run(earlier))][:2] == [*EARLIER_METRICS]
    assert read_run(earlier).options == read_run(now).options
    assert set(icl_eval.load_runs(tmp_path).columns).isdisjoint({"order", "decoding", "demonstrations"})
    compared = icl_eval_command("compare", "earlier", "now")
    assert (compared.exit_code, compared.err) == (0, "")
    listed = icl_eval_command("list", "earlier")
    assert listed.exit_code == 0
    assert "numeric_strict" in listed.out

    decoded.clear()
    assert evaluate("earlier") == earlier
    assert decoded == []
    for name in ("fingerprint.json", "samples_math.jsonl"):
        assert (earlier / name).read_bytes() == (now / name).read_bytes()
    assert read(earlier / "report.json")["schema_version"] == 2


def test_a_run_of_an_earlier_version_with_another_choice_is_refused_by_its_name(evaluate, icl_eval_command, gpt2):
    folder = evaluate("earlier")
    age(folder)
    before = (folder / "fingerprint.json").read_bytes()
    outcome = icl_eval_command(f"model.source={gpt2}", *OPTIONS, "order=reversed", "hydra.run.dir=earlier")
    assert (outcome.exit_code, outcome.err) == (
        2,
        f"icl-eval: {folder} contains a run with other options (order: 'random' there, 'reversed' now; "
        "order.seed: 0 there, None now); choose another folder with hydra.run.dir=… (in Python folder=…) or delete "
        "this one\n",
    )
    assert (folder / "fingerprint.json").read_bytes() == before


def test_a_metric_from_elsewhere_is_never_taken_for_one_of_ours():
    hub = {"_target_": "icl_eval.metrics.hub.HubMetric", "name": "exact_match", "key": None}
    stored = {"name": "hub:exact_match", "key": None}
    assert name_target(hub, "metrics.hub", METRICS) == stored
    assert upgrade_config({"metrics": {"hub": hub}}, "plain") == {"metrics": {"hub": stored}}


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ({"bad": {"_target_": "os.system"}}, 'bad={"name": "system"}: its name must be one of {known}'),
        ({"bad": 3}, "bad=3: its name must be one of {known}"),
        ({"bad": {"name": "chrf", "beta": -1}}, "bad.beta=-1: must be a whole number from 0 to 100"),
        (None, ": does not say how task 'math' was scored"),
    ],
)
def test_a_report_whose_metrics_cannot_be_built_is_refused_with_the_place(metrics, sentence, tmp_path):
    result = replace(REPORT.results["qa"], metrics={})
    provenance = replace(REPORT.provenance, config={"task": {"math": {"metrics": metrics}}})
    write_report(replace(REPORT, results={"math": result}, provenance=provenance), tmp_path / "report.json")
    (tmp_path / "samples_math.jsonl").write_text(f"{json.dumps(asdict(FIRST))}\n" * result.n, encoding="utf-8")
    with pytest.raises(DataError) as error:
        measure(read_run(tmp_path))
    place = f"{tmp_path / 'report.json'}: provenance.config.task.math.metrics"
    known = ", ".join(sorted(METRICS.classes))
    assert str(error.value) == f"{place}{'.' if metrics else ''}{sentence.replace('{known}', known)}"


def test_a_metric_without_options_has_the_name_under_which_it_scores():
    target = {"_target_": "icl_eval.metrics.rouge.Rouge"}
    assert name_target(target, "metrics.mine", METRICS)["name"] == build(target, "metrics.mine", METRICS).name
    assert name_target(target | {"unit": "2"}, "metrics.mine", METRICS)["name"] == "rouge_2"


def test_an_argument_that_the_run_gives_is_refused():
    target = {"_target_": "icl_eval.demonstrations.NearestDemonstrations", "encoder": {"device": "cuda:3"}}
    with pytest.raises(ConfigError, match=r"^demonstrations\.encoder\.device: comes from the run's own device; set th"):
        build(target, "demonstrations", SELECTORS, {"model": None, "device": "cpu"})


@pytest.mark.parametrize("extraction", ["strict", "flexible"])
def test_a_stored_choice_builds_the_same_object_again(extraction):
    target = {"_target_": "icl_eval.some.other.module.NumericMatch", "extraction": extraction}
    stored = name_target(target, "metrics.mine", METRICS)
    assert stored == {"name": f"numeric_{extraction}", "extraction": extraction}
    again = build_named(stored, "metrics.mine", METRICS)
    assert again.name == build(target, "metrics.mine", METRICS).name == f"numeric_{extraction}"
