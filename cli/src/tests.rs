//! The command line itself.

use clap::{CommandFactory, Parser};

use crate::Davit;

#[test]
fn clap_finds_no_contradiction() {
    Davit::command().debug_assert();
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in Davit::command().get_subcommands().filter(|c| !c.is_hide_set()) {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Example") && after.contains("davit "), "{}", command.get_name());
    }
}

#[test]
fn what_users_type_is_understood() {
    for line in [
        "invoke hello {} --async --output json",
        "invoke hello @event.json --logs --timing -v",
        "invoke hello -",
        "event http --method POST --path /x?y=1 --body {}",
        "event sqs --body a --body b",
        "images save some.tar node20 provided --force",
        "invoke hello --file x.json",
        "deploy examples/user-auth -n shop --no-wait",
        "runtimes upgrade --runtime python3.13 --yes --now",
        "runtimes upgrade hello --canary 5,50 --max-errors 1%",
        "openapi check openapi.yaml --base /v2",
        "schedule add tick nightly '30 2 * * *' --timezone Europe/Berlin",
        "schedule history tick nightly --output json",
        "token create --role read --namespace default reader",
        "secret set api-key --file x",
        "topic publish orders {} --type order.created --id 7",
        "topic subscribe orders --function billing --ordering subject --max-attempts 5",
        "topic subscribe orders --webhook https://example.com/ --name partner",
        "topic replay orders --from 2030-01-01T00:00:00Z --subscription billing",
        "topic subscribe orders --function billing --replace",
        "topic delete orders --yes",
        "source create webhook pushes --to function:build --verify github --secret hook",
        "source create webhook shop --to function:f --verify stripe --secret hook --tolerance 90s --paused",
        "source create postgres orders --to function:on-order --connection-secret db --table public.orders",
        "source create postgres o --to function:f --connection-secret db --table t --events insert,delete --columns a,b --order none --batch 10 --batch-wait 2s --backlog 50 --manual",
        "source sql orders --remove",
        "source delete pushes",
        "source delete orders --yes --leave-outbox",
        "invoke hello:7 {}",
        "invoke hello@beta {} --async",
        "deploy --description faster --alias beta",
        "deploy --no-live",
        "deploy --image registry.example.com/team/app:1.4 --kind server --image-secret registry --name app",
        "deploy --now",
        "deploy --canary 5,25,50 --interval 2m --max-errors 1% --max-latency p95:1.2x --min-calls 20",
        "apply -f shop --plan --prune",
        "apply --dry-run -o json",
        "apply --yes --prune",
        "dev",
        "dev examples/shop --port 9000 --event hello=event.json --env-file x --keep",
        "invoke hello {} --local",
        "invoke hello --local=examples/shop {}",
        "promote hello 7",
        "promote hello beta --canary 10",
        "alias set hello live 6=90 7=10 --sticky cookie:session",
        "alias list hello",
        "alias delete hello beta --yes",
        "canary status hello",
        "diff hello v3 v7 --files",
        "versions delete hello 3 4 --yes",
        "versions keep --newest 5",
        "versions keep hello --reset",
        "rollback hello --version 3",
        "rollback hello --to 3",
        "delete hello --yes",
        "ls",
        "list --search order- --runtime node20 --limit 5",
        "list --all",
        "versions hello --limit 1",
        "completion zsh",
        "schema",
    ] {
        let words = line.replace("'30 2 * * *'", "30+2+*+*+*");
        let words = words.split(' ').map(|w| w.replace('+', " "));
        assert!(Davit::try_parse_from(std::iter::once("davit".to_owned()).chain(words)).is_ok(), "{line}");
    }
    for line in [
        "invoke Hello",
        "topic subscribe orders",
        "topic subscribe orders --webhook https://example.com/",
        "topic subscribe orders --function f --filter {",
        "topic replay orders --subscription billing",
        "invoke hello {} --file x",
        "invoke hello {} --async --logs",
        "invoke hello:beta",
        "invoke hello@Beta",
        "deploy --interval 2m",
        "deploy --canary x",
        "deploy --canary 5 --alias beta",
        "deploy --canary 5 --max-latency 95",
        "promote hello",
        "alias set hello live",
        "alias set hello live 6:90",
        "alias set hello live 6 --sticky query:x",
        "versions delete hello",
        "deploy -n v1",
        "source create webhook x --to build --verify none",
        "source create webhook x --to function:f",
        "source create webhook x --to function:f --verify md5",
        "source create postgres x --to function:f --table t",
        "source create postgres x --to function:f --connection-secret s --table a.b.c",
        "source create postgres x --to function:f --connection-secret s --table t --events insert,select",
        "token create x",
        "list -o yaml",
        "list --limit 0",
        "list --limit 5 --all",
        "list --search a_b",
        "versions hello --limit many",
    ] {
        let words = std::iter::once("davit").chain(line.split(' '));
        let error = Davit::try_parse_from(words).err().unwrap_or_else(|| panic!("{line} was taken"));
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}
