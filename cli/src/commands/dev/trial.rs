//! A function as `davit dev` runs it: what of its settings is another thing in a namespace for development. Pure.

use std::collections::{BTreeMap, HashSet};

use davit_api::{
    Access, DebugSettings, EnvName, HostPattern, Manifest, NamespaceName, ScheduleName, ScheduleSpec,
    SecretName, VersionSpec, limits,
};

/// How long an instance that is debugged is kept without a call.
const KEEP_ALIVE_SECONDS: u32 = 3_600;
/// What an instance that is debugged has at least: a debugger takes some 40 MiB, and davit.toml's default has a standing pool.
const DEBUG_MEMORY_MB: u32 = 256;

/// What a function needs of secrets, and what of them is given here.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Values {
    /// Secrets to set.
    pub(crate) given: BTreeMap<SecretName, String>,
    /// Those that nobody gives here, with the variable that would give them: they have to be set already.
    pub(crate) wanted: BTreeMap<SecretName, String>,
}

/// A function's settings for development.
#[derive(Debug, PartialEq)]
pub(crate) struct Trial {
    pub(crate) spec: VersionSpec,
    pub(crate) schedules: BTreeMap<ScheduleName, ScheduleSpec>,
    pub(crate) values: Values,
}

/// The host that the routes of a function have here. Those of the real one are in force elsewhere, and a route belongs to one function.
pub(crate) fn host(namespace: &NamespaceName, function: &str) -> String {
    format!("{function}.{namespace}.localhost")
}

/// The variable that gives a secret which a function gets as a file: the secret's name, as variables are written.
fn variable_of(secret: &SecretName) -> String {
    secret.as_str().replace('-', "_").to_uppercase()
}

impl Trial {
    /// The differences: a private function is callable with a token, routes have a host of their own, schedules do not ring by
    /// themselves, no instance is kept, and variables may have other values.
    pub(crate) fn of(
        manifest: &Manifest,
        namespace: &NamespaceName,
        variables: &BTreeMap<String, String>,
        debug: Option<DebugSettings>,
    ) -> Result<Self, String> {
        let mut spec = manifest.version_spec();
        if let Some(debug) = debug {
            to_be_debugged(&mut spec, debug);
        }
        if spec.access == Access::Private {
            spec.access = Access::Token;
        }
        spec.min_instances = 0;
        let own: HostPattern = host(namespace, manifest.name.as_str()).parse()?;
        let mut seen = HashSet::new();
        spec.routes.retain(|route| seen.insert((route.method, route.path.shape())));
        for route in &mut spec.routes {
            route.host = Some(own.clone());
        }
        let mut values = Values::default();
        let variables_of = spec.secrets.iter().map(|(name, secret)| (secret, name.to_string()));
        let files = spec.secret_files.values().map(|secret| (secret, variable_of(secret)));
        for (secret, variable) in variables_of.chain(files) {
            match variables.get(&variable) {
                Some(value) => drop(values.given.insert(secret.clone(), value.clone())),
                None => drop(values.wanted.insert(secret.clone(), variable)),
            }
        }
        // One that is wanted twice is given where either name gives it.
        values.wanted.retain(|secret, _| !values.given.contains_key(secret));
        for (name, value) in variables {
            let Ok(name) = name.parse::<EnvName>() else { continue };
            // What is not a variable of this function is another one's.
            if let Some(known) = spec.env.get_mut(&name) {
                known.clone_from(value);
            }
        }
        let schedules = manifest.schedule_specs().into_iter();
        let schedules =
            schedules.map(|(name, spec)| (name, ScheduleSpec { enabled: false, ..spec })).collect();
        Ok(Self { spec, schedules, values })
    }
}

/// Time for somebody who thinks: calls may take as long as any may, and the one instance stays.
fn to_be_debugged(spec: &mut VersionSpec, debug: DebugSettings) {
    spec.debug = Some(debug);
    spec.timeout_seconds = *limits::TIMEOUT_SECONDS.end();
    spec.keep_alive_seconds = Some(KEEP_ALIVE_SECONDS);
    spec.memory_mb = spec.memory_mb.max(DEBUG_MEMORY_MB);
    (spec.max_instances, spec.concurrency) = (1, 1);
    if spec.access == Access::Public {
        spec.access = Access::Token;
    }
    for route in &mut spec.routes {
        route.timeout_seconds = None;
        route.access = route.access.map(|_| Access::Token);
    }
}

