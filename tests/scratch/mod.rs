//! The files of a node below a folder, gone when dropped, and what the program
//! says of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that stands for `/`.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let root = Scratch(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        let _ = fs::remove_dir_all(&root.0);
        fs::create_dir_all(&root.0).expect("a folder");
        root
    }

    pub fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// What the program says.
    pub fn netguard(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_netguard"))
            .arg("--root")
            .arg(&self.0)
            .args(arguments)
            .output()
            .expect("netguard runs")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
