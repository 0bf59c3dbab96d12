//! The statements do what the rules say: the same random orders to both, the same answers and the same state after each.
//!
//! Time passes by moving every stored instant into the past. Whole steps of 20 seconds pass, and everything that waits
//! for time waits an odd number of tens of seconds, so that the real time which the test itself takes decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use davit_api::{
    ApiError, ErrorCode, FunctionId, GatewayId, InvocationId, InvocationSource, Priority, RetryPolicy,
};
use davit_registry::testing::TestDatabase;
use davit_registry::{ClaimFrom, JOB_LEASE, NewInvocation, Registry, Settlement, Start};
use sqlx::{Connection, PgConnection, Row};

use crate::chance::Chance;
use crate::rules::{End, Outcome, Queue, Wish};

const LIVES: u64 = 6;
const STEPS: u32 = 120;
const STEP: u64 = 20;

struct Both {
    rules: Queue,
    registry: Registry,
    sql: PgConnection,
    function: FunctionId,
    gateways: Vec<GatewayId>,
    /// From the rules' ids to the database's.
    ids: BTreeMap<u64, InvocationId>,
    receipts: Vec<(u64, u32)>,
    chance: Chance,
}

#[tokio::test]
async fn the_statements_do_what_the_rules_say() {
    for seed in 0..LIVES {
        let db = TestDatabase::new().await;
        let mut sql = PgConnection::connect(db.url()).await.unwrap();
        let made = "insert into namespaces (id, name) values (gen_random_uuid(), 'shop');
            insert into functions (id, namespace_id, name) select gen_random_uuid(), id, 'f' from namespaces";
        sqlx::raw_sql(made).execute(&mut sql).await.unwrap();
        let function = sqlx::query_scalar("select id from functions").fetch_one(&mut sql).await.unwrap();
        let mut both = Both {
            rules: Queue::default(),
            registry: db.registry().clone(),
            sql,
            function: FunctionId(function),
            gateways: (0..3).map(|_| GatewayId::new()).collect(),
            ids: BTreeMap::new(),
            receipts: Vec::new(),
            chance: Chance::new(seed),
        };
        for step in 0..STEPS {
            let order = both.step().await;
            assert_eq!(both.stored().await, both.ruled(), "seed {seed}, step {step}: {order}");
        }
    }
}

impl Both {
    /// One random order to both; answers what it was.
    async fn step(&mut self) -> String {
        match self.chance.below(12) {
            0..=3 => self.accept().await,
            4 | 5 => self.claim().await,
            6 | 7 => self.settle().await,
            8 => self.cancel().await,
            9 => {
                let which = self.chance.below(3);
                let held: Vec<_> = self.receipts.clone();
                self.rules.renew(which, &held);
                let held: Vec<_> = held.iter().map(|(id, attempt)| (self.ids[id], *attempt)).collect();
                self.registry.heartbeat_jobs(self.gateways[which as usize], &held, JOB_LEASE).await.unwrap();
                format!("gateway {which} renews")
            }
            10 => {
                let which = self.chance.below(3);
                self.rules.drop_gateway(which);
                self.registry.drop_gateway(self.gateways[which as usize]).await.unwrap();
                format!("gateway {which} is dropped")
            }
            _ => {
                self.rules.now += STEP;
                let aged = format!(
                    "update invocations set run_at = run_at - interval '{STEP} s', due_at = due_at - interval '{STEP} s',
                        accepted_at = accepted_at - interval '{STEP} s', lease_until = lease_until - interval '{STEP} s'"
                );
                sqlx::raw_sql(sqlx::AssertSqlSafe(aged)).execute(&mut self.sql).await.unwrap();
                self.rules.reclaim();
                self.registry.reclaim_lapsed().await.unwrap();
                "time passes".into()
            }
        }
    }

    async fn accept(&mut self) -> String {
        let wish = Wish {
            key: self.chance.percent(60).then(|| self.chance.below(2) as u8),
            priority: self.chance.below(3) as u8,
            delay: if self.chance.percent(25) { 10 + STEP * self.chance.below(3) } else { 0 },
            max_attempts: 1 + self.chance.below(3) as u32,
        };
        let policy = RetryPolicy { max_attempts: wish.max_attempts, ..RetryPolicy::default() };
        let new = NewInvocation::new(
            "shop".parse().unwrap(),
            self.function,
            InvocationSource::Async,
            b"{}".to_vec(),
            policy,
        );
        let new = NewInvocation {
            ordering_key: wish.key.map(|key| key.to_string()),
            priority: [Priority::Low, Priority::Normal, Priority::High][wish.priority as usize],
            start: if wish.delay == 0 { Start::Now } else { Start::After(Duration::from_secs(wish.delay)) },
            ..new
        };
        let id = self.registry.enqueue(new).await.unwrap();
        let known = self.rules.accept(wish);
        self.ids.insert(known, id);
        format!("{known} is accepted: {wish:?}")
    }

