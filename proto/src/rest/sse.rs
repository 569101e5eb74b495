//! Reading server-sent events (WHATWG HTML, section 9.2.6).

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::client::{ClientError, Sender};

/// A line longer than this is no event of ours.
const LINE_BYTES_MAX: usize = 1 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// `change`, `reset`, `conflict`, `held`, `expiry`, or empty.
    pub event: String,
    /// For following on after a lost connection.
    pub id: String,
    pub data: String,
}

/// The events of one connection.
pub struct EventReader {
    body: Incoming,
    /// Open for as long as the events are read.
    _connection: Sender,
    target: String,
    lines: Lines,
}

impl EventReader {
    pub(super) fn new(body: Incoming, connection: Sender, target: String) -> Self {
        Self { body, _connection: connection, target, lines: Lines::default() }
    }

    /// The next event; none when the other side ended the stream.
    ///
    /// # Errors
    /// When the connection was lost.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(event) = self.lines.event() {
                return Ok(Some(event));
            }
            let lost = |why: String| ClientError::Lost { target: self.target.clone(), why };
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(lost(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.buffer.extend_from_slice(&data);
                    }
                    if self.lines.buffer.len() > LINE_BYTES_MAX {
                        return Err(lost("a line of the events is too long".into()));
                    }
                }
            }
        }
    }
}

/// Bytes on their way to become events. Our own servers end lines with a line feed, others may add a carriage return.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    event: ServerEvent,
    has_data: bool,
}

impl Lines {
    /// The next whole event in the buffer.
    fn event(&mut self) -> Option<ServerEvent> {
        let mut read = 0;
        let mut whole = None;
        while let Some(length) = self.buffer[read..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[read..read + length]).into_owned();
            read += length + 1;
            whole = self.line(line.trim_end_matches('\r'));
            if whole.is_some() {
                break;
            }
        }
        self.buffer.drain(..read);
        whole
    }

    fn line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.event = value.to_owned(),
            "id" => self.event.id = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments keep the connection alive; other fields mean nothing here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_arrive() {
        let text =
            ": hello\n\nevent: change\r\nid: 7\r\ndata: {\"a\":\ndata: 1}\n\ndata:x\n\nevent: none\n\n";
        let expected = [
            ServerEvent { event: "change".into(), id: "7".into(), data: "{\"a\":\n1}".into() },
            ServerEvent { data: "x".into(), ..ServerEvent::default() },
        ];
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut events = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.buffer.extend_from_slice(chunk);
                while let Some(event) = lines.event() {
                    events.push(event);
                }
            }
            assert_eq!(events, expected, "chunks of {size}");
        }
    }
}
