//! What numpy and pandas make is JSON as one would write it, or `function.bad_output`, value by value, by the libraries
//! themselves. Needs a package index.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    figures::Figures,
    http::{Connection, request},
    server::{Model, Server},
};

const SCRIPT: &str = "pip install -q numpy pandas\n";
const PYTHON: &str = include_str!("values.py");

/// An expression, and the JSON that callers get for it.
const TAKEN: &[(&str, &str)] = &[
    (
        "[numpy.int64(-7), numpy.uint8(255), numpy.uint64(2**64 - 1), numpy.bool_(True)]",
        "[-7,255,18446744073709551615,true]",
    ),
    ("[numpy.float64(0.1), numpy.float32(0.5), numpy.float16(0.25)]", "[0.1,0.5,0.25]"),
    ("{numpy.int64(1): numpy.str_('a')}", r#"{"1":"a"}"#),
    ("numpy.arange(6).reshape(2, 3)", "[[0,1,2],[3,4,5]]"),
    ("numpy.arange(6).reshape(2, 3).T", "[[0,3],[1,4],[2,5]]"),
    ("numpy.arange(6)[::-2]", "[5,3,1]"),
    ("numpy.array(5)", "5"),
    ("[numpy.zeros((0, 3)), numpy.zeros((2, 0))]", "[[],[[],[]]]"),
    ("numpy.array([1, 258], dtype='>i4')", "[1,258]"),
    ("numpy.array([True, False])", "[true,false]"),
    ("numpy.array(['a', 'é'])", r#"["a","é"]"#),
    ("numpy.array([None, 1, 'a', {'b': 2}], dtype=object)", r#"[null,1,"a",{"b":2}]"#),
    ("numpy.ma.masked_array([1, 2], mask=[False, True])", "[1,null]"),
    ("numpy.datetime64('2024-01-02')", r#""2024-01-02""#),
    ("numpy.array(['2024-01-02T03:04:05'], dtype='datetime64[s]')", r#"["2024-01-02T03:04:05"]"#),
    ("numpy.array([0.5, 1.0], dtype='float16')", "[0.5,1.0]"),
    ("pandas.Series([1, 2])", "[1,2]"),
    ("pandas.Series(['a', None], dtype=object)", r#"["a",null]"#),
    ("pandas.Series(pandas.to_datetime(['2024-01-02']))", r#"["2024-01-02T00:00:00"]"#),
    ("pandas.Series(['x', 'y', 'x'], dtype='category')", r#"["x","y","x"]"#),
    ("pandas.DataFrame({'a': [1, 2], 'b': ['x', 'y']})", r#"[{"a":1,"b":"x"},{"a":2,"b":"y"}]"#),
    ("pandas.DataFrame({'t': pandas.to_datetime(['2024-01-02'])})", r#"[{"t":"2024-01-02T00:00:00"}]"#),
    ("pandas.DataFrame({'a': []})", "[]"),
    (
        "[pandas.Timestamp('2024-01-02 03:04:05.6'), pandas.Index([1, 2])]",
        r#"["2024-01-02T03:04:05.600000",[1,2]]"#,
    ),
    ("pandas.Timestamp('2024-01-02', tz='UTC')", r#""2024-01-02T00:00:00+00:00""#),
    ("pandas.date_range('2024-01-02', periods=2)", r#"["2024-01-02T00:00:00","2024-01-03T00:00:00"]"#),
];

/// An expression, and a part of what its caller is told.
const REFUSED: &[(&str, &str)] = &[
    ("[numpy.float64('nan')]", "`NaN` at `response[0]`"),
    ("numpy.float32('inf')", "`Infinity`"),
    ("numpy.array([[1, numpy.nan]])", "`NaN` at `response[0][1]`"),
    ("numpy.array([1, -numpy.inf], dtype='float32')", "`-Infinity` at `response[1]`"),
    ("numpy.array([1j])", "complex"),
    ("numpy.complex64(1j)", "complex"),
    ("numpy.timedelta64(1, 's')", "timedelta64"),
    ("numpy.datetime64('NaT')", "`NaT`"),
    ("numpy.array(['2024-01-02', 'NaT'], dtype='datetime64[D]')", "`NaT`"),
    ("numpy.bytes_(b'x')", "`bytes"),
    ("numpy.array([b'x'])", "type `bytes`"),
    ("numpy.longdouble(1)", "type `longdouble`"),
    ("pandas.NaT", "`NaT`"),
    ("pandas.NA", "`<NA>`"),
    ("pandas.Series([1, None])", "`NaN` at `response[1]`"),
    ("pandas.Series([1, None], dtype='Int64')", "`<NA>`"),
    ("pandas.DataFrame({'a': [1.0, None]})", "`NaN` at `response[1].a`"),
    ("pandas.DataFrame([[1, 2]], columns=['a', 'a'])", "two columns of one name"),
    ("pandas.Timedelta(1)", "type `Timedelta`"),
    ("pandas.Period('2024-01')", "type `Period`"),
    ("pandas.Interval(0, 1)", "type `Interval`"),
];

pub(crate) async fn run(_: Duration) -> Figures {
    let mut figures = Figures::default();
    let server = Server::start();
    let files = [("cdsw-build.sh", SCRIPT), ("model.py", PYTHON)];
    let model = server.deploy_files("values", &files, &["--example", r#"{"n":1}"#, "--on-exception", "keep"]);
    let mut connection = Connection::open(&model.host).await.expect("the server listens");
    let mut right = 0;
    for (expression, wanted) in TAKEN {
        let (status, text) = call(&mut connection, &model, expression).await;
        if status == 200 && text.contains(&format!(r#""response":{wanted},"#)) {
            right += 1;
        } else {
            figures.show(format!("wrong: {expression}"), text);
        }
    }
    figures.must_be("values that are JSON", right, TAKEN.len());
    let mut right = 0;
    for (expression, part) in REFUSED {
        let (status, text) = call(&mut connection, &model, expression).await;
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let is_told = body["error"]["message"].as_str().is_some_and(|told| told.contains(part));
        if status == 500 && body["error"]["code"] == "function.bad_output" && is_told {
            right += 1;
        } else {
            figures.show(format!("wrong: {expression}"), text);
        }
    }
    figures.must_be("values that are no JSON, and said to be none", right, REFUSED.len());
    figures
}

async fn call(connection: &mut Connection, model: &Model, expression: &str) -> (u16, String) {
    let body = model.body(&json!({ "of": expression }).to_string());
    let bytes = request(&model.host, "/model", &model.api_key, &body);
    let answer = connection.exchange(&bytes).await.expect("an answer");
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}
