"""The Python shim on a real interpreter against a small Runtime API: answers, error shapes, context, logs."""

import base64
import importlib.util
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))
from runtime_api import Shim  # noqa: E402

ID = "11111111-1111-4111-8111-111111111111"


def app(text):
    return {"app.py": text}


class Debugging(unittest.TestCase):
    # Stands for a debugpy among the function's requirements, which wins over the image's.
    DEBUGPY = """
        calls = []
        def configure(**settings):
            calls.append(settings)
        def listen(address):
            if address[1] == 1:
                raise RuntimeError("in use")
            calls.append(address)
        def wait_for_client():
            calls.append("waited")
    """
    CODE = """
        def handler(event, context):
            import debugpy
            return debugpy.calls
    """

    def shim(self, **debugger):
        return Shim({"app.py": self.CODE, "debugpy.py": self.DEBUGPY}, debugger=debugger)

    def test_it_is_opened_where_it_is_asked_for_and_the_first_call_waits_if_it_should(self):
        opened = [{"subProcess": False}, ["127.0.0.1", 5678]]
        with self.shim(port=5678, wait=False) as shim:
            self.assertEqual(shim.call({}).json, opened)
        with self.shim(port=5678, wait=True) as shim:
            self.assertEqual(shim.call({}).json, [*opened, "waited"])
            self.assertEqual(shim.call({}).json, [*opened, "waited"], "only the first one")

    def test_a_function_works_without_the_debugger_that_cannot_be_opened(self):
        with self.shim(port=1, wait=True) as shim:
            self.assertEqual(shim.call({}).json, [{"subProcess": False}])

    def test_nobody_else_has_one(self):
        with Shim({"app.py": self.CODE, "debugpy.py": self.DEBUGPY}) as shim:
            self.assertEqual(shim.call({}).json, [])


class Answers(unittest.TestCase):
    def test_a_result_is_posted_as_json_and_the_next_event_is_served_by_the_same_process(self):
        code = """
            import os
            calls = 0
            def handler(event, context):
                global calls
                calls += 1
                return {"event": event, "calls": calls, "pid": os.getpid()}
        """
        with Shim(app(code)) as shim:
            first = shim.call({"a": [1, None, "ü"]})
            self.assertEqual((first.kind, first.request_id), ("response", ID))
            self.assertEqual(first.json["event"], {"a": [1, None, "ü"]})
            second = shim.call({})
            self.assertEqual(second.json["calls"], 2)
            self.assertEqual(second.json["pid"], first.json["pid"])
            self.assertEqual(shim.finish()[0], 0, "the agent hanging up is a normal end")

    def test_results_leave_as_aws_writes_them(self):
        code = """
            import decimal
            def handler(event, context):
                return {"nan": float("nan"), "bytes": b"\\x00raw", "decimal": {"d": decimal.Decimal("1.5")},
                        "text": "grüße", "none": None, "surrogate": "\\ud800"}[event]
        """
        with Shim(app(code)) as shim:
            self.assertEqual(shim.call("nan").body, b"NaN")
            raw = shim.call("bytes")
            self.assertEqual((raw.body, raw.headers["Content-Type"]), (b"\x00raw", "application/unknown"))
            self.assertEqual(shim.call("decimal").json, {"d": 1.5})
            self.assertEqual(shim.call("text").body, '"grüße"'.encode())
            self.assertEqual(shim.call("none").body, b"null")
            self.assertEqual(shim.call("surrogate").body, b'"\\ud800"')

    def test_large_events_and_results_pass(self):
        with Shim(app("def handler(event, context):\n    return event\n")) as shim:
            text = "x" * 5_000_000
            self.assertEqual(shim.call(text).json, text)

    def test_a_result_the_platform_finds_too_large_becomes_an_error(self):
        with Shim(app("def handler(event, context):\n    return 1\n"), response_status=413) as shim:
            self.assertEqual(shim.call({}).kind, "response")
            error = shim.answer()
            self.assertEqual((error.kind, error.json["errorType"]), ("error", "Function.ResponseSizeTooLarge"))

    def test_several_workers_hold_several_invocations_at_once(self):
        code = """
            import os, time
            def handler(event, context):
                time.sleep(0.5)
                return {"pid": os.getpid(), "id": context.aws_request_id}
        """
        with Shim(app(code), concurrency=3) as shim:
            for n in range(3):
                self.assertTrue(shim.polling.acquire(timeout=30))
            for n in range(3):
                shim.send({}, request_id=f"id-{n}")
            answers = [shim.answer() for _ in range(3)]
            self.assertEqual(len({a.json["pid"] for a in answers}), 3)
            self.assertTrue(all(a.json["id"] == a.request_id for a in answers))


