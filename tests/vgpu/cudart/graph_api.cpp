// Calls on graphs: building, instantiating, launching. Updates of an executable graph are not implemented.
#include <algorithm>

#include "cudart/capture.h"
#include "cudart/graph.h"
#include "cudart/module.h"
#include "cudart/stream.h"

namespace vgpu {

Work prepare_kernel_node(const abi::KernelNodeParams&);  // launch.cpp
CopyWork copy_of(const abi::Copy3D&);                    // copy.cpp

namespace {

std::vector<Node*> dependencies(Graph& graph, void* const* nodes, size_t count) {
    if (count && !nodes) fail(kInvalidValue, "the dependencies are null");
    std::vector<Node*> after;
    for (size_t i = 0; i < count; i++) {
        auto* node = static_cast<Node*>(nodes[i]);
        if (!graph.holds(node)) fail(kInvalidValue, "dependency " + std::to_string(i) + " is no node of this graph");
        if (std::find(after.begin(), after.end(), node) != after.end())
            fail(kInvalidValue, "dependency " + std::to_string(i) + " is given twice");
        after.push_back(node);
    }
    return after;
}

template <class Make>
Error add(const char* name, void** out, void* graph_handle, void* const* nodes, size_t count, Make&& make) {
    return api(name, Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the node's address is null");
        Graph& graph = graph_of(graph_handle);
        const std::vector<Node*> after = dependencies(graph, nodes, count);
        Work work = make();
        work.what = name;
        *out = &add_node(graph, std::move(work), after);
        return kSuccess;
    });
}

Work kernel_work(const abi::KernelNodeParams* params) {
    if (!params) fail(kInvalidValue, "the parameters are null");
    return prepare_kernel_node(*params);
}

Work copy_work(CopyWork copy) {
    Work work;
    work.type = check_copy(runtime(), copy) ? abi::node_memcpy : abi::node_empty;
    work.copy = std::move(copy);
    return work;
}

Work fill_work(const abi::MemsetParams* params) {
    if (!params) fail(kInvalidValue, "the parameters are null");
    if (params->element_size != 1 && params->element_size != 2 && params->element_size != 4)
        fail(kInvalidValue, "elements of " + std::to_string(params->element_size) + " bytes; allowed: 1, 2, 4");
    Work work;
    work.fill.dst = static_cast<uint8_t*>(params->dst);
    work.fill.pitch = params->pitch;
    work.fill.value = params->value;
    work.fill.element = params->element_size;
    work.fill.width = params->width;
    work.fill.height = params->height;
    work.type = check_fill(runtime(), work.fill) ? abi::node_memset : abi::node_empty;
    return work;
}

Work host_work(const abi::HostNodeParams* params) {
    if (!params || !params->function) fail(kInvalidValue, "the function is null");
    Work work;
    work.type = abi::node_host;
    work.host.function = params->function;
    work.host.data = params->data;
    return work;
}

void list(const std::vector<Node*>& nodes, void** out, size_t* count) {
    if (!count) fail(kInvalidValue, "the count's address is null");
    if (!out) {
        *count = nodes.size();
        return;
    }
    for (size_t i = 0; i < *count; i++) out[i] = i < nodes.size() ? nodes[i] : nullptr;
    *count = std::min(*count, nodes.size());
}

Error instantiate(const char* name, void** out, void* graph, unsigned long long flags) {
    return api(name, Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the executable graph's address is null");
        if (flags & ~0xfull) fail(kInvalidValue, "flags " + std::to_string(flags));
        if (flags & 4) fail(kNotSupported, "graphs launched from the device");
        auto exec = std::make_unique<GraphExec>(make_exec(graph_of(graph)));
        exec->flags = flags;
        *out = exec.get();
        runtime().graph_execs.insert(exec.release());
        return kSuccess;
    });
}

}  // namespace

VGPU_API Error cudaGraphCreate(void** out, unsigned flags) {
    return api("cudaGraphCreate", Needs::context, [&] {
        if (!out || flags) fail(kInvalidValue, "the graph's address is null, or flags are not 0");
        auto* graph = new Graph();
        runtime().graphs.insert(graph);
        *out = graph;
        return kSuccess;
    });
}

VGPU_API Error cudaGraphDestroy(void* handle) {
    return api("cudaGraphDestroy", Needs::context, [&] {
        Graph* graph = &graph_of(handle);
        runtime().graphs.erase(graph);
        delete graph;
        return kSuccess;
    });
}

