import json
import re
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoTokenizer

from icl_eval.config.composing import ComposedConfig
from icl_eval.config.evaluations import build_evaluation
from icl_eval.prompts.building import EncoderPlacement, Prompt, SplitPlacement
from icl_eval.prompts.tokenization import encode_prompt

ROOT = Path(__file__).parent.parent
FAMILIES = ("lexicon", "rearrange", "labels", "numbers")
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def training(monkeypatch):
    """Make the package `training` importable; it is not installed."""
    monkeypatch.syspath_prepend(str(ROOT))


def test_the_shipped_episodes_are_what_the_script_draws(tmp_path):
    from training.__main__ import main

    main(["write-tasks", "--output", str(tmp_path)])

    for family in FAMILIES:
        for split in ("pool", "test"):
            shipped = ROOT / "data" / "induction" / family / f"{split}.jsonl"
            assert (tmp_path / family / f"{split}.jsonl").read_bytes() == shipped.read_bytes()


def held_out_things(family, rule, pairs):
    """The parts of an episode that can be held out: its rearrangement, its sums or its words."""
    if family == "rearrange":
        return [str(rule)]
    if family == "numbers":
        return [f"{pair.question}{int(pair.answer) - int(pair.question):+}" for pair in pairs]
    return [word for pair in pairs for word in (*pair.question.split(), *pair.answer.split())]


@every_family
def test_training_never_draws_what_is_held_out(family):
    from training.episodes import draw_pairs
    from training.families import FAMILIES as KINDS
    from training.families import MAX_LEVEL
    from training.holding_out import is_held_out

    rng, seen = Random(5), set()
    for level in (1, MAX_LEVEL):
        for _ in range(150):
            rule = KINDS[family].draw_rule(rng, level)
            seen.update(held_out_things(family, rule, draw_pairs(rng, rule, 6)))
    assert len(seen) > 25
    assert not [thing for thing in seen if is_held_out(thing)]


@every_family
def test_the_tasks_ask_what_is_held_out_and_any_eight_demonstrations_show_all_that_is_needed(family):
    from training.families import Pair
    from training.holding_out import is_held_out

    pool, test = (
        [json.loads(line) for line in (ROOT / "data" / "induction" / family / f"{split}.jsonl").open(encoding="utf-8")]
        for split in ("pool", "test")
    )
    assert len(test) == 96
    for row in test:
        own = [shown for shown in pool if shown["rule"] == row["rule"]]
        assert len({shown["question"] for shown in own} - {row["question"]}) == len(own) == 12
        asked = Pair(row["question"], row["references"][0])
        if family != "rearrange":
            assert all(map(is_held_out, held_out_things(family, None, [asked])))
        if family in ("lexicon", "labels"):
            for word in asked.answer.split():
                assert sum(word not in shown["references"][0].split() for shown in own) < 8


@pytest.mark.parametrize("template", ["labelled", "plain"])
def test_training_reads_what_the_harness_asks(compose, template):
    from training.batches import PLACEMENTS
    from training.episodes import Episode
    from training.families import Pair
    from training.tokenizers import build_tokenizer
    from training.wordings import load_wordings

    def pair(example):
        return Pair(example.inputs["question"], example.references[0])

    tokenizer, wordings = build_tokenizer(), load_wordings(template)
    tasks = ",".join(f"induction_{family}" for family in FAMILIES)
    built = build_evaluation(ComposedConfig(compose(f"task=[{tasks}]", f"template={template}")))
    for family, plan in zip(FAMILIES, built.plans, strict=True):
        example = plan.examples[3]
        shown = [demonstration.example for demonstration in plan.select(example)]
        episode = Episode(family, tuple(map(pair, shown)), (pair(example),))
        blocks = plan.template.render(plan.task, shown, example)
        for placement in (EncoderPlacement(), SplitPlacement()):
            prompt = encode_prompt(tokenizer, Prompt(example.id, *placement.place(blocks)))
            trained = PLACEMENTS[placement.name](episode, wordings[family], dense=False)
            start = [0, *prompt.decoder_ids]
            assert trained.encoder.ids == list(prompt.encoder_ids)
            assert trained.decoder.ids[: len(start)] == start
            answer = trained.targets[len(start) - 1 :]
            text = tokenizer.decode([token for token in answer if token >= 0], skip_special_tokens=True)
            assert text.strip() == example.references[0]


def test_the_tokenizer_that_is_saved_cuts_as_training_does_and_gives_any_text_back(tmp_path):
    from training.models import build_model, save_model
    from training.tokenizers import encode

    save_model(build_model(0), tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for text in (
        "Translate the words.\n\nInput: dobu kale\nOutput: mepi",
        "bkfd\n",
        " 27 Input: 4\nbabe baba",
        "",
        "Hm, {x}!",
    ):
        assert saved(text)["input_ids"] == [*encode(text), saved.eos_token_id]
        assert saved.decode(encode(text)) == text


def test_training_is_the_same_again_for_the_same_seed_and_another_for_another():
    from training.learning import Schedule, train
    from training.models import build_model

    def trained(seed):
        said = []
        model = build_model(seed)
        train(model, Schedule(steps=2, rows=3, num_questions=2, warmup=1, checked=2), seed, said.append)
        assert len(said) == 1
        assert re.match(r"step 2  loss \d+\.\d+  encoder  lexicon@0 .*  split  lexicon@0 ", said[0])
        return model.state_dict()

    first, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_training_leaves_the_embeddings_of_words_alone_so_that_unseen_words_are_as_good():
    from training.families import WORDS
    from training.learning import Schedule, train
    from training.models import build_model
    from training.tokenizers import VOCABULARY

    model = build_model(0)
    before = model.shared.weight.detach().clone()
    train(model, Schedule(steps=2, rows=3, num_questions=2, warmup=1, checked=2), 0, lambda line: None)
    learned = (model.shared.weight != before).any(1)
    assert not learned[[VOCABULARY[f"{space}{word}"] for word in WORDS for space in ("", " ")]].any()
    assert learned[[VOCABULARY[token] for token in ("\nOutput:", "Translate", " 1")]].all()


def test_an_answer_sees_its_own_question_alone():
    from training.batches import build_batch, encoder_sequences
    from training.episodes import Episode
    from training.families import Pair
    from training.forward import logits_of
    from training.models import build_model
    from training.wordings import load_wordings

    wording = load_wordings("labelled")["lexicon"]
    shown = (Pair("dobu", "mepi"), Pair("bifo", "potu"))
    first, second = (
        build_batch([encoder_sequences(Episode("lexicon", shown, (Pair("dobu", "mepi"), asked)), wording, dense=True)])
        for asked in (Pair("bifo", "potu"), Pair("bifo", "kale"))
    )
    with torch.no_grad():
        model = build_model(0)
        difference = (logits_of(model, first) - logits_of(model, second)).abs().amax(-1)
    # The first answer and what ends it, the second answer, which differs, and what ends that.
    assert (difference > 0).tolist() == [False, False, False, True]
