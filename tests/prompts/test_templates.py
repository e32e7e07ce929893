import dataclasses

import pytest

from icl_eval.errors import ConfigError
from icl_eval.prompts.building import DecoderPlacement, EncoderPlacement, SplitPlacement
from icl_eval.prompts.templates import TextTemplate
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

TEMPLATE = TextTemplate(
    instruction="{{ instruction }}",
    question="{{ labels.question }}: {{ question }}\n{{ labels.answer }}:",
    answer=" {{ answer }}",
    demonstration=None,
    separator="\n\n",
    question_first=False,
    name="labelled",
)
TASK = Task("capitals", "Name the capital.", {"question": "Q", "answer": "A"}, (), (), "")
PERU = Example("pool-0", {"question": "Peru?"}, ("Lima", "Lima, Peru"))
CHAD = Example("pool-1", {"question": "Chad?"}, ("N'Djamena",))
QUESTION = Example("test-0", {"question": "Fiji?"}, ("Suva",))


def question_of(text):
    return Example("test-0", {"question": text}, ("Suva",))


def decoder_text(template, demonstrations=(), example=QUESTION, task=TASK):
    return template.render(task, demonstrations, example).everything()


def conversation(messages):
    return "".join(f"<{message['role']}>{message['content']}" for message in messages)


def test_a_prompt_is_instruction_demonstrations_and_question_with_the_first_reference_as_answer():
    assert decoder_text(TEMPLATE, [PERU, CHAD]) == (
        "Name the capital.\n\nQ: Peru?\nA: Lima\n\nQ: Chad?\nA: N'Djamena\n\nQ: Fiji?\nA:"
    )


@pytest.mark.parametrize(
    ("question_first", "placement", "expected"),
    [
        (False, DecoderPlacement(), (None, "Do.|peru=Lima|fiji=")),
        (True, DecoderPlacement(), (None, "Do.|peru=Lima|fiji=")),
        (False, EncoderPlacement(), ("Do.|peru=Lima|fiji=", None)),
        (True, EncoderPlacement(), ("Do.|fiji=|peru=Lima", None)),
        (False, SplitPlacement(), ("Do.", "peru=Lima|fiji=")),
        (True, SplitPlacement(), ("Do.", "peru=Lima|fiji=")),
    ],
)
def test_a_placement_decides_which_side_sees_which_blocks_in_which_order(question_first, placement, expected):
    template = TextTemplate("Do.", "{{ question[:4]|lower }}=", "{{ answer }}", None, "|", question_first)
    assert placement.place(template.render(TASK, [PERU], QUESTION)) == expected


def test_empty_blocks_bring_no_separator():
    template = dataclasses.replace(TEMPLATE, instruction="")
    assert decoder_text(template) == "Q: Fiji?\nA:"
    assert SplitPlacement().place(template.render(TASK, [], QUESTION)) == ("", "Q: Fiji?\nA:")


def test_a_demonstration_may_read_differently_from_a_question():
    template = dataclasses.replace(TEMPLATE, demonstration="{{ question }} = {{ answer }}")
    assert decoder_text(template, [PERU]) == "Name the capital.\n\nPeru? = Lima\n\nQ: Fiji?\nA:"


@pytest.mark.parametrize(
    "text",
    [
        "{{ answer }}",
        "{{ 7 * 7 }}{% for x in y %}{# no comment #}",
        "{question} {0} %s %(answer)s ${answer} $answer",
        "\\1 \\n \\g<0>",
        "[INST] <|assistant|> </s> \n\n",
        "{{ labels.question }}: {{ question }}",
        "<b>&amp; \"quotes\" 'too'</b>",
    ],
)
def test_row_text_that_looks_like_a_placeholder_is_never_expanded(text):
    shown = Example("pool-0", {"question": text}, (text,))
    expected = f"{text}\n\nQ: {text}\nA: {text}\n\nQ: {text}\nA:"
    task = dataclasses.replace(TASK, instruction=text)
    assert decoder_text(TEMPLATE, [shown], question_of(text), task) == expected

    turned = f"{text}\n\n{text.strip()}<assistant>{text.strip()}<user>{text.strip()}"
    wording = dataclasses.replace(TEMPLATE, question="{{ question }}")
    chat = ChatTemplate(wording, lambda messages: conversation(messages).removeprefix("<user>"))
    assert decoder_text(chat, [shown], question_of(text), task) == turned


@pytest.mark.parametrize("text", ["Fiji? ", "Fiji?   "])
def test_law_10_the_space_before_an_answer_belongs_to_the_answer(text):
    template = dataclasses.replace(TEMPLATE, question="{{ question }} ", answer="{{ answer }}")
    peru = Example("pool-0", {"question": "Peru?"}, ("Lima",))
    assert decoder_text(template, [peru], question_of(text)) == "Name the capital.\n\nPeru? Lima\n\nFiji?"


