//! Volumes and folders of the host: what a tenant asks to mount, and what the engine is told.
//!
//! The engine learns of volumes only under the names Plimsoll gave them, and of host folders only as
//! mounts Plimsoll made itself: a path of the tenant's never reaches it, so none can be swapped
//! behind the check.

use std::collections::BTreeMap;
use std::path::Path;

use plimsoll_core::units::{AMOUNT_MAX, Bytes};
use serde_json::{Value, json};

use super::storage::{Tmpfs, mount_path, tmpfs_mount};
use super::{CreateRequest, ImageFacts, is_reserved};
use crate::request::json::{Fields, short};
use crate::request::path::looks_like_id;
use crate::request::refusal::{BadRequest, Refusal};
use crate::request::shared::is_below;

/// The most mounts in one container.
const MOUNTS_MAX: usize = 64;

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A volume of this name; made when it is not there.
    Volume {
        name: String,
        settings: VolumeSettings,
    },
    /// A volume nobody named.
    Anonymous(VolumeSettings),
    /// A path of the host, as the tenant wrote it.
    Host(String),
}

/// A mount a tenant asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    source: Source,
    read_only: bool,
    no_copy: bool,
}

/// What a volume is made with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeSettings {
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// How large it may become; the class's default when absent.
    pub size: Option<Bytes>,
}

/// A volume a container mounts. The gateway makes it first when it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUse {
    /// The owner's name for it.
    pub name: String,
    /// Nobody named it: it goes with the container, as on any engine.
    pub anonymous: bool,
    /// What to make it with.
    pub settings: VolumeSettings,
}

/// A folder or file of the host that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUse {
    /// As the tenant wrote it: absolute.
    pub path: String,
    /// The container cannot write to it.
    pub read_only: bool,
}

/// Whose mounts these are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountPolicy {
    /// What stands before a volume's name on the engine.
    pub volume_prefix: String,
    /// The reservation's id as 32 hex digits: the names of anonymous volumes begin with it.
    pub key: String,
    /// The folder under which host folders are mounted for the engine.
    pub stash: String,
    /// The uid and gid a container that writes to the host runs as; without them nothing of the
    /// host can be mounted.
    pub writes_as: Option<(u32, u32)>,
    /// The owner's home: who only reads, and only there, may do so as any user.
    pub home: Option<String>,
    /// Folders beyond the home may be mounted: what is below them can be anybody's.
    pub beyond_home: bool,
}

impl MountPolicy {
    fn at_home(&self, path: &str) -> bool {
        let home = self.home.as_deref();
        home.is_some_and(|home| Path::new(path).starts_with(home))
    }
}

/// What the mounts of a request come to.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    pub(super) body: Vec<Value>,
    pub(super) volumes: Vec<VolumeUse>,
    pub(super) host: Vec<HostUse>,
    /// Where something is mounted, by whatever kind of mount.
    pub(super) targets: Vec<String>,
}

impl Mounted {
    /// Whether the container must run with its owner's rights.
    pub(super) fn as_owner(&self, policy: &MountPolicy) -> bool {
        let free = |used: &HostUse| used.read_only && policy.at_home(&used.path);
        !self.host.iter().all(free)
    }
}

/// All that is mounted, by the path inside the container, cleaned.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Asked {
    pub(super) mounts: BTreeMap<String, Mount>,
    pub(super) tmpfs: BTreeMap<String, Tmpfs>,
}

impl Asked {
    pub(super) fn of_host(&self) -> bool {
        let of_host = |mount: &Mount| matches!(mount.source, Source::Host(_));
        self.mounts.values().any(of_host)
    }

    fn mount(&mut self, field: &str, path: String, mount: Mount) -> Result<(), Refusal> {
        if self.tmpfs.contains_key(&path) || self.mounts.insert(path, mount).is_some() {
            return Err(Refusal::bad(field, "is mounted over twice"));
        }
        Ok(())
    }

