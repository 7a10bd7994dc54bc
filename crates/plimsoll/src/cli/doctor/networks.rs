//! Whether tenants' networks and ports have room on this host.

use std::path::Path;

use plimsoll_host::subnet::{Subnet, routes};

use super::{Check, at};
use crate::config::Config;

pub(super) fn check(config: &Config, root: &Path) -> Vec<Check> {
    let read = |path: &str| std::fs::read_to_string(at(root, path)).unwrap_or_default();
    let mut checks = Vec::new();
    // What is no subnet was told with the configuration.
    if let Ok(pool) = config.networks.pool.parse() {
        checks.push(subnets(
            pool,
            config.networks.prefix,
            &read("/proc/net/route"),
        ));
    }
    let range = read("/proc/sys/net/ipv4/ip_local_port_range");
    checks.push(ports(config, &range));
    checks
}

fn subnets(pool: Subnet, prefix: u8, route_table: &str) -> Check {
    let wider = routes(route_table)
        .into_iter()
        .find(|route| route.overlaps(pool) && route.prefix() <= pool.prefix());
    match wider {
        Some(route) => Check::fail(
            "networks.pool",
            format!(
                "{pool} lies in {route}, where this host has a route to: no container gets a network"
            ),
            "set networks.pool to a private subnet that this host reaches nobody in",
        ),
        None => {
            let networks = 1u64 << prefix.saturating_sub(pool.prefix()).min(32);
            Check::good(
                "networks.pool",
                format!("{pool} has room for {networks} networks"),
            )
        }
    }
}

fn ports(config: &Config, ephemeral: &str) -> Check {
    let ports = &config.ports;
    let all = u32::from(ports.last.saturating_sub(ports.first)) + 1;
    let users = all / u32::from(ports.per_user.max(1));
    let found = format!(
        "{} to {} are enough for {users} users",
        ports.first, ports.last
    );
    let mut bounds = ephemeral
        .split_whitespace()
        .filter_map(|n| n.parse::<u16>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(low), Some(high)) if low <= ports.last && high >= ports.first => Check::warn(
            "ports",
            format!(
                "{found}, but the kernel gives {low} to {high} to whoever asks for any: a program may \
                 have a tenant's port"
            ),
            "set ports.first and ports.last outside of those, or net.ipv4.ip_local_port_range",
        ),
        _ => Check::good("ports", found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_pool_inside_a_route_gives_nothing() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask\n\
                     eth0 00000000 0100000A 0003 0 0 0 00000000\n\
                     eth0 0000000A 00000000 0001 0 0 0 000000FF\n\
                     br-1 00FAC9AC 00000000 0001 0 0 0 C0FFFFFF\n";
        for (pool, status, says) in [
            ("10.201.0.0/16", Status::Fail, "lies in 10.0.0.0/8"),
            ("172.201.0.0/16", Status::Good, "room for 1024 networks"),
        ] {
            let check = subnets(pool.parse().unwrap(), 26, table);
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.found.contains(says), "{check:?}");
        }
    }

    #[test]
    fn ports_that_the_kernel_gives_out_are_told() {
        let config = Config::default();
        assert_eq!(ports(&config, "32768\t60999\n").status, Status::Good);
        let check = ports(&config, "10000\t60999\n");
        assert_eq!(check.status, Status::Warn);
        assert!(check.found.contains("255 users"), "{check:?}");
        assert_eq!(ports(&config, "").status, Status::Good);
    }
}
