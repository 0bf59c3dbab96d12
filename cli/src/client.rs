//! HTTP to one davit address: a token, a bound on every wait, and errors in davit's own form.

use std::time::Duration;

use davit_api::{ApiError, ErrorBody, ErrorCode};
use reqwest::header::{CONNECTION, HeaderMap, UPGRADE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Upgraded};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

/// A client of one address.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// A client for `url`, which names scheme and host and nothing more.
    pub(crate) fn new(url: &str, token: Option<String>) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&base)
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
            .ok_or_else(|| {
                Failure::Usage(format!("{url:?} is not an address such as http://127.0.0.1:7481"))
            })?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("davit/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none());
        // A proxy that the environment names is for the outside world, not for this machine.
        let host = parsed.host_str().unwrap_or_default();
        let loopback =
            host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if host == "localhost" || loopback {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| Failure::while_doing("HTTP client", e))?;
        Ok(Self { http, base, token })
    }

    /// A client of another address with the same token.
    pub(crate) fn at(&self, url: &str) -> Result<Self> {
        Self::new(url, self.token.clone())
    }

    /// The address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The token.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request that carries the token and waits at most a minute, unless the caller says otherwise.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request =
            self.http.request(method, format!("{}{path}", self.base)).timeout(Duration::from_secs(60));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends; an answer that is not a success becomes a failure.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.success(answer).await
    }

    /// An answer that is not a success becomes a failure.
    pub(crate) async fn success(&self, answer: Response) -> Result<Response> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.bytes().await.unwrap_or_default();
        Err(Failure::Refused(Box::new(error_body(status, &body))))
    }

    /// Asks for a connection that speaks another protocol from there on.
    pub(crate) async fn upgrade(&self, path: &str, protocol: &str) -> Result<Upgraded> {
        let request = self.request(Method::GET, path).header(CONNECTION, "upgrade").header(UPGRADE, protocol);
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return answer.upgrade().await.map_err(|e| self.unreachable(&e));
        }
        let said = self.success(answer).await?;
        Err(Failure::Failed(format!(
            "{}: answered {} instead of speaking {protocol}",
            self.base,
            said.status()
        )))
    }

    /// Sends; gives the answer's headers and body, and the headers of a failure, too.
    pub(crate) async fn exchange(
        &self,
        request: RequestBuilder,
    ) -> Result<(HeaderMap, Vec<u8>), (HeaderMap, Failure)> {
        let bare = |e: reqwest::Error| (HeaderMap::new(), self.unreachable(&e));
        let answer = request.send().await.map_err(bare)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(bare)?;
        if status.is_success() {
            Ok((headers, body.to_vec()))
        } else {
            Err((headers, Failure::Refused(Box::new(error_body(status, &body)))))
        }
    }

    /// Sends and reads the JSON answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let answer = self.send(request).await?;
        let path = answer.url().path().to_owned();
        let bytes = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&bytes).map_err(|e| Failure::while_doing(format!("answer of {path}"), e))
    }

    /// `GET`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    /// `DELETE`, without caring for the answer's body.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, path)).await.map(|_| ())
    }

    /// What it means that nothing was answered.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        // reqwest's own sentence names the URL; the cause is what a user needs.
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let what = if error.is_timeout() { "did not answer in time".to_owned() } else { format!("{cause}") };
        Failure::Unreachable(format!("{}: {what}", self.base))
    }
}

/// davit's error body; or, from something else at that address, one made from the status.
fn error_body(status: StatusCode, body: &[u8]) -> ErrorBody {
    serde_json::from_slice(body).unwrap_or_else(|_| {
        let code = match status.as_u16() {
            401 => ErrorCode::Unauthenticated,
            403 => ErrorCode::Forbidden,
            404 => ErrorCode::NotFound,
            502..=504 => ErrorCode::Unavailable,
            _ => ErrorCode::Internal,
        };
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        ApiError::new(code, format!("answered {status}: {}", text.trim())).body()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_davits_still_has_a_meaning() {
        assert_eq!(error_body(StatusCode::BAD_GATEWAY, b"<html>").code, ErrorCode::Unavailable);
        let own = ApiError::new(ErrorCode::Conflict, "taken").body();
        assert_eq!(error_body(StatusCode::CONFLICT, &serde_json::to_vec(&own).unwrap()), own);
    }

    #[test]
    fn only_addresses_are_taken() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        for bad in ["", "localhost", "unix:/x", "ftp://x"] {
            assert!(Client::new(bad, None).is_err(), "{bad}");
        }
        assert_eq!(Client::new("http://127.0.0.1:7481/", None).unwrap().base(), "http://127.0.0.1:7481");
    }
}
