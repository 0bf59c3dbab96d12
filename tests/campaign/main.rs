//! The campaign: davit as several processes under load, while everything it stands on is killed, frozen, cut off and
//! given the wrong time, by chance from a seed. Afterwards `check` compares what clients were promised and what
//! functions recorded with what davit says.
//!
//! Run by `make campaign`, long, and as one story of `make test`, short. Sizes: `plan.rs`.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on ends here, with its place")]
#![expect(clippy::print_stderr, reason = "its progress and its summary are what it is run for")]

mod breaker;
mod check;
mod history;
mod load;
mod plan;
mod reader;
mod recorder;
mod report;
mod world;

use std::time::{Duration, Instant};

use davit_e2e::eventually_within;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{AbortHandle, JoinHandle};

use breaker::Breaker;
use check::instants::MINUTE;
use history::{History, Schedule};
use load::Load;
use plan::Size;
use reader::Reader;
use recorder::{Order, Recorder, now};
use report::Head;
use world::{Doors, MORTAL, TICKS, WORK, World};

/// What was accepted must have ended by so long after the last fault: retries, delays and a backlog.
const DRAIN: Duration = Duration::from_secs(15 * 60);
/// How often progress is printed.
const PROGRESS: Duration = Duration::from_secs(10);
/// Of the ended ones, so many are read once more as a whole after the last restart.
const READ_AGAIN: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_breaks_nothing_promised_is_lost_doubled_or_out_of_order() {
    let size = Size::from_environment();
    eprintln!("seed: DAVIT_E2E_SEED={}", size.seed);
    let (mut terminate, interrupt) = (signal(SignalKind::terminate()).unwrap(), tokio::signal::ctrl_c());
    // Whoever interrupts it still wants everything to be taken down: dropping the campaign does that.
    let interrupted = tokio::select! {
        () = campaign(size) => false,
        _ = interrupt => true,
        _ = terminate.recv() => true,
    };
    assert!(!interrupted, "interrupted; everything was taken down");
}

/// Ends a task when it is dropped.
struct Background(AbortHandle);

impl Background {
    fn of(task: &JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn campaign(size: Size) {
    let (began, start, versions) = (chrono::Utc::now(), Instant::now(), report::versions());
    let Some(mut world) = World::start(size).await else {
        eprintln!("skipped: an engine of its own needs root");
        return;
    };
    let order = Order::default();
    let recorder = Recorder::new(order.clone());
    let listening = recorder.listen(world.engine.listen(recorder::PORT));
    let _listening = Background::of(&listening);
    world.deploy().await;
    let doors = Doors::of(&world, size);
    let mut schedules = add_schedules(&doors, size).await;
    world.roles.start_standby().await;

    let plan = plan::faults(size, world::clocks_can_be_moved());
    let rate = plan::rate(size, &plan);
    eprintln!(
        "{:.0} s of preparation; {} faults to come, {rate:.1} jobs a second",
        start.elapsed().as_secs_f64(),
        plan.len()
    );
    let reader = Reader::new(doors.clone(), order.clone());
    let load = Load::new(doors, order, reader.clone(), size);
    let _looking = watch(&reader, &load, size);
    let _printing = progress(&recorder, &load, start);
    let loading = tokio::spawn(load.clone().run(rate));
    let _loading = Background::of(&loading);
    let mut breaker = Breaker::new(&mut world, size, start);
    breaker.run(&plan).await;
    eprintln!("{} faults, and no more", breaker.faults.len());
    mind(&mut breaker, async { loading.await.unwrap() }).await;
    mind(&mut breaker, drained(&reader)).await;
    let mut history = History { until: now() / MINUTE * MINUTE, ..History::default() };
    mind(&mut breaker, read_all(&reader, &load, &mut schedules, &mut history)).await;
    // Whatever has ended stays as it is, whoever comes next.
    breaker.restart_everybody();
    mind(&mut breaker, read_again(&reader, &load)).await;

    history.faults = std::mem::take(&mut breaker.faults);
    let notes = notes(&breaker);
    (history.jobs, history.runs, history.reads) = (load.jobs(), recorder.runs(), reader.reads());
    history.schedules = schedules.into_iter().map(|(_, schedule)| schedule).collect();
    let refusals = load.refusals.lock().unwrap().clone().into_iter().collect();
    let head = Head { size, began, seconds: start.elapsed().as_secs(), versions, notes, refusals };
    conclude(&head, &history, &world);
}

/// Does it while processes that end are started again.
async fn mind<T>(breaker: &mut Breaker<'_>, what: impl Future<Output = T>) -> T {
    tokio::pin!(what);
    loop {
        tokio::select! {
            done = &mut what => return done,
            () = breaker.wait(Instant::now() + Duration::from_secs(1)) => {}
        }
    }
}

async fn add_schedules(doors: &Doors, size: Size) -> Vec<(&'static str, Schedule)> {
    let mut all = Vec::new();
    for n in 0..size.schedules {
        let skip = n % 2 == 1;
        let (function, name, asked) = (TICKS[n % 2], format!("every-minute-{n}"), now());
        doors.add_schedule(function, &name, if skip { "skip" } else { "run_once" }).await;
        all.push((function, Schedule { name, skip, asked, made: now(), fires: Vec::new() }));
    }
    all
}

/// Looks at accepted jobs all the time: what has ended once must never be seen otherwise.
fn watch(reader: &Reader, load: &Load, size: Size) -> Background {
    let load = load.clone();
    let some = move |number: u64| load.some_id(number);
    Background::of(&tokio::spawn(reader.clone().watch(some, size.seed)))
}

fn progress(recorder: &Recorder, load: &Load, start: Instant) -> Background {
    let (recorder, load) = (recorder.clone(), load.clone());
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(PROGRESS).await;
            let seconds = start.elapsed().as_secs();
            eprintln!(
                "{seconds:>6} s: {} jobs accepted, {} runs completed",
                load.accepted(),
                recorder.done()
            );
        }
    });
    Background::of(&task)
}

