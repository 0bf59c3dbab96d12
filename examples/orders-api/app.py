"""Orders over HTTP: an API Gateway proxy handler (payload format 2.0) with routing of its own."""

import base64
import json
import uuid
from datetime import datetime, timezone

STATUSES = ("open", "packed", "shipped")

# Kept in this instance's memory: enough to show an API. A real one would ask a database.
ORDERS = {
    "demo-1": {"id": "demo-1", "item": "compass", "quantity": 1, "status": "open", "created": "2024-01-01T00:00:00+00:00"},
}


class Refusal(Exception):
    """An answer that is not success."""

    def __init__(self, status, message, **details):
        super().__init__(message)
        self.status, self.body = status, {"message": message, **details}


def handler(event, context):
    method = event["requestContext"]["http"]["method"]
    try:
        order_id = wanted_order(event)
        actions = {"GET": show, "PATCH": change, "DELETE": remove} if order_id else {"GET": search, "POST": create}
        if method not in actions:
            allowed = ", ".join(sorted(actions))
            return respond(405, {"message": f"{method} is not possible here"}, allow=allowed)
        return actions[method](event, order_id)
    except Refusal as refusal:
        return respond(refusal.status, refusal.body)


def wanted_order(event):
    """The order's id, or None for the collection. Works on routes with `{id}` and on the path address."""
    if "id" in (event.get("pathParameters") or {}):
        return event["pathParameters"]["id"]
    parts = [part for part in event["rawPath"].split("/") if part]
    if "orders" not in parts:
        raise Refusal(404, "Not found; try /orders")
    rest = parts[parts.index("orders") + 1 :]
    if len(rest) > 1:
        raise Refusal(404, "Not found")
    return rest[0] if rest else None


def search(event, _):
    query = event.get("queryStringParameters") or {}
    found = [order for order in ORDERS.values() if query.get("status") in (None, order["status"])]
    return respond(200, {"orders": found, "count": len(found)})


def create(event, _):
    given = body_of(event)
    problems = {}
    item, quantity = given.get("item"), given.get("quantity", 1)
    if not isinstance(item, str) or not 1 <= len(item.strip()) <= 80:
        problems["item"] = "a text of 1 to 80 characters is needed"
    if not isinstance(quantity, int) or isinstance(quantity, bool) or not 1 <= quantity <= 1000:
        problems["quantity"] = "a whole number from 1 to 1000 is needed"
    if unknown := sorted(given.keys() - {"item", "quantity"}):
        problems["unknown"] = ", ".join(unknown)
    if problems:
        raise Refusal(400, "The order is not valid", problems=problems)
    order = {
        "id": uuid.uuid4().hex[:12],
        "item": item.strip(),
        "quantity": quantity,
        "status": "open",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    ORDERS[order["id"]] = order
    print(f"order {order['id']}: {quantity} x {order['item']}")
    return respond(201, order, location=f"/orders/{order['id']}")


def show(_, order_id):
    return respond(200, existing(order_id))


def change(event, order_id):
    order, given = existing(order_id), body_of(event)
    status = given.get("status")
    if status not in STATUSES:
        raise Refusal(400, f"status must be one of {', '.join(STATUSES)}")
    order["status"] = status
    return respond(200, order)


def remove(_, order_id):
    if existing(order_id)["status"] == "shipped":
        raise Refusal(409, "A shipped order cannot be removed")
    del ORDERS[order_id]
    return {"statusCode": 204}


def existing(order_id):
    if order_id not in ORDERS:
        raise Refusal(404, f"No order {order_id}")
    return ORDERS[order_id]


def body_of(event):
    text = event.get("body") or ""
    try:
        if event.get("isBase64Encoded"):
            text = base64.b64decode(text).decode("utf-8")
        given = json.loads(text)
    except ValueError:
        raise Refusal(400, "The body must be JSON") from None
    if not isinstance(given, dict):
        raise Refusal(400, "The body must be a JSON object")
    return given


def respond(status, body, **headers):
    return {"statusCode": status, "headers": {"content-type": "application/json", **headers}, "body": json.dumps(body)}
