//! The OpenAPI document, from the handlers' own annotations. The checked-in copy is `docs/openapi.json`.

use davit_api::ErrorBody;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, ResponseBuilder};

use super::{
    aliases, artifacts, audit, dead_letters, exports, functions, info, instances, invocations, logs,
    namespaces, projects, retention, rollback, runtimes, schedules, secrets, sources, tokens, topics,
    versions,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "davit management API",
        description = "Deploy functions and look after them. Functions themselves are called at the gateway."
    ),
    paths(
        info::show,
        namespaces::list,
        namespaces::create,
        functions::list,
        functions::get,
        functions::delete,
        exports::show,
        artifacts::received,
        artifacts::put,
        versions::list,
        versions::create,
        versions::get,
        versions::events,
        versions::remove,
        versions::cancel,
        versions::diff,
        rollback::rollback,
        runtimes::list,
        runtimes::behind,
        runtimes::upgrade,
        aliases::promote,
        aliases::list,
        aliases::get,
        aliases::set,
        aliases::remove,
        aliases::canaries,
        aliases::abort,
        aliases::finish,
        retention::get,
        retention::set,
        retention::of_namespace,
        retention::set_of_namespace,
        schedules::list,
        schedules::list_all,
        schedules::add,
        schedules::edit,
        schedules::remove,
        schedules::pause,
        schedules::resume,
        schedules::run,
        schedules::fires,
        schedules::preview,
        logs::read,
        invocations::list,
        invocations::list_all,
        invocations::queue,
        invocations::get,
        invocations::cancel,
        invocations::replay,
        dead_letters::redrive,
        dead_letters::purge,
        topics::list,
        topics::create,
        topics::get,
        topics::delete,
        topics::subscribe,
        topics::unsubscribe,
        topics::replay,
        secrets::list,
        secrets::set,
        secrets::compare,
        secrets::remove,
        projects::list,
        projects::put,
        projects::remove,
        sources::list,
        sources::create,
        sources::get,
        sources::sql,
        sources::remove,
        sources::pause,
        sources::resume,
        tokens::list,
        tokens::create,
        tokens::revoke,
        instances::list,
        audit::list,
    ),
    components(schemas(ErrorBody))
)]
struct Document;

/// The document, with what all routes have in common: the token, and the one error body.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    components
        .security_schemes
        .insert("token".into(), SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)).into());
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for (verb, operation) in ["get", "put", "post", "patch", "delete"].into_iter().zip(operations) {
            let Some(operation) = operation else { continue };
            let route = super::ROUTES.iter().find(|r| r.path == *path && r.verb == verb);
            operation.operation_id = route.map(|r| r.name.to_owned());
            operation.tags = route.map(|r| vec![r.name.split('.').next().unwrap_or_default().to_owned()]);
            operation.security = Some(vec![SecurityRequirement::new("token", [""; 0])]);
            let error = ResponseBuilder::new()
                .description("What went wrong, whose fault it is, and whether to try again.")
                .content("application/json", Content::new(Some(Ref::from_schema_name("ErrorBody"))))
                .build();
            operation.responses.responses.insert("default".into(), error.into());
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let document = document();
        let mut documented: Vec<String> = document
            .paths
            .paths
            .iter()
            .flat_map(|(path, item)| {
                let verbs = [
                    ("get", &item.get),
                    ("put", &item.put),
                    ("post", &item.post),
                    ("patch", &item.patch),
                    ("delete", &item.delete),
                ];
                verbs.into_iter().filter(|(_, o)| o.is_some()).map(move |(verb, _)| format!("{verb} {path}"))
            })
            .collect();
        let mut routes: Vec<String> =
            super::super::ROUTES.iter().map(|r| format!("{} {}", r.verb, r.path)).collect();
        documented.sort();
        routes.sort();
        assert_eq!(documented, routes);
    }

    /// `DAVIT_WRITE_OPENAPI=1 cargo test -p davit-controller openapi` brings the copy up to date.
    #[test]
    fn the_checked_in_copy_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let text = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("DAVIT_WRITE_OPENAPI").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == text,
            "docs/openapi.json is out of date: DAVIT_WRITE_OPENAPI=1 cargo test -p davit-controller openapi"
        );
    }
}
