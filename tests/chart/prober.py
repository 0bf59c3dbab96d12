"""Calls TARGET until SIGTERM, RATE times a second by CALLERS at a time, each call by a connection of its own; then says how many were made, how many
a second, and how those that failed did."""

import collections
import http.client
import os
import signal
import threading
import time
import urllib.error
import urllib.request

target, rate, count = os.environ["TARGET"], float(os.environ["RATE"]), int(os.environ["CALLERS"])
ended, answers = threading.Event(), collections.Counter()
signal.signal(signal.SIGTERM, lambda *_: ended.set())


def call():
    """None, or what went wrong."""
    try:
        with urllib.request.urlopen(target, timeout=20) as answer:
            return None if answer.read() == b"steady" else "another answer"
    except urllib.error.HTTPError as error:
        told = error.read(500).decode(errors="replace")
        return f"{error.code} {told}"
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"


def caller(first):
    due = first
    while not ended.wait(max(0, due - time.monotonic())):
        answers[call()] += 1
        # One that was late catches up.
        due += count / rate


while call() and not ended.wait(0.5):
    pass  # Nobody promised that it answers yet.
print("first answer", flush=True)
begun = time.monotonic()
callers = [threading.Thread(target=caller, args=(begun + n / rate,)) for n in range(count)]
for thread in callers:
    thread.start()
for thread in callers:
    thread.join()
calls, good = answers.total(), answers.pop(None, 0)
print(f"{calls} calls, {calls / (time.monotonic() - begun):.0f} a second, {calls - good} failed")
for problem, number in answers.items():
    print(f"  {number} times: {problem}")
