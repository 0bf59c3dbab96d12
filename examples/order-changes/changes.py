"""Gets each committed change of a table: which row, and how it was before and is now."""


def handler(event, context):
    key, old, new = event["key"], event["old"] or {}, event["new"] or {}
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    # A call may be repeated after an error; the position of a change stays the same.
    print(event["operation"], key, "changed:", ", ".join(changed), "position", event["position"])
    return {"operation": event["operation"], "key": key, "changed": changed}
