//! A deploy that is cut short does no harm: what was live stays live, and doing it again is enough.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use davit_e2e::{Chance, Davit, containers_in_role, eventually, eventually_within, python_folder};

fn version(word: &str) -> tempfile::TempDir {
    let settings = "access = \"public\"\npayload = \"body\"\n";
    python_folder("word", settings, &format!("def handler(event, context):\n    return '{word}'\n"))
}

/// Where in a deploy the kill comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Upload,
    Queued,
    Building,
    FirstStart,
}

#[tokio::test]
async fn a_deploy_cut_short_by_a_kill_leaves_the_old_version_answering_and_can_be_repeated() {
    let mut chance = Chance::new();
    // Containers kept warm for the next deploy would look like those of one that was abandoned.
    let mut davit = Davit::up_with(&[("DAVIT_BUILD_KEEP_WARM", "0s")]).await;
    davit.cli().deploy(version("first").path()).await;
    let mut live = "first".to_owned();
    for moment in [Moment::Upload, Moment::Queued, Moment::Building, Moment::FirstStart] {
        let folder = version(&format!("cut-{moment:?}"));
        cut_short(&mut davit, &mut chance, folder.path(), moment).await;
        davit.start().await;
        let word = answer(&davit).await;
        assert!(word == live || word == format!("cut-{moment:?}"), "after a kill at {moment:?}: {word}");

        live = format!("again-{moment:?}");
        davit.cli().deploy(version(&live).path()).await;
        eventually("the repeated deploy to answer", async || {
            let word = answer(&davit).await;
            if word == live { Ok(()) } else { Err(word) }
        })
        .await;
    }
    the_abandoned_ones_end_and_take_nothing_back(&davit, &live).await;
}

/// Starts `davit deploy` and kills the davit that it talks to.
async fn cut_short(davit: &mut Davit, chance: &mut Chance, folder: &Path, moment: Moment) {
    if moment == Moment::Queued {
        // `--no-wait` returns when the version is on record, and nobody has had time to do more.
        let accepted = davit.cli().try_in(folder, &["deploy", "--no-wait"]).await;
        assert_eq!(accepted.code, 0, "{accepted:?}");
        return davit.kill();
    }
    let installation = davit.endpoint("installation");
    let cli = davit.cli();
    let folder = folder.to_owned();
    let client = tokio::spawn(async move { cli.try_in(&folder, &["deploy"]).await });
    let role = match moment {
        Moment::Building => "builder",
        Moment::FirstStart => "smoke",
        Moment::Upload | Moment::Queued => "",
    };
    if !role.is_empty() {
        eventually(role, async || {
            let there = containers_in_role(&installation, role);
            if there.is_empty() && !client.is_finished() { Err("not yet") } else { Ok(()) }
        })
        .await;
    }
    chance.pause(Duration::from_millis(150)).await;
    davit.kill();
    let told = tokio::time::timeout(Duration::from_secs(60), client).await;
    let told = told.expect("the client does not wait for ever").expect("its task ends");
    assert!(matches!(told.code, 0 | 1 | 6), "at {moment:?}: {told:?}");
}

async fn answer(davit: &Davit) -> String {
    eventually("an answer", async || {
        let answer = davit.http.post(davit.url("/default/word")).body("{}").send().await;
        let answer = answer.map_err(|e| format!("{e:?}"))?;
        let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
        if status == 200 { Ok(text.trim().trim_matches('"').to_owned()) } else { Err(text) }
    })
    .await
}

async fn the_abandoned_ones_end_and_take_nothing_back(davit: &Davit, live: &str) {
    // A builder that went silent is taken for dead after a minute.
    eventually_within(Duration::from_secs(150), "every version to be ready or failed", async || {
        let versions = davit.cli().json(&["versions", "word"]).await;
        let ended = |v: &serde_json::Value| v["state"] == "ready" || v["state"] == "failed";
        if versions.as_array().unwrap().iter().all(ended) { Ok(()) } else { Err(versions) }
    })
    .await;
    let versions = davit.cli().json(&["versions", "word"]).await;
    assert!(
        versions.as_array().unwrap().iter().all(|v| v["state"] == "ready"),
        "all of them are good: {versions}"
    );
    assert_eq!(answer(davit).await, live, "a late version must not overtake a newer one");
    let installation = davit.endpoint("installation");
    for role in ["builder", "smoke"] {
        eventually("no container of an abandoned deploy to be left", async || {
            let left = containers_in_role(&installation, role);
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
    let work = Command::new("find").arg(davit.state()).args(["-maxdepth", "2"]).output().unwrap();
    let work = String::from_utf8_lossy(&work.stdout).into_owned();
    assert!(!work.contains(".part"), "half of an artifact is left: {work}");
}
