//! A library that is loaded before all others (`LD_PRELOAD`) and moves the
//! clock that a server sees by the microseconds that stand in the file
//! `CLAW_CLOCK`. Clocks that never step are left alone.
//!
//! It allocates nothing and uses nothing of the standard library, since it is
//! called before either is set up. (libfaketime is not used: it calls malloc
//! from its own clock, and so it never comes up under jemalloc, which asks for
//! the time when it is set up.)

#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};

#[link(name = "c")]
unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn read(file: c_int, buffer: *mut c_void, len: usize) -> isize;
    fn close(file: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const SYS_CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const SYS_CLOCK_GETTIME: c_long = 113;

/// The clock of the calendar, also in its quicker, less exact form.
const CLOCK_REALTIME: c_int = 0;
const CLOCK_REALTIME_COARSE: c_int = 5;

const MICROS: c_long = 1_000_000;
const NANOS_IN_MICRO: c_long = 1_000;

/// Both of the C library's types: a second and its parts.
#[repr(C)]
pub struct Time {
    seconds: c_long,
    parts: c_long,
}

fn offset() -> c_long {
    let mut text = [0_u8; 32];
    // SAFETY: the path ends with a zero, and the buffer is as long as it says.
    let len = unsafe {
        let path = getenv(c"CLAW_CLOCK".as_ptr());
        if path.is_null() {
            return 0;
        }
        let file = open(path, 0);
        let len = read(file, text.as_mut_ptr().cast(), text.len());
        close(file);
        len
    };
    let mut value = 0;
    for &byte in text.iter().take(usize::try_from(len).unwrap_or(0)) {
        if byte.is_ascii_digit() {
            value = value * 10 + c_long::from(byte - b'0');
        }
    }
    if text[0] == b'-' { -value } else { value }
}

/// # Safety
/// As for the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Time) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        if syscall(SYS_CLOCK_GETTIME, c_long::from(clock), time) != 0 {
            return -1;
        }
        if matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) {
            let (micros, nanos) = ((*time).parts / NANOS_IN_MICRO, (*time).parts % NANOS_IN_MICRO);
            let now = (*time).seconds * MICROS + micros + offset();
            (*time).seconds = now.div_euclid(MICROS);
            (*time).parts = now.rem_euclid(MICROS) * NANOS_IN_MICRO + nanos;
        }
    }
    0
}

/// # Safety
/// As for the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Time, _zone: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let failed = clock_gettime(CLOCK_REALTIME, time);
        (*time).parts /= NANOS_IN_MICRO;
        failed
    }
}

/// # Safety
/// As for the function of the C library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(seconds: *mut c_long) -> c_long {
    let mut now = Time { seconds: 0, parts: 0 };
    // SAFETY: there is room for the time, and the caller's promise.
    unsafe {
        clock_gettime(CLOCK_REALTIME, &raw mut now);
        if !seconds.is_null() {
            *seconds = now.seconds;
        }
    }
    now.seconds
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
