//! The lookup structure of one snapshot.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use davit_api::{
    Access, FunctionId, LIVE, NamespaceName, PayloadFormat, Role, RouteSpec, SourceName, Sticky, TokenId,
    VersionId,
};
use davit_registry::SourceRow;

use crate::policy::{Policy, Route};
use crate::routes::{Aliases, Named, path};
use crate::version::LiveVersion;

/// One API token, known by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// The token's id, for the audit trail.
    pub id: TokenId,
    /// Namespace it is bound to; none means all.
    pub namespace: Option<NamespaceName>,
    /// What it may do.
    pub role: Role,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Routes, live versions, tokens and event sources of one moment.
#[derive(Default)]
pub struct Table {
    /// It was read, however little there was.
    read: bool,
    namespaces: HashMap<NamespaceName, HashSet<ByName>>,
    by_id: HashSet<ById>,
    exact_hosts: HashMap<String, Paths>,
    /// Suffix with its dot, longest first, so that the most specific wildcard wins.
    wildcard_hosts: Vec<(String, Paths)>,
    any_host: Paths,
    tokens: HashMap<[u8; 32], TokenEntry>,
    sources: HashMap<NamespaceName, HashMap<SourceName, SourceRow>>,
    /// Of the functions that have more than one live version.
    aliases: HashMap<FunctionId, Arc<Aliases>>,
}

/// A version that is found by its function's name, which it holds itself.
struct ByName(Arc<LiveVersion>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.function.as_str()
    }
}
impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.function.as_str().hash(state);
    }
}
impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.function == other.0.function
    }
}
impl Eq for ByName {}

/// A version that is found by its function's id.
struct ById(Arc<LiveVersion>);

impl Borrow<FunctionId> for ById {
    fn borrow(&self) -> &FunctionId {
        &self.0.function_id
    }
}
impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.function_id.hash(state);
    }
}
impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.function_id == other.0.function_id
    }
}
impl Eq for ById {}

/// Custom routes of one host.
#[derive(Default)]
struct Paths {
    /// Patterns with a fixed number of segments.
    exact: matchit::Router<Vec<Custom>>,
    /// Patterns that end in `{name+}`, one router for each number of segments before it, longest first: in one
    /// router a rest and a parameter at the same place would exclude each other.
    greedy: Vec<(usize, matchit::Router<Vec<Custom>>)>,
}

/// One custom route.
struct Custom {
    spec: Arc<RouteSpec>,
    policy: Option<Arc<Policy>>,
    version: Arc<LiveVersion>,
    /// Names of the parameters in the order of the pattern; the router knows them by position only, so that
    /// functions may name the same position differently.
    names: Vec<String>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub struct Found {
    /// The live version, or the one that answers once that is chosen.
    pub version: Arc<LiveVersion>,
    /// The alias by whose address it was asked for.
    pub alias: Option<Arc<Named>>,
    /// What a handler gets.
    pub payload: PayloadFormat,
    /// Bytes of the request path that come before the path the function sees.
    pub prefix: usize,
    /// The custom route that matched; none for a path address.
    pub route: Option<Arc<RouteSpec>>,
    /// What holds for requests to the address, if anything does.
    pub policy: Option<Arc<Policy>>,
    /// Its path parameters, decoded.
    pub params: Vec<(String, String)>,
}

impl Found {
    /// What of the path the function does not see, as a header's value: the path address that it was asked for by, or
    /// what its route takes off.
    pub fn address(&self) -> Option<&http::HeaderValue> {
        if self.route.is_some() {
            return self.policy.as_ref()?.strip.as_ref();
        }
        let address = self.alias.as_ref().map_or(&self.version.address, |alias| &alias.address);
        (self.prefix > 0).then_some(address)
    }

    /// Who may call it.
    pub fn access(&self) -> Access {
        let own = self.policy.as_ref().and_then(|policy| policy.access);
        own.unwrap_or(self.version.spec.access)
    }

