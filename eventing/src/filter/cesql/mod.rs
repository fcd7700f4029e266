//! CloudEvents SQL v1: expressions over the attributes of an event. Pure.
//!
//! Source of the rules: the CloudEvents SQL specification and its conformance tables, `cloudevents/sdk-go/sql/v2`. Where both leave
//! room: text functions count characters, `1-1` is a subtraction, and what is not a token is an error.

mod evaluate;
mod functions;
mod lexer;
mod parser;

use crate::event::Event;

/// The longest expression.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// The most operators, functions and operands.
pub const NODES_MAX: usize = 512;

/// The deepest nesting of parentheses and prefixes.
pub const DEPTH_MAX: usize = 48;

/// The longest text that an expression may make.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// How much work one evaluation may be: nodes visited and characters compared.
pub const STEPS_MAX: usize = 1 << 20;

/// Why there is no expression.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Larger than a bound.
    #[error("the expression is too large: {what} may be at most {max}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A character that starts no token, or an open text.
    #[error("unexpected character at {at}")]
    Character {
        /// The byte.
        at: usize,
    },
    /// An integer that has more than 32 bits.
    #[error("the integer at {at} is out of range")]
    Integer {
        /// The byte.
        at: usize,
    },
    /// A token that does not belong there.
    #[error("syntax error at {at}: expected {wanted}")]
    Syntax {
        /// The byte.
        at: usize,
        /// What would belong there.
        wanted: &'static str,
    },
}

/// Why an evaluation has no result.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EvaluateError {
    /// A division by zero or a result that does not exist.
    #[error("the result is not a number")]
    Math,
    /// A value that cannot become the type that is needed.
    #[error("a value cannot be cast")]
    Cast,
    /// An attribute that the event does not have.
    #[error("an attribute is missing")]
    MissingAttribute,
    /// A function that does not exist with so many arguments.
    #[error("a function is missing")]
    MissingFunction,
    /// A function whose arguments are out of range.
    #[error("a function failed")]
    Function,
    /// More work than allowed.
    #[error("the expression is too much work")]
    TooMuch,
}

/// A value of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// TRUE or FALSE.
    Boolean(bool),
    /// 32 bits, signed.
    Integer(i32),
    /// Text.
    Text(String),
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression(Node);

#[derive(Clone, Debug)]
enum Node {
    Literal(Value),
    Attribute(String),
    Exists(String),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Like(Box<Node>, String),
    In(Box<Node>, Vec<Node>),
    Call(String, Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    And,
    Or,
    Xor,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(text: &str) -> Result<Expression, ParseError> {
        parser::parse(text).map(Expression)
    }

    /// The value for an event.
    ///
    /// # Errors
    /// Why there is none.
    pub fn evaluate(&self, event: &Event) -> Result<Value, EvaluateError> {
        evaluate::Evaluation::new(event).of(&self.0)
    }

    /// Whether it is true. What fails, and what is no boolean, is not.
    pub fn matches(&self, event: &Event) -> bool {
        self.evaluate(event) == Ok(Value::Boolean(true))
    }
}

#[cfg(test)]
mod tests;
