import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer("text/plain; charset=utf-8", f"Hello from {self.path}\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/events":
            return self.answer("text/plain; charset=utf-8", f"{len(body)} bytes for {self.path}\n")
        # Events of `davit invoke`, schedules and the queue arrive here; any 2xx answer is their result.
        event = json.loads(body or "{}")
        self.answer("application/json", json.dumps({"seen": event}))

    def answer(self, kind, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
