//! Has the kernel count block I/O on cgroup v1.
//!
//! Recent kernels start the counters of a disk with the first throttle rule for it, in whatever
//! cgroup. So a rule that no disk can reach is written for each, in the instance's own cgroup, where
//! no process is and which on v1 holds nobody below it. On v2 the counters need nothing.

use std::path::PathBuf;

use super::apply::{CapError, io_error};
use super::files::write;
use super::kernel::read_if_there;
use super::{Hierarchy, ParentPath, Version};

/// Bytes a second, far beyond any disk.
const OUT_OF_REACH: u64 = 1 << 62;

impl Hierarchy {
    /// Starts the counters of `disks` (`major:minor`), making the cgroup where it is missing.
    /// Returns how many rules were written. They stay until [`Hierarchy::lift_block_rules`], or
    /// until the cgroup goes; what is counted by then goes on being counted.
    ///
    /// # Errors
    /// [`CapError::Io`].
    pub fn count_block_io(&self, path: &ParentPath, disks: &[String]) -> Result<usize, CapError> {
        if self.version == Version::V2 || !self.root.join("blkio").is_dir() {
            return Ok(0);
        }
        let file = self.block_rules(path);
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        }
        // A kernel without throttling has other counters, or none.
        let Some(present) = read_if_there(&file)? else {
            return Ok(0);
        };
        let has = |disk: &str| {
            present
                .lines()
                .any(|rule| rule.split(' ').next() == Some(disk))
        };
        let missing: Vec<_> = disks.iter().filter(|disk| !has(disk)).collect();
        for disk in &missing {
            write(&file, &format!("{disk} {OUT_OF_REACH}")).map_err(io_error("write", &file))?;
        }
        Ok(missing.len())
    }

    /// Takes the rules of [`Hierarchy::count_block_io`] away.
    ///
    /// # Errors
    /// [`CapError::Io`].
    pub fn lift_block_rules(&self, path: &ParentPath) -> Result<(), CapError> {
        let file = self.block_rules(path);
        if self.version == Version::V2 {
            return Ok(());
        }
        for rule in read_if_there(&file)?.unwrap_or_default().lines() {
            if let Some((disk, limit)) = rule.split_once(' ')
                && limit == OUT_OF_REACH.to_string()
            {
                write(&file, &format!("{disk} 0")).map_err(io_error("write", &file))?;
            }
        }
        Ok(())
    }

    fn block_rules(&self, path: &ParentPath) -> PathBuf {
        let dir = self.root.join("blkio").join(self.relative(path));
        dir.join("blkio.throttle.write_bps_device")
    }
}
