//! Every step gives the same sums, from memory and from the file.

use plimsoll_core::metric::Metric;
use plimsoll_store::history::{Ask, Bucket, Labels, Level, Point, Scan, Settings, Tick, Totals};
use plimsoll_store::{Store, StoreError, backup, check_measured, restore};

use crate::world::{DAY, HOUR, SECOND, START, World, cpu};

#[test]
fn every_level_has_the_same_sums_in_memory_and_in_the_file() {
    let mut world = World::new(Settings::default());
    // 26 hours: a day that is over, hours that are cut, one that is being cut, and one that is open.
    let count = 26 * 360 + 10;
    world.run(START, count, &["user:a", "user:b", "container:c"]);
    let values = (0..count).map(|index| (index % 1000).cast_unsigned());
    // The first reading speaks for no time yet.
    let exact: u64 = values.skip(1).sum::<u64>() * 10;
    let to = START + 2 * DAY;
    for (step, level) in [
        (10 * SECOND, Level::Raw),
        (300 * SECOND, Level::Five),
        (HOUR, Level::Hour),
        (DAY, Level::Day),
        (7 * DAY, Level::Day),
    ] {
        for round in ["live", "after a crash"] {
            let series = world.series("user:a", START, to, step);
            assert_eq!(series.level, level);
            let total: f64 = series.points.iter().map(|p| p.total).sum();
            let off = (total - exact as f64).abs() / exact as f64;
            assert!(off < 1e-4, "{round}, {level:?}: {total}, not {exact}");
            let samples: u32 = series.points.iter().map(|p| p.samples).sum();
            if level != Level::Five {
                assert_eq!(i64::from(samples), count, "{round}, {level:?}");
            }
            assert_eq!(series.points.iter().map(|p| p.max).max(), Some(999));
            world.reopen();
        }
    }
    let raw = world.points(
        "user:b",
        START + HOUR,
        START + HOUR + 30 * SECOND,
        10 * SECOND,
    );
    let raw: Vec<_> = raw
        .iter()
        .map(|p| (p.at_ms - START - HOUR, p.value))
        .collect();
    assert_eq!(raw, [(0, 360.0), (10_000, 361.0), (20_000, 362.0)]);

    let scanned = world.scan("", START, to);
    let names: Vec<_> = scanned.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["container:c", "user:a", "user:b"]);
    for (name, bucket) in scanned {
        let off = (bucket.total - exact as f64).abs() / exact as f64;
        assert!(off < 1e-4, "{name}: {bucket:?}");
        assert_eq!(i64::from(bucket.samples), count);
    }
    // Hours before, whole days, and hours after.
    let parts = [(START, 5), (START + 5 * HOUR, 20), (START + 25 * HOUR, 2)];
    let parts = parts.map(|(from, hours)| {
        let found = world.scan("user:a", from, from + hours * HOUR);
        i64::from(found[0].1.samples)
    });
    assert_eq!(parts, [5 * 360, 20 * 360, 370]);
}

/// CPU of every entity, walked through in small parts, with something done in between.
fn walked(
    world: &mut World,
    level: Level,
    to: i64,
    mut between: impl FnMut(&mut World),
) -> Vec<(String, Bucket)> {
    let mut all = Vec::new();
    let mut place = None;
    loop {
        let (kept, next) = world.history.kept(level, &(START..to), place, 2).unwrap();
        assert!(kept.len() <= 2);
        for entity in kept {
            let points = entity.points.into_iter();
            let points = points.filter(|(metric, _)| *metric == Metric::Cpu);
            all.extend(points.map(|(_, bucket)| (entity.entity.clone(), bucket)));
        }
        if next.is_none() {
            return all;
        }
        place = next;
        between(world);
    }
}

#[test]
fn a_walk_finds_everything_once_at_every_level() {
    let mut world = World::new(Settings::default());
    let count = 26 * 360 + 10;
    world.run(START, count, &["user:a", "user:b", "container:c"]);
    let to = START + 27 * HOUR;
    for level in [Level::Raw, Level::Five, Level::Hour, Level::Day] {
        for _ in ["live", "after a crash"] {
            let all = walked(&mut world, level, to, |_| {});
            for entity in ["user:a", "user:b", "container:c"] {
                let of_it = all.iter().filter(|(other, _)| other == entity);
                let found: Vec<_> = of_it.map(|(_, bucket)| *bucket).collect();
                assert!(found.is_sorted_by(|a, b| a.at_ms < b.at_ms), "{level:?}");
                let expected = world.points(entity, START, to, level.period_ms().max(10 * SECOND));
                let sum = |all: &[Bucket]| {
                    all.iter()
                        .fold((0, 0.0), |(n, t), b| (n + b.samples, t + b.total))
                };
                assert_eq!((found.len(), sum(&found)), (expected.len(), sum(&expected)));
            }
            world.reopen();
        }
    }
    let part = START + 3 * HOUR..START + 5 * HOUR;
    let (kept, next) = world.history.kept(Level::Hour, &part, None, 100).unwrap();
    assert_eq!((kept.len(), next), (6, None));
}

