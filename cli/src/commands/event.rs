//! `davit event`: sample events, as the services make them that functions are usually called by.

use base64::Engine as _;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use davit_api::InvocationId;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::output;

/// Print a sample event to call a function with
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit event http --method POST --path /orders --body '{\"total\": 12}' | davit invoke orders -
  davit event sqs --body one --body two | davit invoke worker - --async
  davit event s3 --bucket photos --key 2030/cat.jpg > event.json
  davit event cloudevent --type order.created --data '{\"total\": 12}'

The shapes are those that AWS and the CloudEvents specification document. What an option does
not set is made up: an id, the time now.")]
pub(crate) struct Event {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// An HTTP request, as a handler gets it (payload format 2.0)
    Http(Request),
    /// An HTTP request in payload format 1.0, as API Gateway's REST APIs send it
    HttpV1(Request),
    /// An instant of a schedule
    Schedule {
        /// The schedule's name
        #[arg(long, default_value = "nightly")]
        name: String,
        /// The instant [default: now]
        #[arg(long)]
        at: Option<DateTime<Utc>>,
    },
    /// Messages of an SQS queue
    Sqs {
        /// A message; may be given several times
        #[arg(long, default_value = "{\"hello\": \"world\"}")]
        body: Vec<String>,
        /// The queue's name
        #[arg(long, default_value = "orders")]
        queue: String,
    },
    /// A message of an SNS topic
    Sns {
        /// Its text
        #[arg(long, default_value = "{\"hello\": \"world\"}")]
        message: String,
        /// Its subject
        #[arg(long, default_value = "Example")]
        subject: String,
        /// The topic's name
        #[arg(long, default_value = "orders")]
        topic: String,
    },
    /// A new object in an S3-compatible store
    S3 {
        /// Where it lies
        #[arg(long, default_value = "uploads")]
        bucket: String,
        /// What it is called
        #[arg(long, default_value = "folder/example.txt")]
        key: String,
        /// Bytes
        #[arg(long, default_value_t = 1024)]
        size: u64,
    },
    /// A CloudEvents 1.0 event, as subscribers of a topic get it
    Cloudevent {
        /// Its type
        #[arg(long = "type", default_value = "order.created")]
        kind: String,
        /// Where it comes from, a URI or a path
        #[arg(long, default_value = "/shop")]
        source: String,
        /// What it is about
        #[arg(long)]
        subject: Option<String>,
        /// Its data as JSON
        #[arg(long, default_value = "{\"hello\": \"world\"}")]
        data: String,
    },
}

#[derive(Args)]
struct Request {
    /// The method
    #[arg(long, default_value = "GET")]
    method: String,
    /// The path, with a query if there is one
    #[arg(long, default_value = "/hello?name=Ada")]
    path: String,
    /// The body
    #[arg(long)]
    body: Option<String>,
    /// A header, such as 'accept: text/plain'; may be given several times
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
}

impl Event {
    pub(crate) fn run(self) -> Result<()> {
        output::json(&self.kind.sample(Utc::now(), InvocationId::new().to_string())?);
        Ok(())
    }
}

impl Kind {
    /// The event of this moment, with this for its id.
    fn sample(self, now: DateTime<Utc>, id: String) -> Result<Value> {
        Ok(match self {
            Self::Http(request) => request.v2(now, &id)?,
            Self::HttpV1(request) => request.v1(now, &id)?,
            Self::Schedule { name, at } => json!({
                "version": "0", "id": id, "detail-type": "Scheduled Event", "source": "aws.events",
                "account": "default", "region": "local",
                "time": at.unwrap_or(now).to_rfc3339_opts(SecondsFormat::Secs, true),
                "resources": [format!("arn:davit:events:local:default:rule/hello/{name}")],
                "detail": {},
            }),
            Self::Sqs { body, queue } => {
                let record =
                    |(n, body): (usize, &String)| sqs_record(&format!("{id}-{n}"), body, &queue, now);
                json!({ "Records": body.iter().enumerate().map(record).collect::<Vec<_>>() })
            }
            Self::Sns { message, subject, topic } => json!({ "Records": [{
                "EventSource": "aws:sns", "EventVersion": "1.0",
                "EventSubscriptionArn": format!("arn:aws:sns:local:000000000000:{topic}:{id}"),
                "Sns": {
                    "Type": "Notification", "MessageId": id, "Subject": subject, "Message": message,
                    "TopicArn": format!("arn:aws:sns:local:000000000000:{topic}"),
                    "Timestamp": now.to_rfc3339_opts(SecondsFormat::Millis, true), "MessageAttributes": {},
                },
            }]}),
            Self::S3 { bucket, key, size } => json!({ "Records": [{
                "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "local", "eventName": "ObjectCreated:Put",
                "eventTime": now.to_rfc3339_opts(SecondsFormat::Millis, true),
                "userIdentity": { "principalId": "example" },
                "requestParameters": { "sourceIPAddress": "127.0.0.1" },
                "responseElements": { "x-amz-request-id": id },
                "s3": {
                    "s3SchemaVersion": "1.0", "configurationId": "example",
                    "bucket": {
                        "name": bucket, "ownerIdentity": { "principalId": "example" },
                        "arn": format!("arn:aws:s3:::{bucket}"),
                    },
                    // In notifications a key is written as a form would have it.
                    "object": { "key": form_encoded(&key), "size": size, "eTag": "0", "sequencer": "0" },
                },
            }]}),
            Self::Cloudevent { kind, source, subject, data } => {
                let data: Value = serde_json::from_str(&data)
                    .map_err(|e| Failure::Usage(format!("--data is not JSON: {e}")))?;
                let mut event = json!({
                    "specversion": "1.0", "id": id, "source": source, "type": kind,
                    "time": now.to_rfc3339_opts(SecondsFormat::Millis, true),
                    "datacontenttype": "application/json", "data": data,
                });
                if let Some(subject) = subject {
                    event["subject"] = subject.into();
                }
                event
            }
        })
    }
}

