//! Archives that tenants send and get: image archives, root file systems, build contexts.
//!
//! What reaches the engine is written here, entry by entry, so that the engine unpacks the entries that
//! were judged and no others. Reading is synchronous and holds one entry's buffer at a time; callers run
//! it on a thread of its own, between two bounded channels.
//!
//! This module must not know whose images are whose: names are handed in.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType, Header};

use super::dockerfile::DOCKERFILE_MAX;
use super::image_reference::Reference;
use super::json::{Json, decode, fold, short};

/// The largest list of images in an archive.
const MANIFEST_MAX: u64 = 4 << 20;
/// The most images in one archive.
pub const IMAGES_MAX: usize = 256;
/// The most files of an image archive, and the most bytes of those that could be configurations.
const FILES_MAX: usize = 1 << 16;
const TEXTS_MAX: usize = 32 << 20;
/// The most links in one build context.
const LINKS_MAX: usize = 1 << 16;
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;
const BLOCK: usize = 512;

/// Why an archive was not passed on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// One end went away.
    #[error("the archive broke off")]
    Io(#[from] io::Error),
    /// Not an archive of this kind, or one that asks for too much.
    #[error("{0}")]
    Unacceptable(String),
    /// Unpacked it holds more than it may.
    #[error("the archive holds more than {most} bytes")]
    TooLarge {
        /// The bound in bytes.
        most: u64,
    },
}

fn no<T>(reason: impl Into<String>) -> Result<T, ArchiveError> {
    Err(ArchiveError::Unacceptable(reason.into()))
}

/// Passes an image archive (`docker save`) on as the engine may load it: every image under the one name
/// that `name` gives for its number, and under no other. Returns the names each image asked for.
///
/// The engine takes a layer that it has by its digest alone, whoever brought it, and does not open the
/// archive's own. So the archive must hold each layer that it names: knowing a digest is not having it.
///
/// # Errors
/// [`ArchiveError`]
pub fn load(
    input: impl Read,
    output: impl Write,
    most: u64,
    name: impl Fn(usize) -> String,
) -> Result<Vec<Vec<Reference>>, ArchiveError> {
    let bound = Bound::new(most);
    bound.judge(load_within(&bound, input, output, name))
}

fn load_within(
    bound: &Bound,
    input: impl Read,
    output: impl Write,
    name: impl Fn(usize) -> String,
) -> Result<Vec<Vec<Reference>>, ArchiveError> {
    let mut out = io::BufWriter::new(output);
    let mut archive = Archive::new(bound.unpacked(input)?);
    let mut images = None;
    let mut held = Held::default();
    for entry in archive.entries()? {
        let mut entry = entry?;
        if is_root(&entry.path_bytes()) {
            continue;
        }
        let path = inner_path(&entry.path_bytes())?;
        let kind = entry.header().entry_type();
        if path == "manifest.json" {
            if !kind.is_file() || images.is_some() {
                return no("manifest.json must be one plain file");
            }
            let text = small(&mut entry, MANIFEST_MAX)?;
            let (rewritten, asked) = manifest(&text, &name)?;
            put_file(&mut out, &path, &rewritten)?;
            images = Some(asked);
        } else if path == "repositories" {
            // The same names in an older form.
        } else if path
            .split('/')
            .rev()
            .skip(1)
            .any(|part| part == "layer.tar")
        {
            return no("a layer is a file");
        } else if kind.is_dir() {
            put_header(&mut out, &path, EntryType::Directory, 0, None)?;
        } else if kind.is_file() {
            let size = entry.size();
            put_header(&mut out, &path, EntryType::Regular, size, None)?;
            let kept = copy_layer(bound, &mut entry, &mut out)?;
            pad(&mut out, size)?;
            held.put(path, kept)?;
        } else if kind.is_symlink() {
            let target = entry.link_name_bytes().unwrap_or_default();
            let target = String::from_utf8_lossy(&target).into_owned();
            let Some(shared) = shared_layer(&path, &target) else {
                return no(format!("{} is a link where none belongs", short(&path)));
            };
            put_header(&mut out, &path, EntryType::Symlink, 0, Some(&target))?;
            held.put(path, Kept::Link(shared))?;
        } else {
            return no(format!(
                "{} is neither file, folder nor layer",
                short(&path)
            ));
        }
    }
    let Some(images) = images else {
        return no(
            "the archive has no manifest.json: make it with docker save, or use docker import for a file system",
        );
    };
    for image in &images {
        held.check(image)?;
    }
    // Before this the engine unpacks, and begins nothing.
    finish(out)?;
    Ok(images.into_iter().map(|image| image.names).collect())
}

