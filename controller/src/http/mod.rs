//! The management API, and what every request to it passes: a request id, a time limit, authentication,
//! authorisation, and, for writes, a task of its own and an audit entry. All routes stand in `ROUTES`.

mod admin;
mod aliases;
mod artifacts;
mod audit;
mod courtesy;
mod dead_letters;
mod error;
mod exports;
mod extract;
mod functions;
mod guard;
mod info;
mod instances;
mod invocations;
mod logs;
mod namespaces;
mod openapi;
mod poll;
mod projects;
mod retention;
mod rollback;
mod runtimes;
mod schedules;
mod secrets;
mod sources;
mod state;
mod tokens;
mod topics;
mod unfinished;
mod versions;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::MethodRouter;
use davit_api::Role;

use crate::auth::Reach;
pub use admin::{Admin, admin_router};
pub use openapi::document;
pub use state::{ApiSettings, ApiState};

/// One route and who may use it.
pub(crate) struct Route {
    pub(crate) verb: &'static str,
    pub(crate) path: &'static str,
    /// Its name in the audit log and the access log.
    pub(crate) name: &'static str,
    /// The least role.
    pub(crate) role: Role,
    pub(crate) reach: Reach,
    handler: fn() -> MethodRouter<ApiState>,
}

impl Route {
    /// Whether it changes anything: writes run in their own task and are audited.
    pub(crate) fn writes(&self) -> bool {
        self.verb != "get" && !matches!(self.name, "schedules.preview" | "secrets.compare")
    }
}

macro_rules! routes {
    ($($verb:ident $path:literal $name:literal $role:ident $reach:ident $handler:path;)*) => {
        /// Every route of the management API, and who may use it: the least role, and how far it reaches.
        pub(crate) static ROUTES: &[Route] = &[$(Route {
            verb: stringify!($verb),
            path: $path,
            name: $name,
            role: Role::$role,
            reach: Reach::$reach,
            handler: || axum::routing::$verb($handler),
        },)*];
    };
}

