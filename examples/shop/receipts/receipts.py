"""A subscriber that signs what it gets with a secret."""
import hashlib
import hmac
import json
import os

KEY = os.environ["RECEIPT_KEY"].encode()


def handler(event, context):
    data = json.dumps(event.get("data", event), sort_keys=True).encode()
    receipt = hmac.new(KEY, data, hashlib.sha256).hexdigest()[:16]
    # A delivery may be repeated; the same event gives the same receipt.
    print("receipt", receipt)
    return {"receipt": receipt}
