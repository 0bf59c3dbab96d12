//! `davit openapi`: what a document becomes, and the document of what is deployed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use davit_api::{FunctionName, HostPattern, OpenApiFile, PathPrefix, PayloadFormat, RouteSpec};

use super::deploy::read_manifest;
use super::list::access_word;
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::openapi::import;
use crate::output::{Table, json};

/// Check OpenAPI documents, and export what is deployed as one
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit openapi check                    which routes this folder's document becomes
  davit openapi export > openapi.json    what is deployed in the namespace")]
pub(crate) struct OpenApi {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Check(Check),
    Export(Export),
}

/// Show which routes a document becomes, without deploying anything
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit openapi check                          the folder that you are in: its davit.toml names the document
  davit openapi check openapi.yaml             a document by itself
  davit openapi check openapi.yaml --base /v2

`openapi = \"openapi.yaml\"` in davit.toml deploys it: each operation is a route, and requests that do not fit
it are refused before the function is called.")]
struct Check {
    /// A folder with a davit.toml, or a document
    #[arg(default_value = ".")]
    path: PathBuf,
    /// What comes before the document's paths; the path of its first server without it
    #[arg(long, value_name = "PATH")]
    base: Option<PathPrefix>,
}

/// Print what is deployed as an OpenAPI 3.1 document
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit openapi export > openapi.json
  davit openapi export --function orders
  davit openapi export --host api.example.com

It has every route and address of live functions that somebody can call; x-davit of an operation says which
function and version it is.")]
struct Export {
    /// Only this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// Only what is reached by this host
    #[arg(long, value_name = "HOST")]
    host: Option<HostPattern>,
}

impl OpenApi {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        match self.what {
            What::Check(check) => check.run(globals),
            What::Export(export) => export.run(globals).await,
        }
    }
}

impl Check {
    fn run(self, globals: &Globals) -> Result<()> {
        let (document, routes) = self.read()?;
        if globals.json() {
            json(&routes);
            return Ok(());
        }
        let mut table = Table::new(&["METHOD", "PATH", "HOST", "ACCESS", "OPERATION", "REQUESTS"]);
        for route in &routes {
            let operation = route.operation.as_deref().unwrap_or("-");
            let checked = document.as_ref().is_some_and(|document| davit_openapi::asks(document, operation));
            table.row(&[
                &route.method,
                &route.path,
                &route.host.as_ref().map_or("any", HostPattern::as_str),
                &route.access.map_or("as the function", access_word),
                &operation,
                &if checked { "checked" } else { "pass" },
            ]);
        }
        table.print("no routes");
        Ok(())
    }

    /// The document, if there is one, and the routes.
    fn read(&self) -> Result<(Option<serde_json::Value>, Vec<RouteSpec>)> {
        if self.path.is_dir() {
            if self.base.is_some() {
                return Err(Failure::Usage(
                    "--base: of a folder, davit.toml says it: openapi = { file = …, base = … }".into(),
                ));
            }
            let spec = read_manifest(&self.path)?.version_spec();
            return Ok((spec.openapi.map(|document| document.value().clone()), spec.routes));
        }
        let file = self.path.display().to_string();
        let imported = import(&self.path, &OpenApiFile { file, base: self.base.clone(), host: None })?;
        let document = imported.document.value().clone();
        Ok((Some(document), imported.route_specs(PayloadFormat::default())))
    }
}

impl Export {
    async fn run(self, globals: &Globals) -> Result<()> {
        json(&globals.api()?.openapi(self.function.as_ref(), self.host.as_ref()).await?);
        Ok(())
    }
}
