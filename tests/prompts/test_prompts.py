import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import train_bpe
from tokenizers import processors

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.demonstrations import (
    AsSelectedOrder,
    Demonstration,
    MostRelevantLastOrder,
    RandomOrder,
    ReversedOrder,
)
from icl_eval.errors import PromptTooLongError
from icl_eval.prompts.building import (
    Context,
    DecoderPlacement,
    EncodedPrompt,
    EncoderPlacement,
    Prompt,
    PromptBuilder,
    ShownDemonstration,
    SplitPlacement,
)
from icl_eval.prompts.chats import build_chat
from icl_eval.prompts.templates import TextTemplate
from icl_eval.prompts.tokenization import encode_prompt
from icl_eval.prompts.turns import ChatTemplate
from icl_eval.tasks.examples import Example
from icl_eval.tasks.loading import Task

GOLDEN = Path(__file__).parent / "golden"
TASKS = ("translation", "translation_en_fr", "commonsense", "math", "qa", "dialogue", "story", "showcase")
TEMPLATES = ("labelled", "plain", "phi", "flan_t5_encoder", "flan_t5_decoder")
PLACEMENTS = (DecoderPlacement(), EncoderPlacement(), SplitPlacement())
NOTEBOOK_FORMS = (("flan_t5_encoder", "encoder"), ("flan_t5_decoder", "split"), ("phi", "decoder"))
every_template = pytest.mark.parametrize("template", TEMPLATES)


@pytest.fixture
def evaluation(compose):
    """Build the shipped evaluation with some overrides."""
    return lambda *overrides: build_evaluation(ComposedConfig(compose(*overrides)))


def every_task():
    return f"task=[{','.join(TASKS)}]"


def rendered(evaluation, plan, example):
    return plan.template.render(plan.task, selected(plan, example), example)


def selected(plan, example):
    return [demonstration.example for demonstration in plan.select(example)]


# Golden texts


@pytest.mark.parametrize(("template", "placement"), NOTEBOOK_FORMS)
def test_law_7_the_seven_showcase_prompts_equal_their_golden_texts(template, placement, evaluation):
    built = evaluation(
        "task=[showcase]",
        f"template={template}",
        f"placement={placement}",
        "num_fewshot=1",
        "demonstrations=first",
    )
    [plan] = built.plans
    placed = [built.placement.place(rendered(built, plan, example)) for example in plan.examples]
    golden = json.loads((GOLDEN / "showcase.json").read_text(encoding="utf-8"))[template]
    assert [{"encoder": encoder, "decoder": decoder} for encoder, decoder in placed] == golden


@pytest.mark.parametrize(
    ("form", "encoder", "decoder"),
    [
        (NOTEBOOK_FORMS[0], "{P}: {Q}. Example: {FSQ}? {FSA}", None),
        (NOTEBOOK_FORMS[1], "{P}: ", "{FSQ}? {FSA}</s>{Q}? "),
        (NOTEBOOK_FORMS[2], None, "{P}: {FSQ}\n\nAnswer: {FSA}\n\n {P}: {Q}\n\nAnswer: "),
    ],
)
def test_the_notebook_forms_are_what_a_person_would_paste_together(form, encoder, decoder, evaluation):
    """Except for spaces at the end, which belong to the answer."""
    template, placement = form
    overrides = (f"template={template}", f"placement={placement}", "num_fewshot=1", "demonstrations=first")
    built = evaluation("task=[showcase]", *overrides)
    [plan] = built.plans
    assert (plan.stop, len(plan.examples)) == (("\n",), 7)
    for example in plan.examples:
        [shown] = selected(plan, example)
        parts = {"P": example.inputs["instruction"], "Q": example.inputs["question"]}
        parts |= {"FSQ": shown.inputs["question"], "FSA": shown.references[0]}
        expected = [text and text.format(**parts).rstrip(" ") for text in (encoder, decoder)]
        assert list(built.placement.place(rendered(built, plan, example))) == expected


def test_the_showcase_experiment_is_the_phi_form(evaluation):
    built = evaluation("experiment=showcase", "placement=decoder")
    [plan] = built.plans
    golden = json.loads((GOLDEN / "showcase.json").read_text(encoding="utf-8"))["phi"]
    assert [rendered(built, plan, example).everything() for example in plan.examples] == [
        prompt["decoder"] for prompt in golden
    ]


