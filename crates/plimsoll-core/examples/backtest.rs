//! How well forecasts do on made-up series of several shapes, beside simple ones: `make backtest`.
//!
//! Each series has six weeks of hourly past and two weeks that come. Errors are the mean absolute scaled
//! error against what was a day ago (MASE; Hyndman and Koehler, "Another look at measures of forecast
//! accuracy", 2006), averaged over the series; coverage is how often what came was in the 80 % interval.
//! Prints the table of `docs/forecasting.md`.

#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own that measures time"
)]

use std::time::Instant;

use plimsoll_core::analysis::Series;
use plimsoll_core::analysis::forecast::forecast;
use plimsoll_core::analysis::series::HOUR_MS;

const PAST: usize = 42 * 24;
const AHEAD: usize = 14 * 24;
const EACH: u64 = 40;

/// Pseudo-random, the same each time.
struct Random(u64);

impl Random {
    /// Evenly from 0 to 1.
    fn even(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, of deviation one.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.even()).sum::<f64>() - 6.0
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Working,
    Wavering,
    Bursts,
    Shifts,
    Growing,
    OnAndOff,
}

const SHAPES: [(Shape, &str); 6] = [
    (Shape::Working, "days and weeks"),
    (Shape::Wavering, "a level that wavers"),
    (Shape::Bursts, "bursts"),
    (Shape::Shifts, "new levels now and then"),
    (Shape::Growing, "growth"),
    (Shape::OnAndOff, "on and off"),
];

fn series(shape: Shape, seed: u64) -> Vec<f64> {
    let mut random = Random(seed * 7919 + 1);
    for _ in 0..20 {
        random.even();
    }
    let mut level = 1.0 + 9.0 * random.even();
    let (depth, phase) = (0.3 + random.even() * 0.7, random.even() * 24.0);
    let memory = 0.6 + 0.37 * random.even();
    let growth = 0.002 * random.even();
    let (mut wavering, mut burst, mut is_on) = (0.0, 0.0, false);
    let hour = |at: usize| {
        wavering = memory * wavering + 0.1 * random.normal();
        if random.even() < 0.02 {
            burst = level * 3.0 * random.even();
        }
        burst *= 0.7;
        if matches!(shape, Shape::Shifts) && random.even() < 0.002 {
            level *= 0.5 + 1.5 * random.even();
        }
        if random.even() < 0.05 {
            is_on = random.even() < 0.4;
        }
        let of_day = ((at as f64 + phase) / 24.0 * std::f64::consts::TAU).sin();
        let of_week = if at / 24 % 7 < 5 { 1.0 } else { 0.3 };
        let value = match shape {
            Shape::Working => level * (1.0 + depth * of_day * of_week + wavering),
            Shape::Wavering => level * (1.0 + wavering),
            Shape::Bursts => level * (1.0 + 0.2 * depth * of_day) + burst,
            Shape::Shifts => level * (1.0 + 0.5 * depth * of_day + wavering),
            Shape::Growing => level * (1.0 + growth * at as f64 + 0.5 * wavering),
            Shape::OnAndOff => (if is_on { level } else { 0.02 }) * (1.0 + 0.1 * wavering),
        };
        value.max(0.0)
    };
    (0..PAST + AHEAD).map(hour).collect()
}

/// Forecasts that anybody would think of.
fn simple(past: &[f64]) -> [(&'static str, Vec<f64>); 4] {
    let last = past[past.len() - 1];
    let seasonal = (0..AHEAD).map(|step| past[past.len() - 168 + step % 168]);
    [
        ("naive", vec![last; AHEAD]),
        ("seasonal naive", seasonal.collect()),
        ("Holt", holt(past)),
        ("linear", linear(&past[past.len() - 28 * 24..])),
    ]
}

/// Double exponential smoothing, of the weights that fit the past best of a few.
fn holt(past: &[f64]) -> Vec<f64> {
    let mut best = (f64::INFINITY, 0.0, 0.0);
    for alpha in [0.05, 0.2, 0.5, 0.9] {
        for beta in [0.001, 0.01, 0.1] {
            let (mut level, mut trend, mut missed) = (past[0], 0.0, 0.0);
            for value in &past[1..] {
                missed += (value - level - trend).powi(2);
                let before = level;
                level = alpha * value + (1.0 - alpha) * (level + trend);
                trend = beta * (level - before) + (1.0 - beta) * trend;
            }
            if missed < best.0 {
                best = (missed, level, trend);
            }
        }
    }
    (1..=AHEAD)
        .map(|step| best.1 + best.2 * step as f64)
        .collect()
}

fn linear(past: &[f64]) -> Vec<f64> {
    let n = past.len() as f64;
    let (middle, mean) = ((n - 1.0) / 2.0, past.iter().sum::<f64>() / n);
    let off = |(at, value): (usize, &f64)| (at as f64 - middle) * (value - mean);
    let slope = past.iter().enumerate().map(off).sum::<f64>() / (n * (n * n - 1.0) / 12.0);
    (0..AHEAD)
        .map(|step| mean + slope * (n + step as f64 - middle))
        .collect()
}

fn error(expected: &[f64], past: &[f64], came: &[f64]) -> f64 {
    let mean = |errors: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = errors.fold((0.0, 0.0), |(sum, n), e| (sum + e.abs(), n + 1.0));
        sum / n
    };
    let scale = mean(&mut past.windows(25).map(|day| day[24] - day[0]));
    mean(&mut expected.iter().zip(came).map(|(e, c)| e - c)) / scale.max(1e-12)
}

fn main() {
    println!("| shape | ours | naive | seasonal naive | Holt | linear | in the 80 % interval |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let (mut took, mut made) = (0.0, 0.0);
    for (shape, name) in SHAPES {
        let (mut errors, mut held) = ([0.0; 5], 0.0);
        for seed in 0..EACH {
            let all = series(shape, seed);
            let (past, came) = all.split_at(PAST);
            let points: Vec<(i64, f64)> = (0..)
                .map(|h| h * HOUR_MS)
                .zip(past.iter().copied())
                .collect();
            let recorded = Series::of(&points, Some(HOUR_MS)).expect("there are values");
            let began = Instant::now();
            let ours = forecast(&recorded, AHEAD, 0.8);
            took += began.elapsed().as_secs_f64();
            made += 1.0;
            let values: Vec<f64> = ours.points.iter().map(|p| p.value).collect();
            errors[0] += error(&values, past, came);
            for (sum, (_, expected)) in errors[1..].iter_mut().zip(simple(past)) {
                *sum += error(&expected, past, came);
            }
            let within = ours.points.iter().zip(came).filter(|(point, came)| {
                point
                    .between
                    .is_some_and(|(low, high)| (low..=high).contains(came))
            });
            held += within.count() as f64 / AHEAD as f64;
        }
        let each = errors
            .map(|sum| format!("{:.2}", sum / EACH as f64))
            .join(" | ");
        println!("| {name} | {each} | {:.0} % |", held / EACH as f64 * 100.0);
    }
    println!("\n{made} forecasts of {AHEAD} hours in {took:.2} s on one core.");
}
