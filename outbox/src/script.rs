//! The statements: what is put into somebody's database, how it is taken away, read and emptied. Pure.
//!
//! Names of tables and columns come from whoever made the source, and can be anything that Postgres takes: they are
//! quoted as identifiers or literals by the client library, and bodies stand between dollar quotes that do not occur in
//! them. Values are parameters.

use std::fmt::Write as _;

use davit_api::{NamespaceName, PostgresSource, SourceId, SourceName, TableEvent};
use postgres_protocol::escape::{escape_identifier, escape_literal};

/// The schema that holds everything of davit's in that database.
pub(crate) const SCHEMA: &str = "davit_source";
/// JSON of a change's two rows together, in bytes; of larger ones the key is kept. Below
/// [`davit_api::limits::ASYNC_PAYLOAD_BYTES`] by what the rest of the event takes.
const ROWS_BYTES: usize = 1_000_000;

/// What one source has in somebody's database.
#[derive(Debug, Clone)]
pub struct Outbox {
    id: String,
    label: String,
    spec: PostgresSource,
}

impl Outbox {
    /// That of a source. Named by its id, so that two davits, or two sources of one table, never share one.
    pub fn new(id: SourceId, namespace: &NamespaceName, name: &SourceName, spec: &PostgresSource) -> Self {
        Self { id: id.0.simple().to_string(), label: format!("{namespace}/{name}"), spec: spec.clone() }
    }

    /// What the source takes.
    pub fn spec(&self) -> &PostgresSource {
        &self.spec
    }

    pub(crate) fn channel(&self) -> String {
        format!("davit_source_{}", self.id)
    }

    fn outbox(&self) -> String {
        format!("{SCHEMA}.outbox_{}", self.id)
    }

    fn reader(&self) -> String {
        format!("{SCHEMA}.reader_{}", self.id)
    }

    fn capture(&self) -> String {
        format!("{SCHEMA}.capture_{}", self.id)
    }

    /// The table, as an identifier.
    pub(crate) fn table(&self) -> String {
        let table = &self.spec.table;
        format!("{}.{}", escape_identifier(table.schema()), escape_identifier(table.table()))
    }

    /// The table, as a literal that casts to `regclass`.
    pub(crate) fn table_literal(&self) -> String {
        escape_literal(&self.table())
    }

    /// Everything, for people: in a transaction, with a word on what it is and what the reader's user needs.
    pub fn install_script(&self) -> String {
        let (label, table, outbox, reader) =
            (&self.label, one_line(&self.table()), self.outbox(), self.reader());
        format!(
            "-- davit source {label}: each change of {table} is written to {outbox}, from where davit takes it.\n\
             -- Needs the right to create a schema (once), and TRIGGER on the table. Does nothing when it is done already.\n\
             begin;\n\
             {}commit;\n\n\
             -- When another user runs this than the one in the source's secret, that one needs no more than this:\n\
             --   grant usage on schema {SCHEMA} to THAT_USER;\n\
             --   grant select, delete on {outbox} to THAT_USER;\n\
             --   grant select, update on {reader} to THAT_USER;\n",
            self.install()
        )
    }

    /// Takes everything away, for people.
    pub fn remove_script(&self) -> String {
        format!(
            "-- davit source {}: takes its trigger and its outbox away, and what was not delivered with it.\n\
             begin;\n{}commit;\n",
            self.label,
            self.remove()
        )
    }

    /// The statements that put it there, for a transaction.
    pub(crate) fn install(&self) -> String {
        let (outbox, reader, capture, id) = (self.outbox(), self.reader(), self.capture(), &self.id);
        let schema = dollars(&format!(
            "begin\n    if to_regnamespace('{SCHEMA}') is null then\n        create schema {SCHEMA};\n    end if;\nend"
        ));
        let comment = escape_literal(&format!(
            "davit source {}: changes of {} on their way",
            self.label, self.spec.table
        ));
        let body = self.body();
        let triggers = dollars(&self.triggers());
        format!(
            "set local lock_timeout = '5s';\n\
             do {schema};\n\
             create table if not exists {outbox} (\n\
             \x20   id bigint generated always as identity primary key,\n\
             \x20   transaction_id xid8 not null default pg_current_xact_id(),\n\
             \x20   at timestamptz not null default clock_timestamp(),\n\
             \x20   operation text not null,\n\
             \x20   key json,\n\
             \x20   old json,\n\
             \x20   new json,\n\
             \x20   omitted boolean not null,\n\
             \x20   bytes integer not null\n\
             ) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);\n\
             comment on table {outbox} is {comment};\n\
             create table if not exists {reader} (one boolean primary key default true check (one), asleep_until timestamptz);\n\
             insert into {reader} default values on conflict do nothing;\n\
             create or replace function {capture}() returns trigger\n\
             \x20   language plpgsql security definer set search_path = pg_catalog, pg_temp\n\
             as {body};\n\
             revoke all on function {capture}() from public;\n\
             comment on function {capture}() is 'davit source {}, outbox {id}';\n\
             do {triggers};\n",
            self.label
        )
    }

