//! `davit controller`: the control plane by itself, on a Postgres that others use too.

use std::net::SocketAddr;

use clap::Args;
use davit_daemon::Drain;

use super::Log;
use super::engine::BackendArgs;
use super::parts::{self, Opened};
use super::process::bind;
use super::state::State;
use crate::context::Globals;
use crate::failure::Result;
use crate::output::line;

/// Run the control plane: management API, builds, containers
#[derive(Args)]
#[command(after_help = "\
Example:
  DATABASE_URL=postgres://davit@db/davit davit controller --gateway-url https://fn.example.com

  davit controller --backend kubernetes --kubernetes-config /etc/davit/kubernetes.json

On Docker it runs on the same machine and with the same state directory as its gateways. Any number
may run there, each with addresses of its own: all answer the management API, one acts, and another
takes over about ten seconds after it was killed, or within three when it ends in order.")]
pub(crate) struct Controller {
    /// Address of the management API
    #[arg(long, env = "DAVIT_MANAGEMENT", default_value = "127.0.0.1:7481", value_name = "ADDR")]
    management: SocketAddr,
    /// Address for health, readiness, metrics and status; not authenticated, so keep it private
    #[arg(long, env = "DAVIT_ADMIN", default_value = "127.0.0.1:7483", value_name = "ADDR")]
    admin: SocketAddr,
    /// The registry's Postgres
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Controller {
    pub(crate) fn run(self, globals: &Globals) -> Result<()> {
        super::run(&self.log, self.serve(globals))
    }

    async fn serve(&self, globals: &Globals) -> Result<()> {
        let addresses =
            async { Ok((bind("management", self.management).await?, bind("admin", self.admin).await?)) };
        let which = self.backend.which()?;
        let take = || State::share(&globals.state_dir(), "controller");
        let opened = parts::open(take, &self.database_url, addresses).await?;
        let Opened { settings, mut process, state, store, addresses } = opened;
        let ((management, management_at), (admin, _)) = addresses;
        state.first_token(&store.registry, settings.admin_token.as_deref()).await?;
        let gateway_url = globals.gateway_url.clone().unwrap_or_else(|| "http://127.0.0.1:7480".into());
        let mut control = parts::control_plane(
            management,
            gateway_url,
            state.dir(),
            &store,
            &settings,
            &which,
            &process.tasks,
        )
        .await?;
        process.serve_admin(admin, control.show(settings.admin(&process)));
        line(format!("management  http://{management_at}"));

        let stop = process.stop().await;
        let unready = process.readiness.latch("stopping");
        let tasks = process.tasks.clone();
        let work = async {
            let mut drain = Drain::within(settings.drain);
            drain.step("management API", control.close()).await;
            parts::stop_tasks(&mut drain, &tasks).await;
            // Containers stay: their gateways use them, and the next controller finds them by label.
            drain.step("registry", store.registry.close()).await;
            drain.finish()
        };
        let outcome = process.drain(work, stop).await;
        drop(unready);
        outcome
    }
}
