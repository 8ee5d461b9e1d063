// The kernels without Python and torch: for ThreadSanitizer, for other compilers and for other processors.
//
// Each problem is run alone, and its gradients in float64 are held to differences of its results. Then eight
// threads run all of them, some with teams of their own, while a ninth empties the pool: every bit has to come
// out again. What is printed is the same on every machine, but for rounding. How to build it: CONTRIBUTING.md.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "isa.h"
#include "pool.h"

using namespace momentumrnn;

namespace {

template <class T> using Array = std::vector<T>;

template <class T> Array<T> draw(size_t count, double low, double high) {
    static std::mt19937 generator(0);
    Array<T> drawn(count);
    for (T& value : drawn) value = static_cast<T>(low + (high - low) * static_cast<double>(generator()) / 4294967296.0);
    return drawn;
}

template <class T> T* place(Array<T>& array) { return array.empty() ? nullptr : array.data(); }

// What a problem reads and writes, and its two passes over it. `kept` is what the forward pass leaves for the
// backward pass; the gradient of an input is empty where the kernel makes none.
template <class T> struct Case {
    std::string name;
    Array<Array<T>> in, out, kept, grad_in, grad_out;
    std::function<void(Case&)> forward, backward;

    void given(size_t count, bool differentiable = true, double low = -0.5, double high = 0.5) {
        in.push_back(draw<T>(count, low, high));
        grad_in.emplace_back(differentiable ? count : 0);
    }
    void made(size_t count) {
        out.emplace_back(count);
        grad_out.push_back(draw<T>(count, -1, 1));
    }
    void run() {
        forward(*this);
        backward(*this);
    }
    T* input(int k) { return place(in[k]); }
    T* gradient(int k) { return place(grad_in[k]); }
};

// The rows of a batch whose sequences have these lengths, longest first.
struct Batch {
    std::vector<int64_t> sizes;
    std::vector<Index> offsets{0};
    bool dense;