#[test]
fn a_walk_loses_nothing_to_hours_that_are_cut_meanwhile() {
    let mut world = World::new(Settings::default());
    let entities = ["user:a", "user:b", "container:c", "container:d", "system"];
    world.run(START, 3 * 360, &entities);
    let mut at_ms = START + 4 * HOUR;
    let all = walked(&mut world, Level::Raw, START + 3 * HOUR, |world| {
        for _ in 0..40 {
            world.tick(at_ms, vec![cpu("user:a", 1)]);
            at_ms += 10 * SECOND;
        }
    });
    assert_eq!(all.len(), 3 * 360 * entities.len());
    let cut: i64 = world.sql("SELECT count(*) FROM raw");
    assert!(
        cut >= 15,
        "the hours were cut while they were walked through: {cut}"
    );
}

#[test]
fn there_are_never_more_points_than_asked_and_old_times_have_longer_steps() {
    let mut world = World::new(Settings::default());
    world.run(START, 3 * 360, &["system"]);
    let ask = |from_ms, to_ms, step_ms, points_max| Ask {
        entity: "system",
        metric: Metric::Cpu,
        from_ms,
        to_ms,
        step_ms,
        points_max,
        now_ms: START + 3 * HOUR,
    };
    for points_max in [1, 2, 7, 60, 500] {
        for step in [None, Some(SECOND), Some(17 * SECOND), Some(HOUR)] {
            let ask = ask(START + 1234, START + 3 * HOUR, step, points_max);
            let points = world.history.series(&ask).unwrap().points.len();
            assert!(points <= points_max.max(2), "{points} for {points_max}");
        }
    }
    for (age, level) in [
        (DAY, Level::Raw),
        (8 * DAY, Level::Five),
        (61 * DAY, Level::Hour),
    ] {
        let from_ms = world.now_ms - age;
        let ask = ask(from_ms, from_ms + HOUR, Some(10 * SECOND), 500);
        let series = world.history.series(&ask).unwrap();
        assert_eq!(series.level, level);
    }
}

#[test]
fn gaps_are_not_filled() {
    let mut world = World::new(Settings::default());
    let minutes = |n: i64| START + n * 60 * SECOND;
    world.run(minutes(0), 6, &["system"]);
    // An hour and more without a reading.
    world.run(minutes(80), 6, &["system"]);
    let five = world.points("system", START, START + 2 * HOUR, 300 * SECOND);
    let at: Vec<_> = five.iter().map(|p| (p.at_ms - START) / 60_000).collect();
    assert_eq!(at, [0, 80]);
    assert_eq!(
        five[1].watched_ms, 80_000,
        "the first speaks for three intervals at most"
    );
}

#[test]
fn readings_out_of_order_are_kept_and_counted() {
    let mut world = World::new(Settings::default());
    world.run(START + 2 * HOUR, 100, &["system"]);
    // Set back by an hour and a half, into an hour that is cut afterwards; then it goes on.
    world.run(START + HOUR / 2, 400, &["system"]);
    world.run(START + 2 * HOUR, 720, &["system"]);
    let faults = world.history.faults();
    assert!(faults.backward > 0 && faults.lost == 0, "{faults:?}");
    world.reopen();
    for step in [10 * SECOND, HOUR, DAY] {
        let points = world.points("system", START, START + DAY, step);
        let samples: u32 = points.iter().map(|p| p.samples).sum();
        assert!(samples >= 1119, "{samples} at {step}");
    }
    assert_eq!(
        world
            .points("system", START + HOUR / 2, START + HOUR, 10 * SECOND)
            .len(),
        180
    );
}

#[test]
fn a_late_reading_changes_an_hour_that_was_cut_and_its_day() {
    let mut world = World::new(Settings::default());
    world.run(START, 4 * 360, &["user:a"]);
    assert_eq!(world.sql::<i64>("SELECT count(*) FROM raw"), 3);
    world.tick(START + 5 * SECOND, vec![cpu("user:a", 5000)]);
    world.run(START + 4 * HOUR, 10, &["user:a"]);
    assert_eq!(
        world.sql::<i64>("SELECT count(*) FROM tick WHERE at_ms < 1700010000000"),
        0
    );
    for step in [HOUR, DAY] {
        let point = world.points("user:a", START, START + HOUR, step)[0];
        assert_eq!(point.max, 5000);
    }
    let day = world.points("user:a", START, START + DAY, DAY);
    assert_eq!(day[0].samples, 4 * 360 + 11);
}

