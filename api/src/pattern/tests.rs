//! What patterns match, what they refuse, and that neither ever panics or takes long.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn matches(pattern: Value, event: Value) -> bool {
    Pattern::try_from(pattern.clone()).unwrap_or_else(|e| panic!("{pattern}: {e}")).matches(&event)
}

#[test]
fn each_test_says_yes_and_no() {
    for (tests, yes, no) in [
        (json!(["a", "b"]), json!("b"), json!("c")),
        (json!([1]), json!(1.0), json!("1")),
        (
            json!([18_446_744_073_709_551_615_u64]),
            json!(18_446_744_073_709_551_615_u64),
            json!(18_446_744_073_709_551_614_u64),
        ),
        (json!([null]), json!(null), json!(false)),
        (json!([true]), json!(true), json!("true")),
        (json!([{"prefix": "eu-"}]), json!("eu-west"), json!("us-eu-")),
        (json!([{"prefix": {"equals-ignore-case": "EU-"}}]), json!("Eu-west"), json!("us")),
        (json!([{"suffix": ".png"}]), json!("a.png"), json!(".png.gz")),
        (json!([{"suffix": {"equals-ignore-case": ".PNG"}}]), json!("a.Png"), json!("a.gif")),
        (json!([{"equals-ignore-case": "StraSSe"}]), json!("STRASSE"), json!("strase")),
        (json!([{"wildcard": "a*b*c"}]), json!("a-b-b-c"), json!("a-c")),
        (json!([{"wildcard": "1\\*2\\\\"}]), json!("1*2\\"), json!("1x2\\")),
        (json!([{"anything-but": "a"}]), json!("b"), json!("a")),
        (json!([{"anything-but": [1, 2]}]), json!(3), json!(2)),
        (json!([{"anything-but": {"prefix": ["a", "b"]}}]), json!("c"), json!("b1")),
        (json!([{"anything-but": {"wildcard": "*x*"}}]), json!("abc"), json!("axc")),
        (json!([{"numeric": ["=", 5]}]), json!(5.0), json!(6)),
        (json!([{"numeric": [">", 0, "<=", 5]}]), json!(5), json!(0)),
        (json!([{"numeric": ["<", -1.5]}]), json!(-2), json!("-2")),
        (json!([{"exists": true}]), json!({"deep": 1}), Value::Null),
    ] {
        let pattern = json!({"data": {"x": tests}});
        assert!(matches(pattern.clone(), json!({"data": {"x": yes}})), "{pattern} {yes}");
        let without = if no.is_null() { json!({}) } else { json!({"x": no}) };
        assert!(!matches(pattern.clone(), json!({"data": without})), "{pattern} {no}");
    }
}

#[test]
fn what_is_not_there_passes_only_the_test_for_that() {
    let absent = json!({"data": {"x": {"y": [{"exists": false}]}}});
    for event in [
        json!({}),
        json!({"data": null}),
        json!({"data": {"x": 5}}),
        json!({"data": {"x": {}}}),
        json!({"data": {"x": []}}),
    ] {
        assert!(matches(absent.clone(), event.clone()), "{event}");
        assert!(!matches(json!({"data": {"x": {"y": [{"anything-but": 1}]}}}), event.clone()), "{event}");
    }
    assert!(!matches(absent, json!({"data": {"x": {"y": null}}})));
}

#[test]
fn a_list_matches_by_one_of_its_elements_and_an_element_by_all_its_fields() {
    let tags = json!({"data": {"tags": ["red", {"prefix": "bl"}]}});
    assert!(matches(tags.clone(), json!({"data": {"tags": ["green", ["blue"]]}})));
    assert!(!matches(tags, json!({"data": {"tags": []}})));
    let item = json!({"data": {"items": {"sku": ["a"], "count": [{"numeric": [">", 1]}]}}});
    assert!(matches(
        item.clone(),
        json!({"data": {"items": [{"sku": "b", "count": 1}, {"sku": "a", "count": 2}]}})
    ));
    assert!(!matches(item, json!({"data": {"items": [{"sku": "b", "count": 2}, {"sku": "a", "count": 1}]}})));
}

