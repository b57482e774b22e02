#include "checks/counters.h"

#include <cstdio>

#include "checks/report.h"

namespace vgpu {
namespace {
struct Field {
    const char* name;
    uint64_t Counters::*value;
};
const Field kFields[] = {
    {"warp_instructions", &Counters::warp_instructions},
    {"thread_instructions", &Counters::thread_instructions},
    {"mma_flops", &Counters::mma_flops},
    {"global_load_requests", &Counters::global_load_requests},
    {"global_store_requests", &Counters::global_store_requests},
    {"global_atomic_requests", &Counters::global_atomic_requests},
    {"global_load_bytes", &Counters::global_load_bytes},
    {"global_store_bytes", &Counters::global_store_bytes},
    {"global_atomic_bytes", &Counters::global_atomic_bytes},
    {"global_load_sectors", &Counters::global_load_sectors},
    {"global_store_sectors", &Counters::global_store_sectors},
    {"global_atomic_sectors", &Counters::global_atomic_sectors},
    {"global_load_sectors_min", &Counters::global_load_sectors_min},
    {"global_store_sectors_min", &Counters::global_store_sectors_min},
    {"global_atomic_sectors_min", &Counters::global_atomic_sectors_min},
    {"unique_bytes_read", &Counters::unique_bytes_read},
    {"unique_bytes_written", &Counters::unique_bytes_written},
    {"shared_load_requests", &Counters::shared_load_requests},
    {"shared_store_requests", &Counters::shared_store_requests},
    {"shared_bytes", &Counters::shared_bytes},
    {"shared_wavefronts", &Counters::shared_wavefronts},
    {"shared_wavefronts_min", &Counters::shared_wavefronts_min},
    {"local_requests", &Counters::local_requests},
    {"local_bytes", &Counters::local_bytes},
    {"barriers", &Counters::barriers},
    {"async_copies", &Counters::async_copies},
    {"blocks", &Counters::blocks},
    {"warps", &Counters::warps},
};
}  // namespace

void Counters::add(const Counters& o) {
    for (const Field& f : kFields) this->*f.value += o.*f.value;
    for (const auto& [k, v] : o.by_class) by_class[k] += v;
    for (const auto& [k, v] : o.by_opcode) by_opcode[k] += v;
    if (o.row_pressure > row_pressure) row_pressure = o.row_pressure;
}

std::string Counters::json(bool with_lines) const {
    std::string s = "{";
    for (const Field& f : kFields) s += std::string("\"") + f.name + "\": " + std::to_string(this->*f.value) + ", ";
    s += "\"bank_conflicts\": " + std::to_string(bank_conflicts()) + ", \"row_pressure\": " + std::to_string(row_pressure);
    auto group = [&](const char* name, const std::map<std::string, uint64_t>& m) {
        s += std::string(", \"") + name + "\": {";
        bool first = true;
        for (const auto& [k, v] : m) s += (first ? "" : ", ") + json_quote(k) + ": " + std::to_string(v), first = false;
        s += "}";
    };
    group("by_class", by_class);
    group("by_opcode", by_opcode);
    if (with_lines) {
        s += ", \"files\": [";
        for (size_t i = 0; i < files.size(); ++i) s += (i ? ", " : "") + json_quote(files[i]);
        s += "], \"lines\": [";
        for (size_t i = 0; i < lines.size(); ++i) {
            const Line& l = lines[i];
            s += (i ? ", " : "") + std::string("{\"ptx_line\": ") + std::to_string(l.ptx_line) + ", \"file\": " + std::to_string(l.file) +
                 ", \"source_line\": " + std::to_string(l.source_line) + ", \"opcode\": " + json_quote(l.opcode) + ", \"function\": " + json_quote(l.function) +
                 ", \"executed\": " + std::to_string(l.executed) + ", \"lanes\": " + std::to_string(l.lanes) + ", \"sectors\": " + std::to_string(l.sectors) +
                 ", \"sectors_min\": " + std::to_string(l.sectors_min) + ", \"wavefronts\": " + std::to_string(l.wavefronts) +
                 ", \"wavefronts_min\": " + std::to_string(l.wavefronts_min) + "}";
        }
        s += "]";
    }
    return s + "}";
}

std::string Counters::table() const {
    std::string s;
    char line[160];
    auto put = [&](const char* name, uint64_t v) {
        snprintf(line, sizeof line, "%-28s %16llu\n", name, (unsigned long long)v);
        s += line;
    };
    for (const Field& f : kFields)
        if (this->*f.value) put(f.name, this->*f.value);
    put("bank_conflicts", bank_conflicts());
    for (const auto& [k, v] : by_class) put(("instructions: " + k).c_str(), v);
    return s;
}

}  // namespace vgpu
