//! The clients: they hand jobs over, singly and in batches, at a bounded rate, and write down what they were answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use davit_e2e::{Answer, Api, Chance};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::history::{ALWAYS, Job};
use crate::plan::Size;
use crate::reader::Reader;
use crate::recorder::Order;
use crate::world::{Doors, MORTAL, WORK};

/// Clients at a time. An ordering key belongs to one of them, so that the order of its jobs is known.
const CLIENTS: u64 = 8;
/// Ordering keys of each.
const KEYS: u64 = 15;
/// A client that has fallen behind by more than this does not make up for it at once.
const ARREARS: Duration = Duration::from_secs(10);
/// How long a client waits for an answer; then it does not know whether its jobs were accepted.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries of a named request.
const AGAIN: Duration = Duration::from_millis(300);

/// What all clients share; clones are the same.
#[derive(Clone)]
pub(crate) struct Load {
    doors: Doors,
    order: Order,
    reader: Reader,
    size: Size,
    jobs: Arc<Mutex<Vec<Job>>>,
    accepted: Arc<AtomicU64>,
    /// Answers other than 202, by status and code.
    pub(crate) refusals: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Load {
    pub(crate) fn new(doors: Doors, order: Order, reader: Reader, size: Size) -> Self {
        let (jobs, refusals) = Default::default();
        Self { doors, order, reader, size, jobs, accepted: Arc::default(), refusals }
    }

    /// Jobs accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// All jobs so far.
    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.jobs.lock().expect("no holder panics").clone()
    }

    /// An id that was promised, by a number drawn by chance; half of the times one of the last.
    pub(crate) fn some_id(&self, number: u64) -> Option<String> {
        let jobs = self.jobs.lock().expect("no holder panics");
        let among = if number.is_multiple_of(2) { jobs.len() } else { jobs.len().min(100) } as u64;
        let back = (number / 2).checked_rem(among)? as usize;
        jobs.iter().rev().nth(back)?.ids.first().cloned()
    }

    /// Runs the clients until all jobs are accepted; so many a second together.
    pub(crate) async fn run(self, rate: f64) {
        let mut clients = JoinSet::new();
        for which in 0..CLIENTS {
            let chance = Chance::of(self.size.seed ^ (which + 1) << 32);
            let client = Client { load: self.clone(), which, chance, next: 0 };
            clients.spawn(client.run(rate / CLIENTS as f64));
        }
        while let Some(client) = clients.join_next().await {
            client.expect("a client ends");
        }
    }

    /// Notes an answer; true if it was a promise.
    fn note(&self, places: &[usize], answer: &Answer) -> bool {
        if answer.status != 202 {
            let what = format!("{} {}", answer.status, answer.code());
            *self.refusals.lock().expect("no holder panics").entry(what).or_default() += 1;
            return false;
        }
        let ids = match answer.body["invocation_ids"].as_array() {
            Some(ids) => ids.clone(),
            None => vec![answer.body["invocation_id"].clone()],
        };
        assert_eq!(ids.len(), places.len(), "a 202 names every job: {answer:?}");
        let when = self.order.now();
        let mut jobs = self.jobs.lock().expect("no holder panics");
        for (place, id) in places.iter().zip(ids) {
            let job = &mut jobs[*place];
            let id = id.as_str().expect("an id is text").to_owned();
            if job.ids.is_empty() {
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
            job.answered.get_or_insert(when);
            if !job.ids.contains(&id) {
                job.ids.push(id);
            }
        }
        true
    }
}

struct Client {
    load: Load,
    which: u64,
    chance: Chance,
    /// Of its own jobs; later jobs have higher numbers.
    next: u64,
}

impl Client {
    async fn run(mut self, rate: f64) {
        let mut due = Instant::now();
        let mut cancels = JoinSet::new();
        while self.load.accepted() < self.load.size.jobs {
            let jobs = self.draw();
            due = due.max(Instant::now() - ARREARS) + Duration::from_secs_f64(jobs.len() as f64 / rate);
            let cancel = jobs[0].cancel;
            let places = self.send(jobs).await;
            if cancel {
                let pause = Duration::from_millis(self.chance.below(1_500));
                cancels.spawn(cancel_one(self.load.clone(), places[0], pause));
            }
            tokio::time::sleep_until(due.into()).await;
        }
        while cancels.join_next().await.is_some() {}
    }