VGPU_API Error cudaGraphClone(void** out, void* handle) {
    return api("cudaGraphClone", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the graph's address is null");
        Graph* copy = clone(graph_of(handle)).release();
        runtime().graphs.insert(copy);
        *out = copy;
        return kSuccess;
    });
}

VGPU_API Error cudaGraphAddKernelNode(void** out, void* graph, void* const* nodes, size_t count,
                                      const abi::KernelNodeParams* params) {
    return add("cudaGraphAddKernelNode", out, graph, nodes, count, [&] { return kernel_work(params); });
}

VGPU_API Error cudaGraphAddMemcpyNode(void** out, void* graph, void* const* nodes, size_t count,
                                      const abi::Copy3D* params) {
    return add("cudaGraphAddMemcpyNode", out, graph, nodes, count, [&] {
        if (!params) fail(kInvalidValue, "the parameters are null");
        return copy_work(copy_of(*params));
    });
}

VGPU_API Error cudaGraphAddMemcpyNode1D(void** out, void* graph, void* const* nodes, size_t count, void* dst,
                                        const void* src, size_t bytes, int kind) {
    return add("cudaGraphAddMemcpyNode1D", out, graph, nodes, count,
               [&] { return copy_work(linear(dst, src, bytes, kind)); });
}

VGPU_API Error cudaGraphAddMemsetNode(void** out, void* graph, void* const* nodes, size_t count,
                                      const abi::MemsetParams* params) {
    return add("cudaGraphAddMemsetNode", out, graph, nodes, count, [&] { return fill_work(params); });
}

VGPU_API Error cudaGraphAddHostNode(void** out, void* graph, void* const* nodes, size_t count,
                                    const abi::HostNodeParams* params) {
    return add("cudaGraphAddHostNode", out, graph, nodes, count, [&] { return host_work(params); });
}

VGPU_API Error cudaGraphAddEmptyNode(void** out, void* graph, void* const* nodes, size_t count) {
    return add("cudaGraphAddEmptyNode", out, graph, nodes, count, [] { return Work{}; });
}

VGPU_API Error cudaGraphAddChildGraphNode(void** out, void* graph, void* const* nodes, size_t count, void* child) {
    std::shared_ptr<Graph> copy;
    const Error error = add("cudaGraphAddChildGraphNode", out, graph, nodes, count, [&] {
        copy = clone(graph_of(child));
        Work work;
        work.type = abi::node_graph;
        return work;
    });
    if (error == kSuccess) static_cast<Node*>(*out)->child = std::move(copy);
    return error;
}

VGPU_API Error cudaGraphAddDependencies(void* handle, void* const* from, void* const* to, const abi::EdgeData*,
                                        size_t count) {
    return api("cudaGraphAddDependencies", Needs::context, [&] {
        Graph& graph = graph_of(handle);
        for (size_t i = 0; i < count; i++) {
            auto *before = static_cast<Node*>(from[i]), *node = static_cast<Node*>(to[i]);
            if (!graph.holds(before) || !graph.holds(node)) fail(kInvalidValue, "an end is no node of this graph");
            if (std::find(node->after.begin(), node->after.end(), before) != node->after.end())
                fail(kInvalidValue, "the dependency exists already");
            node->after.push_back(before);
        }
        return kSuccess;
    });
}

VGPU_API Error cudaGraphDestroyNode(void* handle) {
    return api("cudaGraphDestroyNode", Needs::context, [&] {
        Node* node = &node_of(handle);
        auto& nodes = node->graph->nodes;
        for (const auto& other : nodes) {
            auto& after = other->after;
            after.erase(std::remove(after.begin(), after.end(), node), after.end());
        }
        nodes.erase(std::find_if(nodes.begin(), nodes.end(), [&](const auto& own) { return own.get() == node; }));
        return kSuccess;
    });
}

VGPU_API Error cudaGraphGetNodes(void* handle, void** out, size_t* count) {
    return api("cudaGraphGetNodes", Needs::context, [&] {
        std::vector<Node*> nodes;
        for (const auto& node : graph_of(handle).nodes) nodes.push_back(node.get());
        list(nodes, out, count);
        return kSuccess;
    });
}

VGPU_API Error cudaGraphGetRootNodes(void* handle, void** out, size_t* count) {
    return api("cudaGraphGetRootNodes", Needs::context, [&] {
        std::vector<Node*> nodes;
        for (const auto& node : graph_of(handle).nodes)
            if (node->after.empty()) nodes.push_back(node.get());
        list(nodes, out, count);
        return kSuccess;
    });
}

