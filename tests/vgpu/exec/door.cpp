// A way into the engine for tests, without the runtime front: parse PTX text, place buffers, launch, read the findings.
#include <cstring>
#include <sstream>

#include "exec/decode.h"
#include "exec/engine.h"
#include "ptx/ir.h"

#define VGPU_DOOR extern "C" __attribute__((visibility("default")))

namespace vgpu {
namespace {

struct Door {
    Memory memory;
    std::unique_ptr<Program> program;
    LaunchResult last;
    std::string text;
};
thread_local std::string door_error;

void apply(Options& o, const char* options) {  // "seed=3 async=eager"
    std::istringstream in(options ? options : "");
    for (std::string item; in >> item;) {
        size_t eq = item.find('=');
        set_option(o, item.substr(0, eq), eq == std::string::npos ? "" : item.substr(eq + 1));
    }
}

}  // namespace

VGPU_DOOR const char* vgpu_door_error() { return door_error.c_str(); }

// Null, and vgpu_door_error, if the text does not parse.
VGPU_DOOR void* vgpu_door_open(const char* ptx, const char* device) {
    try {
        const DeviceModel* model = device_model(device);
        if (!model) throw std::runtime_error(std::string("no device ") + device);
        auto door = std::make_unique<Door>();
        door->program = std::make_unique<Program>(parse(ptx, "door"), door->memory, *model);
        return door.release();
    } catch (const std::exception& e) {
        door_error = e.what();
        return nullptr;
    }
}
VGPU_DOOR void vgpu_door_close(void* d) {
    Door* door = static_cast<Door*>(d);
    door->program.reset();
    delete door;
}
VGPU_DOOR void* vgpu_door_allocate(void* d, uint64_t bytes) {
    return static_cast<Door*>(d)->memory.allocate(bytes, MemKind::device, "test");
}
VGPU_DOOR int vgpu_door_release(void* d, void* p) { return static_cast<Door*>(d)->memory.release(p); }
VGPU_DOOR void vgpu_door_write(void* d, void* to, const void* from, uint64_t bytes) {
    std::memcpy(to, from, bytes);
    static_cast<Door*>(d)->memory.mark_defined(to, bytes);
}
VGPU_DOOR void vgpu_door_read(void* to, const void* from, uint64_t bytes) { std::memcpy(to, from, bytes); }

// 1 if clean, 0 with findings, -1 on a bad option (vgpu_door_error). shape: grid x y z, block x y z, dynamic shared
// bytes.
VGPU_DOOR int vgpu_door_launch(void* d, const char* kernel, const uint32_t* shape, const void* const* args,
                               const char* options) {
    Door& door = *static_cast<Door*>(d);
    try {
        Options o;
        apply(o, options);
        LaunchConfig c;
        c.grid = {shape[0], shape[1], shape[2]};
        c.block = {shape[3], shape[4], shape[5]};
        c.dynamic_smem = shape[6];
        c.args = args;
        door.last = door.program->launch(kernel, c, o);
        return door.last.ok;
    } catch (const std::exception& e) {
        door_error = e.what();
        return -1;
    }
}
VGPU_DOOR const char* vgpu_door_result(void* d, int with_lines) {
    Door& door = *static_cast<Door*>(d);
    door.text = "{\"reports\": " + to_json(door.last.reports) + ", \"notes\": " + to_json(door.last.notes) +
                ", \"printed\": " + json_quote(door.last.printed) +
                ", \"counters\": " + door.last.counters.json(with_lines) + "}";
    return door.text.c_str();
}
// What the module's kernels hold that the engine does not know, found without a launch: "<PTX line> <opcode>: <why>".
VGPU_DOOR const char* vgpu_door_refused(void* d) {
    Door& door = *static_cast<Door*>(d);
    door.text.clear();
    for (const std::string& r : door.program->refused()) door.text += r + "\n";
    return door.text.c_str();
}
// Names of the opcode table, one a line.
VGPU_DOOR const char* vgpu_door_opcodes(void* d) {
    Door& door = *static_cast<Door*>(d);
    door.text.clear();
    for (const std::string& n : opcode_names()) door.text += n + "\n";
    return door.text.c_str();
}

}  // namespace vgpu
