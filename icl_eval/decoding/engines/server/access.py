"""Where a server is, and the key for it, which comes from the environment and is written nowhere."""

import os
import re
from urllib.parse import urlsplit

from icl_eval.errors import ConfigError

_SECRET = re.compile(r"//[^/\s,]*@|[?#]")
"""What precedes a host, and what follows a path."""


def require_address(base_url: str) -> str:
    """Return an address of an API; raises ConfigError unless it is one, without secrets."""
    require_no_secret(base_url)
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
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
    return key or None
