"""The `context` a handler gets: the attributes AWS documents, and nothing else."""

import json
import time


class CognitoIdentity:
    """Who called, if the caller said so."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self, given):
        self.cognito_identity_id = given.get("cognitoIdentityId")
        self.cognito_identity_pool_id = given.get("cognitoIdentityPoolId")

    def __repr__(self):
        return (
            f"CognitoIdentity([cognito_identity_id={self.cognito_identity_id},"
            f"cognito_identity_pool_id={self.cognito_identity_pool_id}])"
        )


class Client:
    """The application part of a client context."""

    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")

    def __init__(self, given):
        for name in self.__slots__:
            setattr(self, name, given.get(name))


class ClientContext:
    """What a mobile client sent along."""

    __slots__ = ("custom", "env", "client")

    def __init__(self, given):
        self.custom = given.get("custom")
        self.env = given.get("env")
        self.client = Client(given["client"]) if isinstance(given.get("client"), dict) else None


class LambdaContext:
    """One invocation's circumstances."""

    def __init__(self, function, headers):
        self.aws_request_id = headers.get("lambda-runtime-aws-request-id", "")
        self.function_name = function["function_name"]
        self.function_version = str(function["version"])
        self.memory_limit_in_mb = str(function["memory_mb"])
        self.log_group_name = function["log_group"]
        self.log_stream_name = function["log_stream"]
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn") or function.get("arn", "")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        self.client_context = _made(ClientContext, headers.get("lambda-runtime-client-context"))
        self.identity = _made(CognitoIdentity, headers.get("lambda-runtime-cognito-identity")) or CognitoIdentity({})
        deadline = headers.get("lambda-runtime-deadline-ms")
        self._deadline_ms = int(deadline) if deadline else 0

    def get_remaining_time_in_millis(self):
        """Milliseconds until the platform ends this invocation; never negative."""
        return max(self._deadline_ms - int(time.time() * 1000), 0)

    def log(self, message):
        """Writes to the function's log, as the old API of AWS's context does."""
        print(message, flush=True)

    def __repr__(self):
        return (
            f"LambdaContext([aws_request_id={self.aws_request_id},log_group_name={self.log_group_name},"
            f"log_stream_name={self.log_stream_name},function_name={self.function_name},"
            f"memory_limit_in_mb={self.memory_limit_in_mb},function_version={self.function_version},"
            f"invoked_function_arn={self.invoked_function_arn},client_context={self.client_context},"
            f"identity={self.identity},tenant_id={self.tenant_id}])"
        )


def _made(kind, text):
    given = json.loads(text) if text else None
    return kind(given) if isinstance(given, dict) else None
