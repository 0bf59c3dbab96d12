//! Decisions about callers, without any call.

use davit_api::{Digest, FunctionId, FunctionKind, PoolKey, RuntimeName, VersionId, VersionSpec, limits};
use proptest::prelude::*;

use super::*;

fn version(function: &str, change: impl FnOnce(&mut VersionSpec)) -> Arc<LiveVersion> {
    let mut spec = VersionSpec::new("provided".parse::<RuntimeName>().unwrap(), FunctionKind::Handler);
    change(&mut spec);
    let (namespace, function) = function.split_once('/').unwrap();
    let (namespace, function) = (namespace.parse().unwrap(), function.parse().unwrap());
    Arc::new(LiveVersion {
        address: LiveVersion::address_of(&namespace, &function),
        namespace,
        function,
        function_id: FunctionId::new(),
        version_id: VersionId::new(),
        number: 3,
        bundle: Digest::from_bytes([0; 32]),
        bundle_size: 0,
        routes: Box::default(),
        policy: None,
        env: Box::default(),
        secret_files: Box::default(),
        has_secrets: false,
        missing_secrets: Box::default(),
        pool_key: Arc::new(PoolKey::of(&spec, "")),
        config: Digest::from_bytes([0; 32]),
        spec,
    })
}

fn plain(function: &str) -> Arc<LiveVersion> {
    version(function, |_| {})
}

fn caller(function: &str, standing: Standing) -> Caller {
    Caller { version: plain(function), standing }
}

fn underway(hops: u8, deadline: Instant) -> Underway {
    let cause = Cause { lineage: Lineage { hops, caller: None }, waiting: None };
    Underway { cause: Some(Arc::new(cause)), ..Underway::plain(InvocationId::new(), deadline) }
}

#[test]
fn who_may_not_is_told_what_to_declare() {
    let now = Instant::now();
    let asks = |from: &str, callee: &Arc<LiveVersion>| {
        caller(from, Standing::Call(underway(0, now))).may_call(callee).map_err(|error| error.message)
    };
    let open = plain("shop/stock");
    assert_eq!(asks("shop/orders", &open), Ok(()));
    assert!(asks("billing/orders", &open).unwrap_err().ends_with("allow_callers = [\"billing/orders\"]"));
    let closed =
        version("shop/stock", |spec| spec.allow_callers = Some(vec!["billing/orders".parse().unwrap()]));
    assert_eq!(asks("billing/orders", &closed), Ok(()));
    assert!(asks("shop/orders", &closed).unwrap_err().ends_with("allow_callers = [\"orders\"]"));
}

#[test]
fn a_chain_ends_and_nobody_begins_one_while_loading() {
    let now = Instant::now();
    let lineage = |standing| caller("shop/orders", standing).lineage(None);
    for hops in 0..limits::HOPS {
        let made = lineage(Standing::Call(underway(hops, now))).unwrap();
        assert_eq!(made.hops, hops + 1);
        assert_eq!(made.caller.unwrap().to_string(), "shop/orders");
    }
    for standing in [
        Standing::Call(underway(limits::HOPS, now)),
        Standing::Past(underway(limits::HOPS, now)),
        Standing::OneOf { hops: limits::HOPS, deadline: now },
    ] {
        assert_eq!(lineage(standing).unwrap_err().code, ErrorCode::LoopDetected);
    }
    assert_eq!(lineage(Standing::Nobody).unwrap_err().code, ErrorCode::Conflict);
    let from_outside = Underway::plain(InvocationId::new(), now);
    assert_eq!(lineage(Standing::Call(from_outside)).unwrap().hops, 1);
}

