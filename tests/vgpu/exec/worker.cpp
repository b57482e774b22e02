// Workers: clusters in flight, the order in which their warps run, deadlocks, reports.
#include "exec/worker.h"

#include <algorithm>
#include <cstdio>
#include <thread>

namespace vgpu {

std::string hex(uint64_t v) {
    char s[32];
    snprintf(s, sizeof s, "0x%llx", (unsigned long long)v);
    return s;
}

static Report make_report(const Warp& w, const Op& o, int lane, const char* code, const std::string& text) {
    const Launch& l = w.worker->launch;
    const OpInfo& at = l.image.where[o.pc];
    Report r;
    r.code = code;
    r.text = text;
    r.kernel = l.image.info.name;
    for (int k = 0; k < 3; ++k) r.cta[k] = w.block->id[k];
    uint32_t t = w.index * 32 + uint32_t(lane < 0 ? 0 : lane);
    r.thread[0] = t % l.config.block.x;
    r.thread[1] = t / l.config.block.x % l.config.block.y;
    r.thread[2] = t / l.config.block.x / l.config.block.y;
    r.ptx_line = at.line;
    r.source_line = at.source_line;
    if (at.file < l.image.files.size()) r.source_file = l.image.files[at.file];
    r.opcode = *at.opcode;
    return r;
}
static void add(Launch& l, std::vector<Report>& list, std::map<std::pair<std::string, uint32_t>, size_t>& known,
                uint32_t pc, Report&& r) {
    auto [it, fresh] = known.try_emplace({r.code, pc}, list.size());
    if (!fresh) {
        ++list[it->second].count;
    } else if (list.size() < l.options.max_reports) {
        list.push_back(std::move(r));
    } else {
        known.erase(it);
    }
}
void report(Warp& w, const Op& o, int lane, const char* code, const std::string& text, bool fatal) {
    Launch& l = w.worker->launch;
    Report r = make_report(w, o, lane, code, text);
    std::lock_guard<std::mutex> lock(l.mutex);
    add(l, l.reports, l.known_reports, o.pc, std::move(r));
    if (fatal) l.stop = true;
}
void note(Warp& w, const Op& o, int lane, const char* code, const std::string& text) {
    Launch& l = w.worker->launch;
    Report r = make_report(w, o, lane, code, text);
    std::lock_guard<std::mutex> lock(l.mutex);
    add(l, l.notes, l.known_notes, o.pc, std::move(r));
}

Worker::Worker(Launch& l, uint64_t seed) : launch(l), profile(l.image.code.size()), random(seed) {
    races = l.options.races;
    definedness = l.options.definedness;
    counters = l.options.counters;
}

namespace {
uint64_t special_value(const Launch& l, const Cluster& c, const Block& b, uint32_t thread, const std::string& name) {
    const Dim3 &grid = l.config.grid, &block = l.config.block, &cl = l.config.cluster;
    uint32_t lane = thread % 32;
    auto axis = [&](const std::string& base, uint32_t x, uint32_t y, uint32_t z, uint64_t* v) {
        if (name.compare(0, base.size(), base) != 0) return false;
        std::string rest = name.substr(base.size());
        if (rest == ".x") return *v = x, true;
        if (rest == ".y") return *v = y, true;
        if (rest == ".z") return *v = z, true;
        return false;
    };
    uint64_t v = 0;
    if (axis("%tid", thread % block.x, thread / block.x % block.y, thread / block.x / block.y, &v)) return v;
    if (axis("%ntid", block.x, block.y, block.z, &v)) return v;
    if (axis("%ctaid", b.id[0], b.id[1], b.id[2], &v)) return v;
    if (axis("%nctaid", grid.x, grid.y, grid.z, &v)) return v;
    if (axis("%cluster_ctaid", b.id[0] % cl.x, b.id[1] % cl.y, b.id[2] % cl.z, &v)) return v;
    if (axis("%cluster_nctaid", cl.x, cl.y, cl.z, &v)) return v;
    if (axis("%clusterid", b.id[0] / cl.x, b.id[1] / cl.y, b.id[2] / cl.z, &v)) return v;
    if (axis("%nclusterid", grid.x / cl.x, grid.y / cl.y, grid.z / cl.z, &v)) return v;
    if (name == "%laneid") return lane;
    if (name == "%warpid") return thread / 32;
    if (name == "%nwarpid") return (block.count() + 31) / 32;
    if (name == "%lanemask_eq") return 1u << lane;
    if (name == "%lanemask_lt") return (1u << lane) - 1;
    if (name == "%lanemask_le") return (2u << lane) - 1;
    if (name == "%lanemask_gt") return ~((2u << lane) - 1);
    if (name == "%lanemask_ge") return ~((1u << lane) - 1);
    if (name == "%smid") return c.linear % uint32_t(l.device.sms);
    if (name == "%nsmid") return uint32_t(l.device.sms);
    if (name == "%gridid") return l.id;
    if (name == "%dynamic_smem_size") return l.config.dynamic_smem;
    if (name == "%total_smem_size" || name == "%aggr_smem_size") return l.shared_bytes;
    if (name == "%cluster_ctarank") return b.rank;
    if (name == "%cluster_nctarank") return cl.count();
    if (name == "%is_explicit_cluster") return cl.count() > 1;
    return 0;
}

void start_block(Worker& worker, Cluster& cluster, Block& b, uint64_t linear) {
    Launch& l = worker.launch;
    const KernelImage& image = l.image;
    const Dim3 &grid = l.config.grid, &block = l.config.block;
    b.cluster = &cluster;
    b.linear = linear;
    b.id[0] = uint32_t(linear % grid.x);
    b.id[1] = uint32_t(linear / grid.x % grid.y);
    b.id[2] = uint32_t(linear / grid.x / grid.y);
    uint32_t threads = uint32_t(block.count()), warps = (threads + 31) / 32;
    b.live_warps = warps;
    for (Barrier& r : b.barriers) r = Barrier{};
    b.shared.assign(l.shared_bytes, 0xFF);
    b.shared_state.assign(l.shared_bytes, 0);
    if (worker.races) b.shadow.reset(l.shared_bytes);
    size_t row_bytes = (image.row_bytes() + 63) / 64 * 64, ids = image.row_count() + 1;
    uint32_t local = (image.local_bytes + 15) / 16 * 16;
    b.rows.assign(row_bytes * warps + 64, 0);
    b.defined.assign(ids * warps, 0);
    b.locals.assign(size_t(local) * 32 * warps, 0xFF);
    b.local_states.assign(size_t(local) * 32 * warps, 0);
    uint8_t* rows = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(b.rows.data()) + 63) / 64 * 64);
    b.warps.resize(warps);
    for (uint32_t i = 0; i < warps; ++i) {
        Warp& w = b.warps[i];
        w = Warp{};
        w.base[0] = rows + row_bytes * i;
        w.base[1] = const_cast<uint8_t*>(image.constants.data());
        w.defined = b.defined.data() + ids * i;
        w.defined[0] = ~0u;
        w.index = i;
        w.slot = b.rank * warps + i;
        w.block = &b;
        w.worker = &worker;
        w.local = b.locals.data() + size_t(local) * 32 * i;
        w.local_state = b.local_states.data() + size_t(local) * 32 * i;
        w.local_stride = local;
        w.local_bytes = image.local_bytes;
        uint32_t lanes = threads - 32 * i < 32 ? (1u << (threads - 32 * i)) - 1 : ~0u;
        w.live = w.lanes = lanes;
        Group g;
        g.pc = image.entry;
        g.mask = lanes;
        w.groups.push_back(g);
        w.clock.own.assign(2 * warps * cluster.blocks.size(), 0);
        w.clock.own[2 * w.slot] = w.time;
        w.ticket = 1;
        for (const SpecialRow& s : image.specials) {
            w.defined[s.id] = ~0u;
            for (uint32_t lane = 0; lane < 32; ++lane) {
                uint64_t v = special_value(l, cluster, b, 32 * i + lane, s.name);
                if (s.wide)
                    row<uint64_t>(w, s.row)[lane] = v;
                else
                    row<uint32_t>(w, s.row)[lane] = uint32_t(v);
            }
        }
    }
    worker.warps += warps;
    ++worker.blocks;
}
}  // namespace

