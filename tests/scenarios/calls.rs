//! Functions that call functions, in real containers: AWS's SDK as it comes, plain HTTP from Node and from a shell, who may
//! not, and loops of every kind.

use std::time::{Duration, Instant};

use davit_e2e::{Cli, Davit, eventually_within};
use serde_json::{Value, json};

/// Says what it was called with; sleeps, prints or fails as asked.
const STOCK: &str = "
import time
def handler(event, context):
    time.sleep(event.get('sleep', 0))
    if 'print' in event:
        print(event['print'])
    if event.get('fail'):
        raise ValueError('as asked')
    context_sent = context.client_context.custom if context.client_context else None
    return {'got': event, 'left': context.get_remaining_time_in_millis(), 'trace': __import__('os').environ.get('_X_AMZN_TRACE_ID'), 'sent': context_sent}
";

/// Invokes by boto3 with the parameters that are its event, and tells what the SDK made of the answer.
const BOTO: &str = "
import base64, json
import boto3, botocore
functions = boto3.client('lambda')
def handler(event, context):
    if 'Payload' in event:
        event['Payload'] = json.dumps(event['Payload'])
    if 'size' in event:
        event['Payload'] = json.dumps('x' * event.pop('size'))
    try:
        answer = functions.invoke(**event)
    except botocore.exceptions.ClientError as error:
        modelled = getattr(functions.exceptions, error.response['Error']['Code'], None)
        return {'exception': type(error).__name__, 'message': error.response['Error']['Message'],
                'status': error.response['ResponseMetadata']['HTTPStatusCode'], 'modelled': modelled is not None}
    text = answer['Payload'].read().decode()
    return {'status': answer['StatusCode'], 'version': answer.get('ExecutedVersion'), 'error': answer.get('FunctionError'),
            'log': base64.b64decode(answer.get('LogResult', '')).decode(), 'payload': json.loads(text) if text else None,
            'id': answer['ResponseMetadata']['RequestId']}
";

const NODE: &str = "
export const handler = async (event) => {
  const url = `${process.env.DAVIT_ENDPOINT}${event.path}`;
  const answer = await fetch(url, { method: 'POST', headers: event.headers ?? {}, body: JSON.stringify(event.body ?? {}) });
  return { status: answer.status, version: answer.headers.get('x-davit-version'), body: await answer.json() };
};
";

