//! Asks davit's public API what became of invocations and schedules, and keeps every answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use davit_e2e::{Answer, Chance, eventually_within};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::history::{Fire, Read, Schedule};
use crate::recorder::{Order, instant};
use crate::world::Doors;

/// Requests at a time.
const AT_ONCE: usize = 8;
/// Rows of one page, which is the most that the API gives.
const PAGE: usize = 1_000;
/// The API may be away for a moment after a restart.
const PATIENCE: Duration = Duration::from_secs(120);

/// Answers by id; clones are the same.
#[derive(Clone)]
pub(crate) struct Reader {
    doors: Doors,
    order: Order,
    reads: Arc<Mutex<BTreeMap<String, Vec<Read>>>>,
}

impl Reader {
    pub(crate) fn new(doors: Doors, order: Order) -> Self {
        Self { doors, order, reads: Arc::default() }
    }

    /// Everything that was answered.
    pub(crate) fn reads(&self) -> BTreeMap<String, Vec<Read>> {
        self.reads.lock().expect("no holder panics").clone()
    }

    /// Looks at one invocation, once; true when it had ended.
    pub(crate) async fn look(&self, id: &str) -> bool {
        let answer = self.doors.get(&format!("/v1/namespaces/default/invocations/{id}")).await;
        answer.status == 200 && self.note(&answer.body)
    }

    fn note(&self, view: &Value) -> bool {
        let text = |field: &str| view[field].as_str().map(str::to_owned);
        let read = Read {
            when: self.order.now(),
            state: text("state").unwrap_or_default(),
            attempt: view["attempt"].as_u64().unwrap_or(0),
            ended_at: text("ended_at"),
            result: text("result"),
        };
        let (ended, id) = (read.ended(), text("id").unwrap_or_default());
        self.reads.lock().expect("no holder panics").entry(id).or_default().push(read);
        ended
    }

    /// Looks until there is an answer. What is not there is not noted; the checker knows that it was promised.
    async fn must_look(&self, id: &str) {
        let (path, start) = (format!("/v1/namespaces/default/invocations/{id}"), Instant::now());
        loop {
            let answer = self.doors.get(&path).await;
            match answer.status {
                200 => {
                    self.note(&answer.body);
                    return;
                }
                404 => return,
                _ => assert!(start.elapsed() < PATIENCE, "{path}: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn must_get(&self, path: &str) -> Value {
        let get = async || -> Result<Value, Answer> {
            let answer = self.doors.get(path).await;
            if answer.status == 200 { Ok(answer.body) } else { Err(answer) }
        };
        eventually_within(PATIENCE, path, get).await
    }

    /// Looks at ids drawn by chance, one after the other, until the task is aborted.
    pub(crate) async fn watch(self, ids: impl Fn(u64) -> Option<String>, seed: u64) {
        let mut chance = Chance::of(seed);
        loop {
            if let Some(id) = ids(chance.below(u64::MAX)) {
                self.look(&id).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Looks at each of them.
    pub(crate) async fn look_at_all(&self, ids: Vec<String>) {
        let mut ids = ids.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < AT_ONCE
                && let Some(id) = ids.next()
            {
                let reader = self.clone();
                running.spawn(async move { reader.must_look(&id).await });
            }
            if running.join_next().await.is_none() {
                return;
            }
        }
    }

    /// Whether nothing of a function waits or runs.
    pub(crate) async fn is_idle(&self, function: &str) -> bool {
        for state in ["queued", "running"] {
            let path =
                format!("/v1/namespaces/default/functions/{function}/invocations?limit=1&state={state}");
            let answer = self.doors.get(&path).await;
            if answer.status != 200 || answer.body["items"].as_array().is_none_or(|items| !items.is_empty()) {
                return false;
            }
        }
        true
    }

    /// Reads a function's whole list, page by page; answers the ids that stood in it more than once.
    pub(crate) async fn list(&self, function: &str) -> Vec<String> {
        let (mut seen, mut twice) = (BTreeSet::new(), Vec::new());
        let mut after = String::new();
        loop {
            let path = format!("/v1/namespaces/default/functions/{function}/invocations?limit={PAGE}{after}");
            let page = self.must_get(&path).await;
            for view in page["items"].as_array().expect("a page") {
                self.note(view);
                let id = view["id"].as_str().expect("an id").to_owned();
                if !seen.insert(id.clone()) {
                    twice.push(id);
                }
            }
            let Some(next) = page["next"].as_str() else { return twice };
            after = format!("&after={next}");
        }
    }

    /// Whether every schedule of a function has a record of this instant or a later one.
    pub(crate) async fn have_rung(&self, function: &str, at: i64) -> bool {
        let answer = self.doors.get(&format!("/v1/namespaces/default/functions/{function}/schedules")).await;
        let rung =
            |view: &Value| view["last_due_at"].as_str().and_then(instant).is_some_and(|last| last >= at);
        answer.status == 200 && answer.body.as_array().is_some_and(|all| all.iter().all(rung))
    }

    /// Reads a schedule's record.
    pub(crate) async fn fires(&self, function: &str, schedule: &mut Schedule) {
        let name = &schedule.name;
        let path = format!("/v1/namespaces/default/functions/{function}/schedules/{name}/fires?limit={PAGE}");
        let rows = self.must_get(&path).await;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let fire = |row: &Value| Fire {
            due: row["due_at"].as_str().and_then(instant).expect("an instant"),
            recorded: row["recorded_at"].as_str().and_then(instant).expect("a time"),
            invocation: row["invocation_id"].as_str().map(str::to_owned),
        };
        schedule.fires = rows.iter().map(fire).collect();
    }
}
