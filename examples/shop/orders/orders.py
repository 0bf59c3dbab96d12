"""Two ways in: requests of customers, and the clock."""
import base64
import json


def handler(event, context):
    if event.get("detail-type") == "Scheduled Event":
        print("the day is closed at", event["time"])
        return {"closed": event["time"]}
    body = event.get("body") or "{}"
    if event.get("isBase64Encoded"):
        # What the sender does not call JSON or text.
        body = base64.b64decode(body)
    try:
        order = json.loads(body)
    except ValueError:
        return {"statusCode": 400, "body": json.dumps({"error": "the body is not JSON"})}
    total = order.get("total")
    if isinstance(total, bool) or not isinstance(total, (int, float)) or total <= 0:
        return {"statusCode": 400, "body": json.dumps({"error": "total: a number above 0"})}
    print("an order of", total)
    return {"statusCode": 201, "body": json.dumps({"total": total, "state": "accepted"})}
