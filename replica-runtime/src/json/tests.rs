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
def looping_point():
    point = Point(1, 2)
    point.y = {'again': point}
    return point
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
        (
            "[datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-5, minutes=-30)))]",
            r#"["2024-01-02T00:00:00-05:30"]"#,
        ),
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
        ("bytearray(b'x')", "type `bytearray` (hint: decode it to text, or use base64)"),
        ("{b'k': 1}", "type `bytes` (hint"),
        ("Point(float('inf'), 0)", "`Infinity` at `response.x`"),
        ("datetime.timedelta(1)", "type `timedelta` (hint: use its `total_seconds()`)"),
        ("decimal.Decimal('-Infinity')", "`Decimal('-Infinity')` at `response`"),
        ("[{1, 2}]", "type `set` (hint: use `list(…)` or `sorted(…)`) at `response[0]`"),
        ("[object()]", "type `object` at `response[0]`"),
        ("[memoryview(b'x'), 1]", "type `memoryview`"),
        ("1j", "type `complex`"),
        ("decimal.Decimal('NaN')", "`Decimal('NaN')` at `response`"),
        ("{(1, 2): 3}", "type `tuple` at `response`"),
        ("Raises()", "that raised while it was made JSON: RuntimeError: no list"),
        ("growing()", "dictionary changed size"),
        ("looping()", "nested deeper than 1000 levels"),
        ("looping_point()", "nested deeper than 1000 levels"),
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

#[test]
fn integers_are_exact_up_to_what_python_reads_and_refused_beyond() {
    Python::initialize();
    Python::attach(|py| {
        for digits in [1, 19, 20, 4_300] {
            let text = format!("-{}", "9".repeat(digits));
            assert_eq!(encode(&decode(py, text.as_bytes()).unwrap()).as_deref(), Ok(text.as_str()));
        }
        let error = decode(py, "9".repeat(4_301).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("number"), "{error}");
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

/// Texts of numbers, strings and keys as people and programs write them, not as one serializer does.
fn any_text() -> impl Strategy<Value = String> {
    let string = prop::collection::vec(
        prop_oneof![
            Just("a"),
            Just("key"),
            Just("é"),
            Just("😀"),
            Just("\\u00e9"),
            Just("\\ud83d\\ude00"),
            Just("\\/"),
            Just("\\\""),
            Just("\\\\"),
            Just("\\b\\f\\n\\r\\t"),
            Just("\\u0000"),
            Just("\u{7f}"),
            Just("\u{2028}"),
        ],
        0..4,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,400})",
        "-?(0|[1-9][0-9]{0,30})\\.[0-9]{1,30}",
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,20})?[eE][+-]?[0-9]{1,2}",
        "-?[1-9]\\.[0-9]{1,20}[eE]-[0-9]{3}",
        Just("-0.0".to_owned()),
        Just("1.7976931348623157e308".to_owned()),
        Just("5e-324".to_owned()),
    ];
    let leaf = prop_oneof![
        number,
        string.clone(),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
    ];
    let space = prop_oneof![Just(""), Just(" "), Just("\n\t\r ")];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        let (string, space) = (string.clone(), space.clone());
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), space.clone()).prop_map(|(items, space)| format!(
                "[{space}{}{space}]",
                items.join(&format!("{space},{space}"))
            )),
            // Keys come twice now and then: of so few there are.
            (prop::collection::vec((string, inner), 0..6), space).prop_map(|(pairs, space)| {
                let pairs: Vec<String> =
                    pairs.iter().map(|(key, value)| format!("{key}{space}:{value}")).collect();
                format!("{{{}{space}}}", pairs.join(","))
            }),
        ]
    })
}

/// Values that `json.dumps` takes, or takes by a `default` of a few lines.
const GENERATOR: &std::ffi::CStr = c"
import datetime, decimal, enum, json, random, uuid

class Colour(enum.Enum):
    RED = 'red'

class Count(int):
    pass

