//! A folder with an OpenAPI document: its operations are routes, requests that do not fit are refused before anybody is
//! asked, and what is deployed comes out again as a document.

use davit_e2e::{Cli, Davit, folder_of};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const TOML: &str = "runtime = \"python3.13\"\nhandler = \"app.handler\"\nopenapi = \"openapi.yaml\"\n";
const HANDLER: &str = r#"
import json

def handler(event, context):
    return {"statusCode": 200, "headers": {"content-type": "application/json"},
            "body": json.dumps({"route": event["routeKey"], "body": event.get("body"),
                                "parameters": event.get("pathParameters")})}
"#;
const SERVER: &str = r#"
import http.server, os

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
"#;
const DOCUMENT: &str = r##"
openapi: 3.0.3
info: { title: Shop, version: 1.0.0 }
servers: [{ url: "https://shop.example.com/PREFIX" }]
x-davit: { access: public }
paths:
  /orders:
    post:
      summary: Takes an order
      requestBody:
        required: true
        content: { application/json: { schema: { $ref: "#/components/schemas/Order" } } }
      responses: { "200": { description: taken } }
    get:
      x-davit: { access: token }
      parameters: [{ name: limit, in: query, schema: { type: integer, maximum: 100 } }]
      responses: { "200": { description: all of them } }
  /orders/{order-id}:
    get:
      parameters: [{ name: order-id, in: path, required: true, schema: { type: string, pattern: "^[0-9]+$" } }]
      responses: { "200": { description: one } }
components:
  schemas:
    Order:
      type: object
      required: [items]
      properties:
        items:
          type: array
          items:
            type: object
            required: [name]
            properties: { name: { type: string }, count: { type: integer, minimum: 1 } }
"##;

