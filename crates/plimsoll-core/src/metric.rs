//! What is measured of containers and of everything they belong to.
//!
//! The order of [`Metric`] is stored with every history: it is append-only. Values are whole numbers in
//! the unit of their metric; people and Prometheus read them divided by [`Metric::scale`].

/// How a metric's value of a tick reads over a longer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A state or a rate: average and maximum mean something, and the integral over time.
    Gauge,
    /// Events since the last tick: their sum means something.
    Events,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $series:literal, $kind:ident, $scale:literal;)*) => {
        /// One thing that is measured. The discriminant is the index in every stored history.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Metric { $($(#[$doc])* $variant),* }

        impl Metric {
            /// Every metric, in stored order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name in the API and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The name of its series in a Prometheus-compatible store and on `/metrics`.
            #[must_use]
            pub const fn series(self) -> &'static str {
                match self { $(Self::$variant => $series),* }
            }

            /// How it reads over time.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind),* }
            }

            /// Stored units in one unit as people read it.
            #[must_use]
            pub const fn scale(self) -> u64 {
                match self { $(Self::$variant => $scale),* }
            }
        }
    };
}

metrics! {
    /// CPU in use, millicores; read in cores.
    Cpu, "cpu", "plimsoll_cpu_usage_cores", Gauge, 1000;
    /// Share of the periods in which a CPU cap held it back, thousandths.
    CpuThrottled, "cpu_throttled", "plimsoll_cpu_throttled_ratio", Gauge, 1000;
    /// Working set, bytes.
    Memory, "memory", "plimsoll_memory_working_set_bytes", Gauge, 1;
    /// Processes killed for lack of memory.
    OomKills, "oom_kills", "plimsoll_oom_kills", Events, 1;
    /// Processes and threads.
    Pids, "pids", "plimsoll_pids", Gauge, 1;
    /// Read from block devices, bytes a second.
    BlockRead, "block_read", "plimsoll_block_read_bytes_per_second", Gauge, 1;
    /// Written to block devices, bytes a second.
    BlockWrite, "block_write", "plimsoll_block_write_bytes_per_second", Gauge, 1;
    /// Received from the network, bytes a second.
    NetReceive, "net_receive", "plimsoll_network_receive_bytes_per_second", Gauge, 1;
    /// Sent to the network, bytes a second.
    NetTransmit, "net_transmit", "plimsoll_network_transmit_bytes_per_second", Gauge, 1;
    /// Open connections.
    Connections, "connections", "plimsoll_connections", Gauge, 1;
    /// GPU time in use, thousandths of a device.
    Gpu, "gpu", "plimsoll_gpu_usage_devices", Gauge, 1000;
    /// GPU memory in use, bytes.
    GpuMemory, "gpu_memory", "plimsoll_gpu_memory_bytes", Gauge, 1;
    /// Writable layers, volumes, logs and images, bytes.
    Storage, "storage", "plimsoll_storage_bytes", Gauge, 1;
    /// Running containers.
    Containers, "containers", "plimsoll_containers", Gauge, 1;
    /// Reserved CPU, millicores; read in cores.
    CpuReserved, "cpu_reserved", "plimsoll_cpu_reserved_cores", Gauge, 1000;
    /// Reserved memory, bytes.
    MemoryReserved, "memory_reserved", "plimsoll_memory_reserved_bytes", Gauge, 1;
    /// Share of time in which something waited for CPU, ten-thousandths of the last ten seconds.
    CpuPressure, "cpu_pressure", "plimsoll_cpu_pressure_ratio", Gauge, 10000;
    /// The same for memory.
    MemoryPressure, "memory_pressure", "plimsoll_memory_pressure_ratio", Gauge, 10000;
    /// The same for block I/O.
    BlockPressure, "block_pressure", "plimsoll_block_pressure_ratio", Gauge, 10000;
}

impl Metric {
    /// What is reserved of it, for those that can be reserved and are measured.
    #[must_use]
    pub const fn reserved(self) -> Option<Self> {
        match self {
            Self::Cpu => Some(Self::CpuReserved),
            Self::Memory => Some(Self::MemoryReserved),
            _ => None,
        }
    }

    /// The metric of this name in the API.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (index, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, index);
            assert_eq!(Metric::parse(metric.name()), Some(metric));
            let same = |other: &Metric| other.series() == metric.series();
            assert_eq!(Metric::ALL.iter().filter(|other| same(other)).count(), 1);
        }
        assert_eq!(Metric::parse("cpus"), None);
    }
}
