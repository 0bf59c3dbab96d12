//! The runtimes of languages that are made when they are wanted, in real, hardened containers: `scripts/images.sh ruby3.3 php8.4`,
//! then `cargo test -p davit-agent --test languages -- --ignored`. What a build makes of a language is in the end-to-end stories.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::time::Duration;

use common::{Instance, request};
use davit_link::{FailureKind, InitRequest, Kind, LinkError};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(5);

const RUBY: &str = r#"
require "json"
GREETING = File.read("greeting.txt")
class Odd < StandardError; end
def handler(event:, context:)
  puts "got #{event}"
  raise Odd, "boom" if event["raise"]
  return Float::NAN if event["nan"]
  exit! 4 if event["exit"]
  { greeting: GREETING, colour: ENV["COLOUR"], id: context.aws_request_id, left: context.get_remaining_time_in_millis,
    arn: context.invoked_function_arn, twice: event["n"].to_i * 2, region: ENV["AWS_REGION"], uid: Process.uid }
end
module Orders
  class Handler
    def self.process(event:, context:) = { own: event["n"] }
  end
end
"#;

const PHP: &str = r#"<?php
class Odd extends Exception {}
function handler(array $event, $context) {
    echo "got ", json_encode($event), "\n";
    if (isset($event["raise"])) throw new Odd("boom");
    if (isset($event["nan"])) return NAN;
    if (isset($event["exit"])) exit(4);
    return ["greeting" => file_get_contents("greeting.txt"), "colour" => getenv("COLOUR"), "id" => $context->awsRequestId,
        "left" => $context->getRemainingTimeInMillis(), "arn" => $context->getInvokedFunctionArn(),
        "twice" => ($event["n"] ?? 0) * 2, "region" => $_SERVER["AWS_REGION"], "uid" => posix_getuid()];
}
"#;