    fn tmpfs(&mut self, field: &str, path: String, tmpfs: Tmpfs) -> Result<(), Refusal> {
        if self.mounts.contains_key(&path) || self.tmpfs.insert(path, tmpfs).is_some() {
            return Err(Refusal::bad(field, "is mounted over twice"));
        }
        Ok(())
    }
}

/// Reads `Volumes` of the request and `Binds`, `Mounts` and `Tmpfs` of its `HostConfig`.
pub(super) fn take(declared: &[String], fields: &mut Fields) -> Result<Asked, Refusal> {
    let mut asked = Asked::default();
    let tmpfs_field = fields.name("Tmpfs");
    for (path, options) in fields.string_map("Tmpfs")?.unwrap_or_default() {
        let field = format!("{tmpfs_field}.{}", short(&path));
        let clean = mount_path(&field, &path)?;
        asked.tmpfs(&field, clean, Tmpfs::parse(&field, &options)?)?;
    }
    let binds_field = fields.name("Binds");
    for (i, bind) in fields
        .strings("Binds")?
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let field = format!("{binds_field}[{i}]");
        let (path, mount) = bind_text(&field, bind)?;
        asked.mount(&field, path, mount)?;
    }
    for mut mount in fields.objects("Mounts")? {
        let field = mount.name("Target");
        let kind = mount.str("Type")?.unwrap_or_default();
        let target = mount.str("Target")?.unwrap_or_default();
        let target = mount_path(&field, &target)?;
        let consistency = mount.str("Consistency")?.unwrap_or_default();
        if !is_consistency(&consistency) && !consistency.is_empty() {
            return Err(Refusal::bad(mount.name("Consistency"), "is not known"));
        }
        match kind.as_str() {
            "tmpfs" => asked.tmpfs(&field, target, tmpfs_mount(mount)?)?,
            "volume" => asked.mount(&field, target, volume_mount(mount)?)?,
            "bind" => asked.mount(&field, target, host_mount(mount)?)?,
            other => {
                return Err(Refusal::policy(
                    mount.name("Type"),
                    format!("a mount of type {}", short(other)),
                    "it reaches outside the container",
                    "use --mount type=volume, bind or tmpfs",
                ));
            }
        }
    }
    // Declared without a source: what is mounted there already is what was meant.
    for path in declared {
        let field = format!("Volumes.{}", short(path));
        let path = mount_path(&field, path)?;
        if !asked.mounts.contains_key(&path) && !asked.tmpfs.contains_key(&path) {
            asked.mount(&field, path, Mount::anonymous())?;
        }
    }
    if asked.mounts.len() + asked.tmpfs.len() > MOUNTS_MAX {
        return Err(Refusal::bad(
            "HostConfig.Mounts",
            format!("at most {MOUNTS_MAX} mounts"),
        ));
    }
    Ok(asked)
}

impl Mount {
    fn anonymous() -> Self {
        Self {
            source: Source::Anonymous(VolumeSettings::default()),
            read_only: false,
            no_copy: false,
        }
    }
}

fn is_consistency(word: &str) -> bool {
    matches!(word, "default" | "consistent" | "cached" | "delegated")
}

/// `SOURCE:TARGET[:OPTIONS]`, as `docker run --volume` writes it.
fn bind_text(field: &str, text: &str) -> Result<(String, Mount), Refusal> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => {
            return Err(Refusal::bad(
                field,
                "must be SOURCE:TARGET or SOURCE:TARGET:OPTIONS",
            ));
        }
    };
    let target = mount_path(field, target)?;
    let mut mount = Mount::anonymous();
    let mut access = None;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" | "rw" => {
                if access.replace(option).is_some() {
                    return Err(Refusal::bad(field, "says twice whether it may be written"));
                }
                mount.read_only = option == "ro";
            }
            "nocopy" => mount.no_copy = true,
            // Private is what every mount here is; relabelling means nothing without SELinux.
            "z" | "Z" | "private" | "rprivate" => {}
            word if is_consistency(word) => {}
            other => {
                return Err(Refusal::policy(
                    field,
                    format!("the mount option {}", short(other)),
                    "mounts are private to their container here",
                    "use ro, rw or nocopy",
                ));
            }
        }
    }
    if let Some(source) = source {
        mount.source = if source.starts_with('/') {
            if mount.no_copy {
                return Err(Refusal::bad(field, "nocopy is for volumes"));
            }
            Source::Host(host_path(field, source)?)
        } else {
            Source::Volume {
                name: volume_name(field, source)?,
                settings: VolumeSettings::default(),
            }
        };
    }
    Ok((target, mount))
}

