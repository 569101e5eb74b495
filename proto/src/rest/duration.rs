//! Lengths of time as people write them: `30s`, `15m`, `500ms`.

/// Milliseconds. A number alone is seconds; units are `ms`, `s`, `m`, `h` and `d`.
pub fn parse_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood_and_nonsense_is_not() {
        let read = |text| parse_ms(text);
        assert_eq!((read("30s"), read("30"), read("500ms")), (Some(30_000), Some(30_000), Some(500)));
        assert_eq!((read("15m"), read("2h"), read("1d")), (Some(900_000), Some(7_200_000), Some(86_400_000)));
        for text in ["", "s", "1.5s", "-1s", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
