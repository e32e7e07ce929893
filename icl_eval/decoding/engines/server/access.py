"""Where a server is, and the key for it, which comes from the environment and is written nowhere."""

import os
import re
from urllib.parse import urlsplit

from icl_eval.errors import ConfigError

_SECRET = re.compile(r"//[^/\s,]*@|[?#]")
"""What precedes a host, and what follows a path."""
_HOST = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
_KEY = re.compile(r"[!-~]+")
"""The characters that a header can hold."""


def require_address(base_url: str) -> str:
    """Return an address of an API; raises ConfigError unless it is one, without secrets."""
    require_no_secret(base_url)
    try:
        parts = urlsplit(base_url)
        is_address = parts.scheme in ("http", "https") and bool(_HOST.fullmatch(parts.netloc)) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        is_address = False
    if not is_address:
        raise ConfigError(f"base_url={base_url}: must be an address such as http://localhost:8000/v1")
    return base_url.rstrip("/")


def require_no_secret(addresses: str) -> None:
    """Raise ConfigError if an address has a part that could hold a secret; the message does not show it."""
    if _SECRET.search(addresses):
        raise ConfigError(
            "base_url: must hold no user, password or parameters, which would be written into the report; put a key "
            "into the environment (engine.api_key_env)"
        )


def read_key(name: str, required: bool) -> str | None:
    """Return the API key in an environment variable; raises ConfigError if it is required and missing."""
    key = os.environ.get(name, "").strip()
    if required and not key:
        raise ConfigError(f"engine.api_key_env={name}: this environment variable is not set")
    if key and not _KEY.fullmatch(key):
        raise ConfigError(f"engine.api_key_env={name}: this environment variable holds a character that no key has")
    return key or None
