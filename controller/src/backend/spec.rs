//! The one place where container specs are made. Whatever a version asks for arrives here as a few checked
//! numbers; nothing a user wrote is passed on to the engine, so no user can ask for a device, a mount or a
//! privilege.

mod own;

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits,
};
use davit_api::{InstallationId, InstanceId, NetworkClass, limits};

use super::{BuildRequest, LABEL_INSTALLATION, LABEL_INSTANCE, LABEL_ROLE, Role, StartRequest};

pub use own::{OwnImage, described, own_image_container};

/// User and group that everything runs as: the `davit` user of the runtime images, as digits, so that an
/// image cannot map the name to root.
pub const USER: &str = "993:993";
/// Where the agent is inside: in davit's own images, and mounted into others.
pub const AGENT: &str = "/opt/davit/agent";
/// Where the shared directory appears inside.
pub const SHARED_DIR: &str = "/run/davit";
const PIDS: i64 = 256;
const BUILDER_PIDS: i64 = 1_024;
const MIB: i64 = 1024 * 1024;
/// Size of the memory file system at a container's `/var/task`, in MiB.
pub const TASK_MB: u64 = limits::TASK_MB as u64;
/// Where the code appears inside.
pub const TASK_ROOT: &str = "/var/task";
/// Size of the memory file system for secrets that become files, in MiB. Twice what they can take, for each fills whole
/// pages.
pub const SECRETS_MB: u64 = (2 * limits::SECRET_FILES * limits::SECRET_BYTES).div_ceil(1024 * 1024) as u64;

/// What is the same for every container of an installation.
#[derive(Debug, Clone)]
pub struct Common {
    /// The installation.
    pub installation: InstallationId,
    /// Its network's name.
    pub network: String,
    /// Highest number of open files that may be granted: raising a hard limit needs a privilege that the
    /// engine may lack.
    pub max_open_files: i64,
}

/// What a function's container sees of this host.
#[derive(Debug, Clone, Copy)]
pub struct Mounts<'a> {
    /// The directory in which its agent's socket appears.
    pub shared: &'a Path,
    /// The mount point at which its code may appear; without one, code can only be unpacked inside.
    pub task: Option<&'a Path>,
    /// The agent, where the one in the image may be too old.
    pub agent: Option<&'a Path>,
}

/// The spec of a function's container.
pub fn function_container(
    common: &Common,
    request: &StartRequest,
    Mounts { shared, task, agent }: Mounts<'_>,
) -> ContainerCreateBody {
    let key = &request.key;
    let sizes = [("/tmp", u64::from(key.ephemeral_mb)), (TASK_ROOT, TASK_MB)];
    // Owned by the container's user as well as open: some runtimes give the mount its image folder's mode.
    let tmpfs =
        sizes.iter().filter(|(path, _)| task.is_none() || *path != TASK_ROOT).map(|(path, size_mb)| {
            ((*path).to_owned(), format!("rw,exec,nosuid,nodev,mode=1777,uid=993,gid=993,size={size_mb}m"))
        });
    let tmpfs = tmpfs.chain([secrets_tmpfs()]);
    let host = HostConfig {
        readonly_rootfs: Some(true),
        tmpfs: Some(tmpfs.collect()),
        binds: Some(vec![format!("{}:{SHARED_DIR}:rw", shared.display())]),
        mounts: Some(task.map(task_mount).into_iter().chain(agent.map(agent_mount)).collect()),
        network_mode: Some(network_mode(common, key.network)),
        ..hardened(common, key.memory_mb, key.cpu_millis, PIDS)
    };
    ContainerCreateBody {
        working_dir: Some(TASK_ROOT.into()),
        ..body(common, request.role, request.instance, &request.image.0, host)
    }
}

/// Where the agent writes secrets that become files: memory of this container alone, and for its user alone.
fn secrets_tmpfs() -> (String, String) {
    let options = format!("rw,noexec,nosuid,nodev,mode=0700,uid=993,gid=993,size={SECRETS_MB}m");
    (davit_api::SECRET_FOLDER.to_owned(), options)
}

/// A slave of the host's mount: what is mounted there later appears inside, and nothing the other way round.
fn task_mount(point: &Path) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(point.display().to_string()),
        target: Some(TASK_ROOT.into()),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RSLAVE),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The agent of this davit. Not as a bind: for one whose source is gone the engine would make a folder.
fn agent_mount(agent: &Path) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(agent.display().to_string()),
        target: Some(AGENT.into()),
        read_only: Some(true),
        ..Default::default()
    }
}

/// The spec of a builder: as confined as a function, but with a writable root for compilers.
pub fn builder_container(common: &Common, request: &BuildRequest) -> ContainerCreateBody {
    let limits = &request.limits;
    let host = HostConfig {
        readonly_rootfs: Some(false),
        network_mode: Some(network_mode(common, request.network)),
        log_config: Some(log_config("4m")),
        ..hardened(common, limits.memory_mb, limits.cpu_millis, BUILDER_PIDS)
    };
    let mut env: Vec<String> = request.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    env.sort();
    ContainerCreateBody {
        working_dir: Some("/davit".into()),
        entrypoint: Some(vec!["/opt/davit/build".into()]),
        cmd: Some(Vec::new()),
        env: Some(env),
        ..body(common, Role::Builder, request.id, &request.image.0, host)
    }
}

