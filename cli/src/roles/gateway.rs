//! `davit gateway`: the data plane by itself, on a Postgres that others use too.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use davit_controller::http::Admin;
use davit_daemon::Drain;

use super::Log;
use super::parts::{self, Opened};
use super::process::bind;
use super::state::State;
use crate::context::Globals;
use crate::failure::Result;
use crate::output::line;

/// Run the data plane: function addresses, invoke API, cron and queue
#[derive(Args)]
#[command(after_help = "\
Example:
  DATABASE_URL=postgres://davit@db/davit davit gateway --public 0.0.0.0:7480 --public-url https://fn.example.com

Any number may run; they share the work. On Docker each runs on the same machine and with the same
state directory as its controller, because it reaches function containers through Unix sockets there.")]
pub(crate) struct Gateway {
    /// Address where functions are called
    #[arg(long, env = "DAVIT_PUBLIC", default_value = "127.0.0.1:7480", value_name = "ADDR")]
    public: SocketAddr,
    /// Address for health, readiness, metrics and status; not authenticated, so keep it private
    #[arg(long, env = "DAVIT_ADMIN", default_value = "127.0.0.1:7482", value_name = "ADDR")]
    admin: SocketAddr,
    /// What clients call this gateway, when that is not its address
    #[arg(long, env = "DAVIT_PUBLIC_URL", value_name = "URL")]
    public_url: Option<String>,
    /// The registry's Postgres
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    #[command(flatten)]
    log: Log,
}

impl Gateway {
    pub(crate) fn run(self, globals: &Globals) -> Result<()> {
        super::run(&self.log, self.serve(globals))
    }

    async fn serve(&self, globals: &Globals) -> Result<()> {
        let take = || State::share(&globals.state_dir(), "gateway");
        let opened = parts::open(take, &self.database_url, bind("admin", self.admin)).await?;
        let Opened { settings, mut process, state, store, addresses: (admin, _) } = opened;
        let gateway =
            parts::data_plane(self.public, self.public_url.clone(), &state, &store, &settings).await?;
        let gateway = gateway.spawn(process.readiness.latch("routes"));
        process
            .serve_admin(admin, parts::show_gateway(Admin::new(process.readiness.clone()), gateway.admin()));
        line(format!("functions   http://{}", gateway.address()));

        let stop = process.stop().await;
        let unready = process.readiness.latch("stopping");
        let tasks = process.tasks.clone();
        let work = async {
            let mut drain = Drain::within(settings.drain);
            let calls = drain.left().saturating_sub(Duration::from_secs(5));
            drain.step("gateway", gateway.drain(calls)).await;
            parts::stop_tasks(&mut drain, &tasks).await;
            drain.step("registry", store.registry.close()).await;
            drain.finish()
        };
        let outcome = process.drain(work, stop).await;
        drop(unready);
        outcome
    }
}
