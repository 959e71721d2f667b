//! MessagePack written to memory. A shared bucket is written with every take, and
//! the crate `rmp` takes three times as long, for any writer.

/// Where it is written to, from its end on.
pub(super) trait Out {
    /// Appends `bytes`.
    fn put<const N: usize>(&mut self, bytes: [u8; N]);

    /// Appends `marker` and `bytes`, each as one number: put together first, they would be shifted
    /// into place byte by byte.
    fn put_marked<const N: usize>(&mut self, marker: u8, bytes: [u8; N]);

    /// Appends the first `len` of `bytes`.
    fn put_first<const N: usize>(&mut self, bytes: &[u8; N], len: usize);

    /// Appends `bytes`.
    fn put_all(&mut self, bytes: &[u8]);
}

impl Out for Vec<u8> {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend_from_slice(&bytes);
    }

    fn put_marked<const N: usize>(&mut self, marker: u8, bytes: [u8; N]) {
        self.push(marker);
        self.put(bytes);
    }

    fn put_first<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        self.put_all(first(bytes, len));
    }

    fn put_all(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A text of at most `ROOM` bytes, in memory that is used again: no step asks for more
/// of it, and all move a number of bytes that is known in advance.
#[derive(Debug, Clone)]
pub struct Text<const ROOM: usize> {
    bytes: [u8; ROOM],
    /// More than there is room for when something did not fit.
    len: usize,
}

impl<const ROOM: usize> Default for Text<ROOM> {
    fn default() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }
}

impl<const ROOM: usize> Text<ROOM> {
    /// What was written; `None` when there was not room for all of it.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    #[inline(always)]
    fn place<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.bytes.get_mut(self.len..)?.first_chunk_mut()
    }
}

impl<const ROOM: usize> Out for Text<ROOM> {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.put_first(&bytes, N);
    }

    #[inline(always)]
    fn put_marked<const N: usize>(&mut self, marker: u8, bytes: [u8; N]) {
        let room = self.bytes.get_mut(self.len..).and_then(<[u8]>::split_first_mut);
        let place = room.and_then(|(first, rest)| Some((first, rest.first_chunk_mut()?)));
        self.len = match place {
            Some((first, rest)) => {
                (*first, *rest) = (marker, bytes);
                self.len.wrapping_add(1).wrapping_add(N)
            }
            None => usize::MAX,
        };
    }

    /// Needs room for all of `bytes`.
    #[inline(always)]
    fn put_first<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        self.len = match self.place() {
            Some(place) => {
                *place = *bytes;
                self.len.wrapping_add(len)
            }
            None => usize::MAX,
        };
    }

    fn put_all(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        self.len = match self.bytes.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                end
            }
            None => usize::MAX,
        };
    }
}

/// An array of `len` elements begins, at most 65535.
#[inline(always)]
pub(super) fn array(out: &mut impl Out, len: usize) {
    head(out, 0x90, 0xdc, len);
}

/// See [`array`].
pub(super) fn map(out: &mut impl Out, len: usize) {
    head(out, 0x80, 0xde, len);
}

#[inline(always)]
fn head(out: &mut impl Out, short: u8, long: u8, len: usize) {
    match u8::try_from(len) {
        Ok(len @ ..16) => out.put([short | len]),
        _ => {
            debug_assert!(u16::try_from(len).is_ok(), "what is written here has few parts");
            out.put_marked(long, u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
}

/// A text of this module: at most 255 bytes.
pub(super) fn text(out: &mut impl Out, text: impl AsRef<[u8]>) {
    let (bytes, len) = short(text.as_ref());
    match len {
        len @ ..32 => out.put([0xa0 | len]),
        len => out.put([0xd9, len]),
    }
    out.put_all(bytes);
}

/// The first `len` of them.
fn first(bytes: &[u8], len: usize) -> &[u8] {
    debug_assert!(len <= bytes.len(), "as many as there are");
    bytes.get(..len).unwrap_or(bytes)
}

/// At most 255 bytes, and how many they are. Longer ones, of which this module has none, are cut:
/// what follows is still read as what it is.
fn short(bytes: &[u8]) -> (&[u8], u8) {
    debug_assert!(u8::try_from(bytes.len()).is_ok(), "names and numbers are short");
    match u8::try_from(bytes.len()) {
        Ok(len) => (bytes, len),
        Err(_) => (first(bytes, MAX_TEXT.into()), MAX_TEXT),
    }
}

const MAX_TEXT: u8 = u8::MAX;

/// A text of the first `len` of `bytes`, below 32.
#[inline(always)]
pub(super) fn name<const N: usize>(out: &mut impl Out, bytes: &[u8; N], len: u8) {
    out.put([0xa0 | (len & 0x1f)]);
    out.put_first(bytes, usize::from(len & 0x1f));
}

/// An unsigned integer, as short as it can be.
#[inline(always)]
pub(super) fn uint(out: &mut impl Out, value: u64) {
    if let Ok(value) = u8::try_from(value) {
        match value {
            0..0x80 => out.put([value]),
            _ => out.put([0xcc, value]),
        }
    } else if let Ok(value) = u16::try_from(value) {
        out.put_marked(0xcd, value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.put_marked(0xce, value.to_be_bytes());
    } else {
        out.put_marked(0xcf, value.to_be_bytes());
    }
}

/// A signed integer: what is negative at its full width.
#[inline(always)]
pub(super) fn sint(out: &mut impl Out, value: i64) {
    match u64::try_from(value) {
        Ok(value) => uint(out, value),
        Err(_) => out.put_marked(0xd3, value.to_be_bytes()),
    }
}

/// At most 255 bytes.
pub(super) fn bytes(out: &mut impl Out, bytes: &[u8]) {
    let (bytes, len) = short(bytes);
    out.put([0xc4, len]);
    out.put_all(bytes);
}
