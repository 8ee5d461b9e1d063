#include "pool.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#if defined(_WIN32)
#include <malloc.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace momentumrnn {
namespace {

constexpr size_t small = size_t(1) << 20;
constexpr size_t huge_page = size_t(2) << 20;

struct Block {
    void* memory;
    size_t bytes;
};

void* allocate(size_t bytes, size_t alignment) {
#if defined(_WIN32)
    void* memory = _aligned_malloc(bytes, alignment);
#else
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, bytes)) memory = nullptr;
#endif
    if (!memory) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (alignment >= huge_page) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
}

void give_back(void* memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}

class Pool {
public:
    void* acquire(size_t bytes) {
        if (bytes < small) return remember({allocate(std::max<size_t>(bytes, 64), 64), 0});
        const size_t rounded = (bytes + huge_page - 1) / huge_page * huge_page;
        {
            const std::lock_guard<std::mutex> hold(lock_);
            const auto best = std::min_element(idle_.begin(), idle_.end(), [&](const Block& a, const Block& b) {
                return misfit(a, rounded) < misfit(b, rounded);
            });
            if (best != idle_.end() && misfit(*best, rounded) <= rounded / 8) {
                const Block block = *best;
                idle_.erase(best);
                state_.idle -= block.bytes;
                return started(block);
            }
            // The peak rises only once the memory is there.
            const size_t needed = state_.in_use + rounded;
            shrink(std::max(peak_, needed) - needed);
        }
        return remember({allocate(rounded, huge_page), rounded});
    }

    void release(void* memory) {
        const std::lock_guard<std::mutex> hold(lock_);
        const auto found = live_.find(memory);
        const Block block{memory, found->second};
        live_.erase(found);
        if (!block.bytes) return give_back(memory);
        state_.in_use -= block.bytes;
        idle_.push_back(block);
        state_.idle += block.bytes;
        shrink(state_.cap);
    }

    void set_cap(size_t bytes) {
        const std::lock_guard<std::mutex> hold(lock_);
        state_.cap = bytes;
        shrink(bytes);
    }

    void empty() {
        const std::lock_guard<std::mutex> hold(lock_);
        shrink(0);
        peak_ = state_.in_use;
    }

    PoolState state() {
        const std::lock_guard<std::mutex> hold(lock_);
        return state_;
    }

    std::mutex& lock() { return lock_; }

private:
    static size_t misfit(const Block& block, size_t wanted) {
        return block.bytes < wanted ? std::numeric_limits<size_t>::max() : block.bytes - wanted;
    }

    void* remember(const Block& block) {
        const std::lock_guard<std::mutex> hold(lock_);
        return started(block);
    }

    void* started(const Block& block) {
        live_.emplace(block.memory, block.bytes);
        state_.in_use += block.bytes;
        peak_ = std::max(peak_, state_.in_use);
        return block.memory;
    }

    // Idle blocks lie in the order in which they were given back.
    void shrink(size_t allowed) {
        size_t gone = 0;
        while (state_.idle > allowed) {
            state_.idle -= idle_[gone].bytes;
            give_back(idle_[gone++].memory);
        }
        idle_.erase(idle_.begin(), idle_.begin() + static_cast<std::ptrdiff_t>(gone));
    }

    std::mutex lock_;
    std::unordered_map<void*, size_t> live_;
    std::vector<Block> idle_;
    PoolState state_{0, 0, size_t(2) << 30};
    size_t peak_ = 0;
};

// Never destroyed: a tensor may outlive every static of this library.
Pool& pool() {
    static Pool* const only = new Pool;
    return *only;
}

#if !defined(_WIN32)
// A child forked while another thread was inside would find the pool locked for good.
const int watching = pthread_atfork([] { pool().lock().lock(); }, [] { pool().lock().unlock(); },
                                    [] { pool().lock().unlock(); });
#endif

}  // namespace

void* acquire(size_t bytes) { return pool().acquire(bytes); }
void release(void* memory) noexcept { pool().release(memory); }
PoolState pool_state() { return pool().state(); }
void set_pool_cap(size_t bytes) { pool().set_cap(bytes); }
void empty_pool() { pool().empty(); }

}  // namespace momentumrnn
