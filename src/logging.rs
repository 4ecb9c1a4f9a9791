//! The administrator's log: `log` records through `env_logger`, as text or one JSON object a line, on stderr.
//!
//! What the platform's users see is not this but a task's journal. Neither ever holds a descriptor, a credential or
//! a list of people.

use std::io::Write;

use chrono::{SecondsFormat, Utc};
use env_logger::Builder;
use log::kv::{Key, Value, VisitSource};
use serde_json::{Map, Value as Json};

use crate::config::{Log, LogFormat};

/// Starts logging; a second call changes nothing.
pub fn start(config: &Log) {
    let mut builder = Builder::new();
    builder.parse_filters(&config.level);
    // Libraries that log every statement or response would drown what happens here.
    for noisy in ["sqlx", "iceberg", "actix_http", "actix_server", "mio", "hyper"] {
        builder.filter_module(noisy, log::LevelFilter::Warn);
    }
    if config.format == LogFormat::Json {
        builder.format(|out, record| {
            let mut fields = Fields(Map::new());
            fields.0.insert("at".into(), Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true).into());
            fields.0.insert("level".into(), record.level().as_str().into());
            fields.0.insert("target".into(), record.target().into());
            fields.0.insert("message".into(), record.args().to_string().into());
            // A field that cannot be read is left out; the line itself matters more.
            let _ = record.key_values().visit(&mut fields);
            writeln!(out, "{}", Json::Object(fields.0))
        });
    }
    let _ = builder.try_init();
}

struct Fields(Map<String, Json>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let json = match (value.to_u64(), value.to_i64(), value.to_bool()) {
            (Some(number), _, _) => number.into(),
            (_, Some(number), _) => number.into(),
            (_, _, Some(truth)) => truth.into(),
            _ => value.to_string().into(),
        };
        self.0.insert(key.as_str().to_owned(), json);
        Ok(())
    }
}
