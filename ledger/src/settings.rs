//! The configuration: a YAML file without secrets, and secrets from the environment.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value};
use x402_envoy::config::{ConfigError, parse_milliseconds};

use crate::payments::cipher::{Cipher, CipherError};
use crate::payments::offers::{Offers, SHARED};

/// The shortest and the longest `credits.reservation_ttl`, in milliseconds.
const TTL: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;
/// The shortest and the longest `credits.lease_ttl`, in milliseconds.
const LEASE: std::ops::RangeInclusive<u64> = 1_000..=600_000;
const BRIEF: &str = "a duration such as \"10s\", from 1s to 10m";
const DEFAULT_LEASE: i64 = 10_000;
/// The shortest and the longest `retention`, in milliseconds: late captures and reports come within an hour.
const RETENTION: std::ops::RangeInclusive<u64> = 86_400_000..=315_360_000_000;
const KEPT: &str = "a duration such as \"720h\", from 24h to 87600h";
const DEFAULT_RETENTION: i64 = 2_592_000_000;
const HALF_AN_HOUR: i64 = 1_800_000;
/// The shortest token: shorter ones are guessed.
const SHORTEST: usize = 16;
/// The sections of its own, beside those that it shares with the filter.
const OWN: [&str; 5] = ["listen", "database", "credits", "intents", "retention"];

/// Why the ledger cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is no YAML.
    #[error("{path}: {error}")]
    Yaml {
        /// Which.
        path: String,
        /// Where and why.
        error: serde_norway::Error,
    },
    /// Mistakes, each with its path.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Mistakes(Vec<ConfigError>),
    /// A secret is missing or too short; it is not repeated.
    #[error("{name} (or {name}_FILE, a file that holds it): {expected}")]
    Secret {
        /// The variable.
        name: &'static str,
        /// What it has to be.
        expected: String,
    },
}

/// A mistake.
fn mistake(path: &str, found: Option<&Value>, expected: &str) -> ConfigError {
    ConfigError {
        path: path.to_owned(),
        found: found.map_or_else(|| "nothing".to_owned(), ToString::to_string),
        expected: expected.to_owned(),
    }
}

/// Reads the file; a ledger without one is configured by nothing.
///
/// # Errors
///
/// [`SettingsError`].
pub fn read(path: &Path) -> Result<Map<String, Value>, SettingsError> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| SettingsError::File { path: name(), error })?;
    let value: Value = serde_norway::from_str(&text).map_err(|error| SettingsError::Yaml { path: name(), error })?;
    match value {
        Value::Object(document) => Ok(document),
        other => Err(SettingsError::Mistakes(vec![mistake("", Some(&other), "a mapping of sections")])),
    }
}

/// What `serve` needs.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What can be bought, and how.
    pub offers: Offers,
    /// How long a reservation lasts that nothing is heard of, in milliseconds.
    pub reservation_ttl_ms: i64,
    /// For how long requests may begin that are paid from a lease, in milliseconds.
    pub lease_ttl_ms: i64,
    /// How long a request keeps a payment that nothing is heard of, in milliseconds.
    pub lease_ms: i64,
    /// How long what has ended is remembered, in milliseconds.
    pub retention_ms: i64,
}

