//! The part of `davit doctor` that looks at a Kubernetes cluster.

use davit_controller::backend::kubernetes::check::{self, Checked};
use davit_controller::backend::kubernetes::config::Config;
use davit_controller::registry_login::Logins;

use super::{Finding, Verdict};

/// All that is to be said about it.
pub(super) async fn findings(config: &Config, logins: Logins) -> Vec<Finding> {
    check::check(config, logins).await.into_iter().map(finding).collect()
}

fn finding(checked: Checked) -> Finding {
    let verdict = match checked.verdict {
        check::Verdict::Good => Verdict::Good,
        check::Verdict::Note => Verdict::Warning,
        check::Verdict::Missing => Verdict::Missing,
    };
    Finding { what: checked.what, verdict, found: checked.found, advice: checked.advice }
}