class Errors(unittest.TestCase):
    def test_an_exception_has_awss_shape_and_the_process_lives_on(self):
        code = """
            def fail():
                raise ValueError("boom!")
            def handler(event, context):
                return "fine" if event else fail()
        """
        with Shim(app(code)) as shim:
            error = shim.call(None)
            self.assertEqual(error.kind, "error")
            self.assertEqual(list(error.json), ["errorMessage", "errorType", "requestId", "stackTrace"])
            self.assertEqual((error.json["errorMessage"], error.json["errorType"], error.json["requestId"]), ("boom!", "ValueError", ID))
            self.assertEqual(len(error.json["stackTrace"]), 2, "the function's own frames only")
            self.assertIn("app.py", error.json["stackTrace"][0])
            self.assertEqual(shim.call(1).json, "fine")
            self.assertIn("[ERROR] ValueError: boom!\nTraceback (most recent call last):", shim.finish()[1])

    def test_what_json_cannot_hold_is_a_marshal_error(self):
        with Shim(app("def handler(event, context):\n    return {1, 2}\n")) as shim:
            error = shim.call({})
            self.assertEqual(error.json["errorType"], "Runtime.MarshalError")
            self.assertEqual(error.json["errorMessage"], "Unable to marshal response: Object of type set is not JSON serializable")

    def test_an_event_that_is_not_json_is_an_unmarshal_error(self):
        with Shim(app("def handler(event, context):\n    return 1\n")) as shim:
            self.assertEqual(shim.call(None, raw=b"{").json["errorType"], "Runtime.UnmarshalError")

    def init_error(self, files, handler="app.handler"):
        with Shim(files, handler) as shim:
            answer = shim.answer()
            self.assertEqual((answer.kind, shim.finish()[0]), ("init/error", 1))
            self.assertEqual(answer.json["requestId"], "")
            self.assertTrue(answer.headers["Lambda-Runtime-Function-Error-Type"].startswith("Runtime."))
            return answer.json

    def test_every_way_not_to_load_has_its_name(self):
        missing = self.init_error(app("import nothing_here"))
        self.assertEqual(missing["errorType"], "Runtime.ImportModuleError")
        self.assertEqual(missing["errorMessage"], "Unable to import module 'app': No module named 'nothing_here'")
        self.assertEqual(self.init_error({})["errorMessage"], "Unable to import module 'app': No module named 'app'")
        absent = self.init_error(app("x = 1"))
        self.assertEqual((absent["errorType"], absent["errorMessage"]), ("Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"))
        broken = self.init_error(app("def handler(:"))
        self.assertEqual(broken["errorType"], "Runtime.UserCodeSyntaxError")
        self.assertTrue(broken["errorMessage"].startswith("Syntax error in module 'app': "), broken)
        malformed = self.init_error(app(""), "nodot")
        self.assertEqual(malformed["errorType"], "Runtime.MalformedHandlerName")
        self.assertEqual(malformed["errorMessage"], "Bad handler 'nodot': not enough values to unpack (expected 2, got 1)")
        self.assertEqual(self.init_error(app(""), "sys.exit")["errorType"], "Runtime.BuiltInModuleConflict")
        raised = self.init_error(app("raise RuntimeError('no database')"))
        self.assertEqual((raised["errorType"], raised["errorMessage"]), ("RuntimeError", "no database"))


