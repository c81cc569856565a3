//! JSON by RFC 8259: for each of its productions, texts that it makes, texts that it does not, and, where it leaves the
//! choice to us, what we chose. Each stands where a request does.

use super::*;

fn is_taken(request: &[u8]) -> bool {
    let body = [br#"{"accessKey":"m","request":"#, request, b"}"].concat();
    split(&body).is_ok_and(|split| {
        // Blanks around a value belong to the object that it is in.
        body[split.request] == *request.trim_ascii()
    })
}

fn verdicts(taken: bool, class: &str, texts: &[&[u8]]) {
    for text in texts {
        assert_eq!(is_taken(text), taken, "{class}: {:?}", String::from_utf8_lossy(text));
    }
}

#[test]
fn every_text_of_the_grammar_is_taken() {
    verdicts(true, "values", &[b"null", b"true", b"false", b"0", br#""""#, b"[]", b"{}"]);
    verdicts(true, "blanks", &[b" \t\r\n[ \n1\t,\r2 ] ", b"{ \"a\" : 1 , \"b\" : [ ] }", b"\n{\n}\n"]);
    verdicts(
        true,
        "numbers",
        &[
            b"-0",
            b"10",
            b"-17",
            b"0.5",
            b"-0.0",
            b"1.25e3",
            b"1E5",
            b"2e+7",
            b"3E-2",
            b"0e1",
            b"0E+0",
            b"-1.0e-0",
            b"0.000000000000000000000001",
            b"1.7976931348623157e308",
            b"18446744073709551616",
        ],
    );
    verdicts(
        true,
        "strings",
        &[
            br#""\" \\ \/ \b \f \n \r \t""#,
            br#""\u00e9\u00E9\u0041""#,
            br#""\ud83d\ude00""#,
            br#""\uDBFF\uDFFF""#,
            br#""\u0000""#,
            br#""\\u0041 \\n""#,
            "\"é 日 😀 \u{7f} \u{80} \u{2028} \u{feff} \u{fffe} \u{10ffff}\"".as_bytes(),
            br#""/* a text */ // [1,]""#,
        ],
    );
    verdicts(true, "arrays", &[b"[1,[2,[3]],{},null]", b"[[],[[]]]", b"[false]"]);
    verdicts(
        true,
        "objects",
        &[
            br#"{"":0}"#,
            br#"{"a":{"a":{"a":[]}}}"#,
            br#"{"\u0000":1,"\"":2}"#,
            br#"{"accessKey":"x","request":1}"#,
        ],
    );
}

#[test]
fn every_text_outside_the_grammar_is_refused() {
    verdicts(false, "nothing", &[b"", b" ", b"\n"]);
    verdicts(
        false,
        "words",
        &[
            b"nul",
            b"nulls",
            b"True",
            b"TRUE",
            b"fals",
            b"undefined",
            b"NaN",
            b"-NaN",
            b"Infinity",
            b"-Infinity",
            b"a",
        ],
    );
    verdicts(
        false,
        "numbers",
        &[
            b"01",
            b"-01",
            b"00",
            b"+1",
            b"++1",
            b"--1",
            b"-",
            b"- 1",
            b"-a",
            b".5",
            b"-.5",
            b"1.",
            b"1.e2",
            b"0.e1",
            b"1e",
            b"1e+",
            b"1E-",
            b"1e1.5",
            b"1e2e3",
            b"0x1F",
            b"0b1",
            b"1_000",
            b"1 000",
            b"1,5",
            b"1a",
            b"1.2.3",
            "１".as_bytes(),
            "1\u{a0}".as_bytes(),
            b"9.3e-",
            b"1+2",
            b"Inf",
            b"1f",
        ],
    );
    verdicts(
        false,
        "strings",
        &[
            b"\"",
            br#""a"#,
            b"'a'",
            br#""\""#,
            br#""\x41""#,
            br#""\a""#,
            br#""\0""#,
            br#""\U0041""#,
            br#""\u""#,
            br#""\u12""#,
            br#""\u12g4""#,
            br#""\u-123""#,
            b"\"\n\"",
            b"\"\t\"",
            b"\"\x00\"",
            b"\"\x1f\"",
            b"\"\\\n\"",
            br#""a" "b""#,
            br#"a"b""#,
            br"\u0022a\u0022",
            "“a”".as_bytes(),
            "\"\\😀\"".as_bytes(),
            br#""a"b"#,
        ],
    );
    verdicts(
        false,
        "arrays",
        &[
            b"[", b"]", b"[1", b"[1,", b"[1,]", b"[,1]", b"[,]", b"[1,,2]", b"[1 2]", b"[1;2]", b"[1:2]",
            b"[1]]", b"[[1]", b"[1}", b"[1],[2]", b"[*]", b"[\x0c1]", b"[1\x0b]", b"[a", b"[\"a\"", b"[1,\n",
        ],
    );
    verdicts(
        false,
        "objects",
        &[
            b"{",
            br#"{"a"}"#,
            br#"{"a":}"#,
            br"{:1}",
            br#"{"a":1"#,
            br#"{"a":1,}"#,
            br#"{,"a":1}"#,
            br#"{"a":1,,"b":2}"#,
            br#"{"a" 1}"#,
            br#"{"a"::1}"#,
            br#"{"a":1 "b":2}"#,
            br#"{"a":1;"b":2}"#,
            br#"{"a",1}"#,
            b"{a:1}",
            b"{'a':1}",
            b"{1:1}",
            b"{null:1}",
            b"{[]:1}",
            br#"{"a":1]"#,
            br#"{"a":1}}"#,
            br#"{"a":1 2}"#,
            br#"{"a":"b""#,
        ],
    );
    verdicts(
        false,
        "what is around",
        &[
            b"1 1",
            b"[]x",
            b"[]#",
            b"{}//",
            b"/**/1",
            b"1/**/",
            b"1;",
            b"\xef\xbb\xbf1",
            "\u{2060}1".as_bytes(),
            "\u{a0}1".as_bytes(),
            b"\x0c1",
            b"1\x00",
            b"<1>",
            b"[1]]]]",
            b"\x1a",
            b"(1)",
        ],
    );
}

#[test]
fn bytes_that_are_no_utf8_are_refused_wherever_they_stand() {
    let bad: [&[u8]; 9] = [
        b"\xff",             // never a byte of it
        b"\x80",             // a continuation alone
        b"\xc3",             // cut after the first of two
        b"\xe6\x97",         // cut after the second of three
        b"\xf0\x9f\x98",     // cut after the third of four
        b"\xc0\xaf",         // longer than it has to be
        b"\xe0\x80\xaf",     // the same, of three
        b"\xed\xa0\x80",     // a surrogate
        b"\xf4\x90\x80\x80", // past the last code point
    ];
    for bytes in bad {
        let quoted = [b"\"a", bytes, b"b\""].concat();
        let key = [b"{\"", bytes, b"\":1}"].concat();
        verdicts(false, "UTF-8", &[bytes, &quoted, &key, &[b"[1", bytes, b"]"].concat()]);
    }
    let sixteen: Vec<u8> = "[1]".encode_utf16().flat_map(u16::to_be_bytes).collect();
    verdicts(false, "UTF-16", &[&sixteen]);
}

#[test]
fn what_the_rfc_leaves_open_is_decided_and_stays_so() {
    // What of a number Python can hold is told by the runtime, which is the one to read it.
    verdicts(true, "large integers", &[b"-237462374673276894279832749832423479823246327846", &[b'9'; 5_000]]);
    verdicts(true, "exponents", &[b"123e-10000000", b"1e-400", b"-1e+9999"]);
    // No text of Unicode has half a pair.
    verdicts(
        false,
        "lone surrogates",
        &[
            br#""\ud800""#,
            br#""\udfff""#,
            br#""\ud800\u0041""#,
            br#""\ud800\ud800""#,
            br#""\ude00\ud83d""#,
            br#"{"\udfaa":0}"#,
            br#""\ud83d\n""#,
            br#""\ud83dx\ude00""#,
        ],
    );
    // Those of a request are the function's: the last one counts, as in Python.
    verdicts(true, "names that come twice", &[br#"{"a":1,"a":2}"#, br#"{"a":1,"\u0061":2}"#]);
    // A request at the second level has 127 to go.
    let nested = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    verdicts(true, "depth", &[&nested(127)]);
    verdicts(false, "depth", &[&nested(128), &nested(100_000), &vec![b'['; 100_000]]);
    // A non-character is a code point like another.
    verdicts(true, "non-characters", &[br#""\uffff\ufdd0""#, "\"\u{ffff}\"".as_bytes()]);
}
