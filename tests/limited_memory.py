"""Decodes with less memory than the rows take that are asked for; prints how many were tried, and whether all is right.

A program of its own: a limit of a process's memory cannot be tried out in the tests' own.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any

from architectures import VOCABULARY, build

from icl_eval.decoding import Completion, StreamDecoder
from icl_eval.decoding import stream as greedy
from icl_eval.prompts.building import EncodedPrompt, Prompt

_ROWS, _TOKENS, _NEW_TOKENS = 256, 200, 2


def main(megabytes: int) -> None:
    """Decode with few rows and all memory, and then with many rows and `megabytes` beyond what is in use."""
    model = build("llama")
    ids = [[(row * 31 + place * (row % 7 + 1)) % VOCABULARY for place in range(_TOKENS)] for row in range(_ROWS)]
    prompts = [EncodedPrompt(Prompt(str(row), None, None), (), tuple(ids[row])) for row in range(_ROWS)]

    def decode(batch_size: int) -> dict[str, tuple[int, ...]]:
        events = StreamDecoder(model, _NEW_TOKENS, batch_size=batch_size).stream(prompts)
        return {event.example_id: event.token_ids for event in events if isinstance(event, Completion)}

    expected = decode(4)
    tried, open_session = [], greedy.open_session

    def listen(*given: Any) -> Any:
        tried.append(given[-1].num_rows)
        return open_session(*given)

    greedy.open_session = listen
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + megabytes * 2**20,) * 2)
    print(json.dumps({"tried": tried, "right": decode(_ROWS) == expected}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