fn failure<T: std::fmt::Debug>(result: Result<T, LinkError>) -> davit_link::Failure {
    match result {
        Err(LinkError::Failure(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

/// What the function said of its own failure.
fn document(failure: &davit_link::Failure) -> Value {
    serde_json::from_str(failure.error.as_ref().unwrap().get()).unwrap()
}

async fn call(instance: &Instance, id: &str, event: Value) -> Value {
    let result = instance.invoke(id, &event.to_string(), LIMIT).await.unwrap();
    serde_json::from_slice(&result.body).unwrap()
}

/// The same life in each language: answer, fail, answer again, end.
async fn lives_as_at_aws(runtime: &str, code: (&str, &str), odd: &str, place: &str) {
    let mut instance = Instance::container(runtime, 128).await;
    let files = [code, ("greeting.txt", "hello")];
    instance.init(request(Kind::Handler), &files).await.unwrap();
    let answer = call(&instance, "0b4ef7a4-9e7b-4ad7-a7b5-7a1f1d9f6c59", json!({"n": 21})).await;
    assert_eq!(answer["twice"], 42);
    assert_eq!((answer["greeting"].as_str(), answer["colour"].as_str()), (Some("hello"), Some("blue")));
    assert_eq!(answer["id"], "0b4ef7a4-9e7b-4ad7-a7b5-7a1f1d9f6c59");
    assert_eq!((answer["region"].as_str(), answer["uid"].as_u64()), (Some("us-east-1"), Some(993)));
    assert_eq!(answer["arn"], "arn:aws:lambda:us-east-1:000000000000:function:test");
    assert!((1..=5_000).contains(&answer["left"].as_u64().unwrap()), "{answer}");

    let failed = failure(instance.invoke("r1", r#"{"raise":1}"#, LIMIT).await);
    assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::FunctionError, "boom"));
    let said = document(&failed);
    assert_eq!((said["errorType"].as_str(), said["errorMessage"].as_str()), (Some(odd), Some("boom")));
    assert!(said["stackTrace"].to_string().contains(place), "{said}");
    let failed = failure(instance.invoke("r2", r#"{"nan":1}"#, LIMIT).await);
    assert_eq!(document(&failed)["errorType"], "Runtime.MarshalError");
    // Text beyond ASCII, and an event of some size.
    let long = "ä€😀".repeat(100_000);
    assert_eq!(call(&instance, "r3", json!({"n": 1, "text": long})).await["twice"], 2);
    for n in 0..50 {
        assert_eq!(call(&instance, &format!("w{n}"), json!({"n": n})).await["twice"], 2 * n);
    }
    instance.link().freeze().await.unwrap();
    instance.link().thaw().await.unwrap();
    assert_eq!(call(&instance, "r4", json!({"n": 3})).await["twice"], 6);

    let failed = failure(instance.invoke("r5", r#"{"exit":1}"#, LIMIT).await);
    assert_eq!((failed.kind, failed.exit_code), (FailureKind::Exited, Some(4)));
    instance.gone().await;
}

/// What a function that cannot be loaded says of itself.
async fn load_error(runtime: &str, handler: &str, code: (&str, &str)) -> Value {
    let instance = Instance::container(runtime, 128).await;
    let request = InitRequest { handler: handler.into(), ..request(Kind::Handler) };
    document(&failure(instance.init(request, &[code, ("greeting.txt", "hello")]).await))
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_ruby_function_lives_as_at_aws() {
    lives_as_at_aws("ruby3.3", ("app.rb", RUBY), "Function<Odd>", "app.rb:7").await;
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_php_function_lives_as_at_aws() {
    lives_as_at_aws("php8.4", ("app.php", PHP), "Odd", "app.php:5").await;
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_ruby_handler_may_be_a_method_of_a_class() {
    let instance = Instance::container("ruby3.3", 128).await;
    let request = InitRequest { handler: "app.Orders::Handler.process".into(), ..request(Kind::Handler) };
    instance.init(request, &[("app.rb", RUBY), ("greeting.txt", "hello")]).await.unwrap();
    assert_eq!(call(&instance, "r", json!({"n": 5})).await, json!({"own": 5}));
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_php_file_may_return_its_handler() {
    let code = "<?php\nreturn fn (array $event) => ['own' => $event['n']];\n";
    let instance = Instance::container("php8.4", 128).await;
    instance.init(request(Kind::Handler), &[("app.php", code)]).await.unwrap();
    assert_eq!(call(&instance, "r", json!({"n": 5})).await, json!({"own": 5}));
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn what_cannot_be_loaded_is_named() {
    for (runtime, handler, code, kind, word) in [
        ("ruby3.3", "app.nothing", ("app.rb", RUBY), "Runtime.HandlerNotFound", "app.nothing"),
        ("ruby3.3", "app.No::Such.nothing", ("app.rb", RUBY), "Runtime.HandlerNotFound", "No"),
        ("ruby3.3", "other.handler", ("app.rb", RUBY), "Runtime.ImportModuleError", "other"),
        ("ruby3.3", "app.handler", ("app.rb", "def handler(\n"), "Runtime.UserCodeSyntaxError", "app.rb:"),
        ("ruby3.3", "app.handler", ("app.rb", "no_such_thing\n"), "Function<NameError>", "no_such_thing"),
        ("php8.4", "app.nothing", ("app.php", PHP), "Runtime.HandlerNotFound", "app.nothing"),
        ("php8.4", "other.handler", ("app.php", PHP), "Runtime.ImportModuleError", "other.php"),
        (
            "php8.4",
            "app.handler",
            ("app.php", "<?php function ("),
            "Runtime.UserCodeSyntaxError",
            "app.php on line 1",
        ),
        ("php8.4", "app.handler", ("app.php", "<?php no_such_thing();"), "Error", "no_such_thing"),
    ] {
        let said = load_error(runtime, handler, code).await;
        assert_eq!(said["errorType"], kind, "{runtime} {handler}: {said}");
        assert!(said["errorMessage"].as_str().unwrap().contains(word), "{runtime} {handler}: {said}");
    }
}
