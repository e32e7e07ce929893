"""Law 9: changing a key changes something that can be observed, and the table below says what.

The keys are found by walking the schemas and the options of the config groups, so that a new one without a row in
the table is a failure.
"""

import dataclasses
import functools
import json
import typing
from dataclasses import dataclass
from pathlib import Path

import adapters
import pytest
import tiny_models
import translators
from omegaconf import OmegaConf

from icl_eval.config.schema import PreviewConfig, RunConfig, StreamConfig, TraceConfig
from icl_eval.config.setup import conf_dir

STREAM = ("model.source={gpt2}", "prompt='Question: is the sky blue?'", "max_new_tokens=12", "device=cpu")
STREAM_CHANGES = {
    "model.chat_template": ([], ["model.chat_template=dated"]),  # refused: a prompt of one's own is no conversation
    "model.quantization": ([], ["model.quantization.quant_method=none"]),  # refused: there is no such method
    "model.device_map": ([], ["model.device_map=auto"]),  # refused: device=cpu is given
    "model.attn_implementation": ([], ["model.attn_implementation=flash"]),  # refused: there is none of that name
    "prompt": ([], ["prompt='The house is small.'"]),
    "decoder_prompt": (["model.source={t5}"], ["decoder_prompt='The house is'"]),
}
QUICK = ("task=qa", "limit=5", "num_fewshot=1", "max_new_tokens=6", "dtype=float32", "device=cpu")


@dataclass(frozen=True)
class Observed:
    """What one call of the command line left to look at."""

    exit_code: int
    records: list
    report: dict
    fed: list
    """Shapes of what the network was given, `[rows, tokens]`, call by call."""


def refused(observed):
    return observed.exit_code


def questions(observed):
    return [record["example_id"] for record in observed.records]


def prompts(observed):
    return [(record["encoder"], record["decoder"]) for record in observed.records]


def completions(observed):
    return [record["completion"] for record in observed.records]


def completions_of_all_samples(observed):
    return [[sample["completion"] for sample in record["samples"]] for record in observed.records]


def predictions(observed):
    return [record["prediction"] for record in observed.records]


def likelihoods(observed):
    return [record["likelihood"] for record in observed.records]


def scores(observed):
    return {name: found["score"] for name, found in observed.report["results"]["qa"]["metrics"].items()}


def direction(observed):
    return [found["higher_is_better"] for found in observed.report["results"]["qa"]["metrics"].values()]


def recorded(observed):
    return observed.report["provenance"]["config"]["task"]["qa"]["card"]


def devices(observed):
    return observed.report["provenance"]["network"]["devices"]


def attention(observed):
    return observed.report["provenance"]["network"]["attn_implementation"]


def rows_at_once(observed):
    return max(rows for rows, _ in observed.fed)


def tokens_computed(observed):
    return sum(rows * tokens for rows, tokens in observed.fed)


TRUSTED = "metrics.hub.trust_remote_code=true"
JUDGED, COUNTED = "hydra.run.dir={judged}", "hydra.run.dir={counted}"
ROWS = "task.qa.pool={path: {rows}, name: a, split: train}"
TEST_ROWS = "task.qa.test={path: {rows}, name: a, split: train}"
KINDS = ("task.qa.pool.path={rows}/a/train.jsonl", "task.qa.test.path={rows}/a/test.jsonl", "+task.qa.fields.kind=kind")
LABELS = (
    "task.qa.pool.path={rows}/a/train.jsonl",
    "task.qa.test.path={rows}/a/test.jsonl",
    "task.qa.fields.references=kind",
)
TWO = ("num_fewshot=2", "overflow=drop")
CHANNEL = ("likelihood=channel", "+task.qa.fields.choices='[references[0], \"no\"]'", "limit=1")
CHOICES = ("likelihood=choices", "+task.qa.fields.choices='[references[0], \"no\"]'", "limit=1")

DRAWN = ("decoding=generate", "decoding.options.num_beams=1", "decoding.options.do_sample=true")
LONG_OR_SHORT = ("model.source={endings}", "decoding=generate", "max_new_tokens=20")