fn volume_mount(mut mount: Fields) -> Result<Mount, Refusal> {
    let source_field = mount.name("Source");
    let source = mount.str("Source")?.unwrap_or_default();
    let mut made = Mount {
        read_only: mount.bool("ReadOnly")?.unwrap_or(false),
        ..Mount::anonymous()
    };
    only_options(&mut mount, "VolumeOptions", "a volume")?;
    let mut settings = VolumeSettings::default();
    if let Some(mut options) = mount.object("VolumeOptions")? {
        made.no_copy = options.bool("NoCopy")?.unwrap_or(false);
        settings.labels = tenant_labels(&mut options)?;
        let subpath = options.str("Subpath")?.unwrap_or_default();
        if !subpath.is_empty() {
            return Err(Refusal::policy(
                options.name("Subpath"),
                "a part of a volume",
                "the engine this speaks to mounts whole volumes",
                "leave the option out",
            ));
        }
        if let Some(mut driver) = options.object("DriverConfig")? {
            settings.size = volume_driver(&mut driver, "Name", "Options")?;
            driver.finish(&[], &mut Vec::new())?;
        }
        options.finish(&[], &mut Vec::new())?;
    }
    mount.finish(&[], &mut Vec::new())?;
    made.source = if source.is_empty() {
        Source::Anonymous(settings)
    } else {
        Source::Volume {
            name: volume_name(&source_field, &source)?,
            settings,
        }
    };
    Ok(made)
}

/// Refuses the options of every other kind of mount than the one that takes `own`.
pub(super) fn only_options(mount: &mut Fields, own: &str, kind: &str) -> Result<(), Refusal> {
    const OPTIONS: [&str; 5] = [
        "BindOptions",
        "VolumeOptions",
        "TmpfsOptions",
        "ImageOptions",
        "ClusterOptions",
    ];
    for other in OPTIONS.into_iter().filter(|other| *other != own) {
        if mount.take(other).is_some_and(|json| !json.is_zero()) {
            let reason = format!("must not be set for {kind}");
            return Err(Refusal::bad(mount.name(other), reason));
        }
    }
    Ok(())
}

fn host_mount(mut mount: Fields) -> Result<Mount, Refusal> {
    let field = mount.name("Source");
    let source = mount.str("Source")?.unwrap_or_default();
    let read_only = mount.bool("ReadOnly")?.unwrap_or(false);
    only_options(&mut mount, "BindOptions", "a bind mount")?;
    if let Some(mut options) = mount.object("BindOptions")? {
        let propagation = options.str("Propagation")?.unwrap_or_default();
        if !matches!(propagation.as_str(), "" | "private" | "rprivate") {
            return Err(Refusal::policy(
                options.name("Propagation"),
                format!("bind-propagation={}", short(&propagation)),
                "mounts are private to their container here",
                "leave the option out",
            ));
        }
        // Mounts below the folder never come along; and a folder that is missing is said to be.
        options.bool("NonRecursive")?;
        options.bool("CreateMountpoint")?;
        options.finish(&[], &mut Vec::new())?;
    }
    mount.finish(&[], &mut Vec::new())?;
    Ok(Mount {
        source: Source::Host(host_path(&field, &source)?),
        read_only,
        no_copy: false,
    })
}

/// A path of the host, cleaned of doubled slashes and dots; symbolic links are for whoever opens it.
fn host_path(field: &str, path: &str) -> Result<String, Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::bad(field, "must be an absolute path of the host"));
    }
    if path.len() > 4096 || path.chars().any(char::is_control) {
        return Err(Refusal::bad(field, "is not a usable path"));
    }
    let mut clean = String::new();
    for segment in path.split('/').filter(|s| !matches!(*s, "" | ".")) {
        if segment == ".." {
            return Err(Refusal::bad(
                field,
                "must not contain .. segments: give the path itself",
            ));
        }
        clean.push('/');
        clean.push_str(segment);
    }
    Ok(if clean.is_empty() {
        "/".to_owned()
    } else {
        clean
    })
}