class Streams(unittest.TestCase):
    CODE = """
        import os, time
        def handler(event, context):
            if event.get("head"):
                yield {"statusCode": 418, "headers": {"x": "y"}}
            if event.get("early"):
                raise ValueError("early")
            yield event.get("first", "one ")
            while event.get("wait") and not os.path.exists("go"):
                time.sleep(0.01)
            if event.get("fail"):
                raise ValueError("midway")
            yield b"two"
    """

    def test_a_generator_is_streamed_as_it_goes(self):
        with Shim(app(self.CODE)) as shim:
            shim.send({"wait": True})
            self.assertEqual(shim.parts.get(timeout=30), b"one ")
            open(os.path.join(shim.folder.name, "go"), "w").close()
            answer = shim.answer()
            self.assertEqual((answer.body, answer.trailers), (b"one two", {}))
            self.assertEqual(answer.headers["Lambda-Runtime-Function-Response-Mode"], "streaming")
            self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
            answer = shim.call({"head": True})
            self.assertEqual(answer.body, b'{"statusCode": 418, "headers": {"x": "y"}}' + bytes(8) + b"one two")
            self.assertEqual(answer.headers["Content-Type"], "application/vnd.awslambda.http-integration-response")

    def test_a_failure_in_the_middle_is_told_by_trailers_and_one_before_it_as_usual(self):
        with Shim(app(self.CODE)) as shim:
            failed = shim.call({"fail": True})
            self.assertEqual((failed.kind, failed.body), ("response", b"one "))
            self.assertEqual(failed.trailers["Lambda-Runtime-Function-Error-Type"], "Error")
            document = json.loads(base64.b64decode(failed.trailers["Lambda-Runtime-Function-Error-Body"]))
            self.assertEqual((document["errorType"], document["errorMessage"]), ("ValueError", "midway"))
            early = shim.call({"early": True})
            self.assertEqual((early.kind, early.json["errorMessage"]), ("error", "early"))
            self.assertEqual(shim.call({"first": 7}).kind, "response")
            self.assertEqual(shim.call({}).body, b"one two", "the process lives on")
            self.assertIn("[ERROR] ValueError: midway", shim.finish()[1])


class Compiled(unittest.TestCase):
    def test_a_module_that_was_compiled_ahead_is_the_same_as_any_other(self):
        code = """
            import importlib, sys
            def handler(event, context):
                spec = __spec__
                return {"name": __name__, "file": __file__.split("/")[-1], "package": __package__, "doc": __doc__,
                        "spec": [spec.name, spec.origin == __file__, spec.has_location, spec.cached == __cached__, spec.parent],
                        "loader": [type(__loader__).__name__, __loader__ is spec.loader, __loader__.get_source(__name__)],
                        "again": importlib.import_module("app") is sys.modules["app"], "where": handler.__code__.co_filename == __file__}
        """
        seen = []
        for compiled in (False, True):
            with Shim(app(code), compiled=compiled) as shim:
                seen.append(shim.call({}).json)
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[1]["again"], True)

    def test_packages_and_what_a_module_puts_in_its_own_place_win_and_failures_have_the_same_shape(self):
        answer = "def handler(event, context):\n    return {!r}\n".format
        files = {"app.py": answer("module"), "app/__init__.py": answer("package")}
        with Shim(files, compiled=True) as shim:
            self.assertEqual(shim.call({}).json, "package")
        swapped = "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(handler=lambda event, context: 'mine')\n"
        with Shim(app(swapped), compiled=True) as shim:
            self.assertEqual(shim.call({}).json, "mine")
        errors = []
        for compiled in (False, True):
            with Shim(app("import nothing_here"), compiled=compiled) as shim:
                errors.append(shim.answer().json)
            with Shim(app("def fail():\n    raise RuntimeError('no')\nfail()"), compiled=compiled) as shim:
                raised = shim.answer().json
                errors.append({**raised, "stackTrace": len(raised["stackTrace"])})
        self.assertEqual(errors[:2], errors[2:])


