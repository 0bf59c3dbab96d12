//! How builds run: what an operator may set, and what reaches the builder from davit's own environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use davit_api::{NetworkClass, limits};
use davit_daemon::Settings;

use crate::backend::BuildLimits;

/// Where Debian, and most others, keep the certificates that the host trusts.
const HOST_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Proxies and package indexes: sites without a direct way out set them for every program of the host.
const PASSED_ON: &[&str] = &[
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "NPM_CONFIG_REGISTRY",
    "npm_config_registry",
    "GOPROXY",
    "GOSUMDB",
    "GONOSUMDB",
    "GOPRIVATE",
    "DAVIT_BUILD_CARGO_INDEX",
    "DAVIT_BUILD_MAVEN_MIRROR",
    "BUNDLE_MIRROR__ALL",
    "COMPOSER_REPO_PACKAGIST",
];
/// Names under which package managers and their libraries look for certificates.
const CERTIFICATE_NAMES: &[&str] = &[
    "SSL_CERT_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "DAVIT_BUILD_CA_BUNDLE",
];
/// Tells a build that it has no network, so that it can say so when it would need one.
const OFFLINE: &str = "DAVIT_BUILD_OFFLINE";
/// Where the certificates lie in the builder.
pub(super) const CERTIFICATES_INSIDE: &str = "/davit/ca-bundle.crt";

/// How builds run.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// Builds at a time.
    pub parallel: usize,
    /// Bounds of each.
    pub limits: BuildLimits,
    /// Certificates that builders trust.
    pub ca_bundle: Option<PathBuf>,
    /// What builders can reach.
    pub network: NetworkClass,
    /// Environment that every builder gets.
    pub env: Vec<(String, String)>,
    /// Largest image of a function's own, unpacked, in MiB.
    pub image_mb: u64,
    /// Whether Dockerfiles are built: their steps run as root of a container, with the engine's usual capabilities.
    pub dockerfiles: bool,
    /// How long after a deploy warm containers are kept for the next one; zero keeps none.
    pub keep_spares: Duration,
}

impl BuildSettings {
    /// Reads `DAVIT_BUILD_*` and what is passed on.
    pub fn read(settings: &mut Settings) -> Self {
        let wall = settings.duration("DAVIT_BUILD_TIMEOUT", Duration::from_secs(15 * 60));
        let memory_mb = settings.or("DAVIT_BUILD_MEMORY_MB", 2_048);
        let cpu_millis = settings.or("DAVIT_BUILD_CPU_MILLIS", 2_000);
        let parallel = settings.or("DAVIT_BUILD_PARALLEL", 2);
        let ca_bundle = match settings.text("DAVIT_BUILD_CA_BUNDLE").map(PathBuf::from) {
            Some(path) if !path.is_file() => {
                settings.problem("DAVIT_BUILD_CA_BUNDLE", format!("{}: no such file", path.display()));
                None
            }
            Some(path) => Some(path),
            None => Some(Path::new(HOST_CERTIFICATES).to_owned()).filter(|path| path.is_file()),
        };
        let mut env: Vec<(String, String)> = PASSED_ON
            .iter()
            .filter_map(|name| settings.text(name).map(|value| ((*name).to_owned(), value)))
            .collect();
        if ca_bundle.is_some() {
            env.extend(
                CERTIFICATE_NAMES.iter().map(|name| ((*name).to_owned(), CERTIFICATES_INSIDE.to_owned())),
            );
        }
        let network = settings.or("DAVIT_BUILD_NETWORK", NetworkClass::Egress);
        if network == NetworkClass::None {
            env.push((OFFLINE.to_owned(), "1".to_owned()));
        }
        let limits = BuildLimits {
            memory_mb,
            cpu_millis: host_cpus().min(cpu_millis),
            wall,
            // The tar around the content: headers and padding of every entry.
            bundle_bytes: limits::UNPACKED_BYTES + 1_536 * limits::ARCHIVE_ENTRIES as u64,
            deps_bytes: 2 * limits::UNPACKED_BYTES,
        };
        let keep_spares = settings.duration("DAVIT_BUILD_KEEP_WARM", Duration::from_secs(10 * 60));
        // As large as AWS takes them.
        let image_mb = settings.or("DAVIT_IMAGE_MB", 10 * 1_024);
        let dockerfiles = settings.or("DAVIT_BUILD_DOCKERFILES", true);
        Self { parallel, limits, ca_bundle, network, env, image_mb, dockerfiles, keep_spares }
    }
}

/// The engine refuses a CPU limit above what the host has.
fn host_cpus() -> u32 {
    std::thread::available_parallelism().map_or(1_000, |n| u32::try_from(n.get()).unwrap_or(1) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_indexes_reach_the_build_and_nothing_else_does() {
        let pairs =
            [("PIP_INDEX_URL", "https://index.test/simple"), ("DAVIT_TOKEN", "secret"), ("HOME", "/root")];
        let build = BuildSettings::read(&mut Settings::from_pairs(pairs));
        let value = |name: &str| build.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(value("PIP_INDEX_URL"), Some("https://index.test/simple"));
        assert_eq!((value("DAVIT_TOKEN"), value("HOME")), (None, None));
    }

    #[test]
    fn builds_have_a_network_unless_the_operator_takes_it_away() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            let mut settings = Settings::from_pairs(pairs.iter().copied());
            let build = BuildSettings::read(&mut settings);
            settings.finish().map(|_| (build.network, build.env.iter().any(|(name, _)| name == OFFLINE)))
        };
        assert_eq!(read(&[]).unwrap(), (NetworkClass::Egress, false));
        assert_eq!(read(&[("DAVIT_BUILD_NETWORK", "none")]).unwrap(), (NetworkClass::None, true));
        assert!(read(&[("DAVIT_BUILD_NETWORK", "off")]).is_err());
    }

    #[test]
    fn a_missing_certificate_file_is_a_mistake_to_report() {
        let mut settings = Settings::from_pairs([("DAVIT_BUILD_CA_BUNDLE", "/no/such/file")]);
        BuildSettings::read(&mut settings);
        assert!(settings.finish().is_err());
    }
}