/// One image of an archive.
struct Listed {
    config: String,
    layers: Vec<String>,
    names: Vec<Reference>,
}

/// What a file of an archive is, as far as it matters.
enum Kept {
    /// A file: its digest, unpacked, and its text where it could be an image's configuration.
    File {
        digest: String,
        text: Option<Vec<u8>>,
    },
    /// Another file, which is a layer.
    Link(String),
}

/// What an archive held, by path; the last of two counts, as it does for the engine.
#[derive(Default)]
struct Held {
    files: HashMap<String, Kept>,
    texts: usize,
}

impl Held {
    fn put(&mut self, path: String, kept: Kept) -> Result<(), ArchiveError> {
        if let Kept::File {
            text: Some(text), ..
        } = &kept
        {
            self.texts += text.len();
        }
        if self.files.len() >= FILES_MAX || self.texts > TEXTS_MAX {
            return no("the archive has too many files");
        }
        self.files.insert(path, kept);
        Ok(())
    }

    /// The digest of a layer's file.
    fn digest(&self, path: &str) -> Option<&str> {
        let file = match self.files.get(path)? {
            Kept::Link(shared) => self.files.get(shared)?,
            file @ Kept::File { .. } => file,
        };
        match file {
            Kept::File { digest, .. } => Some(digest),
            Kept::Link(_) => None,
        }
    }

    /// Whether an image's configuration names the very layers that came with it.
    fn check(&self, image: &Listed) -> Result<(), ArchiveError> {
        let Some(Kept::File {
            text: Some(text), ..
        }) = self.files.get(&image.config)
        else {
            return no(format!(
                "{} is no image's configuration",
                short(&image.config)
            ));
        };
        let named = diff_ids(text)?;
        let held: Vec<_> = image.layers.iter().map(|l| self.digest(l)).collect();
        if named.len() != held.len() || !named.iter().zip(held).all(|(n, h)| h == Some(n)) {
            return no(format!(
                "{} names layers that are not in the archive",
                short(&image.config)
            ));
        }
        Ok(())
    }
}

/// The digests of an image's layers, lowest first. A key that the engine would take for one of these is
/// not accepted in their stead.
fn diff_ids(config: &[u8]) -> Result<Vec<String>, ArchiveError> {
    let wrong = || ArchiveError::Unacceptable("an image's configuration cannot be read".to_owned());
    let exactly = |map: &std::collections::BTreeMap<String, Json>, name: &str| {
        map.keys().all(|key| key == name || fold(key) != name)
    };
    let Ok(Json::Object(config)) = decode(config) else {
        return Err(wrong());
    };
    let Some(Json::Object(rootfs)) = config.get("rootfs") else {
        return Err(wrong());
    };
    if !exactly(&config, "rootfs") || !exactly(rootfs, "diff_ids") {
        return Err(wrong());
    }
    match rootfs.get("diff_ids") {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(items)) => items
            .iter()
            .map(|item| match item {
                Json::Str(text) => Ok(text.clone()),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// Older engines write a layer that two images share once, and link to it.
fn shared_layer(path: &str, target: &str) -> Option<String> {
    let plain = |text: &str| !text.is_empty() && !matches!(text, "." | "..") && !text.contains('/');
    let named = path.strip_suffix("/layer.tar").is_some_and(plain);
    let inside = target.strip_prefix("../")?;
    let folder = inside.strip_suffix("/layer.tar")?;
    (named && plain(folder)).then(|| inside.to_owned())
}

/// The list of images, rewritten: one name each, and nothing but what the engine needs.
fn manifest(
    text: &[u8],
    name: impl Fn(usize) -> String,
) -> Result<(Vec<u8>, Vec<Listed>), ArchiveError> {
    let wrong = |reason: &str| ArchiveError::Unacceptable(format!("manifest.json: {reason}"));
    let Ok(Json::Array(items)) = decode(text) else {
        return Err(wrong("must be a JSON array"));
    };
    if items.is_empty() || items.len() > IMAGES_MAX {
        return no(format!("an archive holds 1 to {IMAGES_MAX} images"));
    }
    let (mut images, mut asked) = (Vec::new(), Vec::new());
    for (number, item) in items.into_iter().enumerate() {
        let Json::Object(fields) = item else {
            return Err(wrong("must hold objects"));
        };
        let texts = |field: &str| match fields.get(field) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Json::Str(text) => Ok(text.clone()),
                    _ => Err(wrong("must hold texts")),
                })
                .collect(),
            Some(_) => Err(wrong("must hold arrays of texts")),
        };
        let Some(Json::Str(config)) = fields.get("Config") else {
            return Err(wrong("an image has no Config"));
        };
        let layers: Vec<String> = texts("Layers")?;
        for path in layers.iter().chain([config]) {
            if inner_path(path.as_bytes())? != *path {
                return Err(wrong("a path is not plain"));
            }
        }
        let tags: Vec<String> = texts("RepoTags")?;
        let mut references = Vec::new();
        for tag in tags {
            let reference = Reference::parse(&tag).map_err(|e| wrong(&e.reason))?;
            if reference.tag().is_none() {
                return Err(wrong("an image's name must have a tag"));
            }
            references.push(reference);
        }
        images.push(json!({"Config": config, "RepoTags": [name(number)], "Layers": layers}));
        asked.push(Listed {
            config: config.clone(),
            layers,
            names: references,
        });
    }
    let text = serde_json::to_vec(&images).expect("texts always serialise");
    Ok((text, asked))
}

