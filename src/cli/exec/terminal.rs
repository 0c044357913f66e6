//! The terminal of this process: its size, and its raw mode, which ends with it.

use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::model::TerminalSize;

/// How the terminal was, while it is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal that passes every key on as it is; as before when dropped, and after a panic, which
/// in a released build drops nothing.
pub(super) struct RawTerminal(());

impl RawTerminal {
    pub(super) fn enter() -> std::io::Result<RawTerminal> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        restore_on_panic();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(RawTerminal(()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // What is typed ahead is kept; a terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            hook(panic);
        }));
    });
}

/// The terminal's size, if there is a terminal.
pub(super) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    Some(TerminalSize {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}