/// A volume's name: the engine's rule, and nothing that looks like the name of an anonymous one
/// unless it can be one.
///
/// # Errors
/// [`BadRequest`] on `field`.
pub(super) fn volume_name(field: &str, name: &str) -> Result<String, BadRequest> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let fits = name.len() >= 2
        && name.bytes().all(plain)
        && name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
    if !fits {
        return Err(BadRequest::new(
            field,
            format!(
                "{} is neither an absolute path nor a volume's name: two or more of \
                 [a-zA-Z0-9_.-], beginning with a letter or digit",
                short(name)
            ),
        ));
    }
    if name.len() > 128 {
        return Err(BadRequest::new(field, "must be at most 128 characters"));
    }
    Ok(name.to_owned())
}

/// Whether a name is one Plimsoll gives to volumes that nobody named.
#[must_use]
pub fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && looks_like_id(name)
}

/// Driver and options of a volume: only `local`, and only `size`.
fn volume_driver(
    fields: &mut Fields,
    name: &'static str,
    options: &'static str,
) -> Result<Option<Bytes>, Refusal> {
    let driver = fields.str(name)?.unwrap_or_default();
    if !matches!(driver.as_str(), "" | "local") {
        return Err(Refusal::policy(
            fields.name(name),
            format!("--driver {}", short(&driver)),
            "volume plugins run with the host's rights",
            "leave the option out",
        ));
    }
    let field = fields.name(options);
    let mut size = None;
    for (key, value) in fields.string_map(options)?.unwrap_or_default() {
        if key != "size" {
            return Err(Refusal::policy(
                &field,
                format!("--opt {}", short(&key)),
                "it could mount anything the host can reach",
                "use --opt size=N, or -v with a folder of yours",
            ));
        }
        let bytes = Bytes::parse(&value)
            .ok()
            .filter(|bytes| bytes.0 > 0 && bytes.0 <= AMOUNT_MAX)
            .ok_or_else(|| BadRequest::new(format!("{field}.size"), "must be a size like 5g"))?;
        size = Some(bytes);
    }
    Ok(size)
}

fn tenant_labels(fields: &mut Fields) -> Result<BTreeMap<String, String>, Refusal> {
    let mut labels = fields.string_map("Labels")?.unwrap_or_default();
    labels.retain(|key, _| !is_reserved(key));
    Ok(labels)
}

/// `POST /volumes/create`, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRequest {
    /// The name; `None` asks for one.
    pub name: Option<String>,
    /// What to make it with.
    pub settings: VolumeSettings,
    /// The team named by the label `plimsoll.team`.
    pub team: Option<String>,
    /// The project named by the label `plimsoll.project`.
    pub project: Option<String>,
}

impl VolumeRequest {
    /// Decodes a body.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed, unknown, or reaches the host.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = crate::request::json::decode_object(body)?;
        let name = fields.str("Name")?.filter(|name| !name.is_empty());
        let name = name.map(|name| volume_name("Name", &name)).transpose()?;
        if name.as_deref().is_some_and(looks_like_id) {
            return Err(Refusal::bad(
                "Name",
                "looks like an id: 12 to 64 hex digits are not a name",
            ));
        }
        if fields
            .take("ClusterVolumeSpec")
            .is_some_and(|json| !json.is_zero())
        {
            return Err(Refusal::policy(
                "ClusterVolumeSpec",
                "a cluster volume",
                "it belongs to the swarm's administrator",
                "leave the option out",
            ));
        }
        let size = volume_driver(&mut fields, "Driver", "DriverOpts")?;
        let mut labels = fields.string_map("Labels")?.unwrap_or_default();
        let take = |key: &str| labels.get(key).filter(|v| !v.is_empty()).cloned();
        let (team, project) = (take("plimsoll.team"), take("plimsoll.project"));
        labels.retain(|key, _| !is_reserved(key));
        fields.finish(&[], &mut Vec::new())?;
        Ok(Self {
            name,
            settings: VolumeSettings { labels, size },
            team,
            project,
        })
    }
}

