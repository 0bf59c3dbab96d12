//! How often callers may call. Each gateway counts by itself, in its own memory, within a bound.
//!
//! The generic cell rate algorithm (ITU-T I.371, appendix I): of each caller one instant is kept, the one at which it
//! would have used up nothing of what it may. A caller whose instant is past is as good as unknown.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use davit_api::{FunctionId, HttpSettings, RateLimit, RateLimitBy, RouteSpec, TokenId};
use parking_lot::Mutex;

/// Callers that one limit tells apart; about half a MiB. Those beyond it are counted together, as one.
const CALLERS: usize = 16 * 1024;
/// How often a full limit looks for callers that it can forget.
const SWEEP: Duration = Duration::from_secs(1);
/// Who is counted together when there are too many.
const REST: u64 = 0;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// From where.
    pub(super) client: IpAddr,
    /// With which token, where one was asked for.
    pub(super) token: Option<TokenId>,
}

/// A limit, and what its callers have used of it.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    /// Instants are counted from here, in nanoseconds.
    start: Instant,
    /// Callers are known by a hash that nobody outside can foresee.
    hasher: RandomState,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    until: HashMap<u64, u64>,
    /// When it was last looked for callers to forget.
    swept: u64,
}

impl PartialEq for Limiter {
    fn eq(&self, other: &Self) -> bool {
        self.limit == other.limit
    }
}

impl Limiter {
    fn new(limit: RateLimit) -> Self {
        Self { limit, start: Instant::now(), hasher: RandomState::new(), used: Mutex::default() }
    }

    /// Counts a call; when it is one too many, says after which time there is room for another.
    pub(super) fn admit(&self, caller: Caller) -> Result<(), Duration> {
        self.admit_at(caller, nanos(self.start.elapsed()))
    }

    fn admit_at(&self, caller: Caller, now: u64) -> Result<(), Duration> {
        let interval = nanos(self.limit.interval());
        let slack = interval.saturating_mul(u64::from(self.limit.burst()) - 1);
        let mut used = self.used.lock();
        let key = used.place(self.key(caller), now);
        let until = used.until.get(&key).copied().unwrap_or(0);
        let next = admitted(until, now, interval, slack).map_err(Duration::from_nanos)?;
        used.until.insert(key, next);
        Ok(())
    }

    fn key(&self, caller: Caller) -> u64 {
        match (self.limit.by, caller.token) {
            (RateLimitBy::All, _) => 1,
            (RateLimitBy::Token, Some(token)) => self.hasher.hash_one(token),
            (RateLimitBy::Token | RateLimitBy::Client, _) => self.hasher.hash_one(network(caller.client)),
        }
    }
}

impl Used {
    /// Under which key a caller is counted.
    fn place(&mut self, key: u64, now: u64) -> u64 {
        if self.until.len() < CALLERS || self.until.contains_key(&key) {
            return key;
        }
        if now.saturating_sub(self.swept) >= nanos(SWEEP) {
            self.swept = now;
            self.until.retain(|_, until| *until > now);
            if self.until.len() < CALLERS / 4 {
                self.until.shrink_to(CALLERS / 4);
            }
        }
        if self.until.len() < CALLERS { key } else { REST }
    }
}

/// One more call of a caller whose instant is `until`: its new instant, or how long it must wait. All in nanoseconds;
/// `slack` is how far its instant may lie ahead of now.
fn admitted(until: u64, now: u64, interval: u64, slack: u64) -> Result<u64, u64> {
    let room = until.saturating_sub(slack);
    if now < room { Err(room - now) } else { Ok(until.max(now).saturating_add(interval)) }
}

/// What of an address tells callers apart.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None if v6.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The limits in use, so that what callers have used outlives a new version, and all versions of a function that answer
/// at a time count together.
#[derive(Debug, Clone, Default)]
pub struct Limiters(Arc<Mutex<HashMap<Key, Weak<Limiter>>>>);

/// A limit of a function, for all of its addresses or for one route.
type Key = (FunctionId, Option<Box<str>>, RateLimit);

impl Limiters {
    pub(super) fn of_function(&self, function: FunctionId, settings: &HttpSettings) -> Option<Arc<Limiter>> {
        settings.rate_limit.map(|limit| self.get((function, None, limit)))
    }

    pub(super) fn of_route(&self, function: FunctionId, route: &RouteSpec, limit: RateLimit) -> Arc<Limiter> {
        let host = route.host.as_ref().map_or("", |host| host.as_str());
        let name = format!("{} {host}{}", route.method, route.path.shape());
        self.get((function, Some(name.into()), limit))
    }

    fn get(&self, key: Key) -> Arc<Limiter> {
        let mut all = self.0.lock();
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let limiter = Arc::new(Limiter::new(key.2));
        all.insert(key, Arc::downgrade(&limiter));
        limiter
    }

