//! Properties and the table of `json/mod.rs`, with a real interpreter.

use std::ffi::CString;

use proptest::prelude::*;
use pyo3::types::PyDict;
use serde_json::Value;

use pyo3::prelude::*;

use super::*;

const BYTES_MAX: usize = 1 << 20;

/// The value of a Python expression, with some modules imported.
fn eval<'py>(py: Python<'py>, expression: &str) -> Bound<'py, PyAny> {
    let names = PyDict::new(py);
    let head = c"import array, collections, dataclasses, datetime, decimal, enum, json, uuid
@dataclasses.dataclass
class Point:
    x: int
    y: float
class Color(enum.Enum):
    RED = 'red'
class Level(enum.IntEnum):
    LOW = 1
class Words(str): pass
class Likewise:
    'Stands for numpy, pandas and tensors: what counts is `tolist`.'
    def __init__(self, value): self.value = value
    def tolist(self): return self.value
class Scalar(bytearray):
    'Has a buffer, as numpy scalars have, that is not what it means.'
    def tolist(self): return 'meant'
class Raises:
    def tolist(self): raise RuntimeError('no list')
class Growing:
    def __init__(self, of): self.of = of
    def tolist(self):
        self.of[str(len(self.of))] = 0
        return []
def growing():
    grown = {}
    grown['first'] = Growing(grown)
    return grown
def looping():
    loop = []
    loop.append(loop)
    return loop
def deep(levels):
    value = 1
    for _ in range(levels): value = [value]
    return value
";
    py.run(head, Some(&names), None).unwrap();
    py.eval(&CString::new(expression).unwrap(), Some(&names), None)
        .unwrap_or_else(|error| panic!("{expression}: {error}"))
}

fn encode(value: &Bound<'_, PyAny>) -> Result<String, String> {
    let mut out = Vec::new();
    let codec = Codec::new(value.py()).unwrap();
    match codec.encode(value, &mut out, BYTES_MAX) {
        Ok(()) => Ok(String::from_utf8(out).unwrap()),
        Err(fault) => Err(fault.message(value.py(), "response")),
    }
}

fn encoded(expression: &str) -> Result<String, String> {
    Python::initialize();
    Python::attach(|py| encode(&eval(py, expression)))
}

