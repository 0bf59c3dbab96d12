//! `davit invoke`: calls a function and prints what it answered, byte for byte.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use clap::Args;
use davit_api::{
    BatchItem, InvocationBatch, InvocationWishes, NamespaceName, Priority, QualifiedFunction, limits,
};
use reqwest::header::HeaderMap;

use super::apply::load::Given;
use super::dev::session::{NAMESPACE, Session};
use crate::api::Api;
use crate::context::Globals;
use crate::escape::visible;
use crate::failure::{Failure, Result};
use crate::output::{json, line, note, raw};

/// Call a function
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit invoke hello '{\"name\":\"Ada\"}'
  davit invoke hello @event.json
  davit invoke hello:7 '{}'                 this version, live or not
  davit invoke hello@beta '{}'              the version that the alias leads to
  echo '{}' | davit invoke hello -
  davit invoke hello '{}' --async           accepted now, done later, never lost
  davit invoke hello '{}' --async --delay 15m --ordering-key customer-5
  davit invoke hello --async --batch events.jsonl
  davit invoke hello --logs --timing
  davit invoke hello '{}' --local           once through the code in this folder, deployed for this call alone

The answer goes to standard output as it is. If the function fails, its error is printed to
standard error and the exit code is 3.")]
pub(crate) struct Invoke {
    /// Function to call: its live version, or another one as in hello:7 or hello@beta
    #[arg(value_name = "FUNCTION[:VERSION|@ALIAS]")]
    function: QualifiedFunction,
    /// The event as JSON; @FILE reads a file, - reads standard input [default: {}]
    #[arg(conflicts_with = "file")]
    payload: Option<String>,
    /// Read the event from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Hand it to the durable queue and return
    #[arg(long = "async")]
    later: bool,
    /// Not before so long from now, such as 90s, 15m or 2h
    #[arg(long, requires = "later", conflicts_with = "not_before", value_parser = crate::time::seconds)]
    delay: Option<u32>,
    /// Not before this instant, such as 2030-01-01T00:00:00Z
    #[arg(long, requires = "later", value_name = "INSTANT")]
    not_before: Option<chrono::DateTime<chrono::Utc>>,
    /// low, normal or high: before or after others that are due in the namespace
    #[arg(long, requires = "later", default_value_t = Priority::Normal)]
    priority: Priority,
    /// Run after the function's earlier calls with the same key
    #[arg(long, requires = "later", value_name = "KEY")]
    ordering_key: Option<String>,
    /// The same key and event within 24 hours are the same call
    #[arg(long, requires = "later", value_name = "KEY")]
    idempotency_key: Option<String>,
    /// A file with one event a line (- reads standard input): all are accepted, a thousand at a time
    #[arg(long, requires = "later", conflicts_with_all = ["payload", "file", "idempotency_key"], value_name = "FILE")]
    batch: Option<PathBuf>,
    /// Call the function of that name in this folder (or below it) as it is now, without deploying it where others are:
    /// in the namespace `dev`, as `davit dev` does
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, require_equals = true, default_missing_value = ".",
        conflicts_with = "later")]
    local: Option<PathBuf>,
    /// Show the end of what the function printed
    #[arg(short, long, conflicts_with = "later")]
    logs: bool,
    /// Show where the time went
    #[arg(long, conflicts_with = "later")]
    timing: bool,
    /// Show request id, version, and whether an instance had to be started
    #[arg(short, long, conflicts_with = "later")]
    verbose: bool,
}

