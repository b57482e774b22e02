// Graphs of work: as captured from streams or built by hand, and made executable.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "cudart/work.h"

namespace vgpu {

struct Node {
    Graph* graph = nullptr;
    Work work;
    std::vector<Node*> after;
    std::shared_ptr<Graph> child;             // type node_graph
    std::vector<uint8_t*> argument_pointers;  // what cudaGraphKernelNodeGetParams hands out
};

struct Graph {
    std::vector<std::unique_ptr<Node>> nodes;
    bool holds(const Node* node) const;
};

struct GraphExec {
    // Indices follow the order of the graph's nodes; `node` is only compared, never followed.
    struct Item {
        const Node* node = nullptr;
        Work work;
        std::vector<size_t> after;
        bool enabled = true;
    };
    std::vector<Item> items;
    unsigned long long flags = 0;
};

Graph& graph_of(void* handle);
Node& node_of(void* handle);
GraphExec& exec_of(void* handle);

// Throws if the graph has a cycle.
GraphExec make_exec(const Graph&);
// Items in a legal order: first come first served, or drawn from the runtime's random numbers.
std::vector<size_t> execution_order(const GraphExec&, HostOrder);
Node& add_node(Graph&, Work, const std::vector<Node*>& after);
std::unique_ptr<Graph> clone(const Graph&, std::map<const Node*, Node*>* mapping = nullptr);

}  // namespace vgpu
