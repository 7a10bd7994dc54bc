//! Folders and files of the host that a tenant mounts into a container.
//!
//! The engine mounts a path as root, each time a container starts, and follows whatever it finds
//! there then. So it never gets a tenant's path: Plimsoll opens the folder step by step with the
//! tenant's rights, holds it open, and mounts what it holds at a place of its own. That mount is
//! what the engine is told; nothing a tenant renames or links later changes what it shows.
//!
//! Runs as root, in the mount namespace of the engine.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fstat, openat, readlinkat, statat,
};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use crate::os_user::OsUser;

/// As many as the kernel follows.
const LINKS_MAX: usize = 40;

/// Why a folder cannot be mounted. The words are for the tenant.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Nothing is there.
    #[error("{} does not exist on the host: make it first (mkdir -p), or use a named volume", .0.display())]
    Absent(PathBuf),
    /// The tenant could not open it themselves.
    #[error("you may not enter {} on the host", .0.display())]
    Forbidden(PathBuf),
    /// It is, or leads, outside what may be mounted.
    #[error("{} is not under {}", path.display(), list(roots))]
    Outside {
        /// Where the path leads.
        path: PathBuf,
        /// What may be mounted.
        roots: Vec<PathBuf>,
    },
    /// Links that lead on and on.
    #[error("{} leads through too many symbolic links", .0.display())]
    Loop(PathBuf),
    /// A device, a pipe or a socket.
    #[error("{} is neither a folder nor a file", .0.display())]
    Special(PathBuf),
    /// The host did not do it.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn list(roots: &[PathBuf]) -> String {
    match roots {
        [] => "any folder you may mount: use a named volume".to_owned(),
        roots => {
            let roots: Vec<String> = roots.iter().map(|r| r.display().to_string()).collect();
            roots.join(" or ")
        }
    }
}

/// What is to be mounted, for whom, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// The path as the tenant wrote it; absolute.
    pub path: PathBuf,
    /// Where it must lie once every link is followed.
    pub roots: Vec<PathBuf>,
    /// Whose rights count.
    pub user: OsUser,
    /// Where it is mounted.
    pub at: PathBuf,
}

/// A folder or file, held open.
#[derive(Debug)]
pub struct Opened {
    fd: OwnedFd,
    stat: Stat,
    /// Where it lies, without links.
    pub path: PathBuf,
}

/// Opens a path as `user` could, one step at a time: every folder on the way must be passable for
/// them, and links are followed by looking at each anew. What they may, the kernel says: it alone knows
/// access lists and what a file server thinks of root.
///
/// # Errors
/// [`FolderError`].
pub fn open(path: &Path, roots: &[PathBuf], user: &OsUser) -> Result<Opened, FolderError> {
    let roots: Vec<PathBuf> = roots.iter().map(|root| settled(root)).collect();
    // A thread of its own, whose rights end with it.
    let opened = std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            become_user(user).map_err(|e| failed("cannot take your rights for", path, e))?;
            open_here(path, &roots)
        });
        opening.join()
    });
    opened.unwrap_or_else(|_| Err(failed("cannot open", path, Errno::IO)))
}

/// Takes a user's rights, for the calling thread alone. The real ids stay root's: the user has no more
/// power over the thread than over any other of root's.
fn become_user(user: &OsUser) -> Result<(), Errno> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(None::<Gid>, gid, None::<Gid>)?;
    set_thread_res_uid(None::<Uid>, uid, None::<Uid>)
}

/// Where a root lies, past links that nobody but root can change: `/home` is one on many hosts.
fn settled(root: &Path) -> PathBuf {
    let (mut at, mut todo, mut links) = (PathBuf::from("/"), names(root), 0);
    while let Some(name) = todo.pop_front() {
        let next = at.join(name);
        let of_root = |path: &Path| {
            let found = std::fs::symlink_metadata(path).ok();
            found.filter(|found| found.uid() == 0)
        };
        let safe = of_root(&at).is_some_and(|dir| dir.mode() & 0o022 == 0)
            && of_root(&next).is_some_and(|found| found.is_symlink());
        if safe
            && links < LINKS_MAX
            && let Ok(target) = std::fs::read_link(&next)
        {
            links += 1;
            let mut through = names(&at.join(target));
            through.extend(todo);
            (at, todo) = (PathBuf::from("/"), through);
        } else {
            at = next;
        }
    }
    at
}

