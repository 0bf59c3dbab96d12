//! The scenarios, one file each: what it is called, which figures it yields with which goals, and how.

use std::pin::Pin;

use crate::bench::Bench;
use crate::figure::Figure;

mod boto3_start;
mod bundle_size;
mod burst;
mod cold;
mod cold_python;
mod deploy;
mod handler;
mod idle_memory;
mod many_functions;
mod native_start;
mod node_start;
mod overload;
mod own_image;
mod pod_start;
mod python_start;
mod queue;
mod queue_depth;
mod thaw;
mod warm;

/// What running a scenario gives.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = crate::Result<()>> + 'a>>;

/// Something that can be measured by itself.
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// One line that says what is compared.
    pub(crate) about: &'static str,
    /// The figures that it adds to the report.
    pub(crate) figures: &'static [&'static Figure],
    /// Measures.
    pub(crate) run: for<'a> fn(&'a mut Bench) -> Running<'a>,
}

/// All of them, in the order in which a full run takes them.
pub(crate) static ALL: &[Scenario] = &[
    cold_python::SCENARIO,
    warm::SCENARIO,
    node_start::SCENARIO,
    python_start::SCENARIO,
    boto3_start::SCENARIO,
    bundle_size::SCENARIO,
    burst::SCENARIO,
    handler::SCENARIO,
    thaw::SCENARIO,
    native_start::SCENARIO,
    own_image::SCENARIO,
    pod_start::SCENARIO,
    deploy::SCENARIO,
    queue::SCENARIO,
    queue_depth::SCENARIO,
    overload::SCENARIO,
    many_functions::SCENARIO,
    idle_memory::SCENARIO,
];

/// The scenarios of these names; `all` for every one, an id such as `S3` for the one that yields that figure.
pub(crate) fn choose(names: &[String]) -> crate::Result<Vec<&'static Scenario>> {
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        chosen.extend(ALL.iter().filter(|s| name == "all" || s.name == name || yields(s, name)));
        if chosen.len() == before {
            return Err(format!("no scenario is called {name}; --list shows them").into());
        }
    }
    chosen.dedup_by_key(|s| s.name);
    Ok(chosen)
}

fn yields(scenario: &Scenario, id: &str) -> bool {
    scenario.figures.iter().any(|f| f.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_figures_are_unique_and_lead_to_their_scenario() {
        let mut ids: Vec<_> = ALL.iter().flat_map(|s| s.figures).map(|f| f.id).collect();
        let mut names: Vec<_> = ALL.iter().map(|s| s.name).collect();
        let (all_ids, all_names) = (ids.len(), names.len());
        ids.sort_unstable();
        ids.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((ids.len(), names.len()), (all_ids, all_names));
        assert_eq!(choose(&["s3".into()]).unwrap()[0].name, "cold-python");
        assert_eq!(choose(&["all".into()]).unwrap().len(), ALL.len());
        assert!(choose(&["warmer".into()]).is_err());
    }
}
