// PTX text to tokens. Names swallow the dots that touch them, so `ld.global.L2::128B`, `%tid.x` and `.reg` are one
// token.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ptx/ir.h"

namespace vgpu {

enum class TokenKind : uint8_t { end, word, directive, integer, floating, string, symbol };

struct Token {
    TokenKind kind = TokenKind::end;
    std::string_view
        text;  // directive: with its dot; string: without the quotes; symbol: one character, or << >> && || == != <= >=
    uint32_t line = 0;
    uint64_t value = 0;        // integer, or the bits of a floating literal
    bool is_unsigned = false;  // integer with U, or above the signed range
    bool is_f32 = false;       // floating: 0f…

    bool is(std::string_view s) const {
        return (kind == TokenKind::symbol || kind == TokenKind::directive) && text == s;
    }
};

class Lexer {
  public:
    Lexer(std::string_view text, std::string_view module);

    const Token& peek() const { return token_; }
    const Token& peek_second();  // the token after that; only for telling a label from an opcode
    Token next();
    bool take(std::string_view symbol);    // consumes it if it is next
    void expect(std::string_view symbol);  // consumes it or throws
    [[noreturn]] void fail(std::string_view problem, uint32_t line) const;
    [[noreturn]] void fail(std::string_view problem) const { fail(problem, token_.line); }

  private:
    void skip_blank();
    Token scan();
    Token scan_name(TokenKind);
    Token scan_number();
    Token scan_string();

    std::string_view text_;
    std::string module_;
    size_t at_ = 0;
    uint32_t line_ = 1;
    Token token_, second_;
    bool has_second_ = false;
};

}  // namespace vgpu
