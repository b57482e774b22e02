// A finding of the virtual GPU: what went wrong, and where (kernel, block, thread, PTX line, source line).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vgpu {

// Codes:
//   oob               access outside every live allocation, or outside this launch's shared, local or parameter memory
//   host-pointer      address of ordinary host memory given to a kernel
//   use-after-free    access to a released allocation
//   misaligned        address is not a multiple of the access width
//   undefined         value never written reaches a global store, a branch or an address
//   race              two accesses, at least one a plain write, not ordered by any barrier, fence or atomic
//   warp-race         the same between lanes of one warp, in shared memory (Options::strict_warp)
//   barrier           barrier divergence, wrong number or count
//   collective        a lane named in a member mask never arrives, or the executing lane is not in it
//   deadlock          no warp can go on; the text says who waits where
//   async             a thread leaves with copies in flight, or copies more than there is room
//   budget            instruction budget spent
//   trap, assert, brkpt
//   unsupported       opcode, modifier or operand this interpreter does not know
//   launch            configuration a device would refuse
struct Report {
    std::string code;
    std::string text;
    std::string kernel;
    uint32_t cta[3] = {0, 0, 0};
    uint32_t thread[3] = {0, 0, 0};
    uint32_t ptx_line = 0;
    uint32_t source_line = 0;
    std::string source_file;
    std::string opcode;
    uint64_t count = 1;  // further findings of the same code at the same instruction are counted, not listed
};

// One line for people: "race: <text> [kernel k, block (0,0,0), thread (3,0,0), PTX line 42 `st.shared.f32`, a.cu:17]".
std::string to_string(const Report&);
// One JSON object; to_json of a list gives an array.
std::string to_json(const Report&);
std::string to_json(const std::vector<Report>&);
std::string json_quote(const std::string&);

}  // namespace vgpu
