//! Small files that are read whole and replaced whole: settings of a data directory, secrets. After a power cut such a
//! file is the old one or the new one, never half of one.

use std::io::{self, IoSlice};

use crate::Disk;

/// The bytes of a file; `None` if there is none of that name. An error if it holds more than `bytes_max`.
pub fn read_small(disk: &dyn Disk, name: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if len > bytes_max {
        let text = format!("{name} has {len} bytes, at most {bytes_max} are expected");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// Writes a file anew, replacing the one of that name; it is on stable storage when this returns.
pub fn replace_small(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = format!("{name}.new");
    match disk.remove(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&beside)?;
    file.write_at(&[IoSlice::new(bytes)], 0)?;
    file.sync_data()?;
    disk.rename(&beside, name)?;
    disk.sync_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemDisk;

    #[test]
    fn a_small_file_is_replaced_as_a_whole_and_leftovers_of_a_crash_do_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let disk = SystemDisk::open(folder.path()).unwrap();
        assert_eq!(read_small(&disk, "a", 10).unwrap(), None);
        disk.create("a.new").unwrap();
        replace_small(&disk, "a", b"first").unwrap();
        replace_small(&disk, "a", b"2nd").unwrap();
        assert_eq!(read_small(&disk, "a", 10).unwrap().as_deref(), Some(&b"2nd"[..]));
        assert_eq!(disk.list().unwrap(), ["a"]);
        assert_eq!(
            read_small(&disk, "a", 2).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
