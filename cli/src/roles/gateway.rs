//! `davit gateway`: the data plane by itself, on a Postgres that others use too.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use davit_daemon::Drain;
use davit_gateway::config::PeersPort;

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
    /// Address where other gateways pass calls on to this one; only gateways speak there, and prove it
    #[arg(long, env = "DAVIT_PEERS", default_value = "127.0.0.1:0", value_name = "ADDR")]
    peers: SocketAddr,
    /// What other gateways reach that by, when it is not the same
    #[arg(long, env = "DAVIT_PEERS_ADDRESS", value_name = "ADDR")]
    peers_address: Option<SocketAddr>,
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
        let peers = PeersPort { listen: self.peers, advertised: self.peers_address };
        let url = self.public_url.clone();
        let gateway = parts::data_plane(self.public, url, Some(peers), &state, &store, &settings).await?;
        let gateway = gateway.spawn(process.readiness.latch("routes"));
        process.serve_admin(admin, parts::show_gateway(settings.admin(&process), gateway.admin()));
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
