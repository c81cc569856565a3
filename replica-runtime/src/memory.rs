//! Memory that a call has freed is kept for the next one.
//!
//! Left to themselves, malloc gives what lies free at the end of its heap back to the kernel, and Python each of its arenas
//! that has become empty; the next call with as large a request has it all mapped and zeroed again, page by page. With 1 MB of
//! floats page faults were a sixth of a replica's time (`perf`), and are none now.

use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    ptr,
};

use pyo3::ffi;

/// Bytes that malloc keeps at the end of its heap.
const HEAP_BYTES_KEPT: c_int = 16 * 1024 * 1024;
/// Bytes from which on malloc asks the kernel for a single piece of memory, and gives it back.
const PIECE_BYTES: c_int = 8 * 1024 * 1024;
/// Empty arenas that are kept. They have a megabyte each, and a quarter of one before Python 3.10.
const ARENAS_KEPT: usize = 16;

/// From now on. Python has been started, and nothing of the user's has run.
pub(crate) fn keep() {
    // SAFETY: numbers for malloc; one that it refuses changes nothing.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, HEAP_BYTES_KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, PIECE_BYTES);
    }
    // SAFETY: Python calls an arena allocator with its lock held, as it is held here, so nothing touches `ARENAS` at the same
    // time. The allocator before ours stays valid for ever; arenas that it has made may be given to ours, which gives
    // them back to it.
    unsafe {
        let arenas = ARENAS.0.get();
        if (*arenas).below.alloc.is_some() {
            return;
        }
        ffi::PyObject_GetArenaAllocator(&raw mut (*arenas).below);
        let mut ours =
            ffi::PyObjectArenaAllocator { ctx: ptr::null_mut(), alloc: Some(allocate), free: Some(free) };
        ffi::PyObject_SetArenaAllocator(&raw mut ours);
    }
}

/// Empty arenas, all of one size.
struct Arenas {
    below: ffi::PyObjectArenaAllocator,
    kept: [*mut c_void; ARENAS_KEPT],
    count: usize,
    bytes: usize,
}

struct Locked(UnsafeCell<Arenas>);

// SAFETY: only touched with Python's lock held.
unsafe impl Sync for Locked {}

static ARENAS: Locked = Locked(UnsafeCell::new(Arenas {
    below: ffi::PyObjectArenaAllocator { ctx: ptr::null_mut(), alloc: None, free: None },
    kept: [ptr::null_mut(); ARENAS_KEPT],
    count: 0,
    bytes: 0,
}));

extern "C" fn allocate(_: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: Python's lock is held; `below` was filled in before this could be called.
    unsafe {
        let arenas = &mut *ARENAS.0.get();
        if arenas.count > 0 && arenas.bytes == bytes {
            arenas.count -= 1;
            return arenas.kept[arenas.count];
        }
        arenas.below.alloc.map_or(ptr::null_mut(), |alloc| alloc(arenas.below.ctx, bytes))
    }
}

extern "C" fn free(_: *mut c_void, arena: *mut c_void, bytes: usize) {
    // SAFETY: as above; the arena is whole, empty, and nobody else's from now on.
    unsafe {
        let arenas = &mut *ARENAS.0.get();
        if arenas.count == 0 {
            arenas.bytes = bytes;
        }
        if arenas.count < ARENAS_KEPT && arenas.bytes == bytes {
            arenas.kept[arenas.count] = arena;
            arenas.count += 1;
        } else if let Some(free) = arenas.below.free {
            free(arenas.below.ctx, arena, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use pyo3::prelude::*;

    use super::*;

    #[test]
    fn memory_that_a_call_has_freed_is_there_for_the_next_one() {
        Python::initialize();
        Python::attach(|py| {
            keep();
            keep();
            let faults = || {
                // SAFETY: plain data, filled in by the call.
                unsafe {
                    let mut usage: libc::rusage = std::mem::zeroed();
                    libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
                    usage.ru_minflt
                }
            };
            let call = || drop(py.eval(c"[float(n) for n in range(200_000)]", None, None).unwrap());
            call();
            call();
            let before = faults();
            call();
            let of_a_call = faults() - before;
            // The floats alone are over a thousand pages.
            assert!(of_a_call < 100, "{of_a_call} pages");
        });
    }
}
