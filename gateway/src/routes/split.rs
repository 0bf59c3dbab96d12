//! Aliases as calls see them: which of an alias's versions a call goes to. Pure but for chance.
//!
//! Points are spread evenly over a line, and an alias's versions lie on it one behind the other, by their numbers, each
//! as long as its weight. A call has a point: by chance, or, where the alias says so, by the value of a header or cookie.
//! When weights change, the ends move along the line, and a value goes elsewhere only if an end passed its point: from
//! 5 to 25 per cent of a new version, what was in the 5 stays there, and one in five of the others joins it.

use std::collections::HashMap;
use std::sync::Arc;

use davit_api::{AliasName, CanaryId, FunctionId, FunctionKind, LIVE, Sticky, VersionId, VersionWeight};
use davit_registry::RoutedAlias;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use crate::version::LiveVersion;

/// Points of the line.
const POINTS: u64 = 1 << 32;

/// An alias's versions on the line.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Where each version's part ends; the last is [`POINTS`].
    ends: Box<[u64]>,
    versions: Box<[Arc<LiveVersion>]>,
    weights: Box<[u32]>,
    sticky: Option<Sticky>,
    plain: bool,
}

impl Split {
    /// Versions with their weights, by their numbers. `None` without any weight.
    pub fn new(mut shares: Vec<(Arc<LiveVersion>, u32)>, sticky: Option<Sticky>) -> Option<Self> {
        shares.retain(|(_, weight)| *weight > 0);
        shares.sort_by_key(|(version, _)| version.number);
        let total: u64 = shares.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let (first, _) = shares.first()?;
        let plain = shares.iter().all(|(version, _)| {
            version.spec.kind == FunctionKind::Server
                && version.missing_secrets.is_empty()
                && version.spec.access == first.spec.access
        });
        let mut so_far = 0;
        let ends = shares.iter().map(|(_, weight)| {
            so_far += u64::from(*weight);
            so_far * POINTS / total
        });
        let ends = ends.collect();
        let weights = shares.iter().map(|(_, weight)| *weight).collect();
        let versions = shares.into_iter().map(|(version, _)| version).collect();
        Some(Self { ends, versions, weights, sticky, plain })
    }

    /// The version at a point.
    fn at(&self, point: u32) -> &Arc<LiveVersion> {
        let at = self.ends.partition_point(|end| *end <= u64::from(point));
        &self.versions[at.min(self.versions.len() - 1)]
    }

    /// The version for a call. `key` finds the value that decides, where one does.
    pub fn pick<'k>(&self, key: impl FnOnce(&Sticky) -> Option<&'k [u8]>) -> &Arc<LiveVersion> {
        let key = self.sticky.as_ref().and_then(key);
        self.at(match key {
            Some(key) => point(self.versions[0].function_id, key),
            None => rand::random(),
        })
    }

    /// Whether each of its versions takes the same way through the gateway, so that looking once is enough.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Its versions with their weights.
    pub fn shares(&self) -> Vec<VersionWeight> {
        let shares = self.versions.iter().zip(&self.weights);
        shares.map(|(version, weight)| VersionWeight { version: version.number, weight: *weight }).collect()
    }
}

/// A value's point. The same in every gateway, and of one function's value not that of another's.
fn point(function: FunctionId, key: &[u8]) -> u32 {
    let mut hash = Sha256::new();
    hash.update(function.0.as_bytes());
    hash.update(key);
    let hash = hash.finalize();
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// An alias with an address of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its name.
    pub name: AliasName,
    /// Its versions.
    pub split: Split,
    /// Whether its address is as open as its version says.
    pub public: bool,
    /// `/<namespace>/<function>@<alias>`, the path it is reached at, as a header's value.
    pub address: HeaderValue,
}

/// All aliases of one function that say more than which version is live.
#[derive(Debug, Default, PartialEq)]
pub struct Aliases {
    /// How calls of the function itself are shared out; none when all go to its live version.
    pub live: Option<Split>,
    named: Box<[Arc<Named>]>,
    /// The versions that they lead to, the live one not among them.
    others: Box<[Arc<LiveVersion>]>,
    /// The canary that shifts the live ones, its step, and its versions.
    canary: Option<(CanaryId, u32, Box<[VersionId]>)>,
}

impl Aliases {
    /// The alias of that name, but for `live`.
    pub fn named(&self, name: &str) -> Option<&Arc<Named>> {
        self.named.iter().find(|named| named.name.as_str() == name)
    }

    /// The versions that they lead to, the live one not among them.
    pub fn others(&self) -> &[Arc<LiveVersion>] {
        &self.others
    }

    /// What is counted for a canary.
    pub(super) fn watched(&self) -> impl Iterator<Item = (VersionId, (CanaryId, u32))> {
        let each = |(id, step, versions): &(CanaryId, u32, Box<[VersionId]>)| {
            let (id, step) = (*id, *step);
            versions.iter().map(move |version| (*version, (id, step))).collect::<Vec<_>>()
        };
        self.canary.as_ref().map(each).unwrap_or_default().into_iter()
    }
}

/// The aliases of each function. Of an alias whose versions were not all read nothing is made; the next read has them.
pub fn gather(
    live: &[Arc<LiveVersion>],
    others: Vec<Arc<LiveVersion>>,
    aliases: Vec<RoutedAlias>,
) -> HashMap<FunctionId, Arc<Aliases>> {
    let mut made: HashMap<FunctionId, Aliases> = HashMap::new();
    if aliases.is_empty() {
        return HashMap::new();
    }
    let mut by_id: HashMap<VersionId, &Arc<LiveVersion>> = HashMap::new();
    let concerned: std::collections::HashSet<FunctionId> = aliases.iter().map(|a| a.function_id).collect();
    by_id.extend(live.iter().filter(|v| concerned.contains(&v.function_id)).map(|v| (v.version_id, v)));
    by_id.extend(others.iter().map(|v| (v.version_id, v)));
    let mut named: HashMap<FunctionId, Vec<Arc<Named>>> = HashMap::new();
    for alias in aliases {
        let shares = alias.shares.iter().map(|(id, weight)| Some(((*by_id.get(id)?).clone(), *weight)));
        let Some(split) = shares.collect::<Option<Vec<_>>>().and_then(|all| Split::new(all, alias.sticky))
        else {
            continue;
        };
        let of = made.entry(alias.function_id).or_default();
        if alias.name.as_str() == LIVE {
            let versions = alias.shares.iter().map(|(id, _)| *id).collect();
            of.canary = alias.canary.map(|(id, step)| (id, step, versions));
            of.live = Some(split);
        } else {
            let address = split.versions[0].address_at(&alias.name);
            let one = Named { name: alias.name, split, public: alias.public, address };
            named.entry(alias.function_id).or_default().push(Arc::new(one));
        }
    }
    let mut rest: HashMap<FunctionId, Vec<Arc<LiveVersion>>> = HashMap::new();
    for version in others {
        rest.entry(version.function_id).or_default().push(version);
    }
    for (function, of) in &mut made {
        let mut all = named.remove(function).unwrap_or_default();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        of.named = all.into();
        let mut all = rest.remove(function).unwrap_or_default();
        all.sort_by_key(|version| version.number);
        of.others = all.into();
    }
    made.into_iter().map(|(function, of)| (function, Arc::new(of))).collect()
}

#[cfg(test)]
mod tests;
