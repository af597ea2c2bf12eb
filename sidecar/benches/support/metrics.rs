//! What a model's metrics say.

/// The value of a metric, summed over its series that have this label.
pub(crate) fn metric(text: &str, name: &str, label: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let is_it = series.split('{').next() == Some(name) && series.contains(label);
        is_it.then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}
