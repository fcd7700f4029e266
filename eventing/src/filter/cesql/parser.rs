//! From tokens to a tree. Precedence, tightest first: prefixes; LIKE and IN; `* / %`; `+ -`; comparisons; AND, OR and XOR, which
//! have one precedence and group to the right.

use super::lexer::{Token, tokens};
use super::{DEPTH_MAX, EXPRESSION_BYTES_MAX, NODES_MAX, Node, Operator, ParseError, Value};

const KEYWORDS: [&str; 9] = ["AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE"];

pub(super) fn parse(text: &str) -> Result<Node, ParseError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(ParseError::TooLarge { what: "its bytes", max: EXPRESSION_BYTES_MAX });
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, end: text.len(), nodes: 0, depth: 0 };
    let root = parser.logic()?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.expected("the end")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
    nodes: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn byte(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(at, _)| *at)
    }

    fn expected(&self, wanted: &'static str) -> ParseError {
        ParseError::Syntax { at: self.byte(), wanted }
    }

    fn is_keyword(&self, ahead: usize, keyword: &str) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some((_, Token::Word(own))) if own.eq_ignore_ascii_case(keyword))
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(0, keyword);
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(own)) if *own == symbol);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, symbol: &'static str) -> Result<(), ParseError> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.expected(symbol)) }
    }

    fn node(&mut self, node: Node) -> Result<Node, ParseError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(ParseError::TooLarge { what: "its parts", max: NODES_MAX });
        }
        Ok(node)
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ParseError::TooLarge { what: "its depth", max: DEPTH_MAX });
        }
        let inner = inner(self);
        self.depth -= 1;
        inner
    }

    fn logic(&mut self) -> Result<Node, ParseError> {
        let mut operands = vec![self.comparison()?];
        let mut operators = Vec::new();
        loop {
            let operator = match () {
                () if self.keyword("AND") => Operator::And,
                () if self.keyword("OR") => Operator::Or,
                () if self.keyword("XOR") => Operator::Xor,
                () => break,
            };
            operators.push(operator);
            operands.push(self.comparison()?);
        }
        let mut right = operands.pop().ok_or_else(|| self.expected("an expression"))?;
        while let (Some(left), Some(operator)) = (operands.pop(), operators.pop()) {
            right = self.node(Node::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(right)
    }

    fn left_to_right(
        &mut self,
        operators: &[(&str, Operator)],
        operand: fn(&mut Self) -> Result<Node, ParseError>,
    ) -> Result<Node, ParseError> {
        let mut left = operand(self)?;
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.symbol(symbol)) {
            let right = operand(self)?;
            left = self.node(Node::Binary(*operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Node, ParseError> {
        const ALL: [(&str, Operator); 7] = [
            ("=", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<>", Operator::NotEqual),
            (">=", Operator::GreaterOrEqual),
            ("<=", Operator::LessOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        self.left_to_right(&ALL, Self::sum)
    }

    fn sum(&mut self) -> Result<Node, ParseError> {
        self.left_to_right(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::product)
    }

    fn product(&mut self) -> Result<Node, ParseError> {
        const ALL: [(&str, Operator); 3] =
            [("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Modulo)];
        self.left_to_right(&ALL, Self::membership)
    }

    fn membership(&mut self) -> Result<Node, ParseError> {
        let mut left = self.prefixed()?;
        loop {
            let negated = self.is_keyword(0, "NOT");
            let ahead = usize::from(negated);
            let found = if self.is_keyword(ahead, "LIKE") {
                self.at += ahead + 1;
                let Some(Token::Text(pattern)) = self.peek().cloned() else {
                    return Err(self.expected("a quoted pattern"));
                };
                self.at += 1;
                Node::Like(Box::new(left), pattern)
            } else if self.is_keyword(ahead, "IN") {
                self.at += ahead + 1;
                self.need("(")?;
                let set = self.list()?;
                if set.is_empty() {
                    return Err(self.expected("an expression"));
                }
                Node::In(Box::new(left), set)
            } else {
                return Ok(left);
            };
            left = self.node(found)?;
            if negated {
                left = self.node(Node::Not(Box::new(left)))?;
            }
        }
    }

    /// Expressions up to the closing parenthesis, which is taken too.
    fn list(&mut self) -> Result<Vec<Node>, ParseError> {
        let mut all = Vec::new();
        if self.symbol(")") {
            return Ok(all);
        }
        loop {
            all.push(self.deeper(Self::logic)?);
            if self.symbol(")") {
                return Ok(all);
            }
            self.need(",")?;
        }
    }

    fn prefixed(&mut self) -> Result<Node, ParseError> {
        if self.keyword("NOT") {
            let own = self.deeper(Self::prefixed)?;
            return self.node(Node::Not(Box::new(own)));
        }
        let start = self.byte();
        let negative = self.symbol("-");
        if (negative || self.symbol("+")) && matches!(self.peek(), Some(Token::Digits(_))) {
            return self.integer(start, negative);
        }
        if negative {
            let own = self.deeper(Self::prefixed)?;
            return self.node(Node::Negate(Box::new(own)));
        }
        self.operand()
    }

    fn integer(&mut self, start: usize, negative: bool) -> Result<Node, ParseError> {
        let Some(Token::Digits(digits)) = self.peek().cloned() else {
            return Err(self.expected("an integer"));
        };
        self.at += 1;
        let signed = if negative { format!("-{digits}") } else { digits };
        let value = signed.parse().map_err(|_| ParseError::Integer { at: start })?;
        self.node(Node::Literal(Value::Integer(value)))
    }

    fn operand(&mut self) -> Result<Node, ParseError> {
        if self.symbol("(") {
            let own = self.deeper(Self::logic)?;
            self.need(")")?;
            return Ok(own);
        }
        let start = self.byte();
        match self.peek().cloned() {
            Some(Token::Digits(_)) => self.integer(start, false),
            Some(Token::Text(own)) => {
                self.at += 1;
                self.node(Node::Literal(Value::Text(own)))
            }
            Some(Token::Word(own)) => {
                self.at += 1;
                self.word(own)
            }
            Some(Token::Symbol(_)) | None => Err(self.expected("an expression")),
        }
    }

    fn word(&mut self, own: String) -> Result<Node, ParseError> {
        let upper = own.to_ascii_uppercase();
        match upper.as_str() {
            "TRUE" | "FALSE" => self.node(Node::Literal(Value::Boolean(upper == "TRUE"))),
            "EXISTS" => {
                let Some(Token::Word(name) | Token::Digits(name)) = self.peek().cloned() else {
                    return Err(self.expected("an attribute"));
                };
                let name = self.attribute(name)?;
                self.at += 1;
                self.node(Node::Exists(name))
            }
            _ if self.symbol("(") => {
                let arguments = self.list()?;
                self.node(Node::Call(upper, arguments))
            }
            _ => {
                let name = self.attribute(own)?;
                self.node(Node::Attribute(name))
            }
        }
    }

    fn attribute(&self, name: String) -> Result<String, ParseError> {
        if name.contains('_') || KEYWORDS.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
            return Err(self.expected("an attribute"));
        }
        Ok(name.to_ascii_lowercase())
    }
}
