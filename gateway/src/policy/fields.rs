//! Changes of headers, ready to be made.

use davit_api::HeaderChanges;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What is taken out and what is set.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
}

impl Changes {
    pub(super) fn of(changes: Option<&HeaderChanges>) -> Self {
        let Some(changes) = changes else { return Self::default() };
        // Both were checked with the version; what is no header all the same is left out.
        let name = |name: &davit_api::FieldName| HeaderName::from_bytes(name.as_str().as_bytes()).ok();
        let set =
            changes.set.iter().filter_map(|(n, value)| Some((name(n)?, HeaderValue::from_str(value).ok()?)));
        Self { remove: changes.remove.iter().filter_map(name).collect(), set: set.collect() }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}
