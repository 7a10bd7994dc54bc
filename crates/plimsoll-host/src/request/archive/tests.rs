use super::*;

enum Put<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Node(&'a str, EntryType),
}
use Put::{File, Hard, Link, Node};

fn tar_of(entries: &[Put<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        // Written without the builder, which would clean the paths.
        let (path, kind, body, target): (_, _, &[u8], _) = match entry {
            File(path, body) => (path, EntryType::Regular, *body, None),
            Link(path, to) => (path, EntryType::Symlink, &[], Some(to)),
            Hard(path, to) => (path, EntryType::Link, &[], Some(to)),
            Node(path, kind) => (path, *kind, &[], None),
        };
        let mut header = Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(to) = target {
            header.as_ustar_mut().unwrap().linkname[..to.len()].copy_from_slice(to.as_bytes());
        }
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(body.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(body);
        pad(&mut out, body.len() as u64).unwrap();
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

fn files(archive: &[u8]) -> Vec<(String, String)> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            (path, String::from_utf8_lossy(&text).into_owned())
        })
        .collect()
}

fn config_of(layers: &[&[u8]]) -> String {
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| {
            let hex: String = Sha256::digest(layer)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            format!("\"sha256:{hex}\"")
        })
        .collect();
    format!(
        "{{\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}}}}",
        ids.join(",")
    )
}

const MANIFEST: &[u8] =
    br#"[{"Config":"c.json","RepoTags":["python:3","a/b:1"],"Layers":["l/layer.tar"],"Parent":"sha256:0"}]"#;

fn loaded(input: &[u8], most: u64) -> Result<(Vec<u8>, Vec<Vec<Reference>>), String> {
    let mut out = Vec::new();
    let asked = load(input, &mut out, most, |n| format!("mine:{n}")).map_err(|e| e.to_string())?;
    Ok((out, asked))
}

