//! What an HTTP request asks for: the URL's parameters, and the multipart form that carries query parameters.

use crate::engine::Param;

/// The longest accepted multipart part name.
const MAX_NAME_BYTES: usize = 1024;

/// URL parameters that are not settings of the engine. Users, roles and sessions do not exist here; compression of
/// responses is never used.
const NOT_SETTINGS: &[&str] = &[
    "buffer_size",
    "client_protocol_version",
    "compress",
    "enable_http_compression",
    "http_zlib_compression_level",
    "password",
    "query_id",
    "quota_key",
    "role",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
    "user",
    "wait_end_of_query",
];

/// A request, apart from its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The statement's part from the URL or the form.
    pub query: String,
    /// The database to use.
    pub database: Option<String>,
    /// The output format of a statement that names none.
    pub default_format: Option<String>,
    /// Whether the body consists of compressed blocks.
    pub decompress: bool,
    /// Settings of the engine, for this request.
    pub settings: Vec<(String, String)>,
    /// Query parameters.
    pub params: Vec<Param>,
}

impl Request {
    /// Sorts the URL's parameters.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        let mut request = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "query" => request.query = value,
                "database" => request.database = Some(value).filter(|name| !name.is_empty()),
                "default_format" => request.default_format = Some(value).filter(|name| !name.is_empty()),
                "decompress" => request.decompress = value == "1" || value == "true",
                name if NOT_SETTINGS.contains(&name) => {}
                name => match name.strip_prefix("param_") {
                    Some(name) => request.params.push(Param { name: name.to_owned(), value }),
                    None => request.settings.push((name.to_owned(), value)),
                },
            }
        }
        request
    }

    /// Adds the fields of a multipart form: `query` and `param_…`.
    pub fn add_form(&mut self, body: &[u8], boundary: &str) -> Result<(), String> {
        for (name, value) in form_fields(body, boundary)? {
            if name == "query" {
                self.query.push_str(&value);
            } else if let Some(name) = name.strip_prefix("param_") {
                self.params.push(Param { name: name.to_owned(), value });
            } else {
                return Err(format!(
                    "form field `{name}` is neither `query` nor a parameter (external tables are not supported)"
                ));
            }
        }
        Ok(())
    }
}

/// The boundary of a `multipart/form-data` content type.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    rest.split(';')
        .find_map(|part| part.trim().strip_prefix("boundary="))
        .map(|value| value.trim_matches('"'))
        .filter(|value| !value.is_empty())
}

fn form_fields(body: &[u8], boundary: &str) -> Result<Vec<(String, String)>, String> {
    let delimiter = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut rest =
        body.strip_prefix(delimiter.as_bytes()).ok_or("the form does not begin with its boundary")?;
    let mut fields = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(fields);
        }
        rest = rest.strip_prefix(b"\r\n").ok_or("a boundary of the form is not followed by a line end")?;
        let head_end = position(rest, b"\r\n\r\n").ok_or("a part of the form has no end of its headers")?;
        let head = std::str::from_utf8(&rest[..head_end]).map_err(|_| "a part's headers are not UTF-8")?;
        let name = part_name(head)?;
        rest = &rest[head_end + 4..];
        let end = position(rest, between.as_bytes()).ok_or("the form is cut off")?;
        let value = String::from_utf8(rest[..end].to_vec())
            .map_err(|_| format!("form field `{name}` is not UTF-8"))?;
        fields.push((name, value));
        rest = &rest[end + between.len()..];
    }
}

fn part_name(head: &str) -> Result<String, String> {
    head.lines()
        .filter(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))
        .find_map(|line| line.split_once("name=\"")?.1.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES)
        .ok_or_else(|| "a part of the form has no name".to_owned())
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_parameters_are_sorted() {
        let pairs = [
            ("query", "SELECT 1"),
            ("database", ""),
            ("default_format", "CSV"),
            ("decompress", "1"),
            ("user", "default"),
            ("max_threads", "2"),
            ("param_id", "7"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let request = Request::from_pairs(pairs);
        assert_eq!(request.query, "SELECT 1");
        assert_eq!(request.database, None);
        assert_eq!(request.default_format.as_deref(), Some("CSV"));
        assert!(request.decompress);
        assert_eq!(request.settings, [("max_threads".to_owned(), "2".to_owned())]);
        assert_eq!(request.params, [Param { name: "id".into(), value: "7".into() }]);
    }

    #[test]
    fn forms_are_read() {
        let kind = "multipart/form-data; boundary=X1";
        let body = "--X1\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a:String}\r\n\
                    --X1\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\nline\r\nline\r\n--X1--\r\n";
        let mut request = Request::default();
        request.add_form(body.as_bytes(), boundary(kind).unwrap()).unwrap();
        assert_eq!(request.query, "SELECT {a:String}");
        assert_eq!(request.params[0].value, "line\r\nline");
    }

    #[test]
    fn broken_forms_are_refused() {
        for body in [
            "",
            "--X",
            "--X\r\nA: b\r\n\r\nv\r\n--X--",
            "--X\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nv",
        ] {
            assert!(Request::default().add_form(body.as_bytes(), "X").is_err(), "{body}");
        }
        assert_eq!(boundary("text/plain"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
    }
}
