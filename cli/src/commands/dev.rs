//! `davit dev`: a folder's functions in a davit that runs, deployed again whenever a file changes, with their logs and a local port.

mod address;
mod port;
pub(crate) mod session;
mod trial;
mod watch;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clap::Args;
use davit_api::{FunctionName, NamespaceName, QualifiedFunction};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::apply::load::{Folder, Given};
use super::invoke::given_json;
use super::logs::{last_line, print_line};
use crate::api::{Api, LogQuery};
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{complain, note, raw};
use port::Port;
use session::{NAMESPACE, Outcome, Session};
use watch::Watch;

/// Run a folder's functions while you work on them: every change is live in a moment
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit dev                          the function in this folder, or all below it
  davit dev examples/shop --port 9000
  davit dev --event event.json       and calls it with this event after every change
  curl localhost:8000/               while it runs
  davit event s3 | curl -d @- localhost:8000/_davit/events/hello
  curl -X POST localhost:8000/_davit/schedules/hello/nightly
  curl -d '{\"total\": 12}' 'localhost:8000/_davit/topics/orders?type=order.created'

It needs a davit that runs (`davit up`), and deploys to the namespace `dev` of it, in the same
images and by the same way as a deployment. Schedules do not ring by themselves there. Values of
secrets come from .env beside the functions. At the end, what it made is removed.")]
pub(crate) struct Dev {
    /// A function's folder, or one with several, or with a davit.project.toml
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Port on this machine
    #[arg(short, long, default_value_t = 8000)]
    port: u16,
    /// Call a function with this event after every change of it; needs no name where there is one function
    #[arg(long, value_name = "[FUNCTION=]FILE")]
    event: Vec<String>,
    /// NAME=value lines: values of secrets and of variables that davit.toml names [default: .env, if there is one]
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Leave the functions there at the end
    #[arg(long)]
    keep: bool,
}

impl Dev {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let given = Given::read(&self.folder)?;
        let events = self.events(&given)?;
        let namespace = match &globals.namespace {
            Some(name) => name.clone(),
            None => NAMESPACE.parse::<NamespaceName>().map_err(|e| Failure::Failed(e.to_string()))?,
        };
        let mut watch = Watch::start(&given.root);
        let mut session =
            Session::start(globals, namespace.clone(), self.env_file.as_deref(), &given, true).await?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener = Port::listen(address).await?;
        let address = listener.local_addr().map_err(|e| Failure::while_doing("port", e))?;
        let port = Arc::new(Port {
            namespace,
            token: session.api.token().map(str::to_owned),
            gateway: authority(session.api.gateway()?.base())?,
            management: authority(session.api.management().base())?,
            functions: RwLock::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(port.clone().serve(listener));
        let mut work = Work { dev: &self, events, port, tasks, followed: BTreeSet::new() };
        let ended = work.go_on(&mut session, given, &mut watch, address).await;
        work.tasks.abort_all();
        if self.keep {
            return ended;
        }
        note("removing what was made for it");
        ended.and(session.end().await)
    }

    /// What is called after each change.
    fn events(&self, given: &Given) -> Result<Vec<(FunctionName, Vec<u8>)>> {
        let mut events = Vec::new();
        for text in &self.event {
            let (name, file) = match text.split_once('=') {
                Some((name, file)) => {
                    let name = name.parse::<FunctionName>();
                    let name = name.map_err(|e| Failure::Usage(format!("--event {text}: {e}")))?;
                    (name, file)
                }
                None => match given.functions.keys().next().filter(|_| given.functions.len() == 1) {
                    Some(only) => (only.clone(), text.as_str()),
                    None => {
                        return Err(Failure::Usage(format!(
                            "--event {text}: say whose it is: FUNCTION={text}"
                        )));
                    }
                },
            };
            if !given.functions.contains_key(&name) {
                return Err(Failure::Usage(format!("--event {text}: there is no function {name} here")));
            }
            events.push((name, given_json(Some(&format!("@{file}")))?));
        }
        Ok(events)
    }
}

/// Host and port of an address. The local port passes bytes on as they are, so it cannot be one that speaks TLS.
fn authority(base: &str) -> Result<String> {
    let plain = base.strip_prefix("http://").filter(|rest| !rest.contains('/'));
    let plain = plain.ok_or_else(|| {
        Failure::Usage(format!(
            "{base} does not speak plain HTTP, which davit dev needs; run a `davit up` here"
        ))
    })?;
    let has_port = plain.rsplit(':').next().is_some_and(|last| last.parse::<u16>().is_ok());
    Ok(if has_port { plain.to_owned() } else { format!("{plain}:80") })
}

struct Work<'a> {
    dev: &'a Dev,
    events: Vec<(FunctionName, Vec<u8>)>,
    port: Arc<Port>,
    tasks: JoinSet<()>,
    /// Functions whose logs are shown.
    followed: BTreeSet<FunctionName>,
}