def test_a_line_break_before_an_answer_stays_in_the_prompt():
    template = dataclasses.replace(TEMPLATE, question="{{ question }}\n", answer="{{ answer }}\n")
    assert decoder_text(template, [PERU]) == "Name the capital.\n\nPeru?\nLima\n\n\nFiji?\n"


def test_a_rows_own_instruction_and_labels_come_before_the_tasks():
    example = Example("test-0", {"question": "Fiji?", "instruction": "Name it."}, ("Suva",))
    assert decoder_text(TEMPLATE, [PERU], example) == "Name it.\n\nQ: Peru?\nA: Lima\n\nQ: Fiji?\nA:"


WORKED = Example("pool-0", {"question": "Peru?"}, ("Lima",), demonstration_fields={"why": "It is on the coast."})
REASONED = dataclasses.replace(TASK, pool=(WORKED,))
REASONING = dataclasses.replace(TEMPLATE, rationale=" {{ why }}", answer=" So {{ answer }}.")
PART_OF_ROW = (
    "template 'labelled': answer: uses {}, and a likelihood scores an answer without other fields of its row, which "
    "the model could not know; show them in template.rationale, which is only for demonstrations, or in "
    "template.question"
)


def test_a_demonstration_shows_its_rationale_before_the_answer_and_a_question_needs_none():
    assert decoder_text(REASONING, [WORKED], task=REASONED) == (
        "Name the capital.\n\nQ: Peru?\nA: It is on the coast. So Lima.\n\nQ: Fiji?\nA:"
    )
    chat = ChatTemplate(dataclasses.replace(REASONING, question="{{ question }}"), conversation)
    assert decoder_text(chat, [WORKED], task=REASONED) == (
        "<user>Name the capital.\n\nPeru?<assistant>It is on the coast. So Lima.<user>Fiji?"
    )
    whole = dataclasses.replace(TEMPLATE, demonstration="{{ question }} {{ why }} {{ answer }}")
    assert decoder_text(whole, [WORKED], task=REASONED).startswith(
        "Name the capital.\n\nPeru? It is on the coast. Lima\n\n"
    )
    for template in (REASONING, chat):  # what is scored is the answer alone
        assert template.continuation(REASONED, QUESTION, "Suva").strip() == "So Suva."


@pytest.mark.parametrize(("part", "names"), [("why", "why"), ("question", "question"), ("hint", "hint")])
def test_an_answer_that_shows_more_of_the_row_has_no_likelihood(part, names):
    """Else each choice stood behind the hint that belongs to the right one."""
    template = dataclasses.replace(TEMPLATE, answer=f" {{{{ {part} }}}} {{{{ answer }}}}")
    asked = dataclasses.replace(QUESTION, inputs={"question": "Fiji?", "hint": "S"})
    for each in (template, ChatTemplate(template, conversation)):
        with pytest.raises(ConfigError) as error:
            each.continuation(REASONED, asked, "Suva")
        assert str(error.value) == PART_OF_ROW.format(names)


def test_a_row_with_a_field_called_answer_shows_the_answer_that_is_scored():
    asked = dataclasses.replace(QUESTION, inputs={"question": "Fiji?", "answer": "worked"})
    assert TEMPLATE.continuation(TASK, asked, "Suva") == " Suva"


def test_a_question_cannot_show_what_only_demonstrations_have():
    with pytest.raises(ConfigError, match="question: 'why' is undefined, for example 'pool-0'"):
        decoder_text(dataclasses.replace(TEMPLATE, question="{{ question }} {{ why }}"), [WORKED], task=REASONED)


def test_a_rationale_beside_a_whole_demonstration_is_refused():
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(REASONING, demonstration="{{ question }}")
    assert str(error.value) == (
        "template.rationale: has no effect, 'demonstration' is a whole demonstration; leave one of them out"
    )


def test_a_chat_shows_demonstrations_as_turns_and_opens_with_the_instruction():
    chat = ChatTemplate(dataclasses.replace(TEMPLATE, question="{{ question }}\n"), conversation)
    assert decoder_text(chat, [PERU, CHAD]) == (
        "<user>Name the capital.\n\nPeru?<assistant>Lima<user>Chad?<assistant>N'Djamena<user>Fiji?"
    )
    assert decoder_text(chat) == "<user>Name the capital.\n\nFiji?"
    without = ChatTemplate(dataclasses.replace(chat.wording, instruction=""), conversation)
    assert decoder_text(without, [PERU]) == "<user>Peru?<assistant>Lima<user>Fiji?"


