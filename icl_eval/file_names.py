"""File names: made from texts of any length, for file systems that count a name in bytes."""

import hashlib


def shortened(name: str, text: str, size: int) -> str:
    """Return as much of a name as there is room for, with a digest of the text that it stands for.

    Args:
        name: What is readable of the text.
        text: What another name must differ for.
        size: How many bytes of the name may stay; 9 more are the digest's.
    """
    return f"{name.encode()[:size].decode(errors='ignore')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
