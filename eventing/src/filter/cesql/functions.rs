//! The built-in functions.

use super::evaluate::{boolean, integer, text};
use super::{EvaluateError, Value};

type Result<T> = std::result::Result<T, EvaluateError>;

/// Makes a value of arguments whose number [`find`] has checked.
pub(super) type Function = fn(Vec<Value>) -> Result<Value>;

/// The function of that name, in capitals, with that many arguments.
pub(super) fn find(name: &str, arguments: usize) -> Option<Function> {
    Some(match (name, arguments) {
        ("ABS", 1) => {
            |own| one(own, |own| integer(own)?.checked_abs().map(Value::Integer).ok_or(EvaluateError::Math))
        }
        ("INT", 1) => |own| one(own, |own| integer(own).map(Value::Integer)),
        ("BOOL", 1) => |own| one(own, |own| boolean(own).map(Value::Boolean)),
        ("STRING", 1) => |own| one(own, |own| Ok(Value::Text(text(own)))),
        ("IS_INT", 1) => |own| one(own, |own| Ok(Value::Boolean(integer(own).is_ok()))),
        ("IS_BOOL", 1) => |own| one(own, |own| Ok(Value::Boolean(boolean(own).is_ok()))),
        ("LENGTH", 1) => |own| one(own, |own| length(&text(own)).map(Value::Integer)),
        ("LOWER", 1) => |own| one(own, |own| Ok(Value::Text(text(own).to_lowercase()))),
        ("UPPER", 1) => |own| one(own, |own| Ok(Value::Text(text(own).to_uppercase()))),
        ("TRIM", 1) => |own| one(own, |own| Ok(Value::Text(text(own).trim().to_owned()))),
        ("CONCAT", _) => |own| Ok(Value::Text(own.into_iter().map(text).collect())),
        ("CONCAT_WS", 1..) => |own| {
            let mut all = own.into_iter().map(text);
            let separator = all.next().unwrap_or_default();
            Ok(Value::Text(all.collect::<Vec<_>>().join(&separator)))
        },
        ("LEFT", 2) => |own| side(own, |count, _| (0, count)),
        ("RIGHT", 2) => |own| side(own, |count, length| (length - count, count)),
        ("SUBSTRING", 2 | 3) => substring,
        _ => return None,
    })
}

fn one(arguments: Vec<Value>, function: impl FnOnce(Value) -> Result<Value>) -> Result<Value> {
    function(arguments.into_iter().next().ok_or(EvaluateError::MissingFunction)?)
}

fn length(text: &str) -> Result<i32> {
    i32::try_from(text.chars().count()).map_err(|_| EvaluateError::TooMuch)
}

fn part(text: &str, skip: usize, take: usize) -> Value {
    Value::Text(text.chars().skip(skip).take(take).collect())
}

fn side(arguments: Vec<Value>, range: impl FnOnce(usize, usize) -> (usize, usize)) -> Result<Value> {
    let mut all = arguments.into_iter();
    let (Some(own), Some(count)) = (all.next(), all.next()) else {
        return Err(EvaluateError::MissingFunction);
    };
    let (own, count) = (text(own), integer(count)?);
    let count = usize::try_from(count).map_err(|_| EvaluateError::Function)?;
    let length = own.chars().count();
    let (skip, take) = range(count.min(length), length);
    Ok(part(&own, skip, take))
}

/// Positions count from 1, or from the end where they are negative; 0 is nowhere.
fn substring(arguments: Vec<Value>) -> Result<Value> {
    let mut all = arguments.into_iter();
    let (Some(own), Some(position)) = (all.next(), all.next()) else {
        return Err(EvaluateError::MissingFunction);
    };
    let (own, position) = (text(own), integer(position)?);
    let take = match all.next() {
        None => usize::MAX,
        Some(count) => usize::try_from(integer(count)?).map_err(|_| EvaluateError::Function)?,
    };
    let length = length(&own)?;
    if position == 0 {
        return Ok(Value::Text(String::new()));
    }
    if position.unsigned_abs() > length.unsigned_abs() {
        return Err(EvaluateError::Function);
    }
    let skip = if position < 0 { length + position } else { position - 1 };
    Ok(part(&own, usize::try_from(skip).map_err(|_| EvaluateError::Function)?, take))
}