#[test]
fn what_is_too_old_goes_as_fast_as_it_comes_however_seldom_the_readings_are() {
    let mut world = World::new(Settings {
        interval_ms: 3_600_000,
        raw_days: 1,
        ..Settings::default()
    });
    let names: Vec<String> = (0..300).map(|n| format!("container:{n}")).collect();
    for hour in 0..3 * 24 {
        let points = names.iter().map(|name| cpu(name, 1));
        world.tick(START + hour * HOUR, points.collect());
    }
    let kept: i64 = world.sql("SELECT count(*) FROM raw");
    assert!(kept <= 300 * 25, "{kept} hours of a day's");
}

#[test]
fn old_levels_go_and_the_file_gives_their_space_back() {
    let settings = Settings {
        interval_ms: 300_000,
        raw_days: 1,
        five_days: 2,
        rollup_days: 4,
        unsent_hours: 0,
    };
    let mut world = World::new(settings);
    let names: Vec<String> = (0..300).map(|n| format!("container:{n}")).collect();
    let mut random = 1u64;
    for five in 0..3 * 288 {
        let points = names.iter().map(|name| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            cpu(name, random >> 40)
        });
        let points = points.collect();
        world.tick(START + five * 300 * SECOND, points);
    }
    let pages: i64 = world.sql("PRAGMA page_count");
    let oldest = |world: &World, table: &str, hours: i64| {
        let oldest: i64 = world.sql(&format!("SELECT min(key) >> 32 FROM {table}"));
        world.now_ms / (hours * HOUR) - oldest
    };
    assert!(oldest(&world, "raw", 1) <= 25);
    assert!(oldest(&world, "five", 1) <= 49);
    assert_eq!(oldest(&world, "hour", 1), 71);
    // Without anything to measure the old goes all the same.
    for five in 3 * 288..12 * 288 {
        world.tick(START + five * 300 * SECOND, Vec::new());
    }
    for table in ["raw", "five", "hour", "day", "spread", "entity"] {
        let left: i64 = world.sql(&format!("SELECT count(*) FROM {table}"));
        assert_eq!(left, 0, "{table}");
    }
    let now: i64 = world.sql("PRAGMA page_count");
    assert!(now < pages / 2, "{now} of {pages} pages");
}

#[test]
fn labels_percentiles_and_the_view() {
    let mut world = World::new(Settings::default());
    let labels = Labels {
        name: Some("web".into()),
        project: Some("shop".into()),
        ..Labels::default()
    };
    world.history.describe("container:c", labels.clone());
    assert!(!world.history.knows("container:c"));
    world.run(START, 1000, &["container:c", "system"]);
    assert!(world.history.knows("container:c"));
    let scan = Scan {
        prefix: "container:",
        metric: Metric::Cpu,
        from_ms: START,
        to_ms: START + DAY,
        step_ms: Some(HOUR),
        now_ms: world.now_ms,
    };
    let extents = world.history.scan(&scan).unwrap();
    assert_eq!(extents[0].labels, labels);
    assert_eq!(extents[0].buckets.len(), 3);
    for (permille, exact) in [(500, 499.0), (990, 989.0), (1000, 999.0)] {
        let found = world.history.percentiles(&scan, permille).unwrap();
        let [(entity, _, value)] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(entity, "container:c");
        assert!((*value as f64 - exact).abs() <= exact * 0.02, "{value}");
    }
    let of = |what: &str| {
        format!(
            "SELECT {what} FROM resource_usage_metrics WHERE entity_type = 'container'
             AND metric_type = 'cpu_cores' ORDER BY timestamp LIMIT 1"
        )
    };
    assert_eq!(world.sql::<String>(&of("entity_id")), "c");
    assert_eq!(world.sql::<String>(&of("timestamp")), "2023-11-15 00:00:00");
    let average: f64 = world.sql(&of("value"));
    assert!((average - 0.18).abs() < 0.001, "{average}");
    assert_eq!(world.sql::<f64>(&of("peak")), 0.359);
    let sql =
        "SELECT count(DISTINCT entity_id) FROM resource_usage_metrics WHERE entity_type = 'system'";
    assert_eq!(world.sql::<i64>(sql), 1);
}

