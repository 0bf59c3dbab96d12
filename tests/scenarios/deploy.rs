//! Deploys that do not go through at once: over a line that keeps breaking, and cancelled by whoever began them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use davit_e2e::{Chance, Davit, containers_in_role, eventually, folder_of, python_folder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A connection is cut when so many bytes have gone through it.
const CUT_AFTER: u64 = 3 << 20;
/// Cannot be compressed, so that it takes several connections.
const DATA: usize = 8 << 20;

/// A line to `to` whose connections break; its address, and how many bytes have gone there in all.
async fn line(to: String) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Arc::<AtomicU64>::default());
    let counted = sent.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let counted = counted.clone();
            tokio::spawn(carry(client, server, counted));
        }
    });
    (format!("http://{address}"), sent)
}

async fn carry(mut client: TcpStream, mut server: TcpStream, counted: Arc<AtomicU64>) {
    let (mut there, mut back, mut through) = (vec![0; 64 * 1024], vec![0; 64 * 1024], 0);
    while through < CUT_AFTER {
        let moved = tokio::select! {
            read = client.read(&mut there) => match read {
                Ok(read @ 1..) => {
                    through += read as u64;
                    counted.fetch_add(read as u64, Ordering::Relaxed);
                    server.write_all(&there[..read]).await
                }
                _ => return,
            },
            read = server.read(&mut back) => match read {
                Ok(read @ 1..) => client.write_all(&back[..read]).await,
                _ => return,
            },
        };
        if moved.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_its_connection_broke_off() {
    let davit = Davit::up().await;
    let folder = python_folder(
        "heavy",
        "",
        "import os\ndef handler(event, context):\n    return os.path.getsize('data')\n",
    );
    let mut chance = Chance::of(1);
    let data: Vec<u8> = (0..DATA / 8).flat_map(|_| chance.below(u64::MAX).to_le_bytes()).collect();
    std::fs::write(folder.path().join("data"), data).unwrap();
    let management = davit.api().management.replace("http://", "");
    let (url, sent) = line(management).await;
    let cli = davit.cli().with_setting("DAVIT_URL", &url);
    let deployed = cli.try_in(folder.path(), &["deploy"]).await;
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert!(deployed.stderr.contains("going on after"), "{deployed:?}");
    // Some of what is on its way when a connection breaks has to be sent again.
    let sent = sent.load(Ordering::Relaxed) as usize;
    assert!(sent < DATA + DATA / 2, "{sent} bytes were sent for {DATA}");
    assert_eq!(davit.cli().invoke("heavy", "{}").await.json(), DATA);
}

#[tokio::test]
async fn a_build_is_cancelled_and_leaves_nothing_behind() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let files = |script: &str| {
        let package = format!("{{\"scripts\": {{\"install\": \"{script}\"}}}}");
        folder_of(&[
            ("davit.toml", "name = \"slow\"\nruntime = \"node20\"\nhandler = \"index.handler\"\n"),
            ("index.js", "exports.handler = async () => 'ready';\n"),
            ("package.json", &package),
        ])
    };
    cli.deploy(files("true").path()).await;
    let builders = || containers_in_role(&davit.endpoint("installation"), "builder");
    let slow = files("echo at work && sleep 300");
    let building = async |count: usize| {
        eventually("the build to be under way", async || {
            let versions = cli.json(&["versions", "slow"]).await;
            let newest = versions[0].clone();
            let under_way = versions.as_array().map(Vec::len) == Some(count) && newest["state"] == "building";
            if under_way && !builders().is_empty() { Ok(()) } else { Err(newest) }
        })
        .await;
    };

    // By Ctrl-C.
    let deploy = cli.start_in(slow.path(), &["deploy"]);
    building(2).await;
    deploy.interrupt();
    let ended = deploy.ended().await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("version 2 of slow is cancelled"), "{ended:?}");
    let cancelled = cli.json(&["versions", "slow"]).await[0].clone();
    assert_eq!(
        (&cancelled["state"], &cancelled["error"]),
        (&"failed".into(), &"the build was cancelled".into())
    );

    // By somebody else, who is told what there is to cancel.
    let deploy = cli.start_in(slow.path(), &["deploy"]);
    building(3).await;
    cli.run(&["versions", "cancel", "slow", "3"]).await;
    let ended = deploy.ended().await;
    assert!(ended.code == 1 && ended.stderr.contains("the build was cancelled"), "{ended:?}");
    let again = cli.attempt(&["versions", "cancel", "slow", "3"]).await;
    assert!(
        again.code != 0 && again.stderr.contains("version 3 is failed: there is no build to cancel"),
        "{again:?}"
    );
    assert_eq!(cli.attempt(&["versions", "cancel", "slow", "9"]).await.code, 5);

    eventually("the builders to be gone", async || {
        let now = builders();
        if now.is_empty() { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(cli.invoke("slow", "{}").await.json(), "ready");
}
