//! Protobuf's wire format, read strictly: what this accepts, prost accepts too.
//!
//! Validation walks the bytes instead of decoding a message: nothing is copied, and an error knows its field.

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// How the value after a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Delimited,
    GroupStart,
    GroupEnd,
    Fixed32,
}

/// What has not been read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

const CUT_OFF: Malformed = Malformed("ends before its time");

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the next field, and how it is written.
    pub(super) fn key(&mut self) -> Result<(u32, Wire), Malformed> {
        let key =
            u32::try_from(self.varint()?).map_err(|_large| Malformed("has a key too large"))?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Delimited,
            3 => Wire::GroupStart,
            4 => Wire::GroupEnd,
            5 => Wire::Fixed32,
            _ => return Err(Malformed("has a wire type that does not exist")),
        };
        match key >> 3 {
            0 => Err(Malformed("has a field number 0")),
            number => Ok((number, wire)),
        }
    }

    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (shift, byte) in (0..64).step_by(7).zip(self.0) {
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                if shift == 63 && *byte > 1 {
                    break;
                }
                self.0 = &self.0[shift / 7 + 1..];
                return Ok(value);
            }
        }
        Err(Malformed("has an invalid varint"))
    }

    pub(super) fn delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.varint()?;
        self.take(usize::try_from(len).map_err(|_large| CUT_OFF)?)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Passes over the value of a field that is not known; groups may nest as deep as `depth`.
    pub(super) fn skip(&mut self, number: u32, wire: Wire, depth: u32) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(super::TOO_DEEP)?;
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.take(8).map(drop),
            Wire::Fixed32 => self.take(4).map(drop),
            Wire::Delimited => self.delimited().map(drop),
            Wire::GroupStart => loop {
                match self.key()? {
                    (end, Wire::GroupEnd) if end == number => break Ok(()),
                    (inner, wire) => self.skip(inner, wire, depth)?,
                }
            },
            Wire::GroupEnd => Err(Malformed("ends a group that did not begin")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID_VARINT: Malformed = Malformed("has an invalid varint");

    #[test]
    fn a_varint_has_ten_bytes_at_most() {
        let varint = |bytes: &[u8]| Reader(bytes).varint();
        assert_eq!(varint(&[0x96, 0x01]), Ok(150));
        let mut most = [0xff; 10];
        most[9] = 1;
        assert_eq!(varint(&most), Ok(u64::MAX));
        most[9] = 2;
        assert_eq!(varint(&most), Err(INVALID_VARINT), "65 bits");
        assert_eq!(varint(&[0x80; 11]), Err(INVALID_VARINT));
        assert_eq!(varint(&[0x80]), Err(INVALID_VARINT));
        assert_eq!(varint(&[]), Err(INVALID_VARINT));
    }

    #[test]
    fn a_key_has_a_number_and_a_wire_type_that_exist() {
        let key = |bytes: &[u8]| Reader(bytes).key().is_ok();
        assert!(key(&[0x08]));
        for malformed in [&[0x00][..], &[0x0e], &[0x0f], &[0x80, 0x80, 0x80, 0x80, 0x10]] {
            assert!(!key(malformed), "{malformed:x?}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        let skip = |bytes: &[u8], depth| {
            let mut reader = Reader(bytes);
            let (number, wire) = reader.key()?;
            reader.skip(number, wire, depth).map(|()| reader.0.len())
        };
        for value in [&[0x08, 0x96, 0x01][..], &[0x09, 1, 2, 3, 4, 5, 6, 7, 8], &[0x0a, 2, 1, 2]] {
            assert_eq!(skip(value, 1), Ok(0));
            assert!(skip(&value[..value.len() - 1], 1).is_err(), "{value:x?} is cut off");
        }
        assert_eq!(skip(&[0x0d, 1, 2, 3, 4, 9], 1), Ok(1));
        let group = [0x0b, 0x13, 0x18, 0x01, 0x14, 0x0c];
        assert_eq!(skip(&group, 3), Ok(0));
        assert_eq!(skip(&group, 2), Err(crate::validation::TOO_DEEP));
        assert!(skip(&[0x0b, 0x14], 9).is_err(), "it ends another group");
        assert!(skip(&[0x0c], 9).is_err(), "it ends none");
        assert!(skip(&[0x0b], 9).is_err(), "it does not end");
    }
}
