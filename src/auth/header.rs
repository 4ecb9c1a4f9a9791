//! Parses the value of an `Authorization` header; invalid values return `None`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The maximum length of a value in bytes. A longer value is invalid, and is neither decoded nor hashed.
const LONGEST: usize = 4096;

/// Returns the name and the password of a `Basic` header. The name ends at the first `:`.
pub(super) fn basic(header: &str) -> Option<(String, String)> {
    let encoded = of_scheme(header, "basic")?;
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Returns the token of a `Bearer` header; `None` if the token has white space.
pub(super) fn bearer(header: &str) -> Option<&str> {
    of_scheme(header, "bearer").filter(|token| !token.contains(char::is_whitespace))
}

/// Returns the part after the scheme; the case of the scheme does not matter. `None` for another scheme, or if
/// the part is empty.
fn of_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    if header.len() > LONGEST {
        return None;
    }
    let (named, rest) = header.trim().split_once(' ')?;
    let rest = rest.trim_start();
    (named.eq_ignore_ascii_case(scheme) && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        format!("Basic {}", STANDARD.encode(bytes))
    }

    #[test]
    fn basic_is_a_name_and_a_password() {
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        let cases = [
            (encoded(b"ops:secret"), pair("ops", "secret")),
            (encoded(b"ops:se:cr:et"), pair("ops", "se:cr:et")),
            (encoded(b"ops:"), pair("ops", "")),
            (encoded(b":secret"), pair("", "secret")),
            (encoded("operatör:pässword".as_bytes()), pair("operatör", "pässword")),
            (encoded(b"ops:secret").replace("Basic ", "basic "), pair("ops", "secret")),
            (encoded(b"ops:secret").replace("Basic ", " BASIC   "), pair("ops", "secret")),
            (encoded(b"ops:secret").replace("Basic ", "Bearer "), None),
            (encoded(b"ops:secret").replace("Basic ", "Basic"), None),
            (encoded(b"ops:secret").replace("Basic ", ""), None),
            (encoded(b"ops"), None),
            (encoded(b"ops:\xff\xfe"), None),
            (encoded(b""), None),
            ("Basic".to_owned(), None),
            ("Basic ".to_owned(), None),
            ("Basic !!!!".to_owned(), None),
            ("Basic b3Bz OnNlY3JldA==".to_owned(), None),
            (String::new(), None),
            (encoded(format!("ops:{}", "x".repeat(2500)).as_bytes()), pair("ops", &"x".repeat(2500))),
            (encoded(format!("ops:{}", "x".repeat(4000)).as_bytes()), None),
        ];
        for (header, expected) in cases {
            assert_eq!(basic(&header), expected, "{header}");
        }
    }

    #[test]
    fn bearer_token_has_no_spaces() {
        let cases = [
            ("Bearer abc", Some("abc")),
            ("bearer  a.b-c_d~e+f/g==", Some("a.b-c_d~e+f/g==")),
            ("BEARER abc ", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer a b", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(bearer(header), expected, "{header}");
        }
        assert_eq!(bearer(&format!("Bearer {}", "x".repeat(LONGEST))), None);
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_without_panic(header in "(?s).{0,80}", scheme in "(?i)(basic|bearer) ?", bytes: Vec<u8>) {
            for text in [header.clone(), format!("{scheme}{header}"), format!("{scheme}{}", STANDARD.encode(&bytes))] {
                let _ = (basic(&text), bearer(&text));
            }
        }

        #[test]
        fn encoded_values_are_decoded(name in "[^:]{0,30}", password in "(?s).{0,60}") {
            let header = encoded(format!("{name}:{password}").as_bytes());
            prop_assert_eq!(basic(&header), Some((name, password)));
        }
    }
}
