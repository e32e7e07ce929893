import json
import re
import xml.etree.ElementTree as ET

import pytest
import tiny_models
import torch
import translators

from icl_eval.commands.tour.plotting import plot_costs
from icl_eval.commands.tour.ways import (
    TourSubject,
    generate_at_once,
    generate_by_hand,
    generate_in_stream,
    generate_one_by_one,
)
from icl_eval.models.cards import read_card
from icl_eval.models.loading import load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.prompts.conventions import RequestedConventions, find_conventions

WAYS = ("all at once", "one by one", "by hand", "stream")
TEXT = "Question: is the sky blue?"


@pytest.fixture
def tour(icl_eval_command, tmp_path):
    """Take a tour into a folder and return what it said and what it left."""

    def tour(name, *overrides):
        outcome = icl_eval_command("tour", *overrides, f"hydra.run.dir={name}")
        assert (outcome.exit_code, outcome.err) == (0, "")
        return outcome.out, json.loads((tmp_path / name / "tour.json").read_text(encoding="utf-8"))

    return tour


def subject(folder, max_new_tokens=10, stop=(), asked=(), text=TEXT):
    spec = ModelSpec(str(folder))
    return TourSubject(
        load_model(spec), find_conventions(read_card(spec), RequestedConventions(*asked)), text, max_new_tokens, stop
    )


def generate(subject):
    """The library's own greedy search."""
    model, prompt = subject.model, subject.encode()
    if prompt.encoder_ids:
        ids, context = torch.tensor([prompt.encoder_ids]), 1
    else:
        ids, context = torch.tensor([prompt.decoder_ids]), len(prompt.decoder_ids)
    told = subject.conventions.settings
    made = model.network.generate(ids, do_sample=False, max_new_tokens=subject.max_new_tokens, **told)
    return tuple(made[0, context:].tolist())


@pytest.mark.parametrize("name", ["gpt2", "t5", "bart", "m2m_100", "marian"])
def test_every_way_chooses_the_tokens_of_generate_and_is_fed_what_it_says(name, request, tmp_path):
    folder = request.getfixturevalue(name) if name in ("gpt2", "t5") else getattr(translators, f"save_{name}")(tmp_path)
    asked = {"m2m_100": (None, "en", "fr"), "marian": (None, None, "deu")}.get(name, ())
    seen = subject(folder, asked=asked)
    expected, prompt = generate(seen), seen.encode()
    begin = len(prompt.decoder_ids) + bool(prompt.encoder_ids)
    once = len(prompt.encoder_ids) + begin

    for go in (generate_at_once, generate_by_hand, generate_in_stream):
        way = go(seen)
        assert way.token_ids == expected
        assert [mark.fed for mark in way.marks] == list(range(once, once + len(expected)))
        assert all(one.seconds < two.seconds for one, two in zip(way.marks, way.marks[1:], strict=False))
    assert len({go(seen).text for go in (generate_at_once, generate_by_hand, generate_in_stream)}) == 1

    way = generate_one_by_one(seen)
    if not way.remark:
        assert way.token_ids == expected
        each = [once + number for number in range(len(expected))]
        assert [mark.fed for mark in way.marks] == [sum(each[: number + 1]) for number in range(len(each))]


def test_where_text_tokenised_again_has_other_tokens_the_tour_says_where(gpt2):
    tokenizer = read_card(ModelSpec(str(gpt2))).tokenizer
    seen = subject(gpt2)
    chosen = []
    append = TourSubject.append

    def choose(subject, row, token_id):
        """Let the model say "an" in two tokens, which the tokenizer would have written as one."""
        forced = tokenizer.convert_tokens_to_ids(["a", "n"])
        chosen.append(token_id if len(chosen) >= 2 else forced[len(chosen)])
        append(subject, row, chosen[-1])

    assert len(tokenizer("an")["input_ids"]) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TourSubject, "append", choose)
        patch.setattr(
            "icl_eval.commands.tour.ways._decode_piece", lambda subject, ids, token_id: tokenizer.decode(chosen[-1])
        )
        way = generate_one_by_one(seen)
    assert way.remark == "tokenising the text again after token 2 changes its tokens: 'a' | 'n' to 'an'"


def test_one_by_one_a_forced_first_token_comes_once(tmp_path):
    folder = translators.save_bart(tmp_path)
    for text in ("The answer is", "Hello World!"):
        seen = subject(folder, text=text)
        way = generate_one_by_one(seen)
        assert (way.token_ids, way.remark) == (generate(seen), "")
        assert way.token_ids.count(0) == 1


def test_one_by_one_a_text_that_outgrows_the_positions_ends_there(gpt2, monkeypatch):
    monkeypatch.setattr("icl_eval.commands.tour.ways._decode_piece", lambda subject, ids, token_id: " a b c")
    seen = subject(gpt2, text=" a" * 100, max_new_tokens=25)
    grows = [len(seen.conventions.encode_text("p", seen.text + " a b c" * times).decoder_ids) for times in range(25)]
    expected = sum(length < 256 for length in grows)
    assert 1 < expected < 25

    way = generate_one_by_one(seen)
    assert len(way.token_ids) == len(way.marks) == expected
    assert way.text == seen.model.tokenizer.decode(way.token_ids)
    assert way.remark.endswith(f"; after token {expected} they exceed the model's context, which ends the text")


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_stop_string_ends_every_way_at_the_same_place(name, request):
    folder = request.getfixturevalue(name)
    whole = generate_in_stream(subject(folder)).text
    stop = whole[3:5]
    seen = subject(folder, stop=(stop,))
    for go in (generate_at_once, generate_by_hand, generate_in_stream):
        assert go(seen).text == whole[: whole.index(stop)]
    assert generate_at_once(seen).remark.startswith("generate ignores stop strings and continued for ")