    /// What the trigger does. It must never fail because a column was renamed or dropped: it would take the user's own
    /// statement with it. So rows are turned into JSON as a whole, and columns picked from that.
    fn body(&self) -> String {
        let mut text = String::from(
            "declare\n    before json;\n    after json;\n    identity json;\n    size bigint;\nbegin\n    \
             if tg_op in ('UPDATE', 'DELETE') then\n        before := row_to_json(old);\n    end if;\n    \
             if tg_op in ('INSERT', 'UPDATE') then\n        after := row_to_json(new);\n    end if;\n    \
             select json_object_agg(k.name, coalesce(after, before) -> k.name order by k.n) into identity\n        \
             from unnest(tg_argv[0]::text[]) with ordinality as k(name, n) where coalesce(after, before) is not null;\n",
        );
        if !self.spec.columns.is_empty() {
            for row in ["before", "after"] {
                let _ = writeln!(
                    text,
                    "    select json_object_agg(c.name, {row} -> c.name order by c.n) into {row}\n        \
                     from unnest(tg_argv[1]::text[]) with ordinality as c(name, n) where {row} is not null;"
                );
            }
            text.push_str(
                "    if tg_op = 'UPDATE' and before::text = after::text then\n        return null;\n    end if;\n",
            );
        }
        let _ = write!(
            text,
            "    size := coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0);\n    \
             if size > {ROWS_BYTES} then\n        before := null;\n        after := null;\n    end if;\n    \
             insert into {outbox} (operation, key, old, new, omitted, bytes) values (lower(tg_op), identity, before, after,\n        \
             size > {ROWS_BYTES}, case when size > {ROWS_BYTES} then 0 else size end + coalesce(octet_length(identity::text), 0));\n    \
             -- Only a reader that sleeps is woken: notifications make commits wait for each other.\n    \
             perform pg_notify('{channel}', '') from {reader} where asleep_until > clock_timestamp();\n    \
             return null;\nend",
            outbox = self.outbox(),
            channel = self.channel(),
            reader = self.reader(),
        );
        dollars(&text)
    }

    /// The triggers, each with the primary key's columns and the chosen ones as arguments.
    fn triggers(&self) -> String {
        let (table, literal, capture, name) =
            (self.table(), self.table_literal(), self.capture(), self.channel());
        let columns = escape_literal(&array(&self.spec.columns));
        let mut text = format!(
            "declare\n    key text;\nbegin\n    \
             select coalesce(array_agg(a.attname::text order by k.n)::text, '{{}}') into key\n        \
             from pg_index i cross join unnest(i.indkey::int2[]) with ordinality as k(number, n)\n        \
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number\n        \
             where i.indrelid = {literal}::regclass and i.indisprimary;\n"
        );
        let rows = self.rows();
        let truncate = self.spec.events.contains(&TableEvent::Truncate);
        let row = (!rows.is_empty()).then(|| (name.clone(), rows, "row"));
        let statement = truncate.then(|| (format!("{name}_t"), "truncate".to_owned(), "statement"));
        for (name, events, each) in [row, statement].into_iter().flatten() {
            let create = escape_literal(&format!(
                "create trigger {name} after {events} on {table} for each {each} execute function {capture}("
            ));
            let _ = write!(
                text,
                "    if not exists (select from pg_trigger where tgrelid = {literal}::regclass and tgname = '{name}') then\n        \
                 execute {create} || quote_literal(key) || ', ' || quote_literal({columns}) || ')';\n    end if;\n"
            );
        }
        text.push_str("end");
        text
    }

