//! What an operation asks of its requests, compiled once, and requests held to it.

mod body;
mod compile;
mod head;
mod parameter;
mod refusal;

use davit_api::{ApiError, VersionSpec};
use serde_json::Value;

use crate::place::Problem;
use crate::settings::Settings;

pub use head::Head;
pub use refusal::Refusal;

use self::compile::Compiler;
use self::parameter::Parameter;

/// Schemas that all operations of one version may consist of, each operation by itself.
const SCHEMAS: usize = 20_000;

/// What an operation asks of its requests.
pub struct Rules {
    parameters: Box<[Parameter]>,
    body: Option<body::Rule>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let media = self.body.as_ref().map(|body| body.ranges().collect::<Vec<_>>());
        f.debug_struct("Rules").field("parameters", &self.parameters.len()).field("body", &media).finish()
    }
}

/// What is to happen to a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// It goes on as it comes.
    Unread,
    /// It is read whole and given to [`Rules::body`] with this.
    Json(Media),
}

/// Which of the media types that an operation takes a body has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Media(usize);

impl Rules {
    /// The rules of an operation of a version's document, such as `POST /orders`. None where it asks for nothing, or where it
    /// says that its requests are not to be checked.
    pub fn of(document: &Value, operation: &str) -> Result<Option<Self>, Problem> {
        Compiler::new(document).rules(operation)
    }
}

/// Whether an operation asks anything of its requests, as far as can be told without compiling it.
pub fn asks(document: &Value, operation: &str) -> bool {
    let Some((method, path)) = operation.split_once(' ') else { return false };
    let Some(item) = document.get("paths").and_then(|paths| paths.get(path)) else { return false };
    let Some(operation) = item.get(method.to_ascii_lowercase()) else { return false };
    let some = |list: Option<&Value>| list.is_some_and(|list| list != &Value::Array(Vec::new()));
    let asks = some(item.get("parameters"))
        || some(operation.get("parameters"))
        || operation.get("requestBody").is_some();
    asks && Settings::of([document, item], operation, "").is_ok_and(|settings| settings.validate)
}

/// Checks that the rules of all of a version's operations can be compiled, and what they cost. The error names the operation
/// and the place in the document.
pub fn check(spec: &VersionSpec) -> Result<(), ApiError> {
    let Some(document) = &spec.openapi else { return Ok(()) };
    let operations = spec.routes.iter().filter_map(|route| route.operation.as_deref());
    match compile_all(document.value(), operations).into_iter().next() {
        Some(problem) => Err(ApiError::field("openapi", problem)),
        None => Ok(()),
    }
}

/// What keeps these operations' rules from being compiled.
pub(crate) fn compile_all<'n>(document: &Value, names: impl Iterator<Item = &'n str>) -> Vec<Problem> {
    let mut compiler = Compiler::new(document);
    let mut problems = Vec::new();
    for name in names {
        if let Err(problem) = compiler.rules(name) {
            problems.push(problem);
        }
        if compiler.schemas() > SCHEMAS {
            let message = format!(
                "the operations consist of more than {SCHEMAS} schemas, each with all that it refers to"
            );
            problems.push(Problem::at("/paths", message));
            break;
        }
    }
    problems
}

#[cfg(test)]
mod tests;
