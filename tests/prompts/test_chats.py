import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import tiny_models
from chat_templates import CHATML, SHAPES
from tiny_models import train_bpe
from tokenizers import AddedToken, processors

from icl_eval.errors import ConfigError
from icl_eval.models.specs import ModelSpec
from icl_eval.models.weights.folders import digest_folder
from icl_eval.models.weights.hub import choose_files
from icl_eval.prompts import chats
from icl_eval.prompts.building import Prompt
from icl_eval.prompts.chat_templates import identify_chat_template, name_chat_template
from icl_eval.prompts.chats import build_chat
from icl_eval.prompts.tokenization import encode_continuations, encode_prompt

TURNS = [("user", "q1"), ("assistant", "a1"), ("user", "q2")]
MESSAGES = [{"role": role, "content": content} for role, content in TURNS]
MARKS = re.compile(r"<[^<>\s]+>|\[gMASK\]")
OPENING = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
LOOP = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|eos|>{% endfor %}"


def tokenizer_of(template, adds="$A"):
    """A byte-level tokenizer with the tokens that a chat template writes, and what it adds to texts by itself."""
    tokenizer = train_bpe()
    written = template + "".join(shape.text for shape in SHAPES.values() if shape.template == template) + adds
    tokens = sorted({"<s>", "</s>", *MARKS.findall(written)} - {"<think>", "</think>", "<|{{"})
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=adds, special_tokens=special)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("name", SHAPES)
def test_a_conversation_is_what_the_library_makes_of_it(name):
    shape = SHAPES[name]
    tokenizer = tokenizer_of(shape.template, shape.adds)
    chat = build_chat(tokenizer)
    messages = [{"role": role, "content": content} for role, content in TURNS]
    if "parts" in name:
        messages = [{**each, "content": [{"type": "text", "text": each["content"]}]} for each in messages]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    text = chat(MESSAGES)
    encoded = encode_prompt(tokenizer, Prompt("q", None, text, is_chat=True))

    assert text == shape.text
    assert list(encoded.decoder_ids) == expected
    end = chat.end_id
    assert (None if end is None else tokenizer.convert_ids_to_tokens(end)) == shape.end


def test_an_answer_that_follows_a_conversation_gets_no_other_beginning():
    tokenizer = tokenizer_of(CHATML, adds="<s> $A </s>")
    prompt = Prompt("q", None, build_chat(tokenizer)(MESSAGES), is_chat=True)
    found = encode_continuations(tokenizer, encode_prompt(tokenizer, prompt), ["yes", "no"])
    assert found.context.decoder_ids == encode_prompt(tokenizer, prompt).decoder_ids
    assert [tokenizer.decode(ids) for ids in found.texts] == ["yes", "no"]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{% for m in messages %}<|{{ m.role }}|>{{ m.text }}{% endfor %}" + OPENING,
            "leaves out or changes the question of demonstration 1 ('Qx0zj'), so the model would not see it; use "
            "another template",
        ),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}" + OPENING,
            "leaves out or changes the answer of demonstration 1 ('Qx1zj'), so the model would not see it; use "
            "another template",
        ),
        (
            "{{ messages[0].content }}{{ messages[1].content }}" + OPENING,
            "leaves out or changes the question ('Qx2zj'), so the model would not see it; use another template",
        ),
        (
            "{% for m in messages|reverse %}{{ m.content }}{% endfor %}" + OPENING,
            "leaves out or changes the answer of demonstration 1 ('Qx1zj'), so the model would not see it; use "
            "another template",
        ),
        (
            "{% for m in messages %}{% set x = m.content[0].text %}{{ m.content }}{% endfor %}" + OPENING,
            None,
        ),
        (
            LOOP,
            "does not open the assistant's turn: the output is the same with and without a generation prompt, so the "
            "model would continue the user's turn; use another template",
        ),
        ("{{ raise_exception('no\nsystem role') }}", "failed: no system role"),
        ("{% for i in range(9**9) %}{% endfor %}", "failed: Range too big. The sandbox blocks ranges larger than "
         "MAX_RANGE (100000)."),
        (LOOP + "{{ 'a' * 10**9 }}", "failed: it creates a string of more than 20,000,000 characters, or a list "
         "of that size"),
        (LOOP + OPENING + "{{ ['a', 'b']|random }}", "failed: it uses random numbers, but a prompt must be "
         "reproducible"),
        (LOOP + OPENING + "{{ '\\ud800' }}", r"failed: it contains a lone surrogate ('\ud800')"),
        ("{{ messages.__class__.__mro__ }}", "failed: access to attribute '__class__' of 'list' object is unsafe."),
        ("{% for %}", "cannot be read: Expected an expression, got 'end of statement block'"),
        ("{% if 1 %}" * 3000, "cannot be read: maximum recursion depth exceeded"),
    ],
)  # fmt: skip
def test_what_loses_a_turn_or_its_opening_is_one_sentence(template, problem):
    def open_and_render():
        return build_chat(tokenizer_of(template), "tiny")(MESSAGES)

    if problem is None:
        assert open_and_render() == "q1a1q2<|assistant|>"
        return
    with pytest.raises(ConfigError) as error:
        open_and_render()
    assert str(error.value).startswith(f"template=chat: the chat template of tiny {problem}")
    assert "\n" not in str(error.value)


