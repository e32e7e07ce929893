"""What a task file of somebody else may contain: nothing in it runs unless the user allows it."""

import pytest

from icl_eval.errors import ConfigError, DataError
from icl_eval.harnesses.lm_eval.consent import require_consent
from icl_eval.harnesses.lm_eval.registry import load_tasks

KEY = "task.lm_eval.name"
ALLOW = "allow it with task.lm_eval.trust_remote_code=true if you trust the file"


@pytest.fixture
def check(tmp_path):
    def call(content):
        path = tmp_path / "mine.yaml"
        path.write_text(content, encoding="utf-8")
        require_consent(path, KEY)

    return call


@pytest.mark.parametrize(
    "content",
    [
        "doc_to_text: 'Question: {{question}}\\nAnswer:'\ndoc_to_target: '{{answer.split(\"####\")[-1]|trim}}'",
        "doc_to_choice: \"{{choices.text}}\"\ndoc_to_target: '{{choices[label]}}'",
        "doc_to_text: '{{sentence|replace(\"_\", option1)}}{% for c in options %}{{loop.index}}. {{c}}\\n{% endfor %}'",
        "doc_to_text: '{{ passage[:100] }} ____ {{ names|join(\", \") }} {{ ids|sum }} {{ scores|max }}'",
        "unsafe_code: false\nmetric_list: [{metric: acc, hf_evaluate: false}]",
    ],
)
def test_data_and_templates_that_only_read_the_row_are_accepted(content, check):
    check(content)


@pytest.mark.parametrize(
    ("content", "place", "found"),
    [
        ("process_docs: !function utils.process", "process_docs", "!function utils.process runs Python"),
        ("filter_list: [{filter: [{f: !function a.b}]}]", "filter_list[0].filter[0].f", "!function a.b runs Python"),
        ("class: !function task.Mine", "class", "!function task.Mine runs Python"),
        ("class: mine.Task", "class", "'mine.Task' names code to run"),
        ("unsafe_code: true", "unsafe_code", "'true' names code to run"),
        ("metric_list: [{metric: x, hf_evaluate: true}]", "metric_list[0].hf_evaluate", "'true' names code to run"),
        ("dataset_kwargs: {trust_remote_code: true}", "dataset_kwargs.trust_remote_code", "'true' names code to run"),
        ("use_prompt: 'promptsource:x'", "use_prompt", "'promptsource:x' names code to run"),
        ("doc_to_text: \"{{ ''.__class__ }}\"", "doc_to_text", "the template uses '__class__'"),
        ("doc_to_text: \"{{ ''['__class__'] }}\"", "doc_to_text", "the template uses '__class__'"),
        ("doc_to_text: '{{ q|attr(\"mro\") }}'", "doc_to_text", "the template uses 'attr'"),
        ("doc_to_text: '{{ rows|map(attribute=f)|list }}'", "doc_to_text", "the template uses 'map'"),
        ("doc_to_text: '{{ cycler.next }}'", "doc_to_text", "the template uses 'cycler'"),
        ("doc_to_text: '{{ lipsum() }}'", "doc_to_text", "the template uses 'lipsum'"),
        ("doc_to_text: \"{{ '{0.x}'.format(q) }}\"", "doc_to_text", "the template uses 'format()'"),
        ("doc_to_text: '{{ q[a][b] }}'", "doc_to_text", "the template reads items whose names are computed"),
        ("doc_to_text: '{% macro f(x) %}{{ x }}{% endmacro %}'", "doc_to_text", "the template uses 'macro'"),
        ("doc_to_text: '{% include q %}'", "doc_to_text", "the template uses 'include'"),
        ("description: '{% for x in q recursive %}{{ loop(x) }}{% endfor %}'", "description", "uses 'recursive'"),
        ("gen_prefix: '{{ q'", "gen_prefix", "not a template (unexpected end of template"),
    ],
)
def test_what_can_run_code_is_refused_with_its_place(content, place, found, check):
    with pytest.raises(ConfigError) as error:
        check(content)
    assert f"/mine.yaml: {place}: " in str(error.value)
    assert found in str(error.value)
    assert str(error.value).endswith(ALLOW)


def test_what_a_file_includes_is_read_as_well(tmp_path, check):
    (tmp_path / "base.yaml").write_text("process_docs: !function utils.process", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"/base\.yaml: process_docs: !function utils\.process runs Python"):
        check("include: base.yaml\ntask: mine")


@pytest.mark.parametrize(
    "content",
    [
        "metadata: {? !function evil.f : 1}",  # a key
        "description: !function evil.f\ndescription: x",  # an entry that another one replaces
        "metadata:\n  <<: {a: !function evil.f}\n  a: 1",  # a merge that is overridden
        "a: !!python/object/apply:os.system ['true']",
        "doc_to_text: '{{ ns.update({1: 2}) }}'",
        "doc_to_text: '{{ q[[a, b]|join] }}'",
        "doc_to_text: '{% for n in names %}{{ q[n] }}{% endfor %}'",
        "doc_to_text: \"{{ q['_'~'_class_'~'_'] }}\"",
        "doc_to_text: '{{ q() }}'",
        "metadata: &a {b: *a}\ndescription: !function evil.f",  # nodes that contain themselves
    ],
)
def test_no_other_way_to_code_is_open(content, check):
    with pytest.raises(ConfigError, match=r"trust_remote_code=true if you trust the file$"):
        check(content)


def test_a_file_that_is_not_yaml_is_named(check):
    with pytest.raises(DataError, match=r"/mine\.yaml: cannot be read \("):
        check("a: [1, 2")


def test_a_file_that_takes_the_name_of_a_packaged_task_is_checked_with_every_name(tmp_path):
    (tmp_path / "evil.yaml").write_text("task: blimp_adjunct_island\ndescription: !function evil.f\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"evil\.yaml: description: !function evil\.f runs Python"):
        load_tasks(KEY, ["blimp"], str(tmp_path))
