//! What changes hands for a time or for good: grants, the requests that ask for them, and what leads move
//! between their members and the pool.
//!
//! Everything here changes limits and never what is charged. What counts now is kept in the rows it adds
//! to, so an admission reads no clock: [`Store::turn`](crate::Store::turn) begins and ends what is due.

mod grants;
mod redistributions;
mod requests;

pub use grants::{Grant, GrantState, GrantTo, NewGrant, Turn};
pub(crate) use grants::{differences, member_left};
pub use redistributions::{Redistribute, Redistribution, RedistributionState};
pub use requests::{NewRequest, Request, RequestState};

use plimsoll_core::dimension::Dimension;
use plimsoll_core::quota::Additions;

use crate::error::{Result, StoreError};

/// Names of the states of something, as the ledger writes them.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $state:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$of])* $state),* }

        impl $name {
            /// The name in the API and the ledger.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$state => $text),* }
            }

            /// The one with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$state),)* _ => None }
            }
        }
    };
}
pub(crate) use states;

/// Refuses additions that add nothing.
fn checked(added: &Additions, summed_only: bool) -> Result<()> {
    if !added.iter().any(|(_, amount)| *amount > 0) {
        return Err(StoreError::Invalid(
            "name at least one amount above zero to add".into(),
        ));
    }
    let odd = |d: &Dimension| summed_only && !d.is_summed();
    match added.iter().map(|(d, _)| d).find(|d| odd(d)) {
        Some(d) => Err(StoreError::Invalid(format!(
            "a place in a team has no {d} of its own: it comes from the team's class"
        ))),
        None => Ok(()),
    }
}

/// `2 cores of cpu and 4 GiB of memory`.
fn in_words(added: &Additions) -> String {
    let parts: Vec<String> = added
        .iter()
        .map(|(d, amount)| format!("{} of {d}", d.show(*amount)))
        .collect();
    parts.join(", ")
}
