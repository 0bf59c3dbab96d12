use davit_api::SecretName;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

/// The example of GitHub's page "Validating webhook deliveries", section "Testing the webhook payload validation".
const GITHUB: (&str, &[u8], &str) = (
    "It's a Secret to Everybody",
    b"Hello, World!",
    "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
);
/// The worked example of the Standard Webhooks specification, "Verifying webhook authenticity".
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const STANDARD_BODY: &[u8] = b"{\"test\": 2432232314}";
const STANDARD_TIME: i64 = 1_614_265_330;
const STANDARD_HEADERS: [(&str, &str); 3] = [
    ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    ("webhook-timestamp", "1614265330"),
    ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
];
/// Stripe publishes how it signs and no example that can be computed; this one is what OpenSSL says of it:
/// `printf '%s' "$time.$body" | openssl dgst -sha256 -hmac whsec_test_secret`.
const STRIPE_SECRET: &str = "whsec_test_secret";
const STRIPE_BODY: &[u8] = br#"{"id":"evt_1","type":"charge.succeeded"}"#;
const STRIPE_TIME: i64 = 1_492_774_577;
const STRIPE_HEX: &str = "4ee5e8d695c9619e003fd480d3d51700d924e29697337d379a6ef6e06e703ab4";
/// RFC 4231, test case 2.
const RFC: (&str, &[u8], &str, &str) = (
    "Jefe",
    b"what do ya want for nothing?",
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=",
);

fn webhook(verify: Verification) -> WebhookSource {
    let secret: SecretName = "s".parse().unwrap();
    WebhookSource::new(verify, (verify != Verification::None).then_some(secret))
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        map.append(name, value);
    }
    map
}

fn ask(
    webhook: &WebhookSource,
    secret: &str,
    pairs: &[(&str, &str)],
    body: &[u8],
    now: i64,
) -> Result<(), String> {
    let delivery = Delivery { headers: &headers(pairs), query: "", body, now };
    verify(webhook, Some(secret), delivery).map_err(|error| {
        assert_eq!(error.code, ErrorCode::Unauthenticated);
        assert!(!error.message.contains(secret), "{}", error.message);
        error.message
    })
}

#[test]
fn github_signs_the_body() {
    let (secret, body, signature) = GITHUB;
    let name = "x-hub-signature-256";
    let ask =
        |pairs: &[(&str, &str)], body: &[u8]| ask(&webhook(Verification::Github), secret, pairs, body, 0);
    assert_eq!(ask(&[(name, signature)], body), Ok(()));
    assert_eq!(ask(&[(name, signature)], b"Hello, World?"), Err(format!("{name}: does not match")));
    assert_eq!(ask(&[], body), Err(format!("{name}: is missing")));
    assert_eq!(ask(&[(name, signature), (name, signature)], body), Err(format!("{name}: given twice")));
    for bad in [&signature[7..], "sha256=", "sha1=757107ea", "", &signature[..70]] {
        let told = ask(&[(name, bad)], body);
        assert_eq!(told, Err(format!("{name}: must be sha256= and 64 hexadecimal digits")), "{bad}");
    }
    // The older header is no proof.
    assert!(ask(&[("x-hub-signature", signature)], body).is_err());
}

#[test]
fn stripe_signs_the_time_and_the_body_and_may_sign_twice() {
    let mut source = webhook(Verification::Stripe);
    let ask_at = |source: &WebhookSource, value: &str, body: &[u8], now: i64| {
        ask(source, STRIPE_SECRET, &[("stripe-signature", value)], body, now)
    };
    let (other, good) = ("0".repeat(64), format!("t={STRIPE_TIME},v1={STRIPE_HEX}"));
    assert_eq!(ask_at(&source, &good, STRIPE_BODY, STRIPE_TIME), Ok(()));
    let two = format!("t={STRIPE_TIME},v1={other},v1={STRIPE_HEX},v0={other}");
    assert_eq!(ask_at(&source, &two, STRIPE_BODY, STRIPE_TIME), Ok(()));
    for bad in [
        format!("t={STRIPE_TIME},v0={STRIPE_HEX}"),
        format!("v1={STRIPE_HEX}"),
        format!("t={STRIPE_TIME},t={STRIPE_TIME},v1={STRIPE_HEX}"),
        format!("t=+{STRIPE_TIME},v1={STRIPE_HEX}"),
        format!("t={},v1={STRIPE_HEX}", STRIPE_TIME + 1),
        format!("t=,v1={STRIPE_HEX}"),
    ] {
        assert!(ask_at(&source, &bad, STRIPE_BODY, STRIPE_TIME).is_err(), "{bad}");
    }
    assert!(ask_at(&source, &good, b"{}", STRIPE_TIME).is_err());
    for (tolerance, away, fine) in [
        (300, 300, true),
        (300, 301, false),
        (300, -300, true),
        (300, -301, false),
        (1, 1, true),
        (1, 2, false),
    ] {
        source.tolerance_seconds = tolerance;
        let told = ask_at(&source, &good, STRIPE_BODY, STRIPE_TIME + away);
        assert_eq!(told.is_ok(), fine, "{away} with {tolerance}: {told:?}");
    }
}

