//! Pure: which generic instances each gateway should have waiting, from the images on this host, what was
//! claimed lately, and the memory set aside. The rules are `davit_scaling`'s; here they are applied to gateways and
//! keys. No clock, no engine, no registry; reconcile calls it.

use std::collections::BTreeMap;
use std::time::Duration;

use davit_api::{GatewayId, NetworkClass, PoolKey, RuntimeName, VersionSpec};
use davit_scaling::pool_size::{self, Asks, Bounds, Demand};

/// Bounds of all pools together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Instances that wait per gateway and runtime even when nobody calls.
    pub base: u32,
    /// Most that wait per gateway and key.
    pub per_key: u32,
    /// Memory that waiting instances may hold together, in MiB.
    pub memory_mb: u64,
}

/// What the plan looks at.
#[derive(Debug, Clone, Default)]
pub struct PoolView {
    /// Gateways that are alive.
    pub gateways: Vec<GatewayId>,
    /// Keys that are kept warm without being asked for: one a runtime image on this host.
    pub standing: Vec<PoolKey>,
    /// The same, one of each at most: functions' own images, whose containers no other function can use.
    pub own: Vec<PoolKey>,
    /// Claims of the last while, by who claimed what.
    pub claims: BTreeMap<(GatewayId, PoolKey), u32>,
}

/// The key that a function has whose owner set nothing, of a certain image of a runtime: these are the ones worth keeping
/// warm.
pub fn standing_key(image: &str) -> Option<PoolKey> {
    let (current, id) = RuntimeName::split_pinned(image)?;
    let runtime = RuntimeName::of_image(&current)?;
    let spec = VersionSpec::new(runtime, davit_api::FunctionKind::Handler);
    Some(PoolKey { network: NetworkClass::Egress, ..PoolKey::of(&spec, id) })
}

/// What one more instance of a pool takes: the engine's share and the start of the language's runtime, which come
/// to less than a second for every runtime image.
const REFILL: Duration = Duration::from_secs(1);

/// How many instances of each key each gateway should have waiting: `davit_scaling::pool_size` says how many one
/// pool would like to have, and deals the memory out among them.
pub fn wanted(view: &PoolView, limits: PoolLimits) -> BTreeMap<(GatewayId, PoolKey), u32> {
    let mut bases: BTreeMap<(GatewayId, PoolKey), u32> = BTreeMap::new();
    for gateway in &view.gateways {
        bases.extend(view.standing.iter().map(|key| ((*gateway, key.clone()), limits.base)));
        bases.extend(view.own.iter().map(|key| ((*gateway, key.clone()), limits.base.min(1))));
        for slot in view.claims.keys().filter(|slot| slot.0 == *gateway) {
            bases.entry(slot.clone()).or_insert(0);
        }
    }
    let asks: Vec<Asks> = bases
        .iter()
        .map(|(slot, base)| {
            let demand = Demand::of_minute(view.claims.get(slot).copied().unwrap_or(0));
            let bounds = Bounds { base: *base, most: limits.per_key };
            let wish = pool_size::wish(demand, REFILL, bounds);
            Asks { wish, memory_mb: slot.1.memory_mb, rate: demand.rate, refill: REFILL }
        })
        .collect();
    let granted = pool_size::deal(&asks, limits.memory_mb);
    bases.into_keys().zip(granted).filter(|(_, instances)| *instances > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOMY: PoolLimits = PoolLimits { base: 2, per_key: 8, memory_mb: 1 << 20 };

    fn key(name: &str, memory_mb: u32) -> PoolKey {
        PoolKey { memory_mb, ..standing_key(&format!("davit/runtime-{name}@sha256:aa")).unwrap() }
    }

    #[test]
    fn an_idle_host_keeps_the_base_of_each_runtime() {
        let gateway = GatewayId::new();
        let view = PoolView {
            gateways: vec![gateway],
            standing: vec![key("a", 256), key("b", 256)],
            ..Default::default()
        };
        let plan = wanted(&view, ROOMY);
        assert_eq!(plan.values().copied().collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn claims_grow_a_pool_and_bring_an_unusual_class_in() {
        let gateway = GatewayId::new();
        let claims = BTreeMap::from([((gateway, key("a", 256)), 4), ((gateway, key("a", 1024)), 1)]);
        let view =
            PoolView { gateways: vec![gateway], standing: vec![key("a", 256)], claims, ..Default::default() };
        let plan = wanted(&view, ROOMY);
        assert_eq!(plan[&(gateway, key("a", 256))], 5);
        assert_eq!(plan[&(gateway, key("a", 1024))], 2);
    }

    #[test]
    fn a_scarce_pool_is_shared_by_the_gateways_as_their_claims_are() {
        let (often, seldom) = (GatewayId::new(), GatewayId::new());
        let claims = BTreeMap::from([((often, key("a", 256)), 90), ((seldom, key("a", 256)), 10)]);
        let view = PoolView {
            gateways: vec![often, seldom],
            standing: vec![key("a", 256)],
            claims,
            ..Default::default()
        };
        let plan = wanted(&view, PoolLimits { base: 2, per_key: 100, memory_mb: 256 * 20 });
        assert_eq!((plan[&(often, key("a", 256))], plan[&(seldom, key("a", 256))]), (18, 2));
    }

    #[test]
    fn names_that_are_no_runtime_are_not_kept_warm() {
        for image in [
            "debian:trixie-slim",
            "davit/runtime-@sha256:a",
            "davit/runtime-x:latest",
            "evil/runtime-x@sha256:a",
        ] {
            assert_eq!(standing_key(image), None, "{image}");
        }
    }

    proptest! {
        #[test]
        fn no_plan_passes_its_bounds(
            claims in prop::collection::vec((0usize..3, 0usize..3, 0u32..50), 0..9),
            base in 0u32..5, per_key in 0u32..10, memory_mb in 0u64..8_192,
        ) {
            let gateways: Vec<_> = (0..3).map(|_| GatewayId::new()).collect();
            let standing = vec![key("a", 256), key("b", 512), key("c", 128)];
            let claims = claims.into_iter().map(|(g, k, n)| ((gateways[g], standing[k].clone()), n)).collect();
            let own = vec![PoolKey { image: "sha256:aa".into(), ..key("a", 64) }];
            let view = PoolView { gateways: gateways[..2].to_vec(), standing, own, claims };
            let limits = PoolLimits { base, per_key, memory_mb };
            let plan = wanted(&view, limits);
            let held: u64 = plan.iter().map(|(slot, n)| u64::from(slot.1.memory_mb) * u64::from(*n)).sum();
            prop_assert!(held <= memory_mb);
            prop_assert!(plan.values().all(|n| *n <= per_key));
            prop_assert!(plan.keys().all(|slot| view.gateways.contains(&slot.0)));
        }

        #[test]
        fn more_memory_never_means_fewer_instances(memory_mb in 0u64..4_096, more in 0u64..4_096) {
            let view = PoolView {
                gateways: vec![GatewayId::new()],
                standing: vec![key("a", 256), key("b", 256)],
                ..Default::default()
            };
            let total = |memory_mb| wanted(&view, PoolLimits { memory_mb, ..ROOMY }).values().sum::<u32>();
            prop_assert!(total(memory_mb) <= total(memory_mb + more));
        }
    }
}
