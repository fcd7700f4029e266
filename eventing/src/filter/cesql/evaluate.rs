//! The value of a tree for one event.

use super::{EvaluateError, Node, Operator, STEPS_MAX, TEXT_BYTES_MAX, Value, functions};
use crate::event::Event;

type Result<T> = std::result::Result<T, EvaluateError>;

pub(super) struct Evaluation<'a> {
    event: &'a Event,
    steps_left: usize,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        Self { event, steps_left: STEPS_MAX }
    }

    fn spend(&mut self, steps: usize) -> Result<()> {
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(EvaluateError::TooMuch)?;
        Ok(())
    }

    pub(super) fn of(&mut self, node: &Node) -> Result<Value> {
        self.spend(1)?;
        match node {
            Node::Literal(own) => Ok(own.clone()),
            Node::Attribute(name) => match attribute(self.event, name) {
                Some(own) => Ok(Value::Text(own.to_owned())),
                None => Err(EvaluateError::MissingAttribute),
            },
            Node::Exists(name) => Ok(Value::Boolean(attribute(self.event, name).is_some())),
            Node::Not(own) => Ok(Value::Boolean(!boolean(self.of(own)?)?)),
            Node::Negate(own) => Ok(Value::Integer(integer(self.of(own)?)?.wrapping_neg())),
            Node::Binary(operator, left, right) => self.binary(*operator, left, right),
            Node::Like(own, pattern) => {
                let own = text(self.of(own)?);
                self.like(&own, pattern).map(Value::Boolean)
            }
            Node::In(own, set) => {
                let own = self.of(own)?;
                for other in set {
                    let other = self.of(other)?;
                    if cast_like(other, &own)? == own {
                        return Ok(Value::Boolean(true));
                    }
                }
                Ok(Value::Boolean(false))
            }
            Node::Call(name, arguments) => {
                let function =
                    functions::find(name, arguments.len()).ok_or(EvaluateError::MissingFunction)?;
                let arguments = arguments.iter().map(|own| self.of(own)).collect::<Result<Vec<_>>>()?;
                let value = function(arguments)?;
                if let Value::Text(own) = &value {
                    if own.len() > TEXT_BYTES_MAX {
                        return Err(EvaluateError::TooMuch);
                    }
                    self.spend(own.len() / 16)?;
                }
                Ok(value)
            }
        }
    }

    fn binary(&mut self, operator: Operator, left: &Node, right: &Node) -> Result<Value> {
        use Operator::*;
        let left = self.of(left)?;
        if let And | Or | Xor = operator {
            let left = boolean(left)?;
            // The right side does not matter, so its errors do not either.
            if (operator == And && !left) || (operator == Or && left) {
                return Ok(Value::Boolean(left));
            }
            let right = boolean(self.of(right)?)?;
            return Ok(Value::Boolean(if operator == Xor { left != right } else { right }));
        }
        let right = self.of(right)?;
        if let Equal | NotEqual = operator {
            let left = cast_like(left, &right)?;
            return Ok(Value::Boolean((left == right) == (operator == Equal)));
        }
        let (left, right) = (integer(left)?, integer(right)?);
        let number = |own: i32| Ok(Value::Integer(own));
        match operator {
            Less => Ok(Value::Boolean(left < right)),
            LessOrEqual => Ok(Value::Boolean(left <= right)),
            Greater => Ok(Value::Boolean(left > right)),
            GreaterOrEqual => Ok(Value::Boolean(left >= right)),
            Add => number(left.wrapping_add(right)),
            Subtract => number(left.wrapping_sub(right)),
            Multiply => number(left.wrapping_mul(right)),
            Divide | Modulo if right == 0 => Err(EvaluateError::Math),
            Divide => number(left.wrapping_div(right)),
            _ => number(left.wrapping_rem(right)),
        }
    }

    /// `%` is any text, `_` any character, a backslash takes the meaning of either.
    fn like(&mut self, text: &str, pattern: &str) -> Result<bool> {
        let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
        let (mut at, mut place) = (0, 0);
        let mut wildcard = None;
        while at < text.len() {
            self.spend(1)?;
            let escaped = match (pattern.get(place), pattern.get(place + 1)) {
                (Some('\\'), Some(own @ ('_' | '%'))) => Some(*own),
                _ => None,
            };
            if escaped == Some(text[at]) {
                (at, place) = (at + 1, place + 2);
            } else if escaped.is_none() && pattern.get(place) == Some(&'%') {
                wildcard = Some((place + 1, at));
                place += 1;
            } else if escaped.is_none()
                && pattern.get(place).is_some_and(|own| *own == '_' || *own == text[at])
            {
                (at, place) = (at + 1, place + 1);
            } else if let Some((after, from)) = wildcard {
                wildcard = Some((after, from + 1));
                (at, place) = (from + 1, after);
            } else {
                return Ok(false);
            }
        }
        Ok(pattern[place..].iter().all(|own| *own == '%'))
    }
}

/// Attributes by the names of version 1.0, whatever the version of the event. No alias counts.
fn attribute<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    match name {
        "schemaurl" | "datamediatype" => event.extensions.get(name).map(String::as_str),
        _ => event.attribute(name),
    }
}

/// Casts to the type of another value.
fn cast_like(value: Value, other: &Value) -> Result<Value> {
    Ok(match other {
        Value::Boolean(_) => Value::Boolean(boolean(value)?),
        Value::Integer(_) => Value::Integer(integer(value)?),
        Value::Text(_) => Value::Text(text(value)),
    })
}

pub(super) fn boolean(value: Value) -> Result<bool> {
    match value {
        Value::Boolean(own) => Ok(own),
        Value::Integer(own) => Ok(own != 0),
        Value::Text(own) if own.eq_ignore_ascii_case("true") => Ok(true),
        Value::Text(own) if own.eq_ignore_ascii_case("false") => Ok(false),
        Value::Text(_) => Err(EvaluateError::Cast),
    }
}

pub(super) fn integer(value: Value) -> Result<i32> {
    match value {
        Value::Boolean(own) => Ok(i32::from(own)),
        Value::Integer(own) => Ok(own),
        Value::Text(own) => own.parse().map_err(|_| EvaluateError::Cast),
    }
}

pub(super) fn text(value: Value) -> String {
    match value {
        Value::Boolean(own) => own.to_string(),
        Value::Integer(own) => own.to_string(),
        Value::Text(own) => own,
    }
}
