//! The conformance tables of the specification, and what they leave open.

use super::*;
use EvaluateError::*;

type Found = Result<Value, EvaluateError>;

fn yes(own: bool) -> Found {
    Ok(Value::Boolean(own))
}

fn number(own: i32) -> Found {
    Ok(Value::Integer(own))
}

fn text(own: &str) -> Found {
    Ok(Value::Text(own.to_owned()))
}

fn failed(own: EvaluateError) -> Found {
    Err(own)
}

fn event(extensions: &[(&str, &str)]) -> Event {
    let mut event = Event::new("myId", "http://localhost/source", "myType");
    event.time = Some("2018-04-26T14:48:09+02:00".to_owned());
    for (name, value) in extensions {
        event.set(name, (*value).to_owned()).unwrap();
    }
    event
}

fn check_with(extensions: &[(&str, &str)], expression: &str, wanted: Found) {
    let parsed = Expression::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    assert_eq!(parsed.evaluate(&event(extensions)), wanted, "{expression}");
}

fn check(expression: &str, wanted: Found) {
    check_with(&[], expression, wanted);
}

#[test]
fn table_1() {
    check("TRUE = FALSE", yes(false));
    check("FALSE = FALSE", yes(true));
    check("1 = 2", yes(false));
    check("2 = 2", yes(true));
    check("'abc' = '123'", yes(false));
    check("'abc' = 'abc'", yes(true));
    check("missing = 2", failed(MissingAttribute));
    check("TRUE != FALSE", yes(true));
    check("FALSE != FALSE", yes(false));
    check("1 != 2", yes(true));
    check("2 != 2", yes(false));
    check("'abc' != '123'", yes(true));
    check("'abc' != 'abc'", yes(false));
    check("missing != 2", failed(MissingAttribute));
    check("TRUE <> FALSE", yes(true));
    check("FALSE <> FALSE", yes(false));
    check("1 <> 2", yes(true));
    check("2 <> 2", yes(false));
    check("'abc' <> '123'", yes(true));
    check("'abc' <> 'abc'", yes(false));
    check("missing <> 2", failed(MissingAttribute));
    check("2 <= 2", yes(true));
    check("3 <= 2", yes(false));
    check("1 < 2", yes(true));
    check("2 < 2", yes(false));
    check("2 >= 2", yes(true));
    check("2 >= 3", yes(false));
    check("2 > 1", yes(true));
    check("2 > 2", yes(false));
    check("missing <= 2", failed(MissingAttribute));
    check("true = 'TRUE'", yes(false));
    check("'TRUE' = true", yes(true));
    check("FALSE AND FALSE", yes(false));
    check("FALSE AND TRUE", yes(false));
    check("TRUE AND FALSE", yes(false));
    check("TRUE AND TRUE", yes(true));
    check("false and (1 != 1 / 0)", yes(false));
    check("true and (1 != 1 / 0)", failed(Math));
    check("FALSE OR FALSE", yes(false));
    check("FALSE OR TRUE", yes(true));
    check("TRUE OR FALSE", yes(true));
    check("TRUE OR TRUE", yes(true));
    check("true or (1 != 1 / 0)", yes(true));
    check("false or (1 != 1 / 0)", failed(Math));
    check("FALSE XOR FALSE", yes(false));
    check("FALSE XOR TRUE", yes(true));
    check("TRUE XOR FALSE", yes(true));
    check("TRUE XOR TRUE", yes(false));
    check("4 * 2 + 4 / 2", number(10));
    check("4 * (2 + 4) / 2", number(12));
    check("5 / 3", number(1));
    check("5 / 0", failed(Math));
    check("5 % 2", number(1));
    check("5 % 0", failed(Math));
    check("missing / 0", failed(MissingAttribute));
    check("missing % 0", failed(MissingAttribute));
    check("4 + 1", number(5));
    check("-4 + 1", number(-3));
    check("-4 + -1", number(-5));
    check("4 + -1", number(3));
}

