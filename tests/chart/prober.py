"""Calls TARGET one time after the other, each by a connection of its own, until SIGTERM; then says how many calls failed, and how."""

import collections
import http.client
import os
import signal
import time
import urllib.request

target = os.environ["TARGET"]
ended, calls, failures = [], 0, collections.Counter()
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
while not ended:
    begun = time.monotonic()
    try:
        with urllib.request.urlopen(target, timeout=20) as answer:
            problem = None if answer.read() == b"steady" else "another answer"
    except (OSError, http.client.HTTPException) as error:
        problem = f"{type(error).__name__}: {error}"
    if not calls and problem:
        # Nobody promised that it answers yet.
        time.sleep(0.5)
        continue
    if not calls:
        print(f"first answer after {time.monotonic() - begun:.3f} s")
    calls += 1
    if problem:
        failures[problem] += 1
    time.sleep(0.01)
print(f"{calls} calls, {failures.total()} failed")
for problem, number in failures.items():
    print(f"  {number} times: {problem}")
