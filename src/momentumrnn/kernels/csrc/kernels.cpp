// All kernels for one instruction set. Compiled once for each, with MOMENTUMRNN_ISA its name.

#ifndef MOMENTUMRNN_ISA
#define MOMENTUMRNN_ISA baseline
#endif

#include "backward.h"
#include "forward.h"
#include "linear.h"
#include "rule_backward.h"
#include "rule_forward.h"

#define MOMENTUMRNN_TEXT(name) #name
#define MOMENTUMRNN_NAME(name) MOMENTUMRNN_TEXT(name)
#define MOMENTUMRNN_JOIN(a, b) a##b
#define MOMENTUMRNN_TABLE(name) MOMENTUMRNN_JOIN(kernels_, name)

namespace momentumrnn::MOMENTUMRNN_ISA {
namespace {

template <class T, template <class, class> class Run, class Problem> void run(const Problem& p) {
    switch (p.cell) {
    case Cell::rnn_tanh: return Run<T, Rnn<T, Cell::rnn_tanh>>(p).run();
    case Cell::rnn_relu: return Run<T, Rnn<T, Cell::rnn_relu>>(p).run();
    case Cell::rnn_modrelu: return Run<T, Rnn<T, Cell::rnn_modrelu>>(p).run();
    case Cell::gru: return Run<T, Gru<T>>(p).run();
    case Cell::lstm: return Run<T, Lstm<T, true>>(p).run();
    case Cell::lstm_without_forget_gate: return Run<T, Lstm<T, false>>(p).run();
    }
}

template <class T> void forward(const Forward<T>& p) { run<T, ForwardRun>(p); }
template <class T> void backward(const Backward<T>& p) { run<T, BackwardRun>(p); }

}  // namespace
}  // namespace momentumrnn::MOMENTUMRNN_ISA

namespace momentumrnn {

extern const Kernels MOMENTUMRNN_TABLE(MOMENTUMRNN_ISA);
const Kernels MOMENTUMRNN_TABLE(MOMENTUMRNN_ISA) = {
    MOMENTUMRNN_NAME(MOMENTUMRNN_ISA),
    MOMENTUMRNN_ISA::forward<float>,
    MOMENTUMRNN_ISA::forward<double>,
    MOMENTUMRNN_ISA::backward<float>,
    MOMENTUMRNN_ISA::backward<double>,
    MOMENTUMRNN_ISA::rule_forward<float>,
    MOMENTUMRNN_ISA::rule_forward<double>,
    MOMENTUMRNN_ISA::rule_backward<float>,
    MOMENTUMRNN_ISA::rule_backward<double>,
    MOMENTUMRNN_ISA::linear_forward<float>,
    MOMENTUMRNN_ISA::linear_forward<double>,
    MOMENTUMRNN_ISA::linear_backward<float>,
    MOMENTUMRNN_ISA::linear_backward<double>,
};

}  // namespace momentumrnn
