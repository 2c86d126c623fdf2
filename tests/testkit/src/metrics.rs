//! Prometheus' text format.

/// A page of metrics.
pub struct Metrics(
    /// Its text.
    pub String,
);

impl Metrics {
    /// The value of the series that is written like this, if there is one.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.values().find_map(|(found, value)| (found == series).then_some(value))
    }

    /// The sum of a metric over all labels that contain each of `labels`, such as `route="a"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let values = self.values().filter_map(|(series, value)| {
            let (found, its) = series.split_once('{').unwrap_or((series, ""));
            (found == name && labels.iter().all(|label| its.contains(label))).then_some(value)
        });
        values.sum()
    }

    /// How many connections have ended so.
    pub fn connections(&self, outcome: &str) -> f64 {
        self.sum("sluice_connections_total", &[&format!("outcome=\"{outcome}\"")])
    }

    /// All series and their values.
    fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series, value.parse().unwrap()))
        })
    }
}
