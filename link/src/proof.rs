//! The first bytes of a connection by TCP: each end proves that it knows the instance's secret before any frame is
//! sent, since an address may have become another container's.
//!
//! ```text
//! agent   → gateway   greeting  "davit" 0 0 1, nonce of 32 bytes
//! gateway → agent     claim     purpose, nonce of 32 bytes, HMAC over both nonces and the purpose
//! agent   → gateway   reply     status, length of a text, HMAC over both nonces, purpose, status and text; the text
//! ```
//!
//! Nonces are fresh, so nothing that was overheard can be said again; the two sides' codes differ in their first
//! word, so neither can be made to compute the other's. It proves who speaks and hides nothing: what follows is as
//! private as the network below.
//!
//! Pure; who moves the bytes is [`crate::socket`]'s and the agent's business.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::place::InstanceSecret;

/// What a greeting starts with: the protocol's name and version.
const MAGIC: [u8; 8] = *b"davit\0\0\x01";
const NONCE: usize = 32;
const CODE: usize = 32;
/// Bytes of a greeting.
pub const GREETING_BYTES: usize = MAGIC.len() + NONCE;
/// Bytes of a claim.
pub const CLAIM_BYTES: usize = 1 + NONCE + CODE;
/// Bytes of a reply before its text.
pub const REPLY_BYTES: usize = 2 + CODE;

/// A number that is used once.
pub type Nonce = [u8; NONCE];

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The link itself; an agent takes one in its life.
    Link = 1,
    /// Bytes to the server inside.
    Server = 2,
    /// Bytes to the runtime's debugger.
    Debugger = 3,
}

impl Purpose {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Link, Self::Server, Self::Debugger].into_iter().find(|purpose| *purpose as u8 == byte)
    }
}

/// Why a connection is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Something else listens there.
    #[error("what listens there is no agent of davit's")]
    NoAgent,
    /// The other end does not know the secret: another instance has the address now, or a stranger asks.
    #[error("the other end does not know this instance's secret")]
    WrongSecret,
    /// The other end says something that this one does not know.
    #[error("the other end speaks another protocol")]
    Unknown,
}

/// The agent's side of one connection.
pub struct Greeter {
    secret: InstanceSecret,
    nonce: Nonce,
}

/// A claim that was proven, to be answered.
pub struct Claimed {
    /// What the connection is for.
    pub purpose: Purpose,
    secret: InstanceSecret,
    nonces: [Nonce; 2],
}

impl Greeter {
    /// With a nonce that was never used before.
    pub fn new(secret: InstanceSecret, nonce: Nonce) -> Self {
        Self { secret, nonce }
    }
    /// The first bytes.
    pub fn greeting(&self) -> [u8; GREETING_BYTES] {
        let mut bytes = [0; GREETING_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        bytes[MAGIC.len()..].copy_from_slice(&self.nonce);
        bytes
    }
    /// Judges a claim.
    pub fn judge(self, claim: &[u8; CLAIM_BYTES]) -> Result<Claimed, Unproven> {
        let purpose = Purpose::from_byte(claim[0]).ok_or(Unproven::Unknown)?;
        let nonces = [self.nonce, nonce(&claim[1..=NONCE])];
        let code = claimed(&self.secret, &nonces, purpose);
        code.verify_slice(&claim[1 + NONCE..]).map_err(|_| Unproven::WrongSecret)?;
        Ok(Claimed { purpose, secret: self.secret, nonces })
    }
}

impl Claimed {
    /// The answer: `Ok`, or one line about why not. Longer lines are cut.
    pub fn reply(&self, verdict: Result<(), &str>) -> Vec<u8> {
        let (status, text) = match verdict {
            Ok(()) => (0, ""),
            Err(text) => (1, text),
        };
        let text = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
        let mut bytes = vec![status, text.len() as u8];
        bytes.extend(replied(&self.secret, &self.nonces, self.purpose, status, text).finalize().into_bytes());
        bytes.extend(text);
        bytes
    }
}

/// The gateway's side of one connection.
pub struct Claimant {
    secret: InstanceSecret,
    nonces: [Nonce; 2],
    purpose: Purpose,
}

impl Claimant {
    /// Takes a greeting in; `nonce` was never used before.
    pub fn new(
        secret: InstanceSecret,
        greeting: &[u8; GREETING_BYTES],
        nonce_of_ours: Nonce,
        purpose: Purpose,
    ) -> Result<Self, Unproven> {
        if greeting[..5] != MAGIC[..5] {
            return Err(Unproven::NoAgent);
        }
        if greeting[..MAGIC.len()] != MAGIC {
            return Err(Unproven::Unknown);
        }
        Ok(Self { secret, nonces: [nonce(&greeting[MAGIC.len()..]), nonce_of_ours], purpose })
    }
    /// What is said next.
    pub fn claim(&self) -> [u8; CLAIM_BYTES] {
        let mut bytes = [0; CLAIM_BYTES];
        bytes[0] = self.purpose as u8;
        bytes[1..=NONCE].copy_from_slice(&self.nonces[1]);
        let code = claimed(&self.secret, &self.nonces, self.purpose).finalize().into_bytes();
        bytes[1 + NONCE..].copy_from_slice(&code);
        bytes
    }
    /// Bytes of the text behind a reply's head.
    pub fn text_bytes(head: &[u8; REPLY_BYTES]) -> usize {
        usize::from(head[1])
    }
    /// Judges the answer: what the agent refused comes as its line.
    pub fn judge(&self, head: &[u8; REPLY_BYTES], text: &[u8]) -> Result<Result<(), String>, Unproven> {
        let code = replied(&self.secret, &self.nonces, self.purpose, head[0], text);
        code.verify_slice(&head[2..]).map_err(|_| Unproven::WrongSecret)?;
        match head[0] {
            0 => Ok(Ok(())),
            1 => Ok(Err(String::from_utf8_lossy(text).into_owned())),
            _ => Err(Unproven::Unknown),
        }
    }
}

fn nonce(bytes: &[u8]) -> Nonce {
    let mut nonce = [0; NONCE];
    nonce.copy_from_slice(bytes);
    nonce
}

fn mac(secret: &InstanceSecret, word: &[u8], nonces: &[Nonce; 2], purpose: Purpose) -> Hmac<Sha256> {
    // A key of any length is a key, says RFC 2104; the type wants to hear it.
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).unwrap_or_else(|_| unreachable!());
    mac.update(word);
    mac.update(&nonces[0]);
    mac.update(&nonces[1]);
    mac.update(&[purpose as u8]);
    mac
}

