"""A function that calls another one: boto3 as on AWS, without credentials, address or token."""

import json
from concurrent.futures import ThreadPoolExecutor

import boto3

functions = boto3.client("lambda")


def greet(name):
    answer = functions.invoke(FunctionName="greeter-node", Payload=json.dumps({"name": name}))
    result = json.load(answer["Payload"])
    if "FunctionError" in answer:
        raise RuntimeError(f"no greeting for {name}: {result['errorMessage']}")
    return result


def handler(event, context):
    with ThreadPoolExecutor(4) as pool:
        return {"greetings": list(pool.map(greet, event["names"]))}
