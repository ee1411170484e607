//! A server of its own for each test: free port, temporary data folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The largest INSERT the servers of these tests take.
pub const MAX_INSERT_BYTES: usize = 6_000_000;

pub struct Server {
    child: Child,
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn library() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.claims/cache/unpacked/clickhouse/package/libchdb.so");
    assert!(path.exists(), "the ClickHouse engine is not downloaded yet: run `cargo xtask up`");
    path
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claims-dev-clickhouse"));
    command
        .arg("--library")
        .arg(library())
        .arg("--data")
        .arg(data)
        .args(["--port", "0", "--max-insert-bytes"])
        .arg(MAX_INSERT_BYTES.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

impl Server {
    /// Starts a server and waits for the line that names its port.
    pub fn start(data: &Path) -> Self {
        let mut child = command(data).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let port = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended: {seen}");
            if let Some((_, address)) = line.split_once("ready address=127.0.0.1:") {
                break address.trim().parse().unwrap();
            }
            seen.push_str(&line);
        };
        // The pipe must be read on, or the server would block on its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, port }
    }

    /// Starts a server that must refuse, and returns what it says.
    pub fn refused(data: &Path) -> String {
        let output = command(data).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Ends the process without any warning.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end, and returns whether it ended well.
    pub fn terminate(mut self) -> bool {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().success()
    }

    /// The client as the pipeline uses it: all defaults, compression on.
    pub fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default().with_url(format!("http://127.0.0.1:{}", self.port))
    }

    /// A plain HTTP request, as `curl` sends it; returns status and body.
    pub fn http(&self, target: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.to_owned() };
        (head[9..12].parse().unwrap(), body)
    }
}

/// The content of a chunked body.
fn unchunked(mut body: &str) -> String {
    let mut content = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return content;
        }
        content.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
}
