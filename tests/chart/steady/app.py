"""Answers, and tries what it can reach: `?to=host:port`."""

import socket


def handler(event, context):
    to = (event.get("queryStringParameters") or {}).get("to")
    if not to:
        return {"statusCode": 200, "body": "steady"}
    host, port = to.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError as error:
        return {"statusCode": 200, "body": f"not reached: {error}"}
    return {"statusCode": 200, "body": "reached"}
