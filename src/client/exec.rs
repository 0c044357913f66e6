//! A command in a pod's container, over a `WebSocket`.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::Uri;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{CONNECT_TIMEOUT, Client, ClientError, KEEPALIVE, escape};
use crate::model::{ExecFrame, ExecWish};

/// The port of an address that names none.
const HTTP_PORT: u16 = 80;

/// What is said to a command.
pub struct ExecOutgoing {
    address: String,
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
}

/// What a command says.
pub struct ExecIncoming {
    address: String,
    stream: SplitStream<WebSocketStream<TcpStream>>,
}

impl Client {
    /// Runs a command in a pod's container, which ends when both ends are dropped.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn exec(
        &self,
        pod: &str,
        wish: &ExecWish,
    ) -> Result<(ExecOutgoing, ExecIncoming), ClientError> {
        let (mut outgoing, incoming) = self.in_time(self.connect(pod)).await?;
        // Texts and numbers always have a JSON form.
        let wish = serde_json::to_string(wish).unwrap_or_default();
        outgoing.send_message(Message::text(wish)).await?;
        Ok((outgoing, incoming))
    }

    async fn connect(&self, pod: &str) -> Result<(ExecOutgoing, ExecIncoming), ClientError> {
        // It was checked when the client was made.
        let place: Uri = self.address.parse().unwrap_or_default();
        let host = place.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = place.port_u16().unwrap_or(HTTP_PORT);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)));
        let connected = connected
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|error| self.unreachable(error.into()))?;
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let _ = sockopt::set_tcp_keepidle(&stream, KEEPALIVE);
        let authority = place.authority().map_or("", |authority| authority.as_str());
        let path = format!("ws://{authority}/v1/pods/{}/exec", escape(pod));
        let (socket, _) = client_async(path, stream)
            .await
            .map_err(|error| match error {
                tungstenite::Error::Http(answer) => {
                    let body = answer.body().as_deref().unwrap_or_default();
                    self.refusal(answer.status().as_u16(), body)
                }
                other => self.unreachable(other.into()),
            })?;
        let (sink, stream) = socket.split();
        let address = self.address.clone();
        let outgoing = ExecOutgoing {
            address: address.clone(),
            sink,
        };
        Ok((outgoing, ExecIncoming { address, stream }))
    }
}

impl ExecOutgoing {
    /// Says something to the command.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn send(&mut self, frame: &ExecFrame) -> Result<(), ClientError> {
        self.send_message(Message::binary(frame.to_bytes())).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), ClientError> {
        let sent = self.sink.send(message).await;
        sent.map_err(|error| cut_off(&self.address, error))
    }
}

impl ExecIncoming {
    /// What comes next; what this version does not understand is left out.
    ///
    /// # Errors
    /// The connection was lost before the last frame.
    pub async fn next(&mut self) -> Result<ExecFrame, ClientError> {
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(cut_off(&self.address, error)),
                None => {
                    return Err(cut_off(&self.address, tungstenite::Error::ConnectionClosed));
                }
            };
            if let Message::Binary(bytes) = message
                && let Some(frame) = ExecFrame::read(&bytes)
            {
                return Ok(frame);
            }
        }
    }
}

fn cut_off(address: &str, error: tungstenite::Error) -> ClientError {
    ClientError::CutOff {
        address: address.to_owned(),
        source: error.into(),
    }
}
