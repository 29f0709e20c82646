//! A real server in a process of its own, and a wire that can be cut.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base::SystemClock;
use client::{Client, ClientConfig, Credentials, Secret, Service, StreamName};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub const STREAM: &str = "door";

pub fn stream() -> StreamName {
    StreamName::Name(STREAM.to_owned())
}

/// The server's program: `SIGHTGLASS_BIN`, else the one that lies beside this test.
fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("SIGHTGLASS_BIN").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("sightglass"));
    named.or_else(beside).filter(|path| path.is_file())
}

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "AKIACLIENTCLIENTTEST".to_owned(),
        secret: Secret::new("client-client-client-client-client-1234"),
        session_token: None,
    }
}

pub struct Server {
    child: Option<Child>,
    folder: tempfile::TempDir,
    pub address: String,
}

impl Server {
    /// `None`, and a line that says so, where there is no server to test with.
    pub fn start() -> Option<Server> {
        let Some(_) = binary() else {
            println!("skipped: no sightglass beside this test, and SIGHTGLASS_BIN names none");
            return None;
        };
        let mut server = Server {
            child: None,
            folder: tempfile::tempdir().unwrap(),
            address: "127.0.0.1:0".to_owned(),
        };
        server.restart();
        Some(server)
    }

    /// Starts it on its data directory and, after the first time, on its port.
    pub fn restart(&mut self) {
        let mut child = Command::new(binary().unwrap())
            .args(["serve", "--listen", &self.address, "--data-dir"])
            .arg(self.folder.path().join("data"))
            .env("SIGHTGLASS_ACCESS_KEY_ID", credentials().access_key_id)
            .env("SIGHTGLASS_SECRET_ACCESS_KEY", credentials().secret.reveal())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.child = Some(child);
        let ready = line.trim().strip_prefix("sightglass ready http://");
        self.address = ready.expect("the server is ready").to_owned();
    }

    /// SIGKILL: nothing is drained.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn client(&self) -> Client {
        client_at(&self.address)
    }

    /// A server with a stream that keeps video for a day, or for no time.
    pub async fn with_stream(hours: u32) -> Option<Server> {
        let server = Server::start()?;
        let input = json!({ "StreamName": STREAM, "DataRetentionInHours": hours });
        server
            .client()
            .call(Service::KinesisVideo, "CreateStream", &input)
            .await
            .unwrap();
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn client_at(address: &str) -> Client {
    let endpoint = format!("http://{address}").parse().unwrap();
    let config = ClientConfig::new(endpoint, "us-west-2".parse().unwrap(), credentials());
    Client::new(config, Arc::new(SystemClock::new())).unwrap()
}

/// Carries bytes to a server, and breaks every connection when it is told to.
pub struct Wire {
    pub address: String,
    cut: watch::Sender<u64>,
}

impl Wire {
    pub async fn to(server: String) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (cut, cuts) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, server.clone(), cuts.clone()));
            }
        });
        Wire { address, cut }
    }

    /// Breaks every connection, with a reset where the system can.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry(near: TcpStream, server: String, mut cuts: watch::Receiver<u64>) {
    let Ok(far) = TcpStream::connect(server).await else {
        return;
    };
    cuts.mark_unchanged();
    // A close with this set is a reset.
    socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
        let _ = far_write.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut far_read, &mut near_write).await;
        let _ = near_write.shutdown().await;
    };
    tokio::select! {
        _ = cuts.changed() => {}
        _ = async { tokio::join!(up, down) } => {}
    }
}
