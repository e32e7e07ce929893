"""The channel form of templates: every answer before its question."""

import re

import pytest

from icl_eval.config.plans import build_template
from icl_eval.errors import ConfigError
from icl_eval.prompts.channel import channel_form
from icl_eval.prompts.templates import ChannelForm, TextTemplate
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

SHOWN = Example("d1", {"question": "Good night."}, ("Buenas noches.", "Noches."))
ASKED = Example("q1", {"question": "The book."}, ("El libro.",))
TASK = Task("t", "Translate.", {"question": "English", "answer": "Spanish"}, (SHOWN,), (ASKED,), "")

# template: the prompt up to where the question begins, and the question
LABELLED = "Translate.\n\nSpanish: Buenas noches.\nEnglish: Good night.\n\nSpanish: El libro.\nEnglish:", " The book."
FORMS = {
    "labelled": LABELLED,
    "varied": LABELLED,
    "plain": ("Buenas noches.\nGood night.\n\nEl libro.\n", "The book."),
    "phi": (
        "Answer: Buenas noches.\n\nTranslate.: Good night.\n\n Answer: El libro.\n\nTranslate.:", " The book.",
    ),
    "flan_t5_decoder": ("Translate.:</s>Buenas noches.? Good night.</s>El libro.?", " The book."),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_shipped_forms_show_answers_first_and_are_continued_by_the_question(name, compose):
    config = compose(f"template={name}").template
    form = channel_form(build_template(config, name))
    blocks = form.render(TASK, (SHOWN,), ASKED)
    assert (blocks.everything(), form.continuation(TASK, ASKED, "El libro.")) == FORMS[name]
    assert form.name == name


def test_a_task_without_a_label_for_questions_has_no_colon_either(compose):
    form = channel_form(build_template(compose("template=labelled").template, "labelled"))
    unlabelled = Task("t", "", {"question": "", "answer": "Reply"}, (), (), "")
    assert form.render(unlabelled, (), ASKED).everything() == "Reply: El libro.\n"
    assert form.continuation(unlabelled, ASKED, "El libro.") == "The book."


def template(answer, question, **parts):
    return TextTemplate(
        "", "{{ question }}=", "{{ answer }}", None, "|", False, channel=ChannelForm(answer, question), **parts
    )


def test_the_spaces_before_the_question_belong_to_the_question():
    form = channel_form(template("{{ answer }}:  ", "{{ question }}"))
    assert form.render(TASK, (), ASKED).everything() == "El libro.:"
    assert form.continuation(TASK, ASKED, "Otro.") == "  The book."


def test_in_a_chat_the_assistant_says_the_question():
    wording = template("{{ answer }}", " {{ question }}")
    chat = channel_form(
        ChatTemplate(wording, lambda messages: "".join(f"<{m['role']}>{m['content']}" for m in messages))
    )
    blocks = chat.render(TASK, (SHOWN,), ASKED)
    assert blocks.everything() == "<user>Buenas noches.<assistant>Good night.<user>El libro."
    assert chat.continuation(TASK, ASKED, "El libro.") == "The book."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: channel_form(TextTemplate("", "{{ question }}", "", None, "", False, name="own")),
         "likelihood=channel: template 'own' does not say how to show an answer before its question; set template."),
        (lambda: template("no", "{{ question }}"), "template.channel.answer: does not use 'answer', so that all"),
        (lambda: template("{{ answer }}", "{{ answer }}"), "template.channel.question: uses 'answer', and a"),
        (lambda: template("{{ answer", "{{ question }}"), "template.channel.answer: unexpected end of template"),
        (lambda: channel_form(template("{{ answer }}", "{{ x }}")).render(TASK, (SHOWN,), ASKED),
         "template 'template': channel.question: 'x' is undefined, for example 'd1' of task 't'"),
        (lambda: channel_form(template("{{ answer }}", "")).render(TASK, (Example("d", {}, ()),), ASKED),
         "control=no_targets: likelihood=channel shows every question after its answer"),
    ],
)  # fmt: skip
def test_what_has_no_channel_form_is_refused_in_a_sentence(make, message):
    with pytest.raises(ConfigError, match="^" + re.escape(message)):
        make()