    explicit Batch(const std::vector<Index>& lengths) : dense(lengths.front() == lengths.back()) {
        for (Index t = 0; t < lengths.front(); t++) {
            sizes.push_back(0);
            for (const Index length : lengths) sizes.back() += length > t;
            offsets.push_back(offsets.back() + sizes.back());
        }
    }
    Rows rows() const {
        return {static_cast<Index>(sizes.size()), sizes[0], dense ? nullptr : sizes.data(), dense ? nullptr : offsets.data()};
    }
};

// D features, or none for ready gate inputs.
template <class T>
Case<T> recurrence(Cell cell, Split split, int threads, const Batch& batch, Index D, Index H) {
    const bool lstm = cell >= Cell::lstm, gru = cell == Cell::gru;
    const Index gates = cell == Cell::lstm ? 4 : gru || lstm ? 3 : 1, saved = gru ? 4 : lstm ? gates : 0;
    const Index B = batch.rows().batch, N = batch.offsets.back();
    Case<T> c;
    c.name = "recurrence " + std::to_string(static_cast<int>(cell)) + (split == Split::rows ? " rows" : " units");
    c.given(N * (D ? D : gates * H));
    c.given(gates * H * D);
    c.given(gates * H);
    c.given(gates * H * H, true, -1 / std::sqrt(H), 1 / std::sqrt(H));
    c.given(gates * H);
    c.given(cell == Cell::rnn_modrelu ? H : 0, true, -0.1, 0.0);
    c.given(B * H);
    c.given(lstm ? B * H : 0);
    c.made(N * H);
    c.made(B * H);
    c.made(lstm ? B * H : 0);
    const Index pitch = D ? H : H + 7;
    c.kept = {Array<T>(N * saved * pitch), Array<T>(lstm ? N * H : 0)};
    const auto describe = [=](Case<T>& own, Recurrence<T>& p) {
        p = {cell, split, threads, batch.rows(), D ? D : gates * H, H, D ? own.input(0) : nullptr, own.input(1), own.input(2),
             D ? nullptr : own.input(0), own.input(3), own.input(4), own.input(5), own.input(6), own.input(7),
             place(own.out[0]), place(own.kept[0]), pitch, place(own.kept[1])};
    };
    c.forward = [=](Case<T>& own) {
        Forward<T> p{};
        describe(own, p);
        p.h_n = place(own.out[1]);
        p.c_n = place(own.out[2]);
        if constexpr (sizeof(T) == 4) kernels().forward_f32(p);
        else kernels().forward_f64(p);
    };
    c.backward = [=](Case<T>& own) {
        Backward<T> p{};
        describe(own, p);
        p.grad_output = place(own.grad_out[0]);
        p.grad_h_n = place(own.grad_out[1]);
        p.grad_c_n = place(own.grad_out[2]);
        (D ? p.grad_x : p.grad_ready) = own.gradient(0);
        p.grad_weight_ih = own.gradient(1);
        p.grad_bias_ih = own.gradient(2);
        p.grad_weight_hh = own.gradient(3);
        p.grad_bias_hh = own.gradient(4);
        p.grad_modrelu_bias = own.gradient(5);
        p.grad_h_0 = own.gradient(6);
        p.grad_c_0 = own.gradient(7);
        if constexpr (sizeof(T) == 4) kernels().backward_f32(p);
        else kernels().backward_f64(p);
    };
    return c;
}

// D features, or none for a ready drive, W x.
template <class T> Case<T> channel_rule(Rule rule, int threads, const Batch& batch, Index D, Index C) {
    constexpr Index interval = 4;
    const Index B = batch.rows().batch, N = batch.offsets.back();
    const bool one_state = rule == Rule::real_filter;
    const Index K = rule == Rule::adam ? 4 : one_state ? 3 : 5;
    const char* const names[] = {"adam", "real filter", "complex filter"};
    Case<T> c;
    c.name = std::string(names[static_cast<int>(rule)]) + (D ? ", drive made" : ", drive ready");
    c.given(N * (D ? D : C), !D);
    c.given(C * D);
    c.given(C);
    c.given(K * C, true, 0.2, rule == Rule::adam ? 0.8 : 0.6);
    c.given(B * C);
    c.given(one_state ? 0 : B * C, true, 0.5, 1.0);
    c.made(N * C);
    c.made(B * C);
    c.made(one_state ? 0 : B * C);
    const size_t states = (batch.sizes.size() / interval + 2) * B * C;
    c.kept = {Array<T>((one_state ? 1 : 2) * states)};
    const auto describe = [=](Case<T>& own, ChannelRule<T>& p) {
        p = {rule, threads, batch.rows(), C, 1e-3, own.input(3), D ? nullptr : own.input(0), D ? own.input(0) : nullptr,
             D, own.input(1), own.input(2), {own.input(4), own.input(5)}, place(own.kept[0]), interval};
    };
    c.forward = [=](Case<T>& own) {
        RuleForward<T> p{};
        describe(own, p);
        p.output = place(own.out[0]);
        p.last[0] = place(own.out[1]);
        p.last[1] = place(own.out[2]);
        if constexpr (sizeof(T) == 4) kernels().rule_forward_f32(p);
        else kernels().rule_forward_f64(p);
    };
    c.backward = [=](Case<T>& own) {
        RuleBackward<T> p{};
        describe(own, p);
        p.grad_output = place(own.grad_out[0]);
        p.grad_last[0] = place(own.grad_out[1]);
        p.grad_last[1] = place(own.grad_out[2]);
        p.grad_drive = own.gradient(0);
        p.grad_weight = own.gradient(1);
        p.grad_bias = own.gradient(2);
        p.grad_coefficients = own.gradient(3);
        p.grad_initial[0] = own.gradient(4);
        p.grad_initial[1] = own.gradient(5);
        if constexpr (sizeof(T) == 4) kernels().rule_backward_f32(p);
        else kernels().rule_backward_f64(p);
    };
    return c;
}

template <class T> Case<T> linear(int threads, const Batch& batch, Index D) {
    const Index B = batch.rows().batch, N = batch.offsets.back();
    const std::vector<double> decay = draw<double>(batch.sizes.size(), 0.0, 1.0);
    Case<T> c;
    c.name = "linear";
    c.given(N * D);
    c.made(N * (D + 1));
    c.made(B * (D + 1));
    const auto describe = [=](Linear<T>& p) { p = {threads, batch.rows(), D, 1, 0.7, decay.data(), 1, 0}; };
    c.forward = [=](Case<T>& own) {
        LinearForward<T> p{};
        describe(p);
        p.x = own.input(0);
        p.output = place(own.out[0]);
        p.last = place(own.out[1]);
        if constexpr (sizeof(T) == 4) kernels().linear_forward_f32(p);
        else kernels().linear_forward_f64(p);
    };
    c.backward = [=](Case<T>& own) {
        LinearBackward<T> p{};
        describe(p);
        p.grad_output = place(own.grad_out[0]);
        p.grad_last = place(own.grad_out[1]);
        p.grad_x = own.gradient(0);
        if constexpr (sizeof(T) == 4) kernels().linear_backward_f32(p);
        else kernels().linear_backward_f64(p);
    };
    return c;
}

template <class T> std::vector<Case<T>> cases() {
    const Batch dense({9, 9, 9, 9, 9}), packed({11, 7, 7, 2, 1});
    std::vector<Case<T>> all;
    for (int cell = 0; cell < 6; cell++)
        for (const Split split : {Split::rows, Split::units}) {
            all.push_back(recurrence<T>(static_cast<Cell>(cell), split, 3, dense, 3, 37));
            all.push_back(recurrence<T>(static_cast<Cell>(cell), split, 2, packed, 0, 33));
        }
    // Large enough for the pool.
    all.push_back(recurrence<T>(Cell::lstm, Split::units, 2, Batch({3, 3}), 2, 300));
    for (const Rule rule : {Rule::adam, Rule::real_filter, Rule::complex_filter})
        for (const Index D : {0, 1, 5}) {
            all.push_back(channel_rule<T>(rule, 3, dense, D, 70));
            all.push_back(channel_rule<T>(rule, 2, packed, D, 19));
        }
    // So large that results are written past the cache.
    const Batch large(std::vector<Index>(20, 500));
    all.push_back(recurrence<T>(Cell::lstm, Split::rows, 2, large, 0, 33));
    all.push_back(recurrence<T>(Cell::gru, Split::units, 2, large, 0, 48));
    all.push_back(channel_rule<T>(Rule::adam, 3, large, 0, 110));
    all.push_back(linear<T>(2, packed, 3));
    return all;
}

template <class T> double product(const Array<Array<T>>& a, const Array<Array<T>>& b) {
    double sum = 0;
    for (size_t k = 0; k < a.size(); k++)
        for (size_t i = 0; i < a[k].size() && i < b[k].size(); i++) sum += static_cast<double>(a[k][i]) * static_cast<double>(b[k][i]);
    return sum;
}

[[noreturn]] void fail(const std::string& name, const char* how) {
    std::printf("%s: %s\n", name.c_str(), how);
    std::exit(1);
}

void hold_to_differences(const Case<double>& alone) {
    Array<Array<double>> direction;
    for (const Array<double>& grad : alone.grad_in) direction.push_back(draw<double>(grad.size(), -1, 1));
    const auto loss = [&](double step) {
        Case<double> moved = alone;
        for (size_t k = 0; k < direction.size(); k++)
            for (size_t i = 0; i < direction[k].size(); i++) moved.in[k][i] += step * direction[k][i];
        moved.forward(moved);
        return product(moved.out, moved.grad_out);
    };
    const double slope = product(alone.grad_in, direction), difference = (loss(1e-6) - loss(-1e-6)) / 2e-6;
    std::printf("%-24s result %.6e  slope %.6e\n", alone.name.c_str(), product(alone.out, alone.grad_out), slope);
    if (!(std::abs(slope - difference) <= 1e-6 * (1 + std::abs(slope)))) fail(alone.name, "a wrong gradient");
}

template <class T> void run_again(const std::vector<Case<T>>& all, size_t from) {
    for (size_t k = 0; k < all.size(); k++) {
        const Case<T>& alone = all[(from + k) % all.size()];
        Case<T> again = alone;
        for (Array<Array<T>>* results : {&again.out, &again.kept, &again.grad_in})
            for (Array<T>& result : *results) std::fill(result.begin(), result.end(), T(NAN));
        again.run();
        if (again.out != alone.out || again.grad_in != alone.grad_in) fail(alone.name, "other bits among threads");
    }
}

}  // namespace

int main(int count, char** words) {
    const int rounds = count > 1 ? std::atoi(words[1]) : 5;
    std::vector<Case<float>> narrow = cases<float>();
    std::vector<Case<double>> wide = cases<double>();
    for (Case<float>& each : narrow) each.run();
    for (Case<double>& each : wide) {
        each.run();
        hold_to_differences(each);
    }
    std::atomic<bool> done{false};
    std::thread emptier([&] {
        while (!done) {
            set_pool_cap(pool_state().idle / 2);
            empty_pool();
            set_pool_cap(size_t(1) << 30);
            std::this_thread::yield();
        }
    });
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++)
        threads.emplace_back([&, i] {
            for (int round = 0; round < rounds; round++) {
                run_again(narrow, static_cast<size_t>(i * 5 + round));
                run_again(wide, static_cast<size_t>(i * 3 + round));
            }
        });
    for (std::thread& thread : threads) thread.join();
    done = true;
    emptier.join();
    if (pool_state().in_use) fail("pool", "memory that nobody gave back");
    std::printf("%s: eight threads, %d rounds, the same bits\n", kernels().name, rounds);
}
