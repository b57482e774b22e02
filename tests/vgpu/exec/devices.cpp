// The parts that can be imitated, with the figures of their data sheets, and options by name.
#include <cstdlib>
#include <stdexcept>

#include "exec/engine.h"
#include "exec/mutate.h"

namespace vgpu {

static const DeviceModel kDevices[] = {
    {"a100", 8, 0, 108, uint64_t(80) << 30, 164 << 10, 48 << 10, 163 << 10, 65536, 2048, 32, 40u << 20, 1410000,
     1593000, 5120},
    {"l4", 8, 9, 58, uint64_t(24) << 30, 100 << 10, 48 << 10, 99 << 10, 65536, 1536, 24, 48u << 20, 2040000, 6251000,
     192},
    {"rtx4090", 8, 9, 128, uint64_t(24) << 30, 100 << 10, 48 << 10, 99 << 10, 65536, 1536, 24, 72u << 20, 2520000,
     10501000, 384},
    // Older than every kernel here: for what a program says of such a part.
    {"t4", 7, 5, 40, uint64_t(16) << 30, 64 << 10, 48 << 10, 64 << 10, 65536, 1024, 16, 4u << 20, 1590000, 5001000,
     256},
    {"h100", 9, 0, 132, uint64_t(80) << 30, 228 << 10, 48 << 10, 227 << 10, 65536, 2048, 32, 50u << 20, 1980000,
     2619000, 5120},
};

const DeviceModel* device_model(const std::string& name) {
    for (const DeviceModel& d : kDevices)
        if (d.name == name) return &d;
    return nullptr;
}
std::vector<std::string> device_model_names() {
    std::vector<std::string> names;
    for (const DeviceModel& d : kDevices) names.push_back(d.name);
    return names;
}

void set_option(Options& o, const std::string& key, const std::string& value) {
    auto bad = [&](const char* allowed) { throw std::runtime_error("option " + key + " = " + value + ": " + allowed); };
    auto number = [&]() -> long long {
        char* end = nullptr;
        long long v = std::strtoll(value.c_str(), &end, 0);
        if (value.empty() || *end) bad("a whole number is needed");
        return v;
    };
    auto flag = [&] {
        long long v = number();
        if (v != 0 && v != 1) bad("0 or 1 is needed");
        return v == 1;
    };
    if (key == "async") {
        if (value == "lazy")
            o.async = Options::lazy;
        else if (value == "eager")
            o.async = Options::eager;
        else if (value == "random")
            o.async = Options::random;
        else
            bad("lazy, eager or random is needed");
    } else if (key == "seed")
        o.seed = uint64_t(number());
    else if (key == "threads") {
        o.threads = int(number());
        if (o.threads < 1 || o.threads > 256) bad("1 to 256 is needed");
    } else if (key == "races")
        o.races = flag();
    else if (key == "bounds")
        o.bounds = flag();
    else if (key == "definedness")
        o.definedness = flag();
    else if (key == "counters")
        o.counters = flag();
    else if (key == "strict_warp")
        o.strict_warp = flag();
    else if (key == "split")
        o.split = flag();
    else if (key == "mutate") {
        std::string kernel;
        try {
            parse_mutation(value, &kernel);
        } catch (const std::exception& e) {
            bad(e.what());
        }
        o.mutate = value;
    } else if (key == "truncating_mma")
        o.truncating_mma = flag();
    else if (key == "starve")
        o.starve_cta = int(number());
    else if (key == "budget")
        o.instruction_budget = uint64_t(number());
    else if (key == "max_reports")
        o.max_reports = uint32_t(number());
    else
        throw std::runtime_error("there is no option " + key);
}

Options options_from_env() {
    Options o;
    static const char* keys[][2] = {{"VGPU_ASYNC", "async"},       {"VGPU_SEED", "seed"},
                                    {"VGPU_THREADS", "threads"},   {"VGPU_RACES", "races"},
                                    {"VGPU_BOUNDS", "bounds"},     {"VGPU_DEFINEDNESS", "definedness"},
                                    {"VGPU_COUNTERS", "counters"}, {"VGPU_STRICT_WARP", "strict_warp"},
                                    {"VGPU_SPLIT", "split"},       {"VGPU_TRUNCATING_MMA", "truncating_mma"},
                                    {"VGPU_STARVE", "starve"},     {"VGPU_BUDGET", "budget"}};
    for (auto& k : keys)
        if (const char* v = std::getenv(k[0])) set_option(o, k[1], v);
    return o;
}

}  // namespace vgpu