impl Settings {
    /// Compiles the file.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Mistakes`]: every mistake, with its path.
    pub fn new(document: &Map<String, Value>) -> Result<Self, SettingsError> {
        let mut mistakes = Vec::new();
        let known = [&OWN[..], &SHARED].concat();
        for name in document.keys().filter(|name| !known.contains(&name.as_str())) {
            mistakes.push(mistake(name, document.get(name), &format!("one of {}", known.join(", "))));
        }
        let listen = match document.get("listen") {
            None => Some(SocketAddr::from(([127, 0, 0, 1], 8402))),
            Some(value) => value.as_str().and_then(|text| text.parse().ok()).or_else(|| {
                mistakes.push(mistake("listen", Some(value), "an address and a port such as \"127.0.0.1:8402\""));
                None
            }),
        };
        let nothing = Map::new();
        let credits = match document.get("credits") {
            None => &nothing,
            Some(Value::Object(credits)) => credits,
            Some(other) => {
                mistakes.push(mistake(
                    "credits",
                    Some(other),
                    "a mapping of tiers, max_topup, reservation_ttl and lease_ttl",
                ));
                &nothing
            }
        };
        for name in credits
            .keys()
            .filter(|name| !["tiers", "max_topup", "reservation_ttl", "lease_ttl"].contains(&name.as_str()))
        {
            let path = format!("credits.{name}");
            mistakes.push(mistake(
                &path,
                credits.get(name),
                "one of tiers, max_topup, reservation_ttl, lease_ttl",
            ));
        }
        let tiers = tiers(credits.get("tiers"), &mut mistakes);
        let max_topup = match credits.get("max_topup") {
            None => "$100".to_owned(),
            Some(value) => text(value),
        };
        let mut longest = |path: &str, value: Option<&Value>| match value {
            None => Some(HALF_AN_HOUR),
            Some(value) => duration(
                path,
                value,
                TTL,
                "a duration such as \"30m\", from 1s to 24h, and longer than any answer takes",
                &mut mistakes,
            ),
        };
        let ttl = longest("credits.reservation_ttl", credits.get("reservation_ttl"));
        let lease = match document.get("intents") {
            None => Some(HALF_AN_HOUR),
            Some(Value::Object(intents)) if intents.keys().all(|name| name == "lease") => longest("intents.lease", intents.get("lease")),
            Some(other) => {
                mistakes.push(mistake("intents", Some(other), "a mapping of lease"));
                None
            }
        };
        let lease_ttl = match credits.get("lease_ttl") {
            None => Some(DEFAULT_LEASE),
            Some(value) => duration("credits.lease_ttl", value, LEASE, BRIEF, &mut mistakes),
        };
        let retention = match document.get("retention") {
            None => Some(DEFAULT_RETENTION),
            Some(value) => duration("retention", value, RETENTION, KEPT, &mut mistakes),
        };
        let offers = Offers::new(document, &tiers, &max_topup)
            .map_err(|found| mistakes.extend(found))
            .ok();
        match (listen, offers, ttl, lease_ttl, lease, retention) {
            (Some(listen), Some(offers), Some(reservation_ttl_ms), Some(lease_ttl_ms), Some(lease_ms), Some(retention_ms))
                if mistakes.is_empty() =>
            {
                Ok(Self {
                    listen,
                    offers,
                    reservation_ttl_ms,
                    lease_ttl_ms,
                    lease_ms,
                    retention_ms,
                })
            }
            _ => Err(SettingsError::Mistakes(mistakes)),
        }
    }
}

/// A duration between two bounds, in milliseconds.
fn duration(
    path: &str,
    value: &Value,
    bounds: std::ops::RangeInclusive<u64>,
    expected: &str,
    mistakes: &mut Vec<ConfigError>,
) -> Option<i64> {
    let duration = value.as_str().and_then(parse_milliseconds).filter(|ms| bounds.contains(ms));
    let duration = duration.and_then(|ms| i64::try_from(ms).ok());
    if duration.is_none() {
        mistakes.push(mistake(path, Some(value), expected));
    }
    duration
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn tiers(value: Option<&Value>, mistakes: &mut Vec<ConfigError>) -> Vec<String> {
    match value {
        None => ["$1", "$5", "$10", "$20"].map(str::to_owned).to_vec(),
        Some(Value::Array(tiers)) => tiers.iter().map(text).collect(),
        Some(other) => {
            mistakes.push(mistake("credits.tiers", Some(other), "a list of amounts such as [\"$5\", \"$10\"]"));
            vec!["$1".to_owned()]
        }
    }
}

/// Where the books are: the environment's URL, which may hold a password, or the file's.
///
/// # Errors
///
/// [`SettingsError::Mistakes`].
pub fn database(document: &Map<String, Value>, given: Option<String>) -> Result<(String, u32), SettingsError> {
    let section = document.get("database");
    let wrong = |path: &str, found, expected| Err(SettingsError::Mistakes(vec![mistake(path, found, expected)]));
    let fields = match section {
        None => None,
        Some(Value::Object(fields)) => Some(fields),
        // Not shown: it may be a URL with a password.
        Some(_) => return wrong("database", None, "a mapping of url and connections"),
    };
    if let Some(name) = fields.and_then(|fields| fields.keys().find(|name| !["url", "connections"].contains(&name.as_str()))) {
        return wrong(&format!("database.{name}"), None, "one of url, connections");
    }
    let connections = match fields.and_then(|fields| fields.get("connections")) {
        None => 16,
        Some(value) => match value
            .as_u64()
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| (1..=1000).contains(count))
        {
            Some(count) => count,
            None => return wrong("database.connections", Some(value), "a whole number from 1 to 1000"),
        },
    };
    let url = given.or_else(|| fields?.get("url")?.as_str().map(str::to_owned));
    Ok((url.unwrap_or_else(|| "sqlite:x402-ledger.db".to_owned()), connections))
}

