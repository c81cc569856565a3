//! What the query string of a list says.

use std::{collections::HashMap, convert::Infallible};

use axum::{extract::FromRequestParts, extract::Query, http::request::Parts};
use serde_json::Value;

use crate::{
    fault::{Fault, Outcome},
    store::Paging,
};

/// Keys of a sort at most.
const SORT_KEYS_MAX: usize = 16;

/// The parameters of a query string; the last of a name wins.
#[derive(Debug, Default)]
pub(crate) struct Params(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Query::try_from_uri(&parts.uri).map_or_else(|_| Self::default(), |Query(map)| Self(map)))
    }
}

impl Params {
    /// True when a parameter says so.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "true" || value == "1" || value == "True")
    }

    /// All of them, in the order of their names.
    pub(crate) fn into_pairs(self) -> Vec<(String, String)> {
        let mut pairs: Vec<_> = self.0.into_iter().collect();
        pairs.sort_unstable();
        pairs
    }

    /// A parameter that is there and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    /// A number, rounded to the nearest whole one, within bounds.
    pub(crate) fn number(&self, name: &str, min: f64, max: f64) -> Outcome<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number.round() as i64)),
            _ => {
                Err(Fault::Invalid(format!("`{name}` is {text:?}: it must be a number from {min} to {max}")))
            }
        }
    }

    /// Page, filter and order.
    pub(crate) fn paging(&self) -> Outcome<Paging> {
        let page_size = match self.0.get("page_size").map(|text| text.trim()) {
            None | Some("" | "0") => None,
            Some(text) => match text.parse::<i64>() {
                Ok(size) if size > 0 => Some(size),
                _ => {
                    return Err(Fault::Invalid(format!(
                        "`page_size` is {text:?}: it must be a whole number from 1 to 100000"
                    )));
                }
            },
        };
        Ok(Paging {
            page_size,
            page_token: self.0.get("page_token").cloned().unwrap_or_default(),
            sort: self.0.get("sort").map(|text| sort(text)).unwrap_or_default(),
            search: match self.0.get("search_filter") {
                Some(text) if !text.trim().is_empty() => search(text)?,
                _ => Vec::new(),
            },
        })
    }
}

/// `+a,-b`; a bare key ascends, and a `+` that was decoded as a blank counts as one.
fn sort(text: &str) -> Vec<(String, bool)> {
    text.split(',')
        .filter_map(|key| {
            let key = key.strip_prefix('+').or_else(|| key.strip_prefix(' ')).unwrap_or(key);
            let (key, descends) = key.strip_prefix('-').map_or((key, false), |key| (key, true));
            let key = key.trim();
            (!key.is_empty()).then(|| (key.to_owned(), descends))
        })
        .take(SORT_KEYS_MAX)
        .collect()
}

/// A JSON object as text: key → what the value must contain.
fn search(text: &str) -> Outcome<Vec<(String, String)>> {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else {
        return Err(Fault::Invalid(format!(
            "`search_filter` is {:?}: it must be a JSON object as text, such as {{\"name\":\"iris\"}}",
            text.chars().take(100).collect::<String>()
        )));
    };
    let mut search = Vec::new();
    flatten("", object, &mut search);
    Ok(search)
}

/// `{"creator": {"username": "x"}}` is the same as `{"creator.username": "x"}`.
fn flatten(prefix: &str, object: serde_json::Map<String, Value>, search: &mut Vec<(String, String)>) {
    for (key, value) in object {
        match value {
            Value::String(text) => search.push((format!("{prefix}{key}"), text)),
            Value::Object(inner) if prefix.is_empty() => flatten(&format!("{key}."), inner, search),
            Value::Null => {}
            other => search.push((format!("{prefix}{key}"), other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Query::try_from_uri(&format!("/?{query}").parse().unwrap()).map(|Query(map)| Params(map)).unwrap()
    }

    #[test]
    fn sorts_ascend_unless_they_say_otherwise() {
        let sort = |query: &str| params(query).paging().unwrap().sort;
        assert_eq!(
            sort("sort=+name,-created_at,owner"),
            [("name".to_owned(), false), ("created_at".to_owned(), true), ("owner".to_owned(), false)]
        );
        assert_eq!(sort("sort=%2Bname"), [("name".to_owned(), false)]);
        assert!(sort("sort=").is_empty());
    }

    #[test]
    fn filters_are_objects_as_text() {
        let paging = params(
            "search_filter=%7B%22name%22%3A%22iris%22%2C%22creator%22%3A%7B%22username%22%3A%22a%22%7D%7D",
        );
        let mut search = paging.paging().unwrap().search;
        search.sort();
        assert_eq!(search, [("creator.username".into(), "a".into()), ("name".into(), "iris".into())]);
        assert!(params("search_filter=name").paging().is_err());
        assert!(params("page_size=-1").paging().is_err());
        assert_eq!(params("page_size=0").paging().unwrap().page_size, None);
    }
}
