"""Conventions: what a model's own files ask of a prompt, besides its words: a task's prefix, languages, a first token.

They are found in the model's config, generation config and tokenizer, and never by the model's name:

| found                                        | so                                                                   |
|----------------------------------------------|----------------------------------------------------------------------|
| `task_specific_params` with a `prefix` (T5)  | `task_prefix=NAME` opens the prompt with it                          |
| a tokenizer with `src_lang` (mBART, M2M-100) | `model.source_language` marks the encoder's text, the token of       |
|                                              | `model.target_language` is the first that is generated               |
| `>>code<<` in the vocabulary (Marian)        | `model.target_language` opens the encoder's text                     |
| `<2code>` in the vocabulary (MADLAD)         | the same                                                             |
| `forced_bos_token_id` (BART)                 | that token is the first that is generated                            |
| a token after an answer in a chat template   | it ends an answer, as the generation config's `eos_token_id` does    |
| penalties, bans, least lengths               | `generate` follows them, and so do we; the report names them         |

Where the decoder is given text to go on from (`placement=split`), the first token stands before that text, since
`generate` forces it only upon an empty one. A translator of several languages that is not told which one to write is
refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError
from icl_eval.formatting import listed
from icl_eval.prompts.building import Context, EncodedPrompt, Prompt
from icl_eval.prompts.tokenization import encode_prompt, pieces_of

if TYPE_CHECKING:
    from icl_eval.models.loading import ModelCard


_LANGUAGE = re.compile(r">>(.+)<<|<2([^<>]+)>")


@dataclass(frozen=True)
class Asked:
    """Which conventions a user asks for."""

    task_prefix: str | None = None
    source_language: str | None = None
    target_language: str | None = None
    chat_template: str | None = None
    """Which of the chat templates that the tokenizer has."""


@dataclass(frozen=True)
class Conventions:
    """What goes around the words of a model's prompts."""

    card: "ModelCard"
    asked: Asked
    opening: str
    """What the prompt's text begins with: the encoder's, or the decoder's of a decoder-only model."""
    first_id: int | None
    """The token that every completion of an encoder-decoder model begins with; None for any."""
    target_id: int | None
    """The same, where it is the target language that asks for it."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Tokens that name the target language at the beginning of the encoder's text, by code."""
    end_of_turn: int | None = None
    """The token that a chat template writes after an answer; None where the prompts are no conversations."""
    day: str | None = None
    """What a chat template was told is today; None where none asked."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What `generate` has to be told."""
        told = {} if self.target_id is None else {"forced_bos_token_id": self.target_id}
        return told if self.end_of_turn is None else told | {"eos_token_id": list(self.end_ids)}

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end a completion."""
        own: Any = self.card.generation.eos_token_id
        ids = [] if own is None else [own] if isinstance(own, int) else own
        return tuple(dict.fromkeys(ids if self.end_of_turn is None else [self.end_of_turn, *ids]))

    @property
    def ends(self) -> list[str]:
        """The tokens that end a completion, as the vocabulary calls them."""
        return pieces_of(self.card.tokenizer, self.end_ids)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Turn a prompt into token ids, with all that the conventions add; its texts say what opens them.

        Raises:
            ModelUnavailableError: When the network has no vector for one of them.
        """
        if prompt.encoder is None:
            opened = replace(prompt, decoder=self.opening + (prompt.decoder or ""))
        else:
            opened = replace(prompt, encoder=self.opening + prompt.encoder)
            self._require_language(opened.encoder or "")
        encoded = encode_prompt(self.card.tokenizer, opened)
        self.card.require_vectors(encoded.encoder_ids + encoded.decoder_ids)
        if self.first_id is None or prompt.encoder is None or not encoded.decoder_ids:
            return encoded
        return replace(encoded, decoder_ids=(self.first_id, *encoded.decoder_ids), num_added=1)

    def encode_text(self, example_id: str, text: str, decoder_prompt: str | None = None) -> EncodedPrompt:
        """Turn a text into the prompt of its own: for the encoder where there is one, else to go on from.

        Args:
            example_id: What the prompt is called.
            text: The text.
            decoder_prompt: Another one for the decoder to go on from, where the first is the encoder's.

        Raises:
            ConfigError: When there is another one and no encoder.
        """
        if self.asked.chat_template is not None:
            raise ConfigError(
                f"model.chat_template={self.asked.chat_template}: a prompt of your own is taken as it is, and no "
                "conversation; leave it out"
            )
        if self.card.architecture == "encoder-decoder":
            return self.encode(Prompt(example_id, text, decoder_prompt))
        if decoder_prompt is not None:
            raise ConfigError(f"decoder_prompt: {self.card.name} has no encoder; it goes on from prompt alone")
        return self.encode(Prompt(example_id, None, text))

    def context(self, max_new_tokens: int) -> Context:
        """Return how much the model can hold, so many new tokens among it."""
        return Context(self.card.max_length, max_new_tokens, self.card.max_encoder_length)

    def _require_language(self, text: str) -> None:
        if len(self.languages) > 1 and not text.lstrip().startswith(tuple(self.languages.values())):
            raise _no_language(self.card.name, self.languages)

    def describe(self) -> dict[str, str]:
        """Return what is asked for, for the report: names, and the prefix's text."""
        named = {
            "task_prefix": self.asked.task_prefix,
            "source_language": self.asked.source_language,
            "target_language": self.asked.target_language,
            "chat_template": self.asked.chat_template,
            "date": self.day,
            "opening": self.opening or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def summary(self) -> str:
        """Return the same in one line, with the token that every answer is made to begin with; empty for nothing."""
        told = ", ".join(f"{name} {value}" for name, value in self.describe().items() if name != "opening")
        parts = [told] if told else []
        if self.target_id is not None:
            parts.append(f"every answer begins with {self.card.tokenizer.convert_ids_to_tokens(self.target_id)}")
        if self.end_of_turn is not None:
            parts.append(f"an answer ends at {', '.join(self.ends)}")
        return "; ".join(parts)


def find_conventions(card: "ModelCard", asked: Asked) -> Conventions:
    """Find what a model's files ask of a prompt; sets the languages of the card's tokenizer.

    Raises:
        ConfigError: When something asked for does not exist; the sentence lists what does.
    """
    opening, target_id = "", None
    if asked.task_prefix is not None:
        opening = _choose(f"task_prefix={asked.task_prefix}", asked.task_prefix, card.task_prefixes, card.name)
    tokenizer: Any = card.tokenizer
    languages: dict[str, str] = {}
    if hasattr(tokenizer, "src_lang"):
        target_id = _set_languages(card, asked)
    else:
        if asked.source_language is not None:
            message = f"model.source_language={asked.source_language}"
            raise ConfigError(f"{message}: the tokenizer of {card.name} does not mark the language of its input")
        if card.architecture == "encoder-decoder":
            found = filter(None, map(_LANGUAGE.fullmatch, tokenizer.get_vocab()))
            languages = {code[1] or code[2]: code[0] for code in found}
        if asked.target_language is not None:
            message = f"model.target_language={asked.target_language}"
            opening = f"{_choose(message, asked.target_language, languages, card.name)} {opening}"
    first_id = card.generation.forced_bos_token_id if target_id is None else target_id
    return Conventions(card, asked, opening, first_id, target_id, languages)


def _set_languages(card: "ModelCard", asked: Asked) -> int | None:
    """Tell the tokenizer which languages go in and out; return the id of the target's token."""
    tokenizer: Any = card.tokenizer
    known = _language_ids(tokenizer)
    if asked.source_language is not None:
        _choose(f"model.source_language={asked.source_language}", asked.source_language, known, card.name)
        tokenizer.src_lang = asked.source_language
    if asked.target_language is None:
        if not {card.generation.forced_bos_token_id, card.generation.decoder_start_token_id} & set(known.values()):
            raise _no_language(card.name, known)
        tokenizer.tgt_lang = tokenizer.tgt_lang or tokenizer.src_lang  # some tokenize no target's text without one
        return None
    target_id: int = _choose(f"model.target_language={asked.target_language}", asked.target_language, known, card.name)
    tokenizer.tgt_lang = asked.target_language
    return target_id


def _language_ids(tokenizer: Any) -> dict[str, int]:
    """Return the codes that the tokenizer takes for languages, with the ids of their tokens."""
    if hasattr(tokenizer, "get_lang_id"):  # its codes are not its tokens
        return {code: tokenizer.get_lang_id(code) for code in tokenizer.lang_code_to_token}
    if hasattr(tokenizer, "lang_code_to_id"):
        return dict(tokenizer.lang_code_to_id)
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token, tokenizer.sep_token}
    named |= {tokenizer.cls_token, tokenizer.mask_token}
    return {code: tokenizer.convert_tokens_to_ids(code) for code in tokenizer.all_special_tokens if code not in named}


def _no_language(model: str, known: Mapping[str, Any]) -> ConfigError:
    codes = listed(sorted(known))
    return ConfigError(
        f"model.target_language: {model} translates into several languages and has to be told which one: "
        f"model.target_language=… ({codes})"
    )


def _choose(message: str, name: str, known: Mapping[str, Any], model: str) -> Any:
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"{message}: {model} has no such thing (it has: {names})")
    return known[name]