#[test]
fn fields_all_count_and_of_alternatives_one() {
    let pattern = json!({"type": ["order"], "$or": [{"data": {"vip": [true]}}, {"data": {"sum": [{"numeric": [">=", 100]}]}}]});
    assert!(matches(pattern.clone(), json!({"type": "order", "data": {"vip": true, "sum": 1}})));
    assert!(matches(pattern.clone(), json!({"type": "order", "data": {"sum": 100}})));
    assert!(!matches(pattern.clone(), json!({"type": "order", "data": {"sum": 99}})));
    assert!(!matches(pattern.clone(), json!({"type": "refund", "data": {"vip": true}})));
    assert_eq!(Pattern::try_from(pattern).unwrap().first_level(), ["type", "data", "data"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let deep = (0..20).fold(json!(["x"]), |inner, _| json!({ "a": inner }));
    for (pattern, wanted) in [
        (json!([]), "the filter must be an object"),
        (json!({}), "an empty object"),
        (json!({"type": "x"}), "type: write a list, such as [\"x\"]"),
        (json!({"data": {"a": {"b": 5}}}), "data.a.b: write a list"),
        (json!({"data": {"a": []}}), "data.a: the list is empty"),
        (json!({"data": {"a": {}}}), "data.a: an empty object"),
        (json!({"data": {"a": [["x"]]}}), "data.a: a list in a list"),
        (json!({"type": [{"prefix": "a", "suffix": "b"}]}), "type: a test is an object with one"),
        (json!({"type": [{"prefx": "a"}]}), "type: there is no test \"prefx\""),
        (json!({"type": [{"prefix": 1}]}), "type: prefix: must be a text"),
        (
            json!({"type": [{"suffix": {"equals-ignore-case": 1}}]}),
            "type: suffix: equals-ignore-case: must be",
        ),
        (json!({"type": [{"wildcard": "a**"}]}), "type: wildcard: two stars"),
        (json!({"type": [{"wildcard": "a\\b"}]}), "type: wildcard: a backslash"),
        (json!({"type": [{"exists": "yes"}]}), "type: exists: must be true or false"),
        (json!({"data": {"n": [{"numeric": [">", "5"]}]}}), "data.n: numeric: \"5\" is no number"),
        (json!({"data": {"n": [{"numeric": ["!", 5]}]}}), "data.n: numeric: \"!\" is no comparison"),
        (json!({"data": {"n": [{"numeric": [">", 5, "<", 5]}]}}), "data.n: numeric: no number lies between"),
        (
            json!({"data": {"n": [{"numeric": ["<", 5, ">", 0]}]}}),
            "data.n: numeric: a range has its lower bound first",
        ),
        (json!({"data": {"n": [{"numeric": [">"]}]}}), "data.n: numeric: write a comparison"),
        (json!({"type": [{"anything-but": []}]}), "type: anything-but: the list is empty"),
        (
            json!({"type": [{"anything-but": [{"prefix": "a"}]}]}),
            "type: anything-but: a list here holds plain",
        ),
        (json!({"$or": {}}), "$or: must be a list of patterns"),
        (json!({"$or": [{"type": ["a"]}, {"type": "b"}]}), "$or[1].type: write a list"),
        (json!({"type": ["x".repeat(5_000)]}), "the filter is larger than 4096 bytes"),
        (deep, "a.a.a"),
    ] {
        let error = Pattern::try_from(pattern.clone()).unwrap_err();
        assert!(error.starts_with(wanted), "{pattern}: {error}");
    }
}

#[test]
fn a_number_of_many_digits_still_matches_when_the_pattern_was_kept_and_read_again() {
    let text = r#"{"data":{"x":[-266636864.21532878]}}"#;
    let kept = text.parse::<Pattern>().unwrap().to_string();
    assert_eq!(kept, text);
    let event = serde_json::from_str(r#"{"data":{"x":-266636864.21532878}}"#).unwrap();
    assert!(kept.parse::<Pattern>().unwrap().matches(&event));
}

/// JSON of every kind, not too large.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        "[a-c*\\\\é]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(
                "(a|b|c|\\$or|prefix|numeric|exists|wildcard|anything-but)",
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An event, and the pattern that asks for each of its plain values exactly.
fn exactly(event: &Value) -> Option<Value> {
    match event {
        Value::Object(fields) => {
            let below: serde_json::Map<_, _> =
                fields.iter().filter_map(|(k, v)| Some((k.clone(), exactly(v)?))).collect();
            (!below.is_empty()).then_some(Value::Object(below))
        }
        Value::Array(_) => None,
        scalar => Some(json!([scalar])),
    }
}

/// A wildcard by the book: tries every split.
fn by_trying(pattern: &[char], given: &[char]) -> bool {
    match pattern.split_first() {
        None => given.is_empty(),
        Some(('*', rest)) => (0..=given.len()).any(|n| by_trying(rest, &given[n..])),
        Some((c, rest)) => given.first() == Some(c) && by_trying(rest, &given[1..]),
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_kept_reads_back_the_same(written in any_json(), event in any_json()) {
        if let Ok(pattern) = Pattern::try_from(written) {
            let again: Pattern = serde_json::from_str(&serde_json::to_string(&pattern).unwrap()).unwrap();
            prop_assert_eq!(&again, &pattern);
            prop_assert_eq!(again.matches(&event), pattern.matches(&event));
        }
    }

    #[test]
    fn an_event_matches_the_pattern_made_of_its_own_values(event in any_json()) {
        if let Some(written) = exactly(&event).filter(Value::is_object)
            && let Ok(pattern) = Pattern::try_from(written)
        {
            // `$or` is a word of the language, not a field.
            prop_assume!(!pattern.to_string().contains("$or"));
            prop_assert!(pattern.matches(&event));
        }
    }

    #[test]
    fn a_value_is_one_of_a_list_or_is_none_of_it(list in prop::collection::vec("[a-c]{1,2}", 1..4), given in "[a-c]{1,2}") {
        let event = json!({"type": given});
        let one = matches(json!({"type": list}), event.clone());
        prop_assert_eq!(one, list.contains(&given));
        prop_assert_eq!(matches(json!({"type": [{"anything-but": list}]}), event), !one);
    }

    #[test]
    fn wildcards_match_what_trying_every_split_matches(pattern in "[ab*]{0,6}", given in "[ab]{0,8}") {
        let pattern = pattern.replace("**", "*").replace("**", "*").replace("**", "*");
        if let Ok(wildcard) = text::Wildcard::parse(&pattern) {
            let (p, g): (Vec<char>, Vec<char>) = (pattern.chars().collect(), given.chars().collect());
            prop_assert_eq!(text::Text::Wildcard(wildcard).fits(&given), by_trying(&p, &g), "{} {}", pattern, given);
        }
    }
}
