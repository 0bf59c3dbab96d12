<?php

declare(strict_types=1);

namespace Davit;

/** The agent has gone away; there is nobody left to work for. */
final class Gone extends \RuntimeException
{
}

/** The Runtime API over one connection that stays open. HTTP as the agent speaks it, and no more. */
final class Client
{
    /** @var resource|null */
    private $socket = null;

    public function __construct(private readonly string $address)
    {
    }

    /** @return array{int, array<string, string>, string} status, headers with lower-case names, body */
    public function get(string $path): array
    {
        return $this->call("GET $path HTTP/1.1\r\nHost: {$this->address}\r\n\r\n");
    }

    /** @return array{int, array<string, string>, string} */
    public function post(string $path, string $body, array $headers = []): array
    {
        $more = '';
        foreach ($headers as $name => $value) {
            $more .= "$name: $value\r\n";
        }
        $length = strlen($body);
        return $this->call("POST $path HTTP/1.1\r\nHost: {$this->address}\r\nContent-Type: application/json\r\nContent-Length: $length\r\n$more\r\n$body");
    }

    private function call(string $bytes): array
    {
        if ($this->socket === null) {
            $socket = @stream_socket_client("tcp://{$this->address}", $code, $problem, 5, STREAM_CLIENT_CONNECT, stream_context_create(['socket' => ['tcp_nodelay' => true]]));
            if ($socket === false) {
                throw new Gone($problem);
            }
            // An event may be hours away.
            stream_set_timeout($socket, PHP_INT_MAX >> 24);
            $this->socket = $socket;
        }
        for ($sent = 0; $sent < strlen($bytes); $sent += $written) {
            $written = @fwrite($this->socket, $sent === 0 ? $bytes : substr($bytes, $sent));
            if ($written === false || $written === 0) {
                throw new Gone('closed');
            }
        }
        $status = (int) (explode(' ', $this->line(), 3)[1] ?? 0);
        $headers = [];
        while (($line = $this->line()) !== '') {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $headers[strtolower($name)] = trim($value);
        }
        $body = '';
        for ($left = (int) ($headers['content-length'] ?? 0); $left > 0; $left -= strlen($part)) {
            $part = fread($this->socket, min($left, 1 << 20));
            if ($part === false || $part === '') {
                throw new Gone('closed in the middle of an answer');
            }
            $body .= $part;
        }
        if (strtolower($headers['connection'] ?? '') === 'close') {
            fclose($this->socket);
            $this->socket = null;
        }
        return [$status, $headers, $body];
    }

    private function line(): string
    {
        $line = fgets($this->socket);
        if ($line === false) {
            throw new Gone('closed');
        }
        return rtrim($line, "\r\n");
    }
}
