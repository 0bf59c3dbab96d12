//! davit's two HTTP APIs as a program would use them: management and invoke, with one token.

use std::time::Duration;

use serde_json::{Value, json};

/// The APIs of one davit. Made anew after a restart, since addresses change then.
#[derive(Clone, Debug)]
pub struct Api {
    /// The HTTP client.
    pub http: reqwest::Client,
    /// Address of the management API, without a slash at its end.
    pub management: String,
    /// Address of a gateway, without a slash at its end.
    pub gateway: String,
    /// The token sent with every request.
    pub token: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status; 0 when there was no answer at all.
    pub status: u16,
    /// The body as JSON; a string when it is not JSON.
    pub body: Value,
}

impl Answer {
    /// The error code in the body, or nothing.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// No request of a story takes longer: davit's own longest budget here is a minute.
const PATIENCE: Duration = Duration::from_secs(90);

impl Api {
    /// Sends a request that was made by the caller; no answer at all has the status 0.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = match request.bearer_auth(&self.token).timeout(PATIENCE).send().await {
            Ok(answer) => answer,
            Err(error) => return Answer { status: 0, body: format!("{error:?}").into() },
        };
        let status = answer.status().as_u16();
        match answer.text().await {
            Ok(text) => Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) },
            Err(error) => Answer { status: 0, body: format!("{error:?}").into() },
        }
    }

    /// `GET` of the management API.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.management))).await
    }

    /// `POST` to the management API.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.http.post(format!("{}{path}", self.management));
        self.send(request.header("content-type", "application/json").body(body.to_string())).await
    }

    /// Calls a function of the namespace `default` and waits for its answer.
    pub async fn invoke(&self, function: &str, event: &Value) -> Answer {
        self.call(function, "", event).await
    }

    /// Hands a call to the durable queue.
    pub async fn enqueue(&self, function: &str, event: &Value) -> Answer {
        self.call(function, "?async=true", event).await
    }

    async fn call(&self, function: &str, query: &str, event: &Value) -> Answer {
        let path = format!("/v1/namespaces/default/functions/{function}/invocations{query}");
        self.send(self.http.post(format!("{}{path}", self.gateway)).body(event.to_string())).await
    }

    /// What became of an accepted invocation.
    pub async fn invocation(&self, id: &str) -> Answer {
        self.get(&format!("/v1/namespaces/default/invocations/{id}")).await
    }

    /// Waits until an accepted invocation has ended well, and gives its view.
    pub async fn succeeded(&self, id: &str) -> Value {
        crate::eventually_within(Duration::from_secs(150), "the invocation to succeed", async || {
            let seen = self.invocation(id).await;
            if seen.body["state"] == "succeeded" { Ok(seen.body) } else { Err(seen) }
        })
        .await
    }

    /// Enqueues `{"n": n}`; gives the id if, and only if, davit promised to carry it out.
    pub async fn promised(&self, function: &str, n: u64) -> Result<String, Answer> {
        let answer = self.enqueue(function, &json!({ "n": n })).await;
        if answer.status != 202 {
            return Err(answer);
        }
        Ok(answer.body["invocation_id"].as_str().expect("a 202 carries the invocation's id").to_owned())
    }
}
