//! The registry of the davit under measurement, through `psql`: to see when the platform is at rest, and to
//! register many functions that are copies of one. No driver, because SQL of the product lives in `registry/` alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Access to one database over its Unix socket.
pub(crate) struct Sql {
    socket: PathBuf,
}

impl Sql {
    /// The Postgres that `davit up` runs in a state directory.
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self { socket: state_dir.join("pgsock") }
    }

    /// Arguments that name this database to any of Postgres's programs.
    pub(crate) fn connection(&self, database: &str) -> Vec<String> {
        ["-h", &self.socket.display().to_string(), "-U", "davit", database].map(str::to_owned).to_vec()
    }

    /// Runs statements in one transaction; answers what the last of them printed.
    pub(crate) fn run(&self, statements: &str) -> crate::Result<String> {
        self.run_in("davit", &["-1"], statements)
    }

    /// Runs statements in a database, with options of `psql`.
    pub(crate) fn run_in(&self, database: &str, options: &[&str], statements: &str) -> crate::Result<String> {
        let output = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(options)
            .args(["-c", statements, "-h"])
            .arg(&self.socket)
            .args(["-U", "davit", database])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("psql: {e}"))?;
        if !output.status.success() {
            return Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Registers `count` more functions, `<name>-1` and so on, that are copies of a live one: same settings, same
    /// code. Building as many would take hours, and a gateway cannot tell them apart from built ones. `spec` is SQL for
    /// the settings of the `n`th: `v.spec` leaves them as they are.
    pub(crate) fn copy_function(&self, name: &str, count: usize, spec: &str) -> crate::Result<()> {
        self.run(&format!(
            "create temp table made on commit drop as
                select gen_random_uuid() as function_id, gen_random_uuid() as version_id, f.namespace_id, '{name}-' || n as name,
                    {spec} as spec, v.schedules, v.source, v.bundle, v.bundle_size, v.image_digest
                from functions f join aliases a on a.function_id = f.id and a.name = 'live'
                join versions v on v.id = a.version_id, generate_series(1, {count}) n
                where f.name = '{name}' and f.deleted_at is null;
             insert into functions (id, namespace_id, name, last_number) select function_id, namespace_id, name, 1 from made;
             insert into versions (id, function_id, number, state, spec, schedules, source, bundle, bundle_size, image_digest, ready_at)
                select version_id, function_id, 1, 'ready', spec, schedules, source, bundle, bundle_size, image_digest, clock_timestamp() from made;
             insert into aliases (function_id, name, version_id) select function_id, 'live', version_id from made;"
        ))
        .map(drop)
    }
}
