//! Whole numbers in few bytes: variable-length integers, and columns of them.

use pco::ChunkConfig;
use pco::standalone::{simple_compress, simple_decompress_into};

/// All values are the same one.
const CONSTANT: u8 = 0;
/// Differences from value to value.
const DELTAS: u8 = 1;
/// Compressed by pco.
const PCO: u8 = 2;

/// Columns shorter than this are never worth pco's header.
const PCO_FROM: usize = 24;
/// Beyond it pco is slower and hardly smaller on a few hundred samples.
const PCO_LEVEL: usize = 6;
/// No column is longer: an hour of readings a hundredth of a second apart.
const LEN_MAX: usize = 360_000;

/// The bytes are not what this module wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block does not read back")]
pub(crate) struct Unreadable;

/// Appends a number: seven bits a byte, low ones first.
pub(crate) fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// Appends a difference; small ones of either sign are short.
pub(crate) fn put_difference(into: &mut Vec<u8>, from: u64, to: u64) {
    let difference = to.wrapping_sub(from).cast_signed();
    put(
        into,
        ((difference << 1) ^ (difference >> 63)).cast_unsigned(),
    );
}

/// Bytes read from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Unreadable)
    }

    /// The number to which the next difference leads.
    pub(crate) fn after(&mut self, before: u64) -> Result<u64, Unreadable> {
        let zigzag = self.number()?;
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        Ok(before.wrapping_add(difference))
    }

    /// A count that is small enough to be one.
    pub(crate) fn count(&mut self) -> Result<usize, Unreadable> {
        let count = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        if count > LEN_MAX {
            return Err(Unreadable);
        }
        Ok(count)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// Appends a column. Its length is for the reader to know.
pub(crate) fn put_column(into: &mut Vec<u8>, values: &[u64]) {
    let Some(&first) = values.first() else { return };
    if values.iter().all(|value| *value == first) {
        into.push(CONSTANT);
        return put(into, first);
    }
    let mut deltas = Vec::with_capacity(values.len() * 2);
    let mut before = 0;
    for value in values {
        put_difference(&mut deltas, before, *value);
        before = *value;
    }
    let packed = (values.len() >= PCO_FROM).then(|| {
        let config = ChunkConfig::default().with_compression_level(PCO_LEVEL);
        simple_compress(values, &config).ok()
    });
    let (tag, bytes) = match packed.flatten() {
        Some(packed) if packed.len() < deltas.len() => (PCO, packed),
        _ => (DELTAS, deltas),
    };
    into.push(tag);
    put(into, bytes.len() as u64);
    into.extend_from_slice(&bytes);
}

/// Reads a column of so many values.
pub(crate) fn column(bytes: &mut Bytes<'_>, count: usize) -> Result<Vec<u64>, Unreadable> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match bytes.byte()? {
        CONSTANT => Ok(vec![bytes.number()?; count]),
        DELTAS => {
            let len = bytes.count()?;
            let mut deltas = Bytes(bytes.take(len)?);
            let mut before = 0;
            let mut next = || {
                before = deltas.after(before)?;
                Ok(before)
            };
            (0..count).map(|_| next()).collect()
        }
        PCO => {
            let len = bytes.count()?;
            let mut values = vec![0; count];
            let progress = simple_decompress_into(bytes.take(len)?, &mut values);
            match progress {
                Ok(progress) if progress.n_processed == count => Ok(values),
                _ => Err(Unreadable),
            }
        }
        _ => Err(Unreadable),
    }
}

/// Steps over a column that nobody asked for.
pub(crate) fn skip_column(bytes: &mut Bytes<'_>, count: usize) -> Result<(), Unreadable> {
    if count == 0 {
        return Ok(());
    }
    match bytes.byte()? {
        CONSTANT => bytes.number().map(drop),
        DELTAS | PCO => {
            let len = bytes.count()?;
            bytes.take(len).map(drop)
        }
        _ => Err(Unreadable),
    }
}

/// Puts a checksum before a block.
pub(crate) fn sealed(block: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(block.len() + 4);
    whole.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
    whole.extend_from_slice(block);
    whole
}

/// The block behind its checksum, if it is the one that was sealed.
pub(crate) fn unsealed(whole: &[u8]) -> Result<Bytes<'_>, Unreadable> {
    let (sum, block) = whole.split_first_chunk().ok_or(Unreadable)?;
    if crc32fast::hash(block) == u32::from_le_bytes(*sum) {
        Ok(Bytes(block))
    } else {
        Err(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn columns_read_back(values in prop_oneof![
            prop::collection::vec(any::<u64>(), 0..600),
            prop::collection::vec(0u64..50, 0..600),
            (any::<u64>(), 1usize..600).prop_map(|(value, count)| vec![value; count]),
        ]) {
            let mut bytes = Vec::new();
            put_column(&mut bytes, &values);
            put(&mut bytes, 77);
            let mut reading = Bytes(&bytes);
            prop_assert_eq!(column(&mut reading, values.len()).unwrap(), values.clone());
            prop_assert_eq!(reading.number().unwrap(), 77);
            let mut skipping = Bytes(&bytes);
            skip_column(&mut skipping, values.len()).unwrap();
            prop_assert_eq!(skipping.number().unwrap(), 77);
        }

        #[test]
        fn a_changed_byte_is_noticed(block in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>()) {
            let mut whole = sealed(&block);
            prop_assert_eq!(unsealed(&whole).unwrap().0, &block[..]);
            let at = at.index(whole.len());
            whole[at] ^= 0x10;
            prop_assert!(unsealed(&whole).is_err());
        }

        #[test]
        fn nonsense_is_an_error_and_no_panic(block in prop::collection::vec(any::<u8>(), 0..300), count in 0usize..400) {
            let _ = column(&mut Bytes(&block), count);
            let _ = skip_column(&mut Bytes(&block), count);
        }
    }
}
