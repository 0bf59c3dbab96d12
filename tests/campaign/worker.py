# What the campaign's functions do: record that they run, fail as often as they are told to, record that they are done.
# The recorder listens where the way out begins; nothing is done before it has answered, so no run escapes it.
import json
import socket
import struct
import time

recorder = None


def way_out():
    with open("/proc/net/route") as routes:
        for line in routes.read().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000":
                return socket.inet_ntoa(struct.pack("<L", int(fields[2], 16)))
    raise OSError("no way out")


def record(*what):
    global recorder
    try:
        if recorder is None:
            recorder = socket.create_connection((way_out(), PORT), timeout=5).makefile("rwb")
        recorder.write(json.dumps(what).encode() + b"\n")
        recorder.flush()
        return json.loads(recorder.readline())
    except BaseException:
        recorder = None
        raise


def handler(event, context):
    if "n" in event:
        what = event["n"]
    else:
        what = [event["resources"][0].rsplit("/", 1)[1], event["time"]]
    run, failures = record("start", context.aws_request_id, what)
    time.sleep(event.get("work", 0) / 1000)
    if failures < event.get("fails", 0):
        record("failed", run)
        raise RuntimeError("as asked")
    record("done", run)
    return {"run": run}
