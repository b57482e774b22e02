// One decoded instruction: a handler and the rows it works on.
//
// A row holds one register of a warp: 32 lanes of 4 bytes (registers of up to 32 bits), 32 lanes of 8 bytes, or one
// 32-bit mask (a predicate). Rows live in the warp's register file; immediates and addresses of symbols are rows of the
// launch's constant file, told apart by the top bit of a row's offset. So every handler is "row op row".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "exec/engine.h"
#include "ptx/ir.h"

namespace vgpu {

struct Warp;
struct Op;

enum class Next : uint8_t {
    step,     // go on with the following instruction
    jumped,   // the handler set the group's pc or split it
    blocked,  // the group waits (its state says for what); the same instruction runs again
    yield,    // step, then let other warps run
    exited,   // lanes of the group left; the group may be empty
    failed,   // a fatal report was made
};

using Handler = Next (*)(Warp&, const Op&, uint32_t mask);
// Definedness of the result where a source is not wholly defined; reads the sources' values before they change.
using DefinedRule = uint32_t (*)(Warp&, const Op&, uint32_t mask, uint32_t both);

constexpr uint32_t kConstantRow = 0x80000000u;
constexpr uint32_t kNoRow = 0x7fffffffu;

enum class Class : uint8_t {
    integer,
    floating,
    half,
    convert,
    compare,
    move,
    memory,
    atomic,
    collective,
    barrier,
    async_copy,
    mma,
    control,
    other
};
const char* name_of(Class);

// What few instructions need beyond four rows.
struct OpExtra {
    std::vector<uint32_t> rows;     // elements of vectors, in the order the handler's file says
    std::vector<uint16_t> ids;      // their definedness ids (kNoId for constants)
    std::vector<uint32_t> targets;  // brx.idx, call
    std::vector<uint64_t> numbers;
    std::string text;
};

constexpr uint16_t kNoId = 0xffff;

struct Op {
    Handler fn = nullptr;
    uint32_t d = kNoRow, a = kNoRow, b = kNoRow, c = kNoRow;
    uint32_t e = kNoRow;      // second destination or fourth source
    uint32_t guard = kNoRow;  // predicate row
    uint32_t guard_flip = 0;  // ~0 for @!p
    uint32_t pc = 0;
    uint16_t guard_id = 0;  // definedness id of the guard; id 0 is always defined
    uint64_t imm = 0;       // address offset, branch target, lookup table ...
    const OpExtra* x = nullptr;
    DefinedRule defined_rule = nullptr;
    const uint16_t* ids = nullptr;  // definedness ids: sources, then ones that must be defined, then destinations
    uint8_t sources = 0, musts = 0, destinations = 0;
    Class cls = Class::other;
    uint8_t size = 0;   // bytes of an element
    uint8_t count = 1;  // elements of a vector
    uint8_t space = 0;  // Space
    uint8_t mode = 0;   // meaning belongs to the handler's file
    uint16_t flags = 0;
    uint32_t flops = 0;  // mma: 2*m*n*k
};

// Flags shared by memory instructions.
constexpr uint16_t kStrong = 1;  // volatile, relaxed or stronger: never races with another strong access
constexpr uint16_t kAcquire = 2;
constexpr uint16_t kRelease = 4;
constexpr uint16_t kWide = 8;        // destination or value rows are 64-bit
constexpr uint16_t kAddress32 = 16;  // the address row is 32-bit
constexpr uint16_t kSigned = 32;
constexpr uint16_t kNoReturn = 64;  // red: no destination
constexpr uint16_t kAligned = 128;  // .aligned barrier or collective

// Where an instruction comes from, for reports and counters.
struct OpInfo {
    const std::string* opcode = nullptr;
    const std::string* function = nullptr;
    uint32_t line = 0, file = 0, source_line = 0;
};

struct Refusal {
    std::string opcode, why;
    uint32_t line = 0, source_line = 0, file = 0;
};

// Special registers that are rows of a warp, filled when it starts.
struct SpecialRow {
    std::string name;
    uint32_t row = 0;
    uint16_t id = 0;
    bool wide = false;
};

// A kernel with every function it can call, flattened; callees come first, so that "lowest pc first" runs them to their
// return before the lanes that wait behind the call.
struct KernelImage {
    KernelInfo info;
    std::vector<Op> code;
    std::vector<OpInfo> where;
    std::vector<std::unique_ptr<OpExtra>> extras;
    std::vector<std::unique_ptr<uint16_t[]>> id_lists;
    uint32_t entry = 0;
    std::vector<uint32_t> code_sizes;
    uint32_t rows64 = 0, rows32 = 0, rows_pred = 0;  // of all functions together, special rows included
    uint32_t row_bytes() const { return rows64 * 256 + rows32 * 128 + rows_pred * 4; }
    uint32_t row_count() const { return rows64 + rows32 + rows_pred; }
    std::vector<uint8_t> constants;  // the constant file
    std::vector<SpecialRow> specials;
    uint32_t static_smem = 0, local_bytes = 0, param_bytes = 0;
    uint32_t dynamic_offset = 0;   // of the unsized .extern .shared array
    uint32_t frame_bytes = 0;      // params, returns and .param locals of device functions, per thread
    std::vector<Refusal> refused;  // what could not be decoded, in the order of the code
    std::vector<std::string> files;
};

}  // namespace vgpu
