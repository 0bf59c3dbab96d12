#!/usr/bin/env python3
"""Writes the table of values into the chart's README, from the comments in values.yaml that begin with `# --`.

Usage: reference.py [--check]: with it nothing is written, and a table that says something else is an error.
"""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "charts" / "davit"
BEGIN, END = "<!-- values: written by tests/chart/reference.py -->", "<!-- end of values -->"


def described(text):
    """(path, description) of each value that has one, in the file's order."""
    path, about = [], None
    for line in text.splitlines():
        comment = re.match(r" *# ?(.*)", line)
        key = re.match(r"( *)([A-Za-z0-9_.-]+):", line)
        if comment:
            words = comment[1]
            if words.startswith("-- "):
                about = words[3:]
            elif about is not None:
                about += " " + words.strip()
        elif key:
            depth = len(key[1]) // 2
            path = path[:depth] + [key[2]]
            if about is not None:
                yield tuple(path), about
            about = None
        else:
            about = None


def leaves(values, path=()):
    """The paths of what is not a map of further values."""
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    else:
        yield path


def spelled(path):
    return ".".join(path)


def table(text):
    """The table; a value that nobody describes is an error."""
    values = yaml.safe_load(text)
    rows = dict(described(text))
    bare = [p for p in leaves(values) if not any(p[: n + 1] in rows for n in range(len(p)))]
    if bare:
        raise SystemExit(f"without a description: {', '.join(map(spelled, bare))}")
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, about in rows.items():
        default = values
        for key in path:
            default = default[key]
        whole = isinstance(default, dict) and any(isinstance(v, dict) for v in default.values())
        shown = "see `values.yaml`" if whole else f"`{json.dumps(default)}`"
        about = about.replace("|", "\\|")
        lines.append(f"| `{spelled(path)}` | {shown} | {about} |")
    return "\n".join(lines)


def main():
    readme = CHART / "README.md"
    was = readme.read_text()
    before, rest = was.split(BEGIN)
    _, after = rest.split(END)
    now = f"{before}{BEGIN}\n{table((CHART / 'values.yaml').read_text())}\n{END}{after}"
    if now == was:
        return
    if "--check" in sys.argv[1:]:
        raise SystemExit(f"{readme} says something else than values.yaml: run tests/chart/reference.py")
    readme.write_text(now)


if __name__ == "__main__":
    main()
