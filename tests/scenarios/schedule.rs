//! The clock as a caller. What it does when davit is killed stands in `kill/clock.rs`.

use davit_e2e::Davit;

#[tokio::test]
async fn lines_that_never_fire_or_make_no_sense_are_refused() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_example("user-auth").await;
    for line in ["60 * * * *", "*/0 * * * *", "0 0 31 2 *", "* * * * * *", "nonsense"] {
        let output = cli.attempt(&["schedule", "add", "user-auth", "bad", line]).await;
        assert_ne!(output.code, 0, "{line} was accepted");
    }
    let zone =
        cli.attempt(&["schedule", "add", "user-auth", "bad", "* * * * *", "--timezone", "Mars/Base"]).await;
    assert_ne!(zone.code, 0);
}
