//! Paging, filtering and sorting of lists, in the database. Keys of filters and sorts are looked up in a table of
//! each list; one that is not there is ignored, so that no text of a caller ever becomes SQL.

use sqlx::{Any, AssertSqlSafe, any::AnyRow, query::Query};

use super::Store;
use crate::fault::{Fault, Outcome};

/// Items of a page where nothing is said.
pub(crate) const PAGE_SIZE_DEFAULT: i64 = 10;
/// Items of a page at most.
pub(crate) const PAGE_SIZE_MAX: i64 = 100_000;

/// Which part of a list, in which order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paging {
    pub(crate) page_size: Option<i64>,
    pub(crate) page_token: String,
    /// Key and whether it descends.
    pub(crate) sort: Vec<(String, bool)>,
    /// Key and the text that the value must contain.
    pub(crate) search: Vec<(String, String)>,
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Empty on the last.
    pub(crate) next_page_token: String,
}

/// What a list is made of.
pub(crate) struct Filter {
    /// `SELECT … FROM … WHERE …` with the scope's parameters `$1…`.
    pub(crate) select: &'static str,
    /// The values of `$1…`.
    pub(crate) scope: Vec<String>,
    /// API key → column.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// The column of creation order.
    pub(crate) order: &'static str,
}

impl Store {
    /// Reads one page.
    pub(crate) async fn page<T>(
        &self,
        filter: Filter,
        paging: &Paging,
        read: impl Fn(&AnyRow) -> T,
    ) -> Outcome<Page<T>> {
        let limit = paging.page_size.unwrap_or(PAGE_SIZE_DEFAULT).clamp(1, PAGE_SIZE_MAX);
        let offset = decode_token(&paging.page_token)?;
        let (sql, values) = compose(&filter, paging, limit, offset);
        let mut query: Query<'_, Any, _> = sqlx::query(AssertSqlSafe(sql));
        for value in values {
            query = query.bind(value);
        }
        let rows = query.fetch_all(&self.read).await?;
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > shown;
        let items = rows.iter().take(shown).map(read).collect();
        let next_page_token = if has_more { encode_token(offset + limit) } else { String::new() };
        Ok(Page { items, next_page_token })
    }
}

fn compose(filter: &Filter, paging: &Paging, limit: i64, offset: i64) -> (String, Vec<String>) {
    use std::fmt::Write;
    let column = |key: &str| filter.columns.iter().find(|(name, _)| *name == key).map(|(_, column)| *column);
    let mut sql = filter.select.to_owned();
    let mut values = filter.scope.clone();
    for (key, text) in &paging.search {
        let Some(column) = column(key) else { continue };
        // As `LOWER` does on texts that are compared by their bytes: letters of other alphabets stay.
        let pattern = text.to_ascii_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        values.push(format!("%{pattern}%"));
        let _ = write!(sql, " AND LOWER(CAST({column} AS TEXT)) LIKE ${} ESCAPE '\\'", values.len());
    }
    sql.push_str(" ORDER BY ");
    for (key, descends) in &paging.sort {
        if let Some(column) = column(key) {
            let _ = write!(sql, "{column}{}, ", if *descends { " DESC" } else { "" });
        }
    }
    // One more than asked for tells whether there is a next page.
    let _ = write!(sql, "{} LIMIT {} OFFSET {offset}", filter.order, limit + 1);
    (sql, values)
}

/// Tokens are opaque to callers; they hold the place in the list.
pub(crate) fn encode_token(offset: i64) -> String {
    format!("p{offset:x}")
}

pub(crate) fn decode_token(token: &str) -> Outcome<i64> {
    if token.is_empty() {
        return Ok(0);
    }
    token
        .strip_prefix('p')
        .and_then(|digits| i64::from_str_radix(digits, 16).ok())
        .filter(|offset| *offset >= 0)
        .ok_or_else(|| Fault::Invalid(format!("`page_token` {token:?} was not given out by this list")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_text_never_becomes_sql() {
        let filter = Filter {
            select: "SELECT * FROM t WHERE 1 = 1",
            scope: vec![],
            columns: &[("name", "t.name")],
            order: "t.number",
        };
        let paging = Paging {
            sort: vec![("name; DROP TABLE t".into(), false), ("name".into(), true)],
            search: vec![("name".into(), "50%'--".into()), ("x".into(), "y".into())],
            ..Paging::default()
        };
        let (sql, values) = compose(&filter, &paging, 10, 0);
        assert_eq!(
            sql,
            "SELECT * FROM t WHERE 1 = 1 AND LOWER(CAST(t.name AS TEXT)) LIKE $1 ESCAPE '\\' \
             ORDER BY t.name DESC, t.number LIMIT 11 OFFSET 0"
        );
        assert_eq!(values, ["%50\\%'--%"]);
    }

    #[test]
    fn tokens_go_there_and_back_and_others_are_refused() {
        assert_eq!(decode_token(&encode_token(1_000)).unwrap(), 1_000);
        assert_eq!(decode_token("").unwrap(), 0);
        for bad in ["7", "p-1", "pz", "p"] {
            assert!(decode_token(bad).is_err(), "{bad}");
        }
    }
}
