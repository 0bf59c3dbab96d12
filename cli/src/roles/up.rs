//! `davit up`: a whole davit in one process, with a Postgres of its own.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use davit_daemon::{Drain, Tasks};
use davit_gateway::Gateway;
use davit_registry::embedded::Postgres;
use tokio::net::TcpListener;

use super::Log;
use super::engine::{BackendArgs, Which};
use super::parts::{self, ControlPlane, PartSettings, Store};
use super::process::{Process, bind};
use super::state::State;
use crate::context::{Endpoint, Globals};
use crate::failure::{Failure, Result};
use crate::output::line;

/// Run a whole davit in this process, with a Postgres of its own
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit up
  davit up --public 0.0.0.0:80 --public-url https://fn.example.com
  davit up --state-dir /tmp/d --public 127.0.0.1:0 --management 127.0.0.1:0 --admin 127.0.0.1:0

It writes into its state directory where it listens (endpoint.json) and the first administrator's
token (token), so that other davit commands on this machine find both. SIGTERM and SIGINT end it
in order; a second one ends it at once, which is safe.")]
pub(crate) struct Up {
    /// Address of the gateway: where functions are called
    #[arg(long, env = "DAVIT_PUBLIC", default_value = "127.0.0.1:7480", value_name = "ADDR")]
    public: SocketAddr,
    /// Address of the management API
    #[arg(long, env = "DAVIT_MANAGEMENT", default_value = "127.0.0.1:7481", value_name = "ADDR")]
    management: SocketAddr,
    /// Address for health, readiness, metrics and status; not authenticated, so keep it private
    #[arg(long, env = "DAVIT_ADMIN", default_value = "127.0.0.1:7482", value_name = "ADDR")]
    admin: SocketAddr,
    /// What clients call the gateway, when that is not its address
    #[arg(long, env = "DAVIT_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// A Postgres to use instead of an own one
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    log: Log,
}

impl Up {
    pub(crate) fn run(self, globals: &Globals) -> Result<()> {
        super::run(&self.log, self.serve(globals))
    }

    async fn serve(&self, globals: &Globals) -> Result<()> {
        let mut settings = PartSettings::read()?;
        let which = self.backend.which()?;
        if matches!(which, Which::Kubernetes(..)) {
            // Pods are on other machines: nothing that is mounted here reaches them.
            settings.share_code = false;
        }
        let mut process = Process::new()?;
        let (tasks, readiness) = (process.tasks.clone(), process.readiness.clone());
        let Built { state, postgres, store, gateway, mut control, admin, endpoint } =
            process.start(self.build(globals, &settings, &which, &tasks)).await?;

        let gateway = gateway.spawn(readiness.latch("routes"));
        process
            .serve_admin(admin, parts::show_gateway(control.show(settings.admin(&process)), gateway.admin()));
        state.write_endpoint(&endpoint)?;
        line(format!("functions   {}", endpoint.gateway_url));
        line(format!("management  {}", endpoint.management_url));
        line(format!("admin       {}", endpoint.admin_url));
        line(format!("token       {}", state.token_file().display()));

        let stop = process.stop().await;
        let unready = readiness.latch("stopping");
        let work = async {
            let mut drain = Drain::within(settings.drain);
            state.remove_endpoint();
            drain.step("management API", control.close()).await;
            let calls = drain.left().saturating_sub(Duration::from_secs(10));
            drain.step("gateway", gateway.drain(calls)).await;
            drain
                .step("containers", tokio::time::timeout(Duration::from_secs(5), control.until_empty()))
                .await;
            parts::stop_tasks(&mut drain, &tasks).await;
            drain.step("container engine", control.uninstall()).await;
            drain.step("registry", store.registry.close()).await;
            if let Some(postgres) = postgres {
                drain.step("Postgres", postgres.stop()).await;
            }
            drain.finish()
        };
        let outcome = process.drain(work, stop).await;
        drop(unready);
        outcome
    }

    /// Binds and connects everything; nothing answers yet but the management API.
    async fn build(
        &self,
        globals: &Globals,
        settings: &PartSettings,
        which: &Which,
        tasks: &Tasks,
    ) -> Result<Built> {
        let state = State::own(&globals.state_dir(), "up")?;
        // Addresses first: one that is taken should not cost the start of a database.
        let (management, management_at) = bind("management", self.management).await?;
        let (admin, admin_at) = bind("admin", self.admin).await?;
        let postgres = match &self.database_url {
            Some(_) => None,
            None => {
                Some(Postgres::start(state.dir()).await.map_err(|e| Failure::while_doing("Postgres", e))?)
            }
        };
        let url = postgres.as_ref().map(Postgres::url).or(self.database_url.as_deref()).unwrap_or_default();
        let store = parts::store(url, state.dir(), settings).await?;
        state.first_token(&store.registry, settings.admin_token.as_deref()).await?;
        let gateway =
            parts::data_plane(self.public, self.public_url.clone(), None, &state, &store, settings).await?;
        let gateway_url = self.public_url.clone().unwrap_or_else(|| format!("http://{}", gateway.address()));
        let control = parts::control_plane(
            management,
            gateway_url.clone(),
            state.dir(),
            &store,
            settings,
            which,
            tasks,
        )
        .await?;
        let installation =
            store.registry.installation().await.map_err(|e| Failure::while_doing("registry", e))?;
        let endpoint = Endpoint {
            installation: installation.to_string(),
            management_url: format!("http://{management_at}"),
            gateway_url,
            admin_url: format!("http://{admin_at}"),
            pid: std::process::id(),
        };
        Ok(Built { state, postgres, store, gateway, control, admin, endpoint })
    }
}

/// Everything that is bound and connected. Fields are dropped in this order: what uses the database goes
/// before it.
struct Built {
    gateway: Gateway,
    control: ControlPlane,
    admin: TcpListener,
    store: Store,
    postgres: Option<Postgres>,
    endpoint: Endpoint,
    state: State,
}
