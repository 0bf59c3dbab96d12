"""Compiles a source's modules as `build` does with compileall, without a file system: what came is the event.

Called once by the controller, as the handler of a warm container that runs nothing else, with
{"files": {path: base64}}; answers with the files to add, and a note for the build's log if some are not valid Python.
"""

import base64
import importlib._bootstrap_external as external
import importlib.machinery
import importlib.util
import warnings

TASK_ROOT = "/var/task/"


def handler(event, _context):
    # compileall's own go to a file that nobody reads.
    warnings.simplefilter("ignore")
    compiled, note = {}, None
    for path, content in sorted(event["files"].items()):
        source = base64.b64decode(content)
        loader = importlib.machinery.SourceFileLoader("<py_compile>", TASK_ROOT + path)
        try:
            code = loader.source_to_code(source, TASK_ROOT + path)
        except (SyntaxError, UnicodeError):
            note = "note: some files are not valid Python and were not compiled"
            continue
        # Hash-based and unchecked: valid whatever times the files get when they are unpacked.
        pyc = external._code_to_hash_pyc(code, importlib.util.source_hash(source), False)
        target = importlib.util.cache_from_source(TASK_ROOT + path)
        compiled[target.removeprefix(TASK_ROOT)] = base64.b64encode(pyc).decode()
    return {"files": compiled, "note": note}
