"""The Python runtime: started before the function is known, so that a cold start has little left to do.

Life: import what functions usually import, wait for `/davit/init`, become the function, serve invocations until the
agent hangs up. Errors have the shapes of AWS's own runtime client. Started by the agent (DAVIT_RUNTIME_COMMAND).
"""

import gc
import sys

# Garbage collection while only importing finds nothing; what is here now is never garbage.
gc.disable()
_AT_START = frozenset(sys.modules)

import _imp
import binascii
import decimal
import importlib
import importlib.util
import json
import logging
import marshal as marshal_code
import os
import pkgutil
import socket
import time
import traceback
import types

# The script's own folder stays on the path only as long as it is needed: a function must not find these modules.
from lambda_context import LambdaContext
from runtime_client import ConnectionLost, RuntimeClient

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
del sys.modules["lambda_context"], sys.modules["runtime_client"]

API = "/2018-06-01/runtime"
TASK_ROOT = os.environ.get("LAMBDA_TASK_ROOT", "/var/task")
# These belong together: if a function brings one of its own, it gets its own of all of them.
_SDK = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
_OWN = frozenset(sys.modules)
_PATH = (TASK_ROOT, "/opt/python", "/opt/python/lib/python3.13/site-packages", "/var/runtime")
# What every function finds in its environment unless it says otherwise; a cold start only looks for differences.
_REGION = "local"
_FIXED = {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.13", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
          "LAMBDA_TASK_ROOT": TASK_ROOT, "LAMBDA_RUNTIME_DIR": "/var/runtime"}
_USUAL = {"TZ": ":UTC", "LANG": "C.UTF-8", "AWS_REGION": _REGION, "AWS_DEFAULT_REGION": _REGION,
          "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR"}
# Where the image has debugpy: beside the interpreter's own path, so that only a function to be debugged finds it.
_DEBUGGER = "/opt/davit/debugger"
# Where a bundle keeps its layers; the image shows them below /opt.
_LAYERS = ".opt"
# Preloaded modules by their first name, without those that always stay.
_preloaded = {}
# What lies in the task folder, by first name.
_task_files = {}


class Fault(Exception):
    """A failure that the runtime itself names."""

    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.kind, self.message, self.trace = kind, message, list(trace)


def preload():
    """Imports what most functions import; a missing package is no reason not to start."""
    for name in ("asyncio", "ssl", "http.client", "urllib.request", "urllib.parse", "logging.handlers", "email.message",
                 "datetime", "uuid", "hashlib", "hmac", "base64", "re", "random", "secrets", "csv", "dataclasses",
                 "concurrent.futures", "subprocess", "tempfile", "sqlite3", "zoneinfo", "typing", "enum", "boto3",
                 "boto3.session", "botocore.session", "botocore.client", "botocore.httpsession", "botocore.parsers",
                 "botocore.retries.standard", "botocore.credentials", "botocore.signers", "botocore.endpoint",
                 "botocore.handlers", "botocore.waiter", "botocore.paginate", "s3transfer"):
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    try:
        warm_sdk()
    except Exception:
        pass


def warm_sdk():
    """Makes clients once, so that the function's first one finds modules, patterns and service descriptions loaded.

    The clients are thrown away; they never spoke to anybody. What their loader read stays, and every later loader starts
    with it: otherwise each session lists 1,200 folders before it makes its first client.
    """
    import boto3
    import botocore.session

    session = boto3.session.Session(aws_access_key_id="none", aws_secret_access_key="none", region_name="us-east-1")
    session.resource("dynamodb")
    for service in ("s3", "sqs"):
        session.client(service)
    learned = dict(session._session.get_component("data_loader")._cache)
    create_loader = botocore.session.create_loader

    def create_warm_loader(search_path_string=None):
        loader = create_loader(search_path_string)
        if search_path_string is None:
            loader._cache.update(learned)
        return loader

    botocore.session.create_loader = create_warm_loader


def prepare():
    """Does what is the same for every function, so that becoming one is only what differs."""
    keep = _AT_START | _OWN
    for name in sys.modules:
        first = name.split(".")[0]
        if name not in keep and first not in keep:
            _preloaded.setdefault(first, []).append(name)
    for name, value in {**_USUAL, **os.environ, **_FIXED}.items():
        os.environ[name] = value
    time.tzset()
    # The finders look into their folders at the first import. Those that are not there now never will be.
    for entry in _PATH:
        sys.path_importer_cache[entry] = pkgutil.get_importer(entry)
    set_up_logging()
    rehearse()
    gc.collect()
    gc.freeze()
    gc.enable()


