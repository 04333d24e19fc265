"""An OpenAI-compatible server for tests, which answers, or misbehaves as it is told."""
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, finish="stop", **usage):
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, **usage}}


class Server(ThreadingHTTPServer):
    "Answers 'right: ' and what was asked, or does what `misbehave` says; a context manager."
    daemon_threads, request_queue_size = True, 256

    def __init__(self, misbehave=lambda handler, asked: False, pause=0.0, port=0, models=("m", "m-tuned")):
        self.misbehave, self.pause, self.models, self.lock, self.dead = (misbehave, pause, models, threading.Lock(),
                                                                         False)
        self.asked, self.right, self.bodies, self.busy, self.busiest = [], [], [], 0, 0
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, *_): pass  # clients that go away are part of the game

    @property
    def url(self): return f"http://127.0.0.1:{self.server_port}/v1"

    def count(self, change):
        with self.lock:
            self.busy += change
            self.busiest = max(self.busiest, self.busy)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.dead = True
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def do_GET(self): self.send(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        with self.server.lock: self.server.asked.append(asked); self.server.bodies.append(body)
        self.server.count(1)
        time.sleep(self.server.pause)
        self.server.count(-1)  # before anything is sent: the client may come again at once
        if self.server.dead: self.drop()
        elif not self.server.misbehave(self, asked):
            with self.server.lock: self.server.right.append(asked)
            self.send(200, completion(f"right: {asked}"))

    def send(self, status, body, headers=(), length=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(length or len(content)),
                            **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        return True

    def drop(self):
        "Break the connection, whatever was said so far."
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return True
