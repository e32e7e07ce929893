"""Run a model on a server that speaks OpenAI's API: vLLM, SGLang, llama.cpp, a rented endpoint.

    prompts ─▶ requests ─▶ client, some at a time and again if need be ─▶ answers ─▶ Completion, ScoredContinuation

The server owns batching, its prefix cache and its devices. This package owns the tokens of prompts, where completions
end, and what is recorded.

    engine      engine=openai: its options, and what they refuse
runner      completions and scores, asked for and put together
    requests    the bodies of requests, with every sampling parameter
    access      the address, and the key from the environment
client      one request: rate limits, retries, waiting, and no secrets in messages
    schema      what an answer must have
failures    why a request has no answer
    dispatch    many requests, a bounded number at a time
    probing     what the server does with a request, found out before money is spent
    answers     from an answer to a completion, cut by this package's own stopping code
    echoes      from echoed log-probabilities to scores
"""
