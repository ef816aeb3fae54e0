//! The readings that servers in use are known to make of a path.

use super::path::{decode, decode_except, resolve};
use crate::sorting;

/// How often a path is decoded at most: servers that decode until nothing changes exist, chains of two are common.
const MAX_DECODINGS: usize = 3;

/// All readings of a raw path (without its query), the normal one first, each once.
pub(super) fn of(raw: &[u8]) -> Vec<Vec<u8>> {
    let before_fragment = raw.split(|byte| *byte == b'#').next().unwrap_or_default();
    let mut readings = vec![resolve(&decode(before_fragment))];
    for decoded in decodings(raw) {
        for slashed in [decoded.clone(), backslashes_to_slashes(&decoded)] {
            // `//host/path` as a network-path reference.
            if let Some(rest) = slashed.strip_prefix(b"//") {
                let path = rest.iter().position(|byte| *byte == b'/').and_then(|at| rest.get(at..));
                add_cuts(&mut readings, path.unwrap_or(b"/"));
            }
            add_cuts(&mut readings, &slashed);
        }
    }
    readings
}

/// Undecoded, decoded but for slashes (`%2F` kept, as proxies do), and decoded once to [`MAX_DECODINGS`] times;
/// also with path parameters taken off before the first decoding, as servlet containers do.
fn decodings(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for start in [raw.to_vec(), without_parameters(raw)] {
        let mut current = start;
        for _ in 0..MAX_DECODINGS {
            all.push(decode_except(&current, |byte| byte == b'/' || byte == b'\\'));
            let next = decode(&current);
            all.push(core::mem::replace(&mut current, next));
        }
        all.push(current);
    }
    sorting::sort(&mut all, |one, other| one < other);
    all.dedup();
    all
}

/// Adds a path as it is, and cut off where some server takes the path to end, and without parameters.
fn add_cuts(readings: &mut Vec<Vec<u8>>, path: &[u8]) {
    let ends: [&[u8]; 5] = [b"", b"#?", b"\0", b";", b"#?\0;"];
    for end in ends {
        let cut = path.split(|byte| end.contains(byte)).next().unwrap_or_default();
        for text in [cut.to_vec(), without_parameters(cut), trimmed(cut)] {
            let reading = resolve(&text);
            if !readings.contains(&reading) {
                readings.push(reading);
            }
        }
    }
}

/// Takes `;…` off each segment.
fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default())
        .collect();
    segments.join(&b'/')
}

/// Takes spaces and control characters off the end of each segment, as servers on some file systems do.
fn trimmed(path: &[u8]) -> Vec<u8> {
    let is_blank = |byte: &u8| *byte == b' ' || byte.is_ascii_control();
    let segments: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .map(|segment| {
            let end = segment
                .iter()
                .rposition(|byte| !is_blank(byte))
                .map_or(0, |last| last.saturating_add(1));
            segment.get(..end).unwrap_or_default()
        })
        .collect();
    segments.join(&b'/')
}

fn backslashes_to_slashes(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_trick_has_the_priced_path_among_its_readings() {
        for raw in [
            "/v1%2freport",
            "/v1\\report",
            "/v1%5creport",
            "/v1/report%00.html",
            "/v1/report;jsessionid=1",
            "/v1;a=b/report",
            "/x/..;/v1/report",
            "/x/..%3b/v1/report",
            "/v1/report%23x",
            "/v1/report%3fx",
            "/v1/report#x",
            "/v1/%2572eport",
            "/v1/%252572eport",
            "/v1%252freport",
            "/x/%252e%252e/v1/report",
            "/x%2f..%2fv1/report",
            "/x\\..\\v1\\report",
            "//host/v1/report",
            "//v1/report",
            "/\\host/v1/report",
            "/v1/report%20",
            "/v1%20/report",
            "/v1/report%09",
            "/v1/report%0d%0a",
        ] {
            let readings = of(raw.as_bytes());
            assert!(readings.iter().any(|path| path == b"/v1/report"), "{raw}");
        }
    }

    #[test]
    fn a_long_path_has_few_readings() {
        let raw = "/%2f;\\%2523%00".repeat(400);
        assert!(of(raw.as_bytes()).len() < 100);
    }
}
