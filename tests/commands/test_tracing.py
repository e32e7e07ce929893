import json
import math
import random
import re

import pytest
import torch
from architectures import VOCABULARY, build
from parsed_pages import HOSTILE, assert_self_contained

from icl_eval.commands.trace.phrases import visible_lines
from icl_eval.commands.trace.tracer import Limits, Tracer
from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding.rules import start_ids
from icl_eval.decoding.searches import Greedy
from icl_eval.models.loading import load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.prompts.building import EncodedPrompt, Prompt

NEW_TOKENS = 6
RUNNERS_UP = 3
QUESTION = "Question: is the sky blue?"


def make_prompt(model, seed=0):
    draw = random.Random(seed)
    ids = [draw.randrange(10, VOCABULARY) for _ in range(30)]
    if model.architecture == "decoder-only":
        return EncodedPrompt(Prompt("p", None, "x"), (), tuple(ids[:12]))
    return EncodedPrompt(Prompt("p", "x", None), tuple(ids[:20]), tuple(ids[20:24]))


def plain_logits(network, encoder_ids, decoder_ids):
    """Logits after every token of the decoder, without a cache."""
    inputs = {"input_ids": torch.tensor([list(decoder_ids)])}
    if encoder_ids:
        inputs = {"input_ids": torch.tensor([list(encoder_ids)]), "decoder_input_ids": inputs["input_ids"]}
    with torch.inference_mode():
        return network(**inputs, use_cache=False).logits[0].double()


def trace(model, prompt, stop=()):
    return Tracer(model, Limits(NEW_TOKENS, stop), Greedy(), RUNNERS_UP).trace(prompt)


def greedy(model, prompt):
    (completion,) = (e for e in StreamDecoder(model, NEW_TOKENS).stream([prompt]) if isinstance(e, Completion))
    return completion


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral_sliding", "t5", "bart", "marian"])
def test_the_numbers_of_a_trace_are_those_of_a_plain_forward_pass(name):
    model, untouched = build(name), build(name)
    prompt = make_prompt(model)
    traced = trace(model, prompt)

    assert traced.completion == greedy(model, prompt)
    context = (*start_ids(model), *prompt.decoder_ids)
    ids = traced.completion.token_ids
    log_probs = plain_logits(untouched.network, prompt.encoder_ids, (*context, *ids[:-1])).log_softmax(-1)
    for step, token_id, expected in zip(traced.steps, ids, log_probs[len(context) - 1 :], strict=True):
        choice = step.choice
        assert choice.chosen.token.id == token_id
        assert choice.log_probability == pytest.approx(float(expected[token_id]), abs=1e-9)
        assert choice.chosen.probability == pytest.approx(math.exp(expected[token_id]), abs=1e-9)
        assert choice.entropy_bits == pytest.approx(float(-(expected.exp() * expected).sum()) / math.log(2), abs=1e-9)
        likeliest = [i for i in expected.argsort(descending=True).tolist() if i != token_id][:RUNNERS_UP]
        assert [each.token.id for each in choice.runners_up] == likeliest
        assert [each.probability for each in choice.runners_up] == pytest.approx(
            [math.exp(expected[i]) for i in likeliest], abs=1e-9
        )
        assert (expected.argmax() == token_id) == (not choice.rules)


def test_a_trace_ends_at_the_models_own_stop_strings():
    model = build("gpt2")
    prompt = make_prompt(model)
    stop = greedy(model, prompt).text[2]
    model.network.generation_config.stop_strings = [stop]
    traced = trace(model, prompt)
    assert traced.stop_string == stop
    assert traced.completion == greedy(model, prompt)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_a_trace_shows_the_shapes_and_how_the_cache_grows(name):
    model = build(name)
    prompt = make_prompt(model)
    traced = trace(model, prompt)

    num_context = len(start_ids(model)) + len(prompt.decoder_ids)
    heads = 2 if name == "llama" else 4
    assert traced.decoder.embeddings == (1, num_context, 32)
    assert [step.fed for step in traced.steps] == [num_context] + [1] * (len(traced.steps) - 1)
    for number, step in enumerate(traced.steps):
        self_attention, *cross_attention = step.cache.blocks
        own = (1, heads, num_context + number, 8)
        assert (self_attention.first_layer, self_attention.last_layer) == (0, 1)
        assert self_attention.shapes == {"keys": own, "values": own}
        assert self_attention.bytes_per_layer == 2 * math.prod(own) * 8  # float64
        for block in cross_attention:
            assert block.attention == "cross"
            assert block.shapes == {"keys": (1, heads, 20, 8), "values": (1, heads, 20, 8)}
        assert step.cache.bytes == sum(2 * block.bytes_per_layer for block in step.cache.blocks)
        assert step.logits == (1, VOCABULARY)
    if prompt.encoder_ids:
        assert len(cross_attention) == 1
        assert traced.encoder.embeddings == traced.encoder_output == (1, 20, 32)
    else:
        assert (traced.encoder, traced.encoder_output, cross_attention) == (None, None, [])


