//! Pooled cold start of a function that imports boto3 and makes a client, against `python3` doing the same. The
//! runtime's own warm-up has made an S3 client before; one of another service shows what that is worth.

use super::Scenario;
use super::cold::{Handler, against_process};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::programs::{PYTHON, PYTHON_PROCESS};

static S3: Figure = Figure {
    id: "S4b",
    name: "Python cold start with a boto3 S3 client: pooled / python3 start",
    unit: "ms",
    goal: Goal::AtMost { target: 1.0 / 10.0, stretch: 1.0 / 40.0 },
};
static OTHER: Figure = Figure {
    id: "S4b'",
    name: "the same with a client that no warm-up made (SNS)",
    unit: "ms",
    goal: Goal::None,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "boto3-start",
    about: "pooled cold start of a function with a boto3 client / python3 making the same client",
    figures: &[&S3, &OTHER],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &mut Bench) -> crate::Result<()> {
    for (figure, service) in [(&S3, "s3"), (&OTHER, "sns")] {
        let text =
            format!("import boto3\nclient = boto3.client('{service}', region_name='eu-central-1')\n{PYTHON}");
        let handler = Handler {
            figure,
            name: &format!("boto3-{service}"),
            runtime: "python3.13",
            handler: "app.handler",
            files: &[("app.py", &text)],
            command: PYTHON_PROCESS,
        };
        against_process(bench, &handler).await?;
    }
    Ok(())
}