/// Passes an image archive of the engine's on, each name through `name`; one that gives `None` is left
/// out.
///
/// # Errors
/// [`ArchiveError`]
pub fn save(
    input: impl Read,
    output: impl Write,
    name: impl Fn(&str) -> Option<String>,
) -> Result<(), ArchiveError> {
    let mut out = io::BufWriter::new(output);
    let mut archive = Archive::new(input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = inner_path(&entry.path_bytes())?;
        let kind = entry.header().entry_type();
        if kind.is_file() && path == "manifest.json" {
            let mut images: Value = parsed(&small(&mut entry, MANIFEST_MAX)?)?;
            for image in images.as_array_mut().into_iter().flatten() {
                if let Some(tags) = image["RepoTags"].as_array() {
                    let shown = tags
                        .iter()
                        .filter_map(|t| name(t.as_str()?))
                        .collect::<Vec<_>>();
                    image["RepoTags"] = if shown.is_empty() {
                        Value::Null
                    } else {
                        json!(shown)
                    };
                }
            }
            put_file(&mut out, &path, images.to_string().as_bytes())?;
        } else if kind.is_file() && path == "repositories" {
            let all: Value = parsed(&small(&mut entry, MANIFEST_MAX)?)?;
            let mut shown: Map<String, Value> = Map::new();
            for (repository, tags) in all.as_object().into_iter().flatten() {
                for (tag, id) in tags.as_object().into_iter().flatten() {
                    let Some(full) = name(&format!("{repository}:{tag}")) else {
                        continue;
                    };
                    let Some((repository, tag)) = full.rsplit_once(':') else {
                        continue;
                    };
                    shown.entry(repository).or_insert_with(|| json!({}))[tag] = id.clone();
                }
            }
            put_file(&mut out, &path, Value::Object(shown).to_string().as_bytes())?;
        } else {
            let mut header = entry.header().clone();
            header.set_cksum();
            out.write_all(header.as_bytes())?;
            let size = entry.size();
            io::copy(&mut entry, &mut out)?;
            pad(&mut out, size)?;
        }
    }
    finish(out)
}

fn parsed(text: &[u8]) -> Result<Value, ArchiveError> {
    serde_json::from_slice(text)
        .map_err(|_| ArchiveError::Unacceptable("the engine's archive is not one".to_owned()))
}

/// Passes one root file system on, unpacked.
///
/// # Errors
/// [`ArchiveError`]
pub fn layer(input: impl Read, output: impl Write, most: u64) -> Result<(), ArchiveError> {
    let bound = Bound::new(most);
    let passed = (|| {
        let mut out = io::BufWriter::new(output);
        let mut input = bound.unpacked(input)?;
        copy_tar(&mut input, &mut out)?;
        Ok(out.flush()?)
    })();
    bound.judge(passed)
}