@pytest.mark.parametrize("num_fewshot", [0, 2])
@pytest.mark.parametrize("template", ["labelled", "plain", "chat"])
def test_law_7_prompts_equal_their_golden_texts(template, num_fewshot, evaluation):
    built = evaluation(every_task(), f"template={template}", f"num_fewshot={num_fewshot}", "demonstrations=first")
    if built.chat:
        built = replace(
            built,
            plans=tuple(replace(plan, template=ChatTemplate(plan.template, turn_lines)) for plan in built.plans),
        )
    golden = json.loads((GOLDEN / "prompts.json").read_text(encoding="utf-8"))[template]
    assert set(golden) == {plan.task.name for plan in built.plans}
    for plan in built.plans:
        text = rendered(built, plan, plan.examples[0]).everything()
        assert text.split("\n") == golden[plan.task.name][str(num_fewshot)]


@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_law_7_worked_prompts_equal_their_golden_texts(num_fewshot, evaluation):
    built = evaluation(
        "task=math_worked", "template=chain_of_thought", f"num_fewshot={num_fewshot}", "demonstrations=first"
    )
    golden = json.loads((GOLDEN / "prompts.json").read_text(encoding="utf-8"))["chain_of_thought"]
    [plan] = built.plans
    text = rendered(built, plan, plan.examples[0]).everything()
    assert text.split("\n") == golden["math_worked"][str(num_fewshot)]


def turn_lines(messages):
    return "\n".join(f"<{message['role']}> {message['content']}" for message in messages)


@pytest.mark.parametrize(
    ("form", "encoder", "decoder"),
    [
        (
            NOTEBOOK_FORMS[0],
            "Add: 7 and 8. Example: 1 and 1? 2 Example: 2 and 3? 5 Example: 4 and 4? 8",
            None,
        ),
        (
            NOTEBOOK_FORMS[1],
            "Add:",
            "1 and 1? 2</s>2 and 3? 5</s>4 and 4? 8</s>7 and 8?",
        ),
        (
            NOTEBOOK_FORMS[2],
            None,
            "Add: 1 and 1\n\nAnswer: 2\n\n Add: 2 and 3\n\nAnswer: 5\n\n Add: 4 and 4\n\nAnswer: 8\n\n "
            "Add: 7 and 8\n\nAnswer:",
        ),
    ],
)
def test_the_notebook_forms_take_several_demonstrations(form, encoder, decoder, evaluation):
    template, placement = form
    built = evaluation(f"template={template}", f"placement={placement}")
    demonstrations = [
        Example(f"pool-{number}", {"question": question}, (answer,))
        for number, (question, answer) in enumerate((("1 and 1", "2"), ("2 and 3", "5"), ("4 and 4", "8")))
    ]
    task = Task("sums", "Add", {}, (), (), "")
    blocks = built.plans[0].template.render(task, demonstrations, Example("test-0", {"question": "7 and 8"}, ("15",)))
    assert built.placement.place(blocks) == (encoder, decoder)


# Laws over everything that is shipped


@every_template
def test_law_7_without_demonstrations_there_is_nothing_but_instruction_and_question(template, evaluation):
    built = evaluation(every_task(), f"template={template}", "num_fewshot=0")
    for plan in built.plans:
        for example in plan.examples:
            blocks = rendered(built, plan, example)
            instruction, question = blocks.instruction, blocks.question
            whole = f"{instruction}{blocks.separator}{question}" if instruction else question
            assert question
            assert blocks.demonstrations == ()
            assert [placement.place(blocks) for placement in PLACEMENTS] == [
                (None, whole),
                (whole, None),
                (instruction, question),
            ]


@every_template
@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_law_10_no_prompt_ends_in_a_space(template, num_fewshot, evaluation):
    built = evaluation(every_task(), f"template={template}", f"num_fewshot={num_fewshot}")
    for plan in built.plans:
        for example in plan.examples:
            blocks = rendered(built, plan, example)
            for placement in PLACEMENTS:
                texts = [text for text in placement.place(blocks) if text is not None]
                assert not any(text.endswith(" ") for text in texts)


@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_law_10_no_turn_of_a_chat_ends_in_a_space(num_fewshot, evaluation):
    built = evaluation(every_task(), "template=chat", f"num_fewshot={num_fewshot}")
    chat = ChatTemplate(built.plans[0].template, turn_lines)
    for plan in built.plans:
        for example in plan.examples:
            for message in chat.render(plan.task, selected(plan, example), example).messages:
                assert message["content"] == message["content"].strip()


# Law 11: a token a word, a model of a few positions

AS_SELECTED = AsSelectedOrder()
TEMPLATE = TextTemplate("Do .", "{{ question }} :", " {{ answer }}", None, " ", False)
POOL = tuple(Example(f"pool-{n}", {"question": "a b"}, ("c",)) for n in range(3))  # 4 words each with the colon
QUESTION = Example("test-0", {"question": "what is it ?"}, ("x",))  # 5 words with the colon


