// Declarations of variables, parameters and registers; initialisers.
#include <cstring>

#include "ptx/parser.h"

namespace vgpu {
namespace {

constexpr uint64_t kLargestVariable = uint64_t(1) << 40;
constexpr uint64_t kLargestInitialiser = uint64_t(1) << 28;
constexpr int kDeepestArray = 16;

bool space_from_name(std::string_view name, Space& space) {
    if (name.substr(0, 5) == "param")
        space = Space::param;  // also param::entry, param::func
    else if (name == "shared" || name == "shared::cta")
        space = Space::shared;
    else if (name == "global")
        space = Space::global;
    else if (name == "local")
        space = Space::local;
    else if (name == "const")
        space = Space::constant;
    else
        return false;
    return true;
}

class Initialiser {
  public:
    Initialiser(Lexer& lexer, Variable& variable, const std::vector<uint64_t>& extents)
        : lexer_(lexer), variable_(variable), extents_(extents), element_(uint64_t(size_of(variable.type))) {}

    // Returns the number of elements given (with the zeros that inner braces leave out).
    uint64_t run() {
        if (lexer_.peek().is("{"))
            braces(0);
        else
            scalar();
        return position_;
    }

  private:
    void braces(size_t level) {
        if (level >= size_t(kDeepestArray)) lexer_.fail("initialiser nested more than 16 deep");
        lexer_.expect("{");
        const uint64_t begin = position_;
        while (!lexer_.peek().is("}")) {
            if (lexer_.peek().is("{"))
                braces(level + 1);
            else
                scalar();
            if (!lexer_.take(",")) break;
        }
        lexer_.expect("}");
        if (level == 0) return;
        uint64_t row = 1;  // elements below this level; at the outermost nothing is left to skip
        for (size_t i = level; i < extents_.size(); ++i) row *= extents_[i];
        if (level < extents_.size()) {
            if (position_ - begin > row) lexer_.fail("initialiser longer than its array");
            position_ = begin + row;
        }
    }

    void scalar() {
        if (variable_.size && (position_ + 1) * element_ > variable_.size)
            lexer_.fail("initialiser longer than its array");
        if ((position_ + 1) * element_ > kLargestInitialiser) lexer_.fail("initialiser of more than 256 MiB");
        const uint64_t at = position_++ * element_;
        const Token& token = lexer_.peek();
        if (token.kind == TokenKind::word && token.text != "WARP_SZ") return address(at, ~uint64_t(0));
        const Constant value = parse_constant(lexer_);
        if (lexer_.peek().is("(") && !value.is_float) {  // 0xFF00(symbol + 8): one byte of an address
            lexer_.next();
            address(at, value.bits);
            return lexer_.expect(")");
        }
        store(at, value);
    }

    void address(uint64_t at, uint64_t mask) {
        Relocation relocation;
        relocation.offset = at;
        relocation.size = uint8_t(element_);
        if (mask != ~uint64_t(0)) {
            while (relocation.shift < 64 && (mask >> relocation.shift) != 0xFF) relocation.shift += 8;
            if (relocation.shift >= 64 || element_ != 1)
                lexer_.fail("an address mask must choose one byte of a .b8 array: 0xFF, 0xFF00, …");
        } else if (element_ != 8) {
            lexer_.fail("an address needs an element of 64 bits");
        }
        Token name = lexer_.next();
        if (name.text == "generic" && lexer_.take("(")) {
            relocation.generic = true;
            name = lexer_.next();
            relocation.addend = addend();
            lexer_.expect(")");
        }
        if (name.kind != TokenKind::word) lexer_.fail("expected the name of a variable", name.line);
        relocation.symbol = std::string(name.text);
        relocation.addend += addend();
        reserve(at);
        variable_.relocations.push_back(std::move(relocation));
    }

    int64_t addend() {
        uint64_t sum = 0;
        while (lexer_.peek().is("+") || lexer_.peek().is("-")) {
            const bool minus = lexer_.next().text == "-";
            const Constant value = parse_constant_operand(lexer_);
            if (value.is_float) lexer_.fail("an address offset must be a whole number");
            sum = minus ? sum - value.bits : sum + value.bits;
        }
        return int64_t(sum);
    }

    void reserve(uint64_t at) {
        if (variable_.init.size() < at + element_) variable_.init.resize(at + element_);
    }

    void store(uint64_t at, const Constant& value) {
        uint64_t bits = value.bits;
        const bool wants_f32 = variable_.type == Type::f32, wants_f64 = variable_.type == Type::f64;
        if (value.is_float && !wants_f32 && !wants_f64) lexer_.fail("a floating literal in an array of whole numbers");
        if (wants_f32 || wants_f64) {
            double number;
            if (!value.is_float) {
                number = value.is_unsigned ? double(bits) : double(int64_t(bits));
            } else if (value.is_f64) {
                std::memcpy(&number, &bits, 8);
            } else {
                float narrow;
                std::memcpy(&narrow, &bits, 4);
                number = narrow;
            }
            const bool exact_already = value.is_float && value.is_f64 == wants_f64;  // keeps the bits of a NaN
            if (!exact_already && wants_f64) std::memcpy(&bits, &number, 8);
            if (!exact_already && wants_f32) {
                const float narrow = float(number);
                bits = 0;
                std::memcpy(&bits, &narrow, 4);
            }
        }
        reserve(at);
        std::memcpy(variable_.init.data() + at, &bits, element_ < 8 ? size_t(element_) : 8);
    }

