//! What the threads of a process besides its first are doing.
//!
//! Only the pool of OpenBLAS may be there: the library makes it when it is loaded (by `import numpy`), and takes it down
//! and up again around each fork. A pool of OpenMP is another thing: it is there only once a parallel region has run,
//! and then every child hangs in its next one.
//!
//! A thread has no mark that says who made it, and its name is its program's. But where it came from is on its stack:
//! from its stack pointer up lie the return addresses of the functions it is in, and above them the function it was
//! started with. The worker of a pool has been nowhere but in its library and the C library; so a thread is taken for
//! OpenBLAS's when every address of code there lies in these, and one at least in OpenBLAS. Any other address, a stale
//! one included, makes it unknown: the error is on the safe side.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::Finding;
use crate::procfs::ShownPid;

/// How far up a stack is looked. A worker that waits uses a few thousand bytes, descriptor and thread-locals included.
const STACK_BYTES_MAX: u64 = 256 * 1024;

/// Executable code of a file that is mapped, or a stack.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    begin: u64,
    end: u64,
    is_code: bool,
    /// The file's name without its folder.
    file: String,
}

/// Looks at every thread but the first.
pub(super) fn look(pid: ShownPid) -> Finding {
    match try_look(pid) {
        Ok(finding) => finding,
        Err(error) => Finding::Hazard(super::unseen("threads", &error)),
    }
}

fn try_look(pid: ShownPid) -> io::Result<Finding> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/task", pid.0))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != pid.0.to_string().as_str()) {
            threads.push(path);
        }
    }
    if threads.is_empty() {
        return Ok(Finding::Clean);
    }
    let mappings = parse_maps(&fs::read_to_string(format!("/proc/{}/maps", pid.0))?);
    let memory = File::open(format!("/proc/{}/mem", pid.0))?;
    let mut unsettled = None;
    for thread in threads {
        match look_at_one(&thread, &mappings, &memory) {
            // It has ended meanwhile.
            Err(error) if !thread.exists() => drop(error),
            Err(error) => return Err(error),
            Ok(Finding::Clean) => {}
            Ok(Finding::Hazard(text)) => return Ok(Finding::Hazard(text)),
            Ok(Finding::Unsettled(text)) => unsettled = Some(Finding::Unsettled(text)),
        }
    }
    Ok(unsettled.unwrap_or(Finding::Clean))
}

fn look_at_one(thread: &Path, mappings: &[Mapping], memory: &File) -> io::Result<Finding> {
    let name = fs::read_to_string(thread.join("comm"))?;
    let Some(stack_pointer) = stack_pointer(&fs::read_to_string(thread.join("syscall"))?) else {
        return Ok(Finding::Unsettled(format!("thread `{}` keeps running after import", name.trim())));
    };
    let files = files_on_stack(stack_pointer, mappings, memory)?;
    Ok(match judge(&files) {
        None => Finding::Clean,
        Some(text) => Finding::Hazard(format!("thread `{}` runs after import: {text}", name.trim())),
    })
}

/// `number arguments… stack instruction` of a thread that waits in a system call; one that runs has none.
fn stack_pointer(syscall: &str) -> Option<u64> {
    let fields: Vec<&str> = syscall.split_whitespace().collect();
    let [number, .., pointer, _] = fields[..] else { return None };
    number.parse::<u32>().ok()?;
    u64::from_str_radix(pointer.trim_start_matches("0x"), 16).ok()
}