    /// Time budget of a call.
    pub fn budget(&self) -> Duration {
        let own = self.policy.as_ref().and_then(|policy| policy.timeout_seconds);
        Duration::from_secs(own.unwrap_or(self.version.spec.timeout_seconds).into())
    }

    /// What the function sees in front of the path that is left.
    pub fn added(&self) -> Option<&str> {
        self.policy.as_ref().and_then(|policy| policy.add.as_deref())
    }
}

/// The answer to "who serves this?". Taken apart at once, so its size costs nothing; a box would be an allocation
/// for each request.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// This version.
    Found(Found),
    /// The path is served, the method is not; these are.
    MethodNotAllowed(Vec<&'static str>),
    /// Nobody.
    NotFound,
}

impl Table {
    /// Builds the lookup structure. Routes that contradict each other are settled by function id, the older one
    /// first; the registry's constraints refuse them before they get here.
    #[expect(clippy::mutable_key_type, reason = "what changes are counters of limits; names and ids stay")]
    pub fn build(mut versions: Vec<Arc<LiveVersion>>, tokens: HashMap<[u8; 32], TokenEntry>) -> Self {
        versions.sort_by_key(|v| v.function_id);
        let mut table = Self { read: true, tokens, ..Self::default() };
        for version in &versions {
            match table.namespaces.get_mut(version.namespace.as_str()) {
                Some(names) => drop(names.replace(ByName(version.clone()))),
                None => {
                    let names = HashSet::from([ByName(version.clone())]);
                    table.namespaces.insert(version.namespace.clone(), names);
                }
            }
            table.by_id.insert(ById(version.clone()));
        }
        let mut hosts: BTreeMap<Option<String>, BTreeMap<String, Vec<Custom>>> = BTreeMap::new();
        for version in &versions {
            for Route { spec, policy } in &version.routes {
                if spec.host.is_none() && table.belongs_to_another(spec.path.as_str(), &version.namespace) {
                    tracing::warn!(function = %version.function, path = %spec.path, "route ignored: its first segment is another namespace");
                    continue;
                }
                let host = spec.host.as_ref().map(|h| h.as_str().to_owned());
                let (pattern, names) = positional(spec.path.as_str());
                let customs = hosts.entry(host).or_default().entry(pattern).or_default();
                if !customs.iter().any(|c| c.spec.method == spec.method) {
                    let (spec, policy) = (spec.clone(), policy.clone());
                    customs.push(Custom { spec, policy, version: version.clone(), names });
                }
            }
        }
        for (host, patterns) in hosts {
            let paths = Paths::build(patterns);
            match host {
                None => table.any_host = paths,
                Some(host) => match host.strip_prefix('*') {
                    Some(suffix) => table.wildcard_hosts.push((suffix.to_owned(), paths)),
                    None => drop(table.exact_hosts.insert(host, paths)),
                },
            }
        }
        table.wildcard_hosts.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    /// With event sources.
    #[must_use]
    pub fn with_sources(mut self, sources: Vec<SourceRow>) -> Self {
        for source in sources {
            let of = self.sources.entry(source.namespace.clone()).or_default();
            of.insert(source.name.clone(), source);
        }
        self
    }

    /// With the aliases of functions.
    #[must_use]
    pub fn with_aliases(mut self, aliases: HashMap<FunctionId, Arc<Aliases>>) -> Self {
        self.aliases = aliases;
        self
    }

    /// The version for a call to a function, whose live version this is. `key` finds the value that decides where one does.
    pub fn pick<'t, 'k>(
        &'t self,
        live: &'t Arc<LiveVersion>,
        key: impl FnOnce(&Sticky) -> Option<&'k [u8]>,
    ) -> &'t Arc<LiveVersion> {
        match self.aliases(live.function_id).and_then(|aliases| aliases.live.as_ref()) {
            Some(split) => split.pick(key),
            None => live,
        }
    }