def rehearse():
    """Serves a few events that nobody sent: code that has run is quicker, and what it makes on first use is there."""
    function = {"function_name": "", "version": "", "memory_mb": 0, "log_group": "", "log_stream": "", "handler": "",
                "arn": f"arn:davit:lambda:{_REGION}:::", "env": {}}
    event = (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: 0\r\n"
             b"Lambda-Runtime-Deadline-Ms: 0\r\nContent-Length: 9\r\n\r\n{\"a\":[0]}")
    accepted = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = RuntimeClient("127.0.0.1:0", ours)
        for _ in range(8):
            platform_environment(json.loads(json.dumps(function).encode()))
            theirs.sendall(event + accepted)
            invoke_once(client, lambda event, context: event, function)
            theirs.recv(65536)
    LambdaHandler.request_id = ""


def forget_shadowed(root, own=True):
    """Lets the function's own modules win over preloaded ones of the same name, as they would in a fresh process."""
    try:
        files = os.listdir(root)
    except OSError:
        return
    found = _task_files if own else {}
    for file in files:
        found.setdefault(file.split(".")[0], []).append(file)
    shadowed = found.keys() & _preloaded.keys()
    if not shadowed.isdisjoint(_SDK):
        shadowed.update(_SDK)
    for first in shadowed:
        for name in _preloaded.get(first, ()):
            sys.modules.pop(name, None)


def open_debugger(debugger):
    """Lets debugpy listen where the agent connects to it. What the function brings of it wins over the image's."""
    # It warns of frozen modules, which no function has.
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    sys.path.append(_DEBUGGER)
    try:
        import debugpy

        # Programs that the function starts are none of it: they would wait for a second debugger.
        debugpy.configure(subProcess=False)
        debugpy.listen(("127.0.0.1", debugger["port"]))
        return debugpy
    except Exception as error:
        # The function works without; whoever wants to attach one is told that nobody listens.
        print(f"davit: the debugger cannot be opened: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    finally:
        sys.path.remove(_DEBUGGER)
        del os.environ["PYDEVD_DISABLE_FILE_VALIDATION"]


def held_up(debugpy, handler):
    """The handler, whose first call waits until somebody debugs it."""

    def held_up_handler(event, context):
        nonlocal waits
        if waits:
            waits = False
            print("davit: the call waits for a debugger", file=sys.stderr, flush=True)
            debugpy.wait_for_client()
        return handler(event, context)

    waits = True
    return held_up_handler


def take_layers():
    """Looks again at the folders of layers, which were not there when this process looked first."""
    for entry in _PATH[1:3]:
        sys.path_importer_cache.pop(entry, None)
        forget_shadowed(entry, own=False)
    # The loader reads LD_LIBRARY_PATH once, at the start. A library that is there already is found by its name.
    try:
        libraries = sorted(f"/opt/lib/{name}" for name in os.listdir("/opt/lib") if ".so" in name)
    except OSError:
        return
    import ctypes

    for _ in libraries:
        missing = []
        for path in libraries:
            try:
                ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            except OSError:
                # It may need one that comes later.
                missing.append(path)
        if len(missing) == len(libraries):
            return
        libraries = missing


def become(function):
    """Environment, directory and module path of the function, from the platform's description of it."""
    environment = function.get("env") or {}
    for variables in (environment, platform_environment(function)):
        for name, value in variables.items():
            os.environ[name] = value
    if "TZ" in environment:
        time.tzset()
    os.chdir(TASK_ROOT)
    own = [*_PATH, *filter(None, environment.get("PYTHONPATH", "").split(":"))]
    sys.path[:0] = [entry for entry in own if entry not in sys.path]
    forget_shadowed(TASK_ROOT)
    if _LAYERS in _task_files.get("", ()):
        take_layers()
    if "AWS_LAMBDA_LOG_FORMAT" in environment or "AWS_LAMBDA_LOG_LEVEL" in environment:
        set_up_logging()


def platform_environment(function):
    """What AWS documents and is not there yet; it wins over the user's but for what is only filled in."""
    environment = function.get("env") or {}
    fixed = {
        "_HANDLER": function.get("handler", ""),
        "AWS_LAMBDA_FUNCTION_NAME": function["function_name"],
        "AWS_LAMBDA_FUNCTION_VERSION": str(function["version"]),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function["memory_mb"]),
        "AWS_LAMBDA_LOG_GROUP_NAME": function["log_group"],
        "AWS_LAMBDA_LOG_STREAM_NAME": function["log_stream"],
    }
    for name in environment.keys() & _FIXED.keys():
        fixed[name] = _FIXED[name]
    arn = function.get("arn", "").split(":")
    region = arn[3] if len(arn) > 3 and arn[3] else "us-east-1"
    if region != _REGION:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            if name not in environment:
                fixed[name] = region
    return fixed


