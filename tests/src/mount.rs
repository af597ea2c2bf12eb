//! File systems that are small, read-only or full. Mounting needs root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mount(PathBuf);

// === impl Mount ===

impl Mount {
    /// A file system in memory, at `path`.
    pub fn tmpfs(path: &Path, options: &str) -> Self {
        Self::at(path, &["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// A new ext4 file system of some MiB, at `path`; its image lies beside it.
    pub fn ext4(path: &Path, mebibytes: u64) -> Self {
        let image = path.with_extension("image");
        let file = fs::File::create(&image).expect("an image can be made");
        file.set_len(mebibytes << 20).expect("an image can be made");
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output();
        let made = made.expect("mkfs.ext4 runs");
        assert!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
        Self::at(path, &["-o", "loop", &image.display().to_string()])
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Changes its options.
    ///
    /// # Errors
    /// What `mount` says; a file that is being written keeps it from becoming read-only.
    pub fn remount(&self, options: &str) -> Result<(), String> {
        self.mount(&["-o", &format!("remount,{options}")])
    }

    /// Makes it read-only for whoever opens its files from now on, until what is given is dropped. Unlike a remount it can be
    /// had while files are open for writing; those stay as they are.
    pub fn read_only(&self) -> Mount {
        let cover = Mount::at(&self.0, &["--bind", &self.0.display().to_string()]);
        cover.remount("bind,ro").expect("what is over it can be read-only");
        cover
    }

    fn at(path: &Path, arguments: &[&str]) -> Self {
        fs::create_dir_all(path).expect("a folder to mount on can be made");
        let mount = Mount(path.to_owned());
        if let Err(error) = mount.mount(arguments) {
            panic!("this test must be run as root, and be allowed to mount: {error}");
        }
        mount
    }

    fn mount(&self, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new("mount").args(arguments).arg(&self.0).output();
        let output = output.map_err(|error| error.to_string())?;
        let error = || String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or_else(error)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazy: a process that was just killed may still hold files.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