    /// One request's jobs: half of the requests are batches.
    fn draw(&mut self) -> Vec<Job> {
        let count = if self.chance.percent(50) { 1 } else { 2 + self.chance.below(20) };
        let named = self.chance.percent(25);
        (0..count)
            .map(|_| {
                let mut job = self.job(named);
                if count == 1 && self.chance.percent(2) {
                    (job.key, job.fails) = (None, ALWAYS);
                } else if count == 1 && self.chance.percent(8) {
                    job.cancel = true;
                }
                job
            })
            .collect()
    }

    fn job(&mut self, named: bool) -> Job {
        let chance = &mut self.chance;
        self.next += 1;
        Job {
            n: self.next * CLIENTS + self.which,
            named,
            key: chance.percent(30).then(|| self.which * KEYS + chance.below(KEYS)),
            priority: ["low", "normal", "normal", "normal", "high"][chance.below(5) as usize],
            delay: if chance.percent(8) { 1_000 * (1 + chance.below(15) as i64) } else { 0 },
            fails: if chance.percent(10) { 1 + chance.below(3) } else { 0 },
            work: match chance.below(100) {
                0..90 => 0,
                90..98 => 50 + chance.below(350),
                _ => 1_000 + chance.below(2_000),
            },
            ..Job::default()
        }
    }

    /// Hands jobs over in one request; answers where they are noted. A named one is repeated until it is accepted, now and
    /// then at two gateways at once, and once more afterwards.
    async fn send(&mut self, mut jobs: Vec<Job>) -> Vec<usize> {
        let sent = self.load.order.now();
        jobs.iter_mut().for_each(|job| job.sent = sent);
        let places: Vec<usize> = {
            let mut all = self.load.jobs.lock().expect("no holder panics");
            all.extend(jobs.iter().cloned());
            (all.len() - jobs.len()..all.len()).collect()
        };
        loop {
            let (first, second) = (self.chance.below(1_000), self.chance.below(1_000));
            let accepted = if jobs[0].named && self.chance.percent(20) {
                let (one, other) = tokio::join!(self.request(&jobs, first), self.request(&jobs, second));
                // Both are noted, whichever was first.
                self.load.note(&places, &one) | self.load.note(&places, &other)
            } else {
                let answer = self.request(&jobs, first).await;
                self.load.note(&places, &answer)
            };
            if accepted && jobs[0].named && self.chance.percent(30) {
                let answer = self.request(&jobs, second).await;
                self.load.note(&places, &answer);
            }
            if accepted || !jobs[0].named {
                return places;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn request(&self, jobs: &[Job], gateway: u64) -> Answer {
        let gateway = self.load.doors.gateway(gateway);
        let answer = tokio::time::timeout(PATIENCE, self.ask(jobs, gateway)).await;
        answer.unwrap_or_else(|_| Answer { status: 0, body: json!({"code": "late"}) })
    }

    async fn ask(&self, jobs: &[Job], api: &Api) -> Answer {
        let function = if jobs[0].fails == ALWAYS { MORTAL } else { WORK };
        let url = format!("{}/v1/namespaces/default/functions/{function}/invocations", api.gateway);
        if let [job] = jobs {
            let mut request =
                api.http.post(url).header("prefer", "respond-async").body(event(job).to_string());
            request = request.header("x-davit-priority", job.priority);
            if job.delay > 0 {
                request = request.header("x-davit-delay", (job.delay / 1_000).to_string());
            }
            if let Some(key) = job.key {
                request = request.header("x-davit-ordering-key", key.to_string());
            }
            if job.named {
                request = request.header("idempotency-key", format!("job-{}", job.n));
            }
            return api.send(request).await;
        }
        let items: Vec<Value> =
            jobs.iter().map(|job| json!({"payload": event(job), "options": options(job)})).collect();
        let body = json!({ "invocations": items }).to_string();
        api.send(api.http.post(format!("{url}/batch")).body(body)).await
    }
}

fn event(job: &Job) -> Value {
    json!({"n": job.n, "fails": job.fails, "work": job.work})
}

fn options(job: &Job) -> Value {
    let mut options = json!({"priority": job.priority});
    if job.delay > 0 {
        options["delay_seconds"] = (job.delay / 1_000).into();
    }
    if let Some(key) = job.key {
        options["ordering_key"] = key.to_string().into();
    }
    if job.named {
        options["idempotency_key"] = format!("job-{}", job.n).into();
    }
    options
}

/// Asks for a job's end after a while, and looks what became of it.
async fn cancel_one(load: Load, place: usize, pause: Duration) {
    tokio::time::sleep(pause).await;
    let id = load.jobs.lock().expect("no holder panics")[place].ids.first().cloned();
    let Some(id) = id else { return };
    load.doors.post(&format!("/v1/namespaces/default/invocations/{id}/cancel")).await;
    for _ in 0..10 {
        if load.reader.look(&id).await {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
