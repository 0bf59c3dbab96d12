//! The debugger's port: whatever connects to it on this machine is joined, by way of the gateway, to the debugger of the function's
//! runtime. What passes is not looked at.

use std::sync::Arc;
use std::time::Duration;

use davit_api::{DebugSettings, FunctionName, NamespaceName};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::listen;
use super::trial::Trial;
use crate::api::Api;
use crate::commands::apply::load::Given;
use crate::failure::{Failure, Result};
use crate::output::{complain, note};

/// How long whoever comes early waits for the first version.
const EARLY: Duration = Duration::from_secs(120);
/// Connections at a time; the gateway carries no more to one instance.
const CONNECTIONS: usize = 8;

/// What is debugged, as the command line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) function: FunctionName,
    pub(super) settings: DebugSettings,
    /// The port on this machine; 0 takes a free one.
    pub(super) port: u16,
}

impl Wanted {
    /// The function that is named, or the only one; `port` none is the debugger's usual one. An error says why it cannot be.
    pub(super) fn of(
        given: &Given,
        namespace: &NamespaceName,
        named: Option<&FunctionName>,
        port: Option<u16>,
        wait: bool,
    ) -> Result<Self> {
        let folder = match named {
            Some(name) => given.functions.get(name),
            None if given.functions.len() > 1 => {
                let names: Vec<&str> = given.functions.keys().map(FunctionName::as_str).collect();
                let text =
                    format!("--debug: say which with --debug-function; there is: {}", names.join(", "));
                return Err(Failure::Usage(text));
            }
            None => given.functions.values().next(),
        };
        let folder = folder.ok_or_else(|| {
            let name = named.map_or_else(String::new, |name| format!(" {name}"));
            Failure::Usage(format!("--debug: there is no function{name} here"))
        })?;
        let settings = DebugSettings { wait };
        // The rules are the API's; asked here, before anything is deployed.
        let trial = Trial::of(&folder.manifest, namespace, &Default::default(), Some(settings));
        let spec = trial.map_err(Failure::Usage)?.spec;
        let usual = spec.runtime.debugger_port();
        let function = folder.manifest.name.clone();
        spec.check().map_err(|error| Failure::Usage(format!("{function}: {error}")))?;
        Ok(Self { function, settings, port: port.or(usual).unwrap_or_default() })
    }
}

/// The port, and who is told when the function is another one.
pub(super) struct DebugPort {
    wanted: Wanted,
    api: Api,
    /// How often it was deployed.
    deployed: watch::Sender<u64>,
}

impl DebugPort {
    /// Binds it.
    pub(super) async fn listen(wanted: Wanted, api: Api) -> Result<(Arc<Self>, TcpListener)> {
        let listener = listen::bind(wanted.port, "--debug=PORT").await?;
        let deployed = watch::Sender::new(0);
        Ok((Arc::new(Self { wanted, api, deployed }), listener))
    }

    /// The function that is debugged.
    pub(super) fn function(&self) -> &FunctionName {
        &self.wanted.function
    }

    /// A version has taken the place of the one that is debugged: debuggers are let go, so that what they hold up there goes on, and
    /// find the new one when they come again.
    pub(super) fn replaced(&self, function: &FunctionName) {
        if *function == self.wanted.function {
            self.deployed.send_modify(|times| *times += 1);
        }
    }

    /// Serves for as long as it is polled.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let carry = |client| {
            let port = self.clone();
            async move { port.carry(client).await }
        };
        listen::serve(listener, CONNECTIONS, carry).await;
    }

    async fn carry(&self, mut client: TcpStream) {
        let name = &self.wanted.function;
        let mut replaced = self.deployed.subscribe();
        let built = async { replaced.wait_for(|times| *times > 0).await.is_ok() };
        if !tokio::time::timeout(EARLY, built).await.is_ok_and(|built| built) {
            return note(format!("the debugger of {name} is let go: no version of it is built"));
        }
        let mut debugger = match self.api.debugger(name).await {
            Ok(debugger) => debugger,
            Err(failure) => return complain(&failure.at(format!("debugger of {name}"))),
        };
        tokio::select! {
            // An end is an end, whoever made it.
            _ = copy_bidirectional(&mut client, &mut debugger) => {}
            _ = replaced.changed() => note(format!("the debugger of {name} is let go: there is another version")),
        }
        let _ = tokio::join!(client.shutdown(), debugger.shutdown());
    }
}
