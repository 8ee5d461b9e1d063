// Memory that is used again.
//
// A training step asks for the same few large buffers every time. Fresh ones cost a page fault for every
// four kilobytes, which can take as long as the arithmetic; so large buffers are kept when they are given
// back, on huge pages where the system has them. The pool never makes a process larger than it was at its
// own peak: before it takes new memory it gives back as much as it must of what lies idle, the oldest first.
#pragma once

#include <cstddef>

namespace momentumrnn {

struct PoolState {
    size_t in_use, idle, cap;
};

// 64-byte aligned. Throws std::bad_alloc.
void* acquire(size_t bytes);
void release(void* memory) noexcept;

PoolState pool_state();
// At most this many idle bytes are kept.
void set_pool_cap(size_t bytes);
void empty_pool();

// Scratch memory of one call.
template <class T> class Buffer {
public:
    explicit Buffer(size_t count) : data_(count ? static_cast<T*>(acquire(count * sizeof(T))) : nullptr) {}
    ~Buffer() {
        if (data_) release(data_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    operator T*() const { return data_; }

private:
    T* data_;
};

}  // namespace momentumrnn
