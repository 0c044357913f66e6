//! One request of a probe: a command in the container, an HTTP request, or a connection.

use std::net::{IpAddr, SocketAddr};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::worker::Probing;
use crate::container::{Probed, RuntimeError};
use crate::model::service::{HttpProbe, Probe};
use crate::telemetry::chain;

/// Most bytes read of an HTTP answer: its first line is all that counts.
const STATUS_LINE_MAX: usize = 1024;

/// What a request found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Good,
    /// Not good, and why.
    Bad(String),
    /// Nothing: the container could not be asked, which is not its fault.
    None,
}

/// The requests of one probe, one after the other.
pub(super) struct Asked<'a> {
    probe: &'a Probe,
    /// A command that has not ended within its time: no other is run beside it.
    command: Option<BoxFuture<'static, Result<Probed, RuntimeError>>>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(probe: &'a Probe) -> Asked<'a> {
        Asked {
            probe,
            command: None,
        }
    }

    /// Asks once, when there is a place to do so.
    pub(super) async fn next(&mut self, probing: &Probing) -> Answer {
        let Some(workers) = probing.workers() else {
            return Answer::None;
        };
        // Never closed, so a place always comes free.
        let _place = workers.probes.acquire().await;
        let limit = self.probe.timeout.0;
        let late = || Answer::Bad(format!("no answer within {}", self.probe.timeout));
        if let Some(command) = &self.probe.exec {
            if !workers.engine_answers_now() {
                return Answer::None;
            }
            let asked = self.command.take();
            let mut asked = asked.unwrap_or_else(|| {
                let (runtime, id) = (workers.runtime().clone(), probing.container.clone());
                let command = command.clone();
                async move { runtime.probe(&id, &command).await }.boxed()
            });
            let Ok(ended) = tokio::time::timeout(limit, &mut asked).await else {
                self.command = Some(asked);
                return late();
            };
            return judged(ended);
        }
        let Some(address) = workers.address(&probing.pod) else {
            return Answer::Bad("the container has no address".to_owned());
        };
        let answered = match (&self.probe.http, &self.probe.tcp) {
            (Some(http), _) => tokio::time::timeout(limit, ask_http(address, http)).await,
            (_, Some(tcp)) => {
                let connected = connect(address, tcp.port).map(|made| match made {
                    Ok(_) => Answer::Good,
                    Err(words) => Answer::Bad(words),
                });
                tokio::time::timeout(limit, connected).await
            }
            _ => return Answer::None, // the spec's rules leave no such probe
        };
        answered.unwrap_or_else(|_| late())
    }
}

fn judged(ended: Result<Probed, RuntimeError>) -> Answer {
    match ended {
        Ok(Probed {
            exit_code: Some(0), ..
        }) => Answer::Good,
        Ok(Probed {
            exit_code: Some(code),
            said,
        }) if said.is_empty() => Answer::Bad(format!("its command exited with code {code}")),
        Ok(Probed {
            exit_code: Some(code),
            said,
        }) => Answer::Bad(format!("its command exited with code {code}: {said}")),
        Ok(Probed {
            exit_code: None, ..
        }) => Answer::None,
        Err(error) if error.is_unreachable() => Answer::None,
        Err(error) => Answer::Bad(chain(&error)),
    }
}

async fn connect(address: IpAddr, port: u16) -> Result<TcpStream, String> {
    let made = TcpStream::connect(SocketAddr::new(address, port)).await;
    made.map_err(|error| format!("port {port}: {error}"))
}

async fn ask_http(address: IpAddr, http: &HttpProbe) -> Answer {
    match status_of(address, http).await {
        Ok(200..=399) => Answer::Good,
        Ok(status) => Answer::Bad(format!("GET {} answered {status}", http.path)),
        Err(words) => Answer::Bad(words),
    }
}

/// The status of the answer to one `GET`. Redirects are not followed: answering is good enough.
async fn status_of(address: IpAddr, http: &HttpProbe) -> Result<u16, String> {
    let mut stream = connect(address, http.port).await?;
    let broken = |error: std::io::Error| format!("GET {}: {error}", http.path);
    let host = SocketAddr::new(address, http.port);
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {host}\r\nuser-agent: kubeleet-probe\r\naccept: */*\r\n\
         connection: close\r\n\r\n",
        http.path
    );
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut line = Vec::new();
    let mut reader = stream.take(u64::try_from(STATUS_LINE_MAX).unwrap_or(u64::MAX));
    while !line.contains(&b'\n') {
        if reader.read_buf(&mut line).await.map_err(broken)? == 0 {
            break;
        }
    }
    parsed(&line).ok_or_else(|| format!("GET {}: no HTTP answer", http.path))
}

fn parsed(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line.split(|byte| *byte == b'\n').next()?).ok()?;
    let mut words = line.split_whitespace();
    words.next()?.strip_prefix("HTTP/")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_is_an_answer() {
        assert_eq!(parsed(b"HTTP/1.1 204 No Content\r\nx: y\r\n"), Some(204));
        assert_eq!(parsed(b"HTTP/1.0 500\r\n"), Some(500));
        for rubbish in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n", b"\xff\xfe"] {
            assert_eq!(parsed(rubbish), None);
        }
    }

    async fn server(answer: &'static [u8]) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_status_from_200_to_399_is_good() {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        let path = || "/healthz?deep=1".to_owned();
        let ask = async |answer| {
            let port = server(answer).await;
            ask_http(localhost, &HttpProbe { port, path: path() }).await
        };
        assert_eq!(ask(b"HTTP/1.1 200 OK\r\n\r\n").await, Answer::Good);
        assert_eq!(ask(b"HTTP/1.1 302 Found\r\n\r\n").await, Answer::Good);
        let bad = ask(b"HTTP/1.1 503 Later\r\n\r\n").await;
        let words = "GET /healthz?deep=1 answered 503";
        assert_eq!(bad, Answer::Bad(words.to_owned()));
        let rubbish = ask(b"rubbish").await;
        let words = "GET /healthz?deep=1: no HTTP answer";
        assert_eq!(rubbish, Answer::Bad(words.to_owned()));
    }

    #[test]
    fn a_command_that_could_not_be_asked_says_nothing() {
        let probed = |exit_code, said: &str| {
            judged(Ok(Probed {
                exit_code,
                said: said.to_owned(),
            }))
        };
        assert_eq!(probed(Some(0), "fine"), Answer::Good);
        assert_eq!(probed(None, ""), Answer::None);
        let words = "its command exited with code 3: no route";
        assert_eq!(probed(Some(3), "no route"), Answer::Bad(words.to_owned()));
    }

    #[test]
    fn fuzz_answers() {
        crate::fuzz::bytes(
            "answers of probes",
            &[b"HTTP/1.1 204 No Content\r\nx: y\r\n"],
            |line| {
                let _ = parsed(line);
            },
        );
    }
}
