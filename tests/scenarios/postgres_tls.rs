//! A Postgres that is reached by TLS alone, and wants to know who comes.

use std::process::Command;

use davit_e2e::{Davit, Keys, Postgres, binary_path};

/// Settings of a process that shows the certificate of one authority, and trusts that of another.
fn settings(url: &str, own: &Keys, trusted: &Keys) -> Vec<(&'static str, String)> {
    let path = |keys: &Keys, name| keys.path(name).display().to_string();
    vec![
        ("DATABASE_URL", url.to_owned()),
        ("PGSSLMODE", "verify-full".to_owned()),
        ("PGSSLROOTCERT", path(trusted, "ca.crt")),
        ("PGSSLCERT", path(own, "davit.crt")),
        ("PGSSLKEY", path(own, "davit.key")),
    ]
}

fn migrate(settings: &[(&str, String)]) -> (bool, String) {
    let output = Command::new(binary_path()).arg("migrate").envs(settings.iter().cloned()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), said.concat())
}

#[tokio::test]
async fn davit_and_its_postgres_show_each_other_certificates() {
    let postgres = Postgres::start_new_with_port().await;
    let keys = postgres.demand_certificates();
    let url = postgres.url().replace(":any@", "@");
    let strangers = Keys::for_server("127.0.0.1");

    let (done, said) = migrate(&settings(&url, &keys, &strangers));
    assert!(!done && said.contains("certificate"), "a server of another authority: {said}");
    let (done, said) = migrate(&settings(&url, &strangers, &keys));
    assert!(!done, "a client of another authority: {said}");
    let (done, said) = migrate(&[("DATABASE_URL", url.clone()), ("PGSSLMODE", "disable".to_owned())]);
    assert!(!done && said.contains("no encryption"), "without TLS: {said}");

    let good = settings(&url, &keys, &keys);
    let good: Vec<_> = good.iter().map(|(name, value)| (*name, &**value)).collect();
    let davit = Davit::up_with(&good).await;
    let cli = davit.cli();
    cli.deploy_python("hello", "", "def handler(event, context):\n    return 'fine'\n").await;
    assert_eq!(cli.invoke("hello", "{}").await.json(), "fine");
    let plain = "select count(*) from pg_stat_activity a left join pg_stat_ssl s using (pid)
        where a.datname = 'davit' and a.client_addr is not null and not coalesce(s.ssl, false)";
    assert_eq!(postgres.ask(plain), ["0"], "every connection is encrypted");
    let all = "select count(*) > 0 from pg_stat_activity a join pg_stat_ssl s using (pid) where s.client_dn like '%CN=davit%'";
    assert_eq!(postgres.ask(all), ["t"]);
}
