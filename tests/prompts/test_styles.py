import pytest

from icl_eval.errors import ConfigError
from icl_eval.prompts.styles import draw_style
from icl_eval.prompts.templates import TextTemplate
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

POOL = (Example("p", {"question": "2 + 2?"}, ("4",)),)
TASK = Task("math", "Add.", {"question": "Problem", "answer": "Answer"}, POOL, (), "")


@pytest.fixture
def varied(compose):
    """Return a shipped template in some variant, as the function that renders one prompt with it."""
    texts = {}

    def render(variant, name="varied", task=TASK):
        if name not in texts:
            composed = compose(f"template={name}").template
            texts[name] = {part: composed[part] for part in ("instruction", "question", "answer", "separator")}
        template = TextTemplate(**texts[name], demonstration=None, question_first=False, name=name, variant=variant)
        return template.render(task, task.pool, Example("q", {"question": "3 + 3?"}, ("6",))).everything()

    return render


def test_variant_0_is_the_template_labelled(varied):
    assert varied(0) == varied(None, name="labelled")


def test_a_variant_is_the_same_everywhere(varied):
    assert varied(1) == "Add.\n\n\nProblem:\n2 + 2?\n\nAnswer:\n4\n\n\nProblem:\n3 + 3?\n\nAnswer:\n"
    assert varied(2) == "Add.\n---\nInput = 2 + 2? ; Output = 4\n---\nInput = 3 + 3? ; Output ="
    assert varied(14) == "Query:\n2 + 2?\nReply:\n4\n---\nQuery:\n3 + 3?\nReply:\n"
    assert varied(17) == "Add.\nq: 2 + 2? a: 4\nq: 3 + 3? a:"


@pytest.mark.slow
def test_no_two_variants_read_alike_and_each_shows_the_same_content(varied):
    assert len({draw_style(variant) for variant in range(4950)}) == 4950
    rendered = [varied(variant) for variant in range(500)]
    assert len(set(rendered)) == 500
    for text in rendered:
        assert text.index("2 + 2?") < text.index("4") < text.index("3 + 3?")
        assert not text.endswith(" ")


def test_a_side_without_a_label_gets_none(varied):
    task = Task("dialogue", "", {"question": "", "answer": "Agent"}, POOL, (), "")
    assert [draw_style(variant).label("question", "") for variant in range(50)] == [""] * 50
    assert varied(0, task=task) == "2 + 2?\nAgent: 4\n\n3 + 3?\nAgent:"


def test_a_task_without_an_instruction_has_none_in_any_format(varied):
    assert {draw_style(variant).instruction("") for variant in range(50)} == {""}
    assert {draw_style(variant).instruction("Add.") for variant in range(50)} == {"", "Add.", "Task: Add."}


@pytest.mark.parametrize("variant", [-1, 4950])
def test_a_variant_that_does_not_exist_is_refused(variant, varied):
    with pytest.raises(ConfigError) as refused:
        varied(variant)
    assert str(refused.value) == f"template.variant={variant}: must be between 0 and 4949"


def test_a_template_without_variants_is_asked_for_none(varied):
    with pytest.raises(ConfigError) as refused:
        varied(3, name="labelled")
    assert str(refused.value) == (
        "template.variant=3: template 'labelled' has no variants, because none of its strings uses 'style'; "
        "template=varied has variants"
    )