# key: (what is observed, overrides before, overrides that change it)
CHANGES = {
    "model.source": (completions, [], ["model.source={other}"]),
    "model.revision": (completions, ["model.source=tiny/gpt2"], ["model.revision=old"]),
    "model.trust_remote_code": (refused, ["model.source={own_code}"], ["model.trust_remote_code=true"]),
    "model.source_language": (refused, ["model.source={t5}"], ["model.source_language=en_XX"]),
    "model.target_language": (
        completions, ["model.source={mbart}", "model.target_language=de_DE"], ["model.target_language=fr_XX"],
    ),
    "model.tokenizer": (completions, [], ["model.tokenizer={tokenizer}"]),
    "model.adapter": (completions, [], ["model.adapter={adapter}"]),
    "model.quantization": (completions, ["max_new_tokens=40"], ["model.quantization.load_in_8bit=true"]),
    "model.device_map": (
        devices, ["device=auto"],
        ["model.device_map={transformer.wte: cpu, transformer.wpe: cpu, transformer.h.0: cpu, transformer.h.1: disk, "
         "transformer.ln_f: cpu, lm_head: cpu}"],
    ),
    "model.attn_implementation": (attention, [], ["model.attn_implementation=eager"]),
    "model.chat_template": (prompts, ["model.source={named}", "template=chat"], ["model.chat_template=dated"]),
    "task_prefix": (prompts, ["model.source={prefixed}"], ["task_prefix=translation_en_to_fr"]),
    "model.allow_pickle": (refused, ["model.source={pickled}"], ["model.allow_pickle=true"]),
    "engine": (refused, [], ["engine=openai"]),  # its options: tests/decoding/engines/test_server_engine.py
    "decoding": (completions, [], ["decoding=sample"]),
    "decoding.stop": (completions, [], ["decoding.stop=[{letter}]"]),
    "decoding.temperature": (completions, ["decoding=sample"], ["decoding.temperature=0.1"]),
    "decoding.top_k": (completions, ["decoding=sample"], ["decoding.top_k=2"]),
    "decoding.top_p": (completions, ["decoding=sample"], ["decoding.top_p=0.1"]),
    "decoding.seed": (completions, ["decoding=sample"], ["decoding.seed=1"]),
    "decoding.num_samples": (completions_of_all_samples, ["decoding=sample"], ["decoding.num_samples=2"]),
    "decoding.options.num_beams": (completions, ["decoding=generate"], ["decoding.options.num_beams=1"]),
    "decoding.options.length_penalty": (
        completions, [*LONG_OR_SHORT, "decoding.options.length_penalty=-9.0"], ["decoding.options.length_penalty=4.0"],
    ),
    "decoding.options.early_stopping": (
        completions, [*LONG_OR_SHORT, "decoding.options.length_penalty=4.0"], ["decoding.options.early_stopping=true"],
    ),
    "decoding.options.no_repeat_ngram_size": (
        completions, ["decoding=generate"], ["decoding.options.no_repeat_ngram_size=1"],
    ),
    "decoding.options.repetition_penalty": (
        completions, ["decoding=generate"], ["decoding.options.repetition_penalty=3.0"],
    ),
    "decoding.options.do_sample": (completions, ["decoding=generate"], ["decoding.options.do_sample=true"]),
    "decoding.options.temperature": (completions, [*DRAWN], ["decoding.options.temperature=0.1"]),
    "decoding.options.top_k": (completions, [*DRAWN], ["decoding.options.top_k=2"]),
    "decoding.options.top_p": (completions, [*DRAWN], ["decoding.options.top_p=0.1"]),
    "max_new_tokens": (completions, [], ["max_new_tokens=3"]),
    "device": (refused, [], ["device=cuda:99"]),
    "dtype": (completions, ["max_new_tokens=40"], ["dtype=bfloat16"]),
    "task.*.card.kind": (recorded, [], ["task.qa.card.kind=trivia"]),
    "task.*.card.licence": (recorded, [], ["task.qa.card.licence=MIT"]),
    "task.*.card.pool_size": (recorded, [], ["task.qa.card.pool_size=41"]),
    "task.*.card.test_size": (recorded, [], ["task.qa.card.test_size=65"]),
    "task.*.name": (refused, [], ["task.qa.name=none.yaml"]),  # what they do: tests/harnesses/test_lm_eval_tasks.py
    "task.*.include_path": (refused, [], ["task.qa.include_path=folder"]),
    "task.*.trust_remote_code": (refused, [], ["task.qa.trust_remote_code=true"]),
    "task.*.pool.path": (prompts, [], ["task.qa.pool.path={rows}/a/train.jsonl"]),
    "task.*.pool.name": (prompts, [ROWS], ["task.qa.pool.name=b"]),
    "task.*.pool.split": (prompts, [ROWS], ["task.qa.pool.split=test"]),
    "task.*.pool.revision": (refused, [], ["task.qa.pool.revision=main"]),
    "task.*.pool.max_rows": (refused, [], ["task.qa.pool.max_rows=39"]),
    "task.*.test.path": (prompts, [], ["task.qa.test.path={rows}/a/test.jsonl"]),
    "task.*.test.name": (prompts, [TEST_ROWS], ["task.qa.test.name=b"]),
    "task.*.test.split": (prompts, [TEST_ROWS], ["task.qa.test.split=test"]),
    "task.*.test.revision": (refused, [], ["task.qa.test.revision=main"]),
    "task.*.test.max_rows": (refused, [], ["task.qa.test.max_rows=63"]),
    "task.*.instruction": (prompts, [], ["task.qa.instruction=Guess."]),
    "task.*.labels.*": (prompts, [], ["task.qa.labels.answer=Reply"]),
    "task.*.fields.*": (prompts, [], ["task.qa.fields.question=question|upper"]),
    "task.*.demonstration_fields.*": (
        prompts, ["template=chain_of_thought", "+task.qa.demonstration_fields.rationale=question"],
        ["task.qa.demonstration_fields.rationale=question|upper"],
    ),
    "task.*.match_field": (prompts, [*KINDS], ["task.qa.match_field=kind"]),
    "task.*.stop": (completions, [], ["task.qa.stop=[{letter}]"]),
    "task.*.max_new_tokens": (completions, ["max_new_tokens=null"], ["task.qa.max_new_tokens=3"]),
    "task.*.num_fewshot": (prompts, ["num_fewshot=null"], ["task.qa.num_fewshot=2"]),
    "task.*.template": (prompts, [], ["+template@task.qa.template=plain"]),
    "task.*.postprocessing": (
        predictions, [JUDGED], ["+postprocessing@task.qa.postprocessing=first_line"],
    ),
    "task.*.likelihood": (scores, [], ["+likelihood@task.qa.likelihood=references"]),
    "task.*.metrics": (scores, [JUDGED], ["~task.qa.metrics.token_f1"]),
    "template.instruction": (prompts, [], ["template.instruction=Go."]),
    "template.question": (prompts, [], ["template.question='{{ question }}'"]),
    "template.rationale": (prompts, [], ["template.rationale=' Hm.'"]),
    "template.answer": (prompts, [], ["template.answer='={{ answer }}'"]),
    "template.demonstration": (prompts, [], ["template.demonstration='{{ question }}={{ answer }}'"]),
    "template.separator": (prompts, [], ["template.separator='--'"]),
    "template.question_first": (prompts, ["model.source={t5}"], ["template.question_first=true"]),
    "template.channel.answer": (
        likelihoods, CHANNEL, ["template.channel.answer='{{ answer }}:'"],
    ),
    "template.channel.question": (likelihoods, CHANNEL, ["template.channel.question='{{ question }}!'"]),
    "template.variant": (prompts, ["template=varied"], ["template.variant=3"]),
    "template.date": (
        prompts, ["model.source={named}", "template=chat", "model.chat_template=dated", "template.date=2025-01-31"],
        ["template.date=2025-02-01"],
    ),
    "template.chat": (prompts, ["model.source={chatty}"], ["template.chat=true"]),
    "placement": (prompts, ["model.source={t5}"], ["placement=split"]),
    "demonstrations": (prompts, [], ["demonstrations=first"]),
    "demonstrations.seed": (prompts, [], ["demonstrations.seed=1"]),
    "demonstrations.relevance": (prompts, ["demonstrations=diverse", *TWO], ["demonstrations.relevance=0"]),
    "demonstrations.candidates": (prompts, ["demonstrations=diverse", *TWO], ["demonstrations.candidates=1"]),
    "demonstrations.scale": (prompts, ["demonstrations=dpp", *TWO], ["demonstrations.scale=1000"]),
    "demonstrations.neighbors": (prompts, ["demonstrations=votek", *TWO], ["demonstrations.neighbors=1"]),
    "demonstrations.encoder.source": (prompts, ["demonstrations=nearest"], ["demonstrations.encoder.source={bert}"]),
    "demonstrations.encoder.revision": (
        prompts, ["demonstrations=nearest", "demonstrations.encoder.source=tiny/gpt2"],
        ["demonstrations.encoder.revision=old"],
    ),
    "control": (prompts, [*TWO], ["control=no_targets"]),
    "control.fraction": (prompts, ["control=random_targets", *TWO], ["control.fraction=0"]),
    "control.symbols": (prompts, [*LABELS, "control=abstract_labels"], ["control.symbols=[X,Y]"]),
    "control.seed": (prompts, ["control=unrelated_inputs"], ["control.seed=1"]),
    "leave_out": (prompts, [*TWO], ["leave_out=1"]),
    "order": (prompts, [*TWO], ["order=reversed"]),
    "order.seed": (prompts, ["order=random", *TWO], ["order.seed=1"]),
    "demonstrations.per_question": (prompts, [], ["demonstrations.per_question=true"]),
    "demonstrations.ids": (
        prompts, ["demonstrations=fixed", "demonstrations.ids=[qa-pool-001]"], ["demonstrations.ids=[qa-pool-002]"],
    ),
    "postprocessing": (predictions, [JUDGED], ["postprocessing=first_line"]),
    "postprocessing.pattern": (
        predictions, [JUDGED, "postprocessing=extract", "postprocessing.pattern='[0-9]+'"],
        ["postprocessing.pattern='[a-z]+'"],
    ),
    "postprocessing.select": (
        predictions, [JUDGED, "postprocessing=extract", "postprocessing.pattern='[0-9]+'"],
        ["postprocessing.select=last"],
    ),
    "postprocessing.no_match": (
        predictions, [JUDGED, "postprocessing=extract", "postprocessing.pattern='[0-9]+'"],
        ["postprocessing.no_match=empty"],
    ),
    "metrics": (scores, [JUDGED], ["metrics=[chrf]"]),
    "metrics.bleu.tokenize": (scores, [JUDGED, "metrics=[bleu]"], ["metrics.bleu.tokenize=char"]),
    "metrics.bleu.lowercase": (scores, [JUDGED, "metrics=[bleu]"], ["metrics.bleu.lowercase=true"]),
    "metrics.bleu.smooth_method": (scores, [JUDGED, "metrics=[bleu]"], ["metrics.bleu.smooth_method=add-k"]),
    "metrics.bleu.smooth_value": (
        scores, [JUDGED, "metrics=[bleu]", "metrics.bleu.smooth_method=add-k"], ["metrics.bleu.smooth_value=2"],
    ),
    "metrics.bleu.max_ngram_order": (scores, [JUDGED, "metrics=[bleu]"], ["metrics.bleu.max_ngram_order=2"]),
    "metrics.bleu.effective_order": (
        scores, [JUDGED, "metrics=[bleu]", "metrics.bleu.max_ngram_order=12"], ["metrics.bleu.effective_order=true"],
    ),
    "metrics.chrf.word_order": (scores, [JUDGED, "metrics=[chrf]"], ["metrics.chrf.word_order=2"]),
    "metrics.chrf.char_order": (scores, [JUDGED, "metrics=[chrf]"], ["metrics.chrf.char_order=2"]),
    "metrics.chrf.beta": (scores, [JUDGED, "metrics=[chrf]"], ["metrics.chrf.beta=1"]),
    "metrics.ter.normalized": (scores, [JUDGED, "metrics=[ter]"], ["metrics.ter.normalized=true"]),
    "metrics.ter.no_punct": (scores, [JUDGED, "metrics=[ter]"], ["metrics.ter.no_punct=true"]),
    "metrics.ter.asian_support": (
        scores, [JUDGED, "metrics=[ter]", "metrics.ter.normalized=true"], ["metrics.ter.asian_support=true"],
    ),
    "metrics.ter.case_sensitive": (scores, [JUDGED, "metrics=[ter]"], ["metrics.ter.case_sensitive=true"]),
    "metrics.exact_match.ignore_case": (scores, [JUDGED], ["task.qa.metrics.exact_match.ignore_case=false"]),
    "metrics.exact_match.ignore_punctuation": (
        scores, [JUDGED], ["task.qa.metrics.exact_match.ignore_punctuation=false"],
    ),
    "metrics.exact_match.ignore_numbers": (scores, [JUDGED], ["task.qa.metrics.exact_match.ignore_numbers=true"]),
    "metrics.exact_match.regexes_to_ignore": (
        scores, [JUDGED], ["task.qa.metrics.exact_match.regexes_to_ignore=['1[23]']"],
    ),
    "metrics.exact_match.extract": (scores, [JUDGED], ["task.qa.metrics.exact_match.extract='[0-9]+'"]),
    "metrics.exact_match.select": (
        scores, [COUNTED, "metrics=[exact_match]", "metrics.exact_match.extract='[0-9]+'"],
        ["metrics.exact_match.select=last"],
    ),
    "metrics.exact_match.variant": (scores, [JUDGED], ["task.qa.metrics.exact_match.variant=strict"]),
    "metrics.numeric_strict.extraction": (
        scores, [COUNTED, "metrics=[numeric_strict]"], ["metrics.numeric_strict.extraction=flexible"],
    ),
    "metrics.numeric_flexible.extraction": (
        scores, [COUNTED, "metrics=[numeric_flexible]"], ["metrics.numeric_flexible.extraction=strict"],
    ),
    "metrics.rouge_1.unit": (scores, [JUDGED, "metrics=[rouge_1]"], ["metrics.rouge_1.unit='l'"]),
    "metrics.rouge_1.stemmer": (scores, [JUDGED, "metrics=[rouge_1]"], ["metrics.rouge_1.stemmer=true"]),
    "metrics.rouge_2.unit": (scores, [JUDGED, "metrics=[rouge_2]"], ["metrics.rouge_2.unit='1'"]),
    "metrics.rouge_2.stemmer": (scores, [JUDGED, "metrics=[rouge_2]"], ["metrics.rouge_2.stemmer=true"]),
    "metrics.rouge_l.unit": (scores, [JUDGED, "metrics=[rouge_l]"], ["metrics.rouge_l.unit='1'"]),
    "metrics.rouge_l.stemmer": (scores, [JUDGED, "metrics=[rouge_l]"], ["metrics.rouge_l.stemmer=true"]),
    "metrics.hub.name": (
        scores, [JUDGED, "metrics=[hub]", TRUSTED, "metrics.hub.name={script}", "metrics.hub.key=share"],
        ["metrics.hub.name={other_script}"],
    ),
    "metrics.hub.trust_remote_code": (
        refused, ["metrics=[hub]", "metrics.hub.name={script}", "metrics.hub.key=share"], [TRUSTED],
    ),
    "metrics.hub.key": (
        scores, [JUDGED, "metrics=[hub]", TRUSTED, "metrics.hub.name={script}", "metrics.hub.key=share"],
        ["metrics.hub.key=number"],
    ),
    "metrics.hub.higher_is_better": (
        direction, [JUDGED, "metrics=[hub]", TRUSTED, "metrics.hub.name={script}", "metrics.hub.key=share"],
        ["metrics.hub.higher_is_better=false"],
    ),
    "likelihood": (likelihoods, [], ["likelihood=references"]),
    "likelihood.content_free": (likelihoods, CHOICES, ["likelihood.content_free=nothing"]),
    "likelihood.domain_texts": (likelihoods, CHOICES, ["likelihood.domain_texts=2"]),
    "likelihood.seed": (likelihoods, [*CHOICES, "likelihood.domain_texts=2"], ["likelihood.seed=1"]),
    "likelihood.premise": (likelihoods, CHOICES, ["likelihood.premise='A:'"]),
    "num_fewshot": (prompts, [], ["num_fewshot=0"]),
    "limit": (questions, [], ["limit=0.5"]),
    "seed": (prompts, [], ["seed=1"]),
    "limit_seed": (questions, [], ["limit_seed=1"]),
    "batch_size": (rows_at_once, ["batch_size=auto"], ["batch_size=2"]),
    "prefix_cache_mb": (
        tokens_computed,
        ["model.source={fresh}", "+task.again=${task.qa}", "prefix_cache_mb=0"],
        ["model.source={as_fresh}", "prefix_cache_mb=1000"],
    ),
    "overflow": (refused, ["num_fewshot=8"], ["overflow=drop"]),
}  # fmt: skip