#[test]
fn standard_webhooks_sign_id_time_and_body() {
    let source = webhook(Verification::Standard);
    let ask = |pairs: &[(&str, &str)], now: i64| ask(&source, STANDARD_SECRET, pairs, STANDARD_BODY, now);
    assert_eq!(ask(&STANDARD_HEADERS, STANDARD_TIME), Ok(()));
    assert_eq!(ask(&STANDARD_HEADERS, STANDARD_TIME + 300), Ok(()));
    assert!(ask(&STANDARD_HEADERS, STANDARD_TIME + 301).unwrap_err().starts_with("webhook-timestamp: "));
    assert!(ask(&STANDARD_HEADERS, STANDARD_TIME - 301).is_err());
    let with = |index: usize, value: &'static str| {
        let mut changed = STANDARD_HEADERS;
        changed[index].1 = value;
        ask(&changed, STANDARD_TIME)
    };
    // Several, while the sender changes its secret; those of other schemes are passed over.
    let many = "v1a,AAAA v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    assert_eq!(with(2, many), Ok(()));
    assert_eq!(with(0, "msg_another"), Err("webhook-signature: does not match".into()));
    assert!(with(1, "1614265331").is_err(), "the time is signed, too");
    assert!(with(2, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=").is_err(), "no scheme is named");
    for (missing, _) in STANDARD_HEADERS {
        let left: Vec<_> = STANDARD_HEADERS.into_iter().filter(|(name, _)| *name != missing).collect();
        let told = ask(&left, STANDARD_TIME).unwrap_err();
        assert_eq!(told, format!("{missing}: is missing"));
    }
}

#[test]
fn a_plain_hmac_is_read_from_any_header_in_either_spelling() {
    let (secret, body, hex, base64) = RFC;
    let mut source = webhook(Verification::Hmac);
    assert_eq!(ask(&source, secret, &[("x-signature", hex)], body, 0), Ok(()));
    source.header = Some("x-shopify-hmac-sha256".into());
    for value in [hex.to_owned(), hex.to_uppercase(), base64.to_owned(), format!("sha256={hex}")] {
        assert_eq!(ask(&source, secret, &[("x-shopify-hmac-sha256", &value)], body, 0), Ok(()), "{value}");
    }
    assert!(ask(&source, secret, &[("x-signature", hex)], body, 0).is_err());
    for bad in ["", "W9zBRg==", "zz", &hex[..62]] {
        assert!(ask(&source, secret, &[("x-shopify-hmac-sha256", bad)], body, 0).is_err(), "{bad}");
    }
}

#[test]
fn a_bearer_token_is_compared_whole() {
    let mut source = webhook(Verification::Bearer);
    for good in ["Bearer t0ken", "bearer  t0ken", "t0ken"] {
        assert_eq!(ask(&source, "t0ken", &[("authorization", good)], b"", 0), Ok(()), "{good}");
    }
    for bad in ["Bearer", "Bearer t0ke", "Bearer t0kenn", "Basic t0ken", ""] {
        let told = ask(&source, "t0ken", &[("authorization", bad)], b"", 0);
        assert_eq!(told, Err("authorization: does not match".into()), "{bad}");
    }
    source.header = Some("x-gitlab-token".into());
    assert_eq!(ask(&source, "t0ken", &[("x-gitlab-token", "t0ken")], b"", 0), Ok(()));
    assert!(ask(&source, "t0ken", &[("authorization", "Bearer t0ken")], b"", 0).is_err());
}

#[test]
fn without_a_secret_nobody_gets_in_and_with_none_everybody_does() {
    for scheme in Verification::ALL.iter().filter(|v| **v != Verification::None) {
        for secret in [None, Some("")] {
            let map = headers(&STANDARD_HEADERS);
            let delivery = Delivery { headers: &map, query: "", body: b"", now: STANDARD_TIME };
            let error = verify(&webhook(*scheme), secret, delivery).unwrap_err();
            assert_eq!(error.code, ErrorCode::Unavailable, "{scheme} with {secret:?}");
        }
    }
    let map = headers(&STANDARD_HEADERS);
    let delivery = Delivery { headers: &map, query: "", body: STANDARD_BODY, now: STANDARD_TIME };
    let empty = verify(&webhook(Verification::Standard), Some("whsec_"), delivery).unwrap_err();
    assert_eq!(empty.code, ErrorCode::Unavailable, "its key is empty, too");
    assert_eq!(verify(&webhook(Verification::None), None, delivery), Ok(()));
}

proptest! {
    #[test]
    fn one_changed_bit_of_body_or_signature_is_found(
        body in proptest::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let source = webhook(Verification::Hmac);
        let mut mac = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
        mac.update(&body);
        let mut signature = mac.finalize().into_bytes().to_vec();
        let sent = |signature: &[u8]| STANDARD.encode(signature);
        prop_assert_eq!(ask(&source, "key", &[("x-signature", &sent(&signature))], &body, 0), Ok(()));
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= 1 << bit;
        prop_assert!(ask(&source, "key", &[("x-signature", &sent(&signature))], &changed, 0).is_err());
        let index = at.index(32);
        signature[index] ^= 1 << bit;
        prop_assert!(ask(&source, "key", &[("x-signature", &sent(&signature))], &body, 0).is_err());
    }

    #[test]
    fn no_header_makes_it_panic_or_lets_a_stranger_in(value in "[ -~]{0,120}", now in any::<i64>()) {
        for scheme in Verification::ALL.iter().filter(|v| **v != Verification::None) {
            let pairs = [
                ("x-hub-signature-256", value.as_str()), ("stripe-signature", &value), ("webhook-id", &value),
                ("webhook-timestamp", &value), ("webhook-signature", &value), ("x-signature", &value),
                ("authorization", &value),
            ];
            let told = ask(&webhook(*scheme), "a secret that nobody guesses", &pairs, b"{}", now);
            prop_assert!(told.is_err());
        }
    }
}
