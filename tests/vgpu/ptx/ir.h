// A PTX module as data: what the parser makes, the register allocator completes and the executor decodes.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace vgpu {

enum class Type : uint8_t {
    none,
    pred,
    b8,
    b16,
    b32,
    b64,
    b128,
    u8,
    u16,
    u32,
    u64,
    s8,
    s16,
    s32,
    s64,
    f16,
    f16x2,
    bf16,
    bf16x2,
    tf32,
    f32,
    f64,
    e4m3,
    e5m2,
    e4m3x2,
    e5m2x2
};
int size_of(Type);                      // bytes; pred: 4 (a row is one mask of 32 lanes), none: 0
Type type_from_name(std::string_view);  // "u32" -> Type::u32; Type::none if it names no type
const char* name_of(Type);

enum class Space : uint8_t { generic, param, shared, global, local, constant };
enum class OperandKind : uint8_t { none, reg, imm, special, address, label, vector, symbol, sink };

enum SymbolScope : uint8_t {
    scope_module = 0,    // Module::variables
    scope_param = 1,     // Function::params, followed by Function::returns (index - params.size())
    scope_local = 2,     // Function::locals (.local, .shared and .param variables declared in the body)
    scope_function = 3,  // Module::functions (the address of a function)
};

struct Operand {
    OperandKind kind = OperandKind::none;
    int32_t reg = -1;           // Function::registers; the base of an address, or -1
    int32_t reg2 = -1;          // second destination of a `%r|%p` pair; reg is -1 when the first is a sink `_|%p`
    bool negated = false;       // !%p as a source predicate
    bool imm_is_float = false;  // imm holds float bits: f32 in the low half, or f64 if imm_is_f64
    bool imm_is_f64 = false;    // 0d…, and decimal literals such as 1.5 (PTX makes those f64)
    uint8_t symbol_scope = scope_module;
    uint64_t imm = 0;               // an immediate (two's complement); signed byte offset of an address or symbol
    int32_t symbol = -1;            // for kind symbol (its address + imm) and for [symbol + imm]
    int32_t label = -1;             // index in Function::code; always valid
    std::string special;            // "%tid.x", "%clock64", …
    std::vector<Operand> elements;  // vector {a, b, …}; of an address: the coordinates of [%rd, {x, y}]
};

struct Instruction {
    std::string opcode;              // whole: "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    std::vector<std::string> parts;  // split at dots: {"mma", "sync", …}; "shared::cta" stays one part
    int32_t guard = -1;              // predicate register of @%p
    bool guard_negated = false;
    // PTX order, destinations first. call: {returns, arguments} as two vectors (maybe empty), then for an indirect call
    // the target register. brx.idx: {index, vector of labels}.
    std::vector<Operand> operands;
    int32_t callee = -1;     // call: Module::functions, or -1 for an indirect call
    int32_t prototype = -1;  // indirect call: Module::prototypes, or -1
    uint32_t line = 0;       // line of the PTX text
    uint32_t file = 0;       // .loc: index in Module::files, 0 if none
    uint32_t source_line = 0;
};

// How many leading operands are written: 0 or 1 (a vector, a `%r|%p` pair or a call's returns count as one).
int destination_count(const Instruction&);

struct Register {
    std::string name;  // as written; a name declared again in an inner scope appears again
    Type type = Type::none;
};

struct Relocation {  // an initialiser that holds an address
    uint64_t offset = 0;
    std::string symbol;  // module variable or function
    int64_t addend = 0;
    bool generic = false;  // generic(symbol): a generic address rather than one in the variable's own space
    uint8_t size = 8;      // bytes to write
    uint8_t shift = 0;     // 0xFF00(symbol) takes byte 1 only: the address is shifted right by this many bits
};

struct Variable {
    std::string name;
    Space space = Space::global;
    Type type = Type::none;
    uint64_t size = 0;          // bytes, all elements; 0 for the unsized .extern .shared array
    uint32_t align = 1;         // the declared one, at least the type's own
    std::vector<uint8_t> init;  // may be shorter than size: the rest is zero (.global, .const)
    std::vector<Relocation> relocations;
    bool is_extern = false;
    bool external_unsized = false;  // .extern .shared x[]: the launch's dynamic shared memory
    bool managed = false;           // .attribute(.managed)
};

struct Function {
    std::string name;
    bool entry = false;
    bool defined = false;  // has a body; false for `.extern .func vprintf` and forward declarations
    bool noreturn = false;
    std::vector<Variable> params, returns, locals;
    std::vector<Register> registers;  // those that the body mentions
    // The last instruction never falls through (a `ret` is added where the text ends without one), and every label is
    // the index of an instruction.
    std::vector<Instruction> code;
    uint32_t line = 0;
    uint32_t maxntid[3] = {0, 0, 0};  // 0: not given; given dimensions that are left out are 1
    uint32_t reqntid[3] = {0, 0, 0};
    uint32_t reqnctapercluster[3] = {0, 0, 0};
    uint32_t minnctapersm = 0, maxnreg = 0, maxclusterrank = 0;
    bool explicitcluster = false;
    std::vector<std::string> pragmas;

    // Filled by allocate_registers. A register's row is counted in its own class: predicates, registers of up to 32
    // bits, registers of 64 bits. b128 takes two 64-bit rows, row_of and row_of + 1.
    // The rows of what an instruction writes differ from those of what it reads (unless the text names one register
    // twice). mma is the exception: D may stand in the rows of A, B or C, so all are read before D is written.
    std::vector<int32_t> row_of;
    int32_t rows32 = 0, rows64 = 0, rows_pred = 0;
    int32_t pressure = 0;       // most 32-bit registers live at once (64-bit ones count two), predicates apart
    int32_t pressure_pred = 0;  // most predicates live at once
};

struct Module {
    std::string name;                  // as given to parse(), for messages
    std::string version, target;       // "9.0", "sm_80"
    std::vector<Function> functions;   // a declaration and its definition are one entry
    std::vector<Function> prototypes;  // .callprototype, named by their label: params and returns only
    std::vector<Variable> variables;
    std::vector<std::string> files;              // [0] is empty: .file numbers index it
    std::map<std::string, std::string> aliases;  // .alias name, aliasee
};

class ParseError : public std::runtime_error {
  public:
    ParseError(std::string_view module, uint32_t line, std::string_view problem, std::string_view text);
    uint32_t line;
};

// Throws ParseError naming the line, its text and the problem. The opcode's meaning is not looked at.
Module parse(std::string_view ptx, std::string_view name);

// Liveness and linear scan; sound when lanes of one warp take different paths (see allocate.cpp).
void allocate_registers(Function&);

}  // namespace vgpu
