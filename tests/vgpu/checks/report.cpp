#include "checks/report.h"

namespace vgpu {

static std::string triple(const uint32_t v[3]) { return "(" + std::to_string(v[0]) + "," + std::to_string(v[1]) + "," + std::to_string(v[2]) + ")"; }

std::string to_string(const Report& r) {
    std::string s = r.code + ": " + r.text;
    if (!r.kernel.empty()) {
        s += " [kernel " + r.kernel + ", block " + triple(r.cta) + ", thread " + triple(r.thread);
        if (r.ptx_line) s += ", PTX line " + std::to_string(r.ptx_line) + " `" + r.opcode + "`";
        if (r.source_line) s += ", " + (r.source_file.empty() ? std::string("source") : r.source_file) + ":" + std::to_string(r.source_line);
        s += "]";
    }
    if (r.count > 1) s += " (" + std::to_string(r.count) + " times)";
    return s;
}

std::string json_quote(const std::string& text) {
    static const char* digits = "0123456789abcdef";
    std::string s = "\"";
    for (unsigned char c : text) {
        if (c == '"' || c == '\\')
            s += '\\', s += char(c);
        else if (c == '\n')
            s += "\\n";
        else if (c < 0x20)
            s += "\\u00", s += digits[c >> 4], s += digits[c & 15];
        else
            s += char(c);
    }
    return s + "\"";
}

std::string to_json(const Report& r) {
    auto list = [](const uint32_t v[3]) { return "[" + std::to_string(v[0]) + ", " + std::to_string(v[1]) + ", " + std::to_string(v[2]) + "]"; };
    return "{\"code\": " + json_quote(r.code) + ", \"text\": " + json_quote(r.text) + ", \"kernel\": " + json_quote(r.kernel) + ", \"block\": " + list(r.cta) +
           ", \"thread\": " + list(r.thread) + ", \"ptx_line\": " + std::to_string(r.ptx_line) + ", \"opcode\": " + json_quote(r.opcode) +
           ", \"source_file\": " + json_quote(r.source_file) + ", \"source_line\": " + std::to_string(r.source_line) + ", \"count\": " + std::to_string(r.count) + "}";
}
std::string to_json(const std::vector<Report>& all) {
    std::string s = "[";
    for (size_t i = 0; i < all.size(); ++i) s += (i ? ", " : "") + to_json(all[i]);
    return s + "]";
}

}  // namespace vgpu
