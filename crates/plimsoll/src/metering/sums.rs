//! Sums and peaks of everybody, and what of them is still to be written.

use std::collections::{HashMap, HashSet, VecDeque};

use plimsoll_store::{Metrics, Peak, StoreError, Tick, UsageTotals};

use crate::meter::{Usage, Whose};

/// Peaks are kept in spans of this length.
const PEAK_SPAN_MS: i64 = 10 * 60 * 1000;

/// A rolling peak looks back this far.
const PEAK_WINDOW_MS: i64 = 24 * 3600 * 1000;

/// Totals and peaks by entity.
#[derive(Debug)]
pub(super) struct Sums {
    metrics: Metrics,
    totals: HashMap<Whose, UsageTotals>,
    peaks: HashMap<Whose, VecDeque<Peak>>,
    changed: HashSet<Whose>,
    /// What is to be written, and could not be yet.
    pub(super) tick: Tick,
}

impl Sums {
    pub(super) fn new(
        metrics: Metrics,
        totals: &HashMap<String, UsageTotals>,
        peaks: HashMap<String, Vec<Peak>>,
    ) -> Self {
        let known = |key: &str| Whose::from_key(key);
        Self {
            metrics,
            totals: totals
                .iter()
                .filter_map(|(key, totals)| Some((known(key)?, *totals)))
                .collect(),
            peaks: peaks
                .into_iter()
                .filter_map(|(key, peaks)| Some((known(&key)?, peaks.into())))
                .collect(),
            changed: HashSet::new(),
            tick: Tick::default(),
        }
    }

    /// The totals of an entity, to be added to.
    pub(super) fn of(&mut self, whose: Whose) -> &mut UsageTotals {
        self.changed.insert(whose);
        self.totals.entry(whose).or_default()
    }

    /// Notes what is used now against the peaks.
    pub(super) fn note_peaks(&mut self, now: &HashMap<Whose, Usage>, now_ms: i64) {
        let from_ms = now_ms - now_ms.rem_euclid(PEAK_SPAN_MS);
        for (whose, usage) in now {
            let spans = self.peaks.entry(*whose).or_default();
            let at = spans.iter().rposition(|span| span.from_ms == from_ms);
            let at = at.unwrap_or_else(|| {
                spans.push_back(Peak {
                    from_ms,
                    ..Peak::default()
                });
                spans.len() - 1
            });
            let span = &mut spans[at];
            let before = *span;
            span.cpu_milli = span.cpu_milli.max(usage.cpu_milli);
            span.memory_bytes = span.memory_bytes.max(usage.memory_bytes);
            span.containers = span.containers.max(usage.containers);
            if *span != before {
                self.tick.peaks.insert((whose.key(), from_ms), *span);
            }
        }
        self.forget_old_peaks(now_ms);
    }

    pub(super) fn forget_old_peaks(&mut self, now_ms: i64) {
        for spans in self.peaks.values_mut() {
            // Where the clock was set back they are not in order.
            spans.retain(|span| span.from_ms >= now_ms - PEAK_WINDOW_MS);
        }
    }

    /// Writes what changed. What cannot be written is kept for the next time.
    pub(super) fn save(&mut self, now_ms: i64) -> Result<(), StoreError> {
        let mut tick = std::mem::take(&mut self.tick);
        tick.at_ms = now_ms;
        tick.keep_from_ms = now_ms - PEAK_WINDOW_MS - PEAK_SPAN_MS;
        let changed = self.changed.drain();
        tick.totals
            .extend(changed.filter_map(|whose| Some((whose.key(), *self.totals.get(&whose)?))));
        let saved = self.metrics.save(&tick);
        if saved.is_err() {
            self.tick = tick;
        }
        saved
    }

    /// What is used now with the sums and peaks, of everybody who was ever seen.
    pub(super) fn publishable(
        &self,
        now: &HashMap<Whose, Usage>,
        updated_ms: Option<i64>,
    ) -> HashMap<Whose, Usage> {
        let known = self
            .totals
            .keys()
            .chain(self.peaks.keys())
            .chain(now.keys());
        let known: HashSet<Whose> = known.copied().collect();
        known
            .into_iter()
            .map(|whose| (whose, self.with_sums(whose, now, updated_ms)))
            .collect()
    }

    fn with_sums(
        &self,
        whose: Whose,
        now: &HashMap<Whose, Usage>,
        updated_ms: Option<i64>,
    ) -> Usage {
        let totals = self.totals.get(&whose).copied().unwrap_or_default();
        let peaks = self.peaks.get(&whose).into_iter().flatten();
        let peak = peaks.fold(Peak::default(), |most, span| Peak {
            from_ms: 0,
            cpu_milli: most.cpu_milli.max(span.cpu_milli),
            memory_bytes: most.memory_bytes.max(span.memory_bytes),
            containers: most.containers.max(span.containers),
        });
        Usage {
            peak_cpu_milli: peak.cpu_milli,
            peak_memory_bytes: peak.memory_bytes,
            peak_containers: peak.containers,
            total_runtime_ms: totals.runtime_ms,
            total_cpu_ns: totals.cpu_ns,
            total_memory_byte_ms: totals.memory_byte_ms,
            total_received_bytes: totals.received_bytes,
            total_sent_bytes: totals.sent_bytes,
            total_block_read_bytes: totals.block_read_bytes,
            total_block_written_bytes: totals.block_written_bytes,
            total_oom_kills: totals.oom_kills,
            total_short_lived_cpu_ns: totals.cpu_ns.saturating_sub(totals.seen_cpu_ns),
            updated_ms,
            ..now.get(&whose).copied().unwrap_or_default()
        }
    }
}