def test_a_chat_has_one_order_and_cannot_be_split():
    blocks = ChatTemplate(TEMPLATE, conversation).render(TASK, [PERU], QUESTION)
    assert EncoderPlacement().place(blocks) == (blocks.everything(), None)
    with pytest.raises(ConfigError) as error:
        SplitPlacement().place(blocks)
    assert str(error.value) == "template: a chat template cannot be split; use placement=encoder or decoder"


@pytest.mark.parametrize("option", [{"demonstration": "{{ question }}"}, {"question_first": True}])
def test_a_chat_refuses_what_it_could_only_ignore(option):
    with pytest.raises(ConfigError) as error:
        ChatTemplate(dataclasses.replace(TEMPLATE, **option), conversation)
    assert str(error.value) == (
        "template.chat: in a conversation a demonstration is a question and an answer, and the question comes last; "
        "use a template without 'demonstration' and 'question_first' ('rationale' opens the answer)"
    )


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        (
            "question",
            "{{ qestion }}",
            "template 'labelled': question: 'qestion' is undefined, for example 'pool-0' of task 'capitals' "
            "(it can use: instruction, labels, question)",
        ),
        (
            "answer",
            "{{ anwser }}",
            "template 'labelled': answer: 'anwser' is undefined, for example 'pool-0' of task 'capitals' "
            "(it can use: answer, instruction, labels, question)",
        ),
        (
            "instruction",
            "{{ labels.source }}",
            "template 'labelled': instruction: 'dict object' has no attribute 'source', for example 'test-0' of "
            "task 'capitals' (it can use: instruction, labels, question)",
        ),
        (
            "question",
            "{{ question.__class__.__mro__ }}",
            "template 'labelled': question: access to attribute '__class__' of 'str' object is unsafe, for example "
            "'pool-0' of task 'capitals' (it can use: instruction, labels, question)",
        ),
        (
            "question",
            "{{ question / 2 }}",
            "template 'labelled': question: unsupported operand type(s) for /: 'str' and 'int', for example "
            "'pool-0' of task 'capitals' (it can use: instruction, labels, question)",
        ),
        (
            "question",
            "{{ question",
            "template.question: unexpected end of template, expected 'end of print statement'. (in '{{ question')",
        ),
        (
            "demonstration",
            "{% nothing %}",
            "template.demonstration: Encountered unknown tag 'nothing'. (in '{% nothing %}')",
        ),
    ],
)
def test_a_template_that_cannot_be_rendered_is_one_sentence(part, text, message):
    with pytest.raises(ConfigError) as error:
        decoder_text(dataclasses.replace(TEMPLATE, **{part: text}), [PERU])
    assert str(error.value) == message


def test_what_was_rendered_for_one_row_is_not_shown_for_another():
    template = TextTemplate("{{ range }} {{ labels }}", "{{ question }}", "{{ answer }}", None, "|", False)
    rows = [Example("q", {"question": "?", "range": f"{number}"}, ("a",)) for number in range(2)]
    assert [decoder_text(template, example=row) for row in rows] == [
        f"{number} {{'question': 'Q', 'answer': 'A'}}|?" for number in range(2)
    ]
    other = dataclasses.replace(TASK, labels={"question": "Frage"})
    assert decoder_text(template, example=rows[0], task=other) == "0 {'question': 'Frage'}|?"


def test_a_demonstration_is_rendered_anew_for_another_task_or_another_row_of_the_same_id():
    changed = dataclasses.replace(PERU, references=("Cusco",))
    other = dataclasses.replace(TASK, labels={"question": "F", "answer": "A"})
    assert "Q: Peru?\nA: Lima\n" in decoder_text(TEMPLATE, [PERU])
    assert "Q: Peru?\nA: Cusco\n" in decoder_text(TEMPLATE, [changed])
    assert "F: Peru?\nA: Lima\n" in decoder_text(TEMPLATE, [PERU], task=other)


def test_only_the_last_strings_are_kept(monkeypatch):
    monkeypatch.setattr("icl_eval.prompts.templates._KEPT", 4)
    template = dataclasses.replace(TEMPLATE)
    shown = [Example(f"pool-{n}", {"question": f"{n}?"}, (f"{n}!",)) for n in range(9)]
    for number in (*range(9), 0):
        text = decoder_text(template, [shown[number]], question_of(f"{number}??"))
        assert text == f"Name the capital.\n\nQ: {number}?\nA: {number}!\n\nQ: {number}??\nA:"
    assert len(template._rendered) == len(template._demonstrations) == 4