const SHELL: &str = "#!/bin/sh
api=\"http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation\"
while true; do
  event=$(curl -sS -D /tmp/head \"$api/next\")
  id=$(grep -Fi Lambda-Runtime-Aws-Request-Id /tmp/head | tr -d '[:space:]' | cut -d: -f2)
  answer=$(curl -sS \"$DAVIT_ENDPOINT/v1/functions/stock/invocations\" -d \"$event\")
  curl -sS \"$api/$id/response\" -d \"$answer\" >/dev/null
done
";

const ONCE: &str = "[retry]\nmax_attempts = 1";

async fn answer(cli: &Cli, function: &str, event: Value) -> Value {
    cli.invoke(function, &event.to_string()).await.json()
}

/// Invocations from one door, once as many as expected have ended.
async fn ended(davit: &Davit, source: &str, how_many: usize) -> Vec<Value> {
    let path = format!("/v1/namespaces/default/invocations?limit=1000&source={source}");
    eventually_within(Duration::from_secs(120), "every invocation to end", async || {
        let list = davit.api().get(&path).await;
        let all = list.body["items"].as_array().cloned().unwrap_or_default();
        let over = all.iter().all(|view| view["ended_at"].is_string());
        if all.len() == how_many && over { Ok(all) } else { Err(list) }
    })
    .await
}

#[tokio::test]
async fn boto3_invokes_as_it_does_at_aws() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("stock", ONCE, STOCK).await;
    cli.deploy_python("boto", "timeout_seconds = 20", BOTO).await;
    let sync = answer(
        &cli,
        "boto",
        json!({"FunctionName": "stock", "Payload": {"n": 7, "print": "hello"}, "LogType": "Tail",
        "ClientContext": "eyJjdXN0b20iOiB7ImEiOiAxfX0="}),
    )
    .await;
    assert_eq!(
        (&sync["status"], &sync["version"], &sync["error"]),
        (&json!(200), &json!("1"), &Value::Null),
        "{sync}"
    );
    assert_eq!((&sync["payload"]["got"]["n"], &sync["payload"]["sent"]), (&json!(7), &json!({"a": 1})));
    assert!(sync["log"].as_str().unwrap().contains("hello"), "{sync}");
    assert!(sync["payload"]["trace"].as_str().unwrap().starts_with("Root=1-"), "{sync}");
    assert!(sync["payload"]["left"].as_u64().unwrap() < 20_000, "no more than the caller had: {sync}");

    let arn = "arn:davit:lambda:local:default:function:stock:$LATEST";
    let failed = answer(&cli, "boto", json!({"FunctionName": arn, "Payload": {"fail": true}})).await;
    assert_eq!((&failed["status"], &failed["error"]), (&json!(200), &json!("Unhandled")));
    assert_eq!(failed["payload"]["errorType"], "ValueError");

    let event = answer(
        &cli,
        "boto",
        json!({"FunctionName": "stock", "InvocationType": "Event", "Payload": {"n": 8}}),
    )
    .await;
    assert_eq!((&event["status"], &event["payload"]), (&json!(202), &Value::Null), "{event}");
    let accepted = ended(&davit, "function", 1).await.remove(0);
    assert_eq!((&accepted["id"], &accepted["state"]), (&event["id"], &json!("succeeded")));
    assert_eq!(
        (&accepted["caller"]["function"], &accepted["caller"]["version"]),
        (&json!("boto"), &json!(1))
    );
    let shown = cli.run(&["invocation", accepted["id"].as_str().unwrap()]).await.stdout;
    assert!(shown.contains("caused by default/boto, version 1, during "), "{shown}");
    let dry = answer(&cli, "boto", json!({"FunctionName": "stock", "InvocationType": "DryRun"})).await;
    assert_eq!(dry["status"], 204);

    for (asked, exception, status) in [
        (json!({"FunctionName": "nobody"}), "ResourceNotFoundException", 404),
        (json!({"FunctionName": "stock", "Qualifier": "7"}), "ResourceNotFoundException", 404),
        (json!({"FunctionName": "stock", "ClientContext": "!"}), "InvalidParameterValueException", 400),
        (
            json!({"FunctionName": "stock", "InvocationType": "Event", "size": 1_100_000}),
            "RequestTooLargeException",
            413,
        ),
        (json!({"FunctionName": "other:function:stock"}), "ClientError", 403),
    ] {
        let refused = answer(&cli, "boto", asked).await;
        assert_eq!(
            (&refused["exception"], &refused["status"]),
            (&json!(exception), &json!(status)),
            "{refused}"
        );
    }
    eventually_within(Duration::from_secs(30), "the calls to be counted", async || {
        let detail = davit.api().get("/v1/namespaces/default/functions/stock").await;
        let calls = detail.body["summary"]["usage"]["calls"].as_u64();
        if calls == Some(3) { Ok(()) } else { Err(detail) }
    })
    .await;
}

#[tokio::test]
async fn node_and_a_shell_call_by_plain_http_and_publish() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("stock", &format!("{ONCE}\n[[subscriptions]]\ntopic = \"orders\""), STOCK).await;
    let toml = "name = \"node\"\nruntime = \"node20\"\nhandler = \"index.handler\"\n";
    cli.deploy_files(&[("davit.toml", toml), ("index.mjs", NODE)]).await;
    let toml = "name = \"shell\"\nruntime = \"provided\"\n";
    cli.deploy_files(&[("davit.toml", toml), ("bootstrap", SHELL)]).await;

    let called =
        answer(&cli, "node", json!({"path": "/v1/functions/stock/invocations", "body": {"n": 1}})).await;
    assert_eq!(
        (&called["status"], &called["version"], &called["body"]["got"]["n"]),
        (&json!(200), &json!("1"), &json!(1))
    );
    let failed =
        answer(&cli, "node", json!({"path": "/v1/functions/stock/invocations", "body": {"fail": true}}))
            .await;
    assert_eq!(
        (&failed["status"], &failed["body"]["function_error"]["errorMessage"]),
        (&json!(502), &json!("as asked"))
    );
    let lost = answer(&cli, "node", json!({"path": "/v1/tokens"})).await;
    assert_eq!((&lost["status"], &lost["body"]["code"]), (&json!(404), &json!("not_found")));
    let shell = answer(&cli, "shell", json!({"n": 2})).await;
    assert_eq!(shell["got"]["n"], 2);

    let headers =
        json!({"prefer": "respond-async", "x-davit-ordering-key": "k", "content-type": "application/json"});
    let later = json!({"path": "/v1/functions/stock/invocations", "headers": headers, "body": {"n": 3}});
    let later = answer(&cli, "node", later).await;
    assert_eq!(later["status"], 202, "{later}");
    let accepted = ended(&davit, "function", 1).await.remove(0);
    assert_eq!((&accepted["id"], &accepted["ordering_key"]), (&later["body"]["invocation_id"], &json!("k")));
    let headers = json!({"content-type": "application/json"});
    let publish = json!({"path": "/v1/topics/orders/messages?type=order.created", "headers": headers, "body": {"n": 4}});
    let published = answer(&cli, "node", publish).await;
    assert_eq!(
        (&published["status"], &published["body"]["deliveries"]),
        (&json!(202), &json!(1)),
        "{published}"
    );
    let delivery = ended(&davit, "topic", 1).await.remove(0);
    assert_eq!((&delivery["function"], &delivery["caller"]["function"]), (&json!("stock"), &json!("node")));
}

