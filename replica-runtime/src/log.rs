//! The runtime's own lines in the deployment's log, which is at descriptor 2.

/// Writes a line. Nothing is done if it cannot be written: user code may have closed the descriptor, and `eprintln!`
/// would end the process.
pub(crate) fn say(text: &str) {
    crate::page::mark(libc::STDERR_FILENO);
    let line = format!("millgate: {text}\n");
    // SAFETY: `line` is readable for its length.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}
