"""Lock files of uv and Poetry as these tools write them, turned into what pip installs."""

import contextlib
import io
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import lock_requirements

PYPROJECT = """
[project]
name = "f"
version = "1"
dependencies = ["Markdown-it-py>=3", "colorama; sys_platform == 'win32'"]
"""
UV = """
version = 1
[[package]]
name = "f"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "markdown-it-py" }, { name = "colorama", marker = "sys_platform == 'win32'" }]
[package.dev-dependencies]
dev = [{ name = "pytest" }]
[[package]]
name = "markdown-it-py"
version = "3.0.0"
source = { registry = "https://index.test/simple" }
dependencies = [{ name = "mdurl" }]
sdist = { url = "x", hash = "sha256:b", size = 1 }
wheels = [{ url = "x", hash = "sha256:a", size = 1 }]
[[package]]
name = "mdurl"
version = "0.1.2"
source = { registry = "https://index.test/simple" }
wheels = [{ url = "x", hash = "sha256:c", size = 1 }]
[[package]]
name = "colorama"
version = "0.4"
source = { registry = "https://index.test/simple" }
[[package]]
name = "pytest"
version = "8"
source = { registry = "https://index.test/simple" }
"""
POETRY = """
[[package]]
name = "markdown-it-py"
version = "3.0.0"
optional = false
groups = ["main"]
files = [{file = "m.whl", hash = "sha256:a"}]
[[package]]
name = "mdurl"
version = "0.1.2"
optional = false
groups = ["main"]
files = [{file = "u.whl", hash = "sha256:c"}]
[[package]]
name = "colorama"
version = "0.4"
optional = false
groups = ["main"]
markers = "sys_platform == \\"win32\\""
files = []
[[package]]
name = "pytest"
version = "8"
optional = false
groups = ["dev"]
files = []
"""


def lines(**files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            with open(os.path.join(folder, {"uv": "uv.lock", "poetry": "poetry.lock"}.get(name, "pyproject.toml")), "w") as file:
                file.write(text)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            lock_requirements.main(folder)
        return out.getvalue().splitlines()


class LockFiles(unittest.TestCase):
    def test_uv(self):
        self.assertEqual(lines(project=PYPROJECT, uv=UV), ["markdown-it-py==3.0.0 --hash=sha256:a --hash=sha256:b",
                                                           "mdurl==0.1.2 --hash=sha256:c"])

    def test_poetry(self):
        self.assertEqual(lines(project=PYPROJECT, poetry=POETRY), ["markdown-it-py==3.0.0 --hash=sha256:a",
                                                                   "mdurl==0.1.2 --hash=sha256:c"])

    def test_no_lock(self):
        self.assertEqual(len(lines(project=PYPROJECT)), 2)

    def test_what_is_wrong_is_named(self):
        stale = PYPROJECT.replace('"Markdown-it-py>=3"', '"Markdown-it-py>=3", "requests"')
        poetry_style = PYPROJECT + '[tool.poetry.dependencies]\npython = "^3.13"\nhttpx = "*"\n'
        for files, words in [
            ({"project": stale, "uv": UV}, ["uv.lock", "requests", "uv lock"]),
            ({"project": stale, "poetry": POETRY}, ["poetry.lock", "requests", "poetry lock"]),
            ({"project": poetry_style, "poetry": POETRY}, ["poetry.lock", "httpx"]),
            ({"project": PYPROJECT, "uv": "version = \n"}, ["uv.lock", "line 1"]),
            ({"project": PYPROJECT, "uv": "[[package]]\nversion = '1'\n"}, ["uv.lock", "uv lock"]),
            ({"project": "[project]\ndependencies = ['a b c']\n", "uv": UV}, ["pyproject.toml", "a b c"]),
        ]:
            with self.assertRaises(SystemExit) as raised:
                lines(**files)
            for word in words:
                self.assertIn(word, str(raised.exception))


if __name__ == "__main__":
    unittest.main()
