#include "ptx/constant.h"

namespace vgpu {
namespace {

constexpr int kDeepest = 64;  // nesting that a reader could still follow; keeps hostile text off the stack

class Expression {
  public:
    explicit Expression(Lexer& lexer) : lexer_(lexer) {}

    Constant conditional(int depth) {
        const Constant condition = binary(0, depth);
        if (!lexer_.take("?")) return condition;
        need_integer(condition);
        const Constant yes = conditional(deeper(depth));
        lexer_.expect(":");
        const Constant no = conditional(deeper(depth));
        return condition.bits ? yes : no;
    }

    Constant unary(int depth) {
        const Token& token = lexer_.peek();
        if (token.kind == TokenKind::integer || token.kind == TokenKind::floating) {
            const Token number = lexer_.next();
            const bool is_float = number.kind == TokenKind::floating;
            return {number.value, is_float, is_float && !number.is_f32, number.is_unsigned};
        }
        if (token.kind == TokenKind::word && token.text == "WARP_SZ") {
            lexer_.next();
            return {32, false, false, false};
        }
        if (lexer_.take("+")) return unary(deeper(depth));
        if (lexer_.take("-")) {
            Constant value = unary(deeper(depth));
            if (!value.is_float) {
                value.bits = 0 - value.bits;
                // -9223372036854775808 fits; a larger U literal keeps its sign
                if (value.bits >> 63) value.is_unsigned = false;
            } else {
                value.bits ^= value.is_f64 ? uint64_t(1) << 63 : uint64_t(1) << 31;
            }
            return value;
        }
        if (lexer_.take("!")) return {need_integer(unary(deeper(depth))).bits == 0, false, false, false};
        if (lexer_.take("~")) {
            Constant value = need_integer(unary(deeper(depth)));
            value.bits = ~value.bits;
            return value;
        }
        if (lexer_.take("(")) {
            if (lexer_.peek().is(".s64") || lexer_.peek().is(".u64")) {  // a cast
                const bool is_unsigned = lexer_.next().text == ".u64";
                lexer_.expect(")");
                Constant value = need_integer(unary(deeper(depth)));
                value.is_unsigned = is_unsigned;
                return value;
            }
            const Constant value = conditional(deeper(depth));
            lexer_.expect(")");
            return value;
        }
        lexer_.fail("expected a number before " + (token.kind == TokenKind::end
                                                       ? std::string("the end of the text")
                                                       : "'" + std::string(token.text.substr(0, 80)) + "'"));
    }

  private:
    int deeper(int depth) const {
        if (depth >= kDeepest) lexer_.fail("expression nested more than 64 deep");
        return depth + 1;
    }

    Constant need_integer(const Constant& value) const {
        if (value.is_float) lexer_.fail("a floating literal cannot be part of an integer expression");
        return value;
    }

    static int precedence(const Token& token) {
        static const char* const kLevels[][5] = {
            {"||"},       {"&&"},     {"|"},          {"^"}, {"&"}, {"==", "!="}, {"<", "<=", ">", ">="},
            {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}};
        if (token.kind != TokenKind::symbol) return -1;
        for (int level = 0; level < 10; ++level)
            for (const char* name : kLevels[level])
                if (name && token.text == name) return level;
        return -1;
    }

    Constant binary(int lowest, int depth) {
        Constant left = unary(depth);
        for (int level; (level = precedence(lexer_.peek())) >= lowest;) {
            const std::string_view name = lexer_.next().text;
            const Constant right = binary(level + 1, deeper(depth));
            left = apply(name, need_integer(left), need_integer(right));
        }
        return left;
    }

    Constant apply(std::string_view name, const Constant& left, const Constant& right) const {
        const uint64_t a = left.bits, b = right.bits;
        const int64_t sa = int64_t(a), sb = int64_t(b);
        const bool is_unsigned = left.is_unsigned || right.is_unsigned;
        const auto truth = [](bool value) { return Constant{value, false, false, false}; };
        const auto number = [&](uint64_t value) { return Constant{value, false, false, is_unsigned}; };
        if (name == "||") return truth(a || b);
        if (name == "&&") return truth(a && b);
        if (name == "|") return number(a | b);
        if (name == "^") return number(a ^ b);
        if (name == "&") return number(a & b);
        if (name == "==") return truth(a == b);
        if (name == "!=") return truth(a != b);
        if (name == "<") return truth(is_unsigned ? a < b : sa < sb);
        if (name == "<=") return truth(is_unsigned ? a <= b : sa <= sb);
        if (name == ">") return truth(is_unsigned ? a > b : sa > sb);
        if (name == ">=") return truth(is_unsigned ? a >= b : sa >= sb);
        if (name == "+") return number(a + b);
        if (name == "-") return number(a - b);
        if (name == "*") return number(a * b);
        if (name == "<<" || name == ">>") {
            if (b > 63) lexer_.fail("shift by more than 63 bits");
            const uint64_t result = name == "<<" ? a << b : left.is_unsigned ? a >> b : uint64_t(sa >> b);
            return {result, false, false, left.is_unsigned};
        }
        if (b == 0) lexer_.fail("division by zero");
        if (is_unsigned) return number(name == "/" ? a / b : a % b);
        if (sb == -1) return number(name == "/" ? 0 - a : 0);  // the smallest number / -1 wraps
        return number(uint64_t(name == "/" ? sa / sb : sa % sb));
    }

    Lexer& lexer_;
};

}  // namespace

Constant parse_constant(Lexer& lexer) { return Expression(lexer).conditional(0); }

Constant parse_constant_operand(Lexer& lexer) { return Expression(lexer).unary(0); }

uint64_t parse_integer(Lexer& lexer, const char* what, uint64_t largest) {
    const uint32_t line = lexer.peek().line;
    const Constant value = parse_constant(lexer);
    if (value.is_float || value.bits > largest)
        lexer.fail(std::string(what) + " must be a whole number from 0 to " + std::to_string(largest), line);
    return value.bits;
}

}  // namespace vgpu
