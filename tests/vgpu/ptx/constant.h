// Constant expressions: immediates, array sizes, initialisers.
#pragma once

#include "ptx/lexer.h"

namespace vgpu {

struct Constant {
    uint64_t bits = 0;  // two's complement, or float bits
    bool is_float = false;
    bool is_f64 = false;
    bool is_unsigned = false;
};

Constant parse_constant(Lexer&);                                     // a whole expression
Constant parse_constant_operand(Lexer&);                             // unary operators and one number or (expression)
uint64_t parse_integer(Lexer&, const char* what, uint64_t largest);  // a whole expression, 0 to largest

}  // namespace vgpu