std::unique_ptr<Cluster> Worker::start(uint64_t index) {
    if (!launch.order.empty()) index = launch.order[index];
    std::unique_ptr<Cluster> c;
    if (spare.empty()) {
        c = std::make_unique<Cluster>();
        c->blocks.resize(launch.config.cluster.count());
    } else {
        c = std::move(spare.back());
        spare.pop_back();
    }
    c->linear = uint32_t(index);
    c->live_warps = 0;
    c->polls = c->polling_rounds = 0;
    for (size_t k = 0; k < c->blocks.size(); ++k) {
        c->blocks[k].rank = uint32_t(k);
        start_block(*this, *c, c->blocks[k], index * c->blocks.size() + k);  // 1x1x1 clusters: the block of that number
        c->live_warps += c->blocks[k].live_warps;
    }
    return c;
}

void Worker::add_executed() {
    uint64_t total = launch.executed += executed;
    executed = 0;
    if (total <= launch.options.instruction_budget || launch.stop.exchange(true)) return;
    // Say where everybody is.
    for (auto& c : resident)
        for (Block& b : c->blocks)
            for (Warp& w : b.warps)
                if (!w.done()) {
                    std::string text = "the launch has executed its budget of " +
                                       std::to_string(launch.options.instruction_budget) + " warp instructions; ";
                    return report(w, launch.image.code[w.groups[0].pc], first_lane(w.groups[0].mask), "budget",
                                  text + describe(w), true);
                }
}