class Surroundings(unittest.TestCase):
    def test_the_context_has_awss_attributes(self):
        code = """
            def handler(event, context):
                return {
                    "left": context.get_remaining_time_in_millis(), "name": context.function_name, "version": context.function_version,
                    "memory": context.memory_limit_in_mb, "arn": context.invoked_function_arn, "group": context.log_group_name,
                    "stream": context.log_stream_name, "id": context.aws_request_id, "custom": context.client_context.custom,
                    "app": context.client_context.client.app_title, "identity": context.identity.cognito_identity_id,
                }
        """
        with Shim(app(code)) as shim:
            seen = shim.call({}, Lambda_Runtime_Client_Context='{"custom":{"a":1},"client":{"app_title":"T"}}',
                             Lambda_Runtime_Cognito_Identity='{"cognitoIdentityId":"me"}').json
        self.assertTrue(0 < seen.pop("left") <= 30_000)
        self.assertEqual(seen, {"name": "tested", "version": "7", "memory": "256", "arn": "arn:davit:lambda:local:default:function:tested",
                                "group": "/davit/default/tested", "stream": "s", "id": ID, "custom": {"a": 1}, "app": "T", "identity": "me"})

    def test_the_platforms_variables_win_and_the_users_are_there(self):
        code = """
            import os, sys
            def handler(event, context):
                return dict(os.environ, cwd=os.getcwd(), path0=sys.path[0])
        """
        with Shim(app(code), env={"MINE": "yes", "AWS_REGION": "eu-central-1", "_HANDLER": "other"}) as shim:
            seen = shim.call({}, Lambda_Runtime_Trace_Id="Root=1-2-3").json
            self.assertEqual((seen["MINE"], seen["AWS_REGION"], seen["_HANDLER"]), ("yes", "eu-central-1", "app.handler"))
            self.assertEqual((seen["AWS_LAMBDA_FUNCTION_NAME"], seen["AWS_EXECUTION_ENV"]), ("tested", "AWS_Lambda_python3.13"))
            self.assertEqual((seen["cwd"], seen["path0"]), (shim.folder.name, shim.folder.name))
            self.assertEqual(seen["_X_AMZN_TRACE_ID"], "Root=1-2-3")

    def test_modules_of_the_function_win_over_preloaded_ones(self):
        files = {"queue.py": "def handler(event, context):\n    import boto3\n    return boto3.__version__\n",
                 "boto3/__init__.py": "__version__ = 'mine'\n"}
        with Shim(files, "queue.handler") as shim:
            self.assertEqual(shim.call({}).json, "mine")

    @unittest.skipUnless(importlib.util.find_spec("boto3"), "boto3 lies in the image only")
    def test_the_first_client_finds_service_descriptions_loaded_and_sees_the_functions_own_settings(self):
        code = """
            import boto3
            resource = boto3.resource("dynamodb", endpoint_url="http://127.0.0.1:1")
            client = boto3.client("s3")
            def handler(event, context):
                credentials = boto3.DEFAULT_SESSION.get_credentials()
                loader = boto3.DEFAULT_SESSION._session.get_component("data_loader")
                return [client.meta.region_name, credentials.access_key, ("list_available_services", "service-2") in loader._cache]
        """
        env = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "x"}
        with Shim(app(code), env=env) as shim:
            self.assertEqual(shim.call({}).json, ["eu-west-1", "mine", True])

    def test_folders_in_the_handlers_name(self):
        with Shim({"src/deep/app.py": "def handler(event, context):\n    return __name__\n"}, "src/deep/app.handler") as shim:
            self.assertEqual(shim.call({}).json, "src.deep.app")

    def test_prints_and_log_records_reach_stdout_before_the_answer(self):
        code = """
            import logging
            logging.getLogger().setLevel("INFO")
            def handler(event, context):
                print("printed")
                logging.info("logged %s", 1)
        """
        with Shim(app(code)) as shim:
            shim.call({})
            lines = shim.finish()[1].splitlines()
        self.assertEqual(lines[0], "printed")
        self.assertRegex(lines[1], r"^\[INFO\]\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\t" + ID + r"\tlogged 1$")


if __name__ == "__main__":
    unittest.main()