# The keys of `trace` alone: overrides that change what it shows.
TRACE_CHANGES = {
    "prompt": (["prompt='The house is small.'"], ["prompt='The house is big.'"]),
    "example": (["task=qa", "num_fewshot=0"], ["task=qa", "num_fewshot=0", "example=qa-test-002"]),
    "runners_up": (["task=qa", "num_fewshot=0"], ["task=qa", "num_fewshot=0", "runners_up=2"]),
    "heads": (["prompt=x"], ["prompt=x", "heads=true"]),
}


def walk(schema, prefix=""):
    """Yield the name of every key below a schema; `*` stands for a name that the user chooses."""
    for name, hint in typing.get_type_hints(schema).items():
        key = f"{prefix}{name}"
        members = typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            yield from walk(hint, f"{key}.")
        elif typing.get_origin(hint) is dict and dataclasses.is_dataclass(members[1]):
            yield from walk(members[1], f"{key}.*.")
        else:
            yield f"{key}.*" if hint == dict[str, str] else key
        if (conf_dir() / key).is_dir() and not dataclasses.is_dataclass(hint) and name != "task":
            yield from walk_options(key)


def walk_options(group):
    """Yield the keys of the options of a group whose classes say what they take."""
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        options = {group: OmegaConf.to_container(OmegaConf.load(path))}
        for names in flatten(options):
            if names[-1] != "_target_":
                yield ".".join(names)


