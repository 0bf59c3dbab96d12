//! Schedules, their instants and previews as tables.

use chrono::{DateTime, SecondsFormat, Utc};
use davit_api::{FireView, Preview, ScheduleSpec, ScheduleView};

use crate::output::{Table, or_dash, when};

/// What a schedule's timing is, in a few words.
pub(crate) fn timing(spec: &ScheduleSpec) -> String {
    match (&spec.cron, &spec.every, &spec.at) {
        (Some(cron), ..) => cron.clone(),
        (_, Some(every), _) => format!("every {every}"),
        (.., Some(at)) => format!("at {at}"),
        _ => "-".into(),
    }
}

fn second(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// When it comes due next.
pub(super) fn next(view: &ScheduleView) -> String {
    match view.next_due_at {
        _ if !view.spec.enabled => "paused".into(),
        Some(at) => format!("{} ({})", second(at), when(at)),
        None => "none".into(),
    }
}

/// A list; `all` names the function of each.
pub(super) fn schedules(schedules: &[ScheduleView], all: bool) {
    let headings = ["FUNCTION", "NAME", "WHEN", "TIME ZONE", "FROM", "LAST", "NEXT"];
    let skip = usize::from(!all);
    let mut table = Table::new(&headings[skip..]);
    for s in schedules {
        let from = if s.from_manifest { "davit.toml" } else { "hand" };
        let (timing, last) = (timing(&s.spec), or_dash(s.last_due_at.map(when)));
        let cells: [&dyn std::fmt::Display; 7] =
            [&s.function, &s.name, &timing, &s.spec.timezone, &from, &last, &next(s)];
        table.row(&cells[skip..]);
    }
    table.print("no schedules");
}

/// Recorded instants.
pub(super) fn history(fires: &[FireView]) {
    let mut table = Table::new(&["DUE", "OUTCOME", "FIRED", "LATE BY", "INVOCATION", "STATE"]);
    for fire in fires {
        let outcome = match fire.reason {
            Some(reason) => format!("{} ({})", fire.outcome, reason.as_str().replace('_', " ")),
            None => fire.outcome.to_string(),
        };
        let fired = fire
            .invocation_id
            .map(|_| fire.recorded_at.to_rfc3339_opts(SecondsFormat::Millis, true).replace('T', " "));
        let late = fire.invocation_id.map(|_| format!("{} ms", fire.late_ms));
        let state = match (fire.invocation_id, fire.invocation_state) {
            (Some(_), None) => "removed".into(),
            (_, state) => or_dash(state),
        };
        table.row(&[
            &second(fire.due_at),
            &outcome,
            &or_dash(fired),
            &or_dash(late),
            &or_dash(fire.invocation_id),
            &state,
        ]);
    }
    table.print("it has not rung yet");
}

/// Instants to come: in UTC, by this host's clock and by the schedule's, and what the clocks do.
pub(super) fn preview(preview: &Preview, zone: &str) {
    let header = zone.to_uppercase();
    let mut table = Table::new(&["UTC", "HERE", &header, "OFFSET", "IN", "CLOCKS"]);
    for row in rows(preview) {
        let cells: Vec<&dyn std::fmt::Display> = row.iter().map(|c| c as &dyn std::fmt::Display).collect();
        table.row(&cells);
    }
    table.print("it never rings");
}

fn rows(preview: &Preview) -> Vec<[String; 6]> {
    let shown = preview.instants.iter().map(|instant| {
        let there = DateTime::parse_from_rfc3339(&instant.local).ok();
        let here = instant.due_at.with_timezone(&chrono::Local);
        let mut notes: Vec<String> = instant.clocks.iter().cloned().collect();
        notes.extend(
            instant
                .rings_before
                .map(|end| format!("rings within {} s", (end - instant.due_at).num_seconds())),
        );
        [
            second(instant.due_at),
            here.format("%a %Y-%m-%d %H:%M").to_string(),
            there.map_or_else(|| instant.local.clone(), |t| t.format("%a %Y-%m-%d %H:%M").to_string()),
            there.map_or_else(String::new, |t| format!("{} {}", t.format("%:z"), instant.abbreviation)),
            when(instant.due_at),
            notes.join(", "),
        ]
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::PreviewInstant;

    #[test]
    fn the_offset_and_a_note_show_when_the_clocks_change() {
        let instant = |due_at: &str, local: &str, abbreviation: &str, clocks: Option<&str>| PreviewInstant {
            due_at: due_at.parse().unwrap(),
            local: local.into(),
            abbreviation: abbreviation.into(),
            clocks: clocks.map(Into::into),
            rings_before: None,
        };
        let back = "clocks went back 60 min since the one before";
        let instants = vec![
            instant("2026-10-24T07:30:00Z", "2026-10-24T09:30:00+02:00", "CEST", None),
            instant("2026-10-25T08:30:00Z", "2026-10-25T09:30:00+01:00", "CET", Some(back)),
        ];
        let rows = rows(&Preview { fires: vec![], instants });
        let cells = |row: &[String; 6]| [row[0].clone(), row[2].clone(), row[3].clone(), row[5].clone()];
        assert_eq!(cells(&rows[0]), ["2026-10-24 07:30:00Z", "Sat 2026-10-24 09:30", "+02:00 CEST", ""]);
        assert_eq!(cells(&rows[1]), ["2026-10-25 08:30:00Z", "Sun 2026-10-25 09:30", "+01:00 CET", back]);
    }
}
