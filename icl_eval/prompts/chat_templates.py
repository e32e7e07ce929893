"""A chat template that the user gives: by name, as a file, or as text.

dated                        one of the tokenizer's own templates
./chatml.jinja               a file
{% for message in … %}       the template itself
"""

import hashlib
from pathlib import Path

from icl_eval.errors import ConfigError

_SUFFIXES = (".jinja", ".jinja2", ".j2")
_MARKS = ("{%", "{{")


def read_chat_template(given: str | None) -> str | None:
    """Return the text of a template that is given as a file or as text; None for the name of a tokenizer's own.

    Raises:
        ConfigError: If the file cannot be read.
    """
    if given is None or _is_text(given):
        return given
    if not _is_file(given):
        return None
    path = Path(given).expanduser()
    try:
        if path.is_fifo() or path.is_char_device() or path.is_block_device():  # it is read several times
            raise ConfigError(f"model.chat_template={given}: is a pipe or a device; must be a regular file")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"model.chat_template={given}: cannot be read ({error.strerror}; working directory: {Path.cwd()})"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"model.chat_template={given}: not a text file in UTF-8") from None
    except ValueError as error:  # the path contains a NUL
        raise ConfigError(f"model.chat_template={given!r}: cannot be read ({error})") from None


def name_chat_template(given: str | None) -> str | None:
    """Return how a template is called in reports, without any path of this machine; None if none is given."""
    if given is None or not (_is_text(given) or _is_file(given)):
        return given
    name = "given as text" if _is_text(given) else Path(given).name
    return f"{name} ({_digest(given)[:8]})"


def identify_chat_template(given: str | None) -> str | None:
    """Return what identifies a template in the fingerprint of a run: a name, or the content of a file or text."""
    if given is None or not (_is_text(given) or _is_file(given)):
        return given
    return f"sha256={_digest(given)}"


def _digest(given: str) -> str:
    return hashlib.sha256((read_chat_template(given) or "").encode()).hexdigest()


def _is_text(given: str) -> bool:
    return any(mark in given for mark in _MARKS)


def _is_file(given: str) -> bool:
    return given.startswith((".", "/", "~")) or given.endswith(_SUFFIXES)