def flatten(value, names=()):
    if isinstance(value, dict):
        for name, member in value.items():
            yield from flatten(member, (*names, name))
    else:
        yield names


def test_every_key_has_a_row_in_the_table():
    keys = set(walk(RunConfig))
    of_servers = {key for key in keys if key.startswith("engine.")}
    assert keys - of_servers == set(CHANGES)
    server_tests = (Path(__file__).parents[1] / "decoding/engines/test_server_engine.py").read_text(encoding="utf-8")
    assert {key for key in of_servers if f"{key}=" not in server_tests} == set()
    assert set(walk(PreviewConfig)) - keys == {"logged"}  # tests/harnesses/test_lm_eval_tasks.py
    assert set(walk(StreamConfig)) - set(CHANGES) == set(STREAM_CHANGES) - set(CHANGES)
    assert set(walk(TraceConfig)) - keys == set(TRACE_CHANGES)


# From a completion to the right answer, for each folder whose records are written by hand.
COMPLETIONS = {
    JUDGED: {
        "The Cat sat on the mat today .": "the cat sat on the mat today .",
        "It costs 3.14 euros, and so on and so forth": "it cost 314 euros and so on and also more",
        "is yes\nA: no": "yes",
        "room 12!": "room 13",
        "猫が,好き。": "猫が好き",
    },
    COUNTED: {"The answer is 7, not 8": "8", "42": "42", "about 3": "3", "none": "1", "5": "5"},
}


