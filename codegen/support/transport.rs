//! What generated clients share. Written by hand in codegen/support and copied beside the generated code.

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

/// A successful text/plain answer as the JSON string of the same text, any other answer as it is.
///
/// Tech adapters send the token of a task unquoted as text/plain, or quoted as JSON; the client's methods read JSON.
pub async fn text_as_json(response: reqwest::Response) -> reqwest::Result<reqwest::Response> {
    let content_type =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_text =
        content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/plain");
    if !is_text || !response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let mut headers = response.headers().clone();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let text = response.text().await?;
    let mut quoted = http::Response::new(serde_json::Value::String(text).to_string());
    *quoted.status_mut() = status;
    *quoted.headers_mut() = headers;
    Ok(quoted.into())
}
