//! Memory asked for before it is written.
//!
//! What another processor had last comes into this one's cache only when it is first
//! written, and the next unlocking waits for it: that was 60 of a take's 2,100 ns. The
//! instruction for it has no name in the standard library yet. On other processors
//! than x86-64 nothing is asked for.

use std::mem::MaybeUninit;

/// Bytes that come into a cache together.
const LINE: usize = 64;

/// Asks for the first `lines` lines of `room`. Does nothing else.
#[cfg(target_arch = "x86_64")]
pub(crate) fn ask_for(room: &[MaybeUninit<u8>], lines: usize) {
    for line in room.chunks(LINE).take(lines) {
        // SAFETY: a hint that neither reads nor writes, whatever the address. Where it
        // is not known, nothing is asked for: see `is_possible`.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) line.as_ptr(),
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Whether the processor has the instruction (PREFETCHW, bit 8 of what CPUID tells of
/// leaf 0x80000001 in ECX).
#[cfg(target_arch = "x86_64")]
pub(crate) fn is_possible() -> bool {
    use std::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_0001;
    __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).ecx & (1 << 8) != 0
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn ask_for(_room: &[MaybeUninit<u8>], _lines: usize) {}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn is_possible() -> bool {
    false
}
