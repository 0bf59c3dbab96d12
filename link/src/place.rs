//! Where an instance's agent is reached, and the secret that both ends prove to each other where an address is all
//! there is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an agent takes its one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A socket in a directory that is mounted into its container alone: the path is the identity.
    Socket(PathBuf),
    /// An address, which may be another's by the time that it is tried: both ends [prove](crate::proof) the secret.
    Tcp {
        /// The container's address.
        address: SocketAddr,
        /// What only this instance and davit know.
        secret: InstanceSecret,
    },
}

impl Place {
    /// The address, where there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(_) => None,
            Self::Tcp { address, .. } => Some(*address),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tcp { address, .. } => address.fmt(f),
        }
    }
}

/// A secret of one instance. It is never sent; what is sent proves that it is known.
#[derive(Clone, PartialEq, Eq)]
pub struct InstanceSecret(pub(crate) [u8; 32]);

impl InstanceSecret {
    /// Wraps 32 bytes that nobody can guess.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// 64 hexadecimal digits, for the container's own environment and for nothing else.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for InstanceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceSecret(..)")
    }
}

impl FromStr for InstanceSecret {
    /// What it should have been; never what it was.
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = "a secret of an instance is 64 hexadecimal digits";
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad);
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_in_hex_and_shown_to_nobody() {
        let secret = InstanceSecret::from_bytes([0xa7; 32]);
        assert_eq!(secret.to_hex().parse(), Ok(secret.clone()));
        assert!(!format!("{secret:?}").contains("a7"));
        for bad in ["", "a7", &"g".repeat(64), &"é".repeat(32), &"a".repeat(65)] {
            assert!(bad.parse::<InstanceSecret>().is_err(), "{bad}");
        }
    }
}
