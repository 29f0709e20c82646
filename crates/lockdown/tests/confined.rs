//! What a confined process can do and cannot, tried by a process that confines itself: this test, run once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DIRECTORY: &str = "CONFINED_DIRECTORY";
const ADDRESS: &str = "CONFINED_ADDRESS";

fn scratch() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("confined-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("inside")).unwrap();
    directory
}

#[test]
fn a_confined_process_reaches_its_directory_and_its_port_and_nothing_else() {
    if let (Ok(directory), Ok(address)) = (std::env::var(DIRECTORY), std::env::var(ADDRESS)) {
        return confined(Path::new(&directory), address.parse().unwrap());
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = scratch();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .env(DIRECTORY, &directory)
        .env(ADDRESS, listener.local_addr().unwrap().to_string())
        .args([
            "--exact",
            "a_confined_process_reaches_its_directory_and_its_port_and_nothing_else",
            "--nocapture",
        ]);
    let output = child.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("seccomp"), "{said}");
    std::fs::remove_dir_all(directory).unwrap();
}

fn confined(directory: &Path, address: SocketAddr) {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let inside = directory.join("inside");
    let held = lockdown::confine(Some(&inside), Some(address)).unwrap();
    println!("{held}");
    // What it is for.
    std::fs::write(inside.join("a"), b"1").unwrap();
    std::fs::create_dir(inside.join("d")).unwrap();
    std::fs::hard_link(inside.join("a"), inside.join("d/b")).unwrap();
    std::fs::rename(inside.join("d"), inside.join("e")).unwrap();
    std::fs::remove_dir_all(inside.join("e")).unwrap();
    std::thread::Builder::new()
        .name("t".into())
        .spawn(|| ())
        .unwrap()
        .join()
        .unwrap();
    TcpStream::connect(address).unwrap();
    // What it is not for.
    assert!(Command::new("/bin/true").status().is_err());
    assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    assert!(TcpListener::bind("127.0.0.1:0").is_err());
    if held.starts_with("landlock") {
        assert!(std::fs::write(directory.join("outside"), b"1").is_err());
        assert!(std::fs::read("/etc/passwd").is_err());
    }
    if held.starts_with("landlock,") {
        assert!(TcpStream::connect(other.local_addr().unwrap()).is_err());
    }
}
