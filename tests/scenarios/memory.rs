//! A host that is full of idle instances has room for a call all the same.

use davit_e2e::Davit;

const ECHO: &str = "def handler(event, context):\n    return event\n";

#[tokio::test]
async fn a_call_that_finds_no_room_gets_the_place_of_what_is_idle() {
    // Room for two instances of 256 MiB and not for a third; no pool, so that nothing else can be thrown out.
    let davit = Davit::up_with(&[("DAVIT_MEMORY_MB", "640"), ("DAVIT_POOL_BASE", "0")]).await;
    let cli = davit.cli();
    for name in ["first", "second", "third"] {
        cli.deploy_python(name, "memory_mb = 256\nkeep_alive_seconds = 3600\ntimeout_seconds = 60", ECHO)
            .await;
    }
    // Round and round: each has to make room for the next, and would otherwise stay for an hour.
    for n in 0..6 {
        let name = ["first", "second", "third"][n % 3];
        let answer = cli.invoke(name, &format!("{{\"n\":{n}}}")).await;
        assert_eq!(answer.json()["n"], n);
    }
}
