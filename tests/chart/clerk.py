"""Hands JOBS calls to davit's queue, ten a second, whatever becomes of davit meanwhile. Then waits until all that were accepted are done, and
says how many that were."""

import http.client
import json
import os
import time
import urllib.request

PATIENCE = 120
token, jobs = os.environ["TOKEN"], int(os.environ["JOBS"])
accepted, refused = [], 0


def ask(url, body=None):
    request = urllib.request.Request(url, data=body, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def state(job):
    try:
        return ask(f"http://davit-controller/v1/namespaces/default/invocations/{job}")["state"]
    except (OSError, http.client.HTTPException) as error:
        return str(error)


print("begins", flush=True)
for number in range(jobs):
    began = time.monotonic()
    try:
        url = "http://davit-gateway/v1/namespaces/default/functions/steady/invocations?async=true"
        accepted.append(ask(url, json.dumps({"n": number}).encode())["invocation_id"])
    except (OSError, http.client.HTTPException):
        # Nothing was promised.
        refused += 1
    time.sleep(max(0, began + 0.1 - time.monotonic()))

end, left = time.monotonic() + PATIENCE, accepted
while left and time.monotonic() < end:
    states = {job: state(job) for job in left}
    left = [job for job in left if states[job] != "succeeded"]
    time.sleep(0.5)
print(f"{len(accepted)} accepted, {refused} refused, {len(left)} not done")
for job in left[:10]:
    print(f"  {job}: {states[job]}")
