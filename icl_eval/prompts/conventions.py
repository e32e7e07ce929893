"""Conventions: what a model requires of a prompt besides the wording, such as a task prefix, language codes or a token.

They are read from the model's config, generation config and tokenizer, never guessed from the model's name:

| model file has                               | effect                                                               |
|----------------------------------------------|----------------------------------------------------------------------|
| `task_specific_params` with a `prefix` (T5)  | `task_prefix=NAME` puts that prefix before the prompt                |
| a tokenizer with `src_lang` (mBART, M2M-100) | `model.source_language` marks the encoder input; the token of        |
|                                              | `model.target_language` is generated first                           |
| `>>code<<` in the vocabulary (Marian)        | `model.target_language` opens the encoder input                      |
| `<2code>` in the vocabulary (MADLAD)         | the same                                                             |
| `forced_bos_token_id` (BART)                 | that token is generated first                                        |
| a token after an answer in a chat template   | it ends an answer, as the generation config's `eos_token_id` does    |
| penalties, banned tokens, minimum lengths    | they apply as in `generate`, and the report names them               |

With `placement=split` the decoder continues a given string. The first token then precedes that string, because
`generate` forces it only at the first decoder position. A multilingual translation model needs a target language;
without one the run is refused.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

from icl_eval.errors import ConfigError
from icl_eval.formatting import list_names
from icl_eval.prompts.building import Context, EncodedPrompt, Prompt
from icl_eval.prompts.chat_templates import name_chat_template
from icl_eval.prompts.token_ids import find_distinct, pack_together
from icl_eval.prompts.tokenization import encode_prompts, pieces_of

if TYPE_CHECKING:
    from icl_eval.models.cards import ModelCard


_LANGUAGE = re.compile(r">>(.+)<<|<2([^<>]+)>")


@dataclass(frozen=True)
class RequestedConventions:
    """The conventions that the user requests."""

    task_prefix: str | None = None
    source_language: str | None = None
    target_language: str | None = None
    chat_template: str | None = None
    """The name of one of the tokenizer's chat templates, the path of a file with one, or the text of one."""


