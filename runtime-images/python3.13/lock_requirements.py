"""Turns pyproject.toml, uv.lock or poetry.lock into a requirements file that pip installs without resolving.

Called by the build entry point: `lock_requirements.py <project folder>` prints requirements, one a line, with hashes
where the lock file has them. Only what the project itself needs: no development groups.
"""

import os
import sys
import tomllib

from pip._vendor.packaging.markers import Marker
from pip._vendor.packaging.utils import canonicalize_name


def wanted(marker):
    return not marker or Marker(marker).evaluate({"extra": ""})


def pinned(name, version, hashes):
    return " ".join([f"{name}=={version}"] + [f"--hash={digest}" for digest in sorted(set(hashes))])


def from_uv(lock):
    packages = {}
    for package in lock.get("package", []):
        packages.setdefault(package["name"], []).append(package)
    projects = [p for p in lock.get("package", []) if {"virtual", "editable", "directory"} & p.get("source", {}).keys()]
    queue = [d for p in projects for d in p.get("dependencies", []) if wanted(d.get("marker"))]
    lines, seen = {}, set()
    while queue:
        need = queue.pop()
        key = (need["name"], tuple(need.get("extra", ())))
        if key in seen:
            continue
        seen.add(key)
        for package in packages.get(need["name"], []):
            if need.get("version") not in (None, package.get("version")):
                continue
            if not {"virtual", "editable", "directory"} & package.get("source", {}).keys():
                files = package.get("wheels", []) + ([package["sdist"]] if "sdist" in package else [])
                lines[package["name"]] = pinned(package["name"], package["version"], [f["hash"] for f in files if "hash" in f])
            more = list(package.get("dependencies", []))
            for extra in need.get("extra", ()):
                more += package.get("optional-dependencies", {}).get(extra, [])
            queue += [d for d in more if wanted(d.get("marker"))]
    return lines.values()


def from_poetry(lock):
    for package in lock.get("package", []):
        if "main" not in package.get("groups", ["main"]) or package.get("optional") or package.get("category", "main") != "main":
            continue
        marker = package.get("markers", "")
        if isinstance(marker, dict):
            marker = marker.get("main", "")
        if wanted(marker):
            yield pinned(canonicalize_name(package["name"]), package["version"], [f["hash"] for f in package.get("files", [])])


def main(folder):
    def read(name):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                return tomllib.load(file)
        return None

    if (lock := read("uv.lock")) is not None:
        lines = from_uv(lock)
    elif (lock := read("poetry.lock")) is not None:
        lines = from_poetry(lock)
    else:
        lines = (read("pyproject.toml") or {}).get("project", {}).get("dependencies", [])
    for line in sorted(lines):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1])
