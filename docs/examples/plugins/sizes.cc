/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts requests by their length, in C++.  No exception may leave a callback:
 * "open" is the only one here that could see one.
 */
#include <array>
#include <atomic>
#include <cstdio>
#include <new>
#include <weir-plugin.h>

namespace {

constexpr std::array<uint64_t, 5> limits = { 4096, 16384, 65536, 262144,
                                             UINT64_MAX };

class Sizes {
public:
    explicit Sizes(WeirPluginDisk *on) : disk(on) {}

    void count(uint64_t bytes)
    {
        for (size_t i = 0; i < limits.size(); i++) {
            if (bytes <= limits[i]) {
                counts[i].fetch_add(1, std::memory_order_relaxed);
                return;
            }
        }
    }

    void tell(WeirPluginGauges *gauges) const
    {
        for (size_t i = 0; i < limits.size(); i++) {
            char name[32] = "longer";

            if (limits[i] != UINT64_MAX) {
                std::snprintf(name, sizeof(name), "up-to-%llu",
                              static_cast<unsigned long long>(limits[i]));
            }
            weir_plugin_gauge(disk, gauges, name, "requests", counts[i], 1);
        }
    }

private:
    WeirPluginDisk *disk;
    std::array<std::atomic<uint64_t>, limits.size()> counts{};
};

int sizes_open(WeirPluginDisk *disk, void **handle)
{
    *handle = new (std::nothrow) Sizes(disk);
    return *handle ? 0 : -ENOMEM;
}

void sizes_close(void *handle, WeirPluginIo *)
{
    delete static_cast<Sizes *>(handle);
}

int sizes_request(void *handle, WeirPluginIo *, WeirPluginRequest *request)
{
    static_cast<Sizes *>(handle)->count(request->bytes);
    return WEIR_PLUGIN_PASS;
}

void sizes_statistics(void *handle, WeirPluginGauges *gauges)
{
    static_cast<const Sizes *>(handle)->tell(gauges);
}

const WeirPlugin plugin = [] {
    WeirPlugin p = {};

    p.abi = WEIR_PLUGIN_ABI;
    p.struct_size = sizeof(WeirPlugin);
    p.option_size = sizeof(WeirPluginOption);
    p.name = "sizes";
    p.version = "1.0";
    p.description = "counts requests by their length";
    p.plugin_class = WEIR_PLUGIN_CLASS_INSPECTION;
    p.capabilities = WEIR_PLUGIN_MAY_BYPASS;
    p.concurrency = WEIR_PLUGIN_PARALLEL;
    p.open = sizes_open;
    p.close = sizes_close;
    p.read = sizes_request;
    p.write = sizes_request;
    p.zero = sizes_request;
    p.discard = weir_plugin_pass;
    p.block_status = [](void *, WeirPluginIo *, uint64_t, uint64_t,
                        WeirPluginStatus *) { return int(WEIR_PLUGIN_PASS); };
    p.statistics = sizes_statistics;
    return p;
}();

}

WEIR_PLUGIN_REGISTER(plugin);
