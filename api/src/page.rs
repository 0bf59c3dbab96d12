//! Lists in pages: what the management API answers where a list can be long.

use serde::{Deserialize, Serialize};

/// One page of a list. The order is fixed, and a page begins behind an item, not at a number: what is added or removed
/// meanwhile makes no other item appear twice or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Asks for the next page, as `after`; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The page of at most `limit` items out of up to one more, which says that there is a next one. `cursor` is what
    /// an item is called in `after`.
    pub fn cut(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_when_there_is_one() {
        let page = |found: &[u32], limit| Page::cut(found.to_vec(), limit, u32::to_string);
        assert_eq!(page(&[1, 2, 3], 2), Page { items: vec![1, 2], next: Some("2".into()) });
        assert_eq!(page(&[1, 2], 2), Page { items: vec![1, 2], next: None });
        assert_eq!(page(&[], 2), Page { items: vec![], next: None });
        assert_eq!(serde_json::to_string(&page(&[1], 1)).unwrap(), r#"{"items":[1]}"#);
    }
}
