// A module made runnable: variables placed, kernels decoded, launches run.
#include <algorithm>
#include <cstdlib>
#include <set>
#include <stdexcept>
#include <thread>

#include "exec/decode.h"
#include "exec/mutate.h"
#include "exec/summary.h"

namespace vgpu {
namespace {

uint64_t align_up(uint64_t v, uint64_t a) { return a ? (v + a - 1) / a * a : v; }

// Functions reachable from `f`, callees first; false if they recurse.
bool reach(const Module& m, int f, std::vector<int>& order, std::set<int>& open, std::set<int>& done) {
    if (done.count(f)) return true;
    if (!open.insert(f).second) return false;
    for (const Instruction& in : m.functions[f].code)
        if (in.callee >= 0 && m.functions[in.callee].defined && !reach(m, in.callee, order, open, done)) return false;
    open.erase(f);
    done.insert(f);
    order.push_back(f);
    return true;
}

void collect_specials(const Operand& o, std::set<std::string>& names) {
    if (o.kind == OperandKind::special) names.insert(o.special);
    for (const Operand& e : o.elements) collect_specials(e, names);
}

}  // namespace

uint32_t ImageBuilder::special(const std::string& name, bool wide, uint16_t* id) {
    for (const SpecialRow& s : image.specials)
        if (s.name == name && s.wide == wide) {
            *id = s.id;
            return s.row;
        }
    throw DecodeError("special register " + name);
}

struct Program::Impl {
    Module module;
    Memory& memory;
    DeviceModel device;
    std::map<std::string, std::unique_ptr<KernelImage>> images;
    std::map<std::string, std::pair<void*, size_t>> variables;
    Impl(Module&& m, Memory& mem, const DeviceModel& d) : module(std::move(m)), memory(mem), device(d) {}
    void place_variables();
    std::unique_ptr<KernelImage> build(int kernel);
};

void Program::Impl::place_variables() {
    for (const Variable& v : module.variables) {
        if (v.space != Space::global && v.space != Space::constant) continue;
        const MemKind kind = v.space == Space::constant ? MemKind::module_constant : MemKind::module_global;
        void* p = memory.allocate(std::max<uint64_t>(v.size, 1), kind, v.name.c_str());
        if (!p) throw std::runtime_error("no memory for module variable " + v.name);
        std::memset(p, 0, v.size);
        if (!v.init.empty()) std::memcpy(p, v.init.data(), std::min<uint64_t>(v.init.size(), v.size));
        variables[v.name] = {p, v.size};
    }
    for (const Variable& v : module.variables) {
        if (v.space != Space::global && v.space != Space::constant) continue;
        for (const Relocation& r : v.relocations) {
            auto it = variables.find(r.symbol);
            if (it == variables.end()) continue;  // address of a function: indirect calls are refused when decoded
            uint64_t value = (reinterpret_cast<uint64_t>(it->second.first) + uint64_t(r.addend)) >> r.shift;
            std::memcpy(static_cast<uint8_t*>(variables[v.name].first) + r.offset, &value, r.size);
        }
    }
}

std::unique_ptr<KernelImage> Program::Impl::build(int kernel) {
    const Function& entry = module.functions[kernel];
    auto image = std::make_unique<KernelImage>();
    image->info.name = entry.name;
    image->files = module.files;
    ImageBuilder b{*image, module, nullptr, nullptr, {}, {}, {}, {}, 0, 0};
    b.variable_address = [this](const Variable& v) { return reinterpret_cast<uint64_t>(variables.at(v.name).first); };
    std::vector<int> order;
    std::set<int> open, done;
    bool recursive = !reach(module, kernel, order, open, done);
    if (recursive) {
        image->refused.push_back({"call", "recursive call", entry.line});
        order = {kernel};
    }

    // Rows, frames and shared memory.
    std::set<std::string> specials;
    std::set<int> shared_used;
    uint64_t local = 0, shared = 0;
    uint32_t pc = 0, dynamic_align = 16;
    for (int f : order) {
        const Function& fn = module.functions[f];
        ImageBuilder::Frame& frame = b.frames[f];
        frame.row64 = image->rows64;
        frame.row32 = image->rows32;
        frame.row_pred = image->rows_pred;
        image->rows64 += fn.rows64;
        image->rows32 += fn.rows32;
        image->rows_pred += fn.rows_pred;
        image->info.registers = std::max(image->info.registers, uint32_t(fn.pressure));
        frame.code = pc;
        for (const Instruction& in : fn.code) {
            frame.pc_of.push_back(pc);
            pc += in.callee >= 0 && module.functions[in.callee].defined ? 2 : 1;
            for (const Operand& o : in.operands) {
                collect_specials(o, specials);
                if (o.symbol >= 0 && o.symbol_scope == scope_module &&
                    module.variables[o.symbol].space == Space::shared)
                    shared_used.insert(o.symbol);
            }
        }
        if (f != kernel) {
            for (const auto* list : {&fn.params, &fn.returns})
                for (const Variable& v : *list) {
                    local = align_up(local, std::max(1u, v.align));
                    frame.params.push_back(local);
                    local += v.size;
                }
        }
        for (const Variable& v : fn.locals) {
            uint64_t& at = v.space == Space::shared ? shared : local;
            at = align_up(at, std::max(1u, v.align));
            frame.locals.push_back(at);
            at += v.size;
        }
    }
    for (int s : shared_used) {
        const Variable& v = module.variables[s];
        if (v.external_unsized) {
            dynamic_align = std::max(dynamic_align, v.align);
            continue;
        }
        shared = align_up(shared, v.align);
        b.shared_offsets[v.name] = shared;
        shared += v.size;
    }
    image->static_smem = uint32_t(shared);
    image->dynamic_offset = uint32_t(align_up(shared, dynamic_align));
    for (int s : shared_used)
        if (module.variables[s].external_unsized) b.shared_offsets[module.variables[s].name] = image->dynamic_offset;
    image->local_bytes = uint32_t(local);
    uint64_t offset = 0;
    for (const Variable& v : entry.params) {
        offset = align_up(offset, std::max(1u, v.align));
        b.frames[kernel].params.push_back(offset);
        image->info.params.push_back({offset, v.size, v.align});
        offset += v.size;
    }
    image->param_bytes = uint32_t(offset);

    // Special registers are rows behind the functions' own; a scratch row of each kind takes what is thrown away.
    uint32_t first64 = image->rows64, first32 = image->rows32;
    image->rows64 += uint32_t(specials.size()) + 1;
    image->rows32 += uint32_t(specials.size()) + 2;
    image->rows_pred += 2;
    for (const std::string& name : specials) {
        for (bool wide : {false, true}) {
            SpecialRow s;
            s.name = name;
            s.wide = wide;
            uint32_t r = wide ? first64++ : first32++;
            s.row = wide ? r * 256 : image->rows64 * 256 + r * 128;
            s.id = uint16_t(1 + (wide ? 0 : image->rows64) + r);
            image->specials.push_back(s);
        }
    }
    b.scratch_row = image->rows64 * 256 + first32 * 128;  // two rows of 32 bits: room for one of 64
    b.scratch_pred = image->rows64 * 256 + image->rows32 * 128 + (image->rows_pred - 2) * 4;

    image->code.resize(pc);
    image->where.resize(pc);
    image->entry = b.frames[kernel].code;
    for (int f : order) {
        const Function& fn = module.functions[f];
        for (size_t i = 0; i < fn.code.size(); ++i) {
            const Instruction& in = fn.code[i];
            uint32_t at = b.frames[f].pc_of[i];
            int parts = in.callee >= 0 && module.functions[in.callee].defined ? 2 : 1;
            for (int part = 0; part < parts; ++part) {
                Op& op = image->code[at + part];
                OpInfo& where = image->where[at + part];
                op.pc = at + part;
                where.opcode = &in.opcode;
                where.function = &fn.name;
                where.line = in.line;
                where.file = in.file;
                where.source_line = in.source_line;
                if (recursive) continue;
                try {
                    const OpcodeRow* row = find_opcode(in.parts[0]);
                    if (!row) throw DecodeError("opcode");
                    check_form(in, module.target);
                    Decoder d(b, f, in, op);
                    op.mode = uint8_t(part);
                    if (row->cls != Class::control || part == 0) op.mode = 0;
                    if (part == 1) op.mode = 1;
                    row->decode(d);
                    d.finish(row->cls == Class::other && op.cls != Class::other ? op.cls : row->cls);
                } catch (const std::exception& e) {
                    image->refused.push_back({in.opcode, e.what(), in.line, in.source_line, in.file});
                }
            }
        }
    }
    KernelInfo& info = image->info;
    info.static_smem = image->static_smem;
    info.local_bytes = image->local_bytes;
    auto product = [](const uint32_t v[3]) { return std::max(1u, v[0]) * std::max(1u, v[1]) * std::max(1u, v[2]); };
    if (entry.maxntid[0]) info.max_threads = product(entry.maxntid);
    if (entry.reqntid[0]) info.max_threads = product(entry.reqntid);
    std::copy(entry.reqntid, entry.reqntid + 3, info.reqntid);
    if (!image->refused.empty()) {
        const Refusal& first = image->refused.front();
        info.undecodable = first.opcode + " (PTX line " + std::to_string(first.line) + "): " + first.why;
    }
    return image;
}

Program::Program(Module&& module, Memory& memory, const DeviceModel& device)
    : impl_(new Impl(std::move(module), memory, device)) {
    for (Function& f : impl_->module.functions)
        if (f.defined) allocate_registers(f);
    impl_->place_variables();
    for (size_t i = 0; i < impl_->module.functions.size(); ++i)
        if (impl_->module.functions[i].entry) impl_->images[impl_->module.functions[i].name] = impl_->build(int(i));
}
Program::~Program() {
    for (auto& [name, place] : impl_->variables) impl_->memory.release(place.first);
}

const KernelInfo* Program::kernel(const std::string& name) const {
    auto it = impl_->images.find(name);
    return it == impl_->images.end() ? nullptr : &it->second->info;
}
std::vector<std::string> Program::kernels() const {
    std::vector<std::string> names;
    for (const auto& [name, image] : impl_->images) names.push_back(name);
    return names;
}
std::vector<std::string> Program::refused() const {
    std::vector<std::string> all;
    for (const auto& [name, image] : impl_->images)
        for (const Refusal& r : image->refused) all.push_back(std::to_string(r.line) + " " + r.opcode + ": " + r.why);
    return all;
}
void* Program::variable(const std::string& name, size_t* bytes) const {
    auto it = impl_->variables.find(name);
    if (it == impl_->variables.end()) return nullptr;
    if (bytes) *bytes = it->second.second;
    return it->second.first;
}

static std::string refuse(const KernelImage& image, const LaunchConfig& c, const DeviceModel& d) {
    uint64_t threads = c.block.count(), shared = image.dynamic_offset + uint64_t(c.dynamic_smem);
    if (c.dynamic_smem == 0) shared = image.static_smem;
    if (c.grid.count() == 0 || threads == 0) return "empty grid or block";
    if (threads > 1024 || c.block.x > 1024 || c.block.y > 1024 || c.block.z > 64)
        return "block of " + std::to_string(threads) + " threads";
    if (threads > image.info.max_threads)
        return "block of " + std::to_string(threads) + " threads; the kernel is compiled for " +
               std::to_string(image.info.max_threads);
    const uint32_t* r = image.info.reqntid;
    if (r[0] && (c.block.x != r[0] || c.block.y != std::max(1u, r[1]) || c.block.z != std::max(1u, r[2])))
        return "block differs from the kernel's .reqntid";
    if (c.grid.y > 65535 || c.grid.z > 65535 || c.grid.x > 2147483647u) return "grid too large";
    if (shared > d.smem_optin)
        return std::to_string(shared) + " bytes of shared memory; the device has " + std::to_string(d.smem_optin) +
               " per block";
    if (c.cluster.count() != 1) return "cluster of more than one block";
    return "";
}

LaunchResult Program::launch(const std::string& kernel, const LaunchConfig& config, const Options& options) {
    static std::atomic<uint32_t> launches{0};
    LaunchResult result;
    auto fail = [&](const char* code, const std::string& text) -> Report& {
        Report r;
        r.code = code;
        r.text = text;
        r.kernel = kernel;
        result.ok = false;
        result.reports.push_back(r);
        return result.reports.back();
    };
    auto it = impl_->images.find(kernel);
    if (it == impl_->images.end()) {
        fail("launch", "there is no such kernel");
        return result;
    }
    KernelImage& image = *it->second;
    const Mutation mutation(image, options.mutate);
    if (!mutation.error.empty()) {
        fail("launch", mutation.error);
        return result;
    }
    if (!image.refused.empty()) {
        const Refusal& first = image.refused.front();
        Report& r = fail("unsupported", "cannot execute `" + first.opcode + "`: " + first.why);
        r.opcode = first.opcode;
        r.ptx_line = first.line;
        r.source_line = first.source_line;
        if (first.file < image.files.size()) r.source_file = image.files[first.file];
        return result;
    }
    std::string refused = refuse(image, config, impl_->device);
    if (!refused.empty()) {
        fail("launch", refused);
        return result;
    }

    Launch l(image, config, options, impl_->memory, impl_->device);
    l.id = ++launches % 4095 + 1;
    const bool numbers_start_again = l.id == 1;
    l.params.resize(image.param_bytes);
    for (size_t i = 0; i < image.info.params.size(); ++i)
        std::memcpy(l.params.data() + image.info.params[i].offset, config.args[i], image.info.params[i].size);
    for (const Allocation* a : impl_->memory.live()) {
        a->touched = false;
        if (numbers_start_again && a->shadow) a->shadow->forget();
        l.allocations.push_back(a);
    }
    std::sort(l.allocations.begin(), l.allocations.end(), [](auto* a, auto* b) { return a->base < b->base; });
    l.shared_bytes = config.dynamic_smem ? image.dynamic_offset + config.dynamic_smem : image.static_smem;
    l.clusters = config.grid.count() / config.cluster.count();
    if (options.seed || options.starve_cta >= 0) {
        for (uint64_t i = 0; i < l.clusters; ++i) l.order.push_back(uint32_t(i));
        if (options.seed) {
            Random r(options.seed);
            for (uint64_t i = l.clusters; i > 1; --i) std::swap(l.order[i - 1], l.order[r.below(uint32_t(i))]);
        }
        if (options.starve_cta >= 0) {
            auto at = std::find(l.order.begin(), l.order.end(), uint32_t(options.starve_cta % l.clusters));
            std::rotate(at, at + 1, l.order.end());
        }
    }

    const DeviceModel& device = impl_->device;
    uint64_t per_sm = std::min<uint64_t>(device.max_blocks_per_sm,
                                         device.max_threads_per_sm / std::max<uint64_t>(1, config.block.count()));
    if (l.shared_bytes) per_sm = std::min<uint64_t>(per_sm, device.smem_per_sm / (l.shared_bytes + 1024));
    uint64_t fit = std::max<uint64_t>(1, per_sm) * uint64_t(device.sms);
    int threads = int(std::min<uint64_t>(std::max(1, options.threads), l.clusters));
    l.most_resident = std::max<uint64_t>(1, fit / uint64_t(threads));
    std::vector<std::unique_ptr<Worker>> workers;
    for (int i = 0; i < threads; ++i)
        workers.push_back(std::make_unique<Worker>(l, options.seed * 1000003 + uint64_t(i)));
    std::vector<std::thread> pool;
    for (int i = 1; i < threads; ++i) pool.emplace_back([&, i] { workers[i]->run(); });
    workers[0]->run();
    for (std::thread& t : pool) t.join();

    sum_counters(l, workers, result.counters);
    result.reports = std::move(l.reports);
    result.notes = std::move(l.notes);
    result.printed = std::move(l.printed);
    result.ok = result.reports.empty();
    return result;
}

}  // namespace vgpu