PLACES = (
    "prefixed",
    "bert",
    "mbart",
    "other",
    "fresh",
    "as_fresh",
    "endings",
    "chatty",
    "named",
    "pickled",
    "adapter",
    "tokenizer",
    "own_code",
    "rows",
    "judged",
    "counted",
)


@pytest.fixture(scope="module")
def places(tmp_path_factory, gpt2, t5):
    """Return what the placeholders of the table stand for."""
    root = tmp_path_factory.mktemp("places")
    places = {name: root / name for name in PLACES}
    for folder, completions in COMPLETIONS.items():  # the questions of the runs that are judged by hand
        rows = [
            {"question": f"{number}?", "references": [target]} for number, target in enumerate(completions.values())
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{folder[15:-1]}.jsonl").write_text(lines, encoding="utf-8")
    tiny_models.save_gpt2(places["other"], seed=1)
    for name in ("fresh", "as_fresh"):  # the same, loaded apart
        tiny_models.save_gpt2(places[name])
    tiny_models.save_gpt2(places["chatty"], chat_template=tiny_models.CHAT_TEMPLATE)
    dated = "{{ strftime_now('%d %b') }}" + tiny_models.CHAT_TEMPLATE
    tiny_models.save_gpt2(places["named"], chat_template={"default": tiny_models.CHAT_TEMPLATE, "dated": dated})
    tiny_models.save_bert(places["bert"])
    translators.save_prefixed_t5(places["prefixed"])
    translators.save_mbart(places["mbart"])
    tiny_models.save_gpt2(places["endings"])
    (places["endings"] / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(1, 380, 3))}))
    save_pickled(places["pickled"])
    adapters.save_lora(places["adapter"], gpt2, ["c_attn"])
    tiny_models.train_bpe().save_pretrained(places["tokenizer"])
    save_own_code(places["own_code"])
    save_rows(places["rows"])
    for name, share in {"script": 0.5, "other_script": 0.25}.items():
        places[name] = root / f"{name}.py"
        places[name].write_text(SCRIPT.replace("SHARE", str(share)))
    return {name: str(path) for name, path in places.items()} | {"gpt2": str(gpt2), "t5": str(t5), "letter": "o"}


