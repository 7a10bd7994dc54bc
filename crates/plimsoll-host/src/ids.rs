//! The engine's own name for a container: 64 hexadecimal digits.
//!
//! Names and id prefixes are resolved to this once, at the edge; everything behind the edge takes a
//! [`ContainerId`], so nothing there can be asked about "the container whose id starts with `ab`".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A full container id: exactly 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId([u8; Self::LEN]);

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a full container id: want 64 lowercase hexadecimal digits")]
pub struct NotAContainerId;

impl ContainerId {
    /// Digits in an id.
    pub const LEN: usize = 64;

    /// All 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only hexadecimal digits get in")
    }

    /// The first 12 digits, as the engine prints them to people. Not unique; never look up by it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.as_str()[..12]
    }
}

/// Whether `text` is `digits` lowercase hexadecimal digits and nothing else.
pub(crate) fn is_lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for ContainerId {
    type Err = NotAContainerId;

    fn from_str(text: &str) -> Result<Self, NotAContainerId> {
        if !is_lower_hex(text, Self::LEN) {
            return Err(NotAContainerId);
        }
        text.as_bytes()
            .try_into()
            .map(Self)
            .map_err(|_| NotAContainerId)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerId({})", self.as_str())
    }
}

impl Serialize for ContainerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixty_four_lowercase_hex_digits_are_an_id() {
        let text = "0123456789abcdef".repeat(4);
        let id: ContainerId = text.parse().unwrap();
        assert_eq!(id.as_str(), text);
        assert_eq!(id.short(), "0123456789ab");
        for wrong in [
            "",
            "ab",
            &text[1..],
            &format!("{text}0"),
            &text.to_uppercase(),
        ] {
            assert_eq!(
                wrong.parse::<ContainerId>(),
                Err(NotAContainerId),
                "{wrong}"
            );
        }
        // 64 bytes, but not 64 digits.
        assert_eq!("é".repeat(32).parse::<ContainerId>(), Err(NotAContainerId));
    }

    #[test]
    fn json_carries_the_digits_and_refuses_others() {
        let id: ContainerId = "a".repeat(64).parse().unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{}\"", "a".repeat(64)));
        assert_eq!(serde_json::from_str::<ContainerId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<ContainerId>("\"abc\"").is_err());
    }
}