/// Passes a build context on. The file at `dockerfile` goes through `rewrite`, and nothing in the context
/// can put another one in its place.
///
/// # Errors
/// [`ArchiveError`]
pub fn context(
    input: impl Read,
    output: impl Write,
    most: u64,
    dockerfile: &str,
    mut rewrite: impl FnMut(&str) -> Result<String, String>,
) -> Result<(), ArchiveError> {
    let bound = Bound::new(most);
    let passed = context_within(&bound, input, output, dockerfile, &mut rewrite);
    bound.judge(passed)
}

fn context_within(
    bound: &Bound,
    input: impl Read,
    output: impl Write,
    dockerfile: &str,
    rewrite: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<(), ArchiveError> {
    let mut out = tar::Builder::new(io::BufWriter::new(output));
    let mut archive = Archive::new(bound.unpacked(input)?);
    let mut links: HashSet<String> = HashSet::new();
    // The builder falls back to this one by itself.
    let lower = (dockerfile == "Dockerfile").then_some("dockerfile");
    let is_dockerfile = |path: &str| path == dockerfile || Some(path) == lower;
    let mut found = false;
    for entry in archive.entries()? {
        let mut entry = entry?;
        if is_root(&entry.path_bytes()) {
            continue;
        }
        let path = inner_path(&entry.path_bytes())?;
        let above = |path: &str| {
            let ends = path.match_indices('/').map(|(at, _)| at);
            ends.map(|at| path[..at].to_owned()).collect::<Vec<_>>()
        };
        // The engine would follow the link and write elsewhere.
        if let Some(link) = above(&path).into_iter().find(|dir| links.contains(dir)) {
            return no(format!(
                "{} lies below the link {}",
                short(&path),
                short(&link)
            ));
        }
        let kind = entry.header().entry_type();
        let attributes = attributes(&mut entry)?;
        if !attributes.is_empty() && (kind.is_file() || kind.is_dir()) {
            let pairs = attributes.iter().map(|(k, v)| (k.as_str(), v.as_slice()));
            out.append_pax_extensions(pairs)?;
        }
        let mut header = plain_header(entry.header())?;
        if kind.is_file() && is_dockerfile(&path) {
            let text = small(&mut entry, DOCKERFILE_MAX as u64)?;
            let text = String::from_utf8(text).map_err(|_| {
                ArchiveError::Unacceptable("the Dockerfile is not UTF-8".to_owned())
            })?;
            let text = rewrite(&text).map_err(ArchiveError::Unacceptable)?;
            header.set_size(text.len() as u64);
            out.append_data(&mut header, &path, text.as_bytes())?;
            found = true;
        } else if kind.is_file() {
            header.set_size(entry.size());
            out.append_data(&mut header, &path, &mut entry)?;
        } else if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            out.append_data(&mut header, format!("{path}/"), io::empty())?;
        } else if kind.is_symlink() || kind.is_hard_link() {
            let part_of = |wanted: &str| wanted == path || above(wanted).contains(&path);
            if part_of(dockerfile) || lower.is_some_and(part_of) {
                return no(format!(
                    "{}: the Dockerfile must be a plain file",
                    short(&path)
                ));
            }
            let target = entry.link_name_bytes().unwrap_or_default();
            let mut target = String::from_utf8_lossy(&target).into_owned();
            header.set_entry_type(if kind.is_symlink() {
                EntryType::Symlink
            } else {
                EntryType::Link
            });
            if kind.is_hard_link() {
                target = inner_path(target.as_bytes())?;
            }
            header.set_size(0);
            out.append_link(&mut header, &path, &target)?;
            if links.len() == LINKS_MAX {
                return no(format!("a build context has at most {LINKS_MAX} links"));
            }
            links.insert(path);
        } else {
            return no(format!(
                "{} is neither file, folder nor link: leave it out with .dockerignore",
                short(&path)
            ));
        }
    }
    if !found {
        return no(format!(
            "Cannot locate specified Dockerfile: {}",
            short(dockerfile)
        ));
    }
    out.into_inner()?.flush()?;
    Ok(())
}

