//! Pooled cold start of a Node handler against the start of `node` with the same module, in a container that runs
//! already.

use super::Scenario;
use super::cold::{Handler, against_process};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};

static FIGURE: Figure = Figure {
    id: "S5",
    name: "Node cold start: pooled / node start",
    unit: "ms",
    goal: Goal::AtMost { target: 1.0 / 5.0, stretch: 1.0 / 10.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "node-start",
    about: "pooled cold start of a Node function / node with the same module as a plain process",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

const HANDLER: &str = "exports.handler = async () => ({ statusCode: 200, headers: { 'content-type': 'text/plain' }, body: 'hello\\n' });\n";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let handler = Handler {
        figure: &FIGURE,
        name: "node",
        runtime: "node20",
        handler: "index.handler",
        files: &[("index.js", HANDLER)],
        command: &[
            "/usr/bin/node",
            "-e",
            "require('/s/index.js').handler({}).then(r => process.stdout.write(r.body))",
        ],
    };
    against_process(bench, &handler).await
}