def leaf(draw):
    return draw.choice([
        lambda: None, lambda: True, lambda: draw.randint(-9, 9), lambda: draw.getrandbits(draw.choice([63, 64, 200])),
        lambda: -draw.getrandbits(64), lambda: draw.random(), lambda: draw.uniform(-1e300, 1e300), lambda: -0.0,
        lambda: 5e-324, lambda: float(draw.getrandbits(60)), lambda: Count(7),
        lambda: ''.join(chr(draw.choice([9, 34, 92, 97, 233, 0x2028, 0x1f600])) for _ in range(draw.randint(0, 20))),
        lambda: datetime.datetime(2024, 1, draw.randint(1, 28), tzinfo=draw.choice([None, datetime.timezone.utc])),
        lambda: datetime.date(2024, 1, draw.randint(1, 28)), lambda: datetime.time(3, 4, draw.randint(0, 59)),
        lambda: uuid.UUID(int=draw.getrandbits(128)), lambda: Colour.RED, lambda: decimal.Decimal(draw.randint(0, 99)),
    ])()

def value(draw, depth):
    kind = draw.randint(0, 9 if depth else 4)
    if kind < 5:
        return leaf(draw)
    items = [value(draw, depth - 1) for _ in range(draw.randint(0, 5))]
    if kind == 9:
        return tuple(items)
    if kind > 6:
        return items
    keys = [draw.choice(['a', 'b', 'ü', 1, 2.5, None, True, '']) for _ in items]
    return dict(zip(keys, items))

def default(one):
    if isinstance(one, enum.Enum):
        return one.value
    if isinstance(one, decimal.Decimal):
        return int(one)
    return one.isoformat() if hasattr(one, 'isoformat') else str(one)

def pair(seed):
    made = value(random.Random(seed), 4)
    return made, json.dumps(made, default=default, allow_nan=False)

def pairs(text):
    return json.loads(text, object_pairs_hook=lambda pairs: pairs)
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_comes_in_is_what_pythons_own_json_reads(text in any_text()) {
        Python::initialize();
        Python::attach(|py| {
            let theirs = py.import("json").unwrap().call_method1("loads", (&text,)).unwrap();
            let ours = decode(py, text.as_bytes()).unwrap();
            prop_assert_eq!(ours.repr().unwrap().to_string(), theirs.repr().unwrap().to_string(), "{}", text);
            Ok(())
        })?;
    }

    #[test]
    fn nesting_is_taken_as_deep_as_the_gateway_lets_it_be(depth in 1_usize..=128, is_object in any::<bool>()) {
        Python::initialize();
        Python::attach(|py| {
            let (open, close) = if is_object { (r#"{"a":"#, "}") } else { ("[", "]") };
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let theirs = py.import("json").unwrap().call_method1("loads", (&text,)).unwrap();
            let ours = decode(py, text.as_bytes()).unwrap();
            prop_assert!(ours.eq(&theirs).unwrap());
            prop_assert_eq!(encode(&ours).unwrap(), text);
            Ok(())
        })?;
    }
}

#[test]
fn what_goes_out_reads_as_what_pythons_own_json_writes() {
    Python::initialize();
    Python::attach(|py| {
        let module = PyModule::from_code(py, GENERATOR, c"generator", c"generator").unwrap();
        let codec = Codec::new(py).unwrap();
        // Pairs: a key that comes twice, as 1 and "1" do, must come twice in both.
        let read = |text: &str| module.call_method1("pairs", (text,)).unwrap().repr().unwrap().to_string();
        for seed in 0..4_000 {
            let (made, theirs): (Bound<'_, PyAny>, String) =
                module.call_method1("pair", (seed,)).unwrap().extract().unwrap();
            let mut ours = Vec::new();
            codec.encode(&made, &mut ours, BYTES_MAX).map_err(|fault| fault.message(py, "response")).unwrap();
            assert_eq!(read(std::str::from_utf8(&ours).unwrap()), read(&theirs), "seed {seed}");
        }
    });
}