def save_pickled(folder):
    import torch
    from safetensors.torch import load_file

    tiny_models.save_gpt2(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def save_own_code(folder):
    tiny_models.save_gpt2(folder)
    (folder / "code.py").write_text(
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own'\n"
        "class OwnModel(GPT2LMHeadModel):\n    config_class = OwnConfig\n"
    )
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "code.OwnConfig", "AutoModelForCausalLM": "code.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": auto_map}))


def save_rows(folder):
    """Save a data set with two configurations of two splits each, as folders of the hub are laid out."""
    header = "---\nconfigs:\n"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        header += f"- config_name: {name}\n  data_files:\n"
        for split in ("train", "test"):
            header += f"  - {{split: {split}, path: {name}/{split}.jsonl}}\n"
            rows = [
                {"question": f"{name} {split} {n}", "references": [str(n)], "kind": "odd" if n % 2 else "even"}
                for n in range(6)
            ]
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(f"{header}---\n")


SCRIPT = """
import datasets
import evaluate

class Found(evaluate.Metric):
    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
        )
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"share": SHARE, "number": 1}
"""


@pytest.fixture(scope="module", autouse=True)
def no_trace_outside_of_the_tests_folders(tmp_path_factory):
    """Redirect the caches of the libraries; put two revisions of a model into that of the hub."""
    import datasets
    import evaluate
    import transformers.dynamic_module_utils
    from huggingface_hub import constants

    root = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(root / "hub"))
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(root / "modules"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(root / "datasets"))
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", root / "modules")
        patch.setattr(evaluate.config, "DOWNLOADED_EVALUATE_PATH", root / "downloads")
        patch.syspath_prepend(str(root / "modules"))
        for seed, name in enumerate(("main", "old")):
            commit = f"{seed}" * 40
            tiny_models.save_gpt2(root / "hub" / "models--tiny--gpt2" / "snapshots" / commit, seed=seed)
            (root / "hub" / "models--tiny--gpt2" / "refs").mkdir(exist_ok=True)
            (root / "hub" / "models--tiny--gpt2" / "refs" / name).write_text(commit)
        yield