impl Invoke {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        if let Some(folder) = &self.local {
            return self.run_local(globals, folder).await;
        }
        let api = globals.api()?.with_gateway().await?;
        if let Some(path) = &self.batch {
            return self.enqueue_batch(&api, path, globals).await;
        }
        let payload = self.payload()?;
        if self.later {
            let accepted = api.enqueue(&self.function, payload, &self.wishes()).await?;
            if globals.json() {
                json(&accepted);
            } else {
                line(accepted.invocation_id);
                note(format!("accepted; see `davit invocation {}`", accepted.invocation_id));
            }
            return Ok(());
        }
        self.call(&api, payload, globals).await
    }

    /// Once through a folder's code. What was deployed for it is removed, whatever came of it.
    async fn run_local(&self, globals: &Globals, folder: &Path) -> Result<()> {
        let (name, payload) = (&self.function.function, self.payload()?);
        if self.function.qualifier.is_some() {
            return Err(Failure::Usage("--local: the folder has one version, the one that it is".into()));
        }
        let given = Given::read(folder)?;
        let found = given.functions.get(name).ok_or_else(|| {
            let known: Vec<_> = given.functions.keys().map(ToString::to_string).collect();
            let here = given.root.display();
            Failure::Usage(format!("--local: {here} has no function {name}; there is: {}", known.join(", ")))
        })?;
        let namespace = match &globals.namespace {
            Some(namespace) => namespace.clone(),
            None => NAMESPACE.parse::<NamespaceName>().map_err(|e| Failure::Failed(e.to_string()))?,
        };
        let mut session = Session::start(globals, namespace, None, &given, false).await?;
        let api = session.api.clone();
        let called = async {
            session.set_secrets(&given).await?;
            session.look_at(found).await?;
            self.call(&api, payload, globals).await
        };
        let called = called.await;
        let ended = session.end().await;
        called.and(ended)
    }

    async fn call(&self, api: &Api, payload: Vec<u8>, globals: &Globals) -> Result<()> {
        let answer = api.invoke(&self.function, payload).await;
        let headers = match &answer {
            Ok((headers, _)) => headers,
            Err((headers, _)) => headers,
        };
        self.explain(headers);
        match answer {
            Ok((_, body)) => {
                raw(&body);
                if !body.ends_with(b"\n") {
                    raw(b"\n");
                }
                Ok(())
            }
            Err((_, failure)) => {
                if let Failure::Refused(body) = &failure
                    && let Some(error) = &body.function_error
                {
                    // The function's own words, as data: scripts may want them.
                    if globals.json() { json(error) } else { print_function_error(error) }
                }
                Err(failure)
            }
        }
    }

    fn wishes(&self) -> InvocationWishes {
        InvocationWishes {
            delay_seconds: self.delay,
            not_before: self.not_before,
            priority: self.priority,
            ordering_key: self.ordering_key.clone(),
            idempotency_key: self.idempotency_key.clone(),
        }
    }

    async fn enqueue_batch(&self, api: &Api, path: &Path, globals: &Globals) -> Result<()> {
        let text = if path.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
                .map_err(|e| Failure::while_doing("standard input", e))?
        } else {
            std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?
        };
        let mut items = Vec::new();
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let payload = serde_json::value::RawValue::from_string(line.to_owned())
                .map_err(|e| Failure::Usage(format!("line {} is not JSON: {e}", n + 1)))?;
            items.push(BatchItem { payload: Some(payload), options: self.wishes() });
        }
        let (total, mut ids) = (items.len(), Vec::new());
        for some in items.chunks(limits::BATCH) {
            let batch = InvocationBatch { invocations: some.to_vec() };
            ids.extend(api.enqueue_batch(&self.function, &batch).await?.invocation_ids);
            if total > limits::BATCH {
                note(format!("{} of {total} accepted", ids.len()));
            }
        }
        if globals.json() {
            json(&ids)
        } else {
            ids.iter().for_each(line)
        }
        Ok(())
    }

    fn payload(&self) -> Result<Vec<u8>> {
        match &self.file {
            Some(path) if path.as_os_str() != "-" => checked(read(path)?),
            Some(_) => given_json(Some("-")),
            None => given_json(self.payload.as_deref()),
        }
    }

    /// What the answer's headers tell, as far as it was asked for.
    fn explain(&self, headers: &HeaderMap) {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-");
        if self.verbose && headers.contains_key("x-davit-invocation-id") {
            let start = if text("x-davit-cold") == "true" { "cold" } else { "warm" };
            note(format!(
                "request {}, version {}, {start}",
                text("x-davit-invocation-id"),
                text("x-davit-version")
            ));
        }
        if (self.timing || self.verbose) && headers.contains_key("x-davit-timing") {
            let parts: Vec<String> =
                text("x-davit-timing").split(';').map(|p| p.trim().replacen('=', " ", 1) + " ms").collect();
            note(format!("time: {}", visible(&parts.join(", "))));
        }
        if self.timing && headers.contains_key("x-davit-cold-phases") {
            phase_table(text("x-davit-cold-phases")).iter().for_each(|row| note(visible(row)));
        }
        if self.logs {
            let tail = base64::engine::general_purpose::STANDARD
                .decode(text("x-davit-log-tail"))
                .unwrap_or_default();
            for line in String::from_utf8_lossy(&tail).lines() {
                note(format!("| {}", visible(line)));
            }
        }
    }
}

