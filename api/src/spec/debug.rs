//! The rules for versions that are deployed to be debugged.

use serde::{Deserialize, Serialize};

use super::VersionSpec;
use crate::{Access, ApiError, FunctionKind};

/// What the client of a gateway's `…/debugger` asks its connection to become, in `Upgrade`.
pub const DEBUGGER_PROTOCOL: &str = "davit-debugger";

/// How a version is debugged. A version without it has no debugger, and nobody can attach one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DebugSettings {
    /// Whether the first call of an instance waits until a debugger is attached.
    #[serde(default)]
    pub wait: bool,
}

impl VersionSpec {
    /// Whoever attaches a debugger can do everything that the function can, and holds up everybody who calls it: so such a
    /// version is nothing for the public, and has one instance, in which the next call is as well.
    pub(super) fn check_debug(&self) -> Result<(), ApiError> {
        if self.debug.is_none() {
            return Ok(());
        }
        let refused = |why: &str| Err(ApiError::field("debug", why));
        if self.runtime.debugger_port().is_none() {
            return refused(&format!(
                "{} has no debugger here; python3.13 and node20 have one",
                if self.runtime.is_own_image() { "an image of its own" } else { self.runtime.as_str() }
            ));
        }
        if self.kind != FunctionKind::Handler || !self.command.is_empty() {
            return refused("is for handlers: a program of its own starts its debugger itself");
        }
        let public = self.routes.iter().any(|route| route.access == Some(Access::Public));
        if public || self.access == Access::Public {
            return refused("a version to be debugged cannot be public: let its access be token");
        }
        if self.max_instances != 1 || self.concurrency != 1 {
            return refused("a version to be debugged has max_instances = 1 and concurrency = 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RouteSpec, RuntimeName};

    fn debugged(runtime: &str) -> VersionSpec {
        VersionSpec {
            debug: Some(DebugSettings::default()),
            max_instances: 1,
            ..VersionSpec::new(runtime.parse().unwrap(), FunctionKind::Handler)
        }
    }

    #[test]
    fn a_version_to_be_debugged_is_alone_not_public_and_of_a_runtime_that_has_a_debugger() {
        for runtime in RuntimeName::SHIPPED {
            let checked = debugged(runtime).check().map_err(|error| error.message);
            match runtime {
                "python3.13" | "node20" => assert_eq!(checked, Ok(())),
                _ => assert!(checked.unwrap_err().contains("python3.13 and node20 have one"), "{runtime}"),
            }
        }
        for change in [
            (|s| s.access = Access::Public) as fn(&mut VersionSpec),
            |s| {
                let route: RouteSpec =
                    serde_json::from_value(serde_json::json!({"path": "/x", "access": "public"})).unwrap();
                s.routes.push(route);
            },
            |s| s.max_instances = 2,
            |s| s.concurrency = 2,
            |s| s.kind = FunctionKind::Server,
            |s| s.command = vec!["./run".into()],
        ] {
            let mut spec = debugged("python3.13");
            change(&mut spec);
            let said = spec.check().unwrap_err().message;
            assert!(said.starts_with("debug: "), "{said}");
            spec.debug = None;
            assert_eq!(spec.check(), Ok(()), "it is the debugger that it does not fit");
        }
    }

    #[test]
    fn a_version_without_it_is_written_as_before() {
        let plain = VersionSpec::new("node20".parse().unwrap(), FunctionKind::Handler);
        assert!(!serde_json::to_string(&plain).unwrap().contains("debug"));
        let written = serde_json::to_string(&debugged("node20")).unwrap();
        assert_eq!(serde_json::from_str::<VersionSpec>(&written).unwrap(), debugged("node20"));
    }
}