    /// The events of rows, as a trigger names them.
    fn rows(&self) -> String {
        let words = self.spec.events.iter().filter(|e| **e != TableEvent::Truncate).map(|e| e.as_str());
        words.collect::<Vec<_>>().join(" or ")
    }

    /// The statements that take it away, for a transaction. The triggers go with their function, whatever the table is
    /// called by now.
    pub(crate) fn remove(&self) -> String {
        let schema = dollars(&format!(
            "begin\n    drop schema {SCHEMA};\nexception\n    \
             when dependent_objects_still_exist or insufficient_privilege or invalid_schema_name then null;\nend"
        ));
        format!(
            "set local lock_timeout = '5s';\n\
             drop function if exists {}() cascade;\n\
             drop table if exists {}, {};\n\
             do {schema};\n",
            self.capture(),
            self.outbox(),
            self.reader()
        )
    }

    /// Committed changes in the order in which they were written, at most `$1` of them, and of those as many as together
    /// have `$2` bytes; one at least.
    pub(crate) fn read(&self) -> String {
        format!(
            "select id, transaction_id::text, operation, key::text, old::text, new::text, omitted,
                to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
                extract(epoch from clock_timestamp() - at)::float8
             from (select o.*, sum(o.bytes) over (order by o.id) as so_far
                from (select * from {} order by id limit $1) o) w
             where so_far - bytes < $2 order by id",
            self.outbox()
        )
    }

    /// Deletes those of `$1`, and says that the reader is awake.
    pub(crate) fn acknowledge(&self) -> String {
        format!(
            "with awake as (update {} set asleep_until = null where asleep_until is not null) delete from {} where id = any($1)",
            self.reader(),
            self.outbox()
        )
    }

    /// Says that the reader sleeps and wants to be woken for `$1` seconds. Not for longer: one that never comes back
    /// must not make everybody's commits wait for ever.
    pub(crate) fn sleep(&self) -> String {
        format!("update {} set asleep_until = clock_timestamp() + make_interval(secs => $1)", self.reader())
    }

    /// Whether anything is there.
    pub(crate) fn any(&self) -> String {
        format!("select exists (select from {})", self.outbox())
    }

    /// Whether every trigger is on the table, and enabled.
    pub(crate) fn whole(&self) -> String {
        let wanted = usize::from(!self.rows().is_empty())
            + usize::from(self.spec.events.contains(&TableEvent::Truncate));
        format!(
            "select count(*) = {wanted} from pg_trigger where tgrelid = to_regclass({}) and tgname in ('{1}', '{1}_t') and tgenabled <> 'D'",
            self.table_literal(),
            self.channel()
        )
    }
}

/// Text between dollar quotes that do not occur in it.
fn dollars(body: &str) -> String {
    let mut tag = "$davit$".to_owned();
    for n in 1.. {
        if !body.contains(&tag) {
            break;
        }
        tag = format!("$davit{n}$");
    }
    format!("{tag}\n{body}\n{tag}")
}

/// A text array's literal.
fn array(items: &[String]) -> String {
    let quoted = items.iter().map(|item| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")));
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// For a comment, which ends with its line.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outbox(table: &str, columns: &[&str]) -> Outbox {
        let mut spec = PostgresSource::new("db".parse().unwrap(), table.parse().unwrap());
        spec.columns = columns.iter().map(|c| (*c).to_owned()).collect();
        Outbox::new(SourceId::new(), &"shop".parse().unwrap(), &"orders".parse().unwrap(), &spec)
    }

    #[test]
    fn names_stay_within_what_postgres_keeps() {
        let outbox = outbox("public.orders", &[]);
        for name in [outbox.channel() + "_t", outbox.outbox(), outbox.reader(), outbox.capture()] {
            assert!(name.strip_prefix("davit_source.").unwrap_or(&name).len() <= 63, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_body_never_ends_before_its_end(body in "[$davit0-9 ]{0,60}") {
            let quoted = dollars(&body);
            let tag = quoted.lines().next().unwrap();
            prop_assert_eq!(quoted.matches(tag).count(), 2);
            prop_assert!(tag.starts_with("$davit") && tag.ends_with('$'));
        }

        #[test]
        fn a_comment_stays_on_its_line(table in "[^\0\"]{1,20}") {
            let outbox = outbox(&format!("\"{table}\""), &[]);
            let script = outbox.install_script();
            prop_assert!(script.lines().nth(2) == Some("begin;"), "{}", script);
        }
    }
}
