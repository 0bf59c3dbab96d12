//! What a route's operation asks of requests: compiled at the first request, and then for all that follow.

use std::sync::{Arc, OnceLock};

use davit_api::{ApiError, ErrorCode, OpenApiDocument, RouteSpec, VersionSpec};
use davit_openapi::Rules;

/// An operation of a version's OpenAPI document. A gateway holds many that nobody calls, so until then it is text.
pub(crate) struct Contract {
    document: Arc<str>,
    operation: Box<str>,
    rules: OnceLock<Option<Rules>>,
}

/// A version's document, shared by its routes.
pub(super) struct Document<'v> {
    value: &'v OpenApiDocument,
    text: Arc<str>,
}

impl<'v> Document<'v> {
    pub(super) fn of(spec: &'v VersionSpec) -> Option<Self> {
        let value = spec.openapi.as_ref()?;
        Some(Self { value, text: value.value().to_string().into() })
    }
}

impl Contract {
    /// That of a route; none where it asks for nothing.
    pub(super) fn of(document: Option<&Document<'_>>, route: &RouteSpec) -> Option<Arc<Self>> {
        let (document, operation) = (document?, route.operation.as_deref()?);
        davit_openapi::asks(document.value.value(), operation).then(|| {
            let text = document.text.clone();
            Arc::new(Self { document: text, operation: operation.into(), rules: OnceLock::new() })
        })
    }

    /// The operation's name.
    pub(crate) fn operation(&self) -> &str {
        &self.operation
    }

    /// Its rules. Whoever comes first compiles them, some milliseconds for a large document; that it can be done was seen
    /// when the version was accepted.
    pub(crate) fn rules(&self) -> Result<Option<&Rules>, ApiError> {
        if let Some(rules) = self.rules.get() {
            return Ok(rules.as_ref());
        }
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(operation = %self.operation, %error, "an operation's rules cannot be compiled");
            ApiError::new(ErrorCode::Internal, "the rules for requests to this address cannot be read")
        };
        let document = serde_json::from_str(&self.document).map_err(|error| failed(&error))?;
        let rules = Rules::of(&document, &self.operation).map_err(|error| failed(&error))?;
        Ok(self.rules.get_or_init(|| rules).as_ref())
    }
}

impl PartialEq for Contract {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation && self.document == other.document
    }
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Contract").field(&self.operation).finish()
    }
}
