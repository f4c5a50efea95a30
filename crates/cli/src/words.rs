//! Numbers as people read them.

/// "850 ns", "4.1 µs", "23 ms", "1.2 s".
pub(crate) fn time(ns: u64) -> String {
    scaled(ns, &[(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns")])
}

/// "640 B", "6.2 MB", "12 GB".
pub(crate) fn bytes(count: u64) -> String {
    scaled(count, &[(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"), (1, "B")])
}

fn scaled(value: u64, units: &[(u64, &str)]) -> String {
    let fits = units.iter().find(|(size, _)| value >= *size).or_else(|| units.last());
    let &(size, unit) = fits.unwrap_or(&(1, ""));
    let number = value as f64 / size as f64;
    if size == 1 || number >= 99.95 { format!("{number:.0} {unit}") } else { format!("{number:.1} {unit}") }
}

/// "1,234,567".
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_a_person_would_take() {
        assert_eq!(
            [0, 850, 4_100, 23_000_000, 1_240_000_000].map(time),
            ["0 ns", "850 ns", "4.1 µs", "23.0 ms", "1.2 s"]
        );
        assert_eq!([640, 6_220_800, 250_000_000_000].map(bytes), ["640 B", "6.2 MB", "250 GB"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }
}
