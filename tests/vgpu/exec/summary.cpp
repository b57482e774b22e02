// Adds up what the workers counted.
#include "exec/summary.h"

namespace vgpu {
namespace {

void count_unique(const Launch& l, Counters& c) {
    constexpr uint64_t kOnes = 0x0101010101010101ull;
    for (const Allocation* a : l.allocations) {
        if (!a->touched.load()) continue;
        uint64_t read = 0, written = 0, i = 0;
        for (; i + 8 <= a->size; i += 8) {
            uint64_t v;
            std::memcpy(&v, a->state + i, 8);
            if (!(v & kOnes * (kRead | kWritten))) continue;
            read += uint64_t(__builtin_popcountll(v & kOnes * kRead));
            written += uint64_t(__builtin_popcountll(v & kOnes * kWritten));
            v &= kOnes * uint8_t(~(kRead | kWritten));
            std::memcpy(a->state + i, &v, 8);
        }
        for (; i < a->size; ++i) {
            read += bool(a->state[i] & kRead);
            written += bool(a->state[i] & kWritten);
            a->state[i] &= uint8_t(~(kRead | kWritten));
        }
        c.unique_bytes_read += read;
        c.unique_bytes_written += written;
    }
}

}  // namespace

void sum_counters(const Launch& l, const std::vector<std::unique_ptr<Worker>>& workers, Counters& c) {
    const KernelImage& image = l.image;
    c.files = image.files;
    c.row_pressure = image.info.registers;
    for (const auto& w : workers) {
        c.blocks += w->blocks;
        c.warps += w->warps;
        c.barriers += w->barriers;
        c.async_copies += w->async_copies;
    }
    for (uint32_t pc = 0; pc < image.code.size(); ++pc) {
        const Op& op = image.code[pc];
        Counters::Line line;
        line.ptx_line = image.where[pc].line;
        line.source_line = image.where[pc].source_line;
        line.file = image.where[pc].file;
        line.opcode = *image.where[pc].opcode;
        line.function = *image.where[pc].function;
        uint64_t bytes = 0, shared = 0, local = 0;
        for (const auto& w : workers) {
            const Profile& p = w->profile[pc];
            line.executed += p.executed;
            line.lanes += p.lanes;
            line.sectors += p.sectors;
            line.sectors_min += p.sectors_min;
            line.wavefronts += p.wavefronts;
            line.wavefronts_min += p.wavefronts_min;
            bytes += p.global_bytes;
            shared += p.shared_bytes;
            local += p.local_bytes;
        }
        c.lines.push_back(line);
        if (!line.executed) continue;
        c.warp_instructions += line.executed;
        c.thread_instructions += line.lanes;
        c.by_class[name_of(op.cls)] += line.executed;
        c.by_opcode[line.opcode] += line.executed;
        c.mma_flops += line.executed * op.flops;
        if (op.cls != Class::memory && op.cls != Class::atomic && op.cls != Class::async_copy) continue;
        bool store = line.opcode.compare(0, 2, "st") == 0, copy = op.cls == Class::async_copy;
        if (line.sectors) {
            if (op.cls == Class::atomic) {
                c.global_atomic_requests += line.executed, c.global_atomic_bytes += bytes;
                c.global_atomic_sectors += line.sectors, c.global_atomic_sectors_min += line.sectors_min;
            } else if (store) {
                c.global_store_requests += line.executed, c.global_store_bytes += bytes;
                c.global_store_sectors += line.sectors, c.global_store_sectors_min += line.sectors_min;
            } else {
                c.global_load_requests += line.executed, c.global_load_bytes += bytes;
                c.global_load_sectors += line.sectors, c.global_load_sectors_min += line.sectors_min;
            }
        }
        if (line.wavefronts) {
            (store || copy ? c.shared_store_requests : c.shared_load_requests) += line.executed;
            c.shared_bytes += shared;
            c.shared_wavefronts += line.wavefronts;
            c.shared_wavefronts_min += line.wavefronts_min;
        }
        if (local) c.local_requests += line.executed, c.local_bytes += local;
    }
    if (l.options.counters) count_unique(l, c);
}

}  // namespace vgpu