#[test]
fn each_type_of_the_table_has_its_json() {
    let table = [
        (
            "[None, True, False, 0, -1, 2**63 - 1, -2**63]",
            "[null,true,false,0,-1,9223372036854775807,-9223372036854775808]",
        ),
        ("[2**64, -10**30]", "[18446744073709551616,-1000000000000000000000000000000]"),
        ("[1.0, 0.1, -0.0, 1e16, 5e-324, 1e22]", "[1.0,0.1,-0.0,1e+16,5e-324,1e+22]"),
        (r#"['a"\\', '\n\x00', 'é日😀']"#, r#"["a\"\\","\n\u0000","é日😀"]"#),
        ("{'a': (1, [2]), 'b': {}}", r#"{"a":[1,[2]],"b":{}}"#),
        ("{1: 1, True: 2, 1.5: 3, None: 4, 2: False}", r#"{"1":2,"1.5":3,"null":4,"2":false}"#),
        ("{Color.RED: 1, Level.LOW: 2, datetime.date(2024, 1, 2): 3}", r#"{"red":1,"1":2,"2024-01-02":3}"#),
        ("[Color.RED, Level.LOW, Words('w'), Point(1, 2.5)]", r#"["red",1,"w",{"x":1,"y":2.5}]"#),
        ("collections.OrderedDict([('b', 1), ('a', 2)])", r#"{"b":1,"a":2}"#),
        ("collections.namedtuple('P', 'x y')(1, 2)", "[1,2]"),
        ("datetime.datetime(2024, 1, 2, 3, 4, 5, 6)", r#""2024-01-02T03:04:05.000006""#),
        ("[datetime.date(2024, 1, 2), datetime.time(3, 4)]", r#"["2024-01-02","03:04:00"]"#),
        ("[decimal.Decimal('1.10'), decimal.Decimal('-1E+3')]", "[1.10,-1E+3]"),
        ("uuid.UUID(int=1)", r#""00000000-0000-0000-0000-000000000001""#),
        (
            "[array.array('d', [1, 0.5]), array.array('b', [-1]), array.array('Q', [2**64 - 1])]",
            "[[1.0,0.5],[-1],[18446744073709551615]]",
        ),
        (
            "[array.array('f', [0.1]), array.array('i'), array.array('H', [7])]",
            "[[0.10000000149011612],[],[7]]",
        ),
        ("[Scalar(b'abc')]", r#"["meant"]"#),
        ("Likewise([Likewise(1), {'a': Likewise(2.5)}])", r#"[1,{"a":2.5}]"#),
    ];
    for (expression, json) in table {
        assert_eq!(encoded(expression).as_deref(), Ok(json), "{expression}");
    }
}

#[test]
fn what_json_cannot_hold_is_refused_with_its_place_and_a_hint() {
    let cases = [
        ("{'scores': [0.5, float('nan')]}", "`NaN` at `response.scores[1]`"),
        ("[float('-inf')]", "`-Infinity` at `response[0]`"),
        ("{float('nan'): 1}", "`NaN` at `response`"),
        ("array.array('d', [1, float('inf')])", "`Infinity` at `response[1]`"),
        ("{'a': {'b': '\\ud800'}}", "text with a lone surrogate at `response.a.b`"),
        ("{'\\ud800': 1}", "text with a lone surrogate at `response`"),
        ("b'x'", "type `bytes` (hint: decode it to text, or use base64) at `response`"),
        ("[{1, 2}]", "type `set` (hint: use `list(…)` or `sorted(…)`) at `response[0]`"),
        ("[object()]", "type `object` at `response[0]`"),
        ("[memoryview(b'x'), 1]", "type `memoryview`"),
        ("1j", "type `complex`"),
        ("decimal.Decimal('NaN')", "`Decimal('NaN')` at `response`"),
        ("{(1, 2): 3}", "type `tuple` at `response`"),
        ("Raises()", "that raised while it was made JSON: RuntimeError: no list"),
        ("growing()", "dictionary changed size"),
        ("looping()", "nested deeper than 1000 levels"),
        ("deep(1001)", "nested deeper than 1000 levels"),
        ("'x' * (1 << 20)", "more than 1048576 bytes of JSON"),
        ("['x' * 1000] * 2000", "more than 1048576 bytes of JSON"),
        ("array.array('d', [0.5]) * 400_000", "more than 1048576 bytes of JSON"),
        ("10 ** 5000", "an integer that is too long"),
    ];
    for (expression, part) in cases {
        let message = encoded(expression).expect_err(expression);
        assert!(message.starts_with("the function returned "), "{message}");
        assert!(message.contains(part), "{expression}: {message}");
        assert!(message.len() < 1_000, "{message}");
    }
}

#[test]
fn the_deepest_allowed_value_fits_on_the_stack() {
    assert_eq!(encoded("deep(1000)").unwrap().len(), 2_001);
}

#[test]
fn a_number_too_large_for_a_float_is_refused_wherever_it_stands() {
    Python::initialize();
    Python::attach(|py| {
        let wide = "9".repeat(310);
        for json in
            ["1e309", "-1E+400", "[1,{\"a\":[2e999]}]", &format!("{wide}.0"), &format!("[1,{wide}e0]")]
        {
            assert!(decode(py, json.as_bytes()).is_err(), "{json}");
        }
        for json in ["1e308", "1e-999", "0e999", r#"["1e999","abcde999"]"#, &wide, &format!("0.{wide}")] {
            assert!(decode(py, json.as_bytes()).is_ok(), "{json}");
        }
        for json in ["", "nul", "NaN", "[Infinity]", "1 2", "{\"a\":1", "\"\\ud800\""] {
            assert!(decode(py, json.as_bytes()).is_err(), "{json}");
        }
    });
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        (-1e6..1e6).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-zé\"\\\\/\n\u{7f}\u{2028}😀]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn json_comes_back_from_python_as_it_was(value in any_json()) {
        Python::initialize();
        Python::attach(|py| {
            let text = value.to_string();
            let object = decode(py, text.as_bytes()).unwrap();
            // As text: numbers must come back digit by digit.
            prop_assert_eq!(encode(&object).unwrap(), text);
            Ok(())
        })?;
    }

    #[test]
    fn both_directions_agree_with_pythons_own_json(value in any_json()) {
        Python::initialize();
        Python::attach(|py| {
            let json = py.import("json").unwrap();
            let text = value.to_string();
            let theirs = json.call_method1("loads", (&text,)).unwrap();
            let ours = decode(py, text.as_bytes()).unwrap();
            prop_assert!(ours.eq(&theirs).unwrap(), "in: {}", text);
            prop_assert_eq!(ours.repr().unwrap().to_string(), theirs.repr().unwrap().to_string());
            let back = json.call_method1("loads", (encode(&theirs).unwrap(),)).unwrap();
            prop_assert_eq!(back.repr().unwrap().to_string(), theirs.repr().unwrap().to_string());
            Ok(())
        })?;
    }

    #[test]
    fn hostile_requests_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        Python::initialize();
        Python::attach(|py| drop(decode(py, &bytes)));
    }

    #[test]
    fn an_array_gives_what_its_tolist_gives(floats in prop::collection::vec(any::<f64>().prop_filter("finite", |f| f.is_finite()), 0..50)) {
        Python::initialize();
        Python::attach(|py| {
            let array = py.import("array").unwrap().call_method1("array", ("d", floats)).unwrap();
            let list = array.call_method0("tolist").unwrap();
            prop_assert_eq!(encode(&array), encode(&list));
            Ok(())
        })?;
    }
}