    /// The version for a call to an alias of the function whose live version this is; `live` among them.
    pub fn alias<'t, 'k>(
        &'t self,
        live: &'t Arc<LiveVersion>,
        alias: &str,
        key: impl FnOnce(&Sticky) -> Option<&'k [u8]>,
    ) -> Option<&'t Arc<LiveVersion>> {
        if alias == LIVE {
            return Some(self.pick(live, key));
        }
        Some(self.aliases(live.function_id)?.named(alias)?.split.pick(key))
    }

    /// A function's aliases, if it has any that say more than which version is live.
    pub fn aliases(&self, function: FunctionId) -> Option<&Arc<Aliases>> {
        // Mostly there are none at all.
        if self.aliases.is_empty() { None } else { self.aliases.get(&function) }
    }

    /// Those of all functions.
    pub(super) fn all_aliases(&self) -> &HashMap<FunctionId, Arc<Aliases>> {
        &self.aliases
    }

    /// A version of a function that an alias leads to.
    pub(crate) fn version(&self, function: FunctionId, version: VersionId) -> Option<&Arc<LiveVersion>> {
        let live = self.function_by_id(function)?;
        if live.version_id == version {
            return Some(live);
        }
        self.aliases(function)?.others().iter().find(|other| other.version_id == version)
    }

    /// Every version that an alias leads to.
    pub fn all_versions(&self) -> impl Iterator<Item = &Arc<LiveVersion>> {
        self.versions().chain(self.aliases.values().flat_map(|aliases| aliases.others()))
    }

    /// A route without a host must not catch what lies under another tenant's path addresses.
    fn belongs_to_another(&self, pattern: &str, own: &NamespaceName) -> bool {
        let first = pattern[1..].split('/').next().unwrap_or_default();
        first != own.as_str() && self.namespaces.contains_key(first)
    }

    /// Who serves this request. `host` is lower-case and without port; `path` has been checked.
    pub fn lookup(&self, host: &str, method: &str, path: &str) -> Lookup {
        let by_host = self.exact_hosts.get(host).or_else(|| {
            self.wildcard_hosts
                .iter()
                .find(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()))
                .map(|(_, p)| p)
        });
        let mut allowed = Vec::new();
        if let Some(found) = by_host.and_then(|paths| paths.at(method, path, &mut allowed)) {
            return Lookup::Found(found);
        }
        if let Some(found) = self.path_address(path) {
            return Lookup::Found(found);
        }
        if let Some(found) = self.any_host.at(method, path, &mut allowed) {
            return Lookup::Found(found);
        }
        if allowed.is_empty() { Lookup::NotFound } else { Lookup::MethodNotAllowed(allowed) }
    }

    /// `/<namespace>/<function>`, or `/<namespace>/<function>@<alias>`, and everything below it.
    fn path_address(&self, path: &str) -> Option<Found> {
        let (namespace, rest) = path[1..].split_once('/')?;
        let segment = rest.split('/').next().unwrap_or_default();
        let (version, alias) = match segment.split_once('@') {
            None => (self.function(namespace, segment)?, None),
            Some((function, alias)) => {
                let version = self.function(namespace, function)?;
                (version, Some(self.aliases(version.function_id)?.named(alias)?.clone()))
            }
        };
        Some(Found {
            version: version.clone(),
            alias,
            payload: version.spec.payload,
            prefix: 1 + namespace.len() + 1 + segment.len(),
            route: None,
            policy: version.policy.clone(),
            params: Vec::new(),
        })
    }

    /// The live version of a function by its names.
    pub fn function(&self, namespace: &str, function: &str) -> Option<&Arc<LiveVersion>> {
        self.namespaces.get(namespace)?.get(function).map(|found| &found.0)
    }

    /// The live version of a function by its id.
    pub fn function_by_id(&self, id: FunctionId) -> Option<&Arc<LiveVersion>> {
        self.by_id.get(&id).map(|found| &found.0)
    }

    /// Every live version.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<LiveVersion>> {
        self.by_id.iter().map(|found| &found.0)
    }

    /// An event source by its names.
    pub fn source(&self, namespace: &str, name: &str) -> Option<&SourceRow> {
        self.sources.get(namespace)?.get(name)
    }

    /// Every event source.
    pub fn sources(&self) -> impl Iterator<Item = &SourceRow> {
        self.sources.values().flat_map(HashMap::values)
    }

    /// Whether it says anything: before the first one was read nothing is known, of functions or of tokens.
    pub fn is_read(&self) -> bool {
        self.read
    }

    /// Every token by its hash.
    pub(super) fn tokens(&self) -> &HashMap<[u8; 32], TokenEntry> {
        &self.tokens
    }

    /// The token with this hash, unless it has expired.
    pub fn token(&self, hash: &[u8; 32], now: DateTime<Utc>) -> Option<&TokenEntry> {
        // The lookup compares hashes of the secret, not the secret: its timing tells nothing usable about one.
        self.tokens.get(hash).filter(|t| t.expires_at.is_none_or(|at| now < at))
    }
}