/// What the engine is told to mount, and what has to be there first.
pub(super) fn mounted(
    request: &CreateRequest,
    policy: &MountPolicy,
    image: &ImageFacts,
) -> Result<Mounted, Refusal> {
    let mut all = request.mounts.mounts.clone();
    for path in &image.volumes {
        let path = mount_path(&format!("the image's VOLUME {}", short(path)), path)?;
        if !request.mounts.tmpfs.contains_key(&path) {
            all.entry(path).or_insert_with(Mount::anonymous);
        }
    }
    if all.len() + request.mounts.tmpfs.len() > MOUNTS_MAX {
        return Err(Refusal::bad(
            "HostConfig.Mounts",
            format!("at most {MOUNTS_MAX} mounts"),
        ));
    }
    let mut mounted = Mounted::default();
    let writable_beyond = |mount: &Mount| match &mount.source {
        Source::Host(path) => !mount.read_only && !policy.at_home(path),
        Source::Volume { .. } | Source::Anonymous(_) => false,
    };
    let mut targets: Vec<String> = all.keys().cloned().collect();
    targets.extend(request.mounts.tmpfs.keys().cloned());
    for (top, _) in all.iter().filter(|(_, mount)| writable_beyond(mount)) {
        if let Some(below) = targets.iter().find(|target| is_below(target, top)) {
            return Err(Refusal::policy(
                "HostConfig.Mounts",
                format!("mounting {} in a folder of the host", short(below)),
                "what is missing on the way would be made by root, in folders that may not be yours",
                "mount it elsewhere, or mount the folder read-only (:ro)",
            ));
        }
    }
    mounted.targets = targets;
    for (target, mount) in all {
        let body = match mount.source {
            Source::Host(path) => {
                if policy.writes_as.is_none() {
                    return Err(Refusal::policy(
                        "HostConfig.Binds",
                        format!("mounting {} of the host", short(&path)),
                        "your account has no uid on this host whose rights would hold",
                        "use a named volume, or ask an administrator to give your account its uid",
                    ));
                }
                let n = mounted.host.len();
                let stash = format!("{}/{}/{n}", policy.stash, policy.key);
                mounted.host.push(HostUse {
                    path,
                    read_only: mount.read_only,
                });
                json!({
                    "Type": "bind", "Source": stash, "Target": target, "ReadOnly": mount.read_only,
                    "BindOptions": {"Propagation": "rprivate"},
                })
            }
            Source::Anonymous(settings) => {
                let n = mounted.volumes.len();
                let name = format!("{}{n:032x}", policy.key);
                let body = volume_body(policy, &name, &target, mount.read_only, mount.no_copy);
                mounted.volumes.push(VolumeUse {
                    name,
                    anonymous: true,
                    settings,
                });
                body
            }
            Source::Volume { name, settings } => {
                let body = volume_body(policy, &name, &target, mount.read_only, mount.no_copy);
                if !mounted.volumes.iter().any(|used| used.name == name) {
                    mounted.volumes.push(VolumeUse {
                        name,
                        anonymous: false,
                        settings,
                    });
                }
                body
            }
        };
        mounted.body.push(body);
    }
    Ok(mounted)
}

/// Which of a container's host mounts a stash path is for.
#[must_use]
pub fn stash_index(stash: &str) -> Option<usize> {
    stash.rsplit_once('/')?.1.parse().ok()
}

fn volume_body(
    policy: &MountPolicy,
    name: &str,
    target: &str,
    read_only: bool,
    no_copy: bool,
) -> Value {
    json!({
        "Type": "volume", "Source": format!("{}{name}", policy.volume_prefix), "Target": target,
        "ReadOnly": read_only, "VolumeOptions": {"NoCopy": no_copy},
    })
}