    async fn claim(&mut self) -> String {
        let (which, n) = (self.chance.below(3), 1 + self.chance.below(4));
        let ruled = self.rules.claim(which, n as usize);
        let gateway = self.gateways[which as usize];
        let jobs = self.registry.claim(gateway, n as u32, &mut ClaimFrom::default()).await.unwrap();
        let mut claimed: Vec<_> = jobs.iter().map(|job| (job.id, job.attempt)).collect();
        let mut expected: Vec<_> = ruled.iter().map(|(id, attempt)| (self.ids[id], *attempt)).collect();
        claimed.sort();
        expected.sort();
        assert_eq!(claimed, expected, "a claim of {n}");
        self.receipts.extend(&ruled);
        format!("gateway {which} claims {ruled:?}")
    }

    /// With any receipt that was ever given out: most are no longer good.
    async fn settle(&mut self) -> String {
        if self.receipts.is_empty() {
            return "nothing to settle".into();
        }
        let receipt = self.receipts[self.chance.below(self.receipts.len() as u64) as usize];
        let error = || ApiError::new(ErrorCode::FunctionError, "boom").body();
        let (outcome, settlement) = match self.chance.below(5) {
            0 => (Outcome::End(End::Dead), Settlement::Dead { error: error() }),
            1 => (Outcome::End(End::Cancelled), Settlement::Cancelled),
            2 => {
                let delay = 10 + STEP * self.chance.below(3);
                let again =
                    Settlement::RetryAt { delay: Duration::from_secs(delay), error: error(), counts: true };
                (Outcome::Again(delay), again)
            }
            _ => (Outcome::End(End::Succeeded), Settlement::Succeeded { result: b"1".to_vec() }),
        };
        let ruled = self.rules.settle(receipt, outcome);
        let stored = self.registry.settle(self.ids[&receipt.0], receipt.1, settlement).await.unwrap();
        assert_eq!(stored, ruled, "{receipt:?} as {outcome:?}");
        format!("{receipt:?} is settled as {outcome:?}: {ruled}")
    }

    async fn cancel(&mut self) -> String {
        if self.ids.is_empty() {
            return "nothing to cancel".into();
        }
        let id = 1 + self.chance.below(self.ids.len() as u64);
        self.rules.cancel(id);
        // One that has ended is refused, which changes nothing.
        let operator = self.registry.as_davit("invocations.cancel");
        let _ = operator.cancel_invocation(&"shop".parse().unwrap(), self.ids[&id]).await;
        format!("{id} is cancelled")
    }

    /// Every invocation as one line: where it is, and what a claim would look at.
    async fn stored(&mut self) -> BTreeMap<InvocationId, String> {
        let rows = sqlx::query(
            "select id, state, attempt, in_turn, cancel_requested from invocations
             union all select id, state, attempt, true, false from ended_invocations",
        )
        .fetch_all(&mut self.sql)
        .await
        .unwrap();
        let lines = rows.iter().map(|row| {
            let (state, attempt): (String, i32) = (row.get("state"), row.get("attempt"));
            let (in_turn, cancel): (bool, bool) = (row.get("in_turn"), row.get("cancel_requested"));
            (InvocationId(row.get("id")), format!("{state} {attempt} {in_turn} {cancel}"))
        });
        lines.collect()
    }

    fn ruled(&self) -> BTreeMap<InvocationId, String> {
        let open = self.rules.jobs.iter().map(|(id, job)| {
            let state = if job.lease.is_some() { "running" } else { "queued" };
            (self.ids[id], format!("{state} {} {} {}", job.attempt, job.in_turn, job.cancel))
        });
        let over = self.rules.ended.iter().map(|(id, (end, attempt))| {
            let state = format!("{end:?}").to_lowercase();
            (self.ids[id], format!("{state} {attempt} true false"))
        });
        open.chain(over).collect()
    }
}
