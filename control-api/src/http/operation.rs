//! An operation of the API: everything that is said about it, once. The router, the check that stands before each handler,
//! the API document and the tests that compare them are all made from the same list of operations (`routes`), so that none
//! of them can know a route that another does not.

use axum::{
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter, on},
};

use crate::{app::App, rights::Right};

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// No key.
    Nothing,
    /// A good key: what is answered is the caller's own.
    Key,
    /// A right on the project of the path.
    Right(Right),
    /// A right on the project of what the body names; the handler asks for it.
    RightByBody(Right),
    /// A right in the team of the path.
    InTeam(Right),
    /// To be the user of the path, or an administrator.
    Oneself,
    /// To be an administrator.
    Administrator,
}

impl From<Right> for Needs {
    fn from(right: Right) -> Self {
        Self::Right(right)
    }
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or an object that says nothing.
    Nothing,
    /// An object of this definition.
    Json(&'static str),
    /// An object without a definition: the old interface.
    Object,
    /// A form whose keys are the paths of the files it holds.
    Files,
    /// A tar archive.
    Archive,
}

/// What the body of a successful answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// `{}`.
    Nothing,
    /// An object of this definition.
    Json(&'static str),
    /// A list of such objects under a field, `""` for texts; by pages or whole.
    List { field: &'static str, of: &'static str, is_paged: bool },
    /// A value without a definition: the old interface, and the document itself.
    Any,
    /// Server-sent events.
    Events,
    /// A file of this media type.
    File(&'static str),
}

/// A parameter of the query string.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// A type of the document: `string`, `integer`, `boolean`.
    pub(crate) kind: &'static str,
    pub(crate) about: &'static str,
}

/// Everything that is said about an operation.
#[derive(Debug)]
pub(crate) struct Operation {
    /// `CreateModel`: clients make their names of it.
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) needs: Needs,
    pub(crate) query: Vec<Parameter>,
    pub(crate) takes: Takes,
    /// Fields that are taken and not written down: what other clients send in their place.
    pub(crate) also_takes: &'static [&'static str],
    pub(crate) answers: Answers,
    /// Who did it, and what came of it, is kept.
    pub(crate) is_recorded: bool,
    pub(crate) about: &'static str,
}

/// An operation and what does it.
pub(crate) struct Route {
    pub(crate) operation: Operation,
    pub(crate) handler: MethodRouter<App>,
    /// Another path of the same operation.
    pub(crate) alias: Option<&'static str>,
}

/// An operation by its method. `needs` comes before the handler: no route is made without saying who may call it.
pub(crate) fn route<H, T>(
    (method, path): (Method, &'static str),
    name: &'static str,
    needs: impl Into<Needs>,
    handler: H,
) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("routes have methods that axum knows");
    let operation = Operation {
        name,
        path,
        needs: needs.into(),
        query: Vec::new(),
        takes: Takes::Nothing,
        also_takes: &[],
        answers: Answers::Nothing,
        is_recorded: method != Method::GET,
        method,
        about: "",
    };
    Route { operation, handler: on(filter, handler), alias: None }
}

impl Route {
    /// Another path of the same operation, which the document does not name.
    pub(crate) fn also_at(mut self, path: &'static str) -> Self {
        self.alias = Some(path);
        self
    }

    /// It only looks, though its method is not `GET`, or is done as often as calls are.
    pub(crate) fn goes_unrecorded(mut self) -> Self {
        self.operation.is_recorded = false;
        self
    }

    /// One sentence, for people.
    pub(crate) fn about(mut self, about: &'static str) -> Self {
        self.operation.about = about;
        self
    }

    /// The body is an object of this definition.
    pub(crate) fn takes(self, definition: &'static str) -> Self {
        self.body(Takes::Json(definition))
    }

    /// What the body is.
    pub(crate) fn body(mut self, takes: Takes) -> Self {
        self.operation.takes = takes;
        self
    }

    /// Fields that are taken and not written down.
    pub(crate) fn also_takes(mut self, fields: &'static [&'static str]) -> Self {
        self.operation.also_takes = fields;
        self
    }

    /// The answer is an object of this definition.
    pub(crate) fn answers(self, definition: &'static str) -> Self {
        self.answer(Answers::Json(definition))
    }

    /// What the answer is.
    pub(crate) fn answer(mut self, answers: Answers) -> Self {
        self.operation.answers = answers;
        self
    }

    /// The answer is a page of objects.
    pub(crate) fn lists(self, field: &'static str, of: &'static str) -> Self {
        self.query("search_filter", "string", "a JSON object as text: field and a part of its value")
            .query("sort", "string", "fields with `+` or `-` before them, separated by commas")
            .query("page_size", "integer", "how many, 10 unless given, 100000 at most")
            .query("page_token", "string", "`next_page_token` of the page before")
            .answer(Answers::List { field, of, is_paged: true })
    }

    /// The answer is all there is.
    pub(crate) fn lists_all(self, field: &'static str, of: &'static str) -> Self {
        self.answer(Answers::List { field, of, is_paged: false })
    }

    /// A parameter of the query string.
    pub(crate) fn query(mut self, name: &'static str, kind: &'static str, about: &'static str) -> Self {
        self.operation.query.push(Parameter { name, kind, about });
        self
    }
}

impl Operation {
    /// `:stop` of `…/{deployment_id}:stop`, else nothing.
    pub(crate) fn action(&self) -> Option<&'static str> {
        let at = self.path.rfind("}:")?;
        Some(&self.path[at + 1..])
    }

    /// The path as the router knows it: a segment is one parameter, so an action is part of it.
    pub(crate) fn router_path(&self) -> String {
        let path = self.action().map_or(self.path, |action| &self.path[..self.path.len() - action.len()]);
        // A file's path takes the rest, slashes included.
        path.replace("/files/{path}", "/files/{*path}")
    }

    /// Names in the path, in order.
    pub(crate) fn path_parameters(&self) -> Vec<&'static str> {
        self.path.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0)).collect()
    }

    /// Belongs to the old interface.
    pub(crate) fn is_old(&self) -> bool {
        self.path.starts_with("/api/altus-ds-1/")
    }
}