VGPU_API Error cudaGraphNodeGetDependencies(void* handle, void** out, abi::EdgeData* edges, size_t* count) {
    return api("cudaGraphNodeGetDependencies", Needs::context, [&] {
        const Node& node = node_of(handle);
        list(node.after, out, count);
        if (out && edges) std::fill_n(edges, *count, abi::EdgeData{});
        return kSuccess;
    });
}

VGPU_API Error cudaGraphNodeGetType(void* handle, int* out) {
    return api("cudaGraphNodeGetType", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the type's address is null");
        *out = node_of(handle).work.type;
        return kSuccess;
    });
}

VGPU_API Error cudaGraphKernelNodeGetParams(void* handle, abi::KernelNodeParams* out) {
    return api("cudaGraphKernelNodeGetParams", Needs::context, [&] {
        Node& node = node_of(handle);
        if (!out || node.work.type != abi::node_kernel) fail(kInvalidValue, "no kernel node");
        KernelWork& work = node.work.kernel;
        node.argument_pointers.clear();
        for (auto& value : work.args) node.argument_pointers.push_back(value.data());
        out->function = const_cast<void*>(work.kernel->host ? work.kernel->host : work.kernel);
        out->grid = work.grid;
        out->block = work.block;
        out->shared_bytes = work.dynamic_smem;
        out->params = reinterpret_cast<void**>(node.argument_pointers.data());
        out->extra = nullptr;
        return kSuccess;
    });
}

VGPU_API Error cudaGraphKernelNodeSetParams(void* handle, const abi::KernelNodeParams* params) {
    return api("cudaGraphKernelNodeSetParams", Needs::context, [&] {
        Node& node = node_of(handle);
        if (node.work.type != abi::node_kernel) fail(kInvalidValue, "no kernel node");
        node.work = kernel_work(params);
        return kSuccess;
    });
}

VGPU_API Error cudaGraphInstantiate(void** out, void* graph, unsigned long long flags) {
    return instantiate("cudaGraphInstantiate", out, graph, flags);
}
VGPU_API Error cudaGraphInstantiateWithFlags(void** out, void* graph, unsigned long long flags) {
    return instantiate("cudaGraphInstantiateWithFlags", out, graph, flags);
}
VGPU_API Error cudaGraphInstantiateWithParams(void** out, void* graph, abi::InstantiateParams* params) {
    const Error error =
        instantiate("cudaGraphInstantiateWithParams", out, graph, params ? params->flags & ~2ull : ~0ull);
    if (params) params->result = error == kSuccess ? 0 : 1;
    return error;
}
VGPU_API Error cudaGraphInstantiateWithParams_ptsz(void** out, void* graph, abi::InstantiateParams* params) {
    return cudaGraphInstantiateWithParams(out, graph, params);
}

VGPU_API Error cudaGraphExecGetFlags(void* exec, unsigned long long* out) {
    return api("cudaGraphExecGetFlags", Needs::context, [&] {
        if (!out) fail(kInvalidValue, "the flags' address is null");
        *out = exec_of(exec).flags;
        return kSuccess;
    });
}

VGPU_API Error cudaGraphExecDestroy(void* handle) {
    return api("cudaGraphExecDestroy", Needs::context, [&] {
        GraphExec* exec = &exec_of(handle);
        runtime().graph_execs.erase(exec);
        delete exec;
        return kSuccess;
    });
}

VGPU_API Error cudaGraphUpload(void* exec, void* stream) {
    return api("cudaGraphUpload", Needs::context, [&] {
        exec_of(exec);
        submit(stream_of(stream), Work{});
        return kSuccess;
    });
}
VGPU_API Error cudaGraphUpload_ptsz(void* exec, void* stream) { return cudaGraphUpload(exec, per_thread(stream)); }

// One piece of work in its stream. Its nodes run in a legal order of their own.
VGPU_API Error cudaGraphLaunch(void* handle, void* stream_handle) {
    return api("cudaGraphLaunch", Needs::context, [&] {
        const GraphExec& exec = exec_of(handle);
        Stream& stream = stream_of(stream_handle);
        Work work;
        work.type = abi::node_graph;
        work.what = "cudaGraphLaunch";
        auto works = std::make_shared<std::vector<Work>>();
        for (const size_t i : execution_order(exec, runtime().host_order)) works->push_back(exec.items[i].work);
        work.graph = std::move(works);
        submit(stream, std::move(work));
        return kSuccess;
    });
}
VGPU_API Error cudaGraphLaunch_ptsz(void* exec, void* stream) { return cudaGraphLaunch(exec, per_thread(stream)); }

}  // namespace vgpu
