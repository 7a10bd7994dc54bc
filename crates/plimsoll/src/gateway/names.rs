//! Names are per tenant: the engine holds `USER.TAIL.NAME`, where TAIL is the end of the user's id, so
//! that no two tenants' names can meet whatever dots they contain.

use std::collections::BTreeMap;

use plimsoll_core::entity::UserId;
use plimsoll_store::Reservation;
use serde_json::Value;

use crate::labels;

/// The engine's name for a tenant's container or network.
pub(super) fn in_engine(user_name: &str, user: UserId, name: &str) -> String {
    let hex = user.hex();
    format!("{user_name}.{}.{name}", &hex[hex.len() - 12..])
}

/// The engine's name of the object a reservation is for.
pub(crate) fn of(reservation: &Reservation) -> String {
    let name = reservation.container_name.as_deref().unwrap_or_default();
    in_engine(&reservation.user_name, reservation.user, name)
}

/// The name a tenant knows a container by.
pub(super) fn shown(reservation: &Reservation) -> String {
    reservation.container_name.clone().unwrap_or_else(|| {
        let id = reservation.container.as_deref().unwrap_or("unnamed");
        id.chars().take(12).collect()
    })
}

/// Takes Plimsoll's own labels out, but for the two a tenant may write. An image's reserved labels
/// were blanked, and go with them.
pub(super) fn clean_labels(labels: &mut Value) {
    if let Value::Object(map) = labels {
        map.retain(|key, value| {
            let ours = key.to_ascii_lowercase().starts_with(labels::PREFIX);
            let theirs = matches!(key.as_str(), labels::TEAM | labels::PROJECT);
            !ours || (theirs && value.as_str().is_some_and(|text| !text.is_empty()))
        });
    }
}

/// The labels a container gets.
pub(super) fn reserved_labels(
    instance: &str,
    reservation: plimsoll_core::entity::ReservationId,
    user: UserId,
    team: Option<&str>,
    project: Option<&str>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (labels::INSTANCE.to_owned(), instance.to_owned()),
        (labels::RESERVATION.to_owned(), reservation.to_string()),
        (labels::USER.to_owned(), user.to_string()),
    ]);
    // Written even when empty, so that an image's own never shows through.
    all.insert(labels::TEAM.to_owned(), team.unwrap_or_default().to_owned());
    all.insert(
        labels::PROJECT.to_owned(),
        project.unwrap_or_default().to_owned(),
    );
    all
}

const ADJECTIVES: [&str; 32] = [
    "able", "amber", "bold", "brave", "bright", "calm", "clear", "coral", "deep", "eager", "early",
    "even", "fair", "fresh", "gentle", "glad", "keen", "kind", "level", "light", "lively", "mild",
    "neat", "quick", "quiet", "ready", "sharp", "sound", "steady", "swift", "true", "warm",
];
const NOUNS: [&str; 32] = [
    "anchor", "barge", "beacon", "bow", "buoy", "cabin", "cargo", "compass", "current", "deck",
    "dock", "ferry", "galley", "gull", "harbour", "helm", "hull", "jetty", "keel", "lantern",
    "mast", "pilot", "port", "quay", "rudder", "sail", "schooner", "shoal", "skiff", "tide", "tug",
    "wharf",
];

/// A name for a container whose owner gave none, from 64 random bits.
pub(super) fn invented(random: u64) -> String {
    let pick = |words: &[&'static str; 32], shift: u32| words[(random >> shift) as usize % 32];
    format!(
        "{}_{}_{:04x}",
        pick(&ADJECTIVES, 0),
        pick(&NOUNS, 5),
        (random >> 10) & 0xffff
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn names_of_two_tenants_never_meet() {
        let one = UserId(Uuid::from_u128(1));
        let two = UserId(Uuid::from_u128(2));
        assert_eq!(in_engine("a", one, "web"), "a.000000000001.web");
        assert_ne!(in_engine("a.b", one, "c"), in_engine("a", two, "b.c"));
    }

    #[test]
    fn a_tenant_sees_only_their_own_labels() {
        let mut labels = json!({"app": "x", "plimsoll.user": "u", "Plimsoll.X": "", "plimsoll.team": "ml",
                                "plimsoll.project": ""});
        clean_labels(&mut labels);
        assert_eq!(labels, json!({"app": "x", "plimsoll.team": "ml"}));
    }
}