impl Paths {
    fn build(patterns: BTreeMap<String, Vec<Custom>>) -> Self {
        let mut exact = matchit::Router::new();
        let mut greedy: BTreeMap<usize, matchit::Router<Vec<Custom>>> = BTreeMap::new();
        for (pattern, customs) in patterns {
            let depth = pattern.matches('/').count();
            let router = if pattern.contains('*') { greedy.entry(depth).or_default() } else { &mut exact };
            if let Err(error) = router.insert(pattern.clone(), customs) {
                tracing::warn!(%pattern, %error, "route ignored");
            }
        }
        Self { exact, greedy: greedy.into_iter().rev().collect() }
    }

    /// The most specific pattern that takes path and method. Methods of patterns that take only the path are
    /// noted in `allowed`.
    fn at(&self, method: &str, path: &str, allowed: &mut Vec<&'static str>) -> Option<Found> {
        let routers = std::iter::once(&self.exact).chain(self.greedy.iter().map(|(_, router)| router));
        routers.filter_map(|router| router.at(path).ok()).find_map(|hit| found(&hit, method, allowed))
    }
}

fn found(
    hit: &matchit::Match<'_, '_, &Vec<Custom>>,
    method: &str,
    allowed: &mut Vec<&'static str>,
) -> Option<Found> {
    // A route for the very method comes before one for any.
    let exact = hit.value.iter().find(|c| c.spec.method.as_str() == method);
    let Some(custom) = exact.or_else(|| hit.value.iter().find(|c| c.spec.method.matches(method))) else {
        allowed.extend(hit.value.iter().map(|c| c.spec.method.as_str()));
        return None;
    };
    let values = hit.params.iter().map(|(_, value)| path::decode(value).unwrap_or_else(|| value.to_owned()));
    Some(Found {
        version: custom.version.clone(),
        alias: None,
        payload: custom.spec.payload,
        prefix: custom
            .policy
            .as_ref()
            .and_then(|policy| policy.strip.as_ref())
            .map_or(0, |strip| strip.len()),
        route: Some(custom.spec.clone()),
        policy: custom.policy.clone(),
        params: custom.names.iter().cloned().zip(values).collect(),
    })
}

/// A pattern in the router's own syntax with numbered parameters, and the names in order.
fn positional(pattern: &str) -> (String, Vec<String>) {
    let mut names = Vec::new();
    let segments: Vec<String> = pattern
        .split('/')
        .map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            None => segment.to_owned(),
            Some(name) => {
                let (star, name) = name.strip_suffix('+').map_or(("", name), |n| ("*", n));
                names.push(name.to_owned());
                format!("{{{star}p{}}}", names.len())
            }
        })
        .collect();
    (segments.join("/"), names)
}

#[cfg(test)]
pub(super) mod tests;