fn open_here(path: &Path, roots: &[PathBuf]) -> Result<Opened, FolderError> {
    let mut links = 0;
    let mut todo: VecDeque<OsString> = names(path);
    'again: loop {
        let mut at = PathBuf::from("/");
        let mut fd = open_step(CWD, OsStr::new("/"), &at)?;
        let mut parent = open_step(CWD, OsStr::new("/"), &at)?;
        let mut stat = fstat(&fd).map_err(|e| failed("cannot look at", &at, e))?;
        let mut rest = todo.clone();
        while let Some(name) = rest.pop_front() {
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(FolderError::Absent(at.join(name)));
            }
            let next = at.join(&name);
            let step = open_step(fd.as_fd(), &name, &next)?;
            let found = fstat(&step).map_err(|e| failed("cannot look at", &next, e))?;
            if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
                links += 1;
                if links > LINKS_MAX {
                    return Err(FolderError::Loop(path.to_owned()));
                }
                let target = readlinkat(&step, "", Vec::new())
                    .map_err(|e| failed("cannot follow", &next, e))?;
                let target = PathBuf::from(os_string(target.into_bytes()));
                // From the top: what was opened on the way here is not what the link means.
                let mut through = names(&at.join(target));
                through.extend(rest);
                todo = through;
                continue 'again;
            }
            (parent, fd) = (fd, step);
            (stat, at) = (found, next);
        }
        if !roots.iter().any(|root| at.starts_with(root)) {
            return Err(FolderError::Outside {
                path: at,
                roots: roots.to_vec(),
            });
        }
        let name = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => OsStr::new("."),
            FileType::RegularFile => at.file_name().unwrap_or_default(),
            _ => return Err(FolderError::Special(at)),
        };
        let dir = if name == "." { &fd } else { &parent };
        let read = open_with(dir, name, OFlags::RDONLY | OFlags::NONBLOCK, &at)?;
        let found = fstat(&read).map_err(|e| failed("cannot look at", &at, e))?;
        // The very file that was looked at, not one that took its name since.
        if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(FolderError::Absent(at));
        }
        if name == "." {
            open_step(&fd, name, &at)?;
        }
        return Ok(Opened { fd, stat, path: at });
    }
}

fn os_string(bytes: Vec<u8>) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

/// The names on a path from the root, `..` taken away with what is before it: a link before it has
/// been followed by then.
fn names(path: &Path) -> VecDeque<OsString> {
    let mut names = VecDeque::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push_back(name.to_owned()),
            Component::ParentDir => {
                names.pop_back();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}

fn open_step(dir: impl AsFd, name: &OsStr, path: &Path) -> Result<OwnedFd, FolderError> {
    open_with(dir, name, OFlags::PATH, path)
}

fn open_with(
    dir: impl AsFd,
    name: &OsStr,
    how: OFlags,
    path: &Path,
) -> Result<OwnedFd, FolderError> {
    let flags = how | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => FolderError::Absent(path.to_owned()),
        Errno::ACCESS | Errno::PERM => FolderError::Forbidden(path.to_owned()),
        other => failed("cannot open", path, other),
    })
}

