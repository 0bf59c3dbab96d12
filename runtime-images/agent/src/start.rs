//! Becoming a function: take or unpack its code, start the program or wake the warm runtime, wait until it is ready.

use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use davit_link::code::{unpack, unpack_stream};
use davit_link::frame::FrameKind;
use davit_link::{Failure, InitDone, InitRequest, Kind};
use rustix::fs::StatVfsMountFlags;
use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::agent::{Agent, StartEvent};
use crate::logs::Finish;
use crate::{TASK_ROOT, environment, failure, process, server};

/// A version's code on its way here.
pub(crate) enum Bundle {
    /// All of it, as a file.
    Whole(File),
    /// As the gateway sends it.
    Coming(pipe::Receiver),
}

/// Starts the function and tells the gateway how it went. On failure the instance ends.
pub(crate) async fn start(agent: Rc<Agent>, stream: u32, bundle: Bundle) {
    let Some(request) = agent.function.get() else { return };
    let limit = Duration::from_millis(request.init_timeout_ms);
    let (sender, events) = mpsc::unbounded_channel();
    *agent.starting.borrow_mut() = Some(sender);
    let result = tokio::time::timeout(limit, become_function(&agent, request, bundle, events)).await;
    *agent.starting.borrow_mut() = None;
    let late = || {
        let text = format!("The function was not ready after {:.2} seconds", limit.as_secs_f64());
        failure::init("Sandbox.Timedout", text)
    };
    match result.unwrap_or_else(|_| Err(late())) {
        Ok(done) => {
            agent.drain_logs(Finish::No);
            agent.send(agent.json_frame(FrameKind::InitDone, stream, &done));
        }
        Err(failure) => {
            // The last output is what explains a failed start, so it goes first.
            agent.drain_logs(Finish::Yes);
            agent.send(agent.json_frame(FrameKind::InitFailed, stream, &failure));
            agent.end(&|_| failure.clone()).await;
        }
    }
}

