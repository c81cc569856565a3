//! What the API's objects are made of, for the document. What handlers read and show is compared with it in every test
//! that calls one: a field that is missing here, or is here alone, fails that test by name.

mod accounts;
mod metrics;
mod models;
mod projects;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A text.
    Text,
    /// RFC 3339, or `null` where it has not come yet.
    Time,
    /// A whole number.
    Integer,
    /// A whole number as text.
    Wide,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// A list of texts.
    Texts,
    /// An object of texts.
    Variables,
    /// Any JSON value.
    Any,
    /// An object of this definition.
    Of(&'static str),
    /// A list of such objects.
    List(&'static str),
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) about: &'static str,
    /// An answer may lack it.
    pub(crate) is_optional: bool,
}

/// An object.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}

/// A field.
const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, about, is_optional: false }
}

/// A field that is there when it was asked for.
const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, about, is_optional: true }
}

/// Every definition.
pub(crate) fn all() -> impl Iterator<Item = &'static Definition> {
    projects::DEFINITIONS
        .iter()
        .chain(models::DEFINITIONS)
        .chain(accounts::DEFINITIONS)
        .chain(metrics::DEFINITIONS)
}

/// The definition of this name.
#[cfg(test)]
pub(crate) fn named(name: &str) -> Option<&'static Definition> {
    all().find(|definition| definition.name == name)
}
