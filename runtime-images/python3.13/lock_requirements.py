"""Turns pyproject.toml, uv.lock or poetry.lock into a requirements file that pip installs without resolving.

Called by the build entry point: `lock_requirements.py <project folder>` prints requirements, one a line, with hashes
where the lock file has them. Only what the project itself needs: no development groups. A lock file that cannot be read, or that
does not name what pyproject.toml asks for, is an error that says which file and what to run.
"""

import os
import sys
import tomllib

from pip._vendor.packaging.markers import Marker
from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
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


def asked_for(pyproject):
    """Names of what the project itself asks for, in the standard's form and in Poetry's own."""
    for text in pyproject.get("project", {}).get("dependencies", []):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise SystemExit(f"error: pyproject.toml: project.dependencies: {text!r}: {error}") from None
        if wanted(str(requirement.marker or "")):
            yield canonicalize_name(requirement.name)
    for name, how in pyproject.get("tool", {}).get("poetry", {}).get("dependencies", {}).items():
        optional = isinstance(how, dict) and (how.get("optional") or "markers" in how or "python" in how)
        if name != "python" and not optional:
            yield canonicalize_name(name)


def check_fits(lock_file, lines, pyproject, command):
    """A lock from before a change of pyproject.toml would leave out what the function imports."""
    locked = {line.split("==")[0] for line in lines}
    missing = sorted(set(asked_for(pyproject)) - locked)
    if missing:
        raise SystemExit(f"error: {lock_file}: it does not have {', '.join(missing)}, which pyproject.toml asks for; "
                         f"run `{command}` and deploy again")


def main(folder):
    def read(name):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            try:
                with open(path, "rb") as file:
                    return tomllib.load(file)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise SystemExit(f"error: {name}: {error}") from None
        return None

    pyproject = read("pyproject.toml") or {}
    for name, lines_of, command in (("uv.lock", from_uv, "uv lock"), ("poetry.lock", from_poetry, "poetry lock")):
        if (lock := read(name)) is None:
            continue
        try:
            lines = list(lines_of(lock))
        except (KeyError, TypeError, AttributeError) as error:
            raise SystemExit(f"error: {name}: not as {command.split()[0]} writes it: {error!r}; run `{command}` and deploy again") from None
        check_fits(name, lines, pyproject, command)
        break
    else:
        lines = pyproject.get("project", {}).get("dependencies", [])
    for line in sorted(lines):
        print(line)


if __name__ == "__main__":
    main(sys.argv[1])