def test_a_tour_shows_draws_stages_ways_and_costs_and_leaves_them_in_its_folder(tour, gpt2, tmp_path):
    options = (f"model.source={gpt2}", f"prompt='{TEXT}'", "max_new_tokens=6", "decoding.top_k=40", "decoding.seed=3")
    out, left = tour("a", *options)

    assert [way["name"] for way in left["ways"]] == list(WAYS)
    assert left["same_text"] == (len({way["text"] for way in left["ways"]}) == 1)
    assert left["sampling"] == {"temperature": 1.0, "top_k": 40, "top_p": None, "seed": 3}
    assert len({tuple(draw["token_ids"]) for draw in left["continuations"]}) == 3
    ids = " ".join(map(str, left["input"]["decoder"]["ids"]))
    assert f"to the decoder  {ids}\n" in out
    assert f"generated       {' '.join(map(str, left['ways'][0]['token_ids']))}\n" in out
    for way in left["ways"]:
        assert re.search(
            rf"│ {way['name']} +│ +{way['seconds']:.3f} │ +{way['tokens_per_second']:.1f} │ +"
            rf"{way['tokens_fed']} │",
            out,
        )
    assert out.endswith("tour: a/tour.json\ncost: a/cost.svg\n")
    assert ET.parse(tmp_path / "a" / "cost.svg").getroot().tag.endswith("svg")

    _, again = tour("b", *options)
    assert again["continuations"] == left["continuations"]
    assert [way["token_ids"] for way in again["ways"]] == [way["token_ids"] for way in left["ways"]]


def test_a_tour_of_an_encoder_decoder_model_takes_its_task_prefix_and_runs_the_encoder_once(tour, tmp_path):
    folder = translators.save_prefixed_t5(tmp_path / "t5")
    options = (f"model.source={folder}", "max_new_tokens=5", "num_return_sequences=1", f"prompt='{TEXT}'")
    out, left = tour("run", *options, "task_prefix=translation_en_to_fr")
    assert left["conventions"] == {
        "task_prefix": "translation_en_to_fr",
        "opening": "translate English to French: ",
    }
    assert f"  prompt          translate English to French: {TEXT}\n" in out
    fed = {way["name"]: way["tokens_fed"] for way in left["ways"]}
    assert fed["by hand"] == fed["stream"] == len(left["input"]["encoder"]["ids"]) + 5
    assert fed["one by one"] > 4 * len(left["input"]["encoder"]["ids"])


def test_tokens_that_only_the_network_has_are_shown_without_a_name(tour, tmp_path):
    import transformers

    folder = tiny_models.save_t5(tmp_path / "t5")
    network = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    network.resize_token_embeddings(size + 8, mean_resizing=False)
    network.generation_config.suppress_tokens = list(range(size))
    network.save_pretrained(folder)
    out, left = tour("run", f"model.source={folder}", "max_new_tokens=2", "num_return_sequences=0", "prompt=yes")
    ids = left["ways"][0]["token_ids"]
    assert all(token_id >= size for token_id in ids)
    assert f"generated       {' '.join(map(str, ids))}\n{' | ':>21}\n" in out


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("prompt='The house is small.'", "input"),
        ("num_return_sequences=0", "continuations"),
        ("decoding.temperature=0.2", "continuations"),
        ("decoding.top_k=1", "continuations"),
        ("decoding.top_p=0.01", "continuations"),
        ("decoding.seed=1", "continuations"),
        ("decoding.stop=[e,a,o]", "stop"),
        ("max_new_tokens=2", "continuations"),
    ],
)
def test_law_9_every_key_of_a_tour_changes_something(change, part, tour, gpt2):
    options = (f"model.source={gpt2}", "max_new_tokens=4", f"prompt='{TEXT}'", "num_return_sequences=2")
    assert tour("before", *options)[1][part] != tour("after", *options, change)[1][part]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "decoding=greedy",
            "decoding=greedy: the tour always decodes greedily and also samples continuations; use sample",
        ),
        ("num_return_sequences=-1", "num_return_sequences=-1: must be from 0 to 100"),
        (
            "max_new_tokens=255",
            "a prompt of 2 tokens plus 255 new tokens is 1 too long for the model's 256 positions; shorten "
            "it or lower max_new_tokens",
        ),
    ],
)
def test_a_mistake_in_a_tour_is_one_line(override, sentence, icl_eval_command, gpt2):
    outcome = icl_eval_command("tour", f"model.source={gpt2}", "prompt=is yes", override)
    assert (outcome.exit_code, outcome.out) == (2, "")
    assert re.sub(r"a prompt of \d+ tokens(.*) is \d+ too", r"a prompt of 2 tokens\1 is 1 too", outcome.err) == (
        f"icl-eval: {sentence}\n"
    )


def test_the_same_ways_are_plotted_as_the_same_bytes(gpt2, tmp_path):
    ways = [generate_by_hand(subject(gpt2, 4)), generate_in_stream(subject(gpt2, 4))]
    for name in ("one.svg", "two.svg"):
        plot_costs(ways, tmp_path / name)
    first = (tmp_path / "one.svg").read_bytes()
    assert first == (tmp_path / "two.svg").read_bytes()
    for label in (b"by hand", b"stream", b"new tokens", b"seconds", b"tokens fed to the network"):
        assert label in first