impl Work<'_> {
    /// Deploys, and deploys again, until somebody ends it.
    async fn go_on(
        &mut self,
        session: &mut Session,
        given: Given,
        watch: &mut Watch,
        address: SocketAddr,
    ) -> Result<()> {
        let failed = |e| Failure::while_doing("signals", e);
        let mut asked = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut told = signal(SignalKind::terminate()).map_err(failed)?;
        let work = async {
            session.set_secrets(&given).await?;
            self.look(session, &given).await;
            self.explain(&given, address);
            loop {
                watch.changed().await;
                match Given::read(&self.dev.folder) {
                    Ok(given) => self.look(session, &given).await,
                    // What ran goes on until it is mended.
                    Err(failure) => complain(&failure),
                }
            }
        };
        tokio::select! {
            done = work => done,
            _ = asked.recv() => Ok(()),
            _ = told.recv() => Ok(()),
        }
    }

    /// Deploys what has changed.
    async fn look(&mut self, session: &mut Session, given: &Given) {
        for name in session.gone(&given.functions) {
            match session.forget(&name).await {
                Ok(()) => note(format!("{name} is removed")),
                Err(failure) => complain(&failure),
            }
        }
        let several = given.functions.len() > 1;
        for (name, folder) in &given.functions {
            if let Err(failure) = self.deploy(session, name, folder, several).await {
                complain(&failure);
            }
            let mut functions = self.port.functions.write().unwrap_or_else(PoisonError::into_inner);
            *functions = session.locals();
        }
    }

    async fn deploy(
        &mut self,
        session: &mut Session,
        name: &FunctionName,
        folder: &Folder,
        several: bool,
    ) -> Result<()> {
        let since = if self.followed.contains(name) { None } else { last_line(&session.api, name).await? };
        let Outcome::Deployed(version, took) = session.look_at(folder).await? else { return Ok(()) };
        note(format!("✓ {name}: version {} in {} ms", version.number, took.as_millis()));
        if self.followed.insert(name.clone()) {
            let about = if several { format!("{name} ") } else { String::new() };
            self.tasks.spawn(follow(session.api.clone(), name.clone(), since.unwrap_or(0), about));
        }
        for (_, event) in self.events.iter().filter(|(whose, _)| whose == name) {
            let which = QualifiedFunction { function: name.clone(), qualifier: None };
            match session.api.invoke(&which, event.clone()).await {
                Ok((_, mut answer)) => {
                    answer.push(b'\n');
                    raw(&answer);
                }
                Err((_, failure)) => complain(&failure),
            }
        }
        Ok(())
    }

    fn explain(&self, given: &Given, address: SocketAddr) {
        note(format!("listening on http://{address}; namespace {}; Ctrl-C ends it", self.port.namespace));
        for (name, folder) in &given.functions {
            if given.functions.len() > 1 {
                note(format!("  {name}: http://{address}/{name}"));
            }
            for route in &folder.manifest.routes {
                note(format!("  {name}: {} http://{address}{}", route.method, route.path));
            }
            for schedule in &folder.manifest.schedules {
                note(format!(
                    "  let {} come due: curl -X POST {address}/_davit/schedules/{name}/{}",
                    schedule.name, schedule.name
                ));
            }
            for one in &folder.manifest.subscriptions {
                note(format!(
                    "  publish to {}: curl -d '{{}}' {address}/_davit/topics/{}",
                    one.topic, one.topic
                ));
            }
        }
        if let Some(name) = given.functions.keys().next() {
            note(format!("  an event: davit event s3 | curl -d @- {address}/_davit/events/{name}"));
        }
    }
}

/// Shows what a function prints, from a line on.
async fn follow(api: Api, name: FunctionName, mut cursor: i64, about: String) {
    loop {
        let query =
            LogQuery { after: Some(cursor), limit: Some(1000), wait: Some(20), ..LogQuery::default() };
        match api.logs(&name, &query).await {
            Ok(lines) => {
                for line in &lines {
                    print_line(line, &about, false);
                }
                cursor = lines.last().map_or(cursor, |line| line.cursor);
                // The server waits by itself; this bounds one that answers at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // While davit restarts, or the function's folder is away.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