/// An event as it is given on a command line: itself, `@FILE`, `-` for standard input; `{}` when it is not.
pub(super) fn given_json(text: Option<&str>) -> Result<Vec<u8>> {
    let bytes = match text {
        Some("-") => bounded(std::io::stdin()).map_err(|e| Failure::while_doing("standard input", e))?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => read(path.as_ref())?,
            None => text.as_bytes().to_vec(),
        },
        None => b"{}".to_vec(),
    };
    checked(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::File::open(path)
        .and_then(bounded)
        .map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

fn checked(bytes: Vec<u8>) -> Result<Vec<u8>> {
    if bytes.len() > limits::PAYLOAD_BYTES {
        return Err(Failure::Usage(format!("the event is larger than {} bytes", limits::PAYLOAD_BYTES)));
    }
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        return Err(Failure::Usage(format!("the event is not JSON: {error}")));
    }
    Ok(bytes)
}

/// A row a phase of the cold start, with a bar for its share: `wait=1.5;claim=0.2` as the gateway writes it.
fn phase_table(header: &str) -> Vec<String> {
    let phases: Vec<(&str, f64)> = header
        .split(';')
        .filter_map(|p| p.trim().split_once('='))
        .filter_map(|(n, ms)| Some((n, ms.parse().ok()?)))
        .collect();
    if phases.is_empty() {
        return Vec::new();
    }
    let total: f64 = phases.iter().map(|(_, ms)| ms).sum();
    let row = |(name, ms): &(&str, f64)| {
        let bar = "#".repeat((ms / total.max(f64::MIN_POSITIVE) * BAR).round().clamp(0.0, BAR) as usize);
        format!("  {:<10} {ms:>10.3} ms  {bar}", name.replace('_', " ")).trim_end().to_owned()
    };
    phases.iter().map(row).chain([format!("  {:<10} {total:>10.3} ms", "cold call")]).collect()
}

fn print_function_error(error: &serde_json::Value) {
    let field = |name: &str| error.get(name).and_then(serde_json::Value::as_str);
    if let Some(kind) = field("errorType") {
        note(visible(&format!("{kind}: {}", field("errorMessage").unwrap_or_default())));
    }
    for frame in error.get("stackTrace").and_then(serde_json::Value::as_array).into_iter().flatten() {
        for line in frame.as_str().unwrap_or_default().lines() {
            note(format!("  {}", visible(line)));
        }
    }
}

/// Characters of the bar for the whole time.
const BAR: f64 = 30.0;

/// Reads to the end, but not for ever.
fn bounded(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limits::PAYLOAD_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_rows_and_add_up() {
        let rows = phase_table("wait=1.000;claim=0.500; load=8.5;odd;first_byte=x");
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0], format!("  wait            1.000 ms  {}", "#".repeat(3)));
        assert_eq!(rows[2], format!("  load            8.500 ms  {}", "#".repeat(26)));
        assert_eq!(rows[3], "  cold call      10.000 ms");
        assert_eq!(phase_table("odd"), [""; 0]);
    }
}