fn document(prefix: &str) -> String {
    DOCUMENT.replace("PREFIX", prefix)
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// Sends a request that does not fit.
async fn refused(request: RequestBuilder, status: u16, said: &str) {
    let (code, error) = answer(request).await;
    let message = error["message"].as_str().unwrap_or_default();
    assert!(code == status && message.contains(said), "{said}: {code} {error}");
    assert_eq!(error["source"], "client");
}

async fn check_orders(davit: &Davit, prefix: &str, operation: &str) {
    let ask = |method: Method, path: &str| davit.http.request(method, davit.url(&format!("/{prefix}{path}")));
    let order = |body: &str| {
        ask(Method::POST, "/orders").header("content-type", "application/json").body(body.to_owned())
    };
    let fit = format!("the request does not fit POST {operation}: ");
    refused(order(r#"{"items": [{"name": "a"}, {"count": 0}]}"#), 400, &format!("{fit}body/items/1/")).await;
    refused(order(r#"{"items": [{}]}"#), 400, &format!("{fit}body/items/0/name: is missing")).await;
    refused(order("{"), 400, &format!("{fit}body: must be JSON")).await;
    refused(ask(Method::POST, "/orders"), 400, &format!("{fit}body: is missing")).await;
    refused(ask(Method::POST, "/orders").body("items"), 415, "application/json").await;
    let large = format!(r#"{{"items": [{}]}}"#, vec!["{}"; 10_000].join(","));
    refused(order(&large), 400, "; and more").await;
    refused(order(r#"{"items": 5}"#), 400, "body/items: the value is not of type").await;
}

#[tokio::test]
async fn operations_are_routes_and_requests_that_do_not_fit_reach_nobody() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let files = |prefix: &str, settings: &str| {
        [
            ("davit.toml", format!("name = \"{prefix}\"\n{TOML}{settings}")),
            ("app.py", HANDLER.to_owned()),
            ("openapi.yaml", document(prefix)),
        ]
    };
    let deploy = async |files: &[(&str, String)]| {
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        cli.deploy_files(&files).await
    };
    deploy(&files("shop", "")).await;
    check_orders(&davit, "shop", "/orders").await;
    let ask = |method: Method, path: &str| davit.http.request(method, davit.url(path));
    refused(ask(Method::GET, "/shop/orders/x7"), 400, "path.order-id: the value does not match").await;
    let limit = ask(Method::GET, "/shop/orders?limit=101").bearer_auth(davit.token());
    refused(limit, 400, "query.limit: the value is greater than the maximum of 100").await;
    assert_eq!(davit.metric("davit_calls_ok_total").await, 0.0, "and nobody was called");
    let listed = cli.json(&["list"]).await;
    assert_eq!(listed[0]["instances"], json!({"active": 0, "frozen": 0}), "{listed}");

    let (status, body) = answer(ask(Method::GET, "/shop/orders/7")).await;
    assert_eq!((status, &body["parameters"]), (200, &json!({"order-id": "7"})));
    let good = r#"{"items": [{"name": "a", "count": 2}]}"#;
    let order = ask(Method::POST, "/shop/orders").header("content-type", "application/json").body(good);
    assert_eq!(answer(order).await.1["body"], good);
    assert_eq!(answer(ask(Method::GET, "/shop/orders")).await.0, 401);
    assert_eq!(answer(ask(Method::GET, "/shop/orders").bearer_auth(davit.token())).await.0, 200);
    assert_eq!(answer(ask(Method::DELETE, "/shop/orders")).await.0, 405);

    // A server's requests are held to it as well, and the body that was looked at arrives as it was.
    let server = [
        ("davit.toml", "name = \"echo\"\nruntime = \"python3.13\"\nkind = \"server\"\ncommand = [\"python3\", \"server.py\"]\nopenapi = \"openapi.yaml\"\n".to_owned()),
        ("server.py", SERVER.to_owned()),
        ("openapi.yaml", document("echo")),
    ];
    deploy(&server).await;
    check_orders(&davit, "echo", "/orders").await;
    let order = ask(Method::POST, "/echo/orders").header("content-type", "application/json").body(good);
    assert_eq!(answer(order).await, (200, serde_json::from_str(good).unwrap()));

    // What is deployed comes out as a document, which can be deployed again as it is.
    let all = cli.json(&["openapi", "export"]).await;
    assert!(all["paths"]["/echo/orders"]["post"]["summary"] == "Takes an order", "{all}");
    let shop = cli.json(&["openapi", "export", "--function", "shop"]).await;
    assert_eq!(shop["x-davit"], Value::Null);
    let list = &shop["paths"]["/shop/orders"]["get"];
    assert_eq!(
        (&list["x-davit"]["function"], &list["security"]),
        (&json!("shop"), &json!([{"davit_token": []}]))
    );
    cli.run(&["delete", "shop", "--yes"]).await;
    let mut again = files("shop", "");
    again[2].1 = shop.to_string();
    deploy(&again).await;
    check_orders(&davit, "shop", "/shop/orders").await;
    let path = cli.json(&["openapi", "export", "--function", "shop"]).await;
    assert_eq!(
        path["paths"], shop["paths"],
        "but for the version, which is the first of a new function again"
    );

    // The API looks at documents by itself, and lists of versions leave them out.
    let live = cli.json(&["describe", "shop"]).await["live"].clone();
    let mut spec = live["spec"].clone();
    let order = &mut spec["openapi"]["components"]["schemas"]["Order"];
    order["pattern"] = json!("(a)\\1");
    let new = json!({"spec": spec, "source": live["source"]});
    let refused = davit.api().post("/v1/namespaces/default/functions/shop/versions", &new).await;
    let message = refused.body["message"].as_str().unwrap_or_default();
    let said = "openapi: POST /shop/orders: #/components/schemas/Order/pattern: ";
    assert!(refused.status == 400 && message.starts_with(said), "{refused:?}");
    let listed = davit.api().get("/v1/namespaces/default/functions/shop/versions").await.body;
    let listed = &listed["items"][0]["spec"];
    assert!(listed["openapi"].is_null() && listed["routes"][0]["operation"].is_string(), "{listed}");

    wrong_documents(&cli).await;
}

async fn wrong_documents(cli: &Cli) {
    for (from, to, said) in [
        ("openapi: 3.0.3", "openapi: [3.0.3", "openapi.yaml, line "),
        (
            "openapi: 3.0.3",
            "openapi: 2.7.1",
            "openapi.yaml: #/openapi: \"2.7.1\" is not known; 3.0 and 3.1 are",
        ),
        ("schemas/Order\" }", "schemas/Bill\" }", "POST /orders: "),
        ("maximum: 100", "maximum: lots", "GET /orders: #/paths/~1orders/get/parameters/0/schema/maximum"),
    ] {
        let text = document("wrong").replace(from, to);
        let folder = folder_of(&[
            ("davit.toml", &format!("name = \"wrong\"\n{TOML}")),
            ("app.py", HANDLER),
            ("openapi.yaml", &text),
        ]);
        for args in [&["deploy"][..], &["openapi", "check"], &["apply", "--plan"]] {
            let refused = cli.try_in(folder.path(), args).await;
            assert_eq!(refused.code, 2, "{refused:?}");
            let told = if said == "POST /orders: " { "#/components/schemas/Bill" } else { said };
            assert!(refused.stderr.contains(told), "{told}: {refused:?}");
        }
    }
}
