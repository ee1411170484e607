//! Just enough HTTP/1.1 to answer in a server's place: where a request ends.

use super::proxy::Mode;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

/// More than any request of the suite; a longer one is answered before its end.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const END_OF_CHUNKS: &[u8] = b"\r\n0\r\n\r\n";

/// Reads requests and gives each the same answer, until the client goes or the mode changes.
pub async fn answer_all(
    mut client: TcpStream,
    answer: &str,
    mut mode: watch::Receiver<Mode>,
    counter: &AtomicU64,
) {
    let mut request = Vec::new();
    loop {
        tokio::select! {
            _ = mode.changed() => return,
            read = client.read_buf(&mut request) => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
            }
        }
        if is_complete(&request) || request.len() > MAX_REQUEST_BYTES {
            request.clear();
            counter.fetch_add(1, Ordering::Relaxed);
            if client.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Whether the bytes hold a whole request: its head, and the body that the head announces.
fn is_complete(request: &[u8]) -> bool {
    let Some(end) = request.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) else {
        return false;
    };
    let (head, body) = request.split_at(end + END_OF_HEAD.len());
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        // The chunks begin right after the head: an empty body is `0\r\n\r\n` without a line before it.
        return body.ends_with(END_OF_CHUNKS) || body == &END_OF_CHUNKS[2..];
    }
    let length = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    body.len() >= length
}

#[cfg(test)]
mod tests {
    use super::is_complete;

    #[test]
    fn the_end_of_a_request_is_found_whatever_its_body() {
        assert!(!is_complete(b"GET / HTTP/1.1\r\nHost: x\r\n"));
        assert!(is_complete(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(!is_complete(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"));
        assert!(is_complete(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"));
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        assert!(is_complete(chunked));
        assert!(!is_complete(&chunked[..chunked.len() - 2]));
        assert!(is_complete(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
    }
}
