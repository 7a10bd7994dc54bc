//! The messages of Prometheus remote write 1.0, and how readings become them.

use plimsoll_core::metric::Metric;
use plimsoll_store::history::Labels;
use prost::Message;

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// A series each.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// Samples of one series.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// By name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// By time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// A label.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A sample.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// In the unit of the series' name.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Unix milliseconds.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// The type and id in an entity's key.
pub(super) fn parts(entity: &str) -> (&str, &str) {
    entity.split_once(':').unwrap_or((entity, entity))
}

/// The labels of an entity's series, without the series' name, in order.
pub(super) fn labels(entity: &str, known: &Labels, instance: &str) -> Vec<Label> {
    let (kind, id) = parts(entity);
    let container = (kind == "container")
        .then_some(())
        .and(known.name.as_deref());
    let all = [
        ("container", container),
        ("entity", known.name.as_deref().or(Some(id))),
        ("entity_id", Some(id)),
        ("entity_type", Some(kind)),
        ("host", known.host.as_deref()),
        ("image", known.image.as_deref()),
        ("instance", Some(instance)),
        ("project", known.project.as_deref()),
        ("team", known.team.as_deref()),
        ("user", known.user.as_deref()),
    ];
    let label = |(name, value): (&str, Option<&str>)| {
        Some(Label {
            name: name.to_owned(),
            value: value?.to_owned(),
        })
    };
    all.into_iter().filter_map(label).collect()
}

/// One sample of one series. `__name__` sorts before every label there is.
pub(super) fn series(metric: Metric, labels: &[Label], value: u64, at_ms: i64) -> TimeSeries {
    let name = Label {
        name: "__name__".to_owned(),
        value: metric.series().to_owned(),
    };
    TimeSeries {
        labels: std::iter::once(name)
            .chain(labels.iter().cloned())
            .collect(),
        samples: vec![Sample {
            value: value as f64 / metric.scale() as f64,
            timestamp: at_ms,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_order_and_bytes_are_those_of_the_protocol() {
        let known = Labels {
            name: Some("web".into()),
            user: Some("u1".into()),
            ..Labels::default()
        };
        let labels = labels("container:c", &known, "plimsoll");
        let one = series(Metric::Cpu, &labels, 1500, 7);
        let names: Vec<_> = one.labels.iter().map(|label| label.name.as_str()).collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(one.samples[0].value, 1.5);
        let small = WriteRequest {
            timeseries: vec![TimeSeries {
                labels: vec![Label {
                    name: "a".into(),
                    value: "b".into(),
                }],
                samples: vec![Sample {
                    value: 1.0,
                    timestamp: 7,
                }],
            }],
        };
        let bytes = b"\x0a\x15\x0a\x06\x0a\x01a\x12\x01b\x12\x0b\x09\0\0\0\0\0\0\xf0\x3f\x10\x07";
        assert_eq!(small.encode_to_vec(), bytes);
    }
}