@dataclass(frozen=True)
class Conventions:
    """What a model requires around the wording of its prompts."""

    card: "ModelCard"
    requested: RequestedConventions
    opening: str
    """Prefix of the encoder input, or of the decoder input of a decoder-only model."""
    first_id: int | None
    """First token of every completion of an encoder-decoder model; None if any token may come first."""
    target_id: int | None
    """`first_id` if it is the token of the target language, else None."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Tokens that select the target language at the beginning of the encoder input, by language code."""
    end_of_turn: int | None = None
    """The token that the chat template writes after an answer; None if the prompts are not conversations."""
    day: str | None = None
    """The date that the chat template showed; None if it shows no date."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Options to pass to `generate`."""
        options = {} if self.target_id is None else {"forced_bos_token_id": self.target_id}
        return options if self.end_of_turn is None else options | {"eos_token_id": list(self.end_ids)}

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ids of the tokens that end a completion."""
        own: Any = self.card.generation.eos_token_id
        ids = [] if own is None else [own] if isinstance(own, int) else own
        return tuple(dict.fromkeys(ids if self.end_of_turn is None else [self.end_of_turn, *ids]))

    @property
    def ends(self) -> list[str]:
        """The tokens that end a completion, as strings of the vocabulary."""
        return pieces_of(self.card.tokenizer, self.end_ids)

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Encode prompts, with everything that the conventions add; their strings include the opening.

        Raises:
            ModelUnavailableError: If the network has no embedding for one of the ids.
        """
        encoded = encode_prompts(self.card.tokenizer, list(map(self._open, prompts)))
        self.card.require_vectors(find_distinct(side for each in encoded for side in (each.encoder, each.decoder)))
        if self.first_id is None:
            return encoded
        continues = [each.prompt.encoder is not None and len(each.decoder) > 0 for each in encoded]
        forced = iter(pack_together((self.first_id, *each.decoder_ids) for each in compress(encoded, continues)))
        return [
            replace(each, decoder=next(forced), num_added=1) if continued else each
            for each, continued in zip(encoded, continues, strict=True)
        ]

    def _open(self, prompt: Prompt) -> Prompt:
        """Return a prompt with the opening before the side that the conventions name."""
        if prompt.encoder is None:
            return replace(prompt, decoder=self.opening + (prompt.decoder or ""))
        opened = self.opening + prompt.encoder
        self._require_language(opened)
        return replace(prompt, encoder=opened)

    def encode_text(self, example_id: str, text: str, decoder_prompt: str | None = None) -> EncodedPrompt:
        """Encode a string as a prompt: the input of the encoder if the model has one, else of the decoder.

        Args:
            example_id: The id of the prompt.
            text: The string.
            decoder_prompt: A string for the decoder to continue, for encoder-decoder models.

        Raises:
            ConfigError: If `decoder_prompt` or a chat template is given and cannot be used.
        """
        if self.requested.chat_template is not None:
            name = name_chat_template(self.requested.chat_template)
            raise ConfigError(
                f"model.chat_template={name}: a literal prompt is not rendered with a chat template; leave it out"
            )
        if self.card.architecture == "encoder-decoder":
            return self.encode([Prompt(example_id, text, decoder_prompt)])[0]
        if decoder_prompt is not None:
            raise ConfigError(f"decoder_prompt: {self.card.name} has no encoder and only continues the prompt")
        return self.encode([Prompt(example_id, None, text)])[0]

    def context(self, max_new_tokens: int) -> Context:
        """Return the model's length limits, with room for `max_new_tokens` new tokens."""
        return Context(self.card.max_length, max_new_tokens, self.card.max_encoder_length)

    def _require_language(self, text: str) -> None:
        if len(self.languages) > 1 and not text.lstrip().startswith(tuple(self.languages.values())):
            raise _no_language(self.card.name, self.languages)

    def describe(self) -> dict[str, str]:
        """Return the conventions in use, for the report: requested names, the date and the prompt's opening."""
        named = {
            "task_prefix": self.requested.task_prefix,
            "source_language": self.requested.source_language,
            "target_language": self.requested.target_language,
            "chat_template": name_chat_template(self.requested.chat_template),
            "date": self.day,
            "opening": self.opening or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def summary(self) -> str:
        """Return a one-line summary with forced first and end tokens; an empty string if there are no conventions."""
        names = ", ".join(f"{name} {value}" for name, value in self.describe().items() if name != "opening")
        parts = [names] if names else []
        if self.target_id is not None:
            parts.append(f"every answer begins with {self.card.tokenizer.convert_ids_to_tokens(self.target_id)}")
        if self.end_of_turn is not None:
            parts.append(f"an answer ends at {', '.join(self.ends)}")
        return "; ".join(parts)


def find_conventions(card: "ModelCard", requested: RequestedConventions) -> Conventions:
    """Find the conventions of a model in its files.

    Languages are set in a copy of the card's tokenizer, which other runs share or the caller has in memory.

    Raises:
        ConfigError: If something requested does not exist; the message lists what does.
    """
    opening, target_id = "", None
    if requested.task_prefix is not None:
        opening = _choose(f"task_prefix={requested.task_prefix}", requested.task_prefix, card.task_prefixes, card.name)
    tokenizer: Any = card.tokenizer
    languages: dict[str, str] = {}
    if hasattr(tokenizer, "src_lang"):
        card = replace(card, tokenizer=copy.deepcopy(tokenizer))
        target_id = _set_languages(card, requested)
    else:
        if requested.source_language is not None:
            message = f"model.source_language={requested.source_language}"
            raise ConfigError(f"{message}: the tokenizer of {card.name} does not mark the language of its input")
        if card.architecture == "encoder-decoder":
            matches = filter(None, map(_LANGUAGE.fullmatch, tokenizer.get_vocab()))
            languages = {match[1] or match[2]: match[0] for match in matches}
        if requested.target_language is not None:
            message = f"model.target_language={requested.target_language}"
            opening = f"{_choose(message, requested.target_language, languages, card.name)} {opening}"
    first_id = card.generation.forced_bos_token_id if target_id is None else target_id
    return Conventions(card, requested, opening, first_id, target_id, languages)


def _set_languages(card: "ModelCard", requested: RequestedConventions) -> int | None:
    """Set the tokenizer's source and target language; return the id of the target language token."""
    tokenizer: Any = card.tokenizer
    known = _language_ids(tokenizer)
    if requested.source_language is not None:
        _choose(f"model.source_language={requested.source_language}", requested.source_language, known, card.name)
        tokenizer.src_lang = requested.source_language
    if requested.target_language is None:
        if not {card.generation.forced_bos_token_id, card.generation.decoder_start_token_id} & set(known.values()):
            raise _no_language(card.name, known)
        tokenizer.tgt_lang = tokenizer.tgt_lang or tokenizer.src_lang  # some cannot tokenize a target without one
        return None
    target_id: int = _choose(
        f"model.target_language={requested.target_language}", requested.target_language, known, card.name
    )
    tokenizer.tgt_lang = requested.target_language
    return target_id


def _language_ids(tokenizer: Any) -> dict[str, int]:
    """Return the token ids of the languages that the tokenizer knows, by language code."""
    if hasattr(tokenizer, "get_lang_id"):  # codes and tokens differ (M2M-100: `fr` and `__fr__`)
        return {code: tokenizer.get_lang_id(code) for code in tokenizer.lang_code_to_token}
    if hasattr(tokenizer, "lang_code_to_id"):
        return dict(tokenizer.lang_code_to_id)
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token, tokenizer.sep_token}
    named |= {tokenizer.cls_token, tokenizer.mask_token}
    return {code: tokenizer.convert_tokens_to_ids(code) for code in tokenizer.all_special_tokens if code not in named}


def _no_language(model: str, known: Mapping[str, Any]) -> ConfigError:
    codes = list_names(sorted(known))
    return ConfigError(
        f"model.target_language: {model} translates into several languages; choose one with "
        f"model.target_language=… ({codes})"
    )


def _choose(message: str, name: str, known: Mapping[str, Any], model: str) -> Any:
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"{message}: unknown to {model} (it has: {names})")
    return known[name]
