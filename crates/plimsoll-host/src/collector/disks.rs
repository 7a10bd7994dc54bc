//! The host's disks, by the numbers that counters name them by.

use std::io;
use std::path::Path;

/// Disks as `major:minor`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disks {
    /// Those that hold bytes themselves.
    pub physical: Vec<String>,
    /// Those made of others (LVM, RAID, crypt) or of files: their bytes are counted below, too.
    pub stacked: Vec<String>,
}

impl Disks {
    /// Looks at `sys_root/block`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(sys_root: &Path) -> io::Result<Self> {
        let mut disks = Self::default();
        for entry in std::fs::read_dir(sys_root.join("block"))? {
            let entry = entry?;
            let (dir, name) = (entry.path(), entry.file_name());
            let text = |file| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
            let number = text("dev").trim().to_owned();
            if number.is_empty() || text("size").trim() == "0" {
                continue;
            }
            let lies_on_others = std::fs::read_dir(dir.join("slaves"))
                .is_ok_and(|mut slaves| slaves.next().is_some());
            let is_file = name.as_encoded_bytes().starts_with(b"loop");
            match lies_on_others || is_file {
                true => disks.stacked.push(number),
                false => disks.physical.push(number),
            }
        }
        Ok(disks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_others_is_stacked_and_what_holds_nothing_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for (name, number, size, below) in [
            ("sda", "8:0", "100", None),
            ("dm-0", "253:0", "90", Some("sda1")),
            ("loop0", "7:0", "5", None),
            ("loop1", "7:1", "0", None),
        ] {
            let disk = dir.path().join("block").join(name);
            std::fs::create_dir_all(disk.join("slaves")).unwrap();
            std::fs::write(disk.join("dev"), format!("{number}\n")).unwrap();
            std::fs::write(disk.join("size"), format!("{size}\n")).unwrap();
            if let Some(below) = below {
                std::fs::create_dir(disk.join("slaves").join(below)).unwrap();
            }
        }
        let mut disks = Disks::read(dir.path()).unwrap();
        disks.stacked.sort();
        assert_eq!(disks.physical, ["8:0"]);
        assert_eq!(disks.stacked, ["253:0", "7:0"]);
    }
}