async fn become_function(
    agent: &Rc<Agent>,
    request: &InitRequest,
    bundle: Bundle,
    mut events: mpsc::UnboundedReceiver<StartEvent>,
) -> Result<InitDone, Failure> {
    let begun = Instant::now();
    if let Some(what) = agent.unwritten.take() {
        return Err(failure::init("Runtime.SecretFile", format!("a secret could not become a file: {what}")));
    }
    let size = request.bundle_size;
    let root = Path::new(TASK_ROOT);
    let code_mounted = request.code_mounted && is_mounted();
    if !code_mounted && agent.image.is_none() {
        let unpacked = tokio::task::spawn_blocking(move || match bundle {
            Bundle::Whole(file) => unpack(file, size, root),
            Bundle::Coming(pipe) => {
                let pipe = pipe.into_blocking_fd().map_err(|e| format!("the bundle is unreadable: {e}"))?;
                unpack_stream(File::from(pipe), root)
            }
        })
        .await;
        let unpacked = unpacked.unwrap_or_else(|e| Err(e.to_string()));
        unpacked.map_err(|what| failure::init("Runtime.InvalidBundle", what))?;
    }
    let unpack = begun.elapsed();
    if agent.is_warm_runtime.get() && request.kind == Kind::Handler && request.command.is_empty() {
        let description = serde_json::to_vec(request).unwrap_or_default();
        agent.offer.send_replace(Some(description.into()));
    } else {
        launch(agent, request)?;
    }
    match request.kind {
        Kind::Handler => first_event(&mut events).await?,
        Kind::Server => {
            let place = tokio::select! {
                place = server::listening() => place,
                // A server asks for no events, so whatever comes is bad.
                failed = first_event(&mut events) => return failed.and(Err(no_server())),
            };
            agent.server.set(Some(place));
        }
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let start_ms = milliseconds(begun.elapsed() - unpack);
    Ok(InitDone { unpack_ms: milliseconds(unpack), start_ms, code_mounted })
}

/// Whether the gateway's mount is here. Where the agent would unpack, it can write; code that is mounted it cannot.
fn is_mounted() -> bool {
    rustix::fs::statvfs(TASK_ROOT).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn no_server() -> Failure {
    failure::init("Runtime.NoServer", "The program asks for events, but the function is a server".into())
}

async fn first_event(events: &mut mpsc::UnboundedReceiver<StartEvent>) -> Result<(), Failure> {
    match events.recv().await {
        Some(StartEvent::Ready) => Ok(()),
        Some(StartEvent::Failed(failure)) => Err(failure),
        Some(StartEvent::Ended(ended)) => Err(failure::exited_in_init(&ended)),
        None => std::future::pending().await,
    }
}

fn launch(agent: &Rc<Agent>, request: &InitRequest) -> Result<(), Failure> {
    if agent.processes.has_main() {
        // The image's own runtime is not what this function wants; its memory is.
        agent.processes.forget_main();
        agent.is_warm_runtime.set(false);
        process::signal_all(Signal::KILL);
    }
    let image = agent.image.as_ref();
    let command = image.map_or_else(|| command(request), |image| image.command(request));
    let failed = |why: String| {
        let text =
            format!("RequestId:  Error: Couldn't find valid bootstrap(s): {} ({why})", command.join(" "));
        failure::init("Runtime.InvalidEntrypoint", text)
    };
    // Asked first: what the kernel does not know is handed to a shell, which has less to say about it.
    if let Some(why) = foreign(&command) {
        return Err(failed(why));
    }
    let folder = image.map_or(TASK_ROOT, |image| &image.folder);
    if !Path::new(folder).is_dir() {
        return Err(failed(format!("the image's working directory {folder} is not there")));
    }
    let launched = agent.launch(&command, &environment::of_function(request, image), folder);
    launched.map_err(|error| failed(error.to_string()))
}

/// Says so when a program is one for another processor.
fn foreign(command: &[String]) -> Option<String> {
    use std::io::Read as _;
    let mut head = [0; 20];
    File::open(command.first()?).ok()?.read_exact(&mut head).ok()?;
    let machine = elf_machine(&head).filter(|machine| *machine != std::env::consts::ARCH)?;
    Some(format!("it is a program for {machine}, and this machine is {}", std::env::consts::ARCH))
}

/// The processor that an ELF program is for, by the names that Rust has for them (System V ABI, `e_machine`).
fn elf_machine(head: &[u8; 20]) -> Option<&'static str> {
    let number = match (&head[..4], head[5]) {
        (b"\x7fELF", 1) => u16::from_le_bytes([head[18], head[19]]),
        (b"\x7fELF", 2) => u16::from_be_bytes([head[18], head[19]]),
        _ => return None,
    };
    Some(match number {
        3 => "x86",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => "another processor",
    })
}

/// What to run: the function's command, or its `bootstrap`, or the one that the image brings.
fn command(request: &InitRequest) -> Vec<String> {
    let mut command = request.command.clone();
    match command.first_mut() {
        // A path with a folder in it is meant from where the code lies.
        Some(program) if program.contains('/') && !program.starts_with('/') => {
            let plain = program.trim_start_matches("./").to_owned();
            *program = format!("{TASK_ROOT}/{plain}");
            command
        }
        Some(_) => command,
        None => {
            let own = format!("{TASK_ROOT}/bootstrap");
            let image = "/opt/bootstrap";
            vec![if !Path::new(&own).exists() && Path::new(image).exists() { image.into() } else { own }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::request;

    #[test]
    fn the_processor_of_a_program_is_read_from_its_head() {
        let mut head = [0; 20];
        assert_eq!(elf_machine(&head), None);
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 183;
        assert_eq!(elf_machine(&head), Some("aarch64"));
        assert_eq!(foreign(&["/proc/self/exe".into()]), None);
        assert_eq!(foreign(&["/no/such/program".into()]), None);
    }

    #[test]
    fn relative_programs_are_the_functions_own() {
        let with = |command: &[&str]| {
            let command = command.iter().map(|s| s.to_string()).collect();
            super::command(&InitRequest { command, ..request(Kind::Server) })
        };
        assert_eq!(with(&["./bin/server", "-v"]), ["/var/task/bin/server", "-v"]);
        assert_eq!(with(&["bin/server"]), ["/var/task/bin/server"]);
        assert_eq!(with(&["python3", "app.py"]), ["python3", "app.py"]);
        assert_eq!(with(&[]), ["/var/task/bootstrap"]);
    }
}