def words(prompts):
    sides = [[tuple(range(len((text or "").split()))) for text in (each.encoder, each.decoder)] for each in prompts]
    return [EncodedPrompt(prompt, *ids) for prompt, ids in zip(prompts, sides, strict=True)]


def build(max_length, overflow, placement=PLACEMENTS[0], demonstrations=POOL, order=AS_SELECTED):
    task = Task("words", "", {}, POOL, (QUESTION,), "")
    ranked = tuple(Demonstration(example, 1 / n) for n, example in enumerate(demonstrations, start=1))
    context = Context(max_length, max_new_tokens=3)
    builder = PromptBuilder(task, lambda example: ranked, order, TEMPLATE, placement, words, context, overflow)
    [built] = builder.build_all([QUESTION])
    return built


@pytest.mark.parametrize(
    ("placement", "max_length", "shown"),
    [
        (DecoderPlacement(), None, 3),
        (DecoderPlacement(), 22, 3),  # 2 + 3 * 4 + 5 words and 3 to come
        (DecoderPlacement(), 21, 2),
        (DecoderPlacement(), 14, 1),
        (DecoderPlacement(), 10, 0),
        (EncoderPlacement(), None, 3),
        (EncoderPlacement(), 19, 3),  # what is to come is on the other side
        (EncoderPlacement(), 18, 2),
        (SplitPlacement(), 21, 3),  # 3 * 4 + 5 words, 3 to come and the start token
        (SplitPlacement(), 20, 2),
    ],
)
def test_law_11_whole_demonstrations_are_dropped_the_least_wanted_first(placement, max_length, shown):
    built = build(max_length, "drop", placement)
    blocks = TEMPLATE.render(Task("words", "", {}, (), (), ""), POOL[:shown], QUESTION)
    assert (built.prompt.encoder, built.prompt.decoder) == placement.place(blocks)
    assert built.prompt.demonstration_ids == ("pool-0", "pool-1", "pool-2")[:shown]