bool Worker::step_cluster(Cluster& c) {
    bool any = false;
    const bool seeded = launch.options.seed != 0;
    for (Block& b : c.blocks) {
        uint32_t n = uint32_t(b.warps.size()), first = seeded ? random.below(n) : 0, stride = 1;
        if (seeded && n > 1) {
            stride = 1 + random.below(n);
            while (std::__gcd(stride, n) != 1) ++stride;
        }
        bool skipped = false;
        for (uint32_t k = 0; k < n; ++k) {
            Warp& w = b.warps[(first + uint64_t(k) * stride) % n];
            if (w.done()) continue;
            if (seeded && random.below(4) == 0) {
                skipped = true;
                continue;
            }
            if (launch.options.async == Options::random && !w.copies.empty()) land_some_copies(w);
            any |= run_warp(w, seeded ? 16 + random.below(256) : 512);
            if (launch.stop.load(std::memory_order_relaxed)) return true;
        }
        any |= skipped;
    }
    add_executed();
    return any;
}

void Worker::deadlock(const std::vector<Cluster*>& stuck) {
    for (Cluster* c : stuck) {
        std::string all;
        Warp* first = nullptr;
        const char* code = "deadlock";
        for (Block& b : c->blocks)
            for (Warp& w : b.warps) {
                if (w.done()) continue;
                if (!first) first = &w;
                for (Group& g : w.groups)
                    if (g.state == State::collect || g.state == State::warp_barrier) {
                        bool barrier = launch.image.code[g.pc].cls == Class::barrier && g.state == State::collect;
                        code = barrier ? "barrier" : "collective";
                        first = &w;
                    }
                if (all.size() < 4000) all += "\n  " + describe(w);
            }
        std::string open;
        for (Block& b : c->blocks)
            for (int i = 0; i < 16; ++i)
                if (b.barriers[i].live)
                    open += "\n  barrier " + std::to_string(i) + ": " + std::to_string(b.barriers[i].arrived) + " of " +
                            (b.barriers[i].expected ? std::to_string(b.barriers[i].expected)
                                                    : std::to_string(32 * b.live_warps) + " live") +
                            " threads arrived";
        const Group& g = first->groups[0];
        std::string what = code == std::string("deadlock")
                               ? "no warp of the block can go on"
                               : "lanes of a warp wait for lanes that never come; no warp of the block can go on";
        report(*first, launch.image.code[g.pc], first_lane(g.mask), code, what + ":" + all + open, true);
    }
}

void Worker::run() {
    while (!launch.stop) {
        // One cluster at a time, and another one when all in flight only poll memory that others must write.
        bool want = resident.size() < launch.most_resident;
        for (auto& c : resident) want &= c->polling();
        if (want) {
            uint64_t index = launch.next++;
            if (index < launch.clusters) {
                resident.push_back(start(index));
            } else if (resident.empty()) {
                return;
            } else if (launch.options.threads > 1) {
                std::this_thread::yield();
            }
        }
        for (size_t i = 0; i < resident.size() && !launch.stop;) {
            Cluster& c = *resident[i];
            // A cluster runs on until it is done, cannot go on, or only polls memory that others must write.
            bool finished = false;
            for (int round = 0; round < 1024 && !launch.stop; ++round) {
                bool any = step_cluster(c);
                if (c.live_warps == 0) {
                    finished = true;
                    break;
                }
                if (!any) {
                    deadlock({&c});
                    break;
                }
                c.polling_rounds = c.polls ? c.polling_rounds + 1 : 0;
                c.polls = 0;
                if (c.polling()) break;
            }
            if (finished) {
                spare.push_back(std::move(resident[i]));
                resident.erase(resident.begin() + i);
            } else {
                ++i;
            }
        }
    }
}

}  // namespace vgpu