class LambdaFormatter(logging.Formatter):
    """AWS's log line: level, time, request id, message."""

    converter = time.gmtime

    def __init__(self):
        super().__init__("[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S")


class LambdaHandler(logging.Handler):
    """Writes records to stdout, each with the request id of the running invocation."""

    request_id = ""

    def emit(self, record):
        try:
            record.aws_request_id = LambdaHandler.request_id
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    """AWS_LAMBDA_LOG_FORMAT=JSON."""

    converter = time.gmtime

    def format(self, record):
        line = {"timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"), "level": record.levelname,
                "message": record.getMessage(), "logger": record.name, "requestId": record.aws_request_id}
        if record.exc_info:
            line["errorType"] = record.exc_info[0].__name__
            line["errorMessage"] = str(record.exc_info[1])
            line["stackTrace"] = traceback.format_exception(*record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up_logging():
    handler = LambdaHandler()
    as_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    handler.setFormatter(JsonFormatter() if as_json else LambdaFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    root.setLevel({"TRACE": "DEBUG", "FATAL": "CRITICAL"}.get(level, level) if level in
                  ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL") else "WARNING")


def load_compiled(name):
    """Imports a module that is one file of the task folder and was compiled ahead; None where it is anything else.

    To the same effect as `import`, which asks every finder, looks at the source, and takes three times as long.
    """
    path = f"{TASK_ROOT}/{name}.py"
    if name in sys.modules or _imp.is_frozen(name) or _task_files.get(name) != [f"{name}.py"]:
        return None
    try:
        with open(f"{TASK_ROOT}/__pycache__/{name}.{sys.implementation.cache_tag}.pyc", "rb", buffering=0) as file:
            compiled = file.read()
        # The flags say that the source is not to be looked at (PEP 552).
        if compiled[:8] != importlib.util.MAGIC_NUMBER + b"\1\0\0\0":
            return None
        code = marshal_code.loads(memoryview(compiled)[16:])
    except (OSError, ValueError, EOFError, TypeError):
        return None
    if code.co_filename != path:
        return None
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        exec(code, module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    # A module may put something else in its place.
    return sys.modules[name]


def load_handler(name):
    """The function `module.attribute` names, or the fault AWS reports for it."""
    try:
        module_name, attribute = name.rsplit(".", 1)
    except ValueError as error:
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{name}': {error}") from None
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault("Runtime.BuiltInModuleConflict", f"Cannot use built-in module {module_name} as a handler module")
    try:
        module = load_compiled(module_name) or importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise Fault("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}") from error
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        raise Fault("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", trace) from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise Fault("Runtime.HandlerNotFound", f"Handler '{attribute}' missing on module '{module_name}'") from None


class Encoder(json.JSONEncoder):
    """JSON as AWS's runtime writes it: non-ASCII as it is, NaN as the bare token, decimals as numbers."""

    def __init__(self):
        super().__init__(ensure_ascii=False, allow_nan=True)

    def default(self, value):
        return float(value) if isinstance(value, decimal.Decimal) else super().default(value)


_encoder = Encoder()


def marshal(result):
    """The result's bytes and their content type."""
    if isinstance(result, bytes):
        return result, "application/unknown"
    try:
        return _encoder.encode(result).encode("utf-8"), "application/json"
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form, but an escaped one.
        return json.dumps(result).encode("ascii"), "application/json"
    except Exception as error:
        raise Fault("Runtime.MarshalError", f"Unable to marshal response: {error}") from None


def streamed(generator):
    """The bytes of a generator's parts, which are bytes or str, and their content type.

    A first part that is an object with `statusCode` is the head of an HTTP response: status, headers and cookies. The
    first part is made here, so that what fails before it is an error like any other.
    """
    first = next(generator, b"")
    if isinstance(first, dict) and "statusCode" in first:
        kind, first = "application/vnd.awslambda.http-integration-response", marshal(first)[0] + bytes(8)
    else:
        kind = "text/plain; charset=utf-8" if isinstance(first, str) else "application/octet-stream"

    def parts():
        yield as_bytes(first)
        for part in generator:
            yield as_bytes(part)

    return parts(), kind


def as_bytes(part):
    if isinstance(part, str):
        return part.encode("utf-8", "replace")
    if isinstance(part, (bytes, bytearray, memoryview)):
        return bytes(part)
    raise Fault("Runtime.MarshalError", f"A streamed response is made of bytes and str, not of {type(part).__name__}")


def in_trailers(error, request_id):
    """What a failure in the middle of a streamed response is told by."""
    flush()
    body, _, text = failure(error, request_id)
    print(text, flush=True)
    return (("Lambda-Runtime-Function-Error-Type", "Error"),
            ("Lambda-Runtime-Function-Error-Body", binascii.b2a_base64(body, newline=False).decode()))


def failure(error, request_id):
    """The error document for an exception, and its text for the log."""
    if isinstance(error, Fault):
        kind, message, trace = error.kind, error.message, error.trace
    else:
        # The innermost type's name alone, and no frames of this file: what AWS shows.
        kind, message = type(error).__name__, str(error)
        frames = traceback.extract_tb(error.__traceback__)
        while frames and (frames[0].filename == __file__ or "importlib" in frames[0].filename):
            frames.pop(0)
        trace = traceback.format_list(frames)
    document = {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}
    text = f"[ERROR] {kind}: {message}" if message else f"[ERROR] {kind}"
    if trace:
        text += "\nTraceback (most recent call last):\n" + "".join(line if line.endswith("\n") else line + "\n" for line in trace)
    return json.dumps(document).encode(), kind, text.rstrip("\n")


def report(client, path, error, request_id):
    body, kind, text = failure(error, request_id)
    print(text, flush=True)
    known = kind if kind.startswith(("Runtime.", "Function.")) else f"Runtime.{kind}" if not request_id else "Unhandled"
    return client.post(path, body, headers=(("Lambda-Runtime-Function-Error-Type", known),))


def invoke_once(client, handler, function):
    """Waits for an event, calls the handler, posts what came of it."""
    _, headers, body = client.get(f"{API}/invocation/next")
    request_id = headers.get("lambda-runtime-aws-request-id")
    if not request_id:
        raise ConnectionLost("an event without a request id")
    LambdaHandler.request_id = request_id
    if trace_id := headers.get("lambda-runtime-trace-id"):
        os.environ["_X_AMZN_TRACE_ID"] = trace_id
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    try:
        try:
            event = json.loads(body)
        except ValueError as error:
            raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from None
        result = handler(event, LambdaContext(function, headers))
        if isinstance(result, types.GeneratorType):
            parts, content_type = streamed(result)
        else:
            parts = None
            result, content_type = marshal(result)
    except Exception as error:
        flush()
        status, _, _ = report(client, f"{API}/invocation/{request_id}/error", error, request_id)
    else:
        flush()
        path = f"{API}/invocation/{request_id}/response"
        if parts is None:
            status, _, _ = client.post(path, result, content_type)
        else:
            client.post_stream(path, parts, content_type, lambda error: in_trailers(error, request_id))
            return
    if status == 413:
        fault = Fault("Function.ResponseSizeTooLarge",
                      "Response payload size exceeded maximum allowed payload size (6291556 bytes).")
        report(client, f"{API}/invocation/{request_id}/error", fault, request_id)


def flush():
    """What the function printed belongs to this invocation, so it leaves before the answer does."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass


def fork_workers(count):
    """One process per concurrent invocation; returns in each worker. The parent only waits, and ends when one does."""
    gc.freeze()
    children = set()
    for _ in range(count):
        if (child := os.fork()) == 0:
            return
        children.add(child)
    ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # A worker killed by a signal (out of memory, say) must look so from outside.
        os.kill(os.getpid(), -code)
    os._exit(code)


def main():
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    preload()
    prepare()
    client = RuntimeClient(address)
    try:
        status, _, body = client.get("/davit/init")
        if status != 200:
            sys.exit(1)
        function = json.loads(body)
        become(function)
        debugger = function.get("debugger")
        debugpy = open_debugger(debugger) if debugger else None
        try:
            handler = load_handler(function.get("handler", ""))
        except Exception as error:
            flush()
            report(client, f"{API}/init/error", error, "")
            sys.exit(1)
        flush()
        if (count := int(function.get("concurrency", 1))) > 1:
            client.close()
            fork_workers(count)
        if debugpy and debugger["wait"]:
            handler = held_up(debugpy, handler)
        while True:
            invoke_once(client, handler, function)
    except ConnectionLost:
        sys.exit(0)


if __name__ == "__main__":
    main()
