use std::io::Write as _;

use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

fn archive(name: &str, files: &[(&str, u32, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    for (name, mode, text) in files {
        let options = SimpleFileOptions::default().unix_permissions(*mode);
        if *mode == 0 {
            zip.add_symlink(*name, *text, options).unwrap();
        } else {
            zip.start_file(*name, options).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
    }
    zip.finish().unwrap();
    (folder, path)
}

fn unpacked(packed: &Packed) -> Vec<(String, u32, String)> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(packed.bytes.as_slice()));
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, entry.header().mode().unwrap(), text)
    });
    entries.collect()
}

#[test]
fn a_function_and_its_layers_are_merged_in_their_order() {
    let (_a, zip) =
        archive("f.zip", &[("app.py", 0o644, "1"), ("run.sh", 0o755, "2"), ("same.py", 0, "app.py")]);
    let (_b, one) = archive(
        "one.zip",
        &[("python/a.py", 0o644, "old"), ("python/b.py", 0o644, "b"), ("LICENSE", 0o644, "x")],
    );
    let (_c, two) = archive("two.zip", &[("python/a.py", 0o644, "new"), ("bin/tool", 0o755, "t")]);
    let notes = std::cell::RefCell::new(Vec::new());
    let packed = pack(&zip, &[one, two], |note| notes.borrow_mut().push(note.to_owned())).unwrap();
    let file = |name: &str, mode, text: &str| (name.to_owned(), mode, text.to_owned());
    let expected = [
        file(".opt/bin/tool", 0o755, "t"),
        file(".opt/python/a.py", 0o644, "new"),
        file(".opt/python/b.py", 0o644, "b"),
        file("app.py", 0o644, "1"),
        file("run.sh", 0o755, "2"),
        file("same.py", 0o644, "1"),
    ];
    assert_eq!(unpacked(&packed), expected);
    let notes = notes.into_inner();
    assert!(notes.len() == 1 && notes[0].contains("LICENSE"), "{notes:?}");
}

#[test]
fn a_bootstrap_that_lost_its_bit_gets_it_back() {
    let (_a, zip) = archive("f.zip", &[("bootstrap", 0o644, "#!/bin/sh\n")]);
    assert_eq!(unpacked(&pack(&zip, &[], |_| {}).unwrap())[0].1, 0o755);
}

#[test]
fn what_is_wrong_with_an_archive_is_named() {
    let refused = |files: &[(&str, u32, &str)], layer: Option<&[(&str, u32, &str)]>| {
        let (_a, zip) = archive("f.zip", files);
        let layer = layer.map(|files| archive("layer.zip", files));
        let layers: Vec<PathBuf> = layer.iter().map(|(_, path)| path.clone()).collect();
        match pack(&zip, &layers, |_| {}) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{:?}", other.map(|packed| packed.files)),
        }
    };
    assert!(refused(&[("../evil.py", 0o644, "")], None).contains("../evil.py"));
    assert!(refused(&[("gone.py", 0, "nowhere.py")], None).contains("gone.py"));
    assert!(refused(&[("out.py", 0, "../../etc/passwd")], None).contains("out.py"));
    assert!(refused(&[("a", 0, "b"), ("b", 0, "a")], None).contains("\"a\""));
    assert!(refused(&[(".opt/python/a.py", 0o644, "")], None).contains("--layer"));
    assert!(refused(&[("app.py", 0o644, "")], Some(&[("app.py", 0o644, "")])).contains("layer.zip"));
    let (_a, zip) = archive("f.zip", &[("app.py", 0o644, "")]);
    let many = vec![zip.clone(); 6];
    assert!(matches!(pack(&zip, &many, |_| {}), Err(Failure::Usage(text)) if text.contains("limit is 5")));
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("not.zip");
    std::fs::write(&text, "no zip").unwrap();
    assert!(matches!(pack(&text, &[], |_| {}), Err(Failure::Usage(text)) if text.contains("not.zip")));
}

#[test]
fn settings_come_from_the_options_and_over_a_manifest() {
    let (name, runtime) = ("told".parse().unwrap(), "node20".parse().unwrap());
    let told = Told { name: Some(&name), runtime: Some(&runtime), handler: Some("index.handler") };
    let alone = told.alone(Path::new("x.zip")).unwrap();
    assert_eq!((alone.name.as_str(), alone.runtime.as_str()), ("told", "node20"));
    let nothing = Told { name: None, runtime: None, handler: None };
    assert!(
        matches!(nothing.alone(Path::new("x.zip")), Err(Failure::Usage(text)) if text.contains("--runtime"))
    );
    let some = Told { name: None, runtime: Some(&runtime), handler: Some("index.handler") };
    assert_eq!(some.alone(Path::new("dir/my-function.zip")).unwrap().name.as_str(), "my-function");
    assert!(
        matches!(some.alone(Path::new("My Function.zip")), Err(Failure::Usage(text)) if text.contains("--name"))
    );
    let toml = "name = \"x\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\nmemory_mb = 512\n";
    let over = told.over(Manifest::parse(toml).unwrap()).unwrap();
    assert_eq!(
        (over.name.as_str(), over.memory_mb, over.handler.as_deref()),
        ("told", Some(512), Some("index.handler"))
    );
    let bad = Told { handler: Some("nodot"), ..nothing };
    assert!(bad.over(Manifest::parse(toml).unwrap()).is_err());
}

proptest! {
    #[test]
    fn no_name_leads_out(raw in "[a./\\\\\\x00é-]{0,24}") {
        if let Some(name) = clean(&raw) {
            prop_assert!(!name.is_empty() && !name.starts_with('/') && !name.contains('\\'));
            prop_assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")));
        }
    }

    #[test]
    fn no_link_leads_out(folder in "([a-c]/){0,3}", target in "[a./]{0,16}") {
        if let Some(joined) = join(folder.trim_end_matches('/'), &target) {
            prop_assert!(joined.split('/').all(|part| part != ".."));
        }
    }
}
