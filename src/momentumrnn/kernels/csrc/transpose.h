// Matrices turned round, by squares of as many vectors as a vector has elements: one by one, each element's store
// would keep the next one's load waiting.
#pragma once

#include <utility>

#include "simd.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// From which of two vectors' elements, counted through, element j of the first or of the second comes where they
// exchange parts of `size` elements.
constexpr int source_of(int j, int size, bool second, int lanes) {
    if (second) return j & size ? lanes + j : j + size;
    return j & size ? lanes + j - size : j;
}

template <class T, int size, bool second, int... j>
INLINE Vector<T> exchange(Vector<T> a, Vector<T> b, std::integer_sequence<int, j...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, source_of(j, size, second, sizeof...(j))...);
#else
    return __builtin_shuffle(a, b, typename Simd<T>::Bits{source_of(j, size, second, sizeof...(j))...});
#endif
}

template <class T, int size = 1> INLINE void transpose(Vector<T> (&square)[Simd<T>::lanes]) {
    constexpr int lanes = Simd<T>::lanes;
    if constexpr (size < lanes) {
        constexpr std::make_integer_sequence<int, lanes> all{};
        UNROLL
        for (int i = 0; i < lanes; i++) {
            if (i & size) continue;
            const Vector<T> a = square[i], b = square[i + size];
            square[i] = exchange<T, size, false>(a, b, all);
            square[i + size] = exchange<T, size, true>(a, b, all);
        }
        transpose<T, 2 * size>(square);
    }
}

// panel[k][u] = rows[u][k] for u < count and k < depth, zero for the other u: `width` in all, whole vectors.
template <class T>
NOINLINE void transpose_into(const T* rows, Index ld, Index count, Index depth, T* panel, Index width) {
    constexpr Index L = Simd<T>::lanes;
    for (Index u0 = 0; u0 < width; u0 += L)
        for (Index k0 = 0; k0 < depth; k0 += L) {
            Vector<T> square[L];
            UNROLL
            for (Index u = 0; u < L; u++)
                square[u] = u0 + u < count ? load<T>(rows + (u0 + u) * ld + k0, depth - k0) : Vector<T>{};
            transpose<T>(square);
            UNROLL
            for (Index k = 0; k < L; k++)
                if (k0 + k < depth) store<T>(panel + (k0 + k) * width + u0, square[k]);
        }
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
