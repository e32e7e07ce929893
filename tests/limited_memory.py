"""Decode with too little memory for the requested rows; print how many were tried, and whether the result is right.

It is a separate program, because a memory limit applies to a whole process and must not apply to that of the tests.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from architectures import VOCABULARY, build

from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.prompts.building import EncodedPrompt, Prompt

_ROWS, _TOKENS, _NEW_TOKENS = 256, 200, 2


def main(megabytes: int) -> None:
    """Decode a few rows with all memory, then many rows with only `megabytes` more than is in use."""
    model = build("llama")
    ids = [[(row * 31 + place * (row % 7 + 1)) % VOCABULARY for place in range(_TOKENS)] for row in range(_ROWS)]
    prompts = [EncodedPrompt(Prompt(str(row), None, None), (), tuple(ids[row])) for row in range(_ROWS)]

    def decode(batch_size: int) -> dict[str, tuple[int, ...]]:
        events = StreamDecoder(model, _NEW_TOKENS, batch_size=batch_size).stream(prompts)
        return {event.example_id: event.token_ids for event in events if isinstance(event, Completion)}

    expected = decode(4)
    tried, decode_session = [], StreamDecoder._decode_session

    def listen(*given: Any) -> Any:
        tried.append(given[-1])  # the number of rows
        return decode_session(*given)

    StreamDecoder._decode_session = listen
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + megabytes * 2**20,) * 2)
    print(json.dumps({"tried": tried, "right": decode(_ROWS) == expected}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
