// Operands: registers, pairs, immediates, vectors, addresses and names.
#include "ptx/parser.h"

namespace vgpu {

Operand BodyParser::parse_operand() {
    const Token token = lexer_.peek();
    if (token.is("{")) return parse_vector("{", "}");
    if (token.is("[")) return parse_address();
    if (token.kind == TokenKind::word && token.text != "WARP_SZ") return parse_name();
    if (token.is("!") && lexer_.peek_second().kind == TokenKind::word) {
        lexer_.next();
        Operand operand = parse_name();
        if (operand.kind != OperandKind::reg || operand.reg2 >= 0)
            lexer_.fail("only a predicate can be negated", token.line);
        operand.negated = true;
        return operand;
    }
    const Constant value = parse_constant(lexer_);
    Operand operand;
    operand.kind = OperandKind::imm;
    operand.imm = value.bits;
    operand.imm_is_float = value.is_float;
    operand.imm_is_f64 = value.is_f64;
    return operand;
}

Operand BodyParser::pend(const Token& name) {
    Operand operand;
    operand.kind = OperandKind::label;
    operand.label = int32_t(pending_.size());
    pending_.push_back({name.text, scopes_.current(), name.line});
    return operand;
}

Operand BodyParser::parse_name() {
    const Token token = lexer_.next();
    Operand operand;
    if (token.text == "_") {
        operand.kind = OperandKind::sink;
        if (lexer_.take("|")) {
            operand.kind = OperandKind::reg;
            operand.reg2 = parse_register();
        }
        return operand;
    }
    const Name* name = scopes_.find(token.text, function_.registers);
    const size_t dot = token.text.rfind('.');
    if (!name && dot != token.text.npos) {  // v.x of a vector register
        const Name* vector = scopes_.find(token.text.substr(0, dot), function_.registers);
        static const std::string_view kNames[] = {".x", ".y", ".z", ".w", ".r", ".g", ".b", ".a"};
        for (int i = 0; vector && vector->kind == Name::vector_reg && i < 8; ++i)
            if (token.text.substr(dot) == kNames[i] && i % 4 < vector->width) {
                operand.kind = OperandKind::reg;
                operand.reg = vector->index + i % 4;
                return operand;
            }
    }
    if (name && name->kind == Name::reg) {
        operand.kind = OperandKind::reg;
        operand.reg = name->index;
        if (lexer_.take("|") && !(lexer_.peek().text == "_" && lexer_.next().kind == TokenKind::word))
            operand.reg2 = parse_register();
        return operand;
    }
    if (name && name->kind == Name::vector_reg) {
        operand.kind = OperandKind::vector;
        for (int i = 0; i < name->width; ++i) {
            Operand element;
            element.kind = OperandKind::reg;
            element.reg = name->index + i;
            operand.elements.push_back(std::move(element));
        }
        return operand;
    }
    if (!name && is_special_register(token.text)) {
        operand.kind = OperandKind::special;
        operand.special = std::string(token.text);
        return operand;
    }
    if (name) {
        operand.kind = OperandKind::symbol;
        operand.symbol_scope = name->symbol_scope;
        operand.symbol = name->index;
    } else if (const ModuleParser::Place* place = module_.find(token.text); place && !place->is_function) {
        operand.kind = OperandKind::symbol;
        operand.symbol_scope = scope_module;
        operand.symbol = place->index;
    } else {
        if (token.text[0] == '%')
            lexer_.fail("undeclared register '" + std::string(token.text.substr(0, 80)) + "'", token.line);
        return pend(token);
    }
    parse_offset(operand);
    return operand;
}

int32_t BodyParser::parse_register() {
    const Token token = lexer_.next();
    const Name* name = token.kind == TokenKind::word ? scopes_.find(token.text, function_.registers) : nullptr;
    if (!name || name->kind != Name::reg)
        lexer_.fail("expected a register before '" + std::string(token.text.substr(0, 80)) + "'", token.line);
    return name->index;
}

Operand BodyParser::parse_vector(std::string_view open, std::string_view close) {
    Operand operand;
    operand.kind = OperandKind::vector;
    lexer_.expect(open);
    while (!lexer_.peek().is(close)) {
        if (lexer_.peek().is("{") || lexer_.peek().is("["))
            lexer_.fail("a vector of anything but registers and numbers");
        Operand element = parse_operand();
        if (element.kind == OperandKind::vector) lexer_.fail("a vector in a vector");
        operand.elements.push_back(std::move(element));
        if (!lexer_.take(",")) break;
    }
    lexer_.expect(close);
    return operand;
}

// `+ 16`, `+-16`, `- 16`, as often as the text has them.
void BodyParser::parse_offset(Operand& operand) {
    while (lexer_.peek().is("+") || lexer_.peek().is("-")) {
        const bool minus = lexer_.next().text == "-";
        const Constant value = parse_constant_operand(lexer_);
        if (value.is_float) lexer_.fail("an address offset must be a whole number");
        operand.imm = minus ? operand.imm - value.bits : operand.imm + value.bits;
    }
}

Operand BodyParser::parse_address() {
    const Token open = lexer_.next();
    Operand operand;
    const Token base = lexer_.peek();
    if (base.kind == TokenKind::word && base.text != "WARP_SZ") {
        operand = parse_name();
        if (operand.kind == OperandKind::reg && operand.reg2 < 0 && operand.reg >= 0)
            parse_offset(operand);
        else if (operand.kind != OperandKind::symbol)
            lexer_.fail("an address needs a register, a variable or a number", base.line);
    } else {
        const Constant value = parse_constant(lexer_);
        if (value.is_float) lexer_.fail("an address needs a register, a variable or a number", base.line);
        operand.imm = value.bits;
    }
    operand.kind = OperandKind::address;
    while (lexer_.take(",")) {  // coordinates: [%rd, {%r1, %r2}]
        if (lexer_.peek().is("{")) {
            for (Operand& element : parse_vector("{", "}").elements) operand.elements.push_back(std::move(element));
        } else if (lexer_.peek().is("[")) {
            lexer_.fail("an address in an address");
        } else {
            operand.elements.push_back(parse_operand());
        }
    }
    if (!lexer_.take("]")) lexer_.fail("address without ']'", open.line);
    return operand;
}

}  // namespace vgpu
