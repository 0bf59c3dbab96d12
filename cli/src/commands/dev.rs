//! `davit dev`: a folder's functions in a davit that runs, deployed again whenever a file changes, with their logs and a local port.

mod address;
mod debug;
mod listen;
mod port;
pub(crate) mod session;
mod trial;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clap::Args;
use davit_api::{FunctionName, NamespaceName, QualifiedFunction};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{AbortHandle, JoinSet};

use super::apply::load::{Folder, Given};
use super::invoke::given_json;
use super::logs::{last_line, print_line};
use crate::api::{Api, LogQuery};
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{complain, note, raw};
use debug::{DebugPort, Wanted};
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
  davit dev --debug                  with a port for a debugger: 5678 (debugpy), or 9229 (node inspect)
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
    /// Let a debugger attach, at this port of this machine [default: 5678 for Python, 9229 for Node]
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true)]
    debug: Option<Option<u16>>,
    /// Which function, where there are several
    #[arg(long, value_name = "FUNCTION", requires = "debug")]
    debug_function: Option<FunctionName>,
    /// Hold up the first call after each change until a debugger is attached
    #[arg(long, requires = "debug")]
    debug_wait: bool,
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
        let wanted = self
            .debug
            .map(|port| Wanted::of(&given, &namespace, self.debug_function.as_ref(), port, self.debug_wait));
        let wanted = wanted.transpose()?;
        let mut watch = Watch::start(&given.root);
        let mut session =
            Session::start(globals, namespace.clone(), self.env_file.as_deref(), &given, true).await?;
        if let Some(wanted) = &wanted {
            session.debug(wanted.function.clone(), wanted.settings);
        }
        let listener = listen::bind(self.port, "--port").await?;
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
        let debug = match wanted {
            Some(wanted) => {
                let (port, listener) = DebugPort::listen(wanted, session.api.clone()).await?;
                let address = listener.local_addr().map_err(|e| Failure::while_doing("port", e))?;
                tasks.spawn(port.clone().serve(listener));
                note(format!("{}: attach a debugger at {address}", port.function()));
                Some(port)
            }
            None => None,
        };
        let (followed, calls) = Default::default();
        let mut work = Work { dev: &self, events, port, debug, tasks, followed, calls };
        let mut end = End::listen()?;
        let ended = tokio::select! {
            ended = work.go_on(&mut session, given, &mut watch, address) => ended,
            () = end.wanted() => Ok(()),
        };
        work.tasks.abort_all();
        if self.keep {
            return ended;
        }
        note("removing what was made for it");
        let namespace = session.api.namespace().clone();
        tokio::select! {
            removed = session.end() => ended.and(removed),
            // Whoever asks twice does not want to wait for a davit that does not answer.
            () = end.wanted() => Err(Failure::Failed(format!(
                "not everything was removed; davit list -n {namespace} shows what is there"
            ))),
        }
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

/// The user's wish that it ends: Ctrl-C, or a polite kill.
struct End {
    asked: Signal,
    told: Signal,
}

impl End {
    fn listen() -> Result<Self> {
        let of = |kind| signal(kind).map_err(|e| Failure::while_doing("signals", e));
        Ok(Self { asked: of(SignalKind::interrupt())?, told: of(SignalKind::terminate())? })
    }

    async fn wanted(&mut self) {
        tokio::select! {
            _ = self.asked.recv() => {}
            _ = self.told.recv() => {}
        }
    }
}

struct Work<'a> {
    dev: &'a Dev,
    events: Vec<(FunctionName, Vec<u8>)>,
    port: Arc<Port>,
    debug: Option<Arc<DebugPort>>,
    tasks: JoinSet<()>,
    /// Functions whose logs are shown.
    followed: BTreeSet<FunctionName>,
    /// Calls with the events of a function, which its next change ends.
    calls: BTreeMap<FunctionName, AbortHandle>,
}

impl Work<'_> {
    /// Deploys, and deploys again, for as long as it is polled.
    async fn go_on(
        &mut self,
        session: &mut Session,
        given: Given,
        watch: &mut Watch,
        address: SocketAddr,
    ) -> Result<()> {
        session.set_secrets(&given).await?;
        self.look(session, &given).await;
        self.explain(&given, address);
        loop {
            watch.changed().await;
            match Given::read(&self.dev.folder) {
                Ok(given) => {
                    if let Err(failure) = session.set_secrets(&given).await {
                        complain(&failure);
                    }
                    self.look(session, &given).await;
                }
                // What ran goes on until it is mended.
                Err(failure) => complain(&failure),
            }
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
        if let Some(debug) = &self.debug {
            debug.replaced(name);
        }
        if self.followed.insert(name.clone()) {
            let about = if several { format!("{name} ") } else { String::new() };
            self.tasks.spawn(follow(session.api.clone(), name.clone(), since.unwrap_or(0), about));
        }
        self.call(&session.api, name);
        Ok(())
    }

    /// Calls a function with its events, beside everything else: one that hangs, or stands at a breakpoint, must not hold up the next
    /// change, which ends it.
    fn call(&mut self, api: &Api, name: &FunctionName) {
        if let Some(before) = self.calls.remove(name) {
            before.abort();
        }
        // What has ended is taken out, so that there are never more than one a function.
        while self.tasks.try_join_next().is_some() {}
        let events = self.events.iter().filter(|(whose, _)| whose == name);
        let events: Vec<Vec<u8>> = events.map(|(_, event)| event.clone()).collect();
        if events.is_empty() {
            return;
        }
        let api = api.clone();
        let which = QualifiedFunction { function: name.clone(), qualifier: None };
        let calls = self.tasks.spawn(async move {
            for event in events {
                match api.invoke(&which, event).await {
                    Ok((_, mut answer)) => {
                        answer.push(b'\n');
                        raw(&answer);
                    }
                    Err((_, failure)) => complain(&failure),
                }
            }
        });
        self.calls.insert(name.clone(), calls);
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
