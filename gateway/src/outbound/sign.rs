//! Signatures of what is sent, as the Standard Webhooks specification has them, so that receivers can check them with
//! a library they have: `webhook-id`, `webhook-timestamp`, `webhook-signature`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The value of `webhook-signature`: HMAC-SHA-256 over id, time and body.
///
/// A secret that starts with `whsec_` is the base64 text that the specification describes; any other is taken as it is.
pub(super) fn signature(secret: &str, id: &str, unix_seconds: i64, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key(secret)) else {
        // HMAC takes keys of every length.
        return String::new();
    };
    mac.update(format!("{id}.{unix_seconds}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// The key that a secret stands for; also for checking what others sign.
pub(crate) fn key(secret: &str) -> Vec<u8> {
    let decoded = secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    decoded.unwrap_or_else(|| secret.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_specifications_own_example_says() {
        // The worked example of the Standard Webhooks specification, "Verifying webhook authenticity".
        let signed = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b"{\"test\": 2432232314}",
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_plain_secret_is_its_own_key() {
        assert_eq!(signature("s", "i", 1, b"x").len(), "v1,".len() + 44);
        assert_ne!(signature("s", "i", 1, b"x"), signature("t", "i", 1, b"x"));
        assert_ne!(signature("s", "i", 1, b"x"), signature("s", "i", 2, b"x"));
    }
}