def test_what_a_template_takes_from_one_text_alone_is_found_in_that_text():
    chat = build_chat(tokenizer_of(SHAPES["qwen3, which drops earlier thoughts"].template), "tiny")
    with pytest.raises(ConfigError) as error:
        chat([MESSAGES[0], {"role": "assistant", "content": "hm</think>a1"}, MESSAGES[2]])
    assert str(error.value) == (
        "template=chat: the chat template of tiny leaves out or changes the answer of demonstration 1 "
        "('hm</think>a1'), so the model would not see it; use another template"
    )


def test_a_template_is_chosen_by_name():
    tokenizer = tokenizer_of(CHATML)
    assert build_chat(tokenizer, name="default")(MESSAGES) == SHAPES["chatml"].text
    tokenizer.chat_template = {"default": CHATML, "short": LOOP + OPENING}
    assert build_chat(tokenizer)(MESSAGES) == SHAPES["chatml"].text
    assert build_chat(tokenizer, name="short")(MESSAGES).endswith("<|user|>q2<|eos|><|assistant|>")
    with pytest.raises(ConfigError) as error:
        build_chat(tokenizer, "tiny", "rag")
    assert str(error.value) == (
        "model.chat_template=rag: tiny has no such chat template (it has: default, short); a file is ./FILE.jinja"
    )
    tokenizer.chat_template = {"short": LOOP, "rag": LOOP}
    with pytest.raises(ConfigError) as error:
        build_chat(tokenizer, "tiny")
    assert str(error.value) == (
        "template=chat: tiny has several chat templates; choose model.chat_template=… (rag, short)"
    )
    tokenizer.chat_template = {"short": LOOP}
    with pytest.raises(ConfigError) as error:
        build_chat(tokenizer, "tiny", "short")(MESSAGES)
    assert str(error.value).startswith("template=chat: the chat template 'short' of tiny does not open")


