#include "threads.h"

#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif
#if !defined(_WIN32)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace momentumrnn {
namespace {

// The entry points that libgomp has and LLVM's and Intel's runtimes offer under the same names.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread_num)() = nullptr;
    int (*num_threads)() = nullptr;

    OpenMP() {
#if !defined(_WIN32)
        // Torch loads its runtime for everyone to see, so that it needs no name.
        parallel = reinterpret_cast<decltype(parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        thread_num = reinterpret_cast<decltype(thread_num)>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
        num_threads = reinterpret_cast<decltype(num_threads)>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
#endif
    }
    bool found() const { return parallel && thread_num && num_threads; }
};

const OpenMP& openmp() {
    static const OpenMP runtime;
    return runtime;
}

// OpenMP's threads do not exist in a forked child, and its runtime waits for them forever.
std::atomic<bool> forked{false};
#if !defined(_WIN32)
const int watching = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    asm volatile("yield");
#endif
}

}  // namespace

void Member::wait() const {
    if (members == 1) return;
    const unsigned round = barrier->round.load(std::memory_order_relaxed);
    if (barrier->arrived.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
        barrier->arrived.store(0, std::memory_order_relaxed);
        barrier->round.store(round + 1, std::memory_order_release);
        return;
    }
    // Longer than a step takes on an idle machine; on a busy one the core is better given away.
    for (int spins = 0; barrier->round.load(std::memory_order_acquire) == round; spins++)
        spins < 4000 ? pause() : std::this_thread::yield();
}

void team(int wanted, const std::function<void(const Member&)>& body) {
    Barrier barrier;
    if (wanted <= 1 || forked) return body({0, 1, &barrier});
    if (openmp().found()) {
        struct Shared {
            const std::function<void(const Member&)>& body;
            Barrier& barrier;
        } shared{body, barrier};
        openmp().parallel(
            [](void* given) {
                const Shared& all = *static_cast<Shared*>(given);
                all.body({openmp().thread_num(), openmp().num_threads(), &all.barrier});
            },
            &shared, static_cast<unsigned>(wanted), 0);
        return;
    }
    // How many there are is known when all have been asked for: the system may have no more to give.
    std::atomic<int> members{0};
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(wanted - 1));
    try {
        for (int i = 1; i < wanted; i++)
            others.emplace_back([&, i] {
                int count;
                while (!(count = members.load(std::memory_order_acquire))) std::this_thread::yield();
                body({i, count, &barrier});
            });
    } catch (const std::system_error&) {
    }
    const int count = 1 + static_cast<int>(others.size());
    members.store(count, std::memory_order_release);
    body({0, count, &barrier});
    for (std::thread& thread : others) thread.join();
}

void parallel(int parts, const std::function<void(int)>& body) {
    team(parts, [&](const Member& me) {
        for (int part = me.id; part < parts; part += me.members) body(part);
    });
}

void run_alone() { forked = true; }

const char* threading() { return openmp().found() ? "OpenMP" : "std::thread"; }

}  // namespace momentumrnn
