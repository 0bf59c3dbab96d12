"""User authentication in the shape of the usual AWS article. Nothing here knows of davit."""

import json
import logging
import os

import boto3

logger = logging.getLogger()
logger.setLevel(logging.INFO)

# Made once per instance and kept between calls, as one does on Lambda. No request leaves before it is used.
dynamodb = boto3.resource("dynamodb", region_name=os.environ.get("AWS_REGION", "us-east-1"))
users = dynamodb.Table(os.environ.get("USERS_TABLE", "users"))


def lambda_handler(event, context):
    request_type = event["request"]["type"]
    logger.info("request of type %s, %d ms left", request_type, context.get_remaining_time_in_millis())

    if request_type == "login":
        return respond(200, {"message": "Login successful", "table": users.name})
    if request_type == "register":
        return respond(200, {"message": "User registered"})
    if request_type == "logout":
        return respond(200, {"message": "Logged out"})
    return respond(400, {"message": f"Unknown request type: {request_type}"})


def respond(status, body):
    return {"statusCode": status, "body": json.dumps(body)}
