// Matrix products on register tiles: a few rows times two vectors of columns, summed over k.
//
// A "panel" is a strip of a matrix, one or two vectors wide, with its k rows one behind the other.
// A sum's order over k depends on the height of its tile, and so its last bits on how the work is split.
#pragma once

#include "simd.h"

namespace momentumrnn::MOMENTUMRNN_ISA {

// One register tile's work: c = start + bias + a * panel (+ a2 * panel2), rows x (vectors * lanes).
template <class T> struct Tile {
    const T* a;         // (rows, k), rows lda apart
    Index lda, k;
    const T* panel;     // (k + k2, vectors * lanes), contiguous: the second product's part behind the first's
    const T* a2;        // (rows, k2), rows lda2 apart; unused where k2 is 0
    Index lda2, k2;
    const T* start;     // (rows, columns), rows start_ld apart, or null for zero
    Index start_ld;
    const T* bias;      // (vectors * lanes), or null for zero
    T* c;               // (rows, columns), rows ldc apart; may be start
    Index ldc;
    Index columns;      // how many of the tile's columns exist in start and c
};

template <class T, int R, int N>
INLINE void multiply(const T* a, Index lda, const T* panel, Index k, Vector<T> (&sum)[R][N]) {
    constexpr Index L = Simd<T>::lanes;
    // Few accumulators would wait for each other; several sets of them over k do not.
    constexpr int sets = R * N <= 4 ? 4 : R * N <= 8 ? 2 : 1;
    Index i = 0;
    if constexpr (sets > 1) {
        Vector<T> part[sets][R][N];
        for (int s = 0; s < sets; s++)
            for (int r = 0; r < R; r++)
                for (int n = 0; n < N; n++) part[s][r][n] = Vector<T>{};
        for (; i + sets <= k; i += sets) {
            UNROLL
            for (int s = 0; s < sets; s++) {
                const T* row = panel + (i + s) * N * L;
                Vector<T> b[N];
                UNROLL
                for (int n = 0; n < N; n++) b[n] = load<T>(row + n * L);
                UNROLL
                for (int r = 0; r < R; r++) {
                    const Vector<T> x = splat(a[r * lda + i + s]);
                    UNROLL
                    for (int n = 0; n < N; n++) part[s][r][n] += x * b[n];
                }
            }
        }
        for (int s = 0; s < sets; s++)
            for (int r = 0; r < R; r++)
                for (int n = 0; n < N; n++) sum[r][n] += part[s][r][n];
    }
    for (; i < k; i++) {
        const T* row = panel + i * N * L;
        Vector<T> b[N];
        UNROLL
        for (int n = 0; n < N; n++) {
            b[n] = load<T>(row + n * L);
            prefetch(row + 24 * N * L + n * L);
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            const Vector<T> x = splat(a[r * lda + i]);
            UNROLL
            for (int n = 0; n < N; n++) sum[r][n] += x * b[n];
        }
    }
}

template <class T, int R, int N> NOINLINE void run_tile(const Tile<T>& q) {
    constexpr Index L = Simd<T>::lanes;
    Vector<T> sum[R][N];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int n = 0; n < N; n++) {
            sum[r][n] = q.start ? load<T>(q.start + r * q.start_ld + n * L, q.columns - n * L) : Vector<T>{};
            if (q.bias) sum[r][n] += load<T>(q.bias + n * L);
        }
    multiply<T, R, N>(q.a, q.lda, q.panel, q.k, sum);
    if (q.k2) multiply<T, R, N>(q.a2, q.lda2, q.panel + q.k * N * L, q.k2, sum);
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int n = 0; n < N; n++) store<T>(q.c + r * q.ldc + n * L, sum[r][n], q.columns - n * L);
}

template <class T, int R> INLINE void choose_rows(Index rows, int vectors, const Tile<T>& q) {
    if constexpr (R > 0) {
        if (rows == R) vectors == 2 ? run_tile<T, R, 2>(q) : run_tile<T, R, 1>(q);
        else choose_rows<T, R - 1>(rows, vectors, q);
    }
}

// Any number of rows, cut into tiles as equal as can be.
template <class T> INLINE void product(Index rows, int vectors, const Tile<T>& all) {
    const Index tiles = (rows + tile_rows - 1) / tile_rows;
    for (Index i = 0; i < tiles; i++) {
        const Index r0 = rows * i / tiles, r1 = rows * (i + 1) / tiles;
        Tile<T> q = all;
        q.a += r0 * q.lda;
        if (q.k2) q.a2 += r0 * q.lda2;
        if (q.start) q.start += r0 * q.start_ld;
        q.c += r0 * q.ldc;
        choose_rows<T, tile_rows>(r1 - r0, vectors, q);
    }
}

// c += aᵀ b over k rows, both operands as they lie: a (k, rows), b (k, vectors * lanes), of c's columns as many
// as exist. The sums of one call are added to c at its end.
template <class T, int R, int N>
NOINLINE void run_outer(const T* a, Index lda, const T* b, Index ldb, Index k, T* c, Index ldc, Index columns) {
    constexpr Index L = Simd<T>::lanes;
    Vector<T> sum[R][N];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int n = 0; n < N; n++) sum[r][n] = Vector<T>{};
    for (Index i = 0; i < k; i++) {
        Vector<T> v[N];
        prefetch(a + (i + 8) * lda);
        UNROLL
        for (int n = 0; n < N; n++) {
            v[n] = load<T>(b + i * ldb + n * L);
            prefetch(b + (i + 8) * ldb + n * L);
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            const Vector<T> x = splat(a[i * lda + r]);
            UNROLL
            for (int n = 0; n < N; n++) sum[r][n] += x * v[n];
        }
    }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int n = 0; n < N; n++)
            store<T>(c + r * ldc + n * L, load<T>(c + r * ldc + n * L, columns - n * L) + sum[r][n], columns - n * L);
}

template <class T, int R>
INLINE void choose_outer(Index rows, int vectors, const T* a, Index lda, const T* b, Index ldb, Index k, T* c, Index ldc,
                         Index columns) {
    if constexpr (R > 0) {
        if (rows != R) choose_outer<T, R - 1>(rows, vectors, a, lda, b, ldb, k, c, ldc, columns);
        else if (vectors == 2) run_outer<T, R, 2>(a, lda, b, ldb, k, c, ldc, columns);
        else run_outer<T, R, 1>(a, lda, b, ldb, k, c, ldc, columns);
    }
}

template <class T>
INLINE void outer_product(Index rows, int vectors, const T* a, Index lda, const T* b, Index ldb, Index k, T* c, Index ldc,
                          Index columns) {
    const Index tiles = (rows + tile_rows - 1) / tile_rows;
    for (Index i = 0; i < tiles; i++) {
        const Index r0 = rows * i / tiles, r1 = rows * (i + 1) / tiles;
        choose_outer<T, tile_rows>(r1 - r0, vectors, a + r0, lda, b, ldb, k, c + r0 * ldc, ldc, columns);
    }
}

}  // namespace momentumrnn::MOMENTUMRNN_ISA
