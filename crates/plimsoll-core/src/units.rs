//! Quantities as the ledger holds them: unsigned integers in one unit each.
//!
//! A quantity enters through a checked constructor and is added with checked arithmetic, because an
//! overflow in a quota system is an escape from the quota. Nothing here is a float except at the two
//! edges, where people write `1.5` cores or `0.5` GB.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in one GB as people and the API write it. As in the original design, GB means 1024³.
pub const BYTES_PER_GB: u64 = 1 << 30;

/// Why a written quantity is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// NaN or an infinity.
    #[error("must be a finite number")]
    NotFinite,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// A fraction of something that comes in whole ones.
    #[error("must be a whole number")]
    NotWhole,
    /// More than the ledger can hold without a sum overflowing.
    #[error("is too large (at most {max} {unit})")]
    TooLarge {
        /// The largest value accepted, in `unit`.
        max: u64,
        /// The unit the value was written in.
        unit: &'static str,
    },
    /// Not a number, or an unknown suffix.
    #[error("is not a size: write a number with an optional k, m, g, t or p, like 512m or 2g")]
    NotASize,
}

/// The largest single amount accepted in any dimension: 2⁵³, the largest integer JSON numbers carry
/// exactly. A thousand of them still sum without overflow in an `i64`.
pub const AMOUNT_MAX: u64 = 1 << 53;

/// Thousandths of one CPU core.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MilliCpu(pub u64);

impl MilliCpu {
    /// The most cores a quota or claim may name.
    pub const CORES_MAX: u64 = 1_000_000;

    /// From cores as people write them, rounded up to the next thousandth.
    ///
    /// # Errors
    /// [`UnitError`] for NaN, infinities, negative numbers and more than [`Self::CORES_MAX`].
    pub fn from_cores(cores: f64) -> Result<Self, UnitError> {
        check(cores, Self::CORES_MAX, "cores")?;
        // A product such as 0.1 * 3 may land a hair above the whole thousandth it means.
        Ok(Self((cores * 1000.0 - 1e-6).ceil().max(0.0) as u64))
    }

    /// From the engine's `NanoCpus`, rounded up.
    #[must_use]
    pub const fn from_nano(nano: u64) -> Self {
        Self(nano.div_ceil(1_000_000))
    }

    /// The engine's `NanoCpus` for this many millicores.
    #[must_use]
    pub const fn nano(self) -> u64 {
        self.0.saturating_mul(1_000_000)
    }

    /// Cores for display.
    #[must_use]
    pub fn cores(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&trim(self.cores(), 3))
    }
}

/// Bytes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// The most GB a quota or claim may name: 8 PiB.
    pub const GB_MAX: u64 = AMOUNT_MAX / BYTES_PER_GB;

    /// From GB (1024³ bytes) as people write them, rounded up to the next byte.
    ///
    /// # Errors
    /// [`UnitError`] for NaN, infinities, negative numbers and more than [`Self::GB_MAX`].
    pub fn from_gb(gb: f64) -> Result<Self, UnitError> {
        check(gb, Self::GB_MAX, "GB")?;
        Ok(Self((gb * BYTES_PER_GB as f64).ceil() as u64))
    }

    /// GB (1024³ bytes) for display and the API.
    #[must_use]
    pub fn gb(self) -> f64 {
        self.0 as f64 / BYTES_PER_GB as f64
    }

    /// Parses a size as the Docker CLI does: `512m`, `2g`, `1.5GiB`, `1048576`.
    ///
    /// # Errors
    /// [`UnitError`] when the text is not a size or out of range.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let text = text.trim().to_ascii_lowercase();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match &text[digits.len()..] {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(UnitError::NotASize),
        };
        let number: f64 = digits.trim().parse().map_err(|_| UnitError::NotASize)?;
        let bytes = number * f64::from(1u32 << 10).powi(shift / 10);
        check(bytes, AMOUNT_MAX, "bytes")?;
        Ok(Self(bytes.ceil() as u64))
    }
}

impl fmt::Display for Bytes {
    /// `1.5 GiB`, `64 MiB`, `0 B`: binary prefixes, at most two decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{} {}", trim(value, 2), UNITS[unit])
    }
}

/// A number with at most `decimals` decimals and no trailing zeros.
#[must_use]
pub fn trim(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

pub(crate) fn check(value: f64, max: u64, unit: &'static str) -> Result<(), UnitError> {
    if !value.is_finite() {
        Err(UnitError::NotFinite)
    } else if value < 0.0 {
        Err(UnitError::Negative)
    } else if value > max as f64 {
        Err(UnitError::TooLarge { max, unit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_round_up_to_the_next_thousandth() {
        for (cores, milli) in [
            (0.0, 0),
            (0.1, 100),
            (0.3, 300),
            (1.0, 1000),
            (0.0101, 11),
            (2.5, 2500),
        ] {
            assert_eq!(MilliCpu::from_cores(cores), Ok(MilliCpu(milli)), "{cores}");
        }
        assert_eq!(MilliCpu::from_nano(1), MilliCpu(1));
        assert_eq!(MilliCpu::from_nano(1_500_000_000), MilliCpu(1500));
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        assert_eq!(MilliCpu::from_cores(f64::NAN), Err(UnitError::NotFinite));
        assert_eq!(
            MilliCpu::from_cores(f64::INFINITY),
            Err(UnitError::NotFinite)
        );
        assert_eq!(MilliCpu::from_cores(-0.5), Err(UnitError::Negative));
        assert!(matches!(
            MilliCpu::from_cores(1e300),
            Err(UnitError::TooLarge { .. })
        ));
        assert!(matches!(
            Bytes::from_gb(1e300),
            Err(UnitError::TooLarge { .. })
        ));
        assert_eq!(Bytes::parse("lots"), Err(UnitError::NotASize));
        for text in ["", "g", "1x", "1bb", "1kibib", "1 2g", "0x10"] {
            assert_eq!(Bytes::parse(text), Err(UnitError::NotASize), "{text}");
        }
        assert_eq!(Bytes::parse("-1g"), Err(UnitError::Negative));
        assert_eq!(Bytes::parse("nan"), Err(UnitError::NotASize));
    }

    #[test]
    fn sizes_read_and_print_as_the_docker_cli_does() {
        for (text, bytes) in [
            ("0", 0),
            ("512m", 512 << 20),
            ("2g", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("64kb", 65536),
        ] {
            assert_eq!(Bytes::parse(text), Ok(Bytes(bytes)), "{text}");
        }
        assert_eq!(Bytes(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(MilliCpu(1500).to_string(), "1.5");
    }
}