routes! {
    get "/v1/info" "info" Read Own info::show;
    get "/v1/namespaces" "namespaces.list" Read Own namespaces::list;
    post "/v1/namespaces" "namespaces.create" Admin Installation namespaces::create;

    get "/v1/namespaces/{ns}/functions" "functions.list" Read Namespace functions::list;
    get "/v1/namespaces/{ns}/functions/{fn}" "functions.get" Read Namespace functions::get;
    delete "/v1/namespaces/{ns}/functions/{fn}" "functions.delete" Deploy Namespace functions::delete;
    get "/v1/namespaces/{ns}/openapi.json" "functions.openapi" Read Namespace exports::show;

    get "/v1/namespaces/{ns}/artifacts/{digest}" "artifacts.received" Deploy Namespace artifacts::received;
    put "/v1/namespaces/{ns}/artifacts/{digest}" "artifacts.put" Deploy Namespace artifacts::put;
    get "/v1/namespaces/{ns}/functions/{fn}/versions" "versions.list" Read Namespace versions::list;
    post "/v1/namespaces/{ns}/functions/{fn}/versions" "versions.create" Deploy Namespace versions::create;
    get "/v1/namespaces/{ns}/functions/{fn}/versions/{n}" "versions.get" Read Namespace versions::get;
    delete "/v1/namespaces/{ns}/functions/{fn}/versions/{n}" "versions.delete" Deploy Namespace versions::remove;
    post "/v1/namespaces/{ns}/functions/{fn}/versions/{n}/cancel" "versions.cancel" Deploy Namespace versions::cancel;
    get "/v1/namespaces/{ns}/functions/{fn}/versions/{n}/events" "versions.events" Read Namespace versions::events;
    post "/v1/namespaces/{ns}/functions/{fn}/rollback" "versions.rollback" Deploy Namespace rollback::rollback;
    post "/v1/namespaces/{ns}/functions/{fn}/upgrade" "versions.upgrade" Deploy Namespace runtimes::upgrade;
    post "/v1/namespaces/{ns}/functions/{fn}/promote" "versions.promote" Deploy Namespace aliases::promote;
    get "/v1/namespaces/{ns}/functions/{fn}/diff" "versions.diff" Read Namespace versions::diff;
    get "/v1/namespaces/{ns}/functions/{fn}/aliases" "aliases.list" Read Namespace aliases::list;
    get "/v1/namespaces/{ns}/functions/{fn}/aliases/{alias}" "aliases.get" Read Namespace aliases::get;
    put "/v1/namespaces/{ns}/functions/{fn}/aliases/{alias}" "aliases.set" Deploy Namespace aliases::set;
    delete "/v1/namespaces/{ns}/functions/{fn}/aliases/{alias}" "aliases.remove" Deploy Namespace aliases::remove;
    get "/v1/namespaces/{ns}/functions/{fn}/canaries" "canaries.list" Read Namespace aliases::canaries;
    post "/v1/namespaces/{ns}/functions/{fn}/canaries/abort" "canaries.abort" Deploy Namespace aliases::abort;
    post "/v1/namespaces/{ns}/functions/{fn}/canaries/promote" "canaries.promote" Deploy Namespace aliases::finish;
    get "/v1/namespaces/{ns}/functions/{fn}/retention" "retention.get" Read Namespace retention::get;
    put "/v1/namespaces/{ns}/functions/{fn}/retention" "retention.set" Deploy Namespace retention::set;
    get "/v1/namespaces/{ns}/retention" "retention.get_namespace" Read Namespace retention::of_namespace;
    put "/v1/namespaces/{ns}/retention" "retention.set_namespace" Admin Namespace retention::set_of_namespace;

    get "/v1/namespaces/{ns}/functions/{fn}/schedules" "schedules.list" Read Namespace schedules::list;
    post "/v1/namespaces/{ns}/functions/{fn}/schedules" "schedules.add" Deploy Namespace schedules::add;
    patch "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}" "schedules.edit" Deploy Namespace schedules::edit;
    delete "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}" "schedules.remove" Deploy Namespace schedules::remove;
    post "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/pause" "schedules.pause" Deploy Namespace schedules::pause;
    post "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/resume" "schedules.resume" Deploy Namespace schedules::resume;
    post "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/run" "schedules.run" Invoke Namespace schedules::run;
    get "/v1/namespaces/{ns}/functions/{fn}/schedules/{schedule}/fires" "schedules.fires" Read Namespace schedules::fires;
    get "/v1/namespaces/{ns}/schedules" "schedules.list_all" Read Namespace schedules::list_all;
    post "/v1/schedules/preview" "schedules.preview" Read Own schedules::preview;

    get "/v1/namespaces/{ns}/functions/{fn}/logs" "logs.read" Read Namespace logs::read;
    get "/v1/namespaces/{ns}/functions/{fn}/invocations" "invocations.list" Read Namespace invocations::list;
    get "/v1/namespaces/{ns}/invocations" "invocations.all" Read Namespace invocations::list_all;
    get "/v1/namespaces/{ns}/queue" "queue.get" Read Namespace invocations::queue;
    get "/v1/namespaces/{ns}/invocations/{id}" "invocations.get" Read Namespace invocations::get;
    post "/v1/namespaces/{ns}/invocations/{id}/cancel" "invocations.cancel" Invoke Namespace invocations::cancel;
    post "/v1/namespaces/{ns}/invocations/{id}/replay" "invocations.replay" Invoke Namespace invocations::replay;
    post "/v1/namespaces/{ns}/dead-letters/redrive" "dead_letters.redrive" Invoke Namespace dead_letters::redrive;
    post "/v1/namespaces/{ns}/dead-letters/purge" "dead_letters.purge" Deploy Namespace dead_letters::purge;

    get "/v1/namespaces/{ns}/topics" "topics.list" Read Namespace topics::list;
    post "/v1/namespaces/{ns}/topics" "topics.create" Deploy Namespace topics::create;
    get "/v1/namespaces/{ns}/topics/{topic}" "topics.get" Read Namespace topics::get;
    delete "/v1/namespaces/{ns}/topics/{topic}" "topics.delete" Deploy Namespace topics::delete;
    post "/v1/namespaces/{ns}/topics/{topic}/subscriptions" "topics.subscribe" Deploy Namespace topics::subscribe;
    delete "/v1/namespaces/{ns}/topics/{topic}/subscriptions/{subscription}" "topics.unsubscribe" Deploy Namespace topics::unsubscribe;
    post "/v1/namespaces/{ns}/topics/{topic}/subscriptions/{subscription}/replay" "topics.replay" Invoke Namespace topics::replay;

    get "/v1/namespaces/{ns}/secrets" "secrets.list" Read Namespace secrets::list;
    put "/v1/namespaces/{ns}/secrets/{secret}" "secrets.set" Deploy Namespace secrets::set;
    post "/v1/namespaces/{ns}/secrets/{secret}/compare" "secrets.compare" Deploy Namespace secrets::compare;
    delete "/v1/namespaces/{ns}/secrets/{secret}" "secrets.remove" Deploy Namespace secrets::remove;

    get "/v1/namespaces/{ns}/sources" "sources.list" Read Namespace sources::list;
    post "/v1/namespaces/{ns}/sources" "sources.create" Deploy Namespace sources::create;
    get "/v1/namespaces/{ns}/sources/{source}" "sources.get" Read Namespace sources::get;
    delete "/v1/namespaces/{ns}/sources/{source}" "sources.remove" Deploy Namespace sources::remove;
    get "/v1/namespaces/{ns}/sources/{source}/sql" "sources.sql" Read Namespace sources::sql;
    post "/v1/namespaces/{ns}/sources/{source}/pause" "sources.pause" Deploy Namespace sources::pause;
    post "/v1/namespaces/{ns}/sources/{source}/resume" "sources.resume" Deploy Namespace sources::resume;

    get "/v1/namespaces/{ns}/runtimes" "runtimes.list" Read Namespace runtimes::list;
    get "/v1/namespaces/{ns}/runtimes/behind" "runtimes.behind" Read Namespace runtimes::behind;

    get "/v1/namespaces/{ns}/projects" "projects.list" Read Namespace projects::list;
    put "/v1/namespaces/{ns}/projects/{project}" "projects.put" Deploy Namespace projects::put;
    delete "/v1/namespaces/{ns}/projects/{project}" "projects.remove" Deploy Namespace projects::remove;

    get "/v1/tokens" "tokens.list" Admin Own tokens::list;
    post "/v1/tokens" "tokens.create" Admin Own tokens::create;
    delete "/v1/tokens/{id}" "tokens.revoke" Admin Own tokens::revoke;

    get "/v1/instances" "instances.list" Read Installation instances::list;
    get "/v1/audit" "audit.list" Admin Own audit::list;
}

/// What users reach: the management API and nothing else.
pub fn management_router(state: ApiState) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let guarded = (route.handler)()
            .route_layer(middleware::from_fn_with_state((state.clone(), route), guard::guard));
        router = router.route(route.path, guarded);
    }
    router
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::unknown_method)
        // Every body is bounded by what reads it: `extract::Json`, or the upload's own count.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(courtesy::hear_out))
        .layer(middleware::from_fn(guard::outermost))
        .with_state(state)
}
