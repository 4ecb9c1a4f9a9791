//! Lines of a program's output, in bounded memory.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A line without its end; the last one may have none.
    Line(Vec<u8>),
    /// A line is longer than the limit. Its beginning; the rest is skipped by the next call.
    Long(Vec<u8>),
    /// The end of the output.
    End,
}

/// Reads lines of at most a number of bytes.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    limit: usize,
    line: Vec<u8>,
    /// Whether the rest of a long line has to be skipped.
    skips: bool,
    read: u64,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader: BufReader::new(reader), limit, line: Vec::new(), skips: false, read: 0 }
    }

    /// How many bytes were read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.read
    }

    /// The next line. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> std::io::Result<Piece> {
        loop {
            let buffer = self.reader.fill_buf().await?;
            if buffer.is_empty() {
                let line = std::mem::take(&mut self.line);
                return Ok(if line.is_empty() { Piece::End } else { Piece::Line(line) });
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let piece = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            let room = self.limit.saturating_sub(self.line.len());
            let is_long = !self.skips && piece.len() > room;
            if !self.skips {
                self.line.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
            }
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.reader.consume(used);
            self.read += used as u64;
            let was_skipped = self.skips;
            self.skips = end.is_none() && (self.skips || is_long);
            if is_long {
                return Ok(Piece::Long(std::mem::take(&mut self.line)));
            }
            if end.is_some() && !was_skipped {
                return Ok(Piece::Line(std::mem::take(&mut self.line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8], limit: usize) -> Vec<Piece> {
        let mut lines = Lines::new(text, limit);
        let mut pieces = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                Piece::End => break,
                piece => pieces.push(piece),
            }
        }
        assert_eq!(lines.bytes(), text.len() as u64);
        pieces
    }

    #[tokio::test]
    async fn lines_are_read_and_long_ones_cut() {
        let line = |text: &str| Piece::Line(text.as_bytes().to_vec());
        let long = |text: &str| Piece::Long(text.as_bytes().to_vec());
        assert_eq!(all(b"", 4).await, []);
        assert_eq!(all(b"a\n\nbcde\nf", 4).await, [line("a"), line(""), line("bcde"), line("f")]);
        assert_eq!(all(b"abcde\nf\n", 4).await, [long("abcd"), line("f")]);
        assert_eq!(all(b"abcde", 4).await, [long("abcd")]);
        let text = [vec![b'x'; 100_000], b"\ny\n".to_vec()].concat();
        assert_eq!(all(&text, 4).await, [long("xxxx"), line("y")]);
        assert_eq!(all(&text, 100_000).await.len(), 2);
    }
}