#[test]
fn table_2() {
    check("4 - 1", number(3));
    check("-4 - 1", number(-5));
    check("'5' + 3", number(8));
    check("5 + '3'", number(8));
    check("'5' + '3'", number(8));
    check("5 + TRUE", number(6));
    check("TRUE", yes(true));
    check("tRuE", yes(true));
    check("FALSE", yes(false));
    check("FaLsE", yes(false));
    check("'aBcD'", text("aBcD"));
    check("INT('1')", number(1));
    check("INT('-1')", number(-1));
    check("INT(1)", number(1));
    check("INT(-1)", number(-1));
    check("INT(TRUE)", number(1));
    check("INT(FALSE)", number(0));
    check("INT('ABC')", failed(Cast));
    check("BOOL('TRUE')", yes(true));
    check(r#"BOOL("false")"#, yes(false));
    check("BOOL(TRUE)", yes(true));
    check("BOOL(FALSE)", yes(false));
    check("BOOL('ABC')", failed(Cast));
    check("BOOL(1)", yes(true));
    check("BOOL(0)", yes(false));
    check("BOOL(100)", yes(true));
    check("BOOL(-50)", yes(true));
    check("STRING(TRUE)", text("true"));
    check("STRING(FALSE)", text("false"));
    check("STRING(1)", text("1"));
    check("STRING(-1)", text("-1"));
    check(r#"STRING("abc")"#, text("abc"));
    check("EXISTS specversion AND EXISTS id AND EXISTS type AND EXISTS SOURCE", yes(true));
    check("123 IN (1, 2, 3, 12, 13, 23, 123)", yes(true));
    check("123 NOT IN (1, 2, 3, 12, 13, 23, 123)", yes(false));
    check(r#"'abc' IN ('abc', "bcd")"#, yes(true));
    check(r#"'aaa' IN ('abc', "bcd")"#, yes(false));
    check("TRUE IN (TRUE, FALSE)", yes(true));
    check("TRUE IN (FALSE)", yes(false));
    check("'true' IN (TRUE, 'false')", yes(true));
    check("'true' IN ('TRUE', 'false')", yes(false));
    check("TRUE IN ('true', 'false')", yes(true));
    check("'TRUE' IN (TRUE, 'false')", yes(false));
    check("1 IN ('1', '2')", yes(true));
    check("'1' IN (1, 2)", yes(true));
    check("ABS(10)", number(10));
    check("ABS(-10)", number(10));
    check("ABS(0)", number(0));
    check("ABS(-2147483648)", failed(Math));
    check("'abc' LIKE 'abc'", yes(true));
    check(r#"'ab\c' LIKE 'ab\c'"#, yes(true));
    check("'abc' NOT LIKE 'abc'", yes(false));
    check("'abc' LIKE 'a%b%c'", yes(true));
    check("'azbc' LIKE 'a%b%c'", yes(true));
    check("'azzzbzzzc' LIKE 'a%b%c'", yes(true));
    check("'a%b%c' LIKE 'a%b%c'", yes(true));
    check("'ac' LIKE 'abc'", yes(false));
    check("'' LIKE 'abc'", yes(false));
    check("'.ab.cde.' LIKE '.%.%.'", yes(true));
    check("'ab.cde' LIKE '.%.%.'", yes(false));
}

#[test]
fn table_3() {
    check("'abc' LIKE 'a_b_c'", yes(false));
    check("'a_b_c' LIKE 'a_b_c'", yes(true));
    check("'abzc' LIKE 'a_b_c'", yes(false));
    check("'azbc' LIKE 'a_b_c'", yes(false));
    check("'azbzc' LIKE 'a_b_c'", yes(true));
    check("'.a.b.' LIKE '._._.'", yes(true));
    check("'abcd.' LIKE '._._.'", yes(false));
    check(r#"'a_b_c' LIKE 'a\_b\_c'"#, yes(true));
    check(r#"'a_b_c' NOT LIKE 'a\_b\_c'"#, yes(false));
    check(r#"'azbzc' LIKE 'a\_b\_c'"#, yes(false));
    check(r#"'abc' LIKE 'a\_b\_c'"#, yes(false));
    check(r#"'abc' LIKE 'a\%b\%c'"#, yes(false));
    check(r#"'a%b%c' LIKE 'a\%b\%c'"#, yes(true));
    check(r#"'azbzc' LIKE 'a\%b\%c'"#, yes(false));
    check("234 LIKE '23_'", yes(true));
    check("2344 LIKE '23%'", yes(true));
    check("2344 LIKE '23_'", yes(false));
    check("TRUE LIKE 'tr%'", yes(true));
    check("TRUE LIKE '%ue'", yes(true));
    check("FALSE LIKE 'tr%'", yes(false));
    check("FALSE LIKE 'fal%'", yes(true));
    check("missing LIKE 'missing'", failed(MissingAttribute));
    check("0", number(0));
    check("1", number(1));
    check("'abc'", text("abc"));
    check(r#""abc""#, text("abc"));
    check("'aBc'", text("aBc"));
    check(r#""AbC""#, text("AbC"));
    check(r#"'a"b\'c'"#, text(r#"a"b'c"#));
    check(r#""a'b\"c""#, text(r#"a'b"c"#));
    check("-10", number(-10));
    check("--10", number(10));
    check("-'10'", number(-10));
    check("--'10'", number(10));
    check("-TRUE", number(-1));
    check("-missing", failed(MissingAttribute));
    check("NOT TRUE", yes(false));
    check("NOT FALSE", yes(true));
    check("NOT 'TRUE'", yes(false));
    check("NOT 'FALSE'", yes(true));
    check("NOT 10", yes(false));
    check("NOT missing", failed(MissingAttribute));
    check(r#"true AND (missing = "")"#, failed(MissingAttribute));
    check("missing * 5", failed(MissingAttribute));
    check("1 / missing", failed(MissingAttribute));
    check("LENGTH('abc')", number(3));
    check("LENGTH('')", number(0));
    check("LENGTH('2')", number(1));
    check("LENGTH(TRUE)", number(4));
    check("CONCAT('a', 'b', 'c')", text("abc"));
    check("CONCAT()", text(""));
    check("CONCAT('a')", text("a"));
    check("CONCAT_WS(',', 'a', 'b', 'c')", text("a,b,c"));
    check("CONCAT_WS(',')", text(""));
    check("CONCAT_WS(',', 'a')", text("a"));
    check("CONCAT_WS()", failed(MissingFunction));
    check("LOWER('ABC')", text("abc"));
    check("LOWER('AbC')", text("abc"));
    check("LOWER('abc')", text("abc"));
    check("UPPER('ABC')", text("ABC"));
}

#[test]
fn table_4() {
    check("UPPER('AbC')", text("ABC"));
    check("UPPER('abc')", text("ABC"));
    check("TRIM('   a b c   ')", text("a b c"));
    check("TRIM('   a b c')", text("a b c"));
    check("TRIM('a b c   ')", text("a b c"));
    check("TRIM('a b c')", text("a b c"));
    check("LEFT('abc', 2)", text("ab"));
    check("LEFT('abc', 10)", text("abc"));
    check("LEFT('', 0)", text(""));
    check("LEFT('abc', -2)", failed(Function));
    check("RIGHT('abc', 2)", text("bc"));
    check("RIGHT('abc', 10)", text("abc"));
    check("RIGHT('', 0)", text(""));
    check("RIGHT('abc', -2)", failed(Function));
    check("SUBSTRING('abcdef', 1)", text("abcdef"));
    check("SUBSTRING('abcdef', 2)", text("bcdef"));
    check("SUBSTRING('Quadratically', 5)", text("ratically"));
    check("SUBSTRING('Sakila', -3)", text("ila"));
    check("SUBSTRING('abcdef', 1, 6)", text("abcdef"));
    check("SUBSTRING('abcdef', 2, 4)", text("bcde"));
    check("SUBSTRING('Sakila', -5, 3)", text("aki"));
    check("SUBSTRING('Quadratically', 0)", text(""));
    check("SUBSTRING('Quadratically', 0, 1)", text(""));
    check("SUBSTRING('abcdef', 10)", failed(Function));
    check("SUBSTRING('abcdef', -10)", failed(Function));
    check("SUBSTRING('abcdef', 10, 10)", failed(Function));
    check("SUBSTRING('abcdef', -10, 10)", failed(Function));
    check("(TRUE)", yes(true));
    check("4 * (2 + 3)", number(20));
    check("(2 + 3) * 4", number(20));
    check("myext LIKE 'custom%'", failed(MissingAttribute));
    check("myext LIKE '%ext'", failed(MissingAttribute));
    check("myext = 'customext'", failed(MissingAttribute));
}

#[test]
fn the_other_dialects_can_be_said() {
    check_with(&[("source", "https://example.com")], "source LIKE 'https://%'", yes(true));
    check_with(&[("source", "http://example.com")], "source LIKE 'https://%'", yes(false));
    check_with(&[("myext", "customext")], "myext LIKE 'custom%'", yes(true));
    check_with(&[], "myext LIKE 'custom%'", failed(MissingAttribute));
    check_with(&[("type", "com.github.error")], "type like '%.error'", yes(true));
    check_with(&[("type", "com.github.success")], "type like '%.error'", yes(false));
    check_with(&[("myext", "customext")], "myext LIKE '%ext'", yes(true));
    check_with(&[], "myext LIKE '%ext'", failed(MissingAttribute));
    check_with(&[("id", "myId")], "id = 'myId'", yes(true));
    check_with(&[("id", "notmyId")], "id = 'myId'", yes(false));
    check_with(&[("myext", "customext")], "myext = 'customext'", yes(true));
    check_with(&[], "myext = 'customext'", failed(MissingAttribute));
    check_with(
        &[("id", "myId"), ("source", "http://www.some-website.ca")],
        "id LIKE 'my%' AND source LIKE '%.ca'",
        yes(true),
    );
    check_with(
        &[("id", "myId"), ("source", "http://www.some-website.com")],
        "id LIKE 'my%' AND source LIKE '%.ca'",
        yes(false),
    );
    check_with(
        &[("myext", "customext"), ("type", "com.github.error")],
        "myext LIKE 'custom%' AND type LIKE '%.error'",
        yes(true),
    );
    check_with(
        &[("type", "example.event.type")],
        "type LIKE 'example.%' AND myext LIKE 'custom%'",
        failed(MissingAttribute),
    );
    check_with(
        &[("id", "myId"), ("source", "http://www.some-website.ca")],
        "id LIKE 'my%' OR source LIKE '%.ca'",
        yes(true),
    );
    check_with(
        &[("id", "myId"), ("source", "http://www.some-website.com")],
        "id LIKE 'my%' OR source LIKE '%.ca'",
        yes(true),
    );
    check_with(
        &[("id", "notmyId"), ("source", "http://www.some-website.ca")],
        "id LIKE 'my%' OR source LIKE '%.ca'",
        yes(true),
    );
    check_with(
        &[("id", "notmyId"), ("source", "http://www.some-website.com")],
        "id LIKE 'my%' OR source LIKE '%.ca'",
        yes(false),
    );
    check_with(
        &[("id", "myId"), ("type", "example.event.success")],
        "(id = 'myId' AND type LIKE '%.success') OR (id = 'notmyId' AND source LIKE 'http://%' AND type LIKE '%.warning')",
        yes(true),
    );
    check_with(
        &[("id", "notmyId"), ("type", "example.event.warning"), ("source", "http://localhost.localdomain")],
        "(id = 'myId' AND type LIKE '%.success') OR (id = 'notmyId' AND source LIKE 'http://%' AND type LIKE '%.warning')",
        yes(true),
    );
    check_with(
        &[("id", "notmyId"), ("type", "example.event.warning"), ("source", "https://localhost.localdomain")],
        "(id = 'myId' AND type LIKE '%.success') OR (id = 'notmyId' AND source LIKE 'http://%' AND type LIKE '%.warning')",
        yes(false),
    );
    check_with(
        &[("id", "myId"), ("type", "example.event.warning"), ("source", "http://localhost.localdomain")],
        "(id = 'myId' OR type LIKE '%.success') AND (id = 'notmyId' OR source LIKE 'https://%' OR type LIKE '%.warning')",
        yes(true),
    );
    check_with(
        &[("id", "notmyId"), ("type", "example.event.success"), ("source", "http://localhost.localdomain")],
        "(id = 'myId' OR type LIKE '%.success') AND (id = 'notmyId' OR source LIKE 'https://%' OR type LIKE '%.warning')",
        yes(true),
    );
    check_with(
        &[("id", "notmyId"), ("type", "example.event.warning"), ("source", "http://localhost.localdomain")],
        "(id = 'myId' OR type LIKE '%.success') AND (id = 'notmyId' OR source LIKE 'https://%' OR type LIKE '%.warning')",
        yes(false),
    );
    check_with(
        &[("id", "myId"), ("type", "example.event.success"), ("source", "http://localhost.localdomain")],
        "(id = 'myId' OR type LIKE '%.success') AND (id = 'notmyId' OR source LIKE 'https://%' OR type LIKE '%.warning')",
        yes(false),
    );
    check_with(
        &[("id", "myId"), ("type", "example.event.warning"), ("source", "http://localhost.localdomain")],
        "(id = 'myId' OR type LIKE '%.success') AND (id = 'notmyId' OR source LIKE 'https://%' OR type LIKE '%.warning') AND (myext = 'customext')",
        failed(MissingAttribute),
    );
}

#[test]
fn attributes() {
    check("id", text("myId"));
    check("SOURCE = 'http://localhost/source'", yes(true));
    check("time", text("2018-04-26T14:48:09+02:00"));
    check("EXISTS specversion AND EXISTS id AND EXISTS type AND EXISTS Source", yes(true));
    check("EXISTS time", yes(true));
    check("NOT EXISTS subject", yes(true));
    check("subject", failed(MissingAttribute));
    check("FALSE AND missing", yes(false));
    check("TRUE OR missing", yes(true));
    check("TRUE AND missing", failed(MissingAttribute));
    check_with(&[("hop", "5"), ("ttl", "10")], "int(hop) < int(ttl) and int(hop) < 1000", yes(true));
    check_with(&[("hop", "5"), ("ttl", "10")], "hop < ttl", yes(true));
    check_with(&[("sequence", "5")], "sequence = 5", yes(true));
    check_with(&[("sequence", "six")], "sequence = 5", failed(Cast));
    check_with(&[("myext", "abc123123%456_dzf")], r"myext LIKE 'abc%123\%456\_d_f'", yes(true));
    check_with(&[("a1", "x")], "a1 IN ('y', id, a1)", yes(true));
    check_with(
        &[("subject", "Francesco"), ("firstname", "Doug")],
        "firstname = 'F' OR subject = 'Francesco'",
        yes(true),
    );
}

#[test]
fn what_the_tables_leave_open() {
    check("1-1", number(0));
    check("1 +1", number(2));
    check("-2147483648", number(i32::MIN));
    check("FALSE AND FALSE OR TRUE", yes(false));
    check("NOT FALSE = TRUE", yes(true));
    check("2 * 3 IN (3)", number(2));
    check("LENGTH('häß')", number(3));
    check("LEFT('häß', 2)", text("hä"));
    check("SUBSTRING('abc', 1, -1)", failed(Function));
    check("'aXb' LIKE 'a_b' AND 'a' NOT LIKE ''", yes(true));
    check("nothing()", failed(MissingFunction));
}

#[test]
fn what_is_not_an_expression() {
    let check = |expression: &str| assert!(Expression::parse(expression).is_err(), "{expression}");
    for own in [
        "",
        "ABC(",
        "x LIKE 123",
        "1 1",
        "a_b",
        "'open",
        "#",
        "1 IN ()",
        "NOT",
        "AND",
        "(1",
        "2147483648",
        "EXISTS 'x'",
    ] {
        check(own);
    }
    check(&"(".repeat(4000));
    check(&format!("{}1", "NOT ".repeat(900)));
    check(&format!("1{}", "+1".repeat(1000)));
    check(&"1".repeat(EXPRESSION_BYTES_MAX + 1));
}

#[test]
fn work_is_bounded() {
    let pattern = format!("x LIKE '%{}b'", "a".repeat(2000));
    check_with(&[("x", &"a".repeat(16000))], &pattern, failed(TooMuch));
    let wide = format!("LENGTH(CONCAT({})) > 0", ["x"; 400].join(","));
    check_with(&[("x", &"a".repeat(16000))], &wide, failed(TooMuch));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(own in "[a-cA-C0-9 ()'\"+*/%=<>!,NOTLIKEXIS_\\\\-]{0,60}") {
        if let Ok(parsed) = Expression::parse(&own) {
            let _ = parsed.evaluate(&event(&[]));
        }
    }
}
