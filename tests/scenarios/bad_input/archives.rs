//! Source archives that are not what they should be.

use std::io::Write;

use davit_e2e::{Answer, Api};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::{davit_and_stranger, refused, state};

/// A compressed tar with one entry after another, each with its header filled in by hand: a well-behaved
/// library would refuse to write most of these.
fn archive(entries: &[(&[u8], EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, kind, content) in entries {
        tar.extend(entry(name, *kind, content));
    }
    tar.resize(tar.len() + 1024, 0);
    compressed(&tar)
}

fn entry(name: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    let link = matches!(kind, EntryType::Symlink | EntryType::Link);
    header.set_size(if link { 0 } else { content.len() as u64 });
    if link {
        header.set_link_name_literal(content).expect("a short link");
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    if !link {
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

async fn upload(api: &Api, digest: &str, bytes: Vec<u8>) -> Answer {
    let url = format!("{}/v1/namespaces/default/artifacts/{digest}", api.management);
    api.send(api.http.put(url).header("content-type", "application/gzip").body(bytes)).await
}

fn bad_archives() -> Vec<(&'static str, Vec<u8>)> {
    let file = EntryType::Regular;
    let good = archive(&[(b"app.py", file, b"x = 1\n")]);
    let one = |name: &'static [u8], kind, content: &'static [u8]| archive(&[(name, kind, content)]);
    let many: Vec<u8> = (0..100_001).flat_map(|n| entry(format!("f{n}").as_bytes(), file, b"")).collect();
    let deep = "d/".repeat(49) + "x";
    vec![
        ("a symbolic link out", one(b"app.py", EntryType::Symlink, b"/etc/passwd")),
        ("a symbolic link inside", one(b"app.py", EntryType::Symlink, b"other.py")),
        ("a hard link", one(b"app.py", EntryType::Link, b"/etc/passwd")),
        ("a character device", one(b"null", EntryType::Char, b"")),
        ("a block device", one(b"sda", EntryType::Block, b"")),
        ("a pipe", one(b"pipe", EntryType::Fifo, b"")),
        ("a name that climbs", one(b"../../etc/cron.d/x", file, b"x")),
        ("a name that climbs in its middle", one(b"a/../../b", file, b"x")),
        ("an absolute name", one(b"/etc/cron.d/x", file, b"x")),
        ("a backslash", one(b"a\\..\\b", file, b"x")),
        ("a line end in a name", one(b"a\nb", file, b"x")),
        ("a name that is not UTF-8", one(b"\xff\xfe", file, b"x")),
        ("one name twice", archive(&[(b"a", file, b"1"), (b"a", file, b"2")])),
        ("a file as a folder", archive(&[(b"a", file, b"1"), (b"a/b", file, b"2")])),
        ("no file at all", archive(&[(b"folder/", EntryType::Directory, b"")])),
        ("too many files", compressed(&many)),
        ("a bomb", compressed(&entry(b"zeros", file, &vec![0; 80 << 20]))),
        ("cut short", good[..good.len() - 10].to_vec()),
        ("something behind its end", [good.as_slice(), b"more"].concat()),
        ("a tar that is not compressed", entry(b"app.py", file, b"x")),
        ("nothing", Vec::new()),
        ("two archives in one", [good.as_slice(), good.as_slice()].concat()),
        // Not refused by their names, but by how they go together.
        ("a deep name that is a file and a folder", {
            archive(&[(deep.as_bytes(), file, b"1"), ((deep.clone() + "/y").as_bytes(), file, b"2")])
        }),
    ]
}

#[tokio::test]
async fn archives_with_tricks_in_them_are_refused_and_not_kept() {
    let (davit, _) = davit_and_stranger().await;
    let (api, before) = (davit.api(), state(&davit).await);
    for (what, bytes) in bad_archives() {
        let digest = digest(&bytes);
        refused(what, &upload(&api, &digest, bytes).await);
        let version = json!({"spec": {"runtime": "python3.13", "handler": "app.handler"}, "source": digest});
        let made = api.post("/v1/namespaces/default/functions/echo/versions", &version).await;
        refused(&format!("a version of {what}"), &made);
    }
    let good = archive(&[(b"app.py", EntryType::Regular, b"x = 1\n")]);
    for (what, digest) in [
        ("another archive's digest", digest(b"other")),
        ("no digest", "app.tar.gz".to_owned()),
        ("a digest that is too short", digest(b"other")[..40].to_owned()),
        ("another kind of digest", digest(&good).replace("sha256", "sha512")),
    ] {
        refused(what, &upload(&api, &digest, good.clone()).await);
    }
    assert_eq!(state(&davit).await, before);
    assert_eq!(upload(&api, &digest(&good), good).await.status, 200, "a good one is taken");
}