def test_a_trace_names_the_rules_that_moved_a_choice():
    model = build("bart")
    config = model.network.generation_config
    config.forced_bos_token_id, config.forced_eos_token_id, config.eos_token_id = 11, 9, 9
    prompt = EncodedPrompt(Prompt("p", "x", None), make_prompt(model).encoder_ids, ())
    traced = trace(model, prompt)

    first, *middle, last = traced.steps
    assert (first.choice.chosen.token.id, first.choice.rules) == (11, ("ForcedBOSToken",))
    assert all(not step.choice.rules for step in middle)
    assert (last.choice.chosen.token.id, last.choice.rules) == (9, ("ForcedEOSToken",))
    assert traced.completion == greedy(model, prompt)
    assert first.choice.chosen.probability < first.choice.runners_up[0].probability


@pytest.fixture
def trace_command(icl_eval_command, tmp_path):
    """Call `icl-eval trace` and return what trace.json holds and what the terminal was shown."""

    def call(*arguments):
        outcome = icl_eval_command("trace", "device=cpu", "hydra.run.dir=run", *arguments)
        assert (outcome.exit_code, outcome.err) == (0, "")
        assert outcome.out.endswith("trace: run/trace.json\ntrace: run/trace.html\n")
        return json.loads((tmp_path / "run" / "trace.json").read_text(encoding="utf-8")), outcome.out

    return call


def ids_of(side):
    return [each["token"]["id"] for each in side["tokens"]]


def pieces_added(side):
    return [each["token"]["piece"] for each in side["tokens"] if each["added"]]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_prompt_of_ones_own_is_followed_as_stream_shows_it(architecture, trace_command, icl_eval_command, request):
    source = f"model.source={request.getfixturevalue(architecture)}"
    arguments = (source, f'prompt="{QUESTION}"', "max_new_tokens=12")
    traced, shown = trace_command(*arguments)
    streamed = icl_eval_command("stream", *arguments).out

    assert traced["completion"] + "\n" == streamed
    assert "".join(step["shown"] for step in traced["steps"]) == traced["completion"]
    assert (traced["finish_reason"], traced["ended_by"], len(traced["steps"])) == ("length", "12 tokens", 12)
    assert (traced["written"], traced["reference"], traced["influences"]) == ({"prompt": QUESTION}, None, [])
    assert traced["generated_log_likelihood"] == pytest.approx(
        sum(step["choice"]["log_probability"] for step in traced["steps"])
    )
    for step in traced["steps"]:
        assert str(step["choice"]["chosen"]["token"]["id"]) in shown

    middle = traced["completion"][5:8]
    stopped, _ = trace_command(*arguments, f"decoding.stop={json.dumps([middle], ensure_ascii=False)}")
    assert stopped["completion"] == traced["completion"][: traced["completion"].find(middle)]
    assert (stopped["finish_reason"], stopped["ended_by"]) == ("stop", middle)


def test_tokens_that_the_text_does_not_hold_are_marked(trace_command, gpt2, t5):
    traced, _ = trace_command(f"model.source={t5}", "prompt='The house </s> is small.'", "max_new_tokens=1")
    assert ids_of(traced["encoder"]).count(1) == 2
    assert (pieces_added(traced["encoder"]), pieces_added(traced["decoder"])) == (["</s>"], ["<pad>"])
    assert traced["encoder"]["tokens"][-1]["added"]

    traced, _ = trace_command(f"model.source={gpt2}", "prompt='The house is small.'", "max_new_tokens=1")
    assert (traced["encoder"], pieces_added(traced["decoder"])) == (None, [])
    assert "".join(each["token"]["text"] for each in traced["decoder"]["tokens"]) == "The house is small."
    traced, _ = trace_command(f"model.source={gpt2}", "prompt=''", "max_new_tokens=1")
    assert pieces_added(traced["decoder"]) == ["<|eos|>"]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "placement"), [("gpt2", "decoder"), ("t5", "encoder"), ("t5", "split")])
