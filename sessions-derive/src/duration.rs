//! Times as they are written in an attribute: `"90s"`, `"10m"`, `"1h30m"`, `"7d"`.

/// The units, the largest first, in milliseconds.
const UNITS: [(char, u64); 4] = [('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1_000)];

/// The milliseconds that `text` stands for: whole numbers with a unit each, the largest first.
pub(crate) fn millis(text: &str) -> Option<u64> {
    let (mut rest, mut units, mut sum) = (text, UNITS.iter(), 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        // Of those behind the last one.
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.checked_mul(*length)?)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_nothing_else() {
        for (text, expected) in [
            ("90s", Some(90_000)),
            ("10m", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("7d", Some(604_800_000)),
            ("1d2h3m4s", Some(93_784_000)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("m", None),
            ("1.5h", None),
            ("10 m", None),
            ("-1s", None),
            ("30m1h", None),
            ("1m1m", None),
            ("1w", None),
            ("5ß", None),
            ("99999999999999999999s", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
