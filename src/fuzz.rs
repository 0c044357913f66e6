//! Hostile input for parsers: seeds that are sound, damaged by what a fuzzer chooses.
//!
//! A fuzz target stands with its parser's tests and calls [`text`], [`bytes`] or [`made`]. Its property
//! is: nothing panics, and what is accepted reads back the same. Each runs for a moment in
//! `cargo test`, longer by `make fuzz SECONDS=n`; a failure is made small and names its seed.
//! Must never be part of a build that is no test.

use std::panic::RefUnwindSafe;
use std::time::Duration;

use bolero::{TypeGeneratorWithParams as _, ValueGenerator as _};
pub(crate) mod targets;

/// How long a target runs where `BOLERO_RANDOM_TEST_TIME_MS` does not say.
const TARGET_TIME: Duration = Duration::from_millis(300);
/// Most choices of one input.
const CHOICES_MAX: usize = 120;
/// Longest input that is made.
const INPUT_MAX: usize = 64 * 1024;

/// What is put into the seeds: edges of numbers, of texts, of formats.
const WORDS: [&[u8]; 72] = [
    b"",
    b"0",
    b"-0",
    b"-1",
    b"1",
    b"+1",
    b"00",
    b"1e3",
    b"1e400",
    b"-1e400",
    b"0.1",
    b".5",
    b"5.",
    b"1.5us",
    b"NaN",
    b"inf",
    b"65535",
    b"65536",
    b"4294967296",
    b"9007199254740993",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b"'",
    b",",
    b":",
    b"=",
    b"!",
    b"/",
    b"//",
    b"..",
    b"../..",
    b"~",
    b"@",
    b"*",
    b"&a ",
    b"*a",
    b"<<",
    b"- ",
    b"? ",
    b"|\n",
    b">\n",
    b"#",
    b"%",
    b"$",
    b"${",
    b"${A:-",
    b"$$",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\xff",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    "\u{202e}".as_bytes(),
    "ä".as_bytes(),
    "😀".as_bytes(),
    b"__proto__",
];

/// Choices of a fuzzer, one after another; zero where there are no more.
pub(crate) struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    /// A number up to 255.
    pub(crate) fn next(&mut self) -> usize {
        self.0.next().copied().map_or(0, usize::from)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let large = self.next() << 8 | self.next();
        large % end.max(1)
    }

    /// One of the words.
    pub(crate) fn word(&mut self) -> &'static [u8] {
        WORDS[self.below(WORDS.len())]
    }

    /// Whether there are no more.
    pub(crate) fn is_over(&self) -> bool {
        self.0.len() == 0
    }
}

/// A made input, shown as text where it fails.
struct Made(Vec<u8>);

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Bytes: damaged seeds, and now and then what is no seed at all.
pub(crate) fn bytes(name: &str, seeds: &[&[u8]], property: impl Fn(&[u8]) + RefUnwindSafe) {
    for seed in seeds {
        property(seed);
    }
    let make = |script: Vec<u8>| Made(damaged(seeds, &script));
    bolero::check!(name = name)
        .with_generator(scripts().map_gen(make))
        .with_test_time(TARGET_TIME)
        .for_each(|made: &Made| property(&made.0));
}

/// The same for text; what is no UTF-8 in it is replaced.
pub(crate) fn text(name: &str, seeds: &[&str], property: impl Fn(&str) + RefUnwindSafe) {
    let seeds: Vec<&[u8]> = seeds.iter().map(|seed| seed.as_bytes()).collect();
    bytes(name, &seeds, |made| {
        property(&String::from_utf8_lossy(made))
    });
}

/// Whatever `make` makes of a fuzzer's choices.
pub(crate) fn made<T: std::fmt::Debug + 'static>(
    name: &str,
    make: impl Fn(&mut Choices<'_>) -> T + RefUnwindSafe,
    property: impl Fn(&T) + RefUnwindSafe,
) {
    let make = |script: Vec<u8>| make(&mut Choices(script.iter()));
    bolero::check!(name = name)
        .with_generator(scripts().map_gen(make))
        .with_test_time(TARGET_TIME)
        .for_each(property);
}

fn scripts() -> impl bolero::ValueGenerator<Output = Vec<u8>> {
    Vec::<u8>::gen_with().len(0..CHOICES_MAX)
}

fn damaged(seeds: &[&[u8]], script: &[u8]) -> Vec<u8> {
    let mut choices = Choices(script.iter());
    let kind = choices.next();
    if kind < 16 {
        return script.get(1..).unwrap_or_default().to_vec();
    }
    if kind < 32 {
        let mut made = Vec::new();
        while !choices.is_over() {
            made.extend_from_slice(choices.word());
        }
        return made;
    }
    let mut made = seeds[choices.below(seeds.len())].to_vec();
    while !choices.is_over() && made.len() < INPUT_MAX {
        damage(&mut made, seeds, &mut choices);
    }
    made
}

/// One edit of a text.
fn damage(made: &mut Vec<u8>, seeds: &[&[u8]], choices: &mut Choices<'_>) {
    let at = choices.below(made.len() + 1);
    let end = (at + choices.below(12)).min(made.len());
    match choices.next() % 10 {
        0 => drop(made.splice(at..at, choices.word().iter().copied())),
        1 => drop(made.splice(at..end, choices.word().iter().copied())),
        2 => drop(made.drain(at..end)),
        3 => {
            let part = made[at..end].to_vec();
            made.splice(at..at, part);
        }
        4 => made.truncate(at),
        5 => {
            if let Some(byte) = made.get_mut(at) {
                *byte ^= 1 << (choices.next() % 8);
            }
        }
        // What stands between two marks gives way: a whole word, a whole number, a whole value.
        6 | 7 => {
            let is_mark = |byte: &u8| !byte.is_ascii_alphanumeric();
            let left = made[..at]
                .iter()
                .rposition(is_mark)
                .map_or(0, |mark| mark + 1);
            let right = made[at..]
                .iter()
                .position(is_mark)
                .map_or(made.len(), |mark| at + mark);
            made.splice(left..right, choices.word().iter().copied());
        }
        8 => {
            let other = seeds[choices.below(seeds.len())];
            let from = choices.below(other.len() + 1);
            made.truncate(at);
            made.extend_from_slice(&other[from..]);
        }
        _ => {
            let word = choices.word();
            let times = [10, 300, 5000][choices.next() % 3];
            made.splice(at..at, word.repeat(times));
        }
    }
}