@pytest.mark.parametrize("room", [*range(40), 1000, 4093, 4096])
def test_law_11_as_many_as_fit_are_found_by_few_trials(room):
    pool = [Example(f"pool-{n}", {"question": "a"}, ("c",)) for n in range(1024)]  # 3 words each
    ranked = tuple(Demonstration(example, 1.0) for example in pool)
    encoded = []

    def count_words(prompts):
        encoded.append(len(prompts))
        return words(prompts)

    task = Task("words", "", {}, POOL, (QUESTION,), "")
    context = Context(7 + 3 + room, max_new_tokens=3)
    select = {QUESTION.id: ranked, "short": ranked[:5], "none": ()}
    builder = PromptBuilder(
        task, lambda each: select[each.id], AS_SELECTED, TEMPLATE, PLACEMENTS[0], count_words, context, "drop"
    )
    built = builder.build_all([replace(QUESTION, id=name) for name in select])
    assert [len(each.prompt.demonstrations) for each in built] == [min(room // 3, most) for most in (1024, 5, 0)]
    assert len(encoded) <= 1 + 2 * 10

    def is_short(example, prompt):
        return len(prompt.prompt.demonstrations) < 4

    assert [len(each.prompt.demonstrations) for each in builder.build_all([QUESTION], is_short)] == [min(room // 3, 3)]


@pytest.mark.parametrize("order", [ReversedOrder(), MostRelevantLastOrder(), RandomOrder(seed=1)])
def test_law_11_the_least_wanted_is_dropped_first_whatever_the_order(order):
    whole, cut = (build(max_length, "drop", order=order).prompt for max_length in (22, 18))
    assert [shown.id for shown in whole.demonstrations if shown.id != "pool-2"] == list(cut.demonstration_ids)
    assert whole.demonstration_ids != ("pool-0", "pool-1", "pool-2")


def test_a_prompt_says_what_it_shows_in_the_order_of_its_text():
    pool = [Example(f"pool-{n}", {"question": f"a {n}"}, (f"c{n}", "other")) for n in range(2)]
    prompt = build(None, "stop", demonstrations=pool, order=ReversedOrder()).prompt
    assert prompt.decoder == "Do . a 1 : c1 a 0 : c0 what is it ? :"
    assert prompt.demonstrations == (ShownDemonstration("pool-1", "c1", 0.5), ShownDemonstration("pool-0", "c0", 1.0))


@pytest.mark.parametrize(
    ("max_length", "overflow", "demonstrations", "message"),
    [
        (
            21,
            "stop",
            POOL,
            "a prompt of 19 tokens plus 3 new tokens is 1 too long for the model's 21 positions; "
            "lower num_fewshot or max_new_tokens, or set overflow=drop to leave out demonstrations",
        ),
        (
            9,
            "drop",
            POOL,
            "a prompt of 7 tokens plus 3 new tokens is 1 too long for the model's 9 positions; "
            "shorten it or lower max_new_tokens",
        ),
        (
            8,
            "stop",
            (),
            "a prompt of 7 tokens plus 3 new tokens is 2 too long for the model's 8 positions; "
            "shorten it or lower max_new_tokens",
        ),
    ],
)
def test_law_11_a_question_that_does_not_fit_stops_the_run(max_length, overflow, demonstrations, message):
    with pytest.raises(PromptTooLongError) as error:
        build(max_length, overflow, demonstrations=demonstrations)
    assert str(error.value) == f"task 'words', question 'test-0': {message}"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_law_11_what_fits_is_kept_whole_whatever_the_overflow(placement):
    assert build(22, "stop", placement) == build(22, "drop", placement) == build(None, "stop", placement)


def test_a_template_is_equal_to_another_with_the_same_strings_also_when_one_was_used():
    used, new = replace(TEMPLATE), replace(TEMPLATE)
    used.render(Task("words", "", {}, (), (), ""), POOL, QUESTION)
    assert used == new
    assert hash(used) == hash(new)


# Prompts


def test_a_prompts_hash_tells_its_two_sides_apart():
    prompts = [Prompt("a", "x", "y"), Prompt("a", "y", "x"), Prompt("a", None, "xy"), Prompt("a", "xy", None)]
    prompts += [Prompt("a", "", "xy"), Prompt("a", "x", None), Prompt("a", "\ud800", "y")]
    assert len({prompt.hash for prompt in prompts}) == len(prompts)
    assert Prompt("a", "x", "y", ("d",)).hash == Prompt("b", "x", "y").hash


@pytest.mark.parametrize("writes_bos", [False, True])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_chat_prompt_begins_with_one_bos_token_whoever_writes_it(adds_bos, writes_bos, evaluation):
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    answer = "{% if add_generation_prompt %}[assistant]{% endif %}"
    tokenizer = train_bpe(chat_template="{{ bos_token }}" * writes_bos + turns + answer)
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=[("<|bos|>", 0)]
        )
    built = evaluation("task=[qa]", "template=chat", "num_fewshot=1", "demonstrations=first")
    [plan] = built.plans
    chat = ChatTemplate(plan.template, build_chat(tokenizer))
    text = chat.render(plan.task, selected(plan, plan.examples[0]), plan.examples[0]).everything()
    encoded = encode_prompt(tokenizer, Prompt("qa-test-001", None, text))

    expected = (
        "[user]Answer the question with a fact, in a few words.\n\n"
        "Who was the king of the gods in Greek mythology?[assistant]Zeus"
        "[user]Which precious stone is a form of pure carbon?[assistant]"
    )
    assert text == "<|bos|>" * writes_bos + expected
    assert tokenizer.decode(encoded.decoder_ids) == "<|bos|>" * (adds_bos or writes_bos) + expected
    assert encoded.decoder_ids.count(tokenizer.bos_token_id) == int(adds_bos or writes_bos)


@pytest.mark.parametrize(
    ("encoder", "decoder", "excess"), [(8, 0, 0), (9, 0, 1), (0, 2, 0), (0, 4, 2), (10, 3, 2)]
)  # the start token and three new ones leave 2 of the decoder's 6
def test_each_side_may_have_positions_of_its_own(encoder, decoder, excess):
    context = Context(6, max_new_tokens=3, max_encoder_length=8)
    encoded = EncodedPrompt(Prompt("q", "x", None), (0,) * encoder, (0,) * decoder)
    assert context.excess(encoded) == excess
    if excess:
        with pytest.raises(PromptTooLongError) as error:
            context.require_fit(encoded)
        assert f"is {excess} too long for the model's 8 (encoder) and 6 (decoder) positions; " in str(error.value)


def test_law_11_each_of_many_prompts_loses_what_it_must_and_no_more(monkeypatch):
    monkeypatch.setattr("icl_eval.prompts.building._PART", 3)
    questions = [Example(f"q{n}", {"question": "w " * n}, ("x",)) for n in (1, 8, 4, 12, 1, 5, 2)]
    task = Task("words", "", {}, POOL, tuple(questions), "")
    ranked = tuple(Demonstration(example) for example in POOL)
    builder = PromptBuilder(
        task, lambda example: ranked, AS_SELECTED, TEMPLATE, PLACEMENTS[0], words, Context(18, 3), "drop"
    )
    built = builder.build_all(iter(questions))
    assert [each.prompt.example_id for each in built] == [each.id for each in questions]
    assert [len(each.prompt.demonstrations) for each in built] == [2, 1, 2, 0, 2, 1, 2]
    assert built == [builder.build_all([each])[0] for each in questions]
