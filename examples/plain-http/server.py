"""A plain web server on $PORT: pages, an echo, and a stream. It could run anywhere."""

import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED = time.time()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.endswith("/stream"):
            self.stream()
        elif path.endswith("/about"):
            self.answer(200, {"pid": os.getpid(), "age_seconds": round(time.time() - STARTED, 3)})
        else:
            self.answer(200, {"message": "a plain web server", "path": self.path, "method": "GET"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.answer(200, {"path": self.path, "bytes": len(body), "body": body.decode("utf-8", "replace")})

    def stream(self):
        """Five lines, one every tenth of a second: they arrive as they are written."""
        self.send_response(200)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(1, 6):
            line = f"line {number}\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(0.1)
        self.wfile.write(b"0\r\n\r\n")

    def answer(self, status, document):
        body = (json.dumps(document) + "\n").encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = ("127.0.0.1", int(os.environ["PORT"]))
    print("listening on", address, flush=True)
    ThreadingHTTPServer(address, Handler).serve_forever()
