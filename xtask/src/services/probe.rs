//! Is a port free, who holds it, and does the service behind it answer?

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The question a service must answer to count as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Kafka's `ApiVersions` request: answered once the broker takes requests.
    Kafka,
    /// The CQL protocol's `OPTIONS` frame.
    Cql,
    /// An HTTP GET of this path must be answered with status 200.
    Http(&'static str),
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether something accepts connections on the port.
pub fn is_taken(port: u16) -> bool {
    TcpStream::connect_timeout(&address(port), CONNECT_TIMEOUT).is_ok()
        || std::net::TcpListener::bind(address(port)).is_err()
}

impl Probe {
    /// Whether the service on the port answers now.
    pub fn answers(self, port: u16) -> bool {
        self.ask(port).unwrap_or(false)
    }

    fn ask(self, port: u16) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address(port), CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        match self {
            Self::Kafka => {
                // Length 10, api 18 (ApiVersions) version 0, correlation id 7, no client id.
                stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])?;
                let mut head = [0_u8; 10];
                stream.read_exact(&mut head)?;
                // Correlation id as sent, error code 0.
                Ok(head[4..8] == [0, 0, 0, 7] && head[8..10] == [0, 0])
            }
            Self::Cql => {
                // Version 4 request, no flags, stream 0, opcode OPTIONS, empty body.
                stream.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0])?;
                let mut head = [0_u8; 9];
                stream.read_exact(&mut head)?;
                // A response whose opcode is SUPPORTED.
                Ok(head[0] == 0x84 && head[4] == 6)
            }
            Self::Http(path) => {
                write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
                let mut head = [0_u8; 12];
                stream.read_exact(&mut head)?;
                Ok(head.starts_with(b"HTTP/1.") && &head[8..12] == b" 200")
            }
        }
    }
}

/// The process that listens on a port, as far as `/proc` lets us see it: `pid 12 (java -jar x)`.
pub fn holder(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .find_map(|table| listening_inode(&table, port))?;
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let owns = descriptors
            .flatten()
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| target.as_os_str() == wanted.as_str());
        if owns {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let command: String = command.trim().chars().take(100).collect();
            return Some(format!("pid {pid} ({command})"));
        }
    }
    None
}

/// The socket inode listening on `port` in the text of `/proc/net/tcp`.
fn listening_inode(table: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let listening = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTEN;
        listening.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_port_is_taken_and_its_holder_is_us() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_taken(port));
        let holder = holder(port).unwrap();
        assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
        drop(listener);
        assert!(!is_taken(port));
    }

    #[test]
    fn a_wrong_answer_is_no_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for _ in 0..3 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0_u8; 512];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
            }
        });
        assert!(!Probe::Http("/").answers(port));
        assert!(!Probe::Kafka.answers(port));
        assert!(!Probe::Cql.answers(port));
        server.join().unwrap();
        assert!(!Probe::Kafka.answers(port));
    }
}
