//! A version's custom routes with their policies.

use std::sync::Arc;

use davit_api::{FunctionId, RouteSpec, VersionSpec};

use super::{Contract, Document, Limiters, Policy};

/// One custom route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which requests it takes, without the settings that the policy is made of.
    pub spec: Arc<RouteSpec>,
    /// What holds for them.
    pub policy: Option<Arc<Policy>>,
}

impl Route {
    /// All of a version's.
    pub fn all(function: FunctionId, spec: &VersionSpec, limiters: &Limiters) -> Box<[Self]> {
        let document = Document::of(spec);
        let route = |route: &RouteSpec| Self {
            policy: Policy::of_route(function, spec, route, Contract::of(document.as_ref(), route), limiters),
            spec: Arc::new(RouteSpec { http: None, ..route.clone() }),
        };
        spec.routes.iter().map(route).collect()
    }
}
