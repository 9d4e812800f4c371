//! Numbers as the tables show them.

use std::time::Duration;

/// Three digits and a unit.
pub fn time(time: Duration) -> String {
    let nanos = time.as_secs_f64() * 1e9;
    match nanos {
        ..1e3 => format!("{nanos:.0} ns"),
        ..1e6 => format!("{} µs", three_digits(nanos / 1e3)),
        ..1e9 => format!("{} ms", three_digits(nanos / 1e6)),
        _ => format!("{} s", three_digits(nanos / 1e9)),
    }
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// With a comma before every three digits.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The cells between bars.
pub fn row<C: AsRef<str>>(cells: impl IntoIterator<Item = C>) {
    let cells: Vec<C> = cells.into_iter().collect();
    let cells: Vec<&str> = cells.iter().map(C::as_ref).collect();
    println!("| {} |", cells.join(" | "));
}

/// The first row of a table and the line below it.
pub fn head(cells: &[&str]) {
    println!();
    row(cells);
    row(cells.iter().map(|_| "---"));
}