/// A secret of this name, or from the file that `<name>_FILE` names.
///
/// # Errors
///
/// [`SettingsError::Secret`]: it is shorter than 16 bytes, or the file cannot be read.
pub fn secret(name: &'static str) -> Result<Option<String>, SettingsError> {
    let wrong = |expected: String| SettingsError::Secret { name, expected };
    let value = match (std::env::var(name), std::env::var(format!("{name}_FILE"))) {
        (Ok(value), _) => value,
        (Err(_), Ok(path)) => std::fs::read_to_string(&path).map_err(|error| wrong(format!("{path}: {error}")))?,
        (Err(_), Err(_)) => return Ok(None),
    };
    let value = value.trim().to_owned();
    if value.len() < SHORTEST {
        return Err(wrong(format!("at least {SHORTEST} bytes (openssl rand -hex 32 makes one)")));
    }
    Ok(Some(value))
}

/// A secret that has to be there.
///
/// # Errors
///
/// [`SettingsError::Secret`].
pub fn required(name: &'static str) -> Result<String, SettingsError> {
    let expected = "has to be set: at least 16 bytes (openssl rand -hex 32 makes one)".to_owned();
    secret(name)?.ok_or(SettingsError::Secret { name, expected })
}

/// The key that open payloads are encrypted with, `X402_LEDGER_KEY`.
///
/// # Errors
///
/// [`SettingsError::Secret`].
pub fn cipher() -> Result<Cipher, SettingsError> {
    let name = "X402_LEDGER_KEY";
    let wrong = |error: CipherError| SettingsError::Secret {
        name,
        expected: error.to_string(),
    };
    Cipher::new(&required(name)?).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(changes: &Value) -> Map<String, Value> {
        let mut document = json!({
            "pay_to": {"eip155": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"},
            "accept": [{"scheme": "exact", "network": "eip155:84532", "asset": "USDC"}],
            "facilitators": [{"url": "http://127.0.0.1:4022"}],
        });
        let sections = document.as_object_mut().unwrap();
        sections.extend(changes.as_object().unwrap().clone());
        sections.clone()
    }

    fn paths(changes: &Value) -> Vec<String> {
        match Settings::new(&document(changes)) {
            Err(SettingsError::Mistakes(mistakes)) => mistakes.into_iter().map(|mistake| mistake.path).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let settings = Settings::new(&document(&json!({}))).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8402");
        assert_eq!(settings.reservation_ttl_ms, 1_800_000);
        let tiers: Vec<_> = settings.offers.tiers.iter().map(|tier| tier.amount).collect();
        assert_eq!(
            (tiers, settings.offers.max_topup),
            (vec![1_000_000, 5_000_000, 10_000_000, 20_000_000], 100_000_000)
        );
        assert_eq!(database(&Map::new(), None).unwrap(), ("sqlite:x402-ledger.db".to_owned(), 16));
    }

    #[test]
    fn mistakes_are_told_by_their_paths() {
        for (changes, expected) in [
            (json!({"routes": []}), "routes"),
            (json!({"listen": "here"}), "listen"),
            (json!({"credits": []}), "credits"),
            (json!({"credits": {"tier": "$5"}}), "credits.tier"),
            (json!({"credits": {"tiers": "$5"}}), "credits.tiers"),
            (json!({"credits": {"tiers": ["$5", "$500"]}}), "credits.tiers[1]"),
            (json!({"credits": {"max_topup": "much"}}), "credits.max_topup"),
            (json!({"credits": {"reservation_ttl": "1"}}), "credits.reservation_ttl"),
            (json!({"credits": {"reservation_ttl": "25h"}}), "credits.reservation_ttl"),
            (json!({"intents": {"lease": "1ms"}}), "intents.lease"),
            (json!({"intents": {"leases": "1s"}}), "intents"),
            (json!({"retention": "1h"}), "retention"),
            (json!({"credits": {"lease_ttl": "1h"}}), "credits.lease_ttl"),
            (json!({"pay_to": {"eip155": "0x0"}}), "pay_to.eip155"),
        ] {
            assert!(paths(&changes).contains(&expected.to_owned()), "{changes}: {:?}", paths(&changes));
        }
    }

    #[test]
    fn the_databases_url_is_never_shown() {
        let with = |section: Value| json!({"database": section}).as_object().unwrap().clone();
        let found = database(&with(json!({"url": "postgres://u:pw@h/d", "connections": 4})), None).unwrap();
        assert_eq!(found, ("postgres://u:pw@h/d".to_owned(), 4));
        let given = Some("sqlite:other.db".to_owned());
        assert_eq!(
            database(&with(json!({"url": "postgres://u:pw@h/d"})), given).unwrap().0,
            "sqlite:other.db"
        );
        for (section, path) in [
            (json!("postgres://u:pw@h/d"), "database"),
            (json!({"uri": "postgres://u:pw@h/d"}), "database.uri"),
            (json!({"connections": 0}), "database.connections"),
        ] {
            let error = database(&with(section), None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{path}:")) && !error.contains("pw"), "{error}");
        }
    }
}
