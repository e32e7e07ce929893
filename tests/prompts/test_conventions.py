import json

import pytest
import torch
import translators

from icl_eval.errors import ConfigError
from icl_eval.formatting import escape_controls
from icl_eval.models.cards import read_card
from icl_eval.models.loading import load_model
from icl_eval.models.specs import ModelSpec
from icl_eval.prompts.building import Prompt
from icl_eval.prompts.conventions import RequestedConventions, find_conventions

FAMILIES = ("prefixed_t5", "bart", "mbart", "m2m_100", "marian")
OVERRIDES = {
    "prefixed_t5": ["task_prefix=translation_en_to_fr"],
    "bart": [],
    "mbart": ["model.source_language=de_DE", "model.target_language=fr_XX"],
    "m2m_100": ["model.source_language=de", "model.target_language=fr"],
    "marian": ["model.target_language=fra"],
}
OPENINGS = {"prefixed_t5": "translate English to French: ", "marian": ">>fra<< "}
TEXTS = ("Hello World! How's it going?", "What's your name?")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of tiny models of all families."""
    root = tmp_path_factory.mktemp("translators")
    return {name: getattr(translators, f"save_{name}")(root / name) for name in FAMILIES}


def by_hand(name, folder):
    """Return the model, its tokenizer told the languages, and what generate is told, all as the library's users do."""
    model = load_model(ModelSpec(str(folder)))
    tokenizer = read_card(ModelSpec(str(folder))).tokenizer
    if name == "mbart":
        tokenizer.src_lang, tokenizer.tgt_lang = "de_DE", "fr_XX"
        return model, tokenizer, {"forced_bos_token_id": tokenizer.lang_code_to_id["fr_XX"]}
    if name == "m2m_100":
        tokenizer.src_lang, tokenizer.tgt_lang = "de", "fr"
        return model, tokenizer, {"forced_bos_token_id": tokenizer.get_lang_id("fr")}
    return model, tokenizer, {}


def generate(name, folder, encoder, decoder=None, **options):
    """Return what the library generates after two texts, as text and as ids."""
    model, tokenizer, told = by_hand(name, folder)
    inputs = tokenizer(encoder, return_tensors="pt")
    context = 1
    if decoder is not None:
        first = told.get("forced_bos_token_id", model.network.generation_config.forced_bos_token_id)
        ids = tokenizer(text_target=decoder, add_special_tokens=False)["input_ids"]
        ids = [model.network.generation_config.decoder_start_token_id, *[first] * (first is not None), *ids]
        inputs["decoder_input_ids"] = torch.tensor([ids])
        context = len(ids)
    ids = model.network.generate(**inputs, **{"do_sample": False, "num_beams": 1} | told | options)[0, context:]
    return tokenizer.decode(ids, skip_special_tokens=True), ids.tolist()


