"""Run vLLM in an environment of its own, whose Python runs this file; it imports nothing else from here.

It answers one line of JSON with one line of JSON, until its input ends:

    {"prompts": [[1, 2], …], "max_tokens": 48, "stop": ["Q:"]}   ─▶   [["text", 12], …]

The first line, before any question, is `"ready"`. What vLLM prints goes to stderr.
"""

import json
import os
import sys


def main() -> None:
    """Load the network in a folder, with the dtype and the largest number of tokens of a row, and answer."""
    folder, dtype, longest = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from vllm import LLM, SamplingParams  # after the lines above, as it prints

    engine = LLM(model=folder, dtype=dtype, enable_prefix_caching=True, max_model_len=int(longest), seed=0)
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        engine.reset_prefix_cache()
        options = SamplingParams(temperature=0, max_tokens=asked["max_tokens"], stop=asked["stop"])
        prompts = [{"prompt_token_ids": ids} for ids in asked["prompts"]]
        completed = [each.outputs[0] for each in engine.generate(prompts, options, use_tqdm=False)]
        print(json.dumps([(each.text, len(each.token_ids)) for each in completed]), file=replies, flush=True)


if __name__ == "__main__":  # the processes that vLLM starts import this file
    main()
