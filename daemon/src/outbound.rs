//! Which addresses may be connected to: the public internet, and what the operator names.
//!
//! Whoever deploys a function or makes a source chooses an address, and davit connects to it from inside the operator's
//! network: without a guard that is a way to every internal service (OWASP: server-side request forgery). Names are
//! resolved by us, and the addresses that come out are the ones connected to, so that nothing can change in between.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// What may be connected to besides the public internet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    networks: Vec<IpNet>,
}

impl FromStr for Allowed {
    type Err = String;

    /// Networks or single addresses, separated by commas: `10.1.0.0/16, 127.0.0.1, fd00::/8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let networks = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
            part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                format!("{part:?} is neither a network such as 10.1.0.0/16 nor an address such as 127.0.0.1")
            })
        });
        Ok(Self { networks: networks.collect::<Result<_, _>>()? })
    }
}

impl Allowed {
    /// Whether this address may be connected to.
    pub fn lets(&self, ip: IpAddr) -> bool {
        let ip = bare(ip);
        public(ip) || self.networks.iter().any(|network| network.contains(&ip))
    }

    /// The addresses of a name, or of an address that is written out, which may be connected to. When there are some and
    /// none of them may be, the error is a [`Closed`].
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        let open: Vec<SocketAddr> = found.iter().copied().filter(|a| self.lets(a.ip())).collect();
        match (found.first(), open.is_empty()) {
            (Some(first), true) => Err(io::Error::other(Closed(first.ip()))),
            _ => Ok(open),
        }
    }
}

/// An address that may not be connected to.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0} is not an address of the public internet; the operator can allow it with DAVIT_OUTBOUND_ALLOW")]
pub struct Closed(pub IpAddr);

/// The IPv4 address in a mapped one: `::ffff:10.0.0.1` reaches 10.0.0.1.
fn bare(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Whether an address belongs to the public internet: what the IANA special-purpose registries (RFC 6890 and its
/// successors) do not set apart.
fn public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => public_v4(v4),
        IpAddr::V6(v6) => public_v6(v6),
    }
}

fn public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        // Between customer and provider (RFC 6598).
        || (a == 100 && (64..128).contains(&b))
        // Protocol assignments (RFC 6890) and the retired 6to4 relays (RFC 7526).
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        // Benchmarks (RFC 2544).
        || (a == 198 && (b == 18 || b == 19))
        // Multicast, what is kept for the future, broadcast.
        || a >= 224)
}

fn public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    // Global unicast is 2000::/3; everything else is unspecified, loopback, unique local, link-local, multicast or unassigned,
    // but for the translation prefix, which leads to the IPv4 address in its end.
    if (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0) {
        let [w, x] = g.to_be_bytes();
        let [y, z] = h.to_be_bytes();
        return public_v4(Ipv4Addr::new(w, x, y, z));
    }
    if a & 0xe000 != 0x2000 {
        return false;
    }
    // 6to4 (RFC 3056) carries its IPv4 address in the second and third segment.
    if a == 0x2002 {
        let ([w, x], [y, z]) = (b.to_be_bytes(), c.to_be_bytes());
        return public_v4(Ipv4Addr::new(w, x, y, z));
    }
    // Protocol assignments, Teredo among them (2001::/23), and documentation (2001:db8::/32, 3fff::/20).
    let documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b < 0x1000);
    let protocols = a == 0x2001 && b < 0x200;
    !documentation && !protocols
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lets(allowed: &str, ip: &str) -> bool {
        allowed.parse::<Allowed>().unwrap().lets(ip.parse().unwrap())
    }

    #[test]
    fn the_public_internet_may_be_sent_to_and_nothing_else() {
        for good in
            ["1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8"]
        {
            assert!(lets("", good), "{good}");
        }
        for bad in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "3fff::1",
        ] {
            assert!(!lets("", bad), "{bad}");
        }
    }

    #[test]
    fn what_the_operator_names_may_be_sent_to_in_every_spelling() {
        let allowed = "10.1.0.0/16, 127.0.0.1,fd00::/8,";
        for good in ["10.1.2.3", "127.0.0.1", "::ffff:127.0.0.1", "fd12::1", "1.1.1.1"] {
            assert!(lets(allowed, good), "{good}");
        }
        for bad in ["10.2.0.1", "127.0.0.2", "::1", "169.254.169.254"] {
            assert!(!lets(allowed, bad), "{bad}");
        }
        for wrong in ["10.1.0.0/33", "localhost", "10.1.0.0/16;127.0.0.1"] {
            assert!(wrong.parse::<Allowed>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn an_address_and_its_mapped_form_are_judged_alike(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let allowed = Allowed::default();
            prop_assert_eq!(allowed.lets(v4.into()), allowed.lets(v4.to_ipv6_mapped().into()));
        }
    }
}
