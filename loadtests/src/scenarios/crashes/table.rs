//! The table: what a function does, and what its caller must be answered.

/// Answered with status and code; an empty code is the call's own number with 200.
pub(super) struct Row {
    /// A function of `model.py`.
    pub(super) does: &'static str,
    pub(super) status: u16,
    pub(super) code: &'static str,
}

const fn row(does: &'static str, status: u16, code: &'static str) -> Row {
    Row { does, status, code }
}

const CRASHED: &str = "replica.crashed";
const RAISED: &str = "function.exception";
const TIMEOUT: &str = "model.timeout";

/// One call each.
pub(super) const CALLS: &[Row] = &[
    row("kill_nine", 502, CRASHED),
    row("underscore_exit", 502, CRASHED),
    row("null_dereference", 502, CRASHED),
    row("endless_recursion", 502, CRASHED),
    row("sys_exit", 500, RAISED),
    row("base_exception", 500, RAISED),
    row("exception_without_text", 500, RAISED),
    row("long_message", 500, RAISED),
    row("loop", 504, TIMEOUT),
    row("loop_that_catches_everything", 504, TIMEOUT),
    row("c_call", 504, TIMEOUT),
    row("regular_expression", 504, TIMEOUT),
    row("ignore_terminate", 504, TIMEOUT),
    row("block_every_signal", 504, TIMEOUT),
    row("memory", 502, CRASHED),
    row("fork_bomb", 504, TIMEOUT),
    row("fork_bomb_in_new_sessions", 504, TIMEOUT),
    row("thread_bomb", 500, RAISED),
    row("print_for_ever", 504, TIMEOUT),
    row("print_much", 200, ""),
    row("write_to_low_descriptors", 200, ""),
    row("write_to_every_descriptor", 502, CRASHED),
    row("close_every_descriptor", 502, CRASHED),
    row("descriptor_leak", 500, RAISED),
    row("descriptor_leak_that_answers", 200, ""),
    row("background_thread", 200, ""),
    row("answer_late", 504, TIMEOUT),
];

/// Files that cannot be deployed, and what must be said about each.
pub(super) const IMPORTS: &[(&str, &str, &str)] = &[
    (
        "import_that_raises",
        "raise ValueError('not today')\ndef predict(args): pass\n",
        "ValueError: not today",
    ),
    ("import_that_hangs", "import time\ntime.sleep(3600)\ndef predict(args): pass\n", "within"),
    ("import_that_dies", "import os\nos.kill(os.getpid(), 9)\ndef predict(args): pass\n", "ended"),
    ("import_that_exits", "import sys\nsys.exit(0)\ndef predict(args): pass\n", "sys.exit"),
];
