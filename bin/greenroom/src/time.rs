//! Times in responses.

use chrono::{DateTime, Datelike, Timelike, Utc};
use paperclip::v2::models::{DataType, DataTypeFormat};
use paperclip::v2::schema::TypedData;
use serde::{Serialize, Serializer};

/// A time in RFC 3339, with the text that chrono writes: milliseconds or microseconds only if needed.
/// chrono writes it one character at a time, which takes a quarter of the serialization of a session.
#[derive(Debug, Clone, Copy)]
pub struct Time(pub DateTime<Utc>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = self.0.naive_utc();
        let (year, nanos) = (at.year(), at.nanosecond());
        let year = match u32::try_from(year) {
            // PostgreSQL has neither nanoseconds nor leap seconds.
            Ok(year @ 0..=9_999) if nanos < 1_000_000_000 && nanos % 1_000 == 0 => year,
            _ => return self.0.serialize(serializer),
        };
        let micros = nanos / 1_000;
        let mut text = *b"YYYY-MM-DDTHH:MM:SS.uuuuuuZ";
        for (range, number) in [
            (0..4, year),
            (5..7, at.month()),
            (8..10, at.day()),
            (11..13, at.hour()),
            (14..16, at.minute()),
            (17..19, at.second()),
            (20..26, micros),
        ] {
            write_digits(&mut text[range], number);
        }
        let end = match micros {
            0 => 19,
            _ if micros % 1_000 == 0 => 23,
            _ => 26,
        };
        text[end] = b'Z';
        let text = std::str::from_utf8(&text[..=end]).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

fn write_digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
}

impl TypedData for Time {
    fn data_type() -> DataType {
        DataType::String
    }

    fn format() -> Option<DataTypeFormat> {
        Some(DataTypeFormat::DateTime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_chrono() {
        for text in [
            "2026-11-28T12:32:34Z",
            "2026-11-28T12:32:34.220Z",
            "2026-11-28T12:32:34.220854Z",
            "2026-11-28T12:32:34.000001Z",
            "2026-11-28T12:32:34.220854123Z",
            "1970-01-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "2016-12-31T23:59:60Z",
            "+10000-01-01T00:00:00Z",
            "-0001-12-31T00:00:00Z",
        ] {
            let at: DateTime<Utc> = text.parse().unwrap();
            let written = serde_json::to_value(Time(at)).unwrap();
            assert_eq!(written, serde_json::to_value(at).unwrap());
            assert_eq!(written, text);
        }
    }
}
