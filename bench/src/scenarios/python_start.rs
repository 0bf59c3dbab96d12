//! Pooled cold start of a Python handler against the start of `python3` with the same imports, in a container
//! that runs already. Once without imports, and once with those of the standard library that handlers usually have.

use super::Scenario;
use super::cold::{Handler, against_process};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::programs::{PYTHON, PYTHON_PROCESS};

const GOAL: Goal = Goal::AtMost { target: 1.0 / 5.0, stretch: 1.0 / 10.0 };

static PLAIN: Figure = Figure {
    id: "S4",
    name: "Python cold start, no imports: pooled / python3 start",
    unit: "ms",
    goal: GOAL,
};
static USUAL: Figure = Figure {
    id: "S4a",
    name: "Python cold start, usual standard library: pooled / python3 start",
    unit: "ms",
    goal: GOAL,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "python-start",
    about: "pooled cold start of a Python function / python3 with the same imports as a plain process",
    figures: &[&PLAIN, &USUAL],
    run: |bench| Box::pin(run(bench)),
};

const IMPORTS: &str = "import datetime, hashlib, json, logging, os, re, urllib.request, uuid\n";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let usual = format!("{IMPORTS}{PYTHON}");
    for (figure, name, text) in [(&PLAIN, "plain", PYTHON), (&USUAL, "usual", usual.as_str())] {
        let handler = Handler {
            figure,
            name,
            runtime: "python3.13",
            handler: "app.handler",
            files: &[("app.py", text)],
            command: PYTHON_PROCESS,
        };
        against_process(bench, &handler).await?;
    }
    Ok(())
}