    /// Forgets those that no version has any more.
    pub(crate) fn prune(&self) {
        self.0.lock().retain(|_, limiter| limiter.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn limiter(requests: u32, burst: u32, by: RateLimitBy) -> Limiter {
        Limiter::new(RateLimit { requests, per_seconds: 1, burst: Some(burst), by })
    }

    fn from(address: &str) -> Caller {
        Caller { client: address.parse().unwrap(), token: None }
    }

    #[test]
    fn each_caller_has_a_burst_and_then_the_rate() {
        let limiter = limiter(2, 3, RateLimitBy::Client);
        let ask = |address: &str, now| limiter.admit_at(from(address), now).is_ok();
        assert!((0..3).all(|_| ask("192.0.2.1", 0)));
        assert_eq!(limiter.admit_at(from("192.0.2.1"), 0), Err(Duration::from_millis(500)));
        assert!(ask("192.0.2.2", 0), "another has its own");
        assert!(ask("192.0.2.1", SECOND / 2) && !ask("192.0.2.1", SECOND / 2));
        // A pause gives the burst back, and no more.
        assert_eq!((0..10).filter(|_| ask("192.0.2.1", 100 * SECOND)).count(), 3);
    }

    #[test]
    fn a_customers_network_is_one_caller_and_a_token_is_whoever_has_it() {
        let by_client = limiter(1, 1, RateLimitBy::Client);
        assert!(by_client.admit_at(from("2001:db8:0:1::1"), 0).is_ok());
        assert!(by_client.admit_at(from("2001:db8:0:1:ffff::2"), 0).is_err());
        assert!(by_client.admit_at(from("2001:db8:0:2::1"), 0).is_ok());
        assert!(by_client.admit_at(from("192.0.2.1"), 0).is_ok());
        assert!(by_client.admit_at(from("::ffff:192.0.2.1"), 0).is_err());
        let by_token = limiter(1, 1, RateLimitBy::Token);
        let token = TokenId::new();
        let with = |address: &str| Caller { token: Some(token), ..from(address) };
        assert!(by_token.admit_at(with("192.0.2.1"), 0).is_ok());
        assert!(by_token.admit_at(with("192.0.2.2"), 0).is_err());
        assert!(by_token.admit_at(from("192.0.2.1"), 0).is_ok());
        let all = limiter(1, 1, RateLimitBy::All);
        assert!(all.admit_at(from("192.0.2.1"), 0).is_ok() && all.admit_at(with("192.0.2.2"), 0).is_err());
    }

    #[test]
    fn however_many_callers_come_no_more_than_a_bound_are_kept_and_none_is_let_off() {
        let limiter = limiter(1, 1, RateLimitBy::Client);
        let ask =
            |n: u32, now| limiter.admit_at(Caller { client: IpAddr::V4(n.into()), token: None }, now).is_ok();
        let let_in = (0..2 * CALLERS as u32).filter(|n| ask(*n, 1)).count();
        // The first of those who are counted together gets in.
        assert_eq!(let_in, CALLERS + 1);
        assert!(limiter.used.lock().until.len() <= CALLERS + 1);
        assert!(!ask(0, 1), "one that was there is still known");
        // Once they have had their pause they are forgotten, and there is room again.
        assert!(ask(1 << 30, 3 * SECOND));
        assert_eq!(limiter.used.lock().until.len(), 1);
    }

    #[test]
    fn a_new_version_counts_on_where_the_last_one_was() {
        let limiters = Limiters::default();
        let settings = |requests| HttpSettings {
            rate_limit: Some(RateLimit { requests, per_seconds: 1, burst: None, by: RateLimitBy::All }),
            ..HttpSettings::default()
        };
        let function = FunctionId::new();
        let first = limiters.of_function(function, &settings(5)).unwrap();
        assert!(Arc::ptr_eq(&first, &limiters.of_function(function, &settings(5)).unwrap()));
        assert!(!Arc::ptr_eq(&first, &limiters.of_function(function, &settings(6)).unwrap()));
        assert!(!Arc::ptr_eq(&first, &limiters.of_function(FunctionId::new(), &settings(5)).unwrap()));
        drop(first);
        limiters.prune();
        assert!(limiters.0.lock().is_empty());
    }

    proptest! {
        /// In no stretch of time more calls than the burst and the rate allow; and who waits as long as told gets in.
        #[test]
        fn the_rate_is_kept_and_the_wait_is_true(
            interval in 1_u64..1_000, burst in 1_u64..20, steps in prop::collection::vec(0_u64..2_000, 1..80),
        ) {
            let slack = interval * (burst - 1);
            let (mut now, mut until, mut admitted_at) = (0_u64, 0, Vec::new());
            for step in steps {
                now += step;
                match admitted(until, now, interval, slack) {
                    Ok(next) => { until = next; admitted_at.push(now); }
                    Err(wait) => {
                        prop_assert!(wait > 0 && admitted(until, now + wait - 1, interval, slack).is_err());
                        prop_assert!(admitted(until, now + wait, interval, slack).is_ok());
                    }
                }
            }
            for (i, from) in admitted_at.iter().enumerate() {
                for (count, to) in admitted_at[i..].iter().enumerate() {
                    prop_assert!((count as u64 + 1) <= burst + (to - from) / interval);
                }
            }
        }
    }
}
