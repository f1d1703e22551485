//! Parses Prometheus' text format. Pure.

/// The value of a metric without labels.
pub fn value(metrics: &str, name: &str) -> Option<f64> {
    series(metrics, name).next().map(|(_, value)| value)
}

/// Labels and value of each series of a metric.
pub fn series<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    metrics.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.trim().parse().ok()?))
    })
}
