//! The container of a user's own image. The image stays as it is: the agent is brought in from outside as the first
//! process, read-only, and is told what the image starts. What holds for every function's container holds here, too: an
//! unprivileged user, no capability, a read-only root, bounded memory. What the image itself says about that (`USER`,
//! `HEALTHCHECK`, exposed ports) is left out.

use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig};

use super::{AGENT, Common, PIDS, SHARED_DIR, agent_mount, body, hardened, network_mode, secrets_tmpfs};
use crate::backend::StartRequest;
use crate::backend::image::ImageFacts;

/// What else there is to know for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnImage {
    /// What the image says about itself; its volumes have been judged.
    pub facts: ImageFacts,
    /// The agent on this host.
    pub agent: PathBuf,
}

/// The spec of such a container.
pub fn own_image_container(
    common: &Common,
    request: &StartRequest,
    shared: &Path,
    own: &OwnImage,
) -> ContainerCreateBody {
    let key = &request.key;
    // Volumes would lie on this host's disk, without a bound: what the image wants to write to is memory, as /tmp is.
    let writable = ["/tmp"].into_iter().chain(own.facts.volumes.iter().map(String::as_str));
    let options = format!("rw,exec,nosuid,nodev,mode=1777,uid=993,gid=993,size={}m", key.ephemeral_mb);
    let host = HostConfig {
        readonly_rootfs: Some(true),
        // The last one stands, should the image call the secrets' place a volume.
        tmpfs: Some(
            writable.map(|path| (path.to_owned(), options.clone())).chain([secrets_tmpfs()]).collect(),
        ),
        binds: Some(vec![format!("{}:{SHARED_DIR}:rw", shared.display())]),
        mounts: Some(vec![agent_mount(&own.agent)]),
        network_mode: Some(network_mode(common, key.network)),
        ..hardened(common, key.memory_mb, key.cpu_millis, PIDS)
    };
    ContainerCreateBody {
        // The agent goes to the image's own folder when it starts what is in it. An engine that did it could be led
        // out of the container by a folder below /proc.
        working_dir: Some("/".into()),
        entrypoint: Some(vec![AGENT.into()]),
        cmd: Some(Vec::new()),
        env: Some(vec![format!("DAVIT_IMAGE={}", described(&own.facts)), "DAVIT_RUNTIME_COMMAND=[]".into()]),
        // Its probes would run in frozen containers, at everybody's cost.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        ..body(common, request.role, request.instance, &request.image.0, host)
    }
}

/// What the agent has to know about an image, as `runtime-images/agent/src/image.rs` reads it from `DAVIT_IMAGE`.
pub fn described(facts: &ImageFacts) -> String {
    let said = serde_json::json!({
        "entrypoint": facts.entrypoint,
        "cmd": facts.cmd,
        "folder": facts.folder,
    });
    said.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{ImageId, Role};
    use davit_api::{InstallationId, InstanceId, NetworkClass, PoolKey};

    #[test]
    fn a_users_image_is_as_confined_as_any_and_says_only_what_runs() {
        let id = ImageId("sha256:aa".into());
        let key = PoolKey {
            image: id.0.clone(),
            memory_mb: 128,
            cpu_millis: 500,
            ephemeral_mb: 64,
            network: NetworkClass::Egress,
        };
        let request =
            StartRequest { instance: InstanceId::new(), role: Role::Instance, image: id.clone(), key };
        let facts = ImageFacts {
            id,
            os: "linux".into(),
            architecture: "amd64".into(),
            size: 1,
            entrypoint: vec!["/bin/app".into()],
            cmd: vec!["--\"quoted\"".into()],
            folder: "/srv".into(),
            volumes: vec!["/data".into()],
        };
        let common = Common {
            installation: InstallationId::new(),
            network: "davit-test".into(),
            max_open_files: 4_096,
        };
        let own = OwnImage { facts, agent: "/s/agents/x".into() };
        let body = own_image_container(&common, &request, Path::new("/s/i"), &own);
        let host = body.host_config.unwrap();
        assert_eq!(body.user.as_deref(), Some(super::super::USER));
        assert_eq!((body.working_dir.as_deref(), body.entrypoint), (Some("/"), Some(vec![AGENT.to_owned()])));
        assert_eq!((host.readonly_rootfs, host.privileged), (Some(true), Some(false)));
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
        assert_eq!(host.binds, Some(vec!["/s/i:/run/davit:rw".to_owned()]));
        let agent = host.mounts.unwrap().remove(0);
        assert_eq!((agent.source.as_deref(), agent.target.as_deref()), (Some("/s/agents/x"), Some(AGENT)));
        assert_eq!(agent.read_only, Some(true));
        let tmpfs = host.tmpfs.unwrap();
        assert!(
            tmpfs.contains_key("/data")
                && tmpfs.contains_key("/run/secrets")
                && tmpfs.contains_key("/tmp")
                && !tmpfs.contains_key("/var/task")
        );
        let env = body.env.unwrap();
        let told = env[0].strip_prefix("DAVIT_IMAGE=").unwrap();
        let told: serde_json::Value = serde_json::from_str(told).unwrap();
        assert_eq!((&told["cmd"][0], &told["folder"]), (&"--\"quoted\"".into(), &"/srv".into()));
    }
}
