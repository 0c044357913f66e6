//! Tables without borders, and amounts and ages as people read them.

use std::time::Duration;

use comfy_table::{Table, presets};

/// Rows under a header, in columns.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.iter().map(|cell| on_one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Reasons come from engines and images: nothing in them may move a terminal's cursor.
pub(super) fn on_one_line(cell: &str) -> String {
    let shown = cell.replace(char::is_control, " ");
    if shown.is_empty() {
        "-".to_owned()
    } else {
        shown
    }
}

/// A duration in its largest unit: `5s`, `3m`, `2h`, `4d`.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// The age of a moment, in milliseconds since 1970 by Redis's clock. By this machine's clock,
/// since it is only shown: where the two differ, so do ages.
#[expect(
    clippy::disallowed_methods,
    reason = "shown to people, nothing is judged by it"
)]
pub(super) fn age_of(moment_ms: u64) -> String {
    let now = std::time::SystemTime::now();
    let now = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    age(now.saturating_sub(Duration::from_millis(moment_ms)))
}

/// A moment, in milliseconds since 1970, as date and time of day (UTC).
pub(super) fn time_of(moment_ms: u64) -> String {
    let (seconds, ms) = (moment_ms / 1000, moment_ms % 1000);
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Days since 1 March of the year 0: leap days come last. 400 years are 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year + era * 400 + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// Bytes in their largest unit, with one digit after the point.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match tenths % 10 {
        0 => format!("{}{}", tenths / 10, UNITS[unit]),
        tenth => format!("{}.{tenth}{}", tenths / 10, UNITS[unit]),
    }
}

/// Cores from their thousandths.
pub(super) fn cores(millis: u64) -> String {
    match millis % 1000 {
        0 => format!("{}", millis / 1000),
        rest => format!("{}.{rest:03}", millis / 1000)
            .trim_end_matches('0')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (seconds, shown) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), shown);
        }
        for (count, shown) in [
            (0, "0B"),
            (1023, "1023B"),
            (64 << 20, "64MiB"),
            (3 << 29, "1.5GiB"),
        ] {
            assert_eq!(bytes(count), shown);
        }
        for (millis, shown) in [(0, "0"), (250, "0.25"), (4000, "4"), (1005, "1.005")] {
            assert_eq!(cores(millis), shown);
        }
    }

    #[test]
    fn times_are_dates() {
        for (ms, shown) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_399_999, "2000-02-28 23:59:59.999"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_709_251_199_000, "2024-02-29 23:59:59.000"),
            (1_735_689_599_001, "2024-12-31 23:59:59.001"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
        ] {
            assert_eq!(time_of(ms), shown);
        }
    }

    #[test]
    fn tables_have_no_borders_and_no_control_characters() {
        let rows = vec![
            vec!["a".to_owned(), "x\n\u{1b}[2J".to_owned()],
            vec![String::new(), "y".to_owned()],
        ];
        assert_eq!(
            table(&["ONE", "TWO"], rows),
            "ONE  TWO\na    x  [2J\n-    y"
        );
    }
}