#[tokio::test]
async fn loops_are_cut_whatever_way_they_take() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    // By the queue, by a topic, and by waiting for an answer.
    let again = "
import json, boto3
functions = boto3.client('lambda')
def handler(event, context):
    functions.invoke(FunctionName=context.function_name, InvocationType='Event', Payload=json.dumps({}))
";
    cli.deploy_python("again", ONCE, again).await;
    cli.invoke("again", "{}").await;
    let chain = ended(&davit, "function", 8).await;
    let dead: Vec<&Value> = chain.iter().filter(|view| view["state"] == "dead").collect();
    assert_eq!(dead.len(), 1, "the last one's call is refused: {chain:?}");
    assert!(dead[0]["error"].to_string().contains("RecursiveInvocationException"), "{}", dead[0]);
    assert!(chain.iter().all(|view| view["caller"]["function"] == "again"), "{chain:?}");
    let traces: std::collections::BTreeSet<String> = chain
        .iter()
        .map(|view| view["caller"]["trace_id"].as_str().unwrap().split(';').next().unwrap().to_owned())
        .collect();
    assert_eq!(traces.len(), 1, "all of one trace: {chain:?}");

    let echo = "
import json, os, urllib.request
def handler(event, context):
    url = os.environ['DAVIT_ENDPOINT'] + '/v1/topics/echoes/messages'
    request = urllib.request.Request(url, b'{}', {'content-type': 'application/json'}, method='POST')
    return urllib.request.urlopen(request).status
";
    cli.deploy_python("echo", &format!("{ONCE}\n[[subscriptions]]\ntopic = \"echoes\""), echo).await;
    cli.invoke("echo", "{}").await;
    let chain = ended(&davit, "topic", 8).await;
    assert_eq!(chain.iter().filter(|view| view["state"] == "dead").count(), 1, "{chain:?}");

    let itself = "
import json, boto3
functions = boto3.client('lambda')
def handler(event, context):
    answer = functions.invoke(FunctionName=context.function_name)
    return json.load(answer['Payload'])
";
    cli.deploy_python("itself", "max_instances = 1\ntimeout_seconds = 60", itself).await;
    let begun = Instant::now();
    let refused = cli.attempt(&["invoke", "itself", "{}"]).await;
    assert!(refused.code == 3 && refused.stderr.contains("raise its max_instances"), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "it does not wait for itself");
}

#[tokio::test]
async fn who_may_not_call_is_told_what_to_declare_and_time_and_hang_ups_go_along() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("stock", &format!("allow_callers = [\"boto\"]\n{ONCE}"), STOCK).await;
    cli.deploy_python("boto", "timeout_seconds = 10", BOTO).await;
    cli.deploy_python("stranger", "", BOTO).await;
    let refused = answer(&cli, "stranger", json!({"FunctionName": "stock"})).await;
    assert_eq!(refused["status"], 403, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("allow_callers = [\"stranger\"]"), "{refused}");

    // Once warm, so that its time goes to the call.
    let warm = answer(&cli, "boto", json!({"FunctionName": "stock", "Payload": {}})).await;
    assert_eq!(warm["status"], 200, "{warm}");
    let late = answer(&cli, "boto", json!({"FunctionName": "stock", "Payload": {"sleep": 60}})).await;
    assert_eq!(late["error"], "Unhandled", "{late}");
    let said = late["payload"]["errorMessage"].as_str().unwrap();
    assert!(said.contains("left of boto's time"), "{late}");

    // Its caller hangs up; so does it, and the function that it waits for is ended.
    let event = json!({"FunctionName": "stock", "Payload": {"sleep": 60}}).to_string();
    cli.deploy_python("boto", "timeout_seconds = 120", BOTO).await;
    let url = format!("{}/v1/namespaces/default/functions/boto/invocations", davit.api().gateway);
    let request = davit.http.post(url).bearer_auth(davit.token()).body(event);
    assert!(request.timeout(Duration::from_secs(5)).send().await.is_err(), "nobody waits that long");
    eventually_within(Duration::from_secs(30), "nothing to be under way", async || {
        match davit.metric("davit_calls_open").await {
            0.0 => Ok(()),
            open => Err(open),
        }
    })
    .await;
}

#[tokio::test]
async fn the_example_greets_everybody() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_example("greeter-node").await;
    cli.deploy_example("welcome").await;
    let answer = answer(&cli, "welcome", json!({"names": ["Ada", "Grace"]})).await;
    let messages: Vec<&Value> =
        answer["greetings"].as_array().unwrap().iter().map(|g| &g["message"]).collect();
    assert_eq!(messages, ["Hello, Ada!", "Hello, Grace!"]);
}
