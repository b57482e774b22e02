#include "ptx/lexer.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace vgpu {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$' || c == '%'; }
bool is_name(char c) { return is_start(c) || is_digit(c); }

int digit_value(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return 99;
}

}  // namespace

Lexer::Lexer(std::string_view text, std::string_view module) : text_(text), module_(module) {
    const size_t end = text_.find('\0');  // fat binaries pad the text with zeros
    if (end != text_.npos) text_ = text_.substr(0, end);
    token_ = scan();
}

void Lexer::fail(std::string_view problem, uint32_t line) const {
    size_t begin = 0;
    for (uint32_t i = 1; i < line; ++i) {
        const size_t newline = text_.find('\n', begin);
        if (newline == text_.npos) break;
        begin = newline + 1;
    }
    const size_t end = text_.find('\n', begin);
    throw ParseError(module_, line, problem, text_.substr(begin, end == text_.npos ? end : end - begin));
}

Token Lexer::next() {
    Token taken = token_;
    if (has_second_) {
        token_ = second_;
        has_second_ = false;
    } else {
        token_ = scan();
    }
    return taken;
}

const Token& Lexer::peek_second() {
    if (!has_second_) {
        second_ = scan();
        has_second_ = true;
    }
    return second_;
}

bool Lexer::take(std::string_view symbol) {
    if (!token_.is(symbol)) return false;
    next();
    return true;
}

void Lexer::expect(std::string_view symbol) {
    if (!take(symbol))
        fail("expected '" + std::string(symbol) + "' before " +
             (token_.kind == TokenKind::end ? "the end of the text"
                                            : "'" + std::string(token_.text.substr(0, 80)) + "'"));
}

void Lexer::skip_blank() {
    while (at_ < text_.size()) {
        const char c = text_[at_];
        if (c == '\n') {
            ++line_;
            ++at_;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v') {
            ++at_;
        } else if (text_.compare(at_, 2, "//") == 0) {
            at_ = std::min(text_.find('\n', at_), text_.size());
        } else if (text_.compare(at_, 2, "/*") == 0) {
            const size_t end = text_.find("*/", at_ + 2);
            if (end == text_.npos) fail("comment without end", line_);
            for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
        } else {
            return;
        }
    }
}

Token Lexer::scan() {
    skip_blank();
    Token token;
    token.line = line_;
    if (at_ >= text_.size()) return token;
    const char c = text_[at_];
    const char after = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    if (is_start(c)) return scan_name(TokenKind::word);
    if (is_digit(c) || (c == '.' && is_digit(after))) return scan_number();
    if (c == '.' && is_start(after)) return scan_name(TokenKind::directive);
    if (c == '"') return scan_string();
    token.kind = TokenKind::symbol;
    static const char* const kDouble[] = {"<<", ">>", "&&", "||", "==", "!=", "<=", ">="};
    size_t length = 1;
    for (const char* symbol : kDouble)
        if (c == symbol[0] && after == symbol[1]) length = 2;
    if (!std::strchr("(){}[]<>,;:=+-*/%!~&|^?@#", c)) fail("unexpected character", line_);
    token.text = text_.substr(at_, length);
    at_ += length;
    return token;
}

Token Lexer::scan_name(TokenKind kind) {
    Token token;
    token.kind = kind;
    token.line = line_;
    const size_t begin = at_++;
    while (at_ < text_.size()) {
        const char c = text_[at_];
        const char after = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
        const char third = at_ + 2 < text_.size() ? text_[at_ + 2] : '\0';
        if (is_name(c)) {
            ++at_;
        } else if (c == '.' && is_name(after) && after != '%') {
            at_ += 2;
        } else if (c == ':' && after == ':' && is_name(third)) {
            at_ += 3;
        } else {
            break;
        }
    }
    token.text = text_.substr(begin, at_ - begin);
    if (token.text.size() > 4096) fail("name of more than 4096 characters", line_);
    return token;
}

Token Lexer::scan_number() {
    Token token;
    token.line = line_;
    const size_t begin = at_;
    auto at = [&](size_t i) { return i < text_.size() ? text_[i] : '\0'; };
    const char second = at(begin) == '0' ? at(begin + 1) : '\0';
    if (second == 'f' || second == 'F' || second == 'd' ||
        second == 'D') {  // exact bits: 0f3F800000, 0d3FF0000000000000
        token.kind = TokenKind::floating;
        token.is_f32 = second == 'f' || second == 'F';
        const size_t digits = token.is_f32 ? 8 : 16;
        at_ += 2;
        for (size_t i = 0; i < digits; ++i, ++at_) {
            if (digit_value(at(at_)) > 15) fail("0f needs 8 and 0d 16 hexadecimal digits", line_);
            token.value = token.value << 4 | uint64_t(digit_value(at(at_)));
        }
    } else {
        int base = 10;
        if (second == 'x' || second == 'X') base = 16;
        if (second == 'b' || second == 'B') base = 2;
        if (base != 10) at_ += 2;
        const size_t first_digit = at_;
        bool floating = false;
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (digit_value(c) < base) {
                ++at_;
            } else if (base == 10 && (c == '.' || c == 'e' || c == 'E')) {
                floating = true;
                ++at_;
                if (c != '.' && (at(at_) == '+' || at(at_) == '-')) ++at_;
            } else {
                break;
            }
        }
        if (at_ == first_digit) fail("number without digits", line_);
        if (floating) {
            token.kind = TokenKind::floating;
            double value = 0;
            const char* const end = text_.data() + at_;
            const auto result = std::from_chars(text_.data() + begin, end, value);
            if (result.ptr != end || result.ec != std::errc()) fail("malformed number", line_);
            std::memcpy(&token.value, &value, sizeof value);
        } else {
            token.kind = TokenKind::integer;
            if (base == 10 && at(begin) == '0' && at_ > begin + 1) base = 8;
            for (size_t i = first_digit; i < at_; ++i) {
                const uint64_t digit = uint64_t(digit_value(text_[i]));
                if (int(digit) >= base) fail("malformed number", line_);
                if (token.value > (UINT64_MAX - digit) / uint64_t(base)) fail("number of more than 64 bits", line_);
                token.value = token.value * uint64_t(base) + digit;
            }
            token.is_unsigned = token.value > uint64_t(INT64_MAX);
            if (at(at_) == 'U') {
                token.is_unsigned = true;
                ++at_;
            }
        }
    }
    if (is_name(at(at_))) fail("malformed number", line_);
    token.text = text_.substr(begin, at_ - begin);
    return token;
}

Token Lexer::scan_string() {
    Token token;
    token.kind = TokenKind::string;
    token.line = line_;
    const size_t begin = ++at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\n') at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size() || text_[at_] != '"') fail("string without end", line_);
    token.text = text_.substr(begin, at_ - begin);
    ++at_;
    return token;
}

}  // namespace vgpu
