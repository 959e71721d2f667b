//! MessagePack written to memory. A shared bucket is written with every take, and
//! this takes a third of the time that the crate `rmp` takes for any writer.

/// An array or a map of `len` elements begins, at most 65535.
pub(super) fn array(out: &mut Vec<u8>, len: usize) {
    head(out, 0x90, 0xdc, len);
}

/// See [`array`].
pub(super) fn map(out: &mut Vec<u8>, len: usize) {
    head(out, 0x80, 0xde, len);
}

fn head(out: &mut Vec<u8>, short: u8, long: u8, len: usize) {
    match u8::try_from(len) {
        Ok(len @ ..16) => out.push(short | len),
        _ => {
            out.push(long);
            out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
}

/// A text of this module: at most 255 bytes.
pub(super) fn text(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    let bytes = text.as_ref();
    let bytes = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    match u8::try_from(bytes.len()).unwrap_or(u8::MAX) {
        len @ ..32 => out.push(0xa0 | len),
        len => out.extend_from_slice(&[0xd9, len]),
    }
    out.extend_from_slice(bytes);
}

const MAX_TEXT: usize = 255;

/// An unsigned integer, as short as it can be.
pub(super) fn uint(out: &mut Vec<u8>, value: u64) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    match value {
        0..0x80 => out.push(h),
        0x80..0x100 => out.extend_from_slice(&[0xcc, h]),
        0x100..0x1_0000 => out.extend_from_slice(&[0xcd, g, h]),
        0x1_0000..0x1_0000_0000 => out.extend_from_slice(&[0xce, e, f, g, h]),
        _ => out.extend_from_slice(&[0xcf, a, b, c, d, e, f, g, h]),
    }
}

/// A signed integer: what is negative at its full width.
pub(super) fn sint(out: &mut Vec<u8>, value: i64) {
    match u64::try_from(value) {
        Ok(value) => uint(out, value),
        Err(_) => {
            out.push(0xd3);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// At most 255 bytes.
pub(super) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    out.extend_from_slice(&[0xc4, u8::try_from(bytes.len()).unwrap_or(u8::MAX)]);
    out.extend_from_slice(bytes);
}