fn body(
    common: &Common,
    role: Role,
    instance: InstanceId,
    image: &str,
    host: HostConfig,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        user: Some(USER.into()),
        // The engine's default is the container's id, which would tell a function its own handle.
        hostname: Some("davit".into()),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        tty: Some(false),
        labels: Some(HashMap::from([
            (LABEL_INSTALLATION.to_owned(), common.installation.to_string()),
            (LABEL_INSTANCE.to_owned(), instance.to_string()),
            (LABEL_ROLE.to_owned(), role.as_str().to_owned()),
        ])),
        host_config: Some(host),
        ..Default::default()
    }
}

/// The network of a class, in the engine's words.
pub fn network_mode(common: &Common, class: NetworkClass) -> String {
    match class {
        NetworkClass::Egress => common.network.clone(),
        NetworkClass::None => "none".to_owned(),
    }
}

fn hardened(common: &Common, memory_mb: u32, cpu_millis: u32, pids: i64) -> HostConfig {
    let memory = i64::from(memory_mb) * MIB;
    let files = common.max_open_files.min(4_096);
    let limit = |name: &str, value: i64| ResourcesUlimits {
        name: Some(name.into()),
        soft: Some(value),
        hard: Some(value),
    };
    HostConfig {
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        privileged: Some(false),
        memory: Some(memory),
        // Equal to memory: no swap, so that "out of memory" means what it says.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(cpu_millis) * 1_000_000),
        pids_limit: Some(pids),
        ulimits: Some(vec![limit("nofile", files), limit("core", 0)]),
        shm_size: Some(16 * MIB),
        ipc_mode: Some("private".into()),
        // The agent prints a line or two when it cannot start; functions' output goes over the link.
        log_config: Some(log_config("64k")),
        auto_remove: Some(false),
        ..Default::default()
    }
}

fn log_config(max_size: &str) -> HostConfigLogConfig {
    let config = HashMap::from([
        ("max-size".to_owned(), max_size.to_owned()),
        ("max-file".to_owned(), "1".to_owned()),
    ]);
    HostConfigLogConfig { typ: Some("json-file".into()), config: Some(config) }
}

#[cfg(test)]
mod tests {
    use super::super::ImageId;
    use super::*;
    use davit_api::PoolKey;

    fn common() -> Common {
        Common { installation: InstallationId::new(), network: "davit-test".into(), max_open_files: 20_000 }
    }

    fn request(network: NetworkClass) -> StartRequest {
        StartRequest {
            instance: InstanceId::new(),
            role: Role::Instance,
            image: ImageId("sha256:aa".into()),
            key: PoolKey { image: "x".into(), memory_mb: 256, cpu_millis: 500, ephemeral_mb: 64, network },
        }
    }

    fn bare() -> Mounts<'static> {
        Mounts { shared: Path::new("/s/i"), task: None, agent: None }
    }

    #[test]
    fn a_function_gets_limits_and_no_privilege() {
        let body = function_container(&common(), &request(NetworkClass::None), bare());
        let host = body.host_config.unwrap();
        assert_eq!(host.memory, Some(256 * MIB));
        assert_eq!(host.memory, host.memory_swap);
        assert_eq!(host.nano_cpus, Some(500_000_000));
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.binds, Some(vec!["/s/i:/run/davit:rw".to_owned()]));
        assert!(host.tmpfs.unwrap().contains_key("/var/task") && host.mounts == Some(Vec::new()));
        assert_eq!(host.oom_score_adj, None);
        assert_eq!((host.cap_add, host.devices, host.privileged), (None, None, Some(false)));
        assert_eq!(body.user.as_deref(), Some(USER));
    }

    #[test]
    fn shared_code_comes_through_a_mount_that_only_receives() {
        let mounts = Mounts { task: Some(Path::new("/s/tasks/i")), agent: Some(Path::new("/s/a")), ..bare() };
        let body = function_container(&common(), &request(NetworkClass::None), mounts);
        let host = body.host_config.unwrap();
        let memory = host.tmpfs.unwrap();
        assert!(!memory.contains_key("/var/task") && memory.contains_key("/tmp"));
        assert_eq!(
            memory["/run/secrets"], "rw,noexec,nosuid,nodev,mode=0700,uid=993,gid=993,size=2m",
            "only its user sees what lies there, and it is bounded"
        );
        let [mount, agent] = &host.mounts.unwrap()[..] else { panic!("two mounts") };
        assert_eq!((agent.source.as_deref(), agent.read_only), (Some("/s/a"), Some(true)));
        assert_eq!(
            (mount.source.as_deref(), mount.target.as_deref()),
            (Some("/s/tasks/i"), Some("/var/task"))
        );
        let propagation = mount.bind_options.as_ref().unwrap().propagation;
        assert_eq!(propagation, Some(MountBindOptionsPropagationEnum::RSLAVE));
    }

    #[test]
    fn a_limit_is_never_raised_above_what_the_host_has() {
        let common = Common { max_open_files: 1_000, ..common() };
        let body = function_container(&common, &request(NetworkClass::Egress), bare());
        let limits = body.host_config.unwrap().ulimits.unwrap();
        assert!(limits.iter().all(|l| l.hard <= Some(1_000) && l.soft <= l.hard));
    }
}