fn claimed(secret: &InstanceSecret, nonces: &[Nonce; 2], purpose: Purpose) -> Hmac<Sha256> {
    mac(secret, b"claim", nonces, purpose)
}

fn replied(
    secret: &InstanceSecret,
    nonces: &[Nonce; 2],
    purpose: Purpose,
    status: u8,
    text: &[u8],
) -> Hmac<Sha256> {
    let mut mac = mac(secret, b"reply", nonces, purpose);
    mac.update(&[status]);
    mac.update(text);
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(byte: u8) -> InstanceSecret {
        InstanceSecret::from_bytes([byte; 32])
    }

    fn judged(claimant: &Claimant, reply: &[u8]) -> Result<Result<(), String>, Unproven> {
        let (head, text) = reply.split_at(REPLY_BYTES);
        let head: &[u8; REPLY_BYTES] = head.try_into().unwrap();
        assert_eq!(Claimant::text_bytes(head), text.len());
        claimant.judge(head, text)
    }

    #[test]
    fn two_that_know_the_secret_agree_on_what_the_connection_is_for() {
        for purpose in [Purpose::Link, Purpose::Server, Purpose::Debugger] {
            let greeter = Greeter::new(secret(1), [2; 32]);
            let claimant = Claimant::new(secret(1), &greeter.greeting(), [3; 32], purpose).unwrap();
            let claimed = greeter.judge(&claimant.claim()).unwrap();
            assert_eq!(claimed.purpose, purpose);
            assert_eq!(judged(&claimant, &claimed.reply(Ok(()))), Ok(Ok(())));
            assert_eq!(judged(&claimant, &claimed.reply(Err("no server"))), Ok(Err("no server".into())));
            let long = claimed.reply(Err(&"x".repeat(300)));
            assert_eq!(judged(&claimant, &long), Ok(Err("x".repeat(255))));
        }
    }

    #[test]
    fn neither_end_takes_one_that_does_not_know_the_secret() {
        let greeter = Greeter::new(secret(1), [2; 32]);
        let claimant = Claimant::new(secret(9), &greeter.greeting(), [3; 32], Purpose::Link).unwrap();
        assert_eq!(greeter.judge(&claimant.claim()).err(), Some(Unproven::WrongSecret));
        // An impostor at the address can only repeat what others said: here, to another greeting.
        let earlier = Greeter::new(secret(1), [2; 32]);
        let real = Claimant::new(secret(1), &earlier.greeting(), [3; 32], Purpose::Link).unwrap();
        let overheard = earlier.judge(&real.claim()).unwrap().reply(Ok(()));
        let again =
            Claimant::new(secret(1), &Greeter::new(secret(7), [2; 32]).greeting(), [4; 32], Purpose::Link);
        assert_eq!(judged(&again.unwrap(), &overheard), Err(Unproven::WrongSecret));
    }

    #[test]
    fn what_is_no_agent_is_told_from_one_of_another_time() {
        let mut greeting = Greeter::new(secret(1), [2; 32]).greeting();
        greeting[7] = 2;
        let of = |greeting| Claimant::new(secret(1), &greeting, [3; 32], Purpose::Link).err();
        assert_eq!(of(greeting), Some(Unproven::Unknown));
        assert_eq!(of([b'H'; GREETING_BYTES]), Some(Unproven::NoAgent));
    }

    proptest! {
        #[test]
        fn a_changed_bit_is_noticed(at in 0..CLAIM_BYTES, bit in 0..8_u8) {
            let greeter = Greeter::new(secret(1), [2; 32]);
            let claimant = Claimant::new(secret(1), &greeter.greeting(), [3; 32], Purpose::Server).unwrap();
            let mut claim = claimant.claim();
            claim[at] ^= 1 << bit;
            prop_assert!(greeter.judge(&claim).is_err());
        }

        #[test]
        fn a_changed_reply_is_noticed(at in 0..REPLY_BYTES + 3, bit in 0..8_u8) {
            let greeter = Greeter::new(secret(1), [2; 32]);
            let claimant = Claimant::new(secret(1), &greeter.greeting(), [3; 32], Purpose::Server).unwrap();
            let mut reply = greeter.judge(&claimant.claim()).unwrap().reply(Err("why"));
            // The length is no part of the proof: another one gives another text, which is.
            prop_assume!(at != 1);
            reply[at] ^= 1 << bit;
            let (head, text) = reply.split_at(REPLY_BYTES);
            prop_assert!(claimant.judge(head.try_into().unwrap(), text).is_err());
        }
    }
}
