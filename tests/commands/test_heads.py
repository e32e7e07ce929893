import json

import pytest
import tiny_models
import torch
from architectures import build
from parsed_pages import assert_self_contained
from transformers import GPT2Config, GPT2LMHeadModel

import icl_eval
from icl_eval.commands.trace.attention import read_last_token
from icl_eval.commands.trace.heat_maps import draw_heat_map
from icl_eval.commands.trace.phrases import describe_strongest
from icl_eval.commands.trace.repetition import draw_sequences, score_repetition
from icl_eval.commands.trace.traces import HeadMap
from icl_eval.errors import ConfigError
from icl_eval.models.loading import LanguageModel

CONTENT, BEFORE, POSITION = slice(0, 64), slice(64, 128), slice(128, 256)
"""The parts of the written network's states: the token, the token before it, and the position."""


def write_induction_head():
    """A GPT-2 in which head 0 of layer 0 copies the previous token, and head 1 of layer 1 finds a token behind it.

    Head 1 of layer 0 finds a token wherever it occurs; the others attend to all tokens evenly.
    """
    tokenizer = tiny_models.train_bpe()
    sizes = {"n_embd": 256, "n_layer": 2, "n_head": 2, "n_positions": 128}
    config = GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **sizes)
    network = GPT2LMHeadModel(config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "ln_" not in name:
                parameter.zero_()
        network.transformer.wte.weight[:, CONTENT] = torch.randn(len(tokenizer), 64)
        network.transformer.wpe.weight[:, POSITION] = 8 * torch.eye(128)
        first, second = (block.attn for block in network.transformer.h)
        write(first, 0, "q", POSITION, 4 * torch.eye(128).roll(-1, 1))  # position p asks for p - 1
        write(first, 0, "k", POSITION, 4 * torch.eye(128))
        write(first, 0, "v", CONTENT, torch.eye(64, 128))
        first.c_proj.weight[:64, BEFORE] = torch.eye(64)
        for attention, found in ((first, CONTENT), (second, BEFORE)):
            write(attention, 1, "q", CONTENT, 12 * torch.eye(64, 128))
            write(attention, 1, "k", found, 12 * torch.eye(64, 128))
    return LanguageModel.of(network, tokenizer, name="written")


def write(attention, head, part, source, matrix):
    """Write how a head of 128 dimensions reads queries, keys or values from a part of the states."""
    begin = 256 * "qkv".index(part) + 128 * head
    attention.c_attn.weight[source, begin : begin + 128] = matrix


def by_target(maps, attention="self"):
    return {each.target: torch.tensor(each.scores) for each in maps if each.attention == attention}


def test_a_written_induction_head_scores_one_and_no_other_head_does():
    model = write_induction_head()
    maps = score_repetition(model, draw_sequences(model))
    scores = by_target(maps)
    assert (
        scores["induction"][1, 1] > 0.975
    )  # 49 of 50: the very first token has none before it, and stands for its own
    assert scores["previous_token"][0, 0] > 0.99
    assert scores["same_token"][0, 1] == pytest.approx(0.5, abs=0.01)  # the other half is the token itself
    idle = maps[0].uniform  # of 1 / 51 to 1 / 100
    assert idle == pytest.approx(sum(1 / place for place in range(51, 101)) / 50)
    assert scores["induction"][1, 0] == pytest.approx(idle)
    written = {"induction": (1, 1), "previous_token": (0, 0), "same_token": (0, 1)}
    for target, head in written.items():
        scores[target][head] = 0
        assert scores[target].max() < 0.05


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral_sliding", "t5", "bart", "marian"])
def test_scores_are_those_of_the_librarys_own_attention_weights(name):
    model, plain = build(name), build(name)
    sequences = draw_sequences(model)[:2]
    maps = score_repetition(model, sequences)
    plain.network.set_attn_implementation("eager")
    expected = {"encoder": [], "self": []}
    special = model.tokenizer("a")["input_ids"] == model.tokenizer("a", add_special_tokens=False)["input_ids"]
    assert special  # this tokenizer adds nothing
    for once in sequences:
        ids = torch.tensor([[*once, *once]])
        if model.architecture == "decoder-only":
            output = plain.network(input_ids=ids, output_attentions=True)
            expected["self"].append((output.attentions, 0))
            continue
        start = plain.network.config.decoder_start_token_id
        output = plain.network.get_encoder()(input_ids=ids, output_attentions=True)
        expected["encoder"].append((output.attentions, 0))
        ids = torch.tensor([[start, *once, *once]])
        nothing = torch.tensor([[start]])
        output = plain.network(input_ids=nothing, decoder_input_ids=ids, output_attentions=True)
        expected["self"].append((output.decoder_attentions, 1))
    length = len(sequences[0])
    distances = {"induction": 1 - length, "previous_token": -1, "same_token": -length}
    for shown in maps:
        for layer, scores in enumerate(shown.scores):
            for head, score in enumerate(scores):
                found = [
                    float(weights[layer][0, head, place, place + distances[shown.target]])
                    for weights, begin in expected[shown.attention]
                    for place in range(begin + length, begin + 2 * length)
                ]
                assert score == pytest.approx(sum(found) / len(found), abs=1e-9)
    assert {each.attention for each in maps} == {key for key, value in expected.items() if value}


def test_the_sequences_are_of_different_ordinary_tokens_and_always_the_same():
    model = build("llama")
    sequences = draw_sequences(model)
    assert sequences == draw_sequences(build("llama", seed=1))
    assert len({*sequences}) == len(sequences)
    for once in sequences:
        assert len({*once}) == len(once) == 50
        assert not {*once} & {0, 1, 2}
        assert max(once) < 200


@pytest.mark.parametrize("name", ["llama", "mistral_sliding", "t5"])
def test_the_last_token_attends_as_in_one_pass_over_all_tokens(name):
    model, plain = build(name), build(name)
    plain.network.set_attn_implementation("eager")
    ids, encoder_ids = tuple(range(20, 45)), () if model.architecture == "decoder-only" else tuple(range(50, 60))
    inputs = {"input_ids": torch.tensor([ids])}
    if encoder_ids:
        inputs = {"input_ids": torch.tensor([encoder_ids]), "decoder_input_ids": torch.tensor([ids])}
    output = plain.network(**inputs, output_attentions=True)
    whole = {"self": output.decoder_attentions if encoder_ids else output.attentions}
    if encoder_ids:
        whole["cross"] = output.cross_attentions
    for attention, layers in whole.items():
        for found, expected in zip(read_last_token(model, encoder_ids, ids, attention), layers, strict=True):
            torch.testing.assert_close(found, expected[0, :, -1:], atol=1e-6, rtol=0)


def test_a_network_without_attention_weights_is_refused():
    model = build("mamba")
    with pytest.raises(ConfigError, match=r"^heads=true: mamba does not give the attention weights of all its layers;"):
        score_repetition(model, draw_sequences(model))


def test_a_model_without_room_for_a_sequence_is_refused():
    model = build("llama")
    short = LanguageModel(**{**vars(model), "max_length": 3})
    with pytest.raises(ConfigError, match="too few positions or tokens for a sequence that repeats"):
        draw_sequences(short)


@pytest.mark.slow
def test_the_included_models_decoder_looks_up_with_the_heads_that_were_written_and_learned():
    """Where `training/starting_point.py` wrote heads: a previous token, and a pair in the first two layers."""
    model = icl_eval.load_model("icl_t5", device="cpu")
    maps = score_repetition(model, draw_sequences(model))
    decoder, encoder = by_target(maps, "self"), by_target(maps, "encoder")
    assert decoder["previous_token"][0, 1] > 0.9
    assert decoder["induction"][1, 2] > 0.3
    assert decoder["induction"][0].max() < 0.01
    assert encoder["same_token"][1, 3] > 0.4


def test_strongest_heads_are_listed_from_the_top():
    shown = HeadMap("self", "induction", 0.1, ((0.1, 0.5), (0.9, 0.5), (0.2, 0.3)))
    assert describe_strongest(shown) == "L1H0=0.90 L0H1=0.50 L1H1=0.50 L2H1=0.30 L2H0=0.20"


def test_a_figure_has_a_cell_for_each_head():
    drawn = draw_heat_map(HeadMap("self", "induction", 0.1, ((0.1, 0.5), (0.9, 0.5), (0.2, 0.3))))
    assert [(cell.x, cell.y, cell.score) for cell in drawn.cells] == [
        (26, 0, 0.1), (48, 0, 0.5), (26, 22, 0.9), (48, 22, 0.5), (26, 44, 0.2), (48, 44, 0.3)
    ]  # fmt: skip
    assert drawn.cells[2].title == "layer 1, head 0: 0.900"
    assert (drawn.layer_ticks, drawn.head_ticks) == (((11, 0), (33, 1), (55, 2)), ((37, 0), (59, 1)))
    large = draw_heat_map(HeadMap("self", "induction", 0.1, ((0.5,) * 16,) * 30))
    assert [number for _, number in large.layer_ticks] == [0, 4, 8, 12, 16, 20, 24, 28]
    assert [number for _, number in large.head_ticks] == [0, 2, 4, 6, 8, 10, 12, 14]


@pytest.fixture
def trace_heads(icl_eval_command, tmp_path):
    """Call `icl-eval trace heads=true` and return what trace.json holds and what the terminal was shown."""

    def call(*arguments):
        outcome = icl_eval_command("trace", "heads=true", "device=cpu", "hydra.run.dir=run", *arguments)
        assert (outcome.exit_code, outcome.err) == (0, "")
        return json.loads((tmp_path / "run" / "trace.json").read_text(encoding="utf-8")), outcome.out

    return call


@pytest.fixture
def chatty(tmp_path):
    return tiny_models.save_gpt2(tmp_path / "chatty", chat_template=tiny_models.CHAT_TEMPLATE)


QUESTION = ("task=qa", "max_new_tokens=1", "demonstrations=fixed", "num_fewshot=2")
TWO = "demonstrations.ids=[qa-pool-001,qa-pool-002]"


@pytest.mark.parametrize(
    ("architecture", "options", "attention"),
    [
        ("gpt2", (), "self"),
        pytest.param("gpt2", ("template=plain",), "self", marks=pytest.mark.slow),
        pytest.param("gpt2", ("template=varied", "template.variant=2"), "self", marks=pytest.mark.slow),
        pytest.param("chatty", ("template=chat",), "self", marks=pytest.mark.slow),
        ("t5", (), "cross"),
        pytest.param("t5", ("placement=split",), "self", marks=pytest.mark.slow),
        pytest.param("t5", ("template=flan_t5_encoder",), "cross", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_attention_to_answers_is_the_sum_over_their_tokens(architecture, options, attention, trace_heads, request):
    folder = request.getfixturevalue(architecture)
    traced, shown = trace_heads(f"model.source={folder}", *QUESTION, TWO, *options)
    network = icl_eval.load_model(str(folder), device="cpu").network
    sides = {name: traced[name]["tokens"] if traced[name] else [] for name in ("encoder", "decoder")}
    encoder, decoder = ([each["token"]["id"] for each in tokens] for tokens in sides.values())
    inputs = {"input_ids": torch.tensor([decoder])}
    if encoder:
        inputs = {"input_ids": torch.tensor([encoder]), "decoder_input_ids": torch.tensor([decoder])}
    network.set_attn_implementation("eager")
    with torch.inference_mode():
        output = network(**inputs, output_attentions=True)
    weights = {
        "self": output.decoder_attentions if encoder else output.attentions,
        "cross": output.get("cross_attentions"),
    }[attention]

    tokens = sides["encoder" if attention == "cross" else "decoder"]
    answers = traced["heads"]["answers"]
    assert [each["demonstration_id"] for each in answers] == ["qa-pool-001", "qa-pool-002"]
    for each in answers:
        members = tokens[each["first"] : each["last"] + 1]
        text = "".join(member["token"]["text"] for member in members)
        assert text.replace(" ", "") == each["answer"].replace(" ", "")
        assert not each["right"]
    places = [place for each in answers for place in range(each["first"], each["last"] + 1)]
    (found,) = [each for each in traced["heads"]["maps"] if each["target"] == "answers"]
    assert found["attention"] == attention
    assert found["uniform"] == pytest.approx(len(places) / len(tokens))
    for layer, scores in enumerate(found["scores"]):
        assert scores == pytest.approx(weights[layer][0, :, -1, places].sum(-1).tolist(), abs=1e-5)
    assert "the demonstrations' answers" in shown


def test_right_answers_are_told_apart_and_every_number_is_on_the_page(trace_heads, gpt2, tmp_path):
    rows = [("sky?", "blue"), ("sun?", "red"), ("sea?", "blue")]
    for name, part in (("pool", rows[1:]), ("test", rows[:1])):
        lines = [json.dumps({"id": f"{name}{n}", "question": q, "references": [a]}) for n, (q, a) in enumerate(part)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    paths = [f"task.qa.{name}.path={tmp_path}/{name}.jsonl" for name in ("pool", "test")]
    traced, _ = trace_heads(f"model.source={gpt2}", "task=qa", "max_new_tokens=1", "num_fewshot=2", *paths)
    answers = traced["heads"]["answers"]
    assert sorted((each["answer"], each["right"]) for each in answers) == [("blue", True), ("red", False)]
    maps = {each["target"]: each for each in traced["heads"]["maps"]}
    assert list(maps) == ["induction", "previous_token", "same_token", "answers", "right_answers"]
    (right,) = [each for each in answers if each["right"]]
    share = (right["last"] - right["first"] + 1) / len(traced["decoder"]["tokens"])
    assert maps["right_answers"]["uniform"] == pytest.approx(share)
    for whole, part in zip(maps["answers"]["scores"], maps["right_answers"]["scores"], strict=True):
        assert all(0 < one < both for both, one in zip(whole, part, strict=True))

    page = assert_self_contained((tmp_path / "run" / "trace.html").read_text(encoding="utf-8"))
    titles = [text for (tag, _), text in zip(page.elements, page.texts, strict=True) if tag == "title"][1:]
    assert titles == [
        f"layer {layer}, head {head}: {score:.3f}"
        for each in traced["heads"]["maps"]
        for layer, scores in enumerate(each["scores"])
        for head, score in enumerate(scores)
    ]


def test_without_demonstrations_there_are_no_answers_to_attend_to(trace_heads, gpt2):
    traced, _ = trace_heads(f"model.source={gpt2}", "task=qa", "num_fewshot=0", "max_new_tokens=1")
    assert traced["heads"]["answers"] == []
    assert [each["target"] for each in traced["heads"]["maps"]] == ["induction", "previous_token", "same_token"]
