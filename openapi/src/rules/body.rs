//! A request's body: which media types there may be, and what JSON has to be.

use davit_api::ErrorCode;
use http::{HeaderMap, header};
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::compile::{Compiler, Schema};
use super::refusal::{Refusal, TOLD};
use super::{Body, Media, Rules};
use crate::cost;
use crate::place::{Problem, below};

/// The most that one body may cost, in looks of a schema at a value; some tenths of a second.
const WORK: u64 = 2_000_000;
/// Up to here all that is wrong is looked for, beyond it only the first.
const THOROUGH: u64 = 100_000;

/// What an operation asks of bodies.
pub(super) struct Rule {
    required: bool,
    /// Media types and ranges, in lower case.
    media: Box<[(Box<str>, Option<Schema>)]>,
}

/// Whether a media type is JSON.
pub(super) fn is_json(media: &str) -> bool {
    let essence = essence(media);
    essence == "application/json"
        || essence == "text/json"
        || (essence.ends_with("+json") && essence.contains('/'))
}

fn essence(media: &str) -> String {
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl Rule {
    pub(super) fn compile<'d>(
        compiler: &mut Compiler<'d>,
        given: &'d Value,
        place: &str,
    ) -> Result<Self, Problem> {
        let place = below(place, "content");
        let Some(content) = given.get("content").and_then(Value::as_object) else {
            return Err(Problem::at(&place, "is missing, or no object"));
        };
        let mut media = Vec::new();
        for (range, inner) in content {
            let place = below(&below(&place, range), "schema");
            let range = essence(range);
            if range.split('/').count() != 2 {
                return Err(Problem::at(&place, "is not below a media type such as application/json"));
            }
            let json = is_json(&range) || range.ends_with("/*");
            let schema = inner.get("schema").filter(|_| json);
            let schema = schema.map(|schema| compiler.schema(schema, &place)).transpose()?;
            media.push((range.into_boxed_str(), schema.map(|(schema, _)| schema)));
        }
        Ok(Self { required: given.get("required") == Some(&Value::Bool(true)), media: media.into() })
    }

    /// The media types.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &str> {
        self.media.iter().map(|(range, _)| &**range)
    }

    /// What is to happen to a body with these headers.
    pub(super) fn wish(
        &self,
        headers: &HeaderMap,
        has_body: bool,
        refusal: &mut Refusal,
    ) -> Result<Body, Refusal> {
        if !has_body {
            if self.required {
                refusal.add("body", "is missing");
            }
            return Ok(Body::Unread);
        }
        let unknown =
            |message: &str| Refusal::one(ErrorCode::UnsupportedMediaType, "header.content-type", message);
        let takes = || self.ranges().collect::<Vec<_>>().join(", ");
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(given), None) = (types.next(), types.next()) else {
            return Err(unknown(&format!("must be one of {}", takes())));
        };
        let given = essence(given.to_str().unwrap_or_default());
        let kind = given.split('/').next().unwrap_or_default();
        let ranges = [given.clone(), format!("{kind}/*"), "*/*".to_owned()];
        let found = ranges.iter().find_map(|range| self.ranges().position(|known| known == range));
        let Some(index) = found else {
            return Err(unknown(&format!("{given:?} is not taken here; one of {} is", takes())));
        };
        if self.media[index].1.is_none() || !is_json(&given) {
            return Ok(Body::Unread);
        }
        let coded = headers.get_all(header::CONTENT_ENCODING).iter();
        if coded.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let code = ErrorCode::UnsupportedMediaType;
            return Err(Refusal::one(code, "header.content-encoding", "the body must not be compressed"));
        }
        Ok(Body::Json(Media(index)))
    }
}

impl Rules {
    /// Holds a body to the rules of its media type, as [`Rules::head`] found it. Its cost is bounded; it may be some tenths
    /// of a second for a body of megabytes.
    pub fn body(&self, Media(index): Media, body: &[u8]) -> Result<(), Refusal> {
        let Some(rule) = &self.body else { return Ok(()) };
        let Some(Some(schema)) = rule.media.get(index).map(|(_, schema)| schema) else { return Ok(()) };
        if body.is_empty() {
            let missing = Refusal::one(ErrorCode::InvalidRequest, "body", "is missing");
            return if rule.required { Err(missing) } else { Ok(()) };
        }
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            Refusal::one(ErrorCode::InvalidRequest, "body", &format!("must be JSON: {error}"))
        })?;
        let work = cost::of(&schema.levels, &value);
        if work > WORK {
            let message =
                "has too many values, or is nested too deep, to be checked by this operation's schema";
            return Err(Refusal::one(ErrorCode::TooLarge, "body", message));
        }
        if schema.fits(&value) {
            return Ok(());
        }
        let mut refusal = Refusal::none();
        if work <= THOROUGH {
            schema.explain(&value, "body", &mut refusal);
        } else if let Err(error) = schema.validator.validate(&value) {
            tell(&error, "body", &mut refusal);
        }
        refusal.checked()
    }
}

impl Schema {
    /// Whether a value fits.
    pub(super) fn fits(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// Adds what is wrong with a value that does not.
    pub(super) fn explain(&self, value: &Value, told: &str, refusal: &mut Refusal) {
        for error in self.validator.iter_errors(value).take(TOLD + 1) {
            tell(&error, told, refusal);
        }
    }
}

/// Adds an error in our words. The value itself is not repeated: it may be long, or secret.
fn tell(error: &ValidationError<'_>, told: &str, refusal: &mut Refusal) {
    let place = format!("{told}{}", error.instance_path().as_str());
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            refusal.add(&format!("{place}/{name}"), "is missing");
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            for name in unexpected.iter().take(TOLD + 1) {
                refusal.add(&format!("{place}/{name}"), "is not known");
            }
        }
        ValidationErrorKind::FalseSchema => refusal.add(&place, "must not be there"),
        _ => refusal.add(&place, &error.masked_with("the value").to_string()),
    }
}
