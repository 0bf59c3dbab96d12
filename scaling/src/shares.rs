//! A function's limit, dealt out to the gateways that there are, so that it holds over all of them and no gateway
//! has to ask anybody on a call's way.
//!
//! The seats of a limit are dealt in turn, to the gateways in the function's own order ([`order`]), until none is left.
//! Whoever knows more gateways gives none of them more: that is what makes it safe that gateways learn of each other at
//! different times. The rest is three rules, which the property test holds against gateways that pause, die and come:
//!
//! 1. A gateway lowers what it may hold as soon as it reads of another one, and then says that it has ([`View::adopted`]).
//! 2. A gateway that joins may hold nothing until every other one has said so about it. From then on it is [`View::is_active`],
//!    for as long as it keeps its lease.
//! 3. What a gateway still holds beyond its share, since calls are in it, it reports; the others leave that many seats
//!    free ([`View::most`]).
//!
//! A gateway that is gone counts until its row is deleted, which happens after its instances are. One that reads nothing,
//! since it is cut off from the registry, keeps what it has; so do the others, who leave its share alone.

use std::collections::{BTreeMap, HashMap};

/// A gateway, a function or a version: its id as a number.
pub type Id = u128;

/// A gateway's row, as another one reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub id: Id,
    /// The number of its joining; a gateway that was given up and comes back has a new one.
    pub join: i64,
    /// The joinings that it has taken into account.
    pub adopted: Vec<i64>,
    /// Instances that it holds beyond its share, by version.
    pub over: BTreeMap<Id, u32>,
}

/// What a gateway knows of the others, and may hold for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    me: Id,
    join: i64,
    members: Vec<Id>,
    joins: Vec<i64>,
    active: bool,
    /// What others hold beyond their shares, by version.
    over: HashMap<Id, u32>,
}

impl View {
    /// A gateway that there is no other beside: everything is its own.
    pub fn alone(me: Id) -> Self {
        let over = HashMap::new();
        Self { me, join: 0, members: vec![me], joins: Vec::new(), active: true, over }
    }

    /// A gateway that has joined under a number and has read nothing yet: it may hold nothing.
    pub fn joining(me: Id, join: i64) -> Self {
        Self { join, active: false, ..Self::alone(me) }
    }

    /// What it knows after a look at all rows, its own included.
    pub fn read(&self, rows: &[Member]) -> Self {
        let others = || rows.iter().filter(|row| row.id != self.me);
        let mut over = HashMap::new();
        for (version, held) in others().flat_map(|row| &row.over) {
            let sum: &mut u32 = over.entry(*version).or_default();
            *sum = sum.saturating_add(*held);
        }
        let mut members: Vec<Id> = others().map(|row| row.id).chain([self.me]).collect();
        members.sort_unstable();
        let mut joins: Vec<i64> = rows.iter().map(|row| row.join).collect();
        joins.sort_unstable();
        let active = self.active || others().all(|row| row.adopted.contains(&self.join));
        Self { me: self.me, join: self.join, members, joins, active, over }
    }

    /// Whether others have taken it into account, so that it may hold its shares.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether it knows of no other gateway.
    pub fn is_alone(&self) -> bool {
        self.members.len() == 1
    }

    /// The number of its joining.
    pub fn join(&self) -> i64 {
        self.join
    }

    /// The joinings that it takes into account; what its own row is to say once it does.
    pub fn adopted(&self) -> &[i64] {
        &self.joins
    }

    /// Its share of a function's limit. What it holds beyond that has to be reported.
    pub fn share(&self, function: Id, limit: u32) -> u32 {
        if !self.active {
            return 0;
        }
        if self.is_alone() {
            return limit;
        }
        self.share_of(self.me, function, limit)
    }

    /// The share of one of the gateways that it knows, once that one knows all the others.
    pub fn share_of(&self, member: Id, function: Id, limit: u32) -> u32 {
        let its = weight(function, member);
        let before = self.members.iter().filter(|other| weight(function, **other) > its).count();
        seats(limit, before, self.members.len())
    }

    /// How many instances it may have at a time: its share, less what others still hold beyond theirs.
    pub fn most(&self, function: Id, version: Id, limit: u32) -> u32 {
        let share = self.share(function, limit);
        let over = self.over.get(&version).copied().unwrap_or(0);
        share.saturating_sub(over)
    }
}

/// What the gateway at a place in the order gets of a limit.
fn seats(limit: u32, place: usize, members: usize) -> u32 {
    let members = u32::try_from(members).unwrap_or(u32::MAX).max(1);
    let extra = u32::try_from(place).is_ok_and(|place| place < limit % members);
    limit / members + u32::from(extra)
}

/// The gateways in a function's own order (rendezvous hashing: Thaler and Ravishankar, 1998). One that comes or goes
/// moves nobody else's place against each other.
pub fn order(function: Id, members: impl IntoIterator<Item = Id>) -> Vec<Id> {
    let mut order: Vec<Id> = members.into_iter().collect();
    order.sort_unstable_by_key(|member| std::cmp::Reverse(weight(function, *member)));
    order
}

/// How much a function belongs to a gateway. Every davit must come to the same, whatever its version, so it is written out here:
/// the finalizer of SplitMix64 (Steele, Lea and Flood, 2014), over both ids. The id itself decides between equals.
fn weight(function: Id, member: Id) -> (u64, Id) {
    let mut mixed = 0_u64;
    for half in [function as u64, (function >> 64) as u64, member as u64, (member >> 64) as u64] {
        mixed = mix(mixed ^ half);
    }
    (mixed, member)
}

fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