fn sqs_record(id: &str, body: &str, queue: &str, now: DateTime<Utc>) -> Value {
    let sent = now.timestamp_millis().to_string();
    json!({
        "messageId": id, "receiptHandle": base64::engine::general_purpose::STANDARD.encode(id), "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1", "SentTimestamp": sent, "SenderId": "example",
            "ApproximateFirstReceiveTimestamp": sent,
        },
        "messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": "local",
        "eventSourceARN": format!("arn:aws:sqs:local:000000000000:{queue}"),
    })
}

/// Everything but letters, digits, `-._~/` by percent, and a space as `+`.
fn form_encoded(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    key.bytes()
        .map(|b| match b {
            b' ' => "+".to_owned(),
            b if plain(b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

impl Request {
    fn parts(&self) -> (&str, &str) {
        self.path.split_once('?').unwrap_or((&self.path, ""))
    }

    fn headers(&self) -> Result<Vec<(String, String)>> {
        let mut headers = vec![("host".to_owned(), "localhost:7480".to_owned())];
        for header in &self.header {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                Failure::Usage(format!("--header {header}: it is written as 'name: value'"))
            })?;
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        if self.body.is_some() && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".into(), "application/json".into()));
        }
        Ok(headers)
    }

    fn v2(&self, now: DateTime<Utc>, id: &str) -> Result<Value> {
        let (path, query) = self.parts();
        let headers: serde_json::Map<_, _> =
            self.headers()?.into_iter().map(|(name, value)| (name, value.into())).collect();
        let mut event = json!({
            "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query, "headers": headers,
            "requestContext": {
                "accountId": "default", "apiId": "hello", "domainName": "localhost", "domainPrefix": "localhost",
                "http": {
                    "method": self.method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
                    "userAgent": "davit",
                },
                "requestId": id, "routeKey": "$default", "stage": "$default",
                "time": now.format("%d/%b/%Y:%H:%M:%S +0000").to_string(), "timeEpoch": now.timestamp_millis(),
            },
            "isBase64Encoded": false,
        });
        if !query.is_empty() {
            // One that comes several times is joined by commas.
            let mut joined = serde_json::Map::new();
            for (name, value) in pairs(query) {
                let before = joined.get(&name).and_then(Value::as_str).map(|b| format!("{b},"));
                joined.insert(name, format!("{}{value}", before.unwrap_or_default()).into());
            }
            event["queryStringParameters"] = joined.into();
        }
        if let Some(body) = &self.body {
            event["body"] = body.as_str().into();
        }
        Ok(event)
    }

    fn v1(&self, now: DateTime<Utc>, id: &str) -> Result<Value> {
        let (path, query) = self.parts();
        let (headers, many_headers) = one_and_many(self.headers()?);
        let (parameters, many_parameters) = match query {
            "" => (Value::Null, Value::Null),
            query => one_and_many(pairs(query)),
        };
        Ok(json!({
            "version": "1.0", "resource": path, "path": path, "httpMethod": self.method, "headers": headers,
            "multiValueHeaders": many_headers, "queryStringParameters": parameters,
            "multiValueQueryStringParameters": many_parameters, "pathParameters": null, "stageVariables": null,
            "requestContext": {
                "accountId": "default", "apiId": "hello", "domainName": "localhost", "domainPrefix": "localhost",
                "httpMethod": self.method, "path": path, "protocol": "HTTP/1.1", "requestId": id,
                "requestTime": now.format("%d/%b/%Y:%H:%M:%S +0000").to_string(),
                "requestTimeEpoch": now.timestamp_millis(), "resourcePath": path, "stage": "$default",
                "identity": { "sourceIp": "127.0.0.1", "userAgent": "davit" },
            },
            "body": self.body, "isBase64Encoded": false,
        }))
    }
}

/// A query's parts, decoded.
fn pairs(query: &str) -> Vec<(String, String)> {
    // Any address will do: only what follows the question mark is looked at.
    let url = reqwest::Url::parse(&format!("http://localhost/?{query}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

/// The last value of each name, and all of them.
fn one_and_many(pairs: Vec<(String, String)>) -> (Value, Value) {
    let (mut one, mut many) = (serde_json::Map::new(), serde_json::Map::<String, Value>::new());
    for (name, value) in pairs {
        match many.get_mut(&name).and_then(Value::as_array_mut) {
            Some(values) => values.push(value.clone().into()),
            None => drop(many.insert(name.clone(), json!([value]))),
        }
        one.insert(name, value.into());
    }
    (one.into(), many.into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        event: Event,
    }

    fn sample(words: &[&str]) -> Value {
        let line = Line::try_parse_from(std::iter::once(&"event").chain(words)).unwrap();
        line.event.kind.sample("2030-01-02T03:04:05Z".parse().unwrap(), "an-id".into()).unwrap()
    }

    #[test]
    fn requests_have_their_parts_where_handlers_look_for_them() {
        let words =
            ["--method", "POST", "--path", "/a/b?x=1&x=2&y=%20", "--body", "{}", "--header", "X-One: 1"];
        let v2 = sample(&[&["http"], &words[..]].concat());
        assert_eq!(v2["requestContext"]["http"]["method"], "POST");
        assert_eq!((&v2["rawPath"], &v2["rawQueryString"]), (&json!("/a/b"), &json!("x=1&x=2&y=%20")));
        assert_eq!(v2["queryStringParameters"], json!({"x": "1,2", "y": " "}));
        assert_eq!((&v2["headers"]["x-one"], &v2["body"]), (&json!("1"), &json!("{}")));
        assert_eq!(v2["requestContext"]["time"], "02/Jan/2030:03:04:05 +0000");
        let v1 = sample(&[&["http-v1"], &words[..]].concat());
        assert_eq!(v1["multiValueQueryStringParameters"]["x"], json!(["1", "2"]));
        assert_eq!((&v1["queryStringParameters"]["x"], &v1["httpMethod"]), (&json!("2"), &json!("POST")));
        assert_eq!(sample(&["http-v1", "--path", "/"])["queryStringParameters"], Value::Null);
    }

    #[test]
    fn records_carry_what_was_asked_for() {
        let sqs = sample(&["sqs", "--body", "a", "--body", "b"]);
        assert_eq!(
            (&sqs["Records"][1]["body"], &sqs["Records"][1]["messageId"]),
            (&json!("b"), &json!("an-id-1"))
        );
        let s3 = sample(&["s3", "--bucket", "photos", "--key", "my cat+dog/é.jpg"]);
        assert_eq!(s3["Records"][0]["s3"]["bucket"]["name"], "photos");
        assert_eq!(s3["Records"][0]["s3"]["object"]["key"], "my+cat%2Bdog/%C3%A9.jpg");
        assert_eq!(sample(&["sns", "--message", "m"])["Records"][0]["Sns"]["Message"], "m");
        assert_eq!(sample(&["schedule"])["time"], "2030-01-02T03:04:05Z");
    }

    #[test]
    fn a_cloud_event_is_one_that_a_topic_takes() {
        let event = sample(&["cloudevent", "--subject", "order-7", "--data", "[1]"]);
        let parsed = davit_api::CloudEvent::parse(event.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.as_value().unwrap()["subject"], "order-7");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_option() {
        let line = Line::try_parse_from(["event", "cloudevent", "--data", "{"]).unwrap();
        let refused = line.event.kind.sample(Utc::now(), "id".into()).unwrap_err();
        assert!(refused.to_string().starts_with("--data is not JSON"), "{refused}");
        let line = Line::try_parse_from(["event", "http", "--header", "x"]).unwrap();
        assert!(line.event.kind.sample(Utc::now(), "id".into()).is_err());
    }
}