@pytest.mark.parametrize(("name", "languages"), [("mbart", ("de_DE", "fr_XX")), ("m2m_100", ("de", "fr"))])
def test_languages_are_set_for_one_run_alone(name, languages, folders):
    card = read_card(ModelSpec(str(folders[name])))
    plain = card.tokenizer(TEXTS[0])["input_ids"]
    conventions = find_conventions(card, RequestedConventions(None, *languages))
    assert conventions.card.tokenizer(TEXTS[0])["input_ids"] != plain
    assert card.tokenizer(TEXTS[0])["input_ids"] == plain
    assert card.tokenizer.src_lang != languages[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stream_of_sentences_is_what_the_library_generates_with_the_same_settings(name, folders, icl_eval_command):
    expected = [generate(name, folders[name], OPENINGS.get(name, "") + text, max_new_tokens=8)[0] for text in TEXTS]

    prompt = f"prompt={json.dumps(TEXTS)}"
    outcome = icl_eval_command("stream", f"model.source={folders[name]}", *OVERRIDES[name], prompt, "max_new_tokens=8")

    assert outcome.exit_code == 0
    assert [line.strip() for line in outcome.out.splitlines()] == [escape_controls(text).strip() for text in expected]
    assert len(set(expected)) == 2
    shown = [line for line in outcome.err.splitlines() if line.startswith("prompt ")]
    assert shown == [f"prompt {number}: {text}" for number, text in enumerate(TEXTS, start=1)]


@pytest.mark.parametrize("placement", ["encoder", "split"])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_evaluation_gives_what_the_library_generates_in_either_placement(
    name, placement, folders, icl_eval_command, tmp_path
):
    quick = ("task=translation_en_fr", "limit=2", "num_fewshot=1", "max_new_tokens=6", "hydra.run.dir=run")
    outcome = icl_eval_command(
        f"model.source={folders[name]}",
        *OVERRIDES[name],
        *quick,
        f"placement={placement}",
        'template.instruction="Translate."',
        "task.translation_en_fr.stop=[]",
    )

    assert (outcome.exit_code, outcome.err) == (0, "")
    records = [json.loads(line) for line in (tmp_path / "run" / "samples_translation_en_fr.jsonl").open()]
    for record in records:
        text, ids = generate(name, folders[name], record["encoder"], record["decoder"], max_new_tokens=6)
        assert record["encoder"].startswith(OPENINGS.get(name, "") + "Translate.")
        assert (record["completion"].strip(), record["completion_tokens"]) == (text.strip(), len(ids))
    told = json.loads((tmp_path / "run" / "report.json").read_text())["run"]["conventions"]
    named = {key.removeprefix("model."): value for key, value in (text.split("=") for text in OVERRIDES[name])}
    assert told == named | ({"opening": OPENINGS[name]} if name in OPENINGS else {})


def conventions(folder, *asked):
    return find_conventions(read_card(ModelSpec(str(folder))), RequestedConventions(*asked))


def test_the_first_token_stands_before_text_that_the_decoder_goes_on_from(folders):
    languages = {"bart": (), "mbart": ("de_DE", "fr_XX"), "m2m_100": ("de", "fr"), "marian": (None, "fra")}
    for name, first in {"bart": "<s>", "mbart": "fr_XX", "m2m_100": "__fr__", "marian": None}.items():
        found = conventions(folders[name], None, *languages[name])
        [alone] = found.encode([Prompt("q", "The house", None)])
        [with_text] = found.encode([Prompt("q", "The house", "La maison")])
        assert alone.decoder_ids == ()
        tokens = found.card.tokenizer.convert_ids_to_tokens(list(with_text.decoder_ids))
        assert (tokens[0] == first) == (first is not None)
        assert found.card.tokenizer.eos_token not in tokens


def test_a_decoder_only_model_reads_a_prefix_in_its_own_prompt(gpt2, tmp_path):
    import shutil

    shutil.copytree(gpt2, tmp_path / "model")
    config = json.loads((gpt2 / "config.json").read_text())
    params = {"tl;dr": {"prefix": "Sum up: "}, "text-generation": {"do_sample": True}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"task_specific_params": params}))
    encoded = conventions(tmp_path / "model", "tl;dr").encode_text("q", "a b")
    assert (encoded.prompt.encoder, encoded.prompt.decoder) == (None, "Sum up: a b")


@pytest.mark.parametrize(
    ("name", "asked", "sentence"),
    [
        (
            "prefixed_t5",
            ("translation", None, None),
            "task_prefix=translation: unknown to prefixed_t5 (it has: summarization, translation_en_to_fr)",
        ),
        ("bart", ("summarization", None, None), "task_prefix=summarization: unknown to bart (it has: none)"),
        (
            "marian",
            (None, None, "fr"),
            "model.target_language=fr: unknown to marian (it has: deu, fra)",
        ),
        (
            "marian",
            (None, "eng", "fra"),
            "model.source_language=eng: the tokenizer of marian does not mark the language of its input",
        ),
        ("bart", (None, None, "fra"), "model.target_language=fra: unknown to bart (it has: none)"),
    ],
)
def test_what_a_model_does_not_have_is_one_sentence_with_what_it_has(name, asked, sentence, folders):
    with pytest.raises(ConfigError) as error:
        conventions(folders[name], *asked)
    assert str(error.value) == sentence


@pytest.mark.parametrize("name", ["mbart", "m2m_100"])
def test_an_unknown_language_is_one_sentence_with_those_that_are_known(name, folders):
    with pytest.raises(ConfigError) as error:
        conventions(folders[name], None, None, "xx")
    known = {"mbart": "ar_AR, cs_CZ, de_DE, en_XX", "m2m_100": "af, am, ar"}[name]
    assert str(error.value).startswith(f"model.target_language=xx: unknown to {name} (it has: {known}, ")