/// Nothing of the jobs waits or runs any more, or never will.
async fn drained(reader: &Reader) {
    let start = Instant::now();
    while start.elapsed() < DRAIN {
        if reader.is_idle(WORK).await && reader.is_idle(MORTAL).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eprintln!("something did not end within {DRAIN:?}");
}

async fn read_all(
    reader: &Reader,
    load: &Load,
    schedules: &mut [(&'static str, Schedule)],
    history: &mut History,
) {
    let start = Instant::now();
    for function in TICKS {
        // What does not come is found by the checker.
        while !reader.have_rung(function, history.until).await && start.elapsed() < Duration::from_secs(180) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    for (function, schedule) in schedules.iter_mut() {
        reader.fires(function, schedule).await;
    }
    history.listed_twice.extend(reader.list(WORK).await);
    history.listed_twice.extend(reader.list(MORTAL).await);
    reader.look_at_all(load.jobs().into_iter().flat_map(|job| job.ids).collect()).await;
    let fired = schedules.iter().flat_map(|(_, schedule)| &schedule.fires);
    let fired: Vec<String> =
        fired.filter(|f| f.due <= history.until).filter_map(|f| f.invocation.clone()).collect();
    // The last of them may still be at it.
    eventually_within(Duration::from_secs(300), "the schedules' functions to come to rest", async || {
        let states = [reader.is_idle(TICKS[0]).await, reader.is_idle(TICKS[1]).await];
        if states == [true, true] { Ok(()) } else { Err(states) }
    })
    .await;
    reader.look_at_all(fired).await;
}

async fn read_again(reader: &Reader, load: &Load) {
    for function in [WORK, MORTAL] {
        reader.list(function).await;
    }
    let jobs = load.jobs();
    let step = (jobs.len() / READ_AGAIN).max(1);
    let some = jobs.into_iter().step_by(step).flat_map(|job| job.ids).collect();
    reader.look_at_all(some).await;
}

fn notes(breaker: &Breaker<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if !world::clocks_can_be_moved() {
        notes.push("clocks were not moved: libfaketime is not installed".to_owned());
    }
    if !breaker.fell.is_empty() {
        notes.push(format!("ended by themselves and started again: {}", breaker.fell.join(", ")));
    }
    notes
}

fn conclude(head: &Head, history: &History, world: &World) {
    let (verdict, figures) = (check::judge(history), check::figures(history));
    let path = report::keep(head, &verdict, &figures, || world.roles.log());
    eprintln!("\n{}\nkept in {}", report::text(head, &verdict, &figures), path.display());
    let done = figures.counts.iter().any(|(name, n)| *name == "completed" && *n > 0);
    assert!(done, "nothing was done, so nothing was shown");
    assert!(verdict.0.is_empty(), "promises were broken; see above and {}", path.display());
}
