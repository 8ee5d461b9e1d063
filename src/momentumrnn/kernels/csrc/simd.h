// Vectors of one register's width, for whatever instruction set this file is compiled for.
//
// Everything above this file is written once, over Simd<T>::V. GCC and Clang give the arithmetic through
// their vector extension, from AVX-512 to NEON. Without it, on vectors of one element, the kernels were ten times
// slower than torch's, so no other compiler is served.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "index.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define MOMENTUMRNN_X86 1
#endif

#if !defined(__GNUC__) && !defined(__clang__)
#error "the kernels need the vector extension of GCC or Clang (on Windows: MinGW or clang-cl)"
#endif

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#define NOINLINE_MEMBER __attribute__((noinline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

namespace momentumrnn::MOMENTUMRNN_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
// Rows of a register tile: 12 x 2 accumulators, two panel vectors and a broadcast fit 32 registers.
constexpr int tile_rows = 12;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
constexpr int tile_rows = 6;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16;
constexpr int tile_rows = 12;
#else
constexpr int vector_bytes = 16;
constexpr int tile_rows = 6;
#endif

template <class T> struct Simd;

template <> struct Simd<float> {
    typedef float V __attribute__((vector_size(vector_bytes)));
    typedef float Unaligned __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
    typedef uint32_t Bits __attribute__((vector_size(vector_bytes)));
    static constexpr Index lanes = vector_bytes / sizeof(float);
};

template <> struct Simd<double> {
    typedef double V __attribute__((vector_size(vector_bytes)));
    typedef double Unaligned __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
    typedef uint64_t Bits __attribute__((vector_size(vector_bytes)));
    static constexpr Index lanes = vector_bytes / sizeof(double);
};

template <class T> INLINE typename Simd<T>::V load(const T* p) {
    return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p);
}
template <class T> INLINE void store(T* p, typename Simd<T>::V v) {
    *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v;
}
template <class T> INLINE typename Simd<T>::Bits bits(typename Simd<T>::V v) {
    return reinterpret_cast<typename Simd<T>::Bits>(v);
}
template <class T> INLINE typename Simd<T>::V from_bits(typename Simd<T>::Bits b) {
    return reinterpret_cast<typename Simd<T>::V>(b);
}

template <class T> using Vector = typename Simd<T>::V;

template <class T> INLINE Vector<T> splat(T x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return reinterpret_cast<Vector<T>>(_mm512_set1_ps(x));
    else return reinterpret_cast<Vector<T>>(_mm512_set1_pd(x));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return reinterpret_cast<Vector<T>>(_mm256_set1_ps(x));
    else return reinterpret_cast<Vector<T>>(_mm256_set1_pd(x));
#else
    return Vector<T>{} + x;
#endif
}

// The first `count` elements, zero behind them; all of them where count is a whole vector or more.
template <class T> INLINE Vector<T> load(const T* p, Index count) {
    if (count >= Simd<T>::lanes) return load<T>(p);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p));
    else
        return reinterpret_cast<Vector<T>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), p));
#else
    T padded[Simd<T>::lanes] = {};
    for (Index i = 0; i < count; i++) padded[i] = p[i];
    return load<T>(padded);
#endif
}

template <class T> INLINE void store(T* p, Vector<T> v, Index count) {
    if (count >= Simd<T>::lanes) return store<T>(p, v);
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), reinterpret_cast<__m512>(v));
    else
        _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1), reinterpret_cast<__m512d>(v));
#else
    T padded[Simd<T>::lanes];
    store<T>(padded, v);
    for (Index i = 0; i < count; i++) p[i] = padded[i];
#endif
}

// Past the caches, to an aligned place: for what is too large to be found there later. Without it the line
// would first be read from memory.
template <class T> INLINE void stream(T* p, Vector<T> v) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) _mm512_stream_ps(p, reinterpret_cast<__m512>(v));
    else _mm512_stream_pd(p, reinterpret_cast<__m512d>(v));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) _mm256_stream_ps(p, reinterpret_cast<__m256>(v));
    else _mm256_stream_pd(p, reinterpret_cast<__m256d>(v));
#else
    store<T>(p, v);
#endif
}

// Whether so many bytes are too many to be found in a cache when they are read.
INLINE bool beyond_cache(size_t bytes) { return bytes > size_t(4) << 20; }

// Whether an array in rows of this length begins each with a whole vector.
template <class T> INLINE bool in_vectors(const T* array, Index row) {
    return row % Simd<T>::lanes == 0 && reinterpret_cast<uintptr_t>(array) % vector_bytes == 0;
}