@pytest.mark.parametrize(
    ("name", "codes"),
    [("mbart", "ar_AR, cs_CZ, de_DE and 22 more"), ("m2m_100", "af, am, ar and 97 more"), ("marian", "deu, fra")],
)
@pytest.mark.parametrize("command", ["evaluate", "stream"])
def test_a_translator_that_is_not_told_what_to_write_is_refused(command, name, codes, folders, icl_eval_command):
    asked = ["prompt=a"] if command == "stream" else ["task=translation_en_fr", "limit=1", "likelihood=references"]
    outcome = icl_eval_command(command, f"model.source={folders[name]}", *asked)
    sentence = (
        f"icl-eval: model.target_language: {name} translates into several languages; choose one with "
        f"model.target_language=… ({codes})\n"
    )
    assert (outcome.exit_code, outcome.err) == (2, sentence)


def test_a_translator_whose_files_or_prompt_name_the_language_needs_no_other(folders, tmp_path):
    import shutil

    assert conventions(folders["marian"]).encode_text("q", ">>fra<< a").prompt.encoder == ">>fra<< a"
    folder = shutil.copytree(folders["mbart"], tmp_path / "model")
    config = json.loads((folder / "generation_config.json").read_text())
    french = read_card(ModelSpec(str(folder))).tokenizer.convert_tokens_to_ids("fr_XX")
    (folder / "generation_config.json").write_text(json.dumps(config | {"forced_bos_token_id": french}))
    assert conventions(folder).first_id == french


def test_a_conversation_does_not_begin_with_a_prefix(folders, icl_eval_command):
    outcome = icl_eval_command(
        f"model.source={folders['prefixed_t5']}", "task=qa", "task_prefix=summarization", "template=chat"
    )
    sentence = "template=chat: a conversation cannot begin with 'summarize: '"
    assert (outcome.exit_code, outcome.err) == (2, f"icl-eval: {sentence}\n")


def test_preview_shows_the_prefix_and_the_first_token_of_the_answer(folders, icl_eval_command):
    quick = ("preview", "task=qa", "limit=1", "num_fewshot=0")
    shown = icl_eval_command(*quick, f"model.source={folders['prefixed_t5']}", "task_prefix=summarization")
    assert "│ summarize: Answer the question" in shown.out
    shown = icl_eval_command(*quick, f"model.source={folders['mbart']}", *OVERRIDES["mbart"])
    assert "conventions: source_language de_DE, target_language fr_XX; every answer begins with fr_XX\n" in shown.out


@pytest.mark.parametrize("placement", ["encoder", "split"])
def test_stops_and_limits_of_an_encoder_decoder_run_are_about_what_is_generated_alone(
    placement, folders, icl_eval_command, tmp_path
):
    """Stop strings stand in both prompts, which are many times longer than the completion may be."""
    quick = ("task=qa", "limit=3", "num_fewshot=2", f"placement={placement}", "max_new_tokens=5")
    model = f"model.source={folders['prefixed_t5']}"
    runs = {}
    for name, stop in {"none": "[]", "prompts": "['Question:','Answer','the']"}.items():
        assert icl_eval_command(model, *quick, f"decoding.stop={stop}", f"hydra.run.dir={name}").exit_code == 0
        runs[name] = [json.loads(line) for line in (tmp_path / name / "samples_qa.jsonl").open()]
    for free, stopped in zip(runs["none"], runs["prompts"], strict=True):
        assert free == stopped
        text = (free["encoder"] or "") + (free["decoder"] or "")
        assert "Question:" in text
        assert free["prompt_tokens"] > 40
        assert (free["completion_tokens"], free["finish_reason"]) == (5, "length")


@pytest.mark.parametrize("name", ["prefixed_t5", "mbart", "m2m_100", "marian"])
def test_a_trace_follows_what_a_stream_shows(name, folders, icl_eval_command, tmp_path):
    model = (f"model.source={folders[name]}", *OVERRIDES[name], f'prompt="{TEXTS[0]}"', "max_new_tokens=6")
    streamed = icl_eval_command("stream", *model)
    assert icl_eval_command("trace", *model, "hydra.run.dir=run").exit_code == 0
    trace = json.loads((tmp_path / "run" / "trace.json").read_text(encoding="utf-8"))
    assert trace["completion"] + "\n" == streamed.out
    assert trace["written"] == {"prompt": TEXTS[0]}
    assert trace["encoder"]["text"] == OPENINGS.get(name, "") + TEXTS[0]


