//! Everything of a request but its body.

use http::{HeaderMap, header};

use super::parameter::{Form, Place};
use super::refusal::Refusal;
use super::{Body, Rules};

/// A request without its body.
#[derive(Debug, Clone, Copy)]
pub struct Head<'r> {
    /// The values of the path's parameters, in their order, decoded.
    pub path: &'r [(String, String)],
    /// The query's pairs, decoded.
    pub query: &'r [(String, String)],
    /// The headers.
    pub headers: &'r HeaderMap,
    /// Whether there is a body, as far as can be told without reading it.
    pub has_body: bool,
}

impl Rules {
    /// Whether the query is looked at.
    pub fn wants_query(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.place == Place::Query)
    }

    /// Holds a request to the rules, as far as that goes without its body, and says what is to happen to that.
    pub fn head(&self, head: Head<'_>) -> Result<Body, Refusal> {
        let mut refusal = Refusal::none();
        for parameter in &self.parameters {
            if let Form::Deep(_) = parameter.form {
                parameter.deep(head.query, &mut refusal);
                continue;
            }
            let pairs = |pairs: &'_ [(String, String)]| -> Vec<String> {
                pairs
                    .iter()
                    .filter(|(name, _)| **name == *parameter.name)
                    .map(|(_, value)| value.clone())
                    .collect()
            };
            let given: Vec<String> = match &parameter.place {
                Place::Path(index) => {
                    head.path.get(*index).map(|(_, value)| value.clone()).into_iter().collect()
                }
                Place::Query => pairs(head.query),
                Place::Header(name) => {
                    let all = head.headers.get_all(name).iter();
                    all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
                }
                Place::Cookie => cookies(head.headers, &parameter.name),
            };
            let given: Vec<&str> = given.iter().map(String::as_str).collect();
            parameter.check(&given, &mut refusal);
        }
        // What is wrong with the content type is another error, and only told where nothing else is.
        let mut wish = Ok(Body::Unread);
        if let Some(body) = &self.body {
            wish = body.wish(head.headers, head.has_body, &mut refusal);
        }
        refusal.checked()?;
        wish
    }
}

/// The values of a cookie.
fn cookies(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"').to_owned()).collect()
}
