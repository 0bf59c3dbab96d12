"""A tiny HTTP/1.1 client for the Lambda Runtime API: one kept-alive connection, no imports beyond socket.

Used by bootstrap.py. `http.client` would do the same with an email parser on every answer.
"""

import socket

MAX_HEAD = 2 * 1024 * 1024


class ConnectionLost(Exception):
    """The agent has gone away; there is nobody left to work for."""


class RuntimeClient:
    """Speaks to one address, `host:port`; over `connected`, if that is given, until it closes."""

    def __init__(self, address, connected=None):
        host, _, port = address.rpartition(":")
        self._address = (host or "127.0.0.1", int(port))
        self._head = f"Host: {address}\r\n"
        self._socket = connected
        self._buffer = b""

    def close(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer = b""

    def get(self, path):
        return self._call(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode(), b"")

    def post(self, path, body, content_type="application/json", headers=()):
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = (
            f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n{lines}\r\n"
        )
        return self._call(head.encode("latin-1", "replace"), body)

    def post_stream(self, path, parts, content_type, failed):
        """Posts what an iterator of bytes gives, as it gives it. What it raises becomes trailers, by `failed`."""
        head = (
            f"POST {path} HTTP/1.1\r\n{self._head}Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n"
            "Lambda-Runtime-Function-Response-Mode: streaming\r\n"
            "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n"
        )
        self._connect()
        try:
            self._socket.sendall(head.encode("latin-1", "replace"))
            end = b"0\r\n\r\n"
            while True:
                try:
                    part = next(parts)
                except StopIteration:
                    break
                except Exception as error:
                    trailers = "".join(f"{name}: {value}\r\n" for name, value in failed(error))
                    end = f"0\r\n{trailers}\r\n".encode("latin-1", "replace")
                    break
                if part:
                    self._socket.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            self._socket.sendall(end)
            return self._answer()
        except OSError as error:
            self.close()
            raise ConnectionLost(str(error)) from error

    def _connect(self):
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _call(self, head, body):
        """Sends one request, returns (status, headers with lower-case names, body)."""
        self._connect()
        try:
            if len(body) < 65536:
                self._socket.sendall(head + body)
            else:
                self._socket.sendall(head)
                self._socket.sendall(body)
            return self._answer()
        except OSError as error:
            self.close()
            raise ConnectionLost(str(error)) from error

    def _answer(self):
        status, headers = self._read_head()
        while status == 100:
            status, headers = self._read_head()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._read_chunks()
        else:
            body = self._read_exactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, headers, body

    def _read_head(self):
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise ConnectionLost("endless header")
            self._fill()
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        self._buffer = self._buffer[end + 4 :]
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(lines[0].split(" ", 2)[1]), headers

    def _read_exactly(self, size):
        if len(self._buffer) < size:
            parts, have = [self._buffer], len(self._buffer)
            while have < size:
                part = self._socket.recv(min(1 << 20, max(65536, size - have)))
                if not part:
                    raise ConnectionLost("closed in the middle of an answer")
                parts.append(part)
                have += len(part)
            self._buffer = b"".join(parts)
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return body

    def _read_chunks(self):
        chunks = []
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                self._fill()
            size = int(self._buffer[:end].split(b";")[0], 16)
            self._buffer = self._buffer[end + 2 :]
            if size == 0:
                while not self._buffer.startswith(b"\r\n"):
                    if (end := self._buffer.find(b"\r\n\r\n")) >= 0:
                        self._buffer = self._buffer[end + 2 :]
                    else:
                        self._fill()
                self._buffer = self._buffer[2:]
                return b"".join(chunks)
            chunks.append(self._read_exactly(size))
            self._read_exactly(2)

    def _fill(self):
        part = self._socket.recv(65536)
        if not part:
            raise ConnectionLost("closed")
        self._buffer += part