#[test]
fn a_loaded_archive_names_nothing_but_what_it_is_told() {
    let inner = tar_of(&[File("etc/x", b"1")]);
    let plain = tar_of(&[
        Node("./", EntryType::Directory),
        File("./c.json", config_of(&[&inner]).as_bytes()),
        Node("l", EntryType::Directory),
        File("l/layer.tar", &inner),
        Link("k/layer.tar", "../l/layer.tar"),
        File("manifest.json", MANIFEST),
        File("repositories", br#"{"python":{"3":"x"}}"#),
    ]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    for input in [plain, packed.finish().unwrap()] {
        let (out, asked) = loaded(&input, 1 << 20).unwrap();
        let files = files(&out);
        let text = &files
            .iter()
            .find(|(path, _)| path == "manifest.json")
            .unwrap()
            .1;
        assert_eq!(
            text,
            r#"[{"Config":"c.json","Layers":["l/layer.tar"],"RepoTags":["mine:0"]}]"#
        );
        assert!(!files.iter().any(|(path, _)| path == "repositories"));
        assert_eq!(
            asked[0].iter().map(Reference::short).collect::<Vec<_>>(),
            ["python:3", "a/b:1"]
        );
    }
}

#[test]
fn tricks_with_a_loaded_archive_are_refused() {
    let inner = tar_of(&[File("etc/x", b"1")]);
    let config = config_of(&[&inner]);
    let with = |extra: Put<'_>| {
        tar_of(&[
            File("manifest.json", MANIFEST),
            File("c.json", config.as_bytes()),
            File("l/layer.tar", &inner),
            extra,
        ])
    };
    assert!(loaded(&with(File("other", b"1")), 1 << 20).is_ok());
    let sparse = tar_of(&[Node("x", EntryType::GNUSparse)]);
    for (what, input) in [
        ("no manifest", tar_of(&[File("c.json", b"{}")])),
        (
            "a linked manifest",
            tar_of(&[
                Link("manifest.json", "x.json"),
                File("x.json", MANIFEST),
                File("c.json", config.as_bytes()),
                File("l/layer.tar", &inner),
            ]),
        ),
        ("two manifests", with(File("./manifest.json", MANIFEST))),
        ("a way up", with(File("a/../../x", b""))),
        ("a linked folder", with(Link("x", "."))),
        ("a link out", with(Link("x/layer.tar", "../../etc/layer.tar"))),
        (
            "a file below a link",
            with(File("x/layer.tar/manifest.json", b"")),
        ),
        ("a hard link", with(Hard("x", "manifest.json"))),
        ("a device", with(Node("x", EntryType::Char))),
        ("a sparse layer", with(File("x/layer.tar", &sparse))),
        (
            "a tenant's space",
            with(File("manifest.json",
                br#"[{"Config":"c","RepoTags":["plimsoll.invalid/p/u0/docker.io/library/x:1"],"Layers":[]}]"#)),
        ),
        ("another layer in its place", with(File("l/layer.tar", b"x"))),
        ("a link in its place", with(Link("l/layer.tar", "../k/layer.tar"))),
        (
            "another configuration",
            with(File("c.json", config_of(&[&inner, &inner]).as_bytes())),
        ),
        ("bzip2", b"BZh91AY".to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert!(loaded(&input, 1 << 20).is_err(), "{what}");
    }
}

#[test]
fn a_layer_is_not_had_by_knowing_its_digest() {
    let theirs = tar_of(&[File("secret", b"1")]);
    let known = config_of(&[&theirs]);
    let mine = tar_of(&[File("x", b"1")]);
    for (what, config) in [
        ("its digest alone", known.clone()),
        ("in other letters", known.replace("rootfs", "RootFS")),
        (
            "beside its own",
            config_of(&[&mine]).replacen(
                '{',
                &format!("{{\"rootF\u{17f}\":{},", &known[10..known.len() - 1]),
                1,
            ),
        ),
        ("inside", known.replace("diff_ids", "DIFF_IDS")),
    ] {
        let input = tar_of(&[
            File("c.json", config.as_bytes()),
            File("l/layer.tar", &mine),
            File("manifest.json", MANIFEST),
        ]);
        let mut out = Vec::new();
        let loaded = load(&input[..], &mut out, 1 << 20, |n| format!("mine:{n}"));
        assert!(loaded.is_err(), "{what}");
        // The engine is not told that the archive is complete.
        assert!(!out.ends_with(&[0; 1024]), "{what}");
    }
}

#[test]
fn an_archive_ends_where_its_bound_is() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed
        .write_all(&tar_of(&[File("l/layer.tar", &vec![0; 1 << 20])]))
        .unwrap();
    let bomb = packed.finish().unwrap();
    assert!(bomb.len() < 10_000);
    assert!(
        loaded(&bomb, 100_000)
            .unwrap_err()
            .contains("more than 100000 bytes")
    );
    // A packed layer counts by what it holds.
    let nested = tar_of(&[File("l/layer.tar", &bomb), File("manifest.json", MANIFEST)]);
    assert!(
        loaded(&nested, 100_000)
            .unwrap_err()
            .contains("more than 100000 bytes")
    );
    let error = layer(&bomb[..], io::sink(), 100_000).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge { .. }), "{error}");
}

#[test]
fn a_saved_archive_shows_the_tenants_names() {
    let input = tar_of(&[
        File("c.json", b"{}"),
        File(
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":["space/x:1","held:2"],"Layers":[]}]"#,
        ),
        File("repositories", br#"{"space/x":{"1":"i"},"held":{"2":"i"}}"#),
    ]);
    let mut out = Vec::new();
    save(&input[..], &mut out, |n| {
        n.strip_prefix("space/").map(str::to_owned)
    })
    .unwrap();
    let files = files(&out);
    assert!(files[1].1.contains(r#""RepoTags":["x:1"]"#), "{files:?}");
    assert_eq!(files[2].1, r#"{"x":{"1":"i"}}"#);
}

fn built(entries: &[Put<'_>], dockerfile: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    let input = tar_of(entries);
    context(&input[..], &mut out, 1 << 20, dockerfile, |text| {
        Ok(text.replace("secret", "mine"))
    })
    .map_err(|e| e.to_string())?;
    Ok(files(&out))
}

#[test]
fn the_dockerfile_of_a_context_is_rewritten_wherever_it_is() {
    let long = format!("{}/x", "d".repeat(90));
    let seen = built(
        &[
            Node("./", EntryType::Directory),
            File(&long, b"1"),
            File("./sub//Dockerfile", b"FROM secret"),
            File("Dockerfile", b"FROM secret"),
            Link("y", "/etc/passwd"),
            Hard("z", "./Dockerfile"),
        ],
        "sub/Dockerfile",
    )
    .unwrap();
    assert_eq!(
        seen[1],
        ("sub/Dockerfile".to_owned(), "FROM mine".to_owned())
    );
    assert_eq!(seen[2].1, "FROM secret", "only the one that is built");
    let twice = built(
        &[File("Dockerfile", b"secret"), File("dockerfile", b"secret")],
        "Dockerfile",
    )
    .unwrap();
    assert!(twice.iter().all(|(_, text)| text == "mine"), "{twice:?}");
}

#[test]
fn nothing_in_a_context_takes_the_dockerfiles_place() {
    let plain = || File("Dockerfile", b"FROM x");
    for (what, entries) in [
        ("none", vec![File("x", b"")]),
        ("a link", vec![plain(), Link("Dockerfile", "x")]),
        (
            "a lower-case link",
            vec![plain(), Link("./dockerfile", "x")],
        ),
        ("a hard link", vec![plain(), Hard("Dockerfile", "x")]),
        (
            "a file below a link",
            vec![
                plain(),
                Link("x", "."),
                File("x/Dockerfile", b"FROM secret"),
            ],
        ),
        (
            "below a linked link",
            vec![
                plain(),
                Link("x", "."),
                Hard("y", "x"),
                File("y/z/Dockerfile", b""),
            ],
        ),
        ("a way up", vec![plain(), File("x/../Dockerfile", b"")]),
        ("a device", vec![plain(), Node("x", EntryType::Block)]),
    ] {
        assert!(built(&entries, "Dockerfile").is_err(), "{what}");
    }
    let linked = [Link("sub", "x"), File("x/Dockerfile", b"FROM secret")];
    assert!(built(&linked, "sub/Dockerfile").is_err());
}

/// A sender that goes away in the middle.
struct Vanishing<'a>(&'a [u8]);

impl Read for Vanishing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::ConnectionReset.into()),
            read => Ok(read),
        }
    }
}

#[test]
fn what_is_no_archive_is_told_apart_from_one_that_broke_off() {
    let whole = tar_of(&[File("l/layer.tar", b"x"), File("manifest.json", MANIFEST)]);
    for sent in [b"abc", &whole[..700], &[1; 4096], b"\x1f\x8bxxxxxxxx"] {
        assert!(loaded(sent, 1 << 20).unwrap_err().contains("not a whole"));
    }
    for sent in [b"abc", &whole[..700]] {
        let cut = load(Vanishing(sent), io::sink(), 1 << 20, |n| n.to_string());
        assert!(matches!(cut, Err(ArchiveError::Io(_))), "{cut:?}");
    }
}
