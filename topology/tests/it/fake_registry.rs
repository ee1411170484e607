//! A registry that answers every request alike, for the ways of failing that a real one can't be made to show.

use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Listens on a port of its own until it is dropped.
pub struct FakeRegistry {
    pub url: String,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// `None`: never.
    answer: Option<(u16, String)>,
    requests: Vec<String>,
}

impl FakeRegistry {
    pub async fn answering(status: u16, body: &str) -> Self {
        let fake = Self::silent().await;
        fake.answer_now(status, body);
        fake
    }

    /// Takes requests and never answers.
    pub async fn silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state, task }
    }

    pub fn answer_now(&self, status: u16, body: &str) {
        self.state.lock().unwrap().answer = Some((status, body.to_owned()));
    }

    /// The requests so far, as they came.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut request = vec![0; 65_536];
    let Ok(length) = stream.read(&mut request).await else { return };
    let answer = {
        let mut state = state.lock().unwrap();
        state.requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
        state.answer.clone()
    };
    match answer {
        None => std::future::pending().await,
        Some((status, body)) => {
            let answer = format!(
                "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}
