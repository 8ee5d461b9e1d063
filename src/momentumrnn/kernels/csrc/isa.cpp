#include "isa.h"

#include <atomic>
#include <stdexcept>

#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace momentumrnn {

#if defined(MOMENTUMRNN_HAVE_AVX512)
extern const Kernels kernels_avx512;
#endif
#if defined(MOMENTUMRNN_HAVE_AVX2)
extern const Kernels kernels_avx2;
#endif
extern const Kernels kernels_baseline;

namespace {

#if defined(_MSC_VER)
// Asked of the processor itself, and of the system, which has to save the wide registers.
bool has(int leaf7_ebx, unsigned long long saved) {
    int leaf[4];
    __cpuid(leaf, 1);
    constexpr int fma = 1 << 12, xsave = 1 << 27;
    if (!(leaf[2] & fma) || !(leaf[2] & xsave) || (_xgetbv(0) & saved) != saved) return false;
    __cpuidex(leaf, 7, 0);
    return (leaf[1] & leaf7_ebx) == leaf7_ebx;
}
#endif

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> found;
#if defined(_MSC_VER)
#if defined(MOMENTUMRNN_HAVE_AVX512)
    if (has(1 << 5 | 1 << 16 | 1 << 17 | 1 << 30 | static_cast<int>(1u << 31), 0xe6)) found.push_back(&kernels_avx512);
#endif
#if defined(MOMENTUMRNN_HAVE_AVX2)
    if (has(1 << 5, 0x6)) found.push_back(&kernels_avx2);
#endif
#else
#if defined(MOMENTUMRNN_HAVE_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(&kernels_avx512);
#endif
#if defined(MOMENTUMRNN_HAVE_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kernels_avx2);
#endif
#endif
    found.push_back(&kernels_baseline);
    return found;
}

std::atomic<const Kernels*>& current() {
    static std::atomic<const Kernels*> chosen{available().front()};
    return chosen;
}

}  // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels* kernels : available()) names.emplace_back(kernels->name);
    return names;
}

const Kernels& kernels() { return *current(); }

void use_instruction_set(const std::string& name) {
    for (const Kernels* kernels : available())
        if (name == kernels->name) {
            current() = kernels;
            return;
        }
    throw std::invalid_argument("no instruction set " + name);
}

}  // namespace momentumrnn
