//! A terminal as `plimsoll top` needs it: every key at once, a screen of its own, and all as it was
//! at the end.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Up,
    Down,
    Left,
    Right,
}

/// Another screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal that is taken over until this is dropped.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal over; `None` where there is none that can be drawn on.
    ///
    /// # Errors
    /// What it says.
    pub(super) fn take() -> io::Result<Option<Self>> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_dumb || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let terminal = Self { before };
        put(ENTER)?;
        Ok(Some(terminal))
    }

    /// Draws the whole screen, in one piece.
    ///
    /// # Errors
    /// What the terminal says.
    pub(super) fn draw(&self, lines: impl FnOnce(usize, usize) -> Vec<String>) -> io::Result<()> {
        let (width, height) = size();
        let lines = lines(width, height).join("\x1b[K\r\n");
        put(&format!("\x1b[H{lines}\x1b[K\x1b[J"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = put(LEAVE);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Columns and lines. A terminal that does not know has 80 by 24.
pub(super) fn size() -> (usize, usize) {
    let size = tcgetwinsize(io::stdout()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |s| (usize::from(s.ws_col), usize::from(s.ws_row)))
}

/// Keys as they are pressed, until the terminal is gone. The thread ends with the process.
pub(super) fn keys() -> mpsc::Receiver<Key> {
    let (pressed, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = io::stdin().read(&mut bytes) {
            for key in read(&bytes[..count]) {
                if pressed.blocking_send(key).is_err() {
                    return;
                }
            }
        }
    });
    keys
}

/// The keys in what a terminal sent at once. Ctrl-C and Ctrl-D are `q`.
fn read(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    loop {
        let (key, rest) = match bytes {
            [] => return keys,
            [0x1b, b'[' | b'O', end, rest @ ..] => (arrow(*end), rest),
            [3 | 4, rest @ ..] => (Some(Key::Letter('q')), rest),
            [byte, rest @ ..] => {
                let letter = char::from(byte.to_ascii_lowercase());
                let is_meant = letter.is_ascii_graphic() || letter == '\t';
                (is_meant.then_some(Key::Letter(letter)), rest)
            }
        };
        keys.extend(key);
        bytes = rest;
    }
}

const fn arrow(end: u8) -> Option<Key> {
    match end {
        b'A' => Some(Key::Up),
        b'B' => Some(Key::Down),
        b'C' => Some(Key::Right),
        b'D' => Some(Key::Left),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_sends_is_read_as_keys() {
        use Key::{Down, Left, Letter, Right, Up};
        for (bytes, keys) in [
            (&b"m"[..], vec![Letter('m')]),
            (b"Q", vec![Letter('q')]),
            (b"\x03", vec![Letter('q')]),
            (b"\x1b[A\x1b[B\x1bOC\x1b[D", vec![Up, Down, Right, Left]),
            (b"\x1b", vec![]),
            (b"\x1b[Zr", vec![Letter('r')]),
            (b"\t1", vec![Letter('\t'), Letter('1')]),
        ] {
            assert_eq!(read(bytes), keys, "{bytes:?}");
        }
    }
}