/// The files whose code is pointed to between the stack pointer and the stack's end.
fn files_on_stack(pointer: u64, mappings: &[Mapping], memory: &File) -> io::Result<BTreeSet<String>> {
    let stack = mappings
        .iter()
        .find(|one| (one.begin..one.end).contains(&pointer))
        .ok_or_else(|| io::Error::other("a thread has no stack"))?;
    let length = (stack.end - pointer).min(STACK_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    memory.read_exact_at(&mut bytes, pointer)?;
    let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")));
    Ok(words
        .filter_map(|word| mappings.iter().find(|one| one.is_code && (one.begin..one.end).contains(&word)))
        .map(|mapping| mapping.file.clone())
        .collect())
}

/// Why a thread with these files' code on its stack speaks against a fork.
fn judge(files: &BTreeSet<String>) -> Option<String> {
    let any = |is_it: fn(&str) -> bool| files.iter().find(|file| is_it(file));
    if let Some(file) = any(is_openmp) {
        return Some(format!("`{file}` has run a parallel region, and would hang in a forked child"));
    }
    let foreign = files.iter().find(|file| !is_openblas(file) && !is_c_library(file));
    match (foreign, any(is_openblas)) {
        (None, Some(_)) => None,
        (Some(file), _) => Some(format!("it is in `{file}`")),
        (None, None) => Some("nobody knows whose it is".to_owned()),
    }
}

/// `libopenblas.so.0`, `libopenblas64_p-r0-….so`, `libscipy_openblas64_-….so`.
fn is_openblas(file: &str) -> bool {
    file.starts_with("lib") && file.contains("openblas") && file.contains(".so")
}

fn is_openmp(file: &str) -> bool {
    ["libgomp", "libiomp", "libomp"].iter().any(|begin| file.starts_with(begin))
}

fn is_c_library(file: &str) -> bool {
    ["libc.so", "libc-", "libpthread.so", "libpthread-", "ld-linux", "ld-2", "ld-musl", "[vdso]"]
        .iter()
        .any(|begin| file.starts_with(begin))
}

/// `begin-end perms offset device inode path`
fn parse_maps(text: &str) -> Vec<Mapping> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (begin, end) = fields.next()?.split_once('-')?;
            let permissions = fields.next()?;
            let path = fields.nth(3).unwrap_or_default();
            Some(Mapping {
                begin: u64::from_str_radix(begin, 16).ok()?,
                end: u64::from_str_radix(end, 16).ok()?,
                is_code: permissions.contains('x'),
                file: Path::new(path)
                    .file_name()
                    .map_or(path, |name| name.to_str().unwrap_or(path))
                    .to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(files: &[&str]) -> Option<String> {
        judge(&files.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_worker_of_openblas_is_known_and_nobody_else_is() {
        assert_eq!(judged(&["libc.so.6", "libscipy_openblas64_-fdde5778.so"]), None);
        assert_eq!(judged(&["libopenblas.so.0", "libc.so.6", "ld-linux-x86-64.so.2"]), None);
        let openmp = judged(&["libc.so.6", "libgomp.so.1.0.0", "libscipy_openblas64_-fdde5778.so"]).unwrap();
        assert!(openmp.contains("has run a parallel region"), "{openmp}");
        let python = judged(&["libc.so.6", "libopenblas.so.0", "libpython3.11.so.1.0"]).unwrap();
        assert_eq!(python, "it is in `libpython3.11.so.1.0`");
        assert_eq!(judged(&["libc.so.6"]).unwrap(), "nobody knows whose it is");
        assert!(judged(&["libopenblas.so.0", ""]).is_some(), "code without a file");
    }

    #[test]
    fn a_thread_that_waits_has_a_stack_pointer_and_one_that_runs_has_none() {
        let waits = "202 0x55 0x189 0x0 0x0 0x0 0xffffffff 0x7ffe2a74fb40 0x7f3d9ebac503\n";
        assert_eq!(stack_pointer(waits), Some(0x7ffe_2a74_fb40));
        assert_eq!(stack_pointer("running\n"), None);
        assert_eq!(stack_pointer("-1 0x7ffe2a74fb40 0x7f3d9ebac503\n"), None);
    }

    #[test]
    fn a_thread_of_this_program_is_seen() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        let pid = crate::procfs::own_pid().unwrap();
        // The test's own main thread waits, or others run: either way not a clean process.
        assert_ne!(look(pid), Finding::Clean);
        drop(go);
        thread.join().unwrap().unwrap_err();
    }
}
