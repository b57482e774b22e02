// What one launch did, as counts. Never a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace vgpu {

struct Counters {
    uint64_t warp_instructions = 0, thread_instructions = 0;
    std::map<std::string, uint64_t>
        by_class;  // warp instructions: integer, float, half, convert, compare, move, memory, ...
    std::map<std::string, uint64_t> by_opcode;  // warp instructions by whole opcode
    uint64_t mma_flops = 0;                     // 2 * m * n * k per mma
    // Global memory. Requests are warp instructions with at least one active lane.
    uint64_t global_load_requests = 0, global_store_requests = 0, global_atomic_requests = 0;
    uint64_t global_load_bytes = 0, global_store_bytes = 0, global_atomic_bytes = 0;  // asked for by all lanes
    uint64_t global_load_sectors = 0, global_store_sectors = 0,
             global_atomic_sectors = 0;  // distinct 32-byte sectors per request, summed
    uint64_t global_load_sectors_min = 0, global_store_sectors_min = 0,
             global_atomic_sectors_min = 0;                    // ceil(distinct bytes / 32) per request
    uint64_t unique_bytes_read = 0, unique_bytes_written = 0;  // distinct bytes of global memory over the whole grid
    // Shared memory. A wavefront serves each of the 32 4-byte banks once.
    uint64_t shared_load_requests = 0, shared_store_requests = 0, shared_bytes = 0;
    uint64_t shared_wavefronts = 0, shared_wavefronts_min = 0;
    uint64_t bank_conflicts() const { return shared_wavefronts - shared_wavefronts_min; }
    uint64_t local_requests = 0, local_bytes = 0;
    uint64_t barriers = 0;      // block barriers, warp arrivals
    uint64_t async_copies = 0;  // cp.async warp instructions
    uint64_t blocks = 0, warps = 0;
    uint32_t row_pressure = 0;  // most 32-bit registers live at once, by our liveness
    // Per PTX instruction of the kernel image: line, opcode, executions (warp instructions), and its share of the
    // traffic.
    struct Line {
        uint32_t ptx_line = 0, source_line = 0, file = 0;
        std::string opcode, function;
        uint64_t executed = 0, lanes = 0, sectors = 0, sectors_min = 0, wavefronts = 0, wavefronts_min = 0;
    };
    std::vector<Line> lines;
    std::vector<std::string> files;

    void add(const Counters&);  // lines are not added
    std::string json(bool with_lines = false) const;
    std::string table() const;
};

}  // namespace vgpu