fn failed(what: &'static str, path: &Path, errno: Errno) -> FolderError {
    FolderError::Io {
        what,
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// Opens a folder and mounts it at its place. One that is mounted there already is left alone when it
/// is the very same, and replaced when the path leads elsewhere by now.
///
/// # Errors
/// [`FolderError`].
pub fn mount(folder: &Folder) -> Result<(), FolderError> {
    let opened = open(&folder.path, &folder.roots, &folder.user)?;
    let at = &folder.at;
    let same =
        |there: &Stat| (there.st_dev, there.st_ino) == (opened.stat.st_dev, opened.stat.st_ino);
    match statat(CWD, at, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if same(&there) => return Ok(()),
        Ok(_) => clear(at)?,
        Err(_) => {}
    }
    make_place(at, &opened)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree =
        open_tree(&opened.fd, "", flags).map_err(|e| failed("cannot mount", &opened.path, e))?;
    move_mount(&tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|e| failed("cannot mount at", at, e))?;
    // Before anybody can start anything on it. Private, because the clone is its original's peer: what
    // is mounted below the one would show below the other, and go from both when either is unmounted.
    let private = MountPropagationFlags::PRIVATE;
    let quiet = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    let restricted = mount_change(at, private).and_then(|()| mount_remount(at, quiet, ""));
    restricted.map_err(|e| {
        let _ = clear(at);
        failed("cannot restrict", at, e)
    })
}

fn make_place(at: &Path, opened: &Opened) -> Result<(), FolderError> {
    let io = |source| FolderError::Io {
        what: "cannot make",
        path: at.to_owned(),
        source,
    };
    if let Some(parent) = at.parent() {
        // Closed: what is mounted below lay behind closed folders, and here it lies behind this one.
        let closed = 0o700;
        let mut made = std::fs::DirBuilder::new();
        made.recursive(true).mode(closed);
        made.create(parent).map_err(io)?;
        std::fs::set_permissions(parent, Permissions::from_mode(closed)).map_err(io)?;
    }
    if FileType::from_raw_mode(opened.stat.st_mode) == FileType::Directory {
        std::fs::create_dir(at).map_err(io)
    } else {
        std::fs::File::create_new(at).map(drop).map_err(io)
    }
}

/// Unmounts what is at a place and removes the place, and nothing else: neither removes a folder that
/// holds something, nor a file that does.
///
/// # Errors
/// [`FolderError::Io`].
pub fn clear(at: &Path) -> Result<(), FolderError> {
    loop {
        match unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not mounted, or not there.
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(errno) => return Err(failed("cannot unmount", at, errno)),
        }
    }
    let removed = match std::fs::symlink_metadata(at) {
        Ok(found) if found.is_dir() => std::fs::remove_dir(at),
        Ok(found) if found.is_file() && found.len() == 0 => std::fs::remove_file(at),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FolderError::Io {
            what: "cannot remove",
            path: at.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Clears everything under a container's folder of mounts, and the folder.
///
/// # Errors
/// [`FolderError::Io`].
pub fn clear_all(dir: &Path) -> Result<(), FolderError> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        clear(&entry.path())?;
    }
    clear(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn ada(home: &Path) -> OsUser {
        OsUser {
            name: "ada".into(),
            uid: 61_500,
            gid: 61_500,
            groups: vec![61_500, 61_501],
            home: home.to_owned(),
        }
    }

    /// A home with a folder, a file, and links of every kind; and somebody else's beside it.
    fn homes() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(dir.path(), 0o755);
        for (path, uid, bits) in [
            ("ada", 61_500, 0o700),
            ("ada/work", 61_500, 0o755),
            ("ben", 61_600, 0o700),
            ("ben/public", 61_600, 0o755),
            ("shared", 0, 0o755),
            ("shared/group", 0, 0o750),
            ("shared/closed", 0, 0o700),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir(&path).unwrap();
            chown(&path, Some(uid), Some(61_501)).unwrap();
            mode(&path, bits);
        }
        let file = dir.path().join("ada/work/file");
        std::fs::write(&file, "words").unwrap();
        chown(&file, Some(61_500), Some(61_500)).unwrap();
        let link = |from: &str, to: &str| symlink(to, dir.path().join(from)).unwrap();
        link("ada/inside", "work");
        link("ada/up", "../ada/work/../work");
        link("ada/out", "../ben/public");
        link("ada/etc", "/etc");
        link("ada/round", "round");
        dir
    }

    #[test]
    fn a_path_is_opened_with_its_owners_rights_and_no_others() {
        let dir = homes();
        let home = dir.path().join("ada");
        let roots = [home.clone(), dir.path().join("shared")];
        for (path, leads_to) in [
            ("ada", Some("ada")),
            ("ada/work", Some("ada/work")),
            ("ada/work/file", Some("ada/work/file")),
            ("ada/inside/file", Some("ada/work/file")),
            ("ada/up", Some("ada/work")),
            ("shared/group", Some("shared/group")),
            ("shared/closed", None),
            ("ada/out", None),
            ("ada/etc", None),
            ("ada/etc/hostname", None),
            ("ada/round", None),
            ("ada/absent", None),
            ("ada/work/file/x", None),
            ("ben", None),
            ("ben/public", None),
            ("adas", None),
            ("", None),
        ] {
            let opened = open(&dir.path().join(path), &roots, &ada(&home));
            let found = opened.as_ref().ok().map(|o| o.path.clone());
            assert_eq!(
                found,
                leads_to.map(|p| dir.path().join(p)),
                "{path}: {opened:?}"
            );
        }
    }

    /// An access list can deny what the bits give, and give what they deny.
    #[test]
    fn access_lists_count() {
        let dir = homes();
        let home = dir.path().join("ada");
        let roots = [dir.path().join("shared")];
        for (bits, of_ada) in [(0o755, false), (0o750, true)] {
            let path = dir.path().join(format!("shared/{bits:o}"));
            std::fs::create_dir_all(path.join("below")).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            let rights = if of_ada { 5 } else { 0 };
            let others = u16::try_from(bits & 7).unwrap();
            let any = u32::MAX;
            let mut list = 2_u32.to_le_bytes().to_vec();
            for (tag, rights, id) in [
                (0x01, 7, any),
                (0x02, rights, 61_500),
                (0x04, 5, any),
                (0x10, 5, any),
                (0x20, others, any),
            ] {
                list.extend(u16::to_le_bytes(tag));
                list.extend(u16::to_le_bytes(rights));
                list.extend(u32::to_le_bytes(id));
            }
            let name = "system.posix_acl_access";
            rustix::fs::setxattr(&path, name, &list, rustix::fs::XattrFlags::empty()).unwrap();
            let opened = open(&path.join("below"), &roots, &ada(&home));
            assert_eq!(opened.is_ok(), of_ada, "{bits:o}: {opened:?}");
        }
    }

    /// `/home` may be a link; one that a tenant made leads nowhere.
    #[test]
    fn a_root_behind_a_link_of_roots_is_where_it_leads() {
        let dir = homes();
        symlink(dir.path(), dir.path().join("link")).unwrap();
        symlink("../ben", dir.path().join("ada/link")).unwrap();
        let linked = dir.path().join("link/ada");
        for path in ["link/ada/work", "ada/work"] {
            let opened = open(
                &dir.path().join(path),
                std::slice::from_ref(&linked),
                &ada(&linked),
            );
            assert!(opened.is_ok(), "{path}: {opened:?}");
        }
        assert_eq!(settled(&linked), dir.path().join("ada"));
        let theirs = dir.path().join("ada/link");
        assert_eq!(settled(&theirs), theirs);
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let dir = homes();
        let home = dir.path().join("ada");
        let roots = [home.clone()];
        for (path, words) in [
            ("ada/absent", "mkdir -p"),
            ("ada/round", "too many symbolic links"),
            ("ada/etc", "is not under"),
            ("ben/public", "may not enter"),
        ] {
            let error = open(&dir.path().join(path), &roots, &ada(&home)).unwrap_err();
            assert!(error.to_string().contains(words), "{path}: {error}");
        }
        let special = open(
            Path::new("/dev/null"),
            &[PathBuf::from("/dev")],
            &ada(&home),
        );
        assert!(
            matches!(special, Err(FolderError::Special(_))),
            "{special:?}"
        );
    }
}
