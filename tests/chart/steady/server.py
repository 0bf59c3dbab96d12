"""Answers, and tries what it can reach: `?to=host:port`."""

import http.server
import os
import socket
import urllib.parse


def reach(host, port):
    try:
        with socket.create_connection((host, int(port)), 3) as wire:
            return "reached itself" if wire.getsockname()[0] == host else "reached"
    except OSError as error:
        return f"not reached: {error}"


class Steady(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        to = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("to")
        body = (reach(*to[0].rsplit(":", 1)) if to else "steady").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # As jobs of the queue come.
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    # Callers come by connections of their own, many at once.
    request_queue_size = 64


Server(("127.0.0.1", int(os.environ["PORT"])), Steady).serve_forever()