// Streams a run of elements to a place that need not be aligned; its ends are stored.
template <class T> INLINE void stream_all(const T* from, Index count, T* to) {
    const Index beyond = static_cast<Index>(reinterpret_cast<uintptr_t>(to) % vector_bytes / sizeof(T));
    Index i = beyond ? std::min(count, Simd<T>::lanes - beyond) : 0;
    if (i) store<T>(to, load<T>(from, i), i);
    for (; i + Simd<T>::lanes <= count; i += Simd<T>::lanes) stream<T>(to + i, load<T>(from + i));
    if (i < count) store<T>(to + i, load<T>(from + i, count - i), count - i);
}

// Streamed stores are seen by other threads only behind this.
INLINE void end_streaming() {
#if defined(MOMENTUMRNN_X86)
    _mm_sfence();
#endif
}

// Where it is known at compile time that all elements are there.
template <class T, bool whole> INLINE Vector<T> read(const T* p, Index count) {
    if constexpr (whole) return load<T>(p);
    else return load<T>(p, count);
}

template <class T, bool whole> INLINE void write(T* p, Vector<T> v, Index count) {
    if constexpr (whole) store<T>(p, v);
    else store<T>(p, v, count);
}

// The second where either is NaN.
template <class T> INLINE Vector<T> maximum(Vector<T> a, Vector<T> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return reinterpret_cast<Vector<T>>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
        return reinterpret_cast<Vector<T>>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#endif
    return a > b ? a : b;
}

template <class T> INLINE Vector<T> minimum(Vector<T> a, Vector<T> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
        return reinterpret_cast<Vector<T>>(_mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4)
        return reinterpret_cast<Vector<T>>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
#endif
    return a < b ? a : b;
}

// 1 / x to about the last bit. In float32 an estimate and one Newton step beat the division unit.
template <class T> INLINE Vector<T> reciprocal(Vector<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const Vector<T> r = reinterpret_cast<Vector<T>>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
        return r * (T(2) - x * r);
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) {
        const Vector<T> r = reinterpret_cast<Vector<T>>(_mm256_rcp_ps(reinterpret_cast<__m256>(x)));
        return r * (T(2) - x * r);
    }
#endif
    return T(1) / x;
}

// 1 / √x for x > 0.
template <class T> INLINE Vector<T> reciprocal_root(Vector<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const Vector<T> r = reinterpret_cast<Vector<T>>(_mm512_rsqrt14_ps(reinterpret_cast<__m512>(x)));
        return r * (T(1.5) - (x * r) * (T(0.5) * r));
    } else {
        return T(1) / reinterpret_cast<Vector<T>>(_mm512_sqrt_pd(reinterpret_cast<__m512d>(x)));
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) {
        const Vector<T> r = reinterpret_cast<Vector<T>>(_mm256_rsqrt_ps(reinterpret_cast<__m256>(x)));
        return r * (T(1.5) - (x * r) * (T(0.5) * r));
    } else {
        return T(1) / reinterpret_cast<Vector<T>>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(x)));
    }
#else
    T elements[Simd<T>::lanes];
    store<T>(elements, x);
    for (T& e : elements) e = T(1) / std::sqrt(e);
    return load<T>(elements);
#endif
}

INLINE void prefetch(const void* p) {
    __builtin_prefetch(p);
}

// Into the second level of cache only: for what the next time step will read.
INLINE void prefetch_later(const void* p) {
    __builtin_prefetch(p, 0, 2);
}

// Vanishing gradients end in denormal numbers, a hundred times slower each; zero serves as well.
class FlushDenormals {
public:
    FlushDenormals() {
#if defined(MOMENTUMRNN_X86)
        before_ = _mm_getcsr();
        _mm_setcsr(before_ | 0x8040u);
#elif defined(__aarch64__)
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" ::"r"(before_ | (uint64_t(1) << 24)));
#endif
    }
    ~FlushDenormals() {
#if defined(MOMENTUMRNN_X86)
        _mm_setcsr(before_);
#elif defined(__aarch64__)
        asm volatile("msr fpcr, %0" ::"r"(before_));
#endif
    }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

private:
#if defined(MOMENTUMRNN_X86)
    unsigned before_;
#elif defined(__aarch64__)
    uint64_t before_;
#endif
};

}  // namespace momentumrnn::MOMENTUMRNN_ISA