    Lexer& lexer_;
    Variable& variable_;
    const std::vector<uint64_t>& extents_;
    uint64_t element_, position_ = 0;
};

uint32_t parse_align(Lexer& lexer) {
    const uint64_t align = parse_integer(lexer, ".align", 1u << 20);
    if (align == 0 || (align & (align - 1))) lexer.fail(".align must be a power of two");
    return uint32_t(align);
}

}  // namespace

std::vector<std::string> split_dots(std::string_view text) {
    std::vector<std::string> parts;
    if (!text.empty() && text[0] == '.') text.remove_prefix(1);
    for (size_t begin = 0;;) {
        const size_t dot = text.find('.', begin);
        parts.emplace_back(text.substr(begin, dot == text.npos ? dot : dot - begin));
        if (dot == text.npos) return parts;
        begin = dot + 1;
    }
}

Declaration parse_declaration(Lexer& lexer) {
    Declaration declaration;
    bool pointer = false;  // after .ptr, space and alignment are those of the memory pointed to
    while (lexer.peek().kind == TokenKind::directive) {
        const Token token = lexer.next();
        for (const std::string& part : split_dots(token.text)) {
            Space space;
            const Type type = type_from_name(part);
            if (part == "reg") {
                declaration.is_register = true;
            } else if (part == "ptr") {
                pointer = true;
            } else if (part == "align") {
                const uint32_t align = parse_align(lexer);
                if (!pointer) declaration.align = align;
            } else if (part == "v2" || part == "v4") {
                declaration.vector = part[1] - '0';
            } else if (part == "attribute") {
                lexer.expect("(");
                while (!lexer.peek().is(")")) {
                    const Token attribute = lexer.next();
                    if (attribute.kind == TokenKind::end) lexer.fail("attribute without end");
                    if (attribute.is(".managed"))
                        declaration.managed = true;
                    else if (attribute.kind == TokenKind::directive && attribute.text != ".unified")
                        lexer.fail("unknown attribute", attribute.line);
                    if (attribute.is(".unified")) {  // (.unified(uuid, uuid)): an identity for linking
                        lexer.expect("(");
                        while (!lexer.take(")"))
                            if (lexer.next().kind == TokenKind::end) lexer.fail("attribute without end");
                    }
                }
                lexer.expect(")");
            } else if (type != Type::none) {
                if (declaration.type != Type::none) lexer.fail("two types in one declaration", token.line);
                declaration.type = type;
            } else if (space_from_name(part, space)) {
                if (!pointer) declaration.space = space;
            } else {
                lexer.fail("unknown declaration ." + part.substr(0, 80), token.line);
            }
        }
    }
    if (declaration.type == Type::none) lexer.fail("declaration without a type");
    return declaration;
}

Variable parse_variable(Lexer& lexer, const Declaration& declaration, bool initialiser_allowed) {
    Variable variable;
    const Token name = lexer.next();
    if (name.kind != TokenKind::word) lexer.fail("expected a name", name.line);
    if (declaration.type == Type::pred) lexer.fail("predicates live in registers only", name.line);
    variable.name = std::string(name.text);
    variable.space = declaration.space;
    variable.type = declaration.type;
    variable.managed = declaration.managed;
    variable.is_extern = declaration.is_extern;
    const uint64_t element = uint64_t(size_of(declaration.type)) * uint64_t(declaration.vector);
    variable.align = std::max(declaration.align, uint32_t(element));
    std::vector<uint64_t> extents;
    uint64_t count = 1;
    bool unsized = false;
    while (lexer.take("[")) {
        if (extents.size() >= size_t(kDeepestArray)) lexer.fail("array of more than 16 dimensions");
        if (extents.empty() && lexer.take("]")) {
            unsized = true;
            extents.push_back(1);
            continue;
        }
        const uint64_t extent = parse_integer(lexer, "an array size", kLargestVariable);
        if (extent && count > kLargestVariable / extent) lexer.fail("array of more than 2^40 elements", name.line);
        count *= extent;
        extents.push_back(extent);
        lexer.expect("]");
    }
    if (count * element > kLargestVariable) lexer.fail("array of more than 2^40 bytes", name.line);
    if (declaration.vector > 1) extents.push_back(uint64_t(declaration.vector));
    variable.size = unsized ? 0 : count * element;
    if (lexer.peek().is("=")) {
        if (!initialiser_allowed || (variable.space != Space::global && variable.space != Space::constant))
            lexer.fail("only .global and .const variables have initialisers");
        lexer.next();
        const uint64_t given = Initialiser(lexer, variable, extents).run();
        if (unsized) {
            const uint64_t row = count * element;  // count: elements of one row
            variable.size = (given * uint64_t(size_of(declaration.type)) + row - 1) / std::max<uint64_t>(row, 1) * row;
            unsized = false;
        }
    }
    if (unsized) {
        if (!declaration.is_extern && variable.space != Space::param) lexer.fail("array without a size", name.line);
        variable.external_unsized = true;
    }
    return variable;
}

}  // namespace vgpu
