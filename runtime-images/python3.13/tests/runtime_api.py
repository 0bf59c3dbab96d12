"""A small Runtime API and a runner for the shim, for tests: real interpreter, real sockets, scripted events."""

import json
import os
import py_compile
import queue
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BOOTSTRAP = os.environ.get("DAVIT_BOOTSTRAP") or os.path.join(os.path.dirname(__file__), "..", "bootstrap.py")
API = "/2018-06-01/runtime"


class Answer:
    """What the runtime posted: kind is response, error or init/error."""

    def __init__(self, kind, request_id, headers, body, trailers):
        self.kind, self.request_id, self.headers, self.body, self.trailers = kind, request_id, headers, body, trailers

    @property
    def json(self):
        return json.loads(self.body)


class Shim:
    """The shim as a process with the given files as its function."""

    def __init__(self, files, handler="app.handler", concurrency=1, env=None, response_status=202, compiled=False, debugger=None):
        self.events, self.answers, self.parts = queue.Queue(), queue.Queue(), queue.Queue()
        self.folder = tempfile.TemporaryDirectory()
        for name, text in files.items():
            path = os.path.join(self.folder.name, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(textwrap.dedent(text))
            if compiled:
                py_compile.compile(path, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        self.init = {
            "function_name": "tested", "version": 7, "namespace": "default", "kind": "handler", "handler": handler,
            "env": env or {}, "memory_mb": 256, "timeout_seconds": 30, "concurrency": concurrency,
            "arn": "arn:davit:lambda:local:default:function:tested", "log_group": "/davit/default/tested", "log_stream": "s",
        }
        if debugger:
            self.init["debugger"] = debugger
        self.polling = threading.Semaphore(0)
        shim = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.path == "/davit/init":
                    return self.answer(200, {}, json.dumps(shim.init).encode())
                shim.polling.release()
                event = shim.events.get()
                if event is None:
                    self.close_connection = True
                    return None
                headers, body = event
                return self.answer(200, headers, body)

            def do_POST(self):
                trailers = {}
                if self.headers.get("transfer-encoding") == "chunked":
                    body, trailers = self.chunks()
                else:
                    body = self.rfile.read(int(self.headers["content-length"]))
                parts = self.path.removeprefix(API + "/").split("/")
                kind, request_id = (("init/error", "") if parts[0] == "init" else (parts[2], parts[1]))
                shim.answers.put(Answer(kind, request_id, dict(self.headers), body, trailers))
                self.answer(response_status if kind == "response" else 202, {}, b'{"status":"OK"}')

            def chunks(self):
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                    shim.parts.put(body)
                lines = iter(lambda: self.rfile.readline().strip().decode(), "")
                return body, dict(line.split(": ", 1) for line in lines)

            def answer(self, status, headers, body):
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        environment = dict(os.environ, AWS_LAMBDA_RUNTIME_API=f"127.0.0.1:{self.server.server_port}",
                           LAMBDA_TASK_ROOT=self.folder.name)
        self.process = subprocess.Popen([sys.executable, "-s", "-B", BOOTSTRAP], env=environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def send(self, event, request_id="11111111-1111-4111-8111-111111111111", raw=None, **headers):
        head = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 30_000),
            "Lambda-Runtime-Invoked-Function-Arn": self.init["arn"],
        }
        head.update({name.replace("_", "-"): value for name, value in headers.items()})
        self.events.put((head, raw if raw is not None else json.dumps(event).encode()))

    def answer(self):
        return self.answers.get(timeout=30)

    def call(self, event, **how):
        self.send(event, **how)
        return self.answer()

    def finish(self):
        """Hangs up and returns (exit code, everything printed)."""
        for _ in range(16):
            self.events.put(None)
        try:
            output, _ = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
            self.server.shutdown()
            self.server.server_close()
            self.folder.cleanup()
        return self.process.returncode, output

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.returncode is None:
            self.finish()