/// What of an entry's extensions is kept: its extended attributes.
fn attributes<R: Read>(
    entry: &mut tar::Entry<'_, R>,
) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let mut kept = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        match extension.key() {
            Ok(key) if key.starts_with("GNU.sparse") => return no(SPARSE),
            Ok(key) if key.starts_with("SCHILY.xattr.") => {
                kept.push((key.to_owned(), extension.value_bytes().to_vec()));
            }
            _ => {}
        }
    }
    Ok(kept)
}

const SPARSE: &str = "the archive has a sparse file, which would unpack to more than it holds";

/// An entry's rights, owner and time, and nothing else of it.
fn plain_header(from: &Header) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(from.mode()? & 0o7777);
    header.set_uid(from.uid().unwrap_or(0));
    header.set_gid(from.gid().unwrap_or(0));
    header.set_mtime(from.mtime().unwrap_or(0));
    Ok(header)
}

/// Whether an entry is the folder that all others are in.
fn is_root(path: &[u8]) -> bool {
    matches!(path, b"." | b"./" | b"/")
}

/// A path inside an archive: `./a//b` is `a/b`, and there is no way up.
///
/// # Errors
/// [`ArchiveError::Unacceptable`]
pub fn inner_path(bytes: &[u8]) -> Result<String, ArchiveError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ArchiveError::Unacceptable("a path in the archive is not UTF-8".to_owned()))?;
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return no(format!("{} leads out of the archive", short(text))),
            part if part.contains('\0') => return no("a path in the archive has a NUL byte"),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return no("an entry of the archive has no name");
    }
    Ok(parts.join("/"))
}

fn small(entry: &mut impl Read, most: u64) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    entry.by_ref().take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return no(format!(
            "a file of the archive that must be read whole is larger than {most} bytes"
        ));
    }
    Ok(bytes)
}

fn put_file(out: &mut impl Write, path: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    put_header(out, path, EntryType::Regular, bytes.len() as u64, None)?;
    out.write_all(bytes)?;
    pad(out, bytes.len() as u64)
}

fn put_header(
    out: &mut impl Write,
    path: &str,
    kind: EntryType,
    size: u64,
    target: Option<&str>,
) -> Result<(), ArchiveError> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    let too_long = |_| ArchiveError::Unacceptable(format!("{} is too long a name", short(path)));
    header.set_path(path).map_err(too_long)?;
    if let Some(target) = target {
        header.set_link_name(target).map_err(too_long)?;
    }
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    Ok(())
}

fn pad(out: &mut impl Write, size: u64) -> Result<(), ArchiveError> {
    let over = usize::try_from(size % BLOCK as u64).expect("less than a block");
    if over > 0 {
        out.write_all(&[0; BLOCK][over..])?;
    }
    Ok(())
}

fn finish(mut out: impl Write) -> Result<(), ArchiveError> {
    out.write_all(&[0; 2 * BLOCK])?;
    Ok(out.flush()?)
}

/// The first bytes of what an archive may be packed with, and whether it is unpacked here.
const PACKED: [(&[u8], &str); 3] = [
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

/// An archive as it is, or what a gzip of it holds.
fn unpacked<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    let (first, whole) = peek(input)?;
    if let Some((_, by)) = PACKED.iter().find(|(magic, _)| first.starts_with(magic)) {
        return no(format!(
            "the archive is packed with {by}: unpack it first, or use gzip"
        ));
    }
    Ok(if first.starts_with(b"\x1f\x8b") {
        Box::new(MultiGzDecoder::new(whole))
    } else {
        Box::new(whole)
    })
}

fn peek<R: Read>(mut input: R) -> io::Result<(Vec<u8>, impl Read)> {
    let mut first = Vec::new();
    input.by_ref().take(6).read_to_end(&mut first)?;
    Ok((first.clone(), io::Cursor::new(first).chain(input)))
}

/// Copies a file that may be a layer. What a packed one holds counts like the archive itself.
fn copy_layer(
    bound: &Bound,
    entry: &mut impl Read,
    out: &mut impl Write,
) -> Result<Kept, ArchiveError> {
    let (first, whole) = peek(entry)?;
    if let Some((_, by)) = PACKED.iter().find(|(magic, _)| first.starts_with(magic)) {
        return no(format!(
            "a layer is packed with {by}: save the image with unpacked layers"
        ));
    }
    let mut seen = Digested::default();
    let mut tee = Tee {
        from: whole,
        to: out,
    };
    if first.starts_with(b"\x1f\x8b") {
        let unpacked = bound.count(MultiGzDecoder::new(&mut tee));
        let mut inside = Tee {
            from: unpacked,
            to: &mut seen,
        };
        check_tar(&mut inside)?;
        rest(&mut inside)?;
        rest(&mut tee)?;
    } else {
        let mut inside = Tee {
            from: tee,
            to: &mut seen,
        };
        check_tar(&mut inside)?;
        rest(&mut inside)?;
    }
    Ok(seen.kept(first.first() == Some(&b'{')))
}

