"""A proxy before a real server that spoils some of its answers, as networks and overloaded servers do.

429          too many requests                   hang        no answer until the client gives up
429:N        … with `Retry-After: N`             reset       the connection breaks in the middle of the body
500          an internal error                   truncated   a body that ends early, in a tidy response
html         a page instead of JSON              unfinished  an answer without a finish reason
gone         from here on, nobody listens    301, 308    the address of the server itself, to ask there
"""

import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG_SECONDS = 30


class FaultProxy:
    """Forwards requests, but for those that `fault_of(number)` names a fault for; numbers of POSTs begin at 0."""

    def __init__(self, target, fault_of):
        self.target = target.removesuffix("/v1")
        self.fault_of = fault_of
        self.lock = threading.Lock()
        self.times = []

    def number(self):
        with self.lock:
            self.times.append(time.monotonic())
            return len(self.times) - 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.forward(None)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        fault = self.server.proxy.fault_of(self.server.proxy.number())
        if fault is None:
            return self.forward(body)
        status, _, wait = fault.partition(":")
        if status.isdigit():
            more = {"retry-after": wait} if wait else {}
            if status.startswith("3"):
                more["location"] = self.server.proxy.target + self.path
            return self.reply(int(status), json.dumps({"error": {"message": "not now"}}).encode(), **more)
        return getattr(self, fault)(body)

    def hang(self, body):
        time.sleep(HANG_SECONDS)
        self.close_connection = True

    def gone(self, body):
        self.close_connection = True

    def reset(self, body):
        status, data = self.ask(body)
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    def truncated(self, body):
        status, data = self.ask(body)
        self.reply(status, data[: len(data) // 2])

    def html(self, body):
        self.reply(200, b"<html>Welcome</html>", **{"content-type": "text/html"})

    def unfinished(self, body):
        status, data = self.ask(body)
        answer = json.loads(data)
        for choice in answer["choices"]:
            choice["finish_reason"] = None
            choice["text"] = choice["text"][:1]
        self.reply(status, json.dumps(answer).encode())

    def forward(self, body):
        self.reply(*self.ask(body))

    def ask(self, body):
        headers = {"content-type": "application/json", "authorization": self.headers.get("authorization", "")}
        request = urllib.request.Request(self.server.proxy.target + self.path, body, headers)
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def reply(self, status, data, **headers):
        self.send_response(status)
        for name, value in ({"content-type": "application/json", "content-length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def spoiling(target, fault_of):
    """Put a proxy before a server, and yield its address up to and including /v1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.proxy = FaultProxy(target, fault_of)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