@pytest.fixture(scope="module")
def seen():
    """Return what has been observed so far: many rows of the table begin with the same overrides."""
    return {}


@pytest.fixture
def observe(icl_eval_command, places, seen, tmp_path, monkeypatch):
    """Evaluate with some overrides and return what there is to observe."""
    from transformers import GPT2LMHeadModel

    fed = []
    forward = GPT2LMHeadModel.forward

    @functools.wraps(forward)
    def listen(network, input_ids, **options):
        fed.append(tuple(input_ids.shape))
        return forward(network, input_ids, **options)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", listen)

    def call(overrides):
        asked = [f"task.qa.test.path={word.partition('=')[2]}.jsonl" for word in overrides if word in COMPLETIONS]
        filled = [fill(override, places) for override in [*asked, *overrides]]
        name = f"run{len(seen)}"
        fed.clear()
        outcome = icl_eval_command(f"model.source={places['gpt2']}", *QUICK, f"hydra.run.dir={name}", *filled)
        folder = next(
            (tmp_path / override.split("=")[1] for override in filled if "run.dir" in override), tmp_path / name
        )
        if outcome.exit_code:
            assert outcome.err.count("\n") == 1
            return Observed(outcome.exit_code, [], {}, [])
        lines = (folder / "samples_qa.jsonl").read_text(encoding="utf-8").splitlines()
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return Observed(0, [json.loads(line) for line in lines], report, fed[:])

    def observe(overrides):
        key = tuple(overrides)
        for folder in set(key) & set(COMPLETIONS):
            if (folder,) not in seen:
                judge_by_hand(call([folder]), fill(folder, places), COMPLETIONS[folder])
                seen[folder,] = call([folder])
        if key not in seen:
            seen[key] = call(key)
        return seen[key]

    return observe