def test_a_trace_finds_an_answer_as_likely_as_the_network_does_after_the_language(folders, icl_eval_command, tmp_path):
    model, tokenizer, told = by_hand("m2m_100", folders["m2m_100"])
    asked = (f"model.source={folders['m2m_100']}", *OVERRIDES["m2m_100"], "task=qa", "num_fewshot=1")
    assert icl_eval_command("trace", *asked, "max_new_tokens=2", "hydra.run.dir=run").exit_code == 0
    trace = json.loads((tmp_path / "run" / "trace.json").read_text(encoding="utf-8"))

    answer = tokenizer(text_target=trace["reference"], add_special_tokens=False)["input_ids"]
    context = [model.network.generation_config.decoder_start_token_id, told["forced_bos_token_id"]]
    encoder_ids = tokenizer(trace["encoder"]["text"], return_tensors="pt")["input_ids"]
    logits = model.network(encoder_ids, decoder_input_ids=torch.tensor([context + answer])).logits[0, 1:-1]
    expected = logits.log_softmax(-1)[range(len(answer)), answer].sum()
    assert trace["reference_log_likelihood"] == pytest.approx(float(expected), abs=1e-3)
    assert len(trace["influences"]) == 1


def test_a_trace_shows_the_first_token_before_text_in_the_decoder_as_added(folders, icl_eval_command, tmp_path):
    asked = (f"model.source={folders['bart']}", "task=qa", "num_fewshot=1", "placement=split", "max_new_tokens=1")
    assert icl_eval_command("trace", *asked, "hydra.run.dir=run").exit_code == 0
    trace = json.loads((tmp_path / "run" / "trace.json").read_text(encoding="utf-8"))
    tokens = trace["decoder"]["tokens"]
    assert [each["token"]["piece"] for each in tokens if each["added"]] == ["</s>", "<s>"]
    assert [each["added"] for each in tokens[:3]] == [True, True, False]


@pytest.mark.slow
def test_trace_and_tour_show_the_encoders_tokens_of_a_vocabulary_for_each_side(icl_eval_command, tmp_path):
    folder = translators.save_marian(tmp_path / "model", separate_vocabularies=True)
    asked = (f"model.source={folder}", "model.target_language=fra", "prompt='The house'", "max_new_tokens=2")
    asked += ("hydra.run.dir=run",)
    tokenizer = read_card(ModelSpec(str(folder))).tokenizer
    expected = [">>fra<<", *tokenizer.tokenize("The house"), "</s>"]
    for command in ("trace", "tour"):
        assert icl_eval_command(command, *asked).exit_code == 0
    trace = json.loads((tmp_path / "run" / "trace.json").read_text(encoding="utf-8"))
    tokens = [each["token"] for each in trace["encoder"]["tokens"]]
    assert [token["piece"] for token in tokens] == expected
    assert "".join(token["text"] for token in tokens) == ">>fra<<Thehouse</s>"
    assert [each["token"]["piece"] for each in trace["decoder"]["tokens"]] == ["<pad>"]
    tour = json.loads((tmp_path / "run" / "tour.json").read_text(encoding="utf-8"))
    assert {side: each["tokens"] for side, each in tour["input"].items()} == {"encoder": expected, "decoder": ["<pad>"]}


def test_a_continuation_in_the_decoder_follows_the_language_and_the_prompt(folders):
    from icl_eval.prompts.tokenization import encode_continuations

    found = conventions(folders["mbart"], None, "de_DE", "fr_XX")
    [encoded] = found.encode([Prompt("q", "The house", "La maison est")])
    continued = encode_continuations(found.card.tokenizer, encoded, [" petite", " verte"])
    assert continued.context.decoder_ids[0] == found.target_id
    assert continued.context.decoder_ids == encoded.decoder_ids
    assert found.card.tokenizer.decode(continued.texts[0]).strip() == "petite"
