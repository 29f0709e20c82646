//! Reads bits, of a NAL unit with its emulation prevention bytes taken out (H.264 §7.3.1, H.265 §7.3.1.1).

pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    zeros: u8,
    current: u8,
    left: u8,
    emulation: bool,
}

impl<'a> Bits<'a> {
    /// The bits of a NAL unit.
    pub fn new(bytes: &'a [u8]) -> Self {
        Bits {
            bytes,
            at: 0,
            zeros: 0,
            current: 0,
            left: 0,
            emulation: true,
        }
    }

    /// The bits as they are.
    pub fn plain(bytes: &'a [u8]) -> Self {
        Bits {
            emulation: false,
            ..Bits::new(bytes)
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = *self.bytes.get(self.at)?;
        self.at += 1;
        if self.emulation && self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            byte = *self.bytes.get(self.at)?;
            self.at += 1;
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(byte)
    }

    pub fn bit(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.current = self.byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(self.current >> self.left & 1 == 1)
    }

    /// Up to 32 bits, the highest first.
    pub fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | u32::from(self.bit()?)))
    }

    pub fn skip(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.bit().map(|_| ()))
    }

    /// Exp-Golomb, unsigned.
    pub fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let rest = u64::from(self.bits(zeros)?);
        u32::try_from((1u64 << zeros) - 1 + rest).ok()
    }

    /// Exp-Golomb, signed.
    pub fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 { code / 2 + 1 } else { -(code / 2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_those_of_the_specification() {
        // 1, 010, 011, 00100, 00101 and padding.
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        assert_eq!((0..5).map(|_| bits.ue().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let mut bits = Bits::new(&[0b0100_1100, 0b1000_0101]);
        assert_eq!((0..4).map(|_| bits.se().unwrap()).collect::<Vec<_>>(), [1, -1, 2, -2]);
    }

    #[test]
    fn emulation_prevention_bytes_are_taken_out() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0, 0, 3, 0]);
        assert_eq!(
            (0..6).map_while(|_| bits.bits(8)).collect::<Vec<_>>(),
            [0, 0, 1, 0, 0, 0]
        );
        assert_eq!(bits.bit(), None);
        assert_eq!(Bits::new(&[0; 8]).ue(), None);
    }
}
