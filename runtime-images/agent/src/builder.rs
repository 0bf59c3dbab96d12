//! The agent of a builder: takes files, runs the image's build program once, gives files back. Only where the engine cannot
//! carry them itself.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use davit_link::frame::{Frame, FrameKind};
use davit_link::{BuildOrder, Built};
use tokio::sync::mpsc;

use crate::agent::{Agent, StartEvent};
use crate::logs::Finish;
use crate::process::Ended;
use crate::{environment, failure, link};

/// The setting that makes an agent a builder's.
pub(crate) const SETTING: &str = "DAVIT_BUILDER";
/// The program, as every image that builds has it.
const PROGRAM: &str = "/opt/davit/build";
/// Where files come and go; the build program's contract is in `runtime-images/base/build-lib.sh`.
const FOLDER: &str = "/davit";

/// Until the controller hangs up.
pub(crate) async fn run(agent: &Rc<Agent>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{FOLDER}: {error}");
    fs::create_dir_all(Path::new(FOLDER).join("out")).map_err(failed)?;
    let mut inbox = link::accept(agent).await?;
    let (sender, mut events) = mpsc::unbounded_channel();
    *agent.starting.borrow_mut() = Some(sender);
    let mut coming: HashMap<u32, File> = HashMap::new();
    loop {
        let frame = tokio::select! {
            next = inbox.next() => match next {
                Ok(Some((frame, _))) => frame,
                Ok(None) => return Ok(()),
                Err(error) => return Err(format!("link: {error}")),
            },
            Some(event) = events.recv() => {
                if let StartEvent::Ended(ended) = event {
                    agent.drain_logs(Finish::Yes);
                    agent.send(agent.json_frame(FrameKind::Built, 0, &built(&ended)));
                }
                continue;
            }
        };
        let stream = frame.stream;
        match frame.kind {
            FrameKind::Put => {
                let path = inside(&frame)?;
                coming.insert(stream, File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?);
            }
            FrameKind::Data => {
                let file = coming.get_mut(&stream).ok_or("data for no file")?;
                file.write_all(&frame.body).map_err(failed)?;
            }
            FrameKind::End => drop(coming.remove(&stream)),
            FrameKind::Build => {
                let order: BuildOrder = link::parse(&frame)?;
                let mut env = environment::image();
                env.extend(order.env);
                if let Err(error) = agent.launch(&[PROGRAM.to_owned()], &env, FOLDER) {
                    refuse(agent, stream, &format!("{PROGRAM}: {error}"));
                }
            }
            FrameKind::Get => {
                match inside(&frame).and_then(|path| File::open(path).map_err(|e| e.to_string())) {
                    Ok(file) => {
                        if let Some(outbox) = agent.outbox.get().cloned() {
                            tokio::task::spawn_local(async move { outbox.send_file(stream, file).await });
                        }
                    }
                    Err(why) => refuse(agent, stream, &why),
                }
            }
            other => return Err(format!("a controller does not send {other:?}")),
        }
    }
}

fn refuse(agent: &Agent, stream: u32, why: &str) {
    agent.send(agent.json_frame(FrameKind::Failed, stream, &failure::bad_response(why)));
}

/// A file of the builder's folder, or one folder below it.
fn inside(frame: &Frame) -> Result<PathBuf, String> {
    let name = std::str::from_utf8(&frame.body).map_err(|_| "a name is no text")?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if name.split('/').count() > 2 || !name.split('/').all(plain) {
        return Err(format!("{name:?} is no file of a builder"));
    }
    Ok(Path::new(FOLDER).join(name))
}

/// As a shell says it.
fn built(ended: &Ended) -> Built {
    let exit_code = ended.code.or(ended.signal.map(|signal| 128 + signal)).unwrap_or(-1);
    Built { exit_code, out_of_memory: ended.out_of_memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_a_file_of_the_folder_and_nowhere_else() {
        let of = |name: &str| {
            inside(&Frame { kind: FrameKind::Get, stream: 1, body: name.as_bytes().to_vec().into() })
        };
        assert_eq!(of("source.tar").unwrap(), Path::new("/davit/source.tar"));
        assert_eq!(of("out/bundle.tar").unwrap(), Path::new("/davit/out/bundle.tar"));
        for bad in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/b/c", ".x", "a\0"] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_end_by_a_signal_is_told_as_a_shell_would() {
        let ended = |code, signal| built(&Ended { code, signal, out_of_memory: false }).exit_code;
        assert_eq!((ended(Some(3), None), ended(None, Some(9)), ended(None, None)), (3, 137, -1));
    }
}
