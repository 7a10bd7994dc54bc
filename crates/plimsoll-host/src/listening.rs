//! The ports that programs on the host have, as the kernel lists them.

/// A TCP socket that takes connections, and a UDP socket that is bound.
const STATES: [&str; 2] = ["0A", "07"];

/// The local ports in a text like `/proc/net/tcp` or `/proc/net/udp6`.
pub fn ports(text: &str) -> impl Iterator<Item = u16> {
    text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let (_, port) = columns.nth(1)?.rsplit_once(':')?;
        let state = columns.nth(1)?;
        let port = u16::from_str_radix(port, 16).ok()?;
        STATES.contains(&state).then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_that_somebody_waits_on_are_taken() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            \x20  0: 00000000:4E20 00000000:0000 0A 00000000:00000000\n\
            \x20  1: 0100007F:4E21 0100007F:9C40 01 00000000:00000000\n\
            \x20  2: 00000000000000000000000000000000:4E22 00000000000000000000000000000000:0000 07\n\
            broken\n";
        assert_eq!(ports(text).collect::<Vec<_>>(), [20_000, 20_002]);
    }
}