#[test]
fn a_metric_that_is_measured_now_and_then_keeps_its_own_average() {
    let mut world = World::new(Settings::default());
    for index in 0..720 {
        let mut point = cpu("user:a", 100);
        if index % 30 == 0 {
            point.values.push((Metric::Storage, 7000));
        }
        world.tick(START + index * 10 * SECOND, vec![point]);
    }
    let ask = Ask {
        entity: "user:a",
        metric: Metric::Storage,
        from_ms: START,
        to_ms: START + HOUR,
        step_ms: Some(HOUR),
        points_max: 100,
        now_ms: world.now_ms,
    };
    let point = world.history.series(&ask).unwrap().points[0];
    assert_eq!((point.value, point.max, point.samples), (7000.0, 7000, 12));
    assert_eq!(
        world.sql::<f64>("SELECT avg(value * 1073741824.0) FROM resource_usage_metrics WHERE metric_type = 'storage_gb'"),
        7000.0
    );
}

#[test]
fn the_view_of_what_is_used_now_is_the_last_reading() {
    let mut world = World::new(Settings::default());
    for (at_ms, cpu_milli) in [(START, 900), (START + 10 * SECOND, 250)] {
        let tick = Tick {
            at_ms,
            points: vec![cpu("team:t", cpu_milli)],
            totals: vec![Totals {
                entity: "team:t".into(),
                peak_cpu_milli: 900,
                runtime_ms: 5_400_000,
                cpu_ns: 7_200_000_000_000,
                memory_byte_ms: (3 << 30) * 3_600_000,
                ..Totals::default()
            }],
        };
        world.history.append(&tick).unwrap();
    }
    world.now_ms = START;
    for (what, expected) in [
        ("current_cpu_cores", 0.25),
        ("current_memory_gb", 250.0 / 1024.0),
        ("peak_cpu_cores", 0.9),
        ("total_runtime_hours", 1.5),
        ("total_cpu_core_hours", 2.0),
        ("total_memory_gb_hours", 3.0),
    ] {
        let sql = format!(
            "SELECT {what} FROM resource_usage_current WHERE entity_type = 'team' AND entity_id = 't'"
        );
        assert_eq!(world.sql::<f64>(&sql), expected, "{what}");
    }
    let updated: String = world.sql("SELECT last_updated FROM resource_usage_current");
    assert_eq!(updated, "2023-11-15 00:00:10");
}

#[test]
fn a_copy_is_made_while_it_is_written_and_is_put_back_while_it_is_not() {
    let mut world = World::new(Settings::default());
    let store = Store::open(world.dir.path(), START).unwrap();
    world.run(START, 400, &["system"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let (data, copies) = (world.dir.path().to_owned(), elsewhere.path().join("copy"));
    assert_eq!(
        backup(&data, &copies).unwrap().len(),
        2,
        "there are no metrics"
    );
    assert!(matches!(
        backup(&data, &copies),
        Err(StoreError::Conflict(_))
    ));
    world.run(START + 2 * HOUR, 10, &["system"]);
    assert_eq!(check_measured(&data).unwrap(), [""; 0]);

    let refused = restore(&copies, &data, START);
    assert!(
        matches!(refused, Err(StoreError::Locked { .. })),
        "{refused:?}"
    );
    drop(store);
    let aside = restore(&copies, &data, START).unwrap().unwrap();
    assert!(aside.join("ledger.db").exists() && aside.join("history.db").exists());
    world.reopen();
    let found = world.points("system", START, START + DAY, 10 * SECOND);
    assert_eq!(
        found.len(),
        400,
        "the open hour is in the copy, what came later is not"
    );
    Store::open(&data, START).unwrap();

    let copy = copies.join("history.db");
    let whole = std::fs::read(&copy).unwrap();
    std::fs::write(&copy, &whole[..whole.len() / 2]).unwrap();
    let refused = restore(&copies, &data, START + 1);
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    std::fs::remove_file(copies.join("ledger.db")).unwrap();
    std::fs::write(&copy, whole).unwrap();
    assert!(
        restore(&copies, &data, START + 2).is_err(),
        "without a ledger"
    );
    assert!(!data.join(format!("before-restore-{}", START + 1)).exists());

    world.sql_write("UPDATE tick SET body = x'00' WHERE at_ms IN (SELECT at_ms FROM tick LIMIT 2)");
    let found = check_measured(&data).unwrap();
    assert_eq!(found, ["history.db: 2 rows of tick do not read back"]);
}

#[test]
fn an_entity_that_nobody_measured_has_no_points() {
    let mut world = World::new(Settings::default());
    world.tick(START, vec![Point::default()]);
    assert_eq!(world.points("user:x", START, START + HOUR, HOUR), []);
}
