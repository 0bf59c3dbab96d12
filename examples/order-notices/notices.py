"""A subscriber: gets each message of its topic that passes its filter, as a CloudEvent."""


def handler(event, context):
    order = event["data"]
    notice = f"{event['subject']}: {order['total']:.2f} from {order.get('customer', 'somebody')}"
    # A delivery may be repeated; its id stays the same, and so does the event's.
    print("notice", event["id"], notice)
    return {"notice": notice}