def fill(override, places):
    for name, value in places.items():
        override = override.replace(f"{{{name}}}", value)
    return override


def judge_by_hand(observed, folder, completions):
    """Replace what the model said: scoring reads the records alone."""
    records = [
        record | {"completion": completion} for record, completion in zip(observed.records, completions, strict=True)
    ]
    path = Path(folder.partition("=")[2]) / "samples_qa.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("key", CHANGES)
def test_law_9_every_key_changes_something_observable(key, observe):
    look, before, change = CHANGES[key]
    assert look(observe(before)) != look(observe([*before, *change]))


@pytest.mark.parametrize("key", sorted(walk(StreamConfig)))
def test_law_9_every_key_changes_a_stream(key, icl_eval_command, places):
    before, change = STREAM_CHANGES[key] if key in STREAM_CHANGES else CHANGES[key][1:]

    def shown(overrides):
        outcome = icl_eval_command("stream", *(fill(override, places) for override in [*STREAM, *overrides]))
        return outcome.exit_code, outcome.out

    assert shown(before) != shown([*before, *change])


@pytest.mark.parametrize("key", TRACE_CHANGES)
def test_law_9_every_key_of_a_trace_changes_what_it_shows(key, icl_eval_command, places, tmp_path):
    def shown(overrides):
        model = ("model.source={gpt2}", "max_new_tokens=3", "device=cpu", "hydra.run.dir=run")
        outcome = icl_eval_command("trace", *(fill(override, places) for override in [*model, *overrides]))
        content = json.loads((tmp_path / "run" / "trace.json").read_text(encoding="utf-8"))
        return outcome.exit_code, outcome.out, content["written"], content["steps"], content["heads"]

    first, second = map(shown, TRACE_CHANGES[key])
    assert first[0] == second[0] == 0
    assert first[1:3] != second[1:3]
    assert first[3:] != second[3:]
