//! MessagePack read from memory: as much as `write.rs` writes. A shared bucket is
//! read with every take, and this takes a third of the instructions that the crate
//! `rmp` takes for any reader. `None` for anything else; any bytes are safe to give. All of it
//! is inline: one call that is not, and `rest` is kept in memory from step to step.

/// An array of this many elements begins.
#[inline(always)]
pub(super) fn array(rest: &mut &[u8]) -> Option<usize> {
    match byte(rest)? {
        marker @ 0x90..=0x9f => Some(usize::from(marker & 0x0f)),
        0xdc => Some(usize::from(u16::from_be_bytes(bytes(rest)?))),
        _ => None,
    }
}

/// A text, as its bytes.
#[inline(always)]
pub(super) fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = match byte(rest)? {
        marker @ 0xa0..=0xbf => marker & 0x1f,
        0xd9 => byte(rest)?,
        _ => return None,
    };
    let (text, after) = rest.split_at_checked(usize::from(len))?;
    *rest = after;
    Some(text)
}

/// An unsigned integer.
#[inline(always)]
pub(super) fn uint(rest: &mut &[u8]) -> Option<u64> {
    match byte(rest)? {
        small @ ..0x80 => Some(u64::from(small)),
        0xcc => Some(u64::from(byte(rest)?)),
        0xcd => Some(u64::from(u16::from_be_bytes(bytes(rest)?))),
        0xce => Some(u64::from(u32::from_be_bytes(bytes(rest)?))),
        0xcf => Some(u64::from_be_bytes(bytes(rest)?)),
        _ => None,
    }
}

/// An unsigned integer below 128; `None`, and nothing read, for anything else.
#[inline(always)]
pub(super) fn small(rest: &mut &[u8]) -> Option<u8> {
    let (small, after) = rest.split_first().filter(|(first, _)| **first < 0x80)?;
    *rest = after;
    Some(*small)
}

/// A signed integer as `write::sint` writes it.
#[inline(always)]
pub(super) fn sint(rest: &mut &[u8]) -> Option<i64> {
    match rest.first()? {
        0xd3 => {
            byte(rest)?;
            Some(i64::from_be_bytes(bytes(rest)?))
        }
        _ => i64::try_from(uint(rest)?).ok(),
    }
}

/// A signed integer, or 16 bytes that are one, greatest first: MessagePack has no
/// integers wider than 64 bits.
#[inline(always)]
pub(super) fn wide(rest: &mut &[u8]) -> Option<i128> {
    match rest.first()? {
        0xc4 => {
            byte(rest)?;
            (byte(rest)? == 16).then_some(())?;
            Some(i128::from_be_bytes(bytes(rest)?))
        }
        0xcf => uint(rest).map(i128::from),
        _ => sint(rest).map(i128::from),
    }
}

#[inline(always)]
fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

#[inline(always)]
fn bytes<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*bytes)
}