/// Reads `NAME=value` lines, as files named `.env` have them: comments, empty lines and a leading `export` are skipped, quotes
/// around a value taken off. The error names the line.
pub(crate) fn variables(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {}: write NAME=value", n + 1));
        };
        let (name, value) = (name.trim(), value.trim());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!(
                "line {}: the name of a variable has letters, digits and underscores",
                n + 1
            ));
        }
        let unquoted = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
        found.insert(name.to_owned(), unquoted.unwrap_or(value).to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOML: &str = r#"
name = "orders"
runtime = "python3.13"
handler = "app.handler"
min_instances = 2
[env]
STAGE = "production"
[secrets]
KEY = "api-key"
DB = "db"
[secret_files]
"tls.key" = "tls-key"
"again" = "api-key"
"later" = "other-file"
[[routes]]
path = "/orders/{id}"
host = "api.example.com"
[[routes]]
path = "/orders/{number}"
host = "api.example.org"
[[schedules]]
name = "nightly"
cron = "0 2 * * *"
"#;

    #[test]
    fn it_takes_nothing_from_the_real_one() {
        let manifest = Manifest::parse(TOML).unwrap();
        let given = variables("KEY='secret'\nSTAGE=dev\nOTHER=1\nTLS_KEY=pem").unwrap();
        let trial = Trial::of(&manifest, &"dev".parse().unwrap(), &given, None).unwrap();
        assert_eq!((trial.spec.access, trial.spec.min_instances), (Access::Token, 0));
        assert_eq!(trial.spec.env.values().collect::<Vec<_>>(), ["dev"], "no others' variables");
        let routes: Vec<_> = trial
            .spec
            .routes
            .iter()
            .map(|r| format!("{}{}", r.host.as_ref().unwrap().as_str(), r.path))
            .collect();
        assert_eq!(
            routes,
            ["orders.dev.localhost/orders/{id}"],
            "routes that differ in their host only are one here"
        );
        assert!(trial.schedules.values().all(|s| !s.enabled));
        assert_eq!(trial.values.given.values().collect::<Vec<_>>(), ["secret", "pem"]);
        let wanted: Vec<_> = trial.values.wanted.iter().map(|(name, by)| format!("{name} by {by}")).collect();
        assert_eq!(wanted, ["db by DB", "other-file by OTHER_FILE"]);
        assert!(trial.spec.check().is_ok());
    }

    #[test]
    fn one_to_be_debugged_has_one_instance_and_all_the_time_there_is() {
        let toml = format!(
            "access = \"public\"\nmax_instances = 20\ntimeout_seconds = 3\n{}",
            TOML.replace("[env]", "concurrency = 4\n[env]")
        );
        let manifest = Manifest::parse(&toml.replace(
            "path = \"/orders/{id}\"",
            "path = \"/orders/{id}\"\naccess = \"public\"\ntimeout_seconds = 2",
        ))
        .unwrap();
        let of = |debug| Trial::of(&manifest, &"dev".parse().unwrap(), &BTreeMap::new(), debug).unwrap().spec;
        let plain = of(None);
        assert_eq!((plain.debug, plain.access, plain.timeout_seconds), (None, Access::Public, 3));
        let spec = of(Some(DebugSettings { wait: true }));
        assert_eq!(spec.debug, Some(DebugSettings { wait: true }));
        assert_eq!((spec.max_instances, spec.concurrency, spec.timeout_seconds), (1, 1, 900));
        assert_eq!(spec.access, Access::Token, "nobody else's breakpoint");
        assert_eq!((spec.routes[0].access, spec.routes[0].timeout_seconds), (Some(Access::Token), None));
        assert!(spec.check().is_ok());
    }

    #[test]
    fn a_file_of_variables_is_read_line_by_line() {
        let read = variables("# a\n\nexport A=1\nB = \"x = y\"\nC=\nD='it\"s'\n").unwrap();
        let pairs: Vec<_> = read.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["A=1", "B=x = y", "C=", "D=it\"s"]);
        assert!(variables("A=1\nB").unwrap_err().starts_with("line 2"));
        assert!(variables("1A=1").unwrap_err().starts_with("line 1"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fall_over(text in ".{0,200}") {
            let _ = variables(&text);
        }

        #[test]
        fn what_is_written_plainly_is_read_back(pairs in prop::collection::btree_map("[A-Z][A-Z0-9_]{0,9}", "[a-z0-9=:/ ]{0,20}", 0..5)) {
            let text: String = pairs.iter().map(|(k, v)| format!("{k}=\"{v}\"\n")).collect();
            let trimmed: BTreeMap<_, _> = pairs.into_iter().collect();
            prop_assert_eq!(variables(&text).unwrap(), trimmed);
        }
    }
}
