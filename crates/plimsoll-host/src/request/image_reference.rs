//! Names of images: read as the engine reads them, and given a place of their own for every tenant.
//!
//! `myapp:1` is short for `docker.io/library/myapp:1`. In a tenant's [`Space`] that is
//! `plimsoll.invalid/INSTANCE/uUSER/docker.io/library/myapp:1`: the whole name, so that two names never
//! meet, below a domain that no resolver will ever know (RFC 6761), so that nothing there can be pulled
//! or pushed. A port's colon becomes `_`, which no domain holds.

use std::fmt;

use super::refusal::BadRequest;

/// The domain of every tenant's space.
pub const DOMAIN: &str = "plimsoll.invalid";

/// The engine's bound on a name without its tag.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A name with a tag or a digest, in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `docker.io`, `registry.lab:5000`.
    pub domain: String,
    /// `library/myapp`.
    pub path: String,
    /// Tag or digest; `latest` where none was given.
    pub version: Version,
}

/// Which image of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `latest`
    Tag(String),
    /// `sha256:` and 64 digits.
    Digest(String),
}

impl Reference {
    /// Reads a reference. One without a tag means `latest`; one with both tag and digest the digest.
    ///
    /// # Errors
    /// [`BadRequest`] for what the engine would not take, what lies in the tenants' own spaces, and
    /// names longer than a space has room for.
    pub fn parse(text: &str) -> Result<Self, BadRequest> {
        let bad = |reason: &str| {
            let shown = super::json::short(text);
            BadRequest::new("image", format!("{shown:?} is not a reference: {reason}"))
        };
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        // A colon before a slash begins a port.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, rest)) if reads_as_domain(first) => (first, rest.to_owned()),
            Some(_) => ("docker.io", name.to_owned()),
            None => ("docker.io", format!("library/{name}")),
        };
        // The engine's old name for its hub.
        let (domain, path) = match domain {
            "index.docker.io" | "docker.io" if !path.contains('/') => {
                ("docker.io", format!("library/{path}"))
            }
            "index.docker.io" => ("docker.io", path),
            other => (other, path),
        };
        if domain == DOMAIN {
            return Err(bad("that domain is Plimsoll's own"));
        }
        if !is_domain(domain) {
            return Err(bad(
                "the registry must be a lower-case host, with a port or without",
            ));
        }
        if !path.split('/').all(is_component) {
            return Err(bad(
                "a repository is made of a-z, 0-9 and single separators ('.', '_', '__', '-')",
            ));
        }
        if name.len() + DOMAIN.len() + 80 > NAME_MAX {
            return Err(bad("it is too long"));
        }
        let version = match (digest, tag) {
            (Some(digest), tag) => {
                if !is_digest(digest) || !tag.is_none_or(is_tag) {
                    return Err(bad("the digest must be sha256: and 64 digits"));
                }
                Version::Digest(digest.to_owned())
            }
            (None, Some(tag)) if !is_tag(tag) => {
                return Err(bad("a tag is at most 128 of [a-zA-Z0-9_.-]"));
            }
            (None, Some(tag)) if digest_of(tag).is_some() => {
                return Err(bad("such a tag stands for a digest"));
            }
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let read = Self {
            domain: domain.to_owned(),
            path,
            version,
        };
        // The engine reads 64 digits alone as an id.
        let shown = read.short_repository();
        if shown.len() == 64 && shown.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("64 hexadecimal digits are an id"));
        }
        Ok(read)
    }

    /// The name without tag or digest, in full.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name without tag or digest, as people write it: reads as the same again.
    #[must_use]
    pub fn short_repository(&self) -> String {
        match (self.domain.as_str(), self.path.strip_prefix("library/")) {
            ("docker.io", Some(name)) if !name.contains('/') => name.to_owned(),
            ("docker.io", _) if !self.path.split('/').next().is_some_and(reads_as_domain) => {
                self.path.clone()
            }
            _ => self.repository(),
        }
    }

    /// The whole reference as people write it: `myapp:1`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}{}", self.short_repository(), self.version)
    }

    /// The tag, where it is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }
}

/// Whether what stands before the first slash of a reference is a registry.
fn reads_as_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// Where a tenant's references are on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    prefix: String,
}

/// What one of the engine's references is to a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Theirs, under this name.
    Own(Reference),
    /// Theirs, and not shown: it keeps an image that may have no name.
    Held,
    /// On its way in to them, and not yet theirs.
    Coming,
    /// In a tenant's space, but not theirs.
    Foreign,
    /// In nobody's space.
    Outside(Reference),
}

impl Space {
    /// The space of a user, by the 32 digits of their id.
    #[must_use]
    pub fn new(instance: &str, user_hex: &str) -> Self {
        Self {
            prefix: format!("{DOMAIN}/{instance}/u{user_hex}/"),
        }
    }

    /// What every reference in it begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A reference's name here, without its tag.
    #[must_use]
    pub fn repository(&self, reference: &Reference) -> String {
        let domain = reference.domain.replace(':', "_");
        format!("{}{domain}/{}", self.prefix, reference.path)
    }