def test_a_template_is_given_as_a_file_or_as_text(tmp_path):
    tokenizer = tokenizer_of(CHATML)
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"tiny has no chat template in its tokenizer; use another template, or mod"):
        build_chat(tokenizer, "tiny")
    file = tmp_path / "chatml.jinja"
    file.write_text(CHATML, encoding="utf-8")
    for given in (str(file), CHATML):
        assert build_chat(tokenizer, "tiny", given)(MESSAGES) == SHAPES["chatml"].text
    digest = hashlib.sha256(CHATML.encode()).hexdigest()
    assert name_chat_template(str(file)) == f"chatml.jinja ({digest[:8]})"
    assert name_chat_template(CHATML) == f"given as text ({digest[:8]})"
    assert identify_chat_template(str(file)) == identify_chat_template(CHATML) == f"sha256={digest}"
    assert name_chat_template("dated") == identify_chat_template("dated") == "dated"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("./nowhere.jinja", "model.chat_template=./nowhere.jinja: cannot be read (No such file or directory; working"),
        ("chatml.jinja", "model.chat_template=chatml.jinja: cannot be read (No such file"),
        (".", "model.chat_template=.: cannot be read (Is a directory"),
        ("/dev/zero", "model.chat_template=/dev/zero: is a pipe or a device; must be a regular file"),
        ("./a\0b", r"model.chat_template='./a\x00b': cannot be read (embedded null byte)"),
        ("./bytes.jinja", "model.chat_template=./bytes.jinja: not a text file in UTF-8"),
        ("{% if %}", "template=chat: the chat template given as text ("),
        ("{{ 1 }}", "leaves out or changes the question of demonstration 1"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bytes.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as error:
        build_chat(train_bpe(), "tiny", given)(MESSAGES)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_named_template_is_fetched_and_belongs_to_the_model(tmp_path):
    templates = {"default": CHATML, "short": LOOP + OPENING}
    folder = tiny_models.save_gpt2(tmp_path / "named", chat_template=templates)
    named = folder / "additional_chat_templates" / "short.jinja"
    before = digest_folder(folder)
    named.write_text(LOOP + "Say: " + OPENING)
    assert digest_folder(folder) != before
    names = [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "additional_chat_templates/short.jinja",
        "onnx/a.json",
    ]
    assert choose_files(names, ModelSpec("tiny/named"), descriptions_only=True) == names[:-1]


CHAT = ("task=qa", "template=chat", "limit=2", "num_fewshot=1", "max_new_tokens=2", "hydra.run.dir=run")


@pytest.fixture
def dated(tmp_path, monkeypatch):
    """A model whose chat template shows the day, and a way to change today."""
    template = "<|system|>Today is {{ strftime_now('%d %b %Y %H:%M') }}.<|eos|>" + tiny_models.CHAT_TEMPLATE
    folder = tiny_models.save_gpt2(tmp_path / "dated", chat_template=template)

    def set_today(day):
        monkeypatch.setattr(chats, "today", lambda: chats.date.fromisoformat(day))

    return f"model.source={folder}", set_today


@pytest.mark.slow
def test_the_day_that_prompts_show_belongs_to_the_run(dated, icl_eval_command, tmp_path):
    model, set_today = dated
    set_today("2025-01-31")
    assert icl_eval_command(model, *CHAT).exit_code == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    record = json.loads((tmp_path / "run" / "samples_qa.jsonl").read_text().splitlines()[0])
    assert record["decoder"].startswith("<|system|>Today is 31 Jan 2025 00:00.")
    assert report["run"]["conventions"] == {"date": "2025-01-31"}

    set_today("2025-02-01")
    outcome = icl_eval_command(model, *CHAT)
    sentence = (
        "run contains a run whose prompts show the date 2025-01-31, but the current prompts show 2025-02-01; resume "
        "with template.date=2025-01-31, or choose another folder with hydra.run.dir=… (in Python folder=…)\n"
    )
    assert (outcome.exit_code, outcome.err.endswith(sentence)) == (2, True)
    assert icl_eval_command(model, *CHAT, "template.date=2025-01-31").exit_code == 0
    assert icl_eval_command(model, *CHAT[:-1], "hydra.run.dir=other").exit_code == 0
    other = json.loads((tmp_path / "other" / "report.json").read_text())
    assert other["run"]["fingerprint"] != report["run"]["fingerprint"]


@pytest.mark.slow
def test_a_day_that_no_prompt_shows_is_refused(dated, gpt2, icl_eval_command, tmp_path):
    chatty = f"model.source={tiny_models.save_gpt2(tmp_path / 'chatty', chat_template=tiny_models.CHAT_TEMPLATE)}"
    for asked, sentence in (
        ((dated[0], *CHAT, "template.date=31.1.2025"), "template.date=31.1.2025: must be a date such as 2025-01-31"),
        ((chatty, *CHAT, "template.date=2025-01-31"),
         "template.date=2025-01-31: the chat template of chatty shows no date; leave it out"),
        ((f"model.source={gpt2}", "task=qa", "template.date=2025-01-31"),
         "template.date=2025-01-31: requires prompts that are conversations (template=chat)"),
        ((f"model.source={gpt2}", "task=qa", "model.chat_template=x"),
         "model.chat_template=x: requires prompts that are conversations (template=chat)"),
        (("stream", f"model.source={gpt2}", "prompt=a", "model.chat_template=x"),
         "model.chat_template=x: a literal prompt is not rendered with a chat template; leave it out"),
    ):  # fmt: skip
        outcome = icl_eval_command(*asked)
        assert (outcome.exit_code, outcome.err) == (2, f"icl-eval: {sentence}\n")


@pytest.mark.parametrize("decoding", ["greedy", "sample", "generate"])
def test_the_end_of_a_turn_ends_an_answer(decoding, tmp_path, icl_eval_command):
    """By its weights the model writes nothing but the end of a turn, which its generation config does not have."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "model"
    tiny_models.save_gpt2(folder)
    tokenizer = train_bpe(single_special=True, chat_template=CHATML)
    names = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.save_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    network.resize_token_embeddings(len(tokenizer))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    network.transformer.wte.weight.data.zero_()[end] = 1  # which the output layer shares
    network.transformer.ln_f.weight.data.zero_()
    network.transformer.ln_f.bias.data.fill_(5)
    network.save_pretrained(folder)
    asked = (f"model.source={folder}", f"decoding={decoding}", *CHAT[:-2], "max_new_tokens=5", CHAT[-1])

    assert icl_eval_command(*asked).exit_code == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "samples_qa.jsonl").read_text().splitlines()]
    assert [(each["completion"], each["completion_tokens"], each["finish_reason"]) for each in records] == [
        ("", 1, "eos")
    ] * 2
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["run"]["decoding"]["ends"] == ["<|im_end|>", "<|eos|>"]
    shutil.rmtree(tmp_path / "run")
    assert icl_eval_command(*asked, "template=labelled").exit_code == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["run"]["decoding"]["ends"] == ["<|eos|>"]


def test_rules_of_the_generation_config_are_in_the_report_and_said(tmp_path, icl_eval_command):
    folder = tiny_models.save_gpt2(tmp_path / "ruled")
    path = folder / "generation_config.json"
    rules = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 3}
    neutral = {"encoder_repetition_penalty": 1.0, "bad_words_ids": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | rules | neutral))
    asked = (f"model.source={folder}", "task=qa", "limit=1", "num_fewshot=1", "max_new_tokens=3", "hydra.run.dir=run")
    outcome = icl_eval_command(*asked)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["run"]["decoding"]["generation_config"] == rules
    sentence = (
        "the generation config of ruled has rules that change completions, and so scores: repetition_penalty=1.3, "
        "no_repeat_ngram_size=2, min_new_tokens=3\n"
    )
    assert (outcome.exit_code, outcome.err.count(sentence)) == (0, 1)