#[test]
fn what_waits_for_itself_is_found_out_at_any_distance() {
    let now = Instant::now();
    let (a, b) = (version("shop/a", |s| s.max_instances = 2), plain("shop/b"));
    let mut cause: Option<Arc<Cause>> = None;
    // a → b → a → b …: each waits for the next, and the third call of `a` has no place.
    let mut refused_at = None;
    for n in 0..8 {
        let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let call = Underway { cause: cause.clone(), ..Underway::plain(InvocationId::new(), now) };
        let caller = Caller { version: from.clone(), standing: Standing::Call(call) };
        let next = caller.cause(Lineage { hops: n + 1, caller: None });
        if would_wait_for_itself(&next, to).is_err() {
            refused_at = Some(n);
            break;
        }
        cause = Some(Arc::new(next));
    }
    assert_eq!(refused_at, Some(3));
    let one = version("shop/one", |s| s.max_instances = 1);
    let itself = Caller { version: one.clone(), standing: Standing::Call(underway(0, now)) };
    let error = would_wait_for_itself(&itself.cause(Lineage::default()), &one).unwrap_err();
    assert!(error.message.contains("raise its max_instances"), "{}", error.message);
    assert!(would_wait_for_itself(&itself.cause(Lineage::default()), &b).is_ok());
}

#[test]
fn traces_join() {
    let now = Instant::now();
    let known = |trace: Option<&str>| {
        let call = Underway { trace_id: trace.map(Arc::from), ..underway(0, now) };
        (call.id, caller("shop/orders", Standing::Call(call)))
    };
    let text = |trace: Option<Arc<str>>| trace.unwrap().to_string();
    let (id, with) =
        known(Some("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"));
    let span = span(id);
    let joined = format!("Root=1-5759e988-bd862e3fe1be46a994272793;Parent={span};Sampled=1");
    assert_eq!(text(with.trace_id(None, None)), joined);
    let as_told = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    assert_eq!(text(with.trace_id(Some(as_told), None)), joined, "SDKs say what they were told");
    let own_span = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=aaaaaaaaaaaaaaaa;Sampled=1";
    assert_eq!(text(with.trace_id(Some(own_span), None)), own_span);
    assert_eq!(text(with.trace_id(Some("Root=1-00000000-000000000000000000000000"), None)), joined);
    let w3c = "00-5759e988bd862e3fe1be46a994272793-00f067aa0ba902b7-01";
    let from_w3c = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=00f067aa0ba902b7;Sampled=1";
    assert_eq!(text(with.trace_id(None, Some(w3c))), from_w3c);
    let (id, without) = known(None);
    let digits = id.0.simple().to_string();
    let begun = text(without.trace_id(None, None));
    assert!(begun.starts_with(&format!("Root=1-{}-{};Parent=", &digits[..8], &digits[8..])), "{begun}");
    assert_eq!(text(without.trace_id(None, Some(w3c))), from_w3c);
    for bad in
        ["", "00", "01-5759e988bd862e3fe1be46a994272793-00f067aa0ba902b7-01", "00-xyz-00f067aa0ba902b7-01"]
    {
        assert_eq!(super::from_w3c(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn a_callee_never_has_more_time_than_its_caller_or_than_its_own(left in 0_u64..1_000_000, own in 1_u32..=900) {
        let now = Instant::now();
        let callee = version("shop/b", |spec| spec.timeout_seconds = own);
        let deadline = now + Duration::from_millis(left);
        let budget = caller("shop/a", Standing::Call(underway(0, deadline))).budget(&callee, now);
        let own = now + Duration::from_secs(own.into());
        prop_assert!(budget.deadline <= own);
        prop_assert!(budget.deadline <= deadline && budget.deadline >= now);
        prop_assert_eq!(budget.inherited, budget.deadline < own);
        // The caller can still tell, and loses little.
        prop_assert!(!budget.inherited || deadline - budget.deadline <= RESERVE);
    }

    #[test]
    fn time_that_is_over_binds_nobody(past in 1_u64..100_000) {
        let now = Instant::now() + Duration::from_secs(1_000);
        let callee = plain("shop/b");
        let over = now - Duration::from_millis(past);
        let budget = caller("shop/a", Standing::Call(underway(0, over))).budget(&callee, now);
        prop_assert!(!budget.inherited && budget.deadline > now);
    }
}