def test_the_influence_of_a_demonstration_is_what_the_answer_loses_without_it(
    architecture, placement, trace_command, request
):
    folder = request.getfixturevalue(architecture)
    common = (f"model.source={folder}", f"placement={placement}", "task=qa", "max_new_tokens=4", "template=plain")
    shown = ("qa-pool-001", "qa-pool-002")

    def run(*ids):
        chosen = (f"num_fewshot={len(ids)}", "demonstrations=fixed", f"demonstrations.ids=[{','.join(ids)}]")
        return trace_command(*common, *chosen)[0]

    both = run(*shown)
    generated = [step["choice"]["chosen"]["token"]["id"] for step in both["steps"]]
    network = load_model(ModelSpec(str(folder))).network

    def log_likelihood(traced):
        context = ids_of(traced["decoder"])
        encoder_ids = ids_of(traced["encoder"]) if traced["encoder"] else []
        log_probs = plain_logits(network, encoder_ids, context + generated[:-1]).log_softmax(-1)[len(context) - 1 :]
        return sum(float(row[token_id]) for row, token_id in zip(log_probs, generated, strict=True))

    assert [each["demonstration_id"] for each in both["influences"]] == list(shown)
    assert both["generated_log_likelihood"] == pytest.approx(log_likelihood(both), abs=1e-3)
    for influence, other in zip(both["influences"], shown[::-1], strict=True):
        alone = run(other)
        lost = both["generated_log_likelihood"] - log_likelihood(alone)
        assert influence["generated"] == pytest.approx(lost, abs=1e-3)
        lost = both["reference_log_likelihood"] - alone["reference_log_likelihood"]
        assert influence["reference"] == pytest.approx(lost, abs=1e-3)
        assert abs(lost) > 0.1


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) < 200])
def test_a_page_shows_foreign_text_as_text_and_points_every_token_to_its_numbers(text, trace_command, gpt2, tmp_path):
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps({'question': text, 'references': [text]})}\n", encoding="utf-8")
    rows = [f"task.qa.{split}.path={tmp_path}/rows.jsonl" for split in ("pool", "test")]
    traced, printed = trace_command(f"model.source={gpt2}", "task=qa", *rows, "num_fewshot=0", "max_new_tokens=4")
    page = assert_self_contained((tmp_path / "run" / "trace.html").read_text(encoding="utf-8"))

    assert traced["written"] == {"question": text}
    assert "\x1b" not in printed
    shown = [text for (tag, _), text in zip(page.elements, page.texts, strict=True) if tag == "pre"]
    for each in (text, traced["decoder"]["text"], traced["completion"]):
        assert visible_lines(each) in shown
    assert {tag for tag, attributes in page.elements if "type" not in attributes} & {"img", "iframe"} == set()
    ids = {attributes.get("id") for _, attributes in page.elements}
    buttons = [attributes["aria-controls"] for tag, attributes in page.elements if tag == "button"]
    assert buttons == [f"step-{number}" for number in range(1, len(traced["steps"]) + 1)]
    assert set(buttons) <= ids


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "trace: needs prompt=… or a single task, such as task=translation (selected tasks: "),
        (["task=[qa,math]"], "trace: needs prompt=… or a single task, such as task=qa (selected tasks: "),
        (
            ["task=qa", "example=nope"],
            "example=nope: task 'qa' has no such question (it has 64 questions, such as 'qa-test-001')",
        ),
        (["prompt=x", "num_fewshot=1"], "num_fewshot: has no effect on a free prompt, "),
        (["prompt=x", "example=1"], "example: has no effect on a free prompt, "),
        (["prompt=x", "+task.qa.stop=[x]"], "task: has no effect on a free prompt, "),
        (
            ["task=qa", "likelihood=choices", "max_new_tokens=0"],
            "max_new_tokens=0: must be 1 or more for a trace",
        ),
        (["prompt=x", "runners_up=-1"], "runners_up=-1: must be 0 or more"),
        (["promt=x"], "unknown key 'promt'; did you mean 'prompt'? (known: "),
        (["prompt=x", "max_new_tokens=300"], "a prompt of 1 tokens plus 300 new tokens is 45 too long "),
        (["-m", "prompt=x,y"], "-m: only evaluations can be swept"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_trace_is_one_line(arguments, sentence, icl_eval_command, gpt2, tmp_path):
    outcome = icl_eval_command("trace", f"model.source={gpt2}", *arguments)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"icl-eval: {sentence}")
    assert outcome.err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if re.match(r"trace\.", path.name)]
