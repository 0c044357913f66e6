//! A source of lines: what an agent says of one pod, or what was kept of it.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::model::{LogLine, PodId};
use crate::store::Frame;

/// Where lines of one pod come from.
pub(super) struct Source {
    pub(super) pod: PodId,
    pub(super) node: String,
    /// When an agent that has taken nothing in hand is given up; `None` once it has.
    pub(super) take_by: Option<Instant>,
    /// What was said and not given out yet; the first of them begins with a line.
    batches: VecDeque<Batch>,
    /// All lines that were there when it was asked for have come.
    history_is_over: bool,
    /// The last frame, once it has come.
    last: Option<Frame>,
    /// Time of the last line that was given out.
    shown: Option<String>,
}

/// Lines that travelled together; of an entry that tells something else there are none.
struct Batch {
    entry: String,
    lines: Vec<u8>,
    /// Where the next line begins, and where it ends.
    at: usize,
    end: usize,
}

impl Source {
    /// An agent that was asked.
    pub(super) fn asked(pod: PodId, node: String, take_by: Instant) -> Source {
        Source {
            pod,
            node,
            take_by: Some(take_by),
            batches: VecDeque::new(),
            history_is_over: false,
            last: None,
            shown: None,
        }
    }

    /// Lines that were kept.
    pub(super) fn kept(pod: PodId, node: String, lines: Vec<u8>) -> Source {
        let mut source = Source::asked(pod, node, Instant::now());
        source.end(Frame::End);
        source.push(String::new(), lines);
        source
    }

    /// Notes what the agent said. Gives the last entry that needs no more to be done, if there is one.
    pub(super) fn note(&mut self, entry: String, frame: Option<Frame>) -> Option<String> {
        self.take_by = None;
        let lines = match frame {
            Some(Frame::Lines(lines)) => lines,
            Some(Frame::History) => {
                self.history_is_over = true;
                Vec::new()
            }
            Some(frame) if frame.is_last() => {
                self.end(frame);
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.push(entry, lines)
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self, last: Frame) {
        self.history_is_over = true;
        self.take_by = None;
        self.last.get_or_insert(last);
    }

    /// Whether older lines than those at hand may still come.
    pub(super) fn holds_up(&self) -> bool {
        self.batches.is_empty() && !self.history_is_over
    }

    /// The last frame, once all lines before it were given out.
    pub(super) fn ended(&self) -> Option<&Frame> {
        self.last.as_ref().filter(|_| self.batches.is_empty())
    }

    /// Time of the last line that was given out.
    pub(super) fn into_shown(self) -> Option<String> {
        self.shown
    }

    /// The next line.
    pub(super) fn line(&self) -> Option<LogLine<'_>> {
        let batch = self.batches.front()?;
        LogLine::read(&batch.lines[batch.at..batch.end])
    }

    /// Goes on behind the next line. Gives the last entry that is used up now, if one is.
    pub(super) fn advance(&mut self) -> Option<String> {
        let batch = self.batches.front_mut()?;
        if let Some(line) = LogLine::read(&batch.lines[batch.at..batch.end]) {
            let shown = self.shown.get_or_insert_default();
            shown.clear();
            shown.push_str(line.time);
        }
        batch.at = batch.end;
        self.settle()
    }

    fn push(&mut self, entry: String, lines: Vec<u8>) -> Option<String> {
        let batch = Batch {
            entry,
            lines,
            at: 0,
            end: 0,
        };
        self.batches.push_back(batch);
        if self.batches.len() > 1 {
            return None;
        }
        self.settle()
    }

    /// Drops what is used up, and what is no line, until the first batch begins with one.
    fn settle(&mut self) -> Option<String> {
        let mut used_up = None;
        while let Some(batch) = self.batches.front_mut() {
            let rest = &batch.lines[batch.at..];
            if rest.is_empty() {
                used_up = self.batches.pop_front().map(|batch| batch.entry);
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            batch.end = end.map_or(batch.lines.len(), |end| batch.at + end + 1);
            if LogLine::read(&batch.lines[batch.at..batch.end]).is_some() {
                break;
            }
            batch.at = batch.end;
        }
        used_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(source: &mut Source) -> (Vec<String>, Vec<String>) {
        let (mut texts, mut entries) = (Vec::new(), Vec::new());
        while let Some(line) = source.line() {
            texts.push(String::from_utf8_lossy(line.text).into_owned());
            entries.extend(source.advance());
        }
        (texts, entries)
    }

    #[test]
    fn lines_come_in_order_and_entries_are_told_when_used_up() {
        let pod = PodId::parse("p-0").unwrap();
        let mut source = Source::asked(pod, "n".to_owned(), Instant::now());
        let mut note = |entry: &str, frame| source.note(entry.to_owned(), Some(frame));
        let lines = |text: &str| Frame::Lines(text.as_bytes().to_vec());
        assert_eq!(note("1-0", Frame::Taken).as_deref(), Some("1-0"));
        assert_eq!(note("2-0", lines("rubbish\no 1 a\nrubbish\no 2 b\n")), None);
        assert_eq!(note("3-0", lines("rubbish\n")), None);
        assert_eq!(note("4-0", Frame::History), None, "lines before it wait");
        assert_eq!(note("5-0", lines("o 3 c\n")), None);
        assert_eq!(note("6-0", Frame::End), None);
        assert!(source.take_by.is_none() && !source.holds_up());
        assert_eq!(source.ended(), None, "there are lines before it");
        let (texts, entries) = all(&mut source);
        assert_eq!(texts, ["a", "b", "c"]);
        assert_eq!(entries, ["4-0", "6-0"]);
        assert_eq!(source.ended(), Some(&Frame::End));
        assert_eq!(source.into_shown().as_deref(), Some("3"));
    }

    #[test]
    fn a_source_holds_up_others_until_its_history_has_come() {
        let pod = PodId::parse("p-0").unwrap();
        let mut source = Source::asked(pod.clone(), "n".to_owned(), Instant::now());
        assert!(source.holds_up());
        source.note("1-0".to_owned(), Some(Frame::Lines(b"o 1 a\n".to_vec())));
        assert!(!source.holds_up(), "it has one to compare");
        source.advance();
        assert!(source.holds_up());
        source.note("2-0".to_owned(), Some(Frame::History));
        assert!(!source.holds_up());
        let kept = Source::kept(pod, "n".to_owned(), b"o 1 a\n".to_vec());
        assert!(!kept.holds_up() && kept.ended().is_none());
    }
}
