//! Buckets as MessagePack: states for other servers and tools, what regions send each other, and
//! the fields of the hash that hold more than a number.

mod blob;
mod debits;
pub mod number;
mod reader;
mod regions;
mod wire;
mod write;

pub use blob::{
    Besides, BlobError, Decoded, Fields, MAX_BLOB, Newer, VERSION, decode, decode_newer, encode,
    encode_newer, join_newer,
};
pub use debits::{DebitsText, decode_debits, decode_debits_into, encode_debits};
pub use regions::{RegionStates, decode_regions, encode_regions};
pub use wire::{Names, Wire, decode_wire, encode_wire};