    /// A reference as it is here. The engine gives digests to nobody, so here they are tags.
    #[must_use]
    pub fn place(&self, reference: &Reference) -> String {
        let tag = match &reference.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.replace(':', "-"),
        };
        format!("{}:{tag}", self.repository(reference))
    }

    /// The reference that keeps an image, whatever names it loses.
    #[must_use]
    pub fn holder(&self, image_id: &str) -> String {
        let hex = image_id.strip_prefix("sha256:").unwrap_or(image_id);
        format!("{}held:{hex}", self.prefix)
    }

    /// The repository of images that are on their way in; tags are made up.
    #[must_use]
    pub fn coming(&self) -> String {
        format!("{}coming", self.prefix)
    }

    /// What one of the engine's references is to this space's tenant.
    #[must_use]
    pub fn standing(&self, engine_reference: &str) -> Standing {
        let Some(inside) = engine_reference.strip_prefix(&self.prefix) else {
            return match Reference::parse(engine_reference) {
                Ok(reference) => Standing::Outside(reference),
                Err(_) => Standing::Foreign,
            };
        };
        let Some((domain, rest)) = inside.split_once('/') else {
            return match inside.split_once(':') {
                Some(("held", _)) => Standing::Held,
                Some(("coming", _)) => Standing::Coming,
                _ => Standing::Foreign,
            };
        };
        let rest = match rest.rsplit_once(':') {
            Some((name, tag)) => match digest_of(tag) {
                Some(digest) => format!("{name}@{digest}"),
                None => rest.to_owned(),
            },
            None => rest.to_owned(),
        };
        match Reference::parse(&format!("{}/{rest}", domain.replace('_', ":"))) {
            Ok(reference) => Standing::Own(reference),
            Err(_) => Standing::Foreign,
        }
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !l.is_empty() && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    host.split('.').all(label)
        && port.is_none_or(|p| (1..=5).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
}

fn is_component(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    if !text.bytes().all(known) || !edge(text.bytes().next()) || !edge(text.bytes().last()) {
        return false;
    }
    text.split(|c: char| c.is_ascii_alphanumeric())
        .all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first
        && text.len() <= TAG_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// The digest that a tag in a space stands for.
fn digest_of(tag: &str) -> Option<String> {
    let digest = tag.replacen('-', ":", 1);
    is_digest(&digest).then_some(digest)
}

/// Whether a text is an image's or a manifest's digest.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| crate::ids::is_lower_hex(hex, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_the_engine_reads_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, full, short) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("index.docker.io/a/b:x", "docker.io/a/b:x", "a/b:x"),
            // Without its domain it would be another registry's.
            (
                "docker.io/reg.lab/b",
                "docker.io/reg.lab/b:latest",
                "docker.io/reg.lab/b:latest",
            ),
            ("localhost/b", "localhost/b:latest", "localhost/b:latest"),
            (
                "reg.lab:5000/a/b:2",
                "reg.lab:5000/a/b:2",
                "reg.lab:5000/a/b:2",
            ),
            ("a.b__c-d--e/f_g", "a.b__c-d--e/f_g:latest", ""),
            (
                &format!("busybox:1@{digest}"),
                &format!("docker.io/library/busybox@{digest}"),
                &format!("busybox@{digest}"),
            ),
        ] {
            match Reference::parse(text) {
                Ok(reference) => {
                    assert_eq!(reference.to_string(), full, "{text}");
                    assert_eq!(reference.short(), short, "{text}");
                }
                // An underscore is in no domain.
                Err(_) => assert!(short.is_empty(), "{text}"),
            }
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            ":",
            "a:",
            "A",
            "a//b",
            "a/",
            "/a",
            "a b",
            "a:b:c",
            "a@sha256:1",
            "a@md5:1",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:é",
            "a:-x",
            "REG.lab/a",
            "reg:x/a",
            "reg:123456/a",
            "a/../b",
            "plimsoll.invalid/plimsoll/u0/docker.io/library/x",
            "plimsoll.invalid/x:y",
            &format!("busybox:sha256-{}", "0".repeat(64)),
            &"a".repeat(200),
            &"0".repeat(64),
            &format!("docker.io/library/{}", "0".repeat(64)),
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_of_two_tenants_never_meet_and_come_back_as_they_were() {
        let (ada, ben) = (
            Space::new("plimsoll", &"a".repeat(32)),
            Space::new("plimsoll", &"b".repeat(32)),
        );
        for text in [
            "myapp:1",
            "a/b",
            "reg.lab:5000/a/b:2",
            "localhost:5000/x",
            "docker.io/a/b/c:1",
            &format!("busybox@sha256:{}", "0".repeat(64)),
        ] {
            let reference = Reference::parse(text).unwrap();
            let place = ada.place(&reference);
            assert_ne!(place, ben.place(&reference));
            assert_eq!(
                ada.standing(&place),
                Standing::Own(reference.clone()),
                "{place}"
            );
            assert_eq!(ben.standing(&place), Standing::Foreign, "{place}");
            assert_eq!(
                ada.standing(&reference.to_string()),
                Standing::Outside(reference)
            );
        }
        let id = format!("sha256:{}", "1".repeat(64));
        assert_eq!(ada.standing(&ada.holder(&id)), Standing::Held);
        assert_eq!(
            ada.standing(&format!("{}:7", ada.coming())),
            Standing::Coming
        );
        assert_eq!(ben.standing(&ada.holder(&id)), Standing::Foreign);
        // Another server's tenants are nobody's public.
        assert_eq!(
            ada.standing("plimsoll.invalid/other/u0/docker.io/library/x:1"),
            Standing::Foreign
        );
    }
}
