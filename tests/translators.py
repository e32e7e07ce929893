"""Tiny random translators for tests, in the layout of the hub, with the real tokenizer classes of their families.

Their sentencepiece models are trained on the spot; nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any

import tiny_models
from architectures import BART

SENTENCES = (
    "Hello World! How's it going?",
    "What's your name?",
    "The house is small, and the garden is green.",
    "Bonjour le monde, comment allez-vous ?",
    "La maison est petite et le jardin est vert.",
    "Quel est votre nom ?",
)
PREFIXES = {
    "translation_en_to_fr": {"prefix": "translate English to French: ", "num_beams": 4, "max_length": 300},
    "summarization": {"prefix": "summarize: ", "num_beams": 4},
    "question-answering": {"max_length": 20},
}
_SIZES = BART | {"max_position_embeddings": 512, "init_std": 0.3, "tie_word_embeddings": False}


def save_prefixed_t5(folder: Path) -> Path:
    """Save a T5 with tasks' prefixes in its config.json, as t5-base has them."""
    tiny_models.save_t5(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"task_specific_params": PREFIXES}))
    return folder


def save_bart(folder: Path) -> Path:
    """Save a BART: its first token is forced to be `<s>`, its last `</s>`."""
    from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer

    bpe = json.loads(tiny_models.train_bpe().backend_tokenizer.to_str())["model"]
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *bpe["vocab"]])}
    vocabulary["<mask>"] = len(vocabulary)
    tokenizer = BartTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in bpe["merges"]])
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(vocab_size=len(tokenizer), **_SIZES, **tokens)
    tiny_models._save(folder, 0, lambda: BartForConditionalGeneration(config), tokenizer)
    forced = tokens | {"forced_bos_token_id": 0, "forced_eos_token_id": 2}
    (folder / "generation_config.json").write_text(json.dumps(forced))
    return folder


def save_mbart(folder: Path) -> Path:
    """Save an mBART: language codes are tokens."""
    from transformers import MBartConfig, MBartForConditionalGeneration, MBartTokenizer

    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = MBartTokenizer(vocab=[*special, *_pieces(folder)])
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = MBartConfig(vocab_size=len(tokenizer), **_SIZES, **tokens)
    return tiny_models._save(folder, 0, lambda: MBartForConditionalGeneration(config), tokenizer)


def save_m2m_100(folder: Path) -> Path:
    """Save an M2M-100: a language's code and its token differ (`fr`, `__fr__`)."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    vocabulary |= {piece: len(vocabulary) + number for number, (piece, _) in enumerate(_pieces(folder))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "trained.model"))
    num_ids = len(vocabulary) + len(tokenizer.lang_code_to_token) + tokenizer.num_madeup_words
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = M2M100Config(vocab_size=num_ids, **_SIZES, **tokens)
    return tiny_models._save(folder, 0, lambda: M2M100ForConditionalGeneration(config), tokenizer)


def save_marian(folder: Path, separate_vocabularies: bool = False) -> Path:
    """Save a multilingual Marian: the target language is asked for in the text (`>>fra<< Hello`).

    With separate vocabularies, a piece has another id in the decoder than in the encoder, as in opus-mt-tc-big models.
    """
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    tokens = ["</s>", "<unk>", ">>fra<<", ">>deu<<", *(piece for piece, _ in _pieces(folder)), "<pad>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    spm = str(folder / "trained.model")
    languages = {"source_lang": "en", "target_lang": "fr"}
    target: dict[str, Any] = {}
    if separate_vocabularies:
        ids = {token: vocabulary[other] for token, other in zip(tokens[2:-1], tokens[-2:1:-1], strict=True)}
        (folder / "target_vocab.json").write_text(json.dumps(vocabulary | ids))
        target = {"target_vocab_file": str(folder / "target_vocab.json"), "separate_vocabs": True}
    tokenizer = MarianTokenizer(spm, spm, str(folder / "vocab.json"), **languages, **target)
    pad = vocabulary["<pad>"]
    special = {"eos_token_id": 0, "forced_eos_token_id": 0, "pad_token_id": pad, "decoder_start_token_id": pad}
    config = MarianConfig(vocab_size=len(tokenizer), **_SIZES, **special, bad_words_ids=[[pad]])
    return tiny_models._save(folder, 3, lambda: MarianMTModel(config), tokenizer)


def _pieces(folder: Path) -> list[tuple[str, float]]:
    """Train a sentencepiece model into the folder and return its pieces and scores, special tokens left out."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_prefix=str(folder / "trained"),
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    trained: Any = sentencepiece.SentencePieceProcessor(model_file=str(folder / "trained.model"))
    return [(trained.id_to_piece(number), trained.get_score(number)) for number in range(3, trained.get_piece_size())]
