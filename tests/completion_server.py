"""A server that speaks OpenAI's API as vLLM does: token ids in and out, log-probabilities of given text.

It runs a real network one request at a time, by plain forward passes of its own. `quirks` make it behave like other
servers: `echo_off_by_one` (llama-cpp-python), `penalty` (a sampler that no request turns off), `no_ids`, `no_stop`
(stop strings are ignored), `other_tokenizer`, `short` (a smaller limit than the model's, applied in silence),
`no_text`, `no_usage`, `no_models`, `error` (an error with the status 200), `strange_ids` (beyond the vocabulary), `nan`
and `zero` (log-probabilities), `hang` (no answer to a prompt, ever).
"""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = "tiny"
KEY = "sk-not-for-any-file-0123456789"


class CompletionServer:
    """The network behind the server."""

    def __init__(self, folder, quirks=(), max_model_len=256, key=None):
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.quirks = set(quirks)
        self.max_model_len = max_model_len
        self.key = key
        self.bodies = []
        self.lock = threading.Lock()

    def answer(self, path, body):
        """Return the status and the content of an answer."""
        if "hang" in self.quirks and body.get("max_tokens") == 6:
            self.bodies.append(body)
            threading.Event().wait(60)
        with self.lock:
            self.bodies.append(body)
            if "error" in self.quirks:
                return 200, {"error": {"message": "quota exceeded", "code": 429}}
            if path == "/v1/chat/completions":
                return 200, self._chat(body)
            if not isinstance(body["prompt"], str) and "no_ids" in self.quirks:
                return 400, {"error": {"message": "prompt must be a string."}}
            return 200, self._complete(body)

    @torch.inference_mode()
    def _logprobs(self, ids):
        return self.network(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)

    def _complete(self, body):
        ids = self._encode(body["prompt"])
        limit = min(body["max_tokens"], (32 if "short" in self.quirks else self.max_model_len) - len(ids))
        new, numbers, reason = self._generate(ids, limit, body)
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        stop = self._find_stop(new, body)
        choice = {"index": 0, "text": text if stop is None else text[: text.index(stop)], "finish_reason": reason}
        choice["stop_reason"] = stop
        if "no_text" in self.quirks:
            choice["text"] = None
        if "strange_ids" in self.quirks and body["max_tokens"] == 6:
            new = [100_000 + token for token in new]
        if body.get("return_token_ids") and "no_ids" not in self.quirks:
            choice |= {"token_ids": new, "prompt_token_ids": ids}
        if body.get("logprobs"):
            choice["logprobs"] = self._report([*(self._echo(ids) if body.get("echo") else []), *numbers])
        return self._finish([choice], len(ids), len(new))

    def _generate(self, ids, limit, body):
        """Return new tokens, the log-probability of each with the best one, and why they end."""
        new, numbers = [], []
        while len(new) < limit:
            row = self._logprobs([*ids, *new])[-1]
            preferred = row.clone()
            if "penalty" in self.quirks and new:
                preferred[ids + new] -= 20.0
            new.append(int(preferred.argmax()))
            numbers.append((float(row[new[-1]]), float(row.max())))
            if new[-1] == self.network.generation_config.eos_token_id or self._find_stop(new, body) is not None:
                return new, numbers, "stop"
        return new, numbers, "length"

    def _report(self, numbers):
        for quirk, value in (("nan", float("nan")), ("zero", 0.0)):
            if quirk in self.quirks:
                numbers = [(value, value)] * len(numbers)
        return {
            "tokens": ["?"] * len(numbers),
            "token_logprobs": [number for number, _ in numbers],
            "top_logprobs": [None if best is None else {"best": best} for _, best in numbers],
        }

    def _echo(self, ids):
        rows = self._logprobs(ids)
        shift = 0 if "echo_off_by_one" in self.quirks else 1
        pairs = [(None, None)]
        for place in range(1, len(ids)):
            row = rows[place - shift]
            pairs.append((float(row[ids[place]]), float(row.max())))
        return pairs

    def _chat(self, body):
        text = self.tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        answer = self._complete({**body, "prompt": text, "logprobs": None})
        choice = answer["choices"][0]
        message = {"role": "assistant", "content": choice.pop("text")}
        return {**answer, "choices": [{**choice, "message": message}]}

    def _encode(self, prompt):
        if isinstance(prompt, str):
            ids = list(self.tokenizer(prompt)["input_ids"])
            return [*ids, ids[0]] if "other_tokenizer" in self.quirks else ids
        return list(prompt)

    def _find_stop(self, new, body):
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        stops = [] if "no_stop" in self.quirks else body.get("stop", [])
        return min((stop for stop in stops if stop in text), key=text.index, default=None)

    def _finish(self, choices, num_prompt, num_new):
        usage = {"prompt_tokens": num_prompt, "completion_tokens": num_new, "total_tokens": num_prompt + num_new}
        answer = {"model": NAME, "system_fingerprint": "tiny-1", "choices": choices, "usage": usage}
        return {**answer, "usage": None} if "no_usage" in self.quirks else answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        served = self.server.served
        if self.path == "/v1/models" and "no_models" in served.quirks:
            self.reply(500, {"detail": "no list"})
        elif self.path == "/v1/models":
            self.reply(200, {"data": [{"id": NAME, "root": "tiny", "max_model_len": served.max_model_len}]})
        elif self.path == "/version":
            self.reply(200, {"version": "0.0.tiny"})
        else:
            self.reply(404, {"detail": "Not Found"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = self.server.served.key
        if key and self.headers["authorization"] != f"Bearer {key}":
            self.reply(401, {"error": {"message": f"Incorrect API key: {self.headers['authorization'][7:]}"}})
        else:
            self.reply(*self.server.served.answer(self.path, body))

    def reply(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(served):
    """Serve on loopback, and yield the address up to and including /v1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.served = served
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
