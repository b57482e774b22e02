// Graphs as data: nodes, copies, orders of execution.
#include "cudart/graph.h"

#include <algorithm>

namespace vgpu {

bool Graph::holds(const Node* node) const {
    return std::any_of(nodes.begin(), nodes.end(), [&](const auto& own) { return own.get() == node; });
}

Graph& graph_of(void* handle) {
    if (!runtime().graphs.count(handle)) fail(kInvalidValue, "no such graph");
    return *static_cast<Graph*>(handle);
}

GraphExec& exec_of(void* handle) {
    if (!runtime().graph_execs.count(handle)) fail(kInvalidValue, "no such executable graph");
    return *static_cast<GraphExec*>(handle);
}

Node& node_of(void* handle) {
    for (const void* graph : runtime().graphs)
        if (static_cast<const Graph*>(graph)->holds(static_cast<Node*>(handle))) return *static_cast<Node*>(handle);
    fail(kInvalidValue, "no such node");
}

Node& add_node(Graph& graph, Work work, const std::vector<Node*>& after) {
    auto node = std::make_unique<Node>();
    node->graph = &graph;
    node->work = std::move(work);
    node->after = after;
    graph.nodes.push_back(std::move(node));
    return *graph.nodes.back();
}

std::unique_ptr<Graph> clone(const Graph& graph, std::map<const Node*, Node*>* mapping) {
    std::map<const Node*, Node*> local;
    auto& map = mapping ? *mapping : local;
    auto copy = std::make_unique<Graph>();
    for (const auto& node : graph.nodes) {
        Node& added = add_node(*copy, node->work, {});
        added.child = node->child ? std::shared_ptr<Graph>(clone(*node->child)) : nullptr;
        map[node.get()] = &added;
    }
    for (const auto& node : graph.nodes)
        for (const Node* before : node->after) map[node.get()]->after.push_back(map[before]);
    return copy;
}

GraphExec make_exec(const Graph& graph) {
    GraphExec exec;
    std::map<const Node*, size_t> index;
    for (const auto& node : graph.nodes) {
        GraphExec::Item item;
        item.node = node.get();
        item.work = node->work;
        if (node->child) {
            const GraphExec child = make_exec(*node->child);
            auto works = std::make_shared<std::vector<Work>>();
            for (const size_t i : execution_order(child, HostOrder::lazy)) works->push_back(child.items[i].work);
            item.work.graph = std::move(works);
        }
        index[node.get()] = exec.items.size();
        exec.items.push_back(std::move(item));
    }
    for (size_t i = 0; i < exec.items.size(); i++)
        for (const Node* before : graph.nodes[i]->after) exec.items[i].after.push_back(index.at(before));
    if (execution_order(exec, HostOrder::lazy).size() != exec.items.size())
        fail(kInvalidValue, "the graph has a cycle");
    return exec;
}

std::vector<size_t> execution_order(const GraphExec& exec, HostOrder order) {
    std::vector<size_t> missing(exec.items.size()), result, ready;
    std::vector<std::vector<size_t>> next(exec.items.size());
    for (size_t i = 0; i < exec.items.size(); i++) {
        missing[i] = exec.items[i].after.size();
        for (const size_t before : exec.items[i].after) next[before].push_back(i);
        if (!missing[i]) ready.push_back(i);
    }
    while (!ready.empty()) {
        // lazy: the newest first, so that a forgotten dependency shows; eager: in order of creation.
        size_t pick = 0;
        if (order == HostOrder::lazy) pick = size_t(std::max_element(ready.begin(), ready.end()) - ready.begin());
        if (order == HostOrder::eager) pick = size_t(std::min_element(ready.begin(), ready.end()) - ready.begin());
        if (order == HostOrder::random) pick = runtime().random() % ready.size();
        const size_t item = ready[pick];
        ready.erase(ready.begin() + long(pick));
        result.push_back(item);
        for (const size_t after : next[item])
            if (--missing[after] == 0) ready.push_back(after);
    }
    return result;
}

}  // namespace vgpu
