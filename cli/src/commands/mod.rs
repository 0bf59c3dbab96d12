//! The commands, one file each. A command is its options and one function that carries it out.

mod alias;
mod apply;
mod canary;
mod completion;
mod dead_letter;
mod delete;
mod deploy;
mod describe;
mod dev;
mod diff;
mod doctor;
mod event;
#[cfg(feature = "server")]
mod images;
mod init;
mod invocation;
mod invoke;
mod list;
mod logs;
mod openapi;
mod promote;
mod queue;
mod rollback;
mod runtimes;
mod schedule;
mod schema;
mod secret;
mod source;
mod token;
mod topic;
mod versions;

use clap::Subcommand;

use crate::context::Globals;
use crate::failure::{Failure, Result};
#[cfg(feature = "server")]
use crate::roles;

/// Every command.
#[derive(Subcommand)]
pub(crate) enum Command {
    Init(init::Init),
    Deploy(deploy::Deploy),
    Apply(apply::Apply),
    Dev(Box<dev::Dev>),
    Invoke(invoke::Invoke),
    Event(event::Event),
    Invocation(invocation::Invocation),
    DeadLetter(dead_letter::DeadLetter),
    Queue(queue::Queue),
    Logs(logs::Logs),
    #[command(visible_alias = "ls")]
    List(list::List),
    Describe(describe::Describe),
    Versions(versions::Versions),
    Alias(alias::Alias),
    Promote(promote::Promote),
    Canary(canary::Canary),
    Rollback(rollback::Rollback),
    Diff(diff::Diff),
    Runtimes(runtimes::Runtimes),
    Schedule(schedule::Schedule),
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    Topic(topic::Topic),
    Secret(secret::Secret),
    Source(source::Source),
    Token(token::Token),
    #[command(visible_alias = "rm")]
    Delete(delete::Delete),
    #[cfg(feature = "server")]
    Up(roles::up::Up),
    #[cfg(feature = "server")]
    Controller(roles::controller::Controller),
    #[cfg(feature = "server")]
    Gateway(roles::gateway::Gateway),
    #[cfg(feature = "server")]
    Migrate(roles::migrate::Migrate),
    #[cfg(feature = "server")]
    Images(images::Images),
    Doctor(doctor::Doctor),
    Completion(completion::Completion),
    #[command(hide = true)]
    Schema(schema::Schema),
}

/// Carries a command out.
pub(crate) fn run(command: Command, globals: Globals) -> Result<()> {
    match command {
        Command::Init(c) => c.run(),
        Command::Event(c) => c.run(),
        Command::Completion(c) => c.run(),
        Command::Schema(c) => c.run(),
        #[cfg(feature = "server")]
        Command::Up(c) => c.run(&globals),
        #[cfg(feature = "server")]
        Command::Controller(c) => c.run(&globals),
        #[cfg(feature = "server")]
        Command::Gateway(c) => c.run(&globals),
        #[cfg(feature = "server")]
        Command::Migrate(c) => c.run(),
        client => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::while_doing("runtime", e))?
            .block_on(run_client(client, &globals)),
    }
}

async fn run_client(command: Command, globals: &Globals) -> Result<()> {
    match command {
        Command::Deploy(c) => c.run(globals).await,
        Command::Apply(c) => c.run(globals).await,
        Command::Dev(c) => c.run(globals).await,
        Command::Invoke(c) => c.run(globals).await,
        Command::Invocation(c) => c.run(globals).await,
        Command::DeadLetter(c) => c.run(globals).await,
        Command::Queue(c) => c.run(globals).await,
        Command::Logs(c) => c.run(globals).await,
        Command::List(c) => c.run(globals).await,
        Command::Describe(c) => c.run(globals).await,
        Command::Versions(c) => c.run(globals).await,
        Command::Alias(c) => c.run(globals).await,
        Command::Promote(c) => c.run(globals).await,
        Command::Canary(c) => c.run(globals).await,
        Command::Rollback(c) => c.run(globals).await,
        Command::Diff(c) => c.run(globals).await,
        Command::Runtimes(c) => c.run(globals).await,
        Command::Schedule(c) => c.run(globals).await,
        Command::OpenApi(c) => c.run(globals).await,
        Command::Topic(c) => c.run(globals).await,
        Command::Secret(c) => c.run(globals).await,
        Command::Source(c) => c.run(globals).await,
        Command::Token(c) => c.run(globals).await,
        Command::Delete(c) => c.run(globals).await,
        Command::Doctor(c) => c.run(globals).await,
        #[cfg(feature = "server")]
        Command::Images(c) => c.run(globals).await,
        // The others have no use for a client's runtime and never come here.
        _ => Ok(()),
    }
}