/// The digest of what is written, and the text while it is small.
#[derive(Default)]
struct Digested {
    digest: Sha256,
    text: Vec<u8>,
    long: bool,
}

impl Digested {
    fn kept(self, is_text: bool) -> Kept {
        let digest: String = self
            .digest
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Kept::File {
            digest: format!("sha256:{digest}"),
            text: (is_text && !self.long).then_some(self.text),
        }
    }
}

impl Write for Digested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.long |= (self.text.len() + bytes.len()) as u64 > MANIFEST_MAX;
        if self.long {
            self.text = Vec::new();
        } else {
            self.text.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn copy_tar(from: &mut impl Read, to: &mut impl Write) -> Result<(), ArchiveError> {
    let mut tee = Tee { from, to };
    check_tar(&mut tee)?;
    rest(&mut tee)
}

/// Looks for files that unpack to more than they hold. What is no tar at all is the engine's to refuse.
fn check_tar(input: &mut impl Read) -> Result<(), ArchiveError> {
    let mut archive = Archive::new(input);
    for entry in archive.entries()?.raw(true) {
        let Ok(mut entry) = entry else { return Ok(()) };
        match entry.header().entry_type() {
            EntryType::GNUSparse => return no(SPARSE),
            EntryType::XHeader | EntryType::XGlobalHeader => {
                let text = small(&mut entry, MANIFEST_MAX)?;
                if text.windows(10).any(|w| w == b"GNU.sparse") {
                    return no(SPARSE);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn rest(input: &mut impl Read) -> Result<(), ArchiveError> {
    let mut chunk = vec![0; CHUNK];
    while input.read(&mut chunk)? > 0 {}
    Ok(())
}

/// Whatever is read is written, too.
struct Tee<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.to.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// Counts unpacked bytes, over everything that is read through it.
struct Bound {
    most: u64,
    read: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
}

impl Bound {
    fn new(most: u64) -> Self {
        Self {
            most,
            read: Arc::default(),
            broken: Arc::default(),
        }
    }

    /// What is sent, unpacked and counted.
    fn unpacked<'a>(
        &self,
        from: impl Read + 'a,
    ) -> Result<Counted<Box<dyn Read + 'a>>, ArchiveError> {
        let broken = Arc::clone(&self.broken);
        Ok(self.count(unpacked(Sent { from, broken })?))
    }

    fn count<R: Read>(&self, from: R) -> Counted<R> {
        Counted {
            from,
            most: self.most,
            read: Arc::clone(&self.read),
        }
    }

    /// Whatever went wrong once there was too much went wrong because of that; what could not be read
    /// although it was sent, and taken by its reader, is no archive.
    fn judge<T>(&self, outcome: Result<T, ArchiveError>) -> Result<T, ArchiveError> {
        match outcome {
            Err(_) if self.read.load(Ordering::Relaxed) > self.most => {
                Err(ArchiveError::TooLarge { most: self.most })
            }
            Err(ArchiveError::Io(error))
                if error.kind() != io::ErrorKind::BrokenPipe
                    && !self.broken.load(Ordering::Relaxed) =>
            {
                no(format!(
                    "not a whole tar archive: {}",
                    short(&error.to_string())
                ))
            }
            outcome => outcome,
        }
    }
}

/// What comes from a tenant, and whether it broke off.
struct Sent<R> {
    from: R,
    broken: Arc<AtomicBool>,
}

impl<R: Read> Read for Sent<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer);
        self.broken.fetch_or(read.is_err(), Ordering::Relaxed);
        read
    }
}

struct Counted<R> {
    from: R,
    most: u64,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let before = self.read.fetch_add(read as u64, Ordering::Relaxed);
        if before + read as u64 > self.most {
            return Err(io::Error::other("too large"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
